//! What a token endpoint answers: a token (RFC 6749, section 5.1) or an error (section 5.2). Untrusted bytes: whatever
//! they are, the outcome is a token that can be attached, or a reason that holds nothing of them.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use super::error::{Code, Reason};
use crate::auth::{Needles, hidden};
use crate::limit;

/// A token as it was given.
pub(super) struct Grant {
    /// `None`: the server does not say how long it is valid, or that it has no end.
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

/// The members of an answer, as the standard calls them. Servers write some of them as values of another kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    access_token: Json,
    error: Json,
    error_description: Json,
    expires_in: Json,
    refresh_token: Json,
    token_type: Json,
}

impl Grant {
    /// Reads an answer that promises a token. `is_exchange`: the token may be of a type that is not that of an access
    /// token (RFC 8693, section 2.2.1). `secrets`: as for [`Denial::read`].
    pub(super) fn read<'s>(
        status: StatusCode,
        fields: &HeaderMap,
        body: &[u8],
        is_exchange: bool,
        secrets: impl Iterator<Item = &'s [u8]>,
        now: SystemTime,
    ) -> Result<Self, Denial> {
        let mut told = Told::read(body).ok_or(Reason::Malformed(
            "it is neither a JSON object nor a form with a token",
        ))?;
        let Some(token) = written(told.access_token.take()) else {
            // Old servers, and some gateways, send their errors with 200.
            return Err(match &told.error {
                Json::String(code) if !code.is_empty() => told.denial(status, fields, secrets, now),
                Json::Object(_) => told.denial(status, fields, secrets, now),
                _ => Reason::Malformed("there is no access_token in it").into(),
            });
        };
        if let Some(other) = other_type(&told.token_type, is_exchange) {
            let kind = told.token_type.as_str().unwrap_or_default();
            return Err(Denial {
                description: plain(kind, &secrets.collect::<Vec<_>>()),
                reason: Reason::OtherType(other),
            });
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Reason::Malformed("its access_token cannot stand in a header").into());
        }
        let mut text = Zeroizing::new(Vec::with_capacity(BEARER.len() + token.len()));
        text.extend_from_slice(BEARER);
        text.extend_from_slice(token.as_bytes());
        let value = hidden(text).ok_or(Reason::Malformed("its access_token cannot stand in a header"))?;
        Ok(Self {
            lifetime: lifetime(&told.expires_in),
            refresh_token: written(told.refresh_token),
            value,
        })
    }
}

impl Told {
    /// Reads a JSON object, or a form, which servers sent before there was a standard. Of a member that stands twice in
    /// an object nobody knows which one counts: `None`.
    fn read(body: &[u8]) -> Option<Self> {
        // Some servers write files with a byte order mark, and their answers as they write files.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.starts_with(b"{") {
            return serde_json::from_slice(body).ok();
        }
        let mut told = Self::default();
        for pair in str::from_utf8(body).ok()?.split('&') {
            let (name, value) = pair.split_once('=')?;
            // A page with a form or a link in it is none.
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.%+*".contains(&byte))
            {
                return None;
            }
            let member = match name {
                "access_token" => &mut told.access_token,
                "error" => &mut told.error,
                "error_description" => &mut told.error_description,
                "expires_in" => &mut told.expires_in,
                "refresh_token" => &mut told.refresh_token,
                "token_type" => &mut told.token_type,
                _ => continue,
            };
            if !member.is_null() {
                return None;
            }
            let value = Zeroizing::new(value.replace('+', " "));
            *member = Json::String(percent_decode_str(&value).decode_utf8().ok()?.into_owned());
        }
        (!told.access_token.is_null() || !told.error.is_null()).then_some(told)
    }

    /// Why there is no token.
    fn denial<'s>(
        &self,
        status: StatusCode,
        fields: &HeaderMap,
        secrets: impl Iterator<Item = &'s [u8]>,
        now: SystemTime,
    ) -> Denial {
        let code = self.error.as_str().and_then(Code::parse);
        // A code that is not known may be anything: it is told as a description is.
        let word = self.error.as_str().filter(|_| code.is_none()).unwrap_or_default();
        let text = self.error_description.as_str().unwrap_or_default();
        let within = self
            .error
            .get("message")
            .and_then(Json::as_str)
            .unwrap_or_default();
        Denial {
            description: plain(&[word, text, within].join(" "), &secrets.collect::<Vec<_>>()),
            reason: Reason::Refused {
                status,
                code,
                retry_after: limit::asked_pause(status, fields, now),
            },
        }
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
        Told::read(body)
            .unwrap_or_default()
            .denial(status, fields, secrets, now)
    }
}

