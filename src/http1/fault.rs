//! The rules that a message can break, each in words that continue "the request is not valid HTTP: ".

use std::fmt;

/// Why a message is not valid HTTP/1.1 (RFC 9112), or could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BareCr,
    ChunkData,
    ChunkExtension,
    ChunkSize,
    /// The name is empty.
    EmptyName,
    FoldedLine,
    LengthAndCoding,
    LengthNotNumber,
    LengthRepeated,
    LengthTooLarge,
    LengthsDiffer,
    NoColon,
    NoStatusLine,
    NulInValue,
    Name,
    Reason,
    RequestLine,
    SpaceBeforeColon,
    Status,
    /// The first byte that a target cannot have; `None`: its form is wrong.
    Target(Option<u8>),
    /// TLS came instead of HTTP.
    Tls,
    TooMuchInterim,
    TransferCoding,
    TransferCodingInOldVersion,
    TransferCodingRepeated,
    Value,
}

impl Fault {
    /// Whether it is about Transfer-Encoding, for which RFC 9209 section 2.3.22 has an error type.
    pub(crate) fn is_about_coding(self) -> bool {
        match self {
            Self::TransferCoding | Self::TransferCodingInOldVersion | Self::TransferCodingRepeated => true,
            Self::BareCr
            | Self::ChunkData
            | Self::ChunkExtension
            | Self::ChunkSize
            | Self::EmptyName
            | Self::FoldedLine
            | Self::LengthAndCoding
            | Self::LengthNotNumber
            | Self::LengthRepeated
            | Self::LengthTooLarge
            | Self::LengthsDiffer
            | Self::Name
            | Self::NoColon
            | Self::NoStatusLine
            | Self::NulInValue
            | Self::Reason
            | Self::RequestLine
            | Self::SpaceBeforeColon
            | Self::Status
            | Self::Target(_)
            | Self::Tls
            | Self::TooMuchInterim
            | Self::Value => false,
        }
    }

    /// Returns what is wrong with a field line that was refused. Not for the empty line.
    pub(super) fn of_line(line: &[u8]) -> Self {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Self::FoldedLine;
        }
        if memchr::memchr(b'\r', line).is_some() {
            return Self::BareCr;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return Self::NoColon;
        };
        match &line[..colon] {
            [] => Self::EmptyName,
            [.., b' ' | b'\t'] => Self::SpaceBeforeColon,
            name if http::HeaderName::from_bytes(name).is_err() => Self::Name,
            _ if memchr::memchr(0, &line[colon..]).is_some() => Self::NulInValue,
            _ => Self::Value,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareCr => "a line contains a carriage return (CR) that is not part of a line end (CR LF)",
            Self::ChunkData => "a chunk is longer than its size says",
            Self::ChunkExtension => "the chunk extensions are too long",
            Self::ChunkSize => "a chunk size is not a hexadecimal number, or its line does not end in CR LF",
            Self::EmptyName => "a field has no name",
            Self::FoldedLine => "a field line begins with a blank (an obsolete folded line, RFC 9112 section 5.2)",
            Self::LengthAndCoding => "it has both Content-Length and Transfer-Encoding",
            Self::LengthNotNumber => "Content-Length is not a number",
            Self::LengthRepeated => "it has more than one Content-Length",
            Self::LengthTooLarge => "Content-Length is larger than 9223372036854775807 (2^63-1)",
            Self::LengthsDiffer => "Content-Length appears twice with different values",
            Self::Name => "a field name contains a character that names cannot have",
            Self::NoColon => "a field line has no colon",
            Self::NoStatusLine => {
                "it does not begin with a status line, as in HTTP/1.1 200 OK; another protocol may be spoken on this port"
            }
            Self::NulInValue => "a field value contains a NUL",
            Self::Reason => "the reason phrase in the status line contains a control character",
            Self::RequestLine => "the request line is malformed; it has to be METHOD TARGET HTTP/1.1, with one blank between each",
            Self::SpaceBeforeColon => "a field name is followed by a blank before its colon",
            Self::Status => "the status code in the status line is not a number from 100 to 999",
            Self::Target(None) => "the request target is malformed",
            Self::Target(Some(byte)) => return shown(*byte, f),
            Self::Tls => {
                "it begins with TLS, but this proxy is spoken to in clear; HTTPS_PROXY has to begin with http://"
            }
            Self::TooMuchInterim => {
                "more than 100 interim answers (1xx), or more bytes of them than one head may have, came before the final one"
            },
            Self::TransferCoding => "Transfer-Encoding is not chunked, the only coding that is passed on",
            Self::TransferCodingInOldVersion => "it has a Transfer-Encoding, which HTTP/1.0 does not know",
            Self::TransferCodingRepeated => "it has more than one Transfer-Encoding",
            Self::Value => "a field value contains a control character",
        })
    }
}

fn shown(byte: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the request target contains ")?;
    match byte {
        b' ' => f.write_str("a blank")?,
        0x21..=0x7e => write!(f, "the character {}", char::from(byte))?,
        0x80.. => write!(f, "the byte 0x{byte:02X}")?,
        0x00..=0x1f | 0x7f => write!(f, "the control character 0x{byte:02X}")?,
    }
    write!(
        f,
        ", which cannot stand in a URL; percent-encode it as %{byte:02X}"
    )
}
