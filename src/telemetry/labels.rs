//! The closed sets of label values.
//!
//! Methods and status codes come from the wire, so they are folded here into sets of known size: a hostile app or
//! upstream cannot create new series.

use http::{Method, StatusCode};

/// Declares a closed set of label values, each with its text.
macro_rules! label {
    (
        $(#[$doc:meta])* $vis:vis enum $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The texts, in the order of the variants.
            pub(super) const LABELS: &'static [&'static str] = &[$($text,)+];

            /// Returns the text of the label.
            pub(crate) fn as_str(self) -> &'static str {
                Self::LABELS[self as usize]
            }
        }
    };
}

label! {
    /// Who gave the answer: the `answered_by` label.
    pub(crate) enum AnsweredBy {
        Cache = "cache",
        Outrider = "outrider",
        Upstream = "upstream",
    }
}

label! {
    /// What a cache did for a request: the `status` label.
    pub(crate) enum CacheStatus {
        /// The request may not be answered from a cache.
        Bypass = "bypass",
        Hit = "hit",
        Miss = "miss",
        /// Answered from the cache after the upstream confirmed the stored answer.
        Revalidated = "revalidated",
        /// Answered from the cache although the stored answer is no longer fresh.
        Stale = "stale",
    }
}

label! {
    /// What can expire: the `kind` label.
    pub(crate) enum CredentialKind {
        ClientCertificate = "client_certificate",
        /// The certificate of the listener.
        ListenerCertificate = "listener_certificate",
        LocalCa = "local_ca",
        Token = "token",
        /// The certificate that expires first, of all upstreams of the destination.
        UpstreamCertificate = "upstream_certificate",
    }
}

label! {
    /// The part of an answer that secrets were removed from: the `part` label.
    pub(crate) enum MessagePart {
        Body = "body",
        Head = "head",
        Trailers = "trailers",
    }
}

label! {
    /// The method, for labels and log: the nine methods of RFC 9110 and RFC 5789, and `other`.
    pub(super) enum MethodLabel {
        Connect = "CONNECT",
        Delete = "DELETE",
        Get = "GET",
        Head = "HEAD",
        Options = "OPTIONS",
        Other = "other",
        Patch = "PATCH",
        Post = "POST",
        Put = "PUT",
        Trace = "TRACE",
    }
}

label! {
    /// The result of an attempt to get another credential: the `result` label.
    pub(crate) enum RefreshResult {
        Done = "done",
        Failed = "failed",
    }
}

label! {
    /// The result of a push: the `result` label.
    pub(crate) enum PushResult {
        Done = "done",
        Failed = "failed",
    }
}

label! {
    /// The result of a reload: the `result` label.
    pub(crate) enum ReloadResult {
        /// The new configuration is in force.
        Done = "done",
        /// The old configuration stays.
        Failed = "failed",
    }
}

label! {
    /// The other end of a TLS handshake: the `side` label.
    pub(crate) enum TlsSide {
        /// The app.
        Client = "client",
        Upstream = "upstream",
    }
}

label! {
    /// How an open tunnel ended: the `result` label.
    pub(crate) enum TunnelEnd {
        /// Either side closed it in order.
        Closed = "closed",
        /// A connection broke.
        Failed = "failed",
        /// Nothing moved for the idle limit.
        Idle = "idle",
    }
}

/// The state of a circuit, as the value of its gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CircuitState {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

/// The status code as label: a registered one as it is, another one as its class (`2xx`), beyond 599 `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeLabel(u8);

impl MethodLabel {
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

/// The values of `code`. `other` and the five classes come first, in the order of their first digit, so that a
/// class is at that index; then the IANA registry, and 499 for an app that closed the connection before it had
/// its answer (as nginx writes it).
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

/// The index into [`CODES`] of each status code, made at compile time.
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
