//! How TLS is spoken to a destination.

use std::fmt;

use data_encoding::BASE64;

use super::SecretRef;
use super::declare::{Section, Syntax, ValueKind, Word};
use super::node::shown;
use super::reader::Located;
use super::syntax::{Filled, ListOf, OneOrMore};
use crate::host::Host;

const CERTIFICATE_AND_KEY: &str = "write { cert: file:PATH, key: file:PATH }";

section! {
    /// How TLS is spoken to a destination.
    #[derive(Default, Hash)]
    pub(crate) struct Tls {
        /// What we show to a destination that demands a certificate: cert and key, or pkcs12; or the platform's.
        client_certificate: Option<ClientCertificate>;
        /// Roots instead of the system's: PEM, DER or PKCS#7.
        ca: Option<SecretRef>;
        /// Roots beside the system's: PEM, DER or PKCS#7.
        ca_extra: Option<SecretRef>;
        /// SNI, and the name that is verified; default: the host.
        server_name: Option<Host>;
        /// The oldest TLS version that is spoken.
        min_version: TlsVersion = "\"1.2\"";
        /// Groups of the key exchange that are offered, the first choice first; default: X25519MLKEM768, x25519, secp256r1,
        /// secp384r1. Without X25519MLKEM768 the ClientHello fits into one TCP segment.
        groups: Vec<Group> as Groups;
        /// sha256/BASE64 of public keys, one of which the verified chain must have. Verification stays as it is.
        pins: Vec<Pin> as OrNull<ListOf<Pin>> = "[]";
        /// Lists of revoked certificates (CRLs), PEM, DER or PKCS#7; one reference or several.
        crl: Vec<SecretRef> as OrNull<OneOrMore<SecretRef>> = "null";
    }
}

choice! {
    #[derive(Default)]
    pub(crate) enum TlsVersion {
        #[default]
        V1_2 = "1.2",
        V1_3 = "1.3",
    }
}

/// A list that is empty where it is `null`.
pub(super) struct OrNull<S>(std::marker::PhantomData<S>);

impl<T, S: Syntax<Value = Vec<T>>> Syntax for OrNull<S> {
    type Value = Vec<T>;

    const KIND: ValueKind = ValueKind::Any(&[S::KIND, ValueKind::Literal("null")]);

    fn read(written: Located<'_>) -> Option<Vec<T>> {
        if written.is_null() {
            return Some(Vec::new());
        }
        S::read(written)
    }
}

impl Syntax for Host {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write a host, as in api.example.com")?;
        let host = Self::parse(text).ok();
        if host.is_none() {
            let right = "write a name or an address, without a port";
            written.problem(format_args!("`{}` is not a host", shown(text)), right);
        }
        host
    }
}

choice! {
    /// A group of the key exchange (`supported_groups` of TLS), by the names of IANA's registry.
    pub(crate) enum Group {
        X25519MlKem768 = "X25519MLKEM768",
        X25519 = "x25519",
        Secp256r1 = "secp256r1",
        Secp384r1 = "secp384r1",
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Groups of the key exchange, each once.
pub(super) struct Groups;

/// A group in a list that must not be empty.
struct ListedGroup;

impl Syntax for ListedGroup {
    type Value = Group;

    const KIND: ValueKind = Group::KIND;

    const IF_EMPTY: &'static str = "remove the key to offer what is usual";

    fn read(written: Located<'_>) -> Option<Group> {
        Group::read(written)
    }
}

impl Syntax for Groups {
    type Value = Vec<Group>;

    const KIND: ValueKind = Filled::<ListedGroup>::KIND;

    fn read(written: Located<'_>) -> Option<Vec<Group>> {
        let groups = Filled::<ListedGroup>::read(written.clone())?;
        for (i, group) in groups.iter().enumerate() {
            if groups[..i].contains(group) {
                written.problem_at(i, format_args!("`{group}` stands here twice"), "remove it");
            }
        }
        Some(groups)
    }
}

/// The SHA-256 of a public key with its algorithm (the SubjectPublicKeyInfo of RFC 5280, in DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl Syntax for Pin {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let right =
            "write sha256/ and the 44 characters of base64 that the command in docs/destinations.md prints";
        let text = written.text(right)?;
        // curl writes two slashes.
        let hash = text.strip_prefix("sha256/").map(|rest| match rest.len() {
            45 => rest.strip_prefix('/').unwrap_or(rest),
            _ => rest,
        });
        let bytes = hash.and_then(|hash| BASE64.decode(hash.as_bytes()).ok());
        let pin = bytes.and_then(|bytes| bytes.try_into().ok()).map(Self);
        if pin.is_none() {
            let what = format_args!("`{}` is not the SHA-256 of a public key", shown(text));
            written.problem(what, right);
        }
        pin
    }
}

