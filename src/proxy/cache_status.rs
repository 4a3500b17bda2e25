//! Cache-Status (RFC 9211): what the cache did for a response. Never names the key, which is the request.

use std::fmt;
use std::io::Write;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::cache::ForwardReason;
use crate::message::Fields;

/// `outrider; fwd=stale; fwd-status=503; ttl=-9223372036854775808; detail=stale-if-error` has 83 bytes.
const LONGEST: usize = 96;
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// One value of Cache-Status.
pub(super) enum CacheNote {
    /// The request waited for the response to an equal one.
    Collapsed {
        why: ForwardReason,
    },
    Revalidated {
        ttl: i64,
    },
    Forwarded {
        why: ForwardReason,
        is_stored: bool,
    },
    Hit {
        ttl: i64,
    },
    Bypassed {
        why: &'static str,
    },
    /// A stale response replaces a failed one. Without a status the upstream did not answer.
    StaleIfError {
        status: Option<StatusCode>,
        ttl: i64,
    },
}

impl CacheNote {
    /// Appends the value to those of other caches.
    pub(super) fn append_to(&self, fields: &mut Fields) {
        let mut text = [0; LONGEST];
        let mut rest = &mut text[..];
        // No value is longer. A longer one would be left out.
        let _ = write!(rest, "outrider; {self}");
        let left = rest.len();
        if let Ok(value) = HeaderValue::from_bytes(&text[..LONGEST - left]) {
            fields.append(CACHE_STATUS, value);
        }
    }
}

impl fmt::Display for CacheNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapsed { why } => write!(f, "fwd={}; collapsed", why.as_str()),
            Self::Revalidated { ttl } => write!(f, "fwd=stale; fwd-status=304; ttl={ttl}"),
            Self::Forwarded { why, is_stored: true } => write!(f, "fwd={}; stored", why.as_str()),
            Self::Forwarded {
                why,
                is_stored: false,
            } => write!(f, "fwd={}", why.as_str()),
            Self::Hit { ttl } => write!(f, "hit; ttl={ttl}"),
            Self::Bypassed { why } => write!(f, "fwd={why}"),
            Self::StaleIfError { status, ttl } => {
                f.write_str("fwd=stale")?;
                if let Some(status) = status {
                    write!(f, "; fwd-status={}", status.as_u16())?;
                }
                write!(f, "; ttl={ttl}; detail=stale-if-error")
            }
        }
    }
}

/// Returns the value for a refusal of a request that is forwarded.
pub(super) fn of_refused(why: ForwardReason) -> &'static str {
    match why {
        ForwardReason::Request => "outrider; fwd=request",
        ForwardReason::Stale => "outrider; fwd=stale",
        ForwardReason::UriMiss => "outrider; fwd=uri-miss",
        ForwardReason::VaryMiss => "outrider; fwd=vary-miss",
    }
}
