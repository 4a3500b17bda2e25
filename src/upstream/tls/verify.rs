//! Verifies a server's certificate with webpki, and explains the result.
//!
//! What webpki refuses is refused, with two exceptions. A certificate that is in `tls.ca` or `tls.ca_extra` byte for byte is
//! accepted even if its path is wrong; its name and its dates must still be right. Self-signed partners are common, and
//! OpenSSL's clients accept them like this. And a certificate may have critical policies: webpki does not know them,
//! [`policies`] checks them ([`chain`](super::chain)).
//!
//! Each key of a path must be allowed to do what it does ([`usage`]). Pins and revocation can only refuse more. A pin must be
//! the key of a certificate in the verified chain, its root included: other certificates that a server sends prove nothing.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::certificate::{self, system_time};
use super::chain::ServerChain;
use super::explain::Presented;
use super::fault::CertificateFault;
use super::policies;
use super::revocation::Revocation;
use super::usage;
use crate::config::Pin;
use crate::secret::anchors::Anchors;
use crate::sync::lock;

/// Verifies servers against one set of roots.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Certificates that the user named: each is trusted as a server's certificate as well.
    pub(super) named: Vec<CertificateDer<'static>>,
    /// A chain must have one of these keys; empty: any chain is accepted.
    pub(super) pins: Vec<Pin>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) revocation: Revocation,
    /// Empty: only the named certificates are trusted.
    pub(super) anchors: Arc<Anchors>,
}

/// The verifier of a group of sessions. rustls resumes a session only with the verifier that accepted its certificate. It
/// knows until when all certificates that it accepted are valid.
#[derive(Debug)]
pub(super) struct Generation {
    until: Mutex<Option<SystemTime>>,
    verifier: Arc<Verifier>,
}

impl Generation {
    pub(super) fn new(verifier: &Arc<Verifier>) -> Self {
        Self {
            until: Mutex::default(),
            verifier: Arc::clone(verifier),
        }
    }

    /// Returns the end of the first certificate or list on which an accepted certificate rests; `None` before the first.
    pub(super) fn until(&self) -> Option<SystemTime> {
        *lock(&self.until)
    }

    fn rests_on(&self, end: SystemTime) {
        let mut until = lock(&self.until);
        *until = Some(until.map_or(end, |until| until.min(end)));
    }
}

