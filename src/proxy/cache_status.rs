//! What a cache did for an answer, as Cache-Status says it (RFC 9211). The key is never told: it is the request.

use std::fmt;
use std::io::Write;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::ForwardReason;

/// What Cache-Status says.
pub(super) enum Note {
    /// Another one's answer was waited for.
    Collapsed {
        why: ForwardReason,
    },
    Confirmed {
        ttl: i64,
    },
    Forwarded {
        why: ForwardReason,
        is_stored: bool,
    },
    Hit {
        ttl: i64,
    },
    Passed {
        why: &'static str,
    },
    /// The upstream failed; without a status it did not answer.
    StoodIn {
        status: Option<StatusCode>,
        ttl: i64,
    },
}

impl Note {
    /// Adds it to whatever caches on the way have said.
    pub(super) fn put(&self, fields: &mut HeaderMap) {
        let mut text = [0; LONGEST];
        let mut rest = &mut text[..];
        // What is longer than all that can be said would be left out.
        let _ = write!(rest, "outrider; {self}");
        let left = rest.len();
        if let Ok(value) = HeaderValue::from_bytes(&text[..LONGEST - left]) {
            fields.append(CACHE_STATUS, value);
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapsed { why } => write!(f, "fwd={}; collapsed", why.as_str()),
            Self::Confirmed { ttl } => write!(f, "fwd=stale; fwd-status=304; ttl={ttl}"),
            Self::Forwarded { why, is_stored: true } => write!(f, "fwd={}; stored", why.as_str()),
            Self::Forwarded {
                why,
                is_stored: false,
            } => write!(f, "fwd={}", why.as_str()),
            Self::Hit { ttl } => write!(f, "hit; ttl={ttl}"),
            Self::Passed { why } => write!(f, "fwd={why}"),
            Self::StoodIn { status, ttl } => {
                f.write_str("fwd=stale")?;
                if let Some(status) = status {
                    write!(f, "; fwd-status={}", status.as_u16())?;
                }
                write!(f, "; ttl={ttl}; detail=stale-if-error")
            }
        }
    }
}

/// For a request that is forwarded, should it be refused.
pub(super) fn of_refused(why: ForwardReason) -> &'static str {
    match why {
        ForwardReason::Request => "outrider; fwd=request",
        ForwardReason::Stale => "outrider; fwd=stale",
        ForwardReason::UriMiss => "outrider; fwd=uri-miss",
        ForwardReason::VaryMiss => "outrider; fwd=vary-miss",
    }
}

/// `outrider; fwd=stale; fwd-status=503; ttl=-9223372036854775808; detail=stale-if-error` is 83 long.
const LONGEST: usize = 96;
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
