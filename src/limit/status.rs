//! What has been learned about an upstream's limits, for people: the page `/status`, and `outrider explain`.
//!
//! Of the request whose answer taught it, only what a person needs is kept: method and path, without the query. A
//! path segment that may be a secret or an identifier is not shown.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::units::rfc3339;

const LONG: usize = 32;
const LONGEST: usize = 128;
const RATHER_LONG: usize = 16;

/// A learned limit, and the answer that it was learned from.
#[derive(Clone, Debug)]
pub(crate) struct LimitStatus {
    /// `https://host:port`; empty where it applies to all hosts of the destination.
    pub(crate) host: String,
    /// For people: `all requests`, `requests that only read to /search`.
    pub(crate) concerns: String,
    /// The upstream's name for the quota; empty if it has no name.
    pub(crate) name: String,
    pub(crate) paused_until: Option<SystemTime>,
    pub(crate) quota: Option<QuotaLeft>,
    /// The guessed rate in requests a second, where the upstream refuses without naming a time.
    pub(crate) guessed_rate: Option<f64>,
    pub(crate) learned_from: LearnedFrom,
}

/// What is left of a quota.
#[derive(Clone, Debug)]
pub(crate) struct QuotaLeft {
    pub(crate) left: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) whole_at: Option<SystemTime>,
}

/// The answer that a limit was learned from.
#[derive(Clone, Debug)]
pub(crate) struct LearnedFrom {
    pub(crate) method: String,
    /// Without the query, as [`shown_path`] returns it.
    pub(crate) path: String,
    pub(crate) status: u16,
    /// As in `Retry-After: 60`; empty where the answer named no time and no quota.
    pub(crate) field: String,
    pub(crate) at: SystemTime,
}

impl LimitStatus {
    /// Returns a JSON object, with a sentence for people in `text`.
    pub(crate) fn json(&self) -> Value {
        let time = |time: SystemTime| Value::from(rfc3339(time));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let quota = self.quota.as_ref();
        json!({
            "text": self.to_string(),
            "host": some(&self.host),
            "concerns": self.concerns,
            "name": some(&self.name),
            "paused_until": self.paused_until.map(time),
            "left": quota.map(|quota| quota.left),
            "limit": quota.and_then(|quota| quota.limit),
            "whole_at": quota.and_then(|quota| quota.whole_at).map(time),
            "requests_per_second": self.guessed_rate,
            "told_by": {
                "method": self.learned_from.method,
                "path": self.learned_from.path,
                "status": self.learned_from.status,
                "field": some(&self.learned_from.field),
                "at": rfc3339(self.learned_from.at),
            },
        })
    }
}

/// Writes one sentence, which does not name the host.
impl fmt::Display for LimitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.concerns)?;
        if !self.name.is_empty() {
            write!(f, " (quota {})", self.name)?;
        }
        f.write_char(':')?;
        if let Some(until) = self.paused_until {
            write!(f, " paused until {},", rfc3339(until))?;
        }
        if let Some(QuotaLeft {
            left,
            limit,
            whole_at,
        }) = self.quota
        {
            write!(f, " {left}")?;
            if let Some(limit) = limit {
                write!(f, " of {limit}")?;
            }
            f.write_str(" left")?;
            if let Some(at) = whole_at {
                write!(f, ", all again at {}", rfc3339(at))?;
            }
            f.write_char(',')?;
        }
        if let Some(rate) = self.guessed_rate {
            write!(f, " {rate:.2} requests a second pass, as a guess,")?;
        }
        write!(f, " told by {}", self.learned_from)
    }
}

impl fmt::Display for LearnedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            path,
            status,
            field,
            at,
        } = self;
        write!(f, "{method} {path} at {}: {status}", rfc3339(*at))?;
        match field.as_str() {
            "" => f.write_str(" without a word about time"),
            field => write!(f, " with {field}"),
        }
    }
}

