//! What is believed of an upstream's limits now, for people: the page /status, and `outrider explain`.
//!
//! Of the requests that taught it only what a person needs is kept: method and path, without the query. A segment of a
//! path that may be a secret or the number of a thing is not shown.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::units::rfc3339;

/// What is believed of a limit, and who told it.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    /// `https://host:port`; empty where it is about all hosts of the destination.
    pub(crate) host: String,
    /// For people: `all requests`, `requests that only read to /search`.
    pub(crate) concerns: String,
    /// The quota's own name; empty: it has none.
    pub(crate) name: String,
    pub(crate) paused_until: Option<SystemTime>,
    pub(crate) quota: Option<QuotaLeft>,
    /// Requests a second that are let through, where the upstream refuses without a word about time.
    pub(crate) guessed_rate: Option<f64>,
    pub(crate) told_by: ToldBy,
}

/// What is left of a quota.
#[derive(Clone, Debug)]
pub(crate) struct QuotaLeft {
    pub(crate) left: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) whole_at: Option<SystemTime>,
}

/// The answer that a belief was learned from.
#[derive(Clone, Debug)]
pub(crate) struct ToldBy {
    pub(crate) method: String,
    /// Without query, as [`shown_path`] has it.
    pub(crate) path: String,
    pub(crate) status: u16,
    /// As in `Retry-After: 60`; empty where the answer said nothing of time or quota.
    pub(crate) field: String,
    pub(crate) at: SystemTime,
}

impl Belief {
    /// One object, and in its `text` all of it as a sentence.
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
                "method": self.told_by.method,
                "path": self.told_by.path,
                "status": self.told_by.status,
                "field": some(&self.told_by.field),
                "at": rfc3339(self.told_by.at),
            },
        })
    }
}

/// One sentence, which does not name the host.
impl fmt::Display for Belief {
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
        write!(f, " told by {}", self.told_by)
    }
}

impl fmt::Display for ToldBy {
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

/// A path as a page may show it, that others than the app's own people can read: some services have a token in it
/// (`/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe`). `*` stands for a segment that is long, or rather long with
/// a digit.
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

const LONG: usize = 32;
const LONGEST: usize = 128;
const RATHER_LONG: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        // 2026-11-29T12:00:00Z.
        UNIX_EPOCH + Duration::from_secs(1_795_953_600 + seconds)
    }

    fn belief() -> Belief {
        Belief {
            host: "https://api.test:443".to_owned(),
            concerns: "requests that only read to /search".to_owned(),
            name: String::new(),
            paused_until: None,
            quota: None,
            guessed_rate: None,
            told_by: ToldBy {
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
        let silent = ToldBy {
            field: String::new(),
            ..belief().told_by
        };
        for (belief, text) in [
            (
                Belief {
                    paused_until: Some(at(60)),
                    ..belief()
                },
                "requests that only read to /search: paused until 2026-11-29T12:01:00Z, \
                 told by GET /search at 2026-11-29T12:00:00Z: 429 with Retry-After: 60",
            ),
            (
                Belief {
                    name: "core".to_owned(),
                    quota: quota(Some(60), Some(at(3))),
                    ..belief()
                },
                "requests that only read to /search (quota core): 12 of 60 left, all again at 2026-11-29T12:00:03Z, \
                 told by GET /search at 2026-11-29T12:00:00Z: 429 with Retry-After: 60",
            ),
            (
                Belief {
                    quota: quota(None, None),
                    guessed_rate: Some(2.0 / 3.0),
                    told_by: silent,
                    ..belief()
                },
                "requests that only read to /search: 12 left, 0.67 requests a second pass, as a guess, \
                 told by GET /search at 2026-11-29T12:00:00Z: 429 without a word about time",
            ),
        ] {
            assert_eq!(belief.to_string(), text);
            assert_eq!(belief.json()["text"], text);
        }
    }

    #[test]
    fn a_belief_is_an_object() {
        let json = Belief {
            paused_until: Some(at(60)),
            ..belief()
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
