//! Cache-Control, read as RFC 9111 section 5.2 writes it.
//!
//! Names are told apart without case, a directive inside a quoted string is none, and what cannot be read counts
//! against reuse: an unreadable `max-age` is 0. Where a directive stands twice the stricter one holds.
//!
//! What the directives mean for a stored answer is in [`terms`](super::terms).

use std::time::Duration;

use http::header::{self, HeaderMap};

/// What an upstream says about keeping and reusing its answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) max_age: Option<Duration>,
    /// In force for every cache but the app's own libraries. An answer with it must not be used stale.
    pub(super) s_maxage: Option<Duration>,
    pub(super) must_revalidate: bool,
    pub(super) must_understand: bool,
    /// With or without a list of fields.
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    /// With or without a list of fields.
    pub(super) private: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) public: bool,
    pub(super) stale_if_error: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
}

/// What an app asks of a stored answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demands {
    pub(super) max_age: Option<Duration>,
    pub(super) max_stale: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) only_if_cached: bool,
}

impl Said {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut said = Self::default();
        each_directive(fields, |name, value| match name {
            "max-age" => strictest(&mut said.max_age, value.seconds().unwrap_or_default()),
            "s-maxage" => strictest(&mut said.s_maxage, value.seconds().unwrap_or_default()),
            "must-revalidate" => said.must_revalidate = true,
            "must-understand" => said.must_understand = true,
            "no-cache" => said.no_cache = true,
            "no-store" => said.no_store = true,
            "private" => said.private = true,
            "proxy-revalidate" => said.proxy_revalidate = true,
            "public" => said.public = true,
            "stale-if-error" => strictest(&mut said.stale_if_error, value.seconds().unwrap_or_default()),
            "stale-while-revalidate" => {
                strictest(
                    &mut said.stale_while_revalidate,
                    value.seconds().unwrap_or_default(),
                );
            }
            _ => {}
        });
        said
    }
}

impl Demands {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut demands = Self::default();
        if fields.contains_key(header::CACHE_CONTROL) {
            each_directive(fields, |name, value| match name {
                "max-age" => strictest(&mut demands.max_age, value.seconds().unwrap_or_default()),
                // Without a value: however stale.
                "max-stale" if value == Value::None => strictest(&mut demands.max_stale, FOR_EVER),
                "max-stale" => {
                    strictest(&mut demands.max_stale, value.seconds().unwrap_or_default());
                }
                "min-fresh" => {
                    let wanted = value.seconds().unwrap_or(FOR_EVER);
                    demands.min_fresh = Some(demands.min_fresh.map_or(wanted, |other| other.max(wanted)));
                }
                "no-cache" => demands.no_cache = true,
                "no-store" => demands.no_store = true,
                "only-if-cached" => demands.only_if_cached = true,
                _ => {}
            });
        } else if let Some(pragma) = fields.get(header::PRAGMA) {
            demands.no_cache = pragma.as_bytes().eq_ignore_ascii_case(b"no-cache");
        }
        demands
    }
}

/// Whether an answer is for one user.
pub(super) fn is_private(fields: &HeaderMap) -> bool {
    Said::of(fields).private
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'v> {
    None,
    Text(&'v [u8]),
    /// There was one, but not in the grammar.
    Broken,
}

impl Value<'_> {
    fn seconds(self) -> Option<Duration> {
        match self {
            Self::Text(digits) => seconds_of(digits),
            Self::None | Self::Broken => None,
        }
    }
}

/// A number of seconds; one beyond what anyone can live to see stands for that (RFC 9111 section 1.2.2).
pub(super) fn seconds_of(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_secs(seconds).min(FOR_EVER))
}

fn strictest(slot: &mut Option<Duration>, value: Duration) {
    *slot = Some(slot.map_or(value, |other| other.min(value)));
}

/// Names come in lower case.
fn each_directive(fields: &HeaderMap, mut tell: impl FnMut(&str, Value<'_>)) {
    for line in fields.get_all(header::CACHE_CONTROL) {
        let mut rest = line.as_bytes();
        while let Some((name, value, after)) = next_directive(rest) {
            rest = after;
            let mut lower = [0; LONGEST_NAME];
            // None that we know is longer.
            if let Some(lower) = lower.get_mut(..name.len()) {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                if let Ok(name) = std::str::from_utf8(lower) {
                    tell(name, value);
                }
            }
        }
    }
}

/// The first directive of `text`, and what comes after it.
fn next_directive(text: &[u8]) -> Option<(&[u8], Value<'_>, &[u8])> {
    let text = &text[text
        .iter()
        .position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?..];
    let end = (text.iter().position(|byte| matches!(byte, b',' | b'='))).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_broken = name.trim_ascii_end().len() != name.len();
    let name = name.trim_ascii_end();
    let Some(rest) = rest.strip_prefix(b"=") else {
        return Some((name, Value::None, rest));
    };
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => {
            let (value, rest) = until_quote(quoted);
            (value, after_comma(rest))
        }
        None => {
            let end = (rest.iter().position(|byte| *byte == b',')).unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            (Value::Text(value.trim_ascii_end()), rest)
        }
    };
    Some((name, if is_broken { Value::Broken } else { value }, rest))
}

/// What stands before the closing quote. One that never closes takes all of the line.
fn until_quote(text: &[u8]) -> (Value<'_>, &[u8]) {
    let mut is_escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return (Value::Text(&text[..at]), &text[at + 1..]),
            _ => {}
        }
    }
    (Value::Broken, &[])
}

fn after_comma(text: &[u8]) -> &[u8] {
    (text.iter().position(|byte| *byte == b',')).map_or(&[], |at| &text[at..])
}

/// 68 years, as RFC 9111 has it for what does not fit.
pub(super) const FOR_EVER: Duration = Duration::from_secs(1 << 31);
const LONGEST_NAME: usize = 32;
