//! What a certificate says of itself, in words that may stand in a message.
//!
//! The words come from the network: they are cut and stripped of everything but visible ASCII.

use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

/// A certificate, parsed; `None` where it is none.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// From when and until when.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let time = |time: ASN1Time| {
        let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
        let moved = match time.timestamp() < 0 {
            true => SystemTime::UNIX_EPOCH.checked_sub(seconds),
            false => SystemTime::UNIX_EPOCH.checked_add(seconds),
        };
        moved.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    (
        time(certificate.validity().not_before),
        time(certificate.validity().not_after),
    )
}

/// The common name, else the whole name.
pub(super) fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|part| part.as_str().ok());
    match common {
        Some(common) => plain(common),
        None => plain(&name.to_string()),
    }
}

/// At most 80 characters, all of them visible ASCII: a name in a certificate may hold anything.
pub(super) fn plain(text: &str) -> String {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let plain: String = text.chars().take(80).map(visible).collect();
    match plain.is_empty() {
        true => "a name left empty".to_owned(),
        false => plain,
    }
}
