//! The contents of a file of certificates and keys: the blocks of PEM, or the values of DER, each with its kind.
//!
//! A known label counts. Where labels are used loosely the content counts: there are files that call PKCS#8 an RSA
//! PRIVATE KEY, and PKCS#7 a CERTIFICATE.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use zeroize::Zeroizing;

use super::{NameList, ber, form};

const MARKER: &[u8] = b"-----";
const BEGIN: &[u8] = b"-----BEGIN ";

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;

/// 1.2.840.113549.1.7.2, as it is written.
const SIGNED_DATA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];

/// In one file of DER: far more than anybody joins.
const MOST_VALUES: usize = 1000;

/// In place of a label; no label has small letters.
const UNKNOWN: &str = "unknown or damaged DER";

/// One block of PEM, or one value of DER.
pub(super) struct ContentItem {
    pub(super) kind: ContentKind,
    /// What the label says, or would say.
    label: String,
    /// The headers of a block that has any.
    pub(super) headers: Vec<(String, String)>,
    /// `None` where the block is cut short or not in base64.
    pub(super) der: Option<Zeroizing<Vec<u8>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentKind {
    /// PKCS#7, or CMS, which is its successor.
    Bundle,
    Certificate,
    /// A Java keystore of before version 9, which is not DER.
    Java(Java),
    Key(KeyForm),
    /// A list of revoked certificates.
    List,
    LockedKey,
    /// OpenSSL's oldest encryption: headers that say how.
    OldLockedKey,
    OpenSsh,
    Other,
    /// PKCS#12.
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    Pkcs1,
    Pkcs8,
    Sec1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Java {
    Jceks,
    Jks,
}

/// Returns everything in `bytes`, in the order of the file.
pub(super) fn read(bytes: &[u8]) -> Vec<ContentItem> {
    let inner = form::unwrapped(bytes);
    let bytes = inner.as_ref().map_or(bytes, |inner| inner.as_slice());
    if !form::is_binary(bytes) {
        return blocks(bytes);
    }
    for (magic, java) in [(form::JKS, Java::Jks), (form::JCEKS, Java::Jceks)] {
        if bytes.starts_with(magic) {
            return vec![ContentItem::of_der(ContentKind::Java(java), bytes)];
        }
    }
    // Several certificates may have been joined into one file.
    let mut items = Vec::new();
    let mut rest = bytes;
    while !rest.trim_ascii_start().is_empty() && items.len() < MOST_VALUES {
        let value = ber::first(rest).unwrap_or(rest);
        items.push(ContentItem::of_der(
            ContentKind::of_der(value).unwrap_or(ContentKind::Other),
            value,
        ));
        rest = &rest[value.len()..];
        if rest.first() != Some(&SEQUENCE) {
            rest = rest.trim_ascii_start();
        }
    }
    items
}

/// Returns the labels of what was found, as an error lists them.
pub(super) fn labels(items: &[ContentItem]) -> NameList {
    NameList(items.iter().map(|item| item.label.clone()).collect())
}

impl ContentItem {
    fn of_der(kind: ContentKind, der: &[u8]) -> Self {
        let label = match kind {
            ContentKind::Bundle => "PKCS7",
            ContentKind::Certificate => "CERTIFICATE",
            ContentKind::Java(Java::Jceks) => "JCEKS",
            ContentKind::Java(Java::Jks) => "JKS",
            ContentKind::Key(KeyForm::Pkcs1) => "RSA PRIVATE KEY",
            ContentKind::Key(KeyForm::Pkcs8) => "PRIVATE KEY",
            ContentKind::Key(KeyForm::Sec1) => "EC PRIVATE KEY",
            ContentKind::List => "X509 CRL",
            ContentKind::LockedKey => "ENCRYPTED PRIVATE KEY",
            ContentKind::Store => "PKCS12",
            ContentKind::OldLockedKey | ContentKind::OpenSsh | ContentKind::Other => UNKNOWN,
        };
        Self {
            kind,
            label: label.to_owned(),
            headers: Vec::new(),
            der: Some(Zeroizing::new(der.to_vec())),
        }
    }

    /// Whether it begins as DER does and is of no known kind, or not whole.
    pub(super) fn is_damaged_der(&self) -> bool {
        self.kind == ContentKind::Other && self.label == UNKNOWN
    }

    fn of_block(label: &[u8], body: &[u8], is_whole: bool) -> Self {
        let (headers, body) = headers(body);
        let der = form::body(&body).filter(|_| is_whole);
        let found = der.as_ref().and_then(|der| ContentKind::of_der(der));
        let is_encrypted =
            |(name, value): &(String, String)| name == "Proc-Type" && value.ends_with("ENCRYPTED");
        let key = |usual| match found {
            Some(kind @ (ContentKind::Key(_) | ContentKind::LockedKey)) => kind,
            _ => ContentKind::Key(usual),
        };
        let kind = match label {
            // Not looked into: what is encrypted looks like anything.
            _ if headers.iter().any(is_encrypted) => ContentKind::OldLockedKey,
            b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE" => match found {
                Some(ContentKind::Bundle) => ContentKind::Bundle,
                _ => ContentKind::Certificate,
            },
            b"PKCS7" | b"CMS" | b"PKCS #7 SIGNED DATA" => ContentKind::Bundle,
            b"PKCS12" => ContentKind::Store,
            b"X509 CRL" => ContentKind::List,
            b"ENCRYPTED PRIVATE KEY" => ContentKind::LockedKey,
            b"PRIVATE KEY" | b"ANY PRIVATE KEY" => key(KeyForm::Pkcs8),
            b"RSA PRIVATE KEY" | b"RSA-PSS PRIVATE KEY" => key(KeyForm::Pkcs1),
            b"EC PRIVATE KEY" => key(KeyForm::Sec1),
            b"OPENSSH PRIVATE KEY" => ContentKind::OpenSsh,
            _ => ContentKind::Other,
        };
        // Behind a certificate that is trusted OpenSSL writes what for.
        let der = match (label, &der) {
            (b"TRUSTED CERTIFICATE", Some(der)) => {
                ber::first(der).map(|first| Zeroizing::new(first.to_vec()))
            }
            _ => der,
        };
        Self {
            kind,
            label: String::from_utf8_lossy(label).into_owned(),
            headers,
            der,
        }
    }

    /// Returns the certificates, or the lists of revoked ones, of a bundle (RFC 5652, section 5.1).
    pub(super) fn bundled(&self, what: ContentKind) -> Option<Vec<&[u8]>> {
        let parts = ber::parts(self.der.as_ref()?)?;
        let ([SIGNED_DATA, content], tag) = (&parts[..], if what == ContentKind::List { 0xa1 } else { 0xa0 })
        else {
            return None;
        };
        let content = ber::parts(content)?;
        let signed = ber::parts(content.first()?)?;
        let set = signed.into_iter().find(|part| part.first() == Some(&tag));
        let values = set.map_or(Some(Vec::new()), ber::parts)?;
        // Attribute certificates, and others, have other tags.
        Some(
            values
                .into_iter()
                .filter(|value| value.first() == Some(&SEQUENCE))
                .collect(),
        )
    }
}

impl KeyForm {
    /// The key in `der`, which is in this form.
    pub(super) fn of(self, der: &[u8]) -> PrivateKeyDer<'static> {
        let der = der.to_vec();
        match self {
            Self::Pkcs1 => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
            Self::Pkcs8 => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
            Self::Sec1 => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        }
    }
}

