//! Loads the client certificate and its key, and puts the chain in order.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;
use x509_parser::extensions::KeyUsage;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};
use zeroize::Zeroize;

use super::settings_error::TlsKey;
use super::{SettingsError, TlsWarning, certificate, certificates, read};
use crate::config::{ClientCertificate, SecretRef};
use crate::secret::file::FileName;
use crate::secret::kind::KeyKind;
use crate::secret::{Secret, Snapshot, pem, pkcs12};

/// A client certificate with its key.
pub(super) struct ClientIdentity {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) life: Lifetime,
    /// Why servers may refuse its certificates.
    pub(super) warnings: Vec<TlsWarning>,
}

/// When a client certificate is valid, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// The platform renews it, shortly before its end.
    pub(crate) is_of_platform: bool,
    pub(crate) not_after: SystemTime,
    pub(crate) not_before: SystemTime,
    /// As in `0a:1b:2c`.
    pub(crate) serial: String,
}

/// The certificates and the key as read, and the keys of the configuration that name them.
struct IdentityParts {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_name: TlsKey,
    key_reference: SecretRef,
    name: TlsKey,
    reference: SecretRef,
}

impl ClientIdentity {
    /// Reads it. The certificate is the one that fits the key, in any place of the file; if several fit, the best one as of
    /// now. Its issuers follow in order; certificates that do not belong to the chain are left out.
    pub(super) fn load(from: &ClientCertificate, snapshot: &Snapshot) -> Result<Self, SettingsError> {
        let (mut parts, is_of_platform) = match from {
            ClientCertificate::InstanceIdentity => {
                let pair = (snapshot.instance_identity()).map_err(|source| SettingsError::Secret {
                    key: TlsKey::ClientCertificate,
                    source,
                })?;
                (
                    IdentityParts::of_pem(&pair.cert, &pair.key, None, snapshot)?,
                    true,
                )
            }
            ClientCertificate::Pem {
                cert,
                key,
                passphrase,
            } => {
                let parts = IdentityParts::of_pem(cert, key, passphrase.as_ref(), snapshot)?;
                // The platform renews its files also if they are named one by one.
                let of_platform = snapshot.instance_identity();
                (parts, of_platform.is_ok_and(|pair| pair.cert == *cert))
            }
            ClientCertificate::Pkcs12 { file, password } => (
                IdentityParts::of_pkcs12(file, password.as_ref(), snapshot)?,
                false,
            ),
        };
        let (key, found) = (any_supported_type(&parts.key), KeyKind::of_private(&parts.key));
        parts.key.zeroize();
        let key = key.map_err(|_| SettingsError::WeakKey {
            key: parts.key_name,
            reference: parts.key_reference.clone(),
            found,
        })?;

        let bad = |position| SettingsError::BadCertificate {
            key: parts.name,
            reference: parts.reference.clone(),
            position,
        };
        let all = &parts.certificates;
        let parsed = all
            .iter()
            .enumerate()
            .map(|(i, der)| certificate::parse(der).ok_or_else(|| bad(i + 1)));
        let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
        let now = SystemTime::now();
        let chain = chain_of(public_key(&*key).as_deref(), &parsed, now);
        let chain = chain.ok_or_else(|| SettingsError::KeyMismatch {
            certificate: parts.reference.clone(),
            key: parts.key_reference.clone(),
        })?;
        let leaf = chain[0];
        // Then our key is RSA, and its certificate is only for RSA-PSS.
        let found = KeyKind::of_public(parsed[leaf].public_key().raw);
        if matches!(found, KeyKind::Other(_)) && !found.signs_handshakes() {
            return Err(SettingsError::WeakCertificate {
                key: parts.name,
                reference: parts.reference.clone(),
                found,
            });
        }

        let warnings = warnings(chain.iter().map(|i| &parsed[*i]));
        let (not_before, not_after) = certificate::validity(&parsed[leaf]);
        let serial = parsed[leaf].tbs_certificate.raw_serial_as_string();
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(|i| all[i].clone()).collect();
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, key)),
            life: Lifetime {
                is_of_platform,
                not_after,
                not_before,
                serial,
            },
            warnings,
        })
    }
}

