//! Reads names and dates of certificates, for messages.
//!
//! The words come from the network: they are cut and stripped of everything but visible ASCII.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{TrustAnchor, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::fields::printable;

/// Parses a certificate; `None` if it cannot be read.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// Returns from when and until when it is valid.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    (
        time(certificate.validity().not_before),
        time(certificate.validity().not_after),
    )
}

/// Converts a time of rustls.
pub(super) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Converts a time of a certificate; one that the clock cannot hold becomes 1970.
pub(super) fn time(time: ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    let moved = if time.timestamp() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns the subject of a certificate, or the first of its alternative names if the subject is empty.
pub(super) fn title(certificate: &X509Certificate<'_>) -> String {
    if certificate.subject().iter().next().is_some() {
        return name(certificate.subject());
    }
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let first = alternatives.and_then(|names| names.value.general_names.first());
    first.map_or_else(|| plain(""), general_name)
}

/// Returns one of the alternative names as text.
pub(super) fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => plain(name),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6())
                .map_or_else(|_| plain(&name.to_string()), |address| address.to_string())
        }
        other => plain(&other.to_string()),
    }
}

/// Shows names such as webpki's `DnsName("a.test")` and `IpAddress(…)` without the wrapping; at most five.
pub(super) fn names(presented: &[String]) -> String {
    let name = |written: &String| {
        let inner = written
            .split_once('(')
            .map_or(written.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        plain(inner.trim_matches('"'))
    };
    let shown: Vec<_> = presented.iter().take(5).map(name).collect();
    match (shown.is_empty(), presented.len().saturating_sub(shown.len())) {
        (true, _) => "no name at all (the common name does not count)".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Returns the name of a root. webpki keeps the contents of its sequence only.
pub(super) fn name_of_anchor(anchor: &TrustAnchor<'_>) -> String {
    let der = sequence(&anchor.subject);
    X509Name::from_der(&der).map_or_else(|_| plain(""), |(_, parsed)| name(&parsed))
}

/// Makes a DER sequence of its contents.
pub(super) fn sequence(contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let first = length.iter().position(|byte| *byte != 0).unwrap_or(length.len());
    let mut der = vec![0x30];
    match contents.len() {
        short @ 0..0x80 => der.push(short as u8),
        _ => {
            der.push(0x80 | (length.len() - first) as u8);
            der.extend_from_slice(&length[first..]);
        }
    }
    der.extend_from_slice(contents);
    der
}

/// Returns the common name, else the whole name.
pub(super) fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|part| part.as_str().ok());
    match common {
        Some(common) => plain(common),
        None => plain(&name.to_string()),
    }
}

/// Returns at most 80 characters, all of them visible ASCII.
pub(super) fn plain(text: &str) -> String {
    name_shown(text, 80)
}

/// Returns at most so many characters, all of them visible ASCII: a name in a certificate may contain anything.
pub(crate) fn name_shown(text: &str, most: usize) -> String {
    if text.is_empty() {
        "a name left empty".to_owned()
    } else {
        printable(text, most)
    }
}
