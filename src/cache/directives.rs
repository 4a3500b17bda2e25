//! Cache-Control, read as RFC 9111 section 5.2 defines it.
//!
//! Names are compared without case, a directive inside a quoted string is ignored, and a malformed value counts
//! against reuse: an unreadable `max-age` is 0. Of two values of one directive, the stricter one holds.
//!
//! What the directives mean for a stored response is in [`freshness`](super::freshness).

use std::time::Duration;

use http::header::{self};

use crate::message::Fields;

/// 68 years: what RFC 9111 uses for a number that does not fit.
pub(super) const FOR_EVER: Duration = Duration::from_secs(1 << 31);

const LONGEST_NAME: usize = 32;

/// What an upstream says about storing and reusing its response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseDirectives {
    pub(super) max_age: Option<Duration>,
    /// Applies to every cache except those of the app's own libraries. A response with it must not be used stale.
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

/// What an app's request says about stored responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    pub(super) max_age: Option<Duration>,
    pub(super) max_stale: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) only_if_cached: bool,
}

impl ResponseDirectives {
    pub(super) fn of(fields: &Fields) -> Self {
        let mut directives = Self::default();
        each_directive(fields, |name, value| match name {
            "max-age" => strictest(&mut directives.max_age, value.seconds().unwrap_or_default()),
            "s-maxage" => strictest(&mut directives.s_maxage, value.seconds().unwrap_or_default()),
            "must-revalidate" => directives.must_revalidate = true,
            "must-understand" => directives.must_understand = true,
            "no-cache" => directives.no_cache = true,
            "no-store" => directives.no_store = true,
            "private" => directives.private = true,
            "proxy-revalidate" => directives.proxy_revalidate = true,
            "public" => directives.public = true,
            "stale-if-error" => strictest(
                &mut directives.stale_if_error,
                value.seconds().unwrap_or_default(),
            ),
            "stale-while-revalidate" => {
                strictest(
                    &mut directives.stale_while_revalidate,
                    value.seconds().unwrap_or_default(),
                );
            }
            _ => {}
        });
        directives
    }
}

impl RequestDirectives {
    pub(super) fn of(fields: &Fields) -> Self {
        let mut directives = Self::default();
        if fields.contains_key(header::CACHE_CONTROL) {
            each_directive(fields, |name, value| match name {
                "max-age" => strictest(&mut directives.max_age, value.seconds().unwrap_or_default()),
                // Without a value, any staleness is accepted.
                "max-stale" if value == DirectiveValue::None => {
                    strictest(&mut directives.max_stale, FOR_EVER)
                }
                "max-stale" => {
                    strictest(&mut directives.max_stale, value.seconds().unwrap_or_default());
                }
                "min-fresh" => {
                    let wanted = value.seconds().unwrap_or(FOR_EVER);
                    directives.min_fresh =
                        Some(directives.min_fresh.map_or(wanted, |other| other.max(wanted)));
                }
                "no-cache" => directives.no_cache = true,
                "no-store" => directives.no_store = true,
                "only-if-cached" => directives.only_if_cached = true,
                _ => {}
            });
        } else if let Some(pragma) = fields.get(header::PRAGMA) {
            directives.no_cache = pragma.as_bytes().eq_ignore_ascii_case(b"no-cache");
        }
        directives
    }
}

/// Whether a response is for one user.
pub(super) fn is_private(fields: &Fields) -> bool {
    ResponseDirectives::of(fields).private
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectiveValue<'v> {
    None,
    Text(&'v [u8]),
    /// A value that does not match the grammar.
    Broken,
}

impl DirectiveValue<'_> {
    fn seconds(self) -> Option<Duration> {
        match self {
            Self::Text(digits) => seconds_of(digits),
            Self::None | Self::Broken => None,
        }
    }
}

/// Reads a number of seconds. A number that does not fit counts as [`FOR_EVER`] (RFC 9111 section 1.2.2).
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

/// Calls `take` for each directive, with its name in lower case.
fn each_directive(fields: &Fields, mut take: impl FnMut(&str, DirectiveValue<'_>)) {
    for line in fields.get_all(header::CACHE_CONTROL) {
        let mut rest = line.as_bytes();
        while let Some((name, value, after)) = next_directive(rest) {
            rest = after;
            let mut lower = [0; LONGEST_NAME];
            // All known names are shorter.
            if let Some(lower) = lower.get_mut(..name.len()) {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                if let Ok(name) = std::str::from_utf8(lower) {
                    take(name, value);
                }
            }
        }
    }
}

/// Returns the first directive of `text`, and the rest.
fn next_directive(text: &[u8]) -> Option<(&[u8], DirectiveValue<'_>, &[u8])> {
    let text = &text[text
        .iter()
        .position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?..];
    let end = text
        .iter()
        .position(|byte| matches!(byte, b',' | b'='))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_broken = name.trim_ascii_end().len() != name.len();
    let name = name.trim_ascii_end();
    let Some(rest) = rest.strip_prefix(b"=") else {
        return Some((name, DirectiveValue::None, rest));
    };
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => {
            let (value, rest) = until_quote(quoted);
            (value, after_comma(rest))
        }
        None => {
            let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            (DirectiveValue::Text(value.trim_ascii_end()), rest)
        }
    };
    Some((name, if is_broken { DirectiveValue::Broken } else { value }, rest))
}

/// Returns the text before the closing quote, and the rest. Without a closing quote the value is broken and the
/// rest empty.
fn until_quote(text: &[u8]) -> (DirectiveValue<'_>, &[u8]) {
    let mut is_escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return (DirectiveValue::Text(&text[..at]), &text[at + 1..]),
            _ => {}
        }
    }
    (DirectiveValue::Broken, &[])
}

fn after_comma(text: &[u8]) -> &[u8] {
    text.iter()
        .position(|byte| *byte == b',')
        .map_or(&[], |at| &text[at..])
}