impl Verifier {
    /// Returns until when the certificate and the lists that were used are valid; or why it is refused.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<SystemTime, CertificateFault> {
        let presented = || Presented::new(leaf, intermediates);
        let explain = |error| presented().fault(error, &self.revocation, system_time(now));
        let chain = ServerChain::new(leaf, intermediates);
        let certificate = EndEntityCert::try_from(chain.leaf()).map_err(explain)?;
        // Checks a path that webpki has verified. If it is refused, webpki looks for another one.
        let said = RefCell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            let judged = self.judge_path(path, &chain, now);
            let is_refused = judged.is_err();
            said.replace(Some(judged));
            if is_refused {
                Err(webpki::Error::CertDistrusted)
            } else {
                Ok(())
            }
        };
        let verified = self.revocation.with(|revocation| {
            chain.with(
                self.provider.signature_verification_algorithms.all,
                |algorithms| {
                    let verified = certificate.verify_for_usage(
                        algorithms,
                        self.anchors.roots(),
                        chain.intermediates(),
                        now,
                        KeyUsage::server_auth(),
                        revocation,
                        Some(&judge),
                    );
                    verified.map(drop)
                },
            )
        });
        let until = match (verified, said.take()) {
            (Ok(()), Some(judged)) => judged?,
            (Err(error), said)
                if self.named.contains(leaf)
                    && may_stand_for_itself(&error, said.as_ref(), self.revocation.is_asked()) =>
            {
                let until = presented().own_validity(now)?;
                let key = hash(&certificate.subject_public_key_info());
                if !self.pins.is_empty() && !self.pins.contains(&key) {
                    let keys = listed(&[(presented().title(), key)]);
                    return Err(CertificateFault::Pins { keys });
                }
                until
            }
            (Err(_), Some(Err(fault))) => return Err(fault),
            (Err(error), _) => return Err(explain(error)),
            // webpki has called the check before it accepts a path.
            (Ok(()), None) => return Err(CertificateFault::Unusable("its path was not judged".to_owned())),
        };
        certificate
            .verify_is_valid_for_subject_name(name)
            .map_err(explain)?;
        Ok(until)
    }

    /// Checks what webpki does not: key usage, policies and pins.
    fn judge_path(
        &self,
        path: &VerifiedPath<'_>,
        chain: &ServerChain<'_>,
        now: UnixTime,
    ) -> Result<SystemTime, CertificateFault> {
        let above = path.intermediate_certificates().map(|one| one.der());
        let ders: Vec<_> = std::iter::once(path.end_entity().der()).chain(above).collect();
        let parse = |der| certificate::parse(chain.original(der)).ok_or_else(usage::unreadable);
        let parsed = ders.iter().map(|der| parse(der));
        let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
        usage::judge(&parsed, path.anchor(), &self.anchors, self.revocation.is_asked())?;
        policies::judge(&parsed)?;
        if !self.pins.is_empty() {
            let keys = keys(path);
            if !keys.iter().any(|(_, key)| self.pins.contains(key)) {
                return Err(CertificateFault::Pins { keys: listed(&keys) });
            }
        }
        let ends = parsed.iter().map(|one| certificate::validity(one).1);
        let until = ends.min().unwrap_or(SystemTime::UNIX_EPOCH);
        let issuers: Vec<_> = parsed.iter().map(|one| one.issuer().as_raw()).collect();
        let of_lists = self.revocation.until(&issuers, system_time(now));
        let of_lists = of_lists.map_err(|(place, why)| {
            let name = keys(path).swap_remove(place).0;
            CertificateFault::RevocationUnknown { name, why }
        })?;
        Ok(of_lists.map_or(until, |list| list.min(until)))
    }

    /// Adds what the certificate shows about a signature that cannot be right.
    fn weighed<T>(result: Result<T, rustls::Error>, leaf: &CertificateDer<'_>) -> Result<T, rustls::Error> {
        result.map_err(|error| match &error {
            rustls::Error::InvalidCertificate(_) => super::explain::weak_key(leaf).map_or(error, of_fault),
            _ => error,
        })
    }
}

impl ServerCertVerifier for Generation {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verifier.judge(leaf, intermediates, name, now) {
            Ok(until) => {
                self.rests_on(until);
                Ok(ServerCertVerified::assertion())
            }
            Err(fault) => Err(of_fault(fault)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.verifier.provider.signature_verification_algorithms;
        let chain = ServerChain::new(leaf, &[]);
        Verifier::weighed(
            verify_tls12_signature(message, chain.leaf(), signed, algorithms),
            leaf,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.verifier.provider.signature_verification_algorithms;
        let chain = ServerChain::new(leaf, &[]);
        Verifier::weighed(
            verify_tls13_signature(message, chain.leaf(), signed, algorithms),
            leaf,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        (self.verifier.provider)
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Whether an error of the path does not matter for a certificate that is trusted itself. If there are lists, they are
/// checked all the same if its issuer is known, and no other error may hide their result.
fn may_stand_for_itself(
    error: &webpki::Error,
    said: Option<&Result<SystemTime, CertificateFault>>,
    has_lists: bool,
) -> bool {
    match (error, said) {
        (webpki::Error::CertDistrusted, Some(Err(fault))) => {
            !matches!(fault, CertificateFault::RevocationUnknown { .. })
        }
        (webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity, _) => true,
        _ => !has_lists,
    }
}

/// The peer gets the alert `certificate_unknown`; the fault itself is for our messages.
fn of_fault(fault: CertificateFault) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(fault))).into()
}

/// The names and keys of a path, from the leaf to the root.
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
