//! Reads the response of a token endpoint: a token (RFC 6749, section 5.1) or an error (section 5.2). The bytes are
//! untrusted: the result is always a token that can be attached, or a reason that repeats nothing of them.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use super::error::{OAuthErrorCode, TokenFailureReason};
use crate::auth::{SecretMatcher, hidden};
use crate::limit;
use crate::message::Fields;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const BEARER: &[u8] = b"Bearer ";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
const LONGEST_CODE: usize = 60;
const LONGEST_READ: usize = 1000;
const LONGEST_SHOWN: usize = 200;
const LONGEST_WORD: usize = 20;

/// A token as the server issued it.
pub(super) struct IssuedToken {
    /// `None`: the server does not say how long it is valid, or that it does not expire.
    pub(super) lifetime: Option<Duration>,
    /// Replaces the refresh token of the request.
    pub(super) refresh_token: Option<Zeroizing<String>>,
    /// The value of Authorization, marked sensitive.
    pub(super) value: HeaderValue,
}

/// Why the server issued no token.
#[derive(Debug)]
pub(super) struct TokenDenial {
    /// The server's explanation, for the log. Secrets of the request are removed.
    pub(super) description: Option<String>,
    pub(super) reason: TokenFailureReason,
}

/// The members of a response, as the standard names them. Some servers use other JSON types.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenResponse {
    access_token: Json,
    error: Json,
    error_description: Json,
    expires_in: Json,
    refresh_token: Json,
    token_type: Json,
}

impl IssuedToken {
    /// Reads a response with a status of success. `is_exchange`: the token may have another type than an access
    /// token (RFC 8693, section 2.2.1). `secrets`: as for [`TokenDenial::read`].
    pub(super) fn read<'s>(
        status: StatusCode,
        fields: &Fields,
        body: &[u8],
        is_exchange: bool,
        secrets: impl Iterator<Item = &'s [u8]>,
        now: SystemTime,
    ) -> Result<Self, TokenDenial> {
        let mut members = TokenResponse::read(body).ok_or(TokenFailureReason::Malformed(
            "it is neither a JSON object nor a form with a token",
        ))?;
        let Some(token) = written(members.access_token.take()) else {
            // Old servers and some gateways send errors with 200.
            return Err(match &members.error {
                Json::String(code) if !code.is_empty() => members.denial(status, fields, secrets, now),
                Json::Object(_) => members.denial(status, fields, secrets, now),
                _ => TokenFailureReason::Malformed("there is no access_token in it").into(),
            });
        };
        if let Some(other) = other_type(&members.token_type, is_exchange) {
            let kind = members.token_type.as_str().unwrap_or_default();
            return Err(TokenDenial {
                description: plain(kind, &secrets.collect::<Vec<_>>()),
                reason: TokenFailureReason::OtherType(other),
            });
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                TokenFailureReason::Malformed("its access_token is not valid in a header field").into(),
            );
        }
        let mut text = Zeroizing::new(Vec::with_capacity(BEARER.len() + token.len()));
        text.extend_from_slice(BEARER);
        text.extend_from_slice(token.as_bytes());
        let value = hidden(text).ok_or(TokenFailureReason::Malformed(
            "its access_token is not valid in a header field",
        ))?;
        Ok(Self {
            lifetime: lifetime(&members.expires_in),
            refresh_token: written(members.refresh_token),
            value,
        })
    }
}

