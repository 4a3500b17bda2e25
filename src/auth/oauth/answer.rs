//! What a token endpoint answers: a token (RFC 6749, section 5.1) or an error (section 5.2). Untrusted bytes: whatever
//! they are, the outcome is a token that can be attached, or a reason that holds nothing of them.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use super::error::{Code, Reason};
use crate::auth::hidden;
use crate::limit;

/// A token as it was given.
pub(super) struct Grant {
    /// `None`: the server does not say how long it is valid.
    pub(super) lifetime: Option<Duration>,
    /// Takes the place of the one that it was given for.
    pub(super) refresh_token: Option<Zeroizing<String>>,
    /// Of `Authorization`; sensitive.
    pub(super) value: HeaderValue,
}

/// Why there is no token, with what the server says of it.
#[derive(Debug)]
pub(super) struct Denial {
    /// For the log, where the server had more to say; without what it was told itself.
    pub(super) description: Option<String>,
    pub(super) reason: Reason,
}

/// What the standard calls the members.
#[derive(Deserialize)]
struct Given {
    access_token: Option<String>,
    expires_in: Option<Json>,
    refresh_token: Option<String>,
    token_type: Option<String>,
}

#[derive(Deserialize)]
struct Denied {
    error: Option<String>,
    error_description: Option<String>,
}

impl Grant {
    /// `is_exchange`: the token may be of a type that is not that of an access token (RFC 8693, section 2.2.1).
    pub(super) fn read(body: &[u8], is_exchange: bool) -> Result<Self, Reason> {
        let given: Given = serde_json::from_slice(body)
            .map_err(|_| Reason::Malformed("it is not a JSON object of a token"))?;
        let token = given.access_token.map(Zeroizing::new);
        let refresh_token = given.refresh_token.map(Zeroizing::new);
        let token = token
            .filter(|token| !token.is_empty())
            .ok_or(Reason::Malformed("there is no access_token in it"))?;
        match given.token_type.as_deref() {
            // Some servers leave out what they have only one of.
            None => {}
            Some(kind) if kind.eq_ignore_ascii_case("bearer") => {}
            Some(kind) if is_exchange && kind.eq_ignore_ascii_case("n_a") => {}
            Some(kind) if kind.eq_ignore_ascii_case("dpop") => return Err(Reason::OtherType("a DPoP")),
            Some(kind) if kind.eq_ignore_ascii_case("mac") => return Err(Reason::OtherType("a MAC")),
            Some(_) => return Err(Reason::OtherType("another kind of")),
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Reason::Malformed("its access_token cannot stand in a header"));
        }
        let lifetime = given.expires_in.as_ref().map(lifetime).transpose()?.flatten();
        if lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            return Err(Reason::Outlived);
        }
        let mut text = Zeroizing::new(Vec::with_capacity(BEARER.len() + token.len()));
        text.extend_from_slice(BEARER);
        text.extend_from_slice(token.as_bytes());
        let value = hidden(text).ok_or(Reason::Malformed("its access_token cannot stand in a header"))?;
        Ok(Self {
            lifetime,
            refresh_token: refresh_token.filter(|token| !token.is_empty()),
            value,
        })
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        let description = None;
        Self { description, reason }
    }
}

impl Denial {
    /// `secrets`: what the server was told, and must not be told on.
    pub(super) fn read<'s>(
        status: StatusCode,
        fields: &HeaderMap,
        body: &[u8],
        secrets: impl Iterator<Item = &'s [u8]>,
        now: SystemTime,
    ) -> Self {
        let denied = serde_json::from_slice::<Denied>(body).ok();
        let code = denied
            .as_ref()
            .and_then(|denied| Code::parse(denied.error.as_deref()?));
        let description = denied.and_then(|denied| denied.error_description);
        Self {
            description: description.and_then(|text| plain(&text, secrets)),
            reason: Reason::Refused {
                status,
                code,
                retry_after: limit::asked_pause(status, fields, now),
            },
        }
    }
}

/// Seconds, in the forms that servers write. What is longer than a token is believed to live is cut.
fn lifetime(written: &Json) -> Result<Option<Duration>, Reason> {
    let seconds = match written {
        Json::Null => return Ok(None),
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|seconds: &f64| seconds.is_finite()),
        Json::Array(_) | Json::Bool(_) | Json::Object(_) => None,
    };
    let seconds = seconds.ok_or(Reason::Malformed("its expires_in is not a number"))?;
    Ok(Some(Duration::from_secs_f64(
        seconds.clamp(0.0, LONGEST.as_secs_f64()),
    )))
}

/// A few words for a person: printable, short, and nothing in it that is long or was told to the server.
fn plain<'s>(text: &str, secrets: impl Iterator<Item = &'s [u8]>) -> Option<String> {
    let mut text: String = text.chars().take(LONGEST_READ).collect();
    for secret in secrets.filter_map(|secret| str::from_utf8(secret).ok()) {
        if !secret.is_empty() {
            text = text.replace(secret, "…");
        }
    }
    let mut words = String::new();
    for word in text.split(|c: char| !matches!(c, '!'..='~' | '…')) {
        // What is longer than any word of a language may be a token, or a part of one.
        let word = if word.len() > LONGEST_WORD { "…" } else { word };
        if word.is_empty() || words.len() + word.len() > LONGEST_TOLD {
            continue;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    (!words.is_empty()).then_some(words)
}

const BEARER: &[u8] = b"Bearer ";
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
const LONGEST_READ: usize = 1000;
const LONGEST_TOLD: usize = 200;
const LONGEST_WORD: usize = 20;

#[cfg(test)]
mod tests;