impl IdentityParts {
    fn of_pem(
        cert: &SecretRef,
        key: &SecretRef,
        passphrase: Option<&SecretRef>,
        snapshot: &Snapshot,
    ) -> Result<Self, SettingsError> {
        let certificates = certificates(TlsKey::ClientCertificateCert, cert, snapshot)?;
        let text = read(TlsKey::ClientCertificateKey, key, snapshot)?;
        let passphrase = passphrase
            .map(|reference| read_text(TlsKey::ClientCertificatePassphrase, reference, snapshot))
            .transpose()?;
        let der = pem::unlocked_key(&text, passphrase.as_ref()).map_err(|source| SettingsError::Pem {
            key: TlsKey::ClientCertificateKey,
            reference: key.clone(),
            source,
        })?;
        Ok(Self {
            certificates,
            key: der,
            key_name: TlsKey::ClientCertificateKey,
            key_reference: key.clone(),
            name: TlsKey::ClientCertificateCert,
            reference: cert.clone(),
        })
    }

    fn of_pkcs12(
        file: &SecretRef,
        password: Option<&SecretRef>,
        snapshot: &Snapshot,
    ) -> Result<Self, SettingsError> {
        let of_key = |key| move |source| SettingsError::Secret { key, source };
        let bytes = snapshot
            .read_binary(file)
            .map_err(of_key(TlsKey::ClientCertificatePkcs12))?;
        let password = password
            .map(|reference| read_text(TlsKey::ClientCertificatePassword, reference, snapshot))
            .transpose()?;
        let bundle = pkcs12::open(&bytes, password.as_ref()).map_err(|source| SettingsError::Pkcs12 {
            reference: file.clone(),
            source,
        })?;
        Ok(Self {
            certificates: bundle.certificates,
            key: bundle.key,
            key_name: TlsKey::ClientCertificatePkcs12,
            key_reference: file.clone(),
            name: TlsKey::ClientCertificatePkcs12,
            reference: file.clone(),
        })
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

/// Returns why a server may refuse `chain`, the client's certificate and its issuers.
fn warnings<'c>(chain: impl Iterator<Item = &'c X509Certificate<'c>>) -> Vec<TlsWarning> {
    let warning = |(place, one): (usize, &X509Certificate<'_>)| {
        let usage = one.key_usage().ok().flatten().map(|usage| usage.value);
        let constraints = one.basic_constraints().ok().flatten();
        let purposes = one.extended_key_usage().ok().flatten();
        let is_for_clients = purposes.is_none_or(|purposes| purposes.value.client_auth || purposes.value.any);
        let mut found = Vec::new();
        if place == 0 {
            found.extend((!is_for_clients).then_some(TlsWarning::NotForClients));
            let signs = usage.is_none_or(KeyUsage::digital_signature);
            found.extend((!signs).then_some(TlsWarning::NotForSigning));
        } else {
            // Of version 1 only a root can be an authority.
            let is_authority = one.version() != X509Version::V3 || constraints.is_some_and(|it| it.value.ca);
            let issues = is_authority && usage.is_none_or(KeyUsage::key_cert_sign);
            let name = certificate::title(one);
            found.extend((!issues).then_some(TlsWarning::NotIssuer { name }));
        }
        // The signature of a root, which is by itself, is not checked by anybody.
        if let Some(hash) = weak_hash(one).filter(|_| one.subject().as_raw() != one.issuer().as_raw()) {
            let name = certificate::title(one);
            found.push(TlsWarning::WeakSignature { name, hash });
        }
        found
    };
    chain.enumerate().flat_map(warning).collect()
}

/// Returns the bits of the public key, without the algorithm, which can be written in several ways. `None` if unknown.
fn public_key(key: &dyn SigningKey) -> Option<Vec<u8>> {
    let spki = key.public_key()?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(&spki).ok()?;
    Some(spki.subject_public_key.data.into_owned())
}

/// Returns the positions of the certificate that fits the public key `public` and of its issuers, in order. `None`: no
/// certificate fits.
pub(crate) fn chain_of(
    public: Option<&[u8]>,
    parsed: &[X509Certificate<'_>],
    now: SystemTime,
) -> Option<Vec<usize>> {
    let mut last = leaf(public, parsed, now)?;
    let mut chain = vec![last];
    while let Some(next) = issuer_of(last, parsed, now)
        && !chain.contains(&next)
    {
        chain.push(next);
        last = next;
    }
    Some(chain)
}

/// Returns the position of the certificate that fits the public key `public`. If there are several, as after a renewal: one
/// that can be used, that is valid now, and that ends last.
fn leaf(public: Option<&[u8]>, parsed: &[X509Certificate<'_>], now: SystemTime) -> Option<usize> {
    let is_of_key = |one: &X509Certificate<'_>| {
        public.is_none_or(|public| one.public_key().subject_public_key.data == public)
    };
    first_of_best((0..parsed.len()).filter(|i| is_of_key(&parsed[*i])), |i| {
        let can_sign = KeyKind::of_public(parsed[i].public_key().raw).signs_handshakes();
        (can_sign, worth(&parsed[i], now))
    })
}

/// Returns the position of the certificate that issued the one at `position`. If several have the name, because an authority
/// was renewed or is signed by two others: one whose key fits, that is valid now, and that ends last.
fn issuer_of(position: usize, parsed: &[X509Certificate<'_>], now: SystemTime) -> Option<usize> {
    let one = &parsed[position];
    let is_root = |one: &X509Certificate<'_>| one.subject().as_raw() == one.issuer().as_raw();
    // A root may be followed by a certificate of it by another authority, but not by the same root before its renewal.
    let has_name = |i: &usize| {
        let other = &parsed[*i];
        let repeats = is_root(one) && is_root(other);
        *i != position && other.subject().as_raw() == one.issuer().as_raw() && !repeats
    };
    let candidates: Vec<_> = (0..parsed.len()).filter(has_name).collect();
    match candidates[..] {
        [only] => Some(only),
        _ => first_of_best(candidates.into_iter(), |i| {
            let fits = one.verify_signature(Some(parsed[i].public_key())).is_ok();
            (fits, worth(&parsed[i], now))
        }),
    }
}

/// Returns whether it is valid now, and until when.
fn worth(certificate: &X509Certificate<'_>, now: SystemTime) -> (bool, SystemTime) {
    let (from, until) = certificate::validity(certificate);
    (from <= now && now <= until, until)
}

/// Returns the first of those with the highest worth.
fn first_of_best<T: Ord>(
    places: impl DoubleEndedIterator<Item = usize>,
    worth: impl Fn(usize) -> T,
) -> Option<usize> {
    // `max_by_key` returns the last of equal ones.
    places.rev().max_by_key(|i| worth(*i))
}

/// Returns the hash with which a certificate is signed, if servers refuse it: OpenSSL does since version 3.
fn weak_hash(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let algorithm = certificate.signature_algorithm.oid();
    let weak = [
        (oid!(1.2.840.113549.1.1.2), "MD2"),
        (oid!(1.2.840.113549.1.1.4), "MD5"),
        (oid!(1.2.840.113549.1.1.5), "SHA-1"),
        (oid!(1.2.840.10040.4.3), "SHA-1"),
        (oid!(1.2.840.10045.4.1), "SHA-1"),
    ];
    weak.into_iter()
        .find(|(oid, _)| oid == algorithm)
        .map(|(_, hash)| hash)
}

/// Reads a password, without the line ends behind it.
fn read_text(key: TlsKey, reference: &SecretRef, snapshot: &Snapshot) -> Result<Secret, SettingsError> {
    snapshot
        .read(reference)
        .map_err(|source| SettingsError::Secret { key, source })
}

/// Returns the remedy for a key of this kind.
pub(super) fn remedy(found: &KeyKind, reference: &SecretRef) -> String {
    match found {
        KeyKind::Unknown => {
            let file = FileName::of(reference);
            format!("; `openssl pkey -in {file} -noout` says whether it is whole")
        }
        found if found.signs_handshakes() => ", and damaged; copy it again".to_owned(),
        _ => format!(
            ", with which no handshake can be signed here; use RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or \
             Ed25519: {NEW_KEY}"
        ),
    }
}

/// The remedy for a key that cannot be used.
pub(super) const NEW_KEY: &str = "`openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout KEY.pem -out REQUEST.pem` makes \
                       one, and the request for its certificate";
