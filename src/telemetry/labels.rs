//! Closed sets: what may stand in the labels `method`, `code`, `side`, `kind` and `result`.
//!
//! Methods and status codes arrive from the wire, so they are folded here into sets of known size: a hostile app or
//! upstream cannot create new series.

use http::{Method, StatusCode};

/// The method as label and log show it: the nine that RFC 9110 and RFC 5789 name, and `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MethodLabel {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Other,
    Patch,
    Post,
    Put,
    Trace,
}

/// The status code as label: the registered ones as they are, others as their class (`2xx`), beyond 599 `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeLabel(u8);

/// Whose handshake: the `side` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsSide {
    /// The app's.
    Client,
    Upstream,
}

/// What can expire: the `kind` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialKind {
    ClientCertificate,
    LocalCa,
    Token,
    /// Of any upstream of the destination: the one that ends first.
    UpstreamCertificate,
}

/// What became of an attempt to get another credential: the `result` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshResult {
    Done,
    Failed,
}

/// What became of a reload: the `result` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    /// The new configuration is in force.
    Done,
    /// The old configuration stays.
    Failed,
}

/// How an open tunnel ended: the `result` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunnelEnd {
    /// Either side closed it in order.
    Closed,
    /// A connection broke.
    Failed,
    /// Nothing moved for the idle limit.
    Idle,
}

/// What a cache did for a request: the `status` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheStatus {
    /// It may not be answered from a cache.
    Bypass,
    Hit,
    Miss,
    /// Answered from the cache after asking whether that still holds.
    Revalidated,
    /// Answered from the cache past its time.
    Stale,
}

/// Where in an answer a secret was struck out: the `part` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessagePart {
    Body,
    Head,
    Trailers,
}

/// How a circuit stands, as the gauge says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CircuitState {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

impl MethodLabel {
    /// How many there are.
    pub(super) const COUNT: usize = 10;

    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::CONNECT => Self::Connect,
            Method::DELETE => Self::Delete,
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::OPTIONS => Self::Options,
            Method::PATCH => Self::Patch,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::TRACE => Self::Trace,
            _ => Self::Other,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other => "other",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Trace => "TRACE",
        }
    }
}

impl CodeLabel {
    /// How many there are.
    pub(super) const COUNT: usize = CODES.len();

    pub(super) fn of(status: StatusCode) -> Self {
        // `INDEX` covers every number that `StatusCode` can hold (100 to 999).
        Self(INDEX.get(usize::from(status.as_u16())).copied().unwrap_or(OTHER))
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(super) fn as_str(self) -> &'static str {
        CODES[self.index()]
    }
}

impl TlsSide {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }
}

impl CredentialKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClientCertificate => "client_certificate",
            Self::LocalCa => "local_ca",
            Self::Token => "token",
            Self::UpstreamCertificate => "upstream_certificate",
        }
    }
}

impl RefreshResult {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl CacheStatus {
    /// How many there are.
    pub(super) const COUNT: usize = 5;

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
        }
    }
}

impl MessagePart {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Head => "head",
            Self::Trailers => "trailers",
        }
    }
}

impl ReloadResult {
    pub(super) const ALL: [Self; 2] = [Self::Done, Self::Failed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl TunnelEnd {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Idle => "idle",
        }
    }
}

/// What `code` may say. The six classes stand first, in the order of their first digit, `other` at 0; then the IANA
/// registry, and 499 for an app that went away before it had its answer (as nginx has it).
const CODES: [&str; 70] = [
    "other", "1xx", "2xx", "3xx", "4xx", "5xx", //
    "100", "101", "102", "103", "104", //
    "200", "201", "202", "203", "204", "205", "206", "207", "208", "226", //
    "300", "301", "302", "303", "304", "305", "307", "308", //
    "400", "401", "402", "403", "404", "405", "406", "407", "408", "409", "410", "411", "412", "413", "414",
    "415", "416", "417", "418", "421", "422", "423", "424", "425", "426", "428", "429", "431", "451",
    "499", //
    "500", "501", "502", "503", "504", "505", "506", "507", "508", "510", "511",
];

const OTHER: u8 = 0;

/// From the number of a status code to its place in [`CODES`], made at compile time.
static INDEX: [u8; 1000] = {
    let mut index = [OTHER; 1000];
    let mut status = 100;
    while status < 600 {
        index[status] = (status / 100) as u8;
        status += 1;
    }
    let mut place = 6;
    while place < CODES.len() {
        let digits = CODES[place].as_bytes();
        let status = (digits[0] - b'0') as usize * 100
            + (digits[1] - b'0') as usize * 10
            + (digits[2] - b'0') as usize;
        index[status] = place as u8;
        place += 1;
    }
    index
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_fold_into_a_closed_set() {
        for (status, label) in [
            (100, "100"),
            (199, "1xx"),
            (200, "200"),
            (299, "2xx"),
            (306, "3xx"),
            (418, "418"),
            (499, "499"),
            (477, "4xx"),
            (511, "511"),
            (599, "5xx"),
            (600, "other"),
            (999, "other"),
        ] {
            assert_eq!(
                CodeLabel::of(StatusCode::from_u16(status).unwrap()).as_str(),
                label,
                "{status}"
            );
        }
    }

    #[test]
    fn methods_fold_into_a_closed_set() {
        for (method, label) in [
            ("GET", "GET"),
            ("get", "other"),
            ("PROPFIND", "other"),
            ("X\u{21}", "other"),
            ("CONNECT", "CONNECT"),
        ] {
            assert_eq!(
                MethodLabel::of(&Method::from_bytes(method.as_bytes()).unwrap()).as_str(),
                label
            );
        }
    }
}