/// Where the client certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientCertificate {
    /// What Cloud Foundry gives each app instance.
    InstanceIdentity,
    /// The chain, and its key in PKCS#1, PKCS#8 or SEC1.
    Pem {
        cert: SecretRef,
        key: SecretRef,
        passphrase: Option<SecretRef>,
    },
    /// Both in one file.
    Pkcs12 {
        file: SecretRef,
        password: Option<SecretRef>,
    },
}

section! {
    /// A client certificate, as it is written.
    pub(crate) struct CertificateKeys {
        /// The chain: PEM, DER or PKCS#7.
        cert: Option<SecretRef>;
        /// Its key: PEM or DER of PKCS#8, PKCS#1 or SEC1.
        key: Option<SecretRef>;
        /// Of an encrypted key.
        passphrase: Option<SecretRef>;
        /// Both in one file (.p12, .pfx), or base64 of it, with PEM's markers or without.
        pkcs12: Option<SecretRef>;
        /// Of a PKCS#12 file.
        password: Option<SecretRef>;
    }
}

impl Syntax for ClientCertificate {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Any(&[CertificateKeys::KIND, ValueKind::Literal("instance_identity")]);

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write { cert: file:PATH, key: file:PATH }, { pkcs12: file:PATH, password: env:NAME } or instance_identity";
        if let Some(word) = written.scalar() {
            if word == "instance_identity" {
                return Some(Self::InstanceIdentity);
            }
            written.problem("has to be a mapping or instance_identity", right);
            return None;
        }
        let reader = written.reader(CertificateKeys::KEYS)?;
        let keys = CertificateKeys::decode(&reader)?;
        let (what, right) = match keys {
            CertificateKeys {
                cert: Some(cert),
                key: Some(key),
                passphrase,
                pkcs12: None,
                password: None,
            } => {
                return Some(Self::Pem {
                    cert,
                    key,
                    passphrase,
                });
            }
            CertificateKeys {
                cert: None,
                key: None,
                passphrase: None,
                pkcs12: Some(file),
                password,
            } => return Some(Self::Pkcs12 { file, password }),
            keys if keys.pkcs12.is_some() && (keys.cert.is_some() || keys.key.is_some()) => (
                "`pkcs12` stands beside `cert` or `key`, and holds both",
                "keep one or the other",
            ),
            keys if keys.pkcs12.is_some() => (
                "`passphrase` is of a key in PEM",
                "write `password`, which is of a PKCS#12 file",
            ),
            keys if keys.cert.is_none() && keys.key.is_none() => ("nothing says where it is", right),
            keys if keys.key.is_none() => ("`key` is missing", CERTIFICATE_AND_KEY),
            keys if keys.cert.is_none() => ("`cert` is missing", CERTIFICATE_AND_KEY),
            _ => (
                "`password` is of a PKCS#12 file",
                "write `passphrase`, which is of a key in PEM",
            ),
        };
        reader.problem(what, right);
        None
    }
}

/// The files, for a person.
impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opener = match self {
            Self::InstanceIdentity => {
                f.write_str("the instance identity (CF_INSTANCE_CERT with key CF_INSTANCE_KEY)")?;
                None
            }
            Self::Pem {
                cert,
                key,
                passphrase,
            } => {
                write!(f, "{cert} with key {key}")?;
                passphrase.as_ref()
            }
            Self::Pkcs12 { file, password } => {
                write!(f, "{file}")?;
                password.as_ref()
            }
        };
        opener.map_or(Ok(()), |secret| write!(f, ", opened by {secret}"))
    }
}
