//! Whether a server is who it should be: webpki's answer, explained.
//!
//! Nothing is accepted here that webpki refuses, but for one case: a certificate that the user named in `tls.ca` or
//! `tls.ca_extra` itself, byte for byte, stands for itself although it is a CA's or its own issuer is unknown. Its name
//! and its dates must still be right. Self-signed partners are common, and OpenSSL's clients accept them so.
//!
//! Pins and revocation only ever refuse more. A pin must be the key of a certificate of the chain that was verified, its
//! root included: what a server merely sends along proves nothing.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use data_encoding::BASE64;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::certificate;
use super::explain::Presented;
use super::fault::Fault;
use super::revocation::Revocation;
use crate::config::Pin;

/// Verifies servers against one set of roots.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Certificates that the user named: each stands for itself, too.
    pub(super) named: Vec<CertificateDer<'static>>,
    /// Of which a chain must have one; empty: any chain will do.
    pub(super) pins: Vec<Pin>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) revocation: Revocation,
    /// Empty: then nobody is trusted but the named.
    pub(super) roots: Arc<RootCertStore>,
}

impl Verifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Fault> {
        let presented = || Presented::new(leaf, intermediates);
        let explain = |error| presented().fault(error, &self.revocation, system_time(now));
        let certificate = EndEntityCert::try_from(leaf).map_err(explain)?;
        // Of a path that verifies and has no key that is pinned: webpki then looks for another one.
        let unpinned = RefCell::new(None);
        let has_pin = |path: &VerifiedPath<'_>| {
            let keys = keys(path);
            match keys.iter().any(|(_, key)| self.pins.contains(key)) {
                true => Ok(()),
                false => {
                    unpinned.replace(Some(keys));
                    Err(webpki::Error::CertDistrusted)
                }
            }
        };
        let has_pin: Option<&JudgePath<'_>> = match &self.pins[..] {
            [] => None,
            _ => Some(&has_pin),
        };
        let verified = self.revocation.with(|revocation| {
            let verified = certificate.verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                revocation,
                has_pin,
            );
            verified.map(drop)
        });
        match verified {
            Ok(()) => {}
            Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity)
                if self.named.contains(leaf) =>
            {
                presented().is_of_its_time(now)?;
                let key = hash(&certificate.subject_public_key_info());
                if !self.pins.is_empty() && !self.pins.contains(&key) {
                    let keys = listed(&[(presented().title(), key)]);
                    return Err(Fault::Pins { keys });
                }
            }
            Err(error) => {
                return Err(match unpinned.take() {
                    Some(keys) => Fault::Pins { keys: listed(&keys) },
                    None => explain(error),
                });
            }
        }
        certificate
            .verify_is_valid_for_subject_name(name)
            .map_err(explain)
    }

    /// Adds what the certificate tells about a signature that cannot be right.
    fn weighed<T>(result: Result<T, rustls::Error>, leaf: &CertificateDer<'_>) -> Result<T, rustls::Error> {
        result.map_err(|error| match &error {
            rustls::Error::InvalidCertificate(_) => super::explain::weak_key(leaf).map_or(error, of_fault),
            _ => error,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.judge(leaf, intermediates, name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(fault) => Err(of_fault(fault)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        Self::weighed(verify_tls12_signature(message, leaf, signed, algorithms), leaf)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        Self::weighed(verify_tls13_signature(message, leaf, signed, algorithms), leaf)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The peer is then told `certificate_unknown`; we know more.
fn of_fault(fault: Fault) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(fault))).into()
}

/// What webpki asks about a path that it has verified.
type JudgePath<'a> = dyn Fn(&VerifiedPath<'_>) -> Result<(), webpki::Error> + 'a;

/// Whose key is which, from the leaf to the root.
type Keys = Vec<(String, Pin)>;

fn keys(path: &VerifiedPath<'_>) -> Keys {
    let title = |der: &CertificateDer<'_>| {
        let parsed = certificate::parse(der);
        parsed.map_or_else(String::new, |parsed| certificate::title(&parsed))
    };
    let leaf = path.end_entity();
    let mut keys = vec![(title(&leaf.der()), hash(&leaf.subject_public_key_info()))];
    keys.extend(
        (path.intermediate_certificates())
            .map(|one| (title(&one.der()), hash(&one.subject_public_key_info()))),
    );
    let anchor = path.anchor();
    keys.push((
        certificate::name_of_anchor(anchor),
        hash(&certificate::sequence(&anchor.subject_public_key_info)),
    ));
    keys
}

fn hash(key: &[u8]) -> Pin {
    let digest = digest::digest(&digest::SHA256, key);
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest.as_ref());
    Pin(hash)
}

fn listed(keys: &[(String, Pin)]) -> String {
    let one = |(name, key): &(String, Pin)| format!("sha256/{} ({name})", BASE64.encode(&key.0));
    keys.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(super) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}