/// A text that is not empty, wiped when it is dropped.
fn written(value: Json) -> Option<Zeroizing<String>> {
    let Json::String(text) = value else {
        return None;
    };
    let text = Zeroizing::new(text);
    (!text.is_empty()).then_some(text)
}

/// What a token is that cannot be attached as Bearer; `None` where it can. Servers have many words for Bearer, and some
/// leave out what they have only one of.
fn other_type(written: &Json, is_exchange: bool) -> Option<&'static str> {
    let kind = match written {
        Json::Null => return None,
        Json::String(kind) => kind.trim().to_ascii_lowercase(),
        _ => return Some("another kind of"),
    };
    match kind.as_str() {
        "" | "jwt" | "access_token" | ACCESS_TOKEN | JWT => None,
        "n_a" if is_exchange => None,
        "n_a" => Some("an N_A"),
        "dpop" => Some("a DPoP"),
        "mac" => Some("a MAC"),
        "pop" => Some("a PoP"),
        // BearerToken (Apigee), bearer_token, jwt-bearer (Azure DevOps).
        kind if kind.contains("bearer") => None,
        _ => Some("another kind of"),
    }
}

/// Seconds, in the forms that servers write. What is longer than a token is believed to live is cut. `None`: the server
/// does not say; so are 0 and less understood, by which servers mean a token without an end (VK, GoToSocial, Authlib), and
/// what is no number. Where one was meant that is over, its first 401 brings another one.
fn lifetime(written: &Json) -> Option<Duration> {
    let seconds = match written {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        Json::Null | Json::Array(_) | Json::Bool(_) | Json::Object(_) => None,
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

/// A few words for a person: printable, short, and nothing in it that is long or was told to the server.
fn plain(text: &str, secrets: &[&[u8]]) -> Option<String> {
    let mut text: String = text.chars().take(LONGEST_READ).collect();
    for secret in secrets.iter().filter_map(|secret| str::from_utf8(secret).ok()) {
        if !secret.is_empty() {
            text = text.replace(secret, "…");
        }
    }
    let text = struck(&text, secrets);
    let mut words = String::new();
    for word in text.split(|c: char| !matches!(c, '!'..='~' | '…')) {
        // What is longer than any word of a language may be a token, or a part of one; a code is several words.
        let longest = word.split('_').map(str::len).max().unwrap_or_default();
        let is_code = word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
        let is_long = word.len() > if is_code { LONGEST_CODE } else { LONGEST_WORD };
        let word = if is_long || longest > LONGEST_WORD {
            "…"
        } else {
            word
        };
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

/// The same without secrets in other spellings than ours: a server may encode them in its own way, or decode too much.
fn struck(text: &str, secrets: &[&[u8]]) -> String {
    let mut needles = Needles::default();
    for secret in secrets {
        needles.add(secret);
        // As a form reads it that it was not encoded for.
        let blank = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        needles.add(&Zeroizing::new(secret.iter().map(blank).collect::<Vec<_>>()));
    }
    let mut places = Vec::new();
    needles.look(text.as_bytes(), true, |place| places.push(place));
    let shown =
        text.char_indices()
            .filter_map(|(at, c)| match places.iter().any(|place| place.contains(&at)) {
                true => places.iter().any(|place| place.start == at).then_some('…'),
                false => Some(c),
            });
    shown.collect()
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const BEARER: &[u8] = b"Bearer ";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
const LONGEST_CODE: usize = 60;
const LONGEST_READ: usize = 1000;
const LONGEST_TOLD: usize = 200;
const LONGEST_WORD: usize = 20;

#[cfg(test)]
mod tests;