/// Returns a path as a page may show it that people outside the app's team can read. Some services have a token
/// in the path (`/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe`). `*` replaces a segment of more than 32
/// bytes, or of more than 16 with a digit.
pub(crate) fn shown_path(path: &str) -> String {
    let mut shown = String::new();
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            shown.push('/');
        }
        let has_digit = segment.bytes().any(|byte| byte.is_ascii_digit());
        if segment.len() > LONG || (segment.len() > RATHER_LONG && has_digit) {
            shown.push('*');
        } else {
            shown.push_str(segment);
        }
        if shown.len() > LONGEST {
            shown.push('…');
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        // 2026-11-29T12:00:00Z.
        UNIX_EPOCH + Duration::from_secs(1_795_953_600 + seconds)
    }

    fn limit() -> LimitStatus {
        LimitStatus {
            host: "https://api.test:443".to_owned(),
            concerns: "requests that only read to /search".to_owned(),
            name: String::new(),
            paused_until: None,
            quota: None,
            guessed_rate: None,
            learned_from: LearnedFrom {
                method: "GET".to_owned(),
                path: "/search".to_owned(),
                status: 429,
                field: "Retry-After: 60".to_owned(),
                at: at(0),
            },
        }
    }

    #[test]
    fn a_belief_is_a_sentence() {
        let quota = |limit, whole_at| {
            Some(QuotaLeft {
                left: 12,
                limit,
                whole_at,
            })
        };
        let silent = LearnedFrom {
            field: String::new(),
            ..limit().learned_from
        };
        for (limit, text) in [
            (
                LimitStatus {
                    paused_until: Some(at(60)),
                    ..limit()
                },
                "requests that only read to /search: paused until 2026-11-29T12:01:00Z, \
                 told by GET /search at 2026-11-29T12:00:00Z: 429 with Retry-After: 60",
            ),
            (
                LimitStatus {
                    name: "core".to_owned(),
                    quota: quota(Some(60), Some(at(3))),
                    ..limit()
                },
                "requests that only read to /search (quota core): 12 of 60 left, all again at 2026-11-29T12:00:03Z, \
                 told by GET /search at 2026-11-29T12:00:00Z: 429 with Retry-After: 60",
            ),
            (
                LimitStatus {
                    quota: quota(None, None),
                    guessed_rate: Some(2.0 / 3.0),
                    learned_from: silent,
                    ..limit()
                },
                "requests that only read to /search: 12 left, 0.67 requests a second pass, as a guess, \
                 told by GET /search at 2026-11-29T12:00:00Z: 429 without a word about time",
            ),
        ] {
            assert_eq!(limit.to_string(), text);
            assert_eq!(limit.json()["text"], text);
        }
    }

    #[test]
    fn a_belief_is_an_object() {
        let json = LimitStatus {
            paused_until: Some(at(60)),
            ..limit()
        }
        .json();
        assert_eq!(json["host"], "https://api.test:443");
        assert_eq!(json["paused_until"], "2026-11-29T12:01:00Z");
        assert_eq!(json["told_by"]["status"], 429);
        assert_eq!(json["told_by"]["field"], "Retry-After: 60");
        assert!(json["name"].is_null() && json["left"].is_null() && json["requests_per_second"].is_null());
    }

    #[test]
    fn a_path_shows_no_token() {
        for (path, shown) in [
            ("/v1/search", "/v1/search"),
            ("", ""),
            ("/", "/"),
            (
                "/repos/rust-lang/rust/issues/12345",
                "/repos/rust-lang/rust/issues/12345",
            ),
            (
                "/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe",
                "/*/getMe",
            ),
            ("/items/550e8400-e29b-41d4-a716-446655440000/", "/items/*/"),
            (
                "/services/T024BE7LD/B024BE7LD/XXXXXXXXXXXXXXXXXXXXXXXX1",
                "/services/T024BE7LD/B024BE7LD/*",
            ),
            ("/documentation/installation", "/documentation/installation"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
        assert!(shown_path(&"/ab".repeat(1000)).len() < 200);
    }
}