impl TokenResponse {
    /// Reads a JSON object, or a form as servers sent it before there was a standard. `None`: neither, or a member
    /// occurs twice, which is ambiguous.
    fn read(body: &[u8]) -> Option<Self> {
        // Some servers write a byte order mark.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.starts_with(b"{") {
            return serde_json::from_slice(body).ok();
        }
        let mut members = Self::default();
        for pair in str::from_utf8(body).ok()?.split('&') {
            let (name, value) = pair.split_once('=')?;
            // Not a form, but for example an HTML page with a link.
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.%+*".contains(&byte))
            {
                return None;
            }
            let member = match name {
                "access_token" => &mut members.access_token,
                "error" => &mut members.error,
                "error_description" => &mut members.error_description,
                "expires_in" => &mut members.expires_in,
                "refresh_token" => &mut members.refresh_token,
                "token_type" => &mut members.token_type,
                _ => continue,
            };
            if !member.is_null() {
                return None;
            }
            let value = Zeroizing::new(value.replace('+', " "));
            *member = Json::String(percent_decode_str(&value).decode_utf8().ok()?.into_owned());
        }
        (!members.access_token.is_null() || !members.error.is_null()).then_some(members)
    }

    /// Returns why the server issued no token.
    fn denial<'s>(
        &self,
        status: StatusCode,
        fields: &Fields,
        secrets: impl Iterator<Item = &'s [u8]>,
        now: SystemTime,
    ) -> TokenDenial {
        let code = self.error.as_str().and_then(OAuthErrorCode::parse);
        // An unknown code may be any text: treat it like a description.
        let word = self.error.as_str().filter(|_| code.is_none()).unwrap_or_default();
        let text = self.error_description.as_str().unwrap_or_default();
        let within = self
            .error
            .get("message")
            .and_then(Json::as_str)
            .unwrap_or_default();
        TokenDenial {
            description: plain(&[word, text, within].join(" "), &secrets.collect::<Vec<_>>()),
            reason: TokenFailureReason::Refused {
                status,
                code,
                retry_after: limit::asked_pause(status, fields, now),
            },
        }
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl From<TokenFailureReason> for TokenDenial {
    fn from(reason: TokenFailureReason) -> Self {
        let description = None;
        Self { description, reason }
    }
}

impl TokenDenial {
    /// Reads an error response. `secrets`: the secrets of the request, which the server may repeat.
    pub(super) fn read<'s>(
        status: StatusCode,
        fields: &Fields,
        body: &[u8],
        secrets: impl Iterator<Item = &'s [u8]>,
        now: SystemTime,
    ) -> Self {
        TokenResponse::read(body)
            .unwrap_or_default()
            .denial(status, fields, secrets, now)
    }
}

/// Returns a text that is not empty. It is wiped when it is dropped.
fn written(value: Json) -> Option<Zeroizing<String>> {
    let Json::String(text) = value else {
        return None;
    };
    let text = Zeroizing::new(text);
    (!text.is_empty()).then_some(text)
}

/// Names the type of a token that cannot be attached as Bearer. `None`: it can. Servers have many words for Bearer,
/// and some send no type.
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

/// Reads the lifetime in seconds, in all forms that servers write, a year at most.
///
/// `None`: the server does not say. So are values that are not numbers, and 0 or less, by which servers mean a
/// token that does not expire (VK, GoToSocial, Authlib). If an expired token was meant, its first 401 leads to
/// another one.
fn lifetime(written: &Json) -> Option<Duration> {
    let seconds = match written {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        Json::Null | Json::Array(_) | Json::Bool(_) | Json::Object(_) => None,
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

/// Returns a short printable text for a person, without long words, which may be tokens, and without secrets of the
/// request.
fn plain(text: &str, secrets: &[&[u8]]) -> Option<String> {
    let mut text: String = text.chars().take(LONGEST_READ).collect();
    for secret in secrets.iter().filter_map(|secret| str::from_utf8(secret).ok()) {
        if !secret.is_empty() {
            text = text.replace(secret, "…");
        }
    }
    let text = redacted(&text, secrets);
    let mut words = String::new();
    for word in text.split(|c: char| !matches!(c, '!'..='~' | '…')) {
        // A long word may be (a part of) a token. A code consists of several words.
        let longest = word.split('_').map(str::len).max().unwrap_or_default();
        let is_code = word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
        let is_long = word.len() > if is_code { LONGEST_CODE } else { LONGEST_WORD };
        let word = if is_long || longest > LONGEST_WORD {
            "…"
        } else {
            word
        };
        if word.is_empty() || words.len() + word.len() > LONGEST_SHOWN {
            continue;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    (!words.is_empty()).then_some(words)
}

/// Removes secrets in other encodings: a server may encode them differently, or decode too much.
fn redacted(text: &str, secrets: &[&[u8]]) -> String {
    let mut matcher = SecretMatcher::default();
    for secret in secrets {
        matcher.add(secret);
        // How a form decoder reads a secret that was not form-encoded.
        let blank = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        matcher.add(&Zeroizing::new(secret.iter().map(blank).collect::<Vec<_>>()));
    }
    let mut places = Vec::new();
    matcher.search(text.as_bytes(), true, |place| places.push(place));
    let shown = text.char_indices().filter_map(|(at, c)| {
        if places.iter().any(|place| place.contains(&at)) {
            places.iter().any(|place| place.start == at).then_some('…')
        } else {
            Some(c)
        }
    });
    shown.collect()
}

#[cfg(test)]
mod tests;
