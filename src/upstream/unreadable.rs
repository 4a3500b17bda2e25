//! Answers that cannot be passed on: which rule they break, and what can be done.

use std::fmt;

use super::Endpoint;
use crate::host::Host;
use crate::http1::{self, Excess, Fault, HeadRules};
use crate::message::Fields;

/// An answer that cannot be read, or is larger than allowed. `Display` is a sentence for the developer of the app.
#[derive(Debug)]
pub(crate) struct Unreadable {
    host: Host,
    limits: HeadRules,
    wrong: Wrong,
}

#[derive(Debug)]
pub(super) enum Wrong {
    Fault(Fault),
    /// What the HTTP/2 library says.
    H2(String),
    TooLarge(Excess),
    Version,
}

impl Unreadable {
    pub(super) fn new(wrong: Wrong, host: &Host, endpoint: &Endpoint) -> Box<Self> {
        Box::new(Self {
            host: host.clone(),
            limits: endpoint.destination.response_fields,
            wrong,
        })
    }

    /// Returns the error type of RFC 9209.
    pub(super) fn proxy_status(&self) -> &'static str {
        match &self.wrong {
            Wrong::TooLarge(excess) => of_excess(*excess),
            Wrong::Fault(fault) => of_fault(*fault),
            Wrong::H2(_) | Wrong::Version => "http_protocol_error",
        }
    }
}

/// Checks what the HTTP/2 library accepts and HTTP/1.1 would not.
pub(super) fn of_h2(fields: &Fields, limits: HeadRules) -> Option<Wrong> {
    if let Err(excess) = limits.check(fields) {
        return Some(Wrong::TooLarge(excess));
    }
    http1::is_length_too_large(fields).then_some(Wrong::Fault(Fault::LengthTooLarge))
}

pub(crate) fn of_fault(fault: Fault) -> &'static str {
    if fault.is_about_coding() {
        "http_response_transfer_coding"
    } else {
        "http_protocol_error"
    }
}

/// Returns the error type of RFC 9209. `http_response_header_size` would be about a single field (sections 2.3.17 to 2.3.21).
pub(crate) fn of_excess(excess: Excess) -> &'static str {
    match excess {
        Excess::HeadCount | Excess::HeadSize => "http_response_header_section_size",
        Excess::TrailerCount | Excess::TrailerSize => "http_response_trailer_section_size",
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, limits, wrong } = self;
        let (part, key) = match wrong {
            Wrong::Fault(fault) => {
                return write!(f, "{host} sent an answer that is not valid HTTP: {fault}; {TELL}");
            }
            Wrong::H2(what) => {
                return write!(
                    f,
                    "{host} sent an answer that is not valid HTTP/2, or far larger than limits.response_header_size allows: \
                     {what}; {TELL}, or set http: 1 in its destination, where it speaks HTTP/1.1"
                );
            }
            Wrong::Version => {
                return write!(
                    f,
                    "{host} answered in a version of HTTP that is neither 1.0 nor 1.1; {TELL}"
                );
            }
            Wrong::TooLarge(Excess::HeadSize) => ("an answer whose head is", "response_header_size"),
            Wrong::TooLarge(Excess::TrailerSize) => ("trailers that are", "response_header_size"),
            Wrong::TooLarge(Excess::HeadCount) => ("an answer whose head has", "response_header_count"),
            Wrong::TooLarge(Excess::TrailerCount) => ("trailers that have", "response_header_count"),
        };
        write!(f, "{host} sent {part} ")?;
        match wrong {
            Wrong::TooLarge(Excess::HeadSize | Excess::TrailerSize) => {
                write!(f, "larger than {} bytes (limits.{key})", limits.size)?;
            }
            _ => write!(f, "more than {} fields (limits.{key})", limits.count)?,
        }
        f.write_str("; raise that limit where such answers are right")
    }
}

impl std::error::Error for Unreadable {}

const TELL: &str = "it was not passed on; tell who runs that host";