impl ContentKind {
    /// Returns the kind of a whole value of DER, by the types of its parts.
    pub(super) fn of_der(der: &[u8]) -> Option<Self> {
        let parts = ber::parts(der)?;
        let tags: Vec<u8> = parts.iter().filter_map(|part| part.first().copied()).collect();
        match tags[..] {
            _ if der.first() != Some(&SEQUENCE) => None,
            [SEQUENCE, SEQUENCE, BIT_STRING] if X509Certificate::from_der(der).is_ok() => {
                Some(Self::Certificate)
            }
            [SEQUENCE, SEQUENCE, BIT_STRING] if CertificateRevocationList::from_der(der).is_ok() => {
                Some(Self::List)
            }
            [SEQUENCE, OCTETS] => Some(Self::LockedKey),
            [INTEGER, SEQUENCE, OCTETS, ..] => Some(Self::Key(KeyForm::Pkcs8)),
            [INTEGER, SEQUENCE] | [INTEGER, SEQUENCE, SEQUENCE] => Some(Self::Store),
            [INTEGER, OCTETS, ..] => Some(Self::Key(KeyForm::Sec1)),
            _ if tags == [INTEGER; 9] => Some(Self::Key(KeyForm::Pkcs1)),
            [OID, 0xa0] => Some(Self::Bundle),
            _ => None,
        }
    }
}

/// Returns the blocks of PEM. A marker may be anywhere in a line.
fn blocks(text: &[u8]) -> Vec<ContentItem> {
    let mut items = Vec::new();
    let mut rest = text;
    while let Some(begin) = memchr::memmem::find(rest, BEGIN) {
        rest = &rest[begin + BEGIN.len()..];
        let Some(end) = memchr::memmem::find(rest, MARKER) else {
            break;
        };
        let label = &rest[..end];
        // Any text may be here: keep to the characters of labels.
        let is_plain =
            |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #-".contains(byte);
        if label.len() > 40 || !label.iter().all(is_plain) {
            continue;
        }
        let inner = &rest[end + MARKER.len()..];
        let body = &inner[..memchr::memmem::find(inner, MARKER).unwrap_or(inner.len())];
        rest = &inner[body.len()..];
        let ends = |rest: &[u8]| {
            rest.strip_prefix(END)?
                .strip_prefix(label)?
                .strip_prefix(MARKER)
                .map(drop)
        };
        items.push(ContentItem::of_block(label, body, ends(rest).is_some()));
    }
    items
}

/// The headers of a block (RFC 1421, section 4.6), each of one word, and what follows them.
fn headers(body: &[u8]) -> (Vec<(String, String)>, Zeroizing<Vec<u8>>) {
    let mut headers = Vec::new();
    let plain = || Zeroizing::new(body.to_vec());
    if !body.contains(&b':') {
        return (headers, plain());
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return (headers, plain());
    };
    let text = Zeroizing::new(text.replace("\\r", "\n").replace("\\n", "\n"));
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once(':')
        && !name.contains(char::is_whitespace)
    {
        let after = after.trim_start();
        let (value, after) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
        headers.push((name.to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    let rest = Zeroizing::new(rest.as_bytes().to_vec());
    (headers, rest)
}

const END: &[u8] = b"-----END ";
