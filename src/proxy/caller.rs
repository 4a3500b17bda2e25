//! Identifies the caller of a request, as the upstream sees it.
//!
//! A service counts its limits per user, so a limit that it reported to one user must not hold back another. A
//! [`Caller`] is identified by the credential that the service sees. If outrider attaches it, that is the rule of
//! the destination: a renewed token or a rotated secret is the same caller. Otherwise it is what the app sends in
//! well-known fields and parameters, reduced to the parts that are equal in each request of a caller: without
//! signatures, nonces and times. Fields and parameters that outrider sets do not count, so that a caller is the
//! same before and after a credential is attached.
//!
//! Only cookies that identify a session count. Others, as load balancers and frameworks set them, change with every
//! response: each request would be another caller, and nothing learned from one would apply to the next.
//!
//! No part of a credential is kept: a [`Caller`] is a sum of SipHashes under a random key of this process. A
//! credential in a body, or a client certificate, belongs to the destination and does not distinguish callers.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use http::header::{self, HeaderName};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use crate::auth::Credentials;
use crate::config::{Auth, AuthRule};
use crate::limit::Caller;
use crate::message::RequestHead;
use crate::policy::Destination;

#[cfg(test)]
mod tests;

/// The ends of names of API keys, in fields and parameters: `X-Api-Key`, `apikey`, `X-RapidAPI-Key`,
/// `Ocp-Apim-Subscription-Key`, `access_token`, `appid`.
const KEYS: [&str; 17] = [
    "accesskey",
    "accesskeyid",
    "accesstoken",
    "apikey",
    "apikeyid",
    "apitoken",
    "appid",
    "appkey",
    "applicationid",
    "applicationkey",
    "authkey",
    "authtoken",
    "clientid",
    "consumerkey",
    "privatetoken",
    "subscriptionkey",
    "usertoken",
];

/// More fields that hold a credential, or name the account whose quota counts.
const FIELDS: [&str; 16] = [
    "aeg-sas-key",
    "fastly-key",
    "openai-organization",
    "openai-project",
    "stripe-account",
    "x-auth-email",
    "x-auth-user",
    "x-authorization",
    "x-functions-key",
    "x-goog-user-project",
    "x-honeycomb-team",
    "x-mashape-key",
    "x-master-key",
    "x-metabase-session",
    "x-tenant-id",
    "xero-tenant-id",
];

/// Cookies that identify a session.
const SESSIONS: [&str; 7] = [
    "ASP.NET_SessionId",
    "connect.sid",
    "JSESSIONID",
    "PHPSESSID",
    "session_id",
    "sessionid",
    "sid",
];

/// Schemes whose value is a key id, a colon and a signature.
const SIGNED_SCHEMES: [&str; 9] = [
    "acs",
    "AWS",
    "OBS",
    "OSS",
    "QBox",
    "Qiniu",
    "SharedKey",
    "SharedKeyLite",
    "UCloud",
];

/// The parameters of Authorization and Signature-Input that identify a caller.
const NAMES: [&str; 18] = [
    "access",
    "accesskey",
    "ak",
    "apikey",
    "app_id",
    "client_token",
    "credential",
    "id",
    "k",
    "key",
    "key_id",
    "keyid",
    "oauth_consumer_key",
    "oauth_token",
    "q-ak",
    "token",
    "username",
    "username*",
];

/// Claims that differ between two tokens of one user.
const PASSING_CLAIMS: [&str; 12] = [
    "ath",
    "auth_time",
    "exp",
    "htm",
    "htu",
    "iat",
    "jti",
    "nbf",
    "nonce",
    "query_hash",
    "uri",
    "uti",
];

/// Random, so that a hash reveals no credential and nobody can find another one with the same hash.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// More parameters of a query that hold a credential.
const PARAMETERS: [&str; 4] = ["auth", "key", "oauth_token", "token"];

/// Schemes whose value changes with each message.
const PASSING_SCHEMES: [&str; 3] = ["Negotiate", "NTLM", "PrivateToken"];

/// Identifies the caller of a request, before or after its credential is attached. `credentials`: those of the
/// destination, if the request carries them.
pub(super) fn of(head: &RequestHead, destination: &Destination, credentials: Option<&Credentials>) -> Caller {
    let mut sum = CallerHash::default();
    let rule = destination.auth_rule(&head.method, head.uri.path());
    let rule = rule.ok().flatten().filter(|_| credentials.is_some());
    let credential = credentials.map(|credentials| credentials.any_of(rule));
    if let Some(rule) = rule.map(|rule| &destination.auth[rule])
        && !rule.credentials.is_empty()
    {
        // Two rules with the same credentials are one caller.
        let first = destination
            .auth
            .iter()
            .position(|other| attached(other).eq(attached(rule)));
        sum.add("rule", |hasher| first.hash(hasher));
    }
    for (name, value) in &head.headers {
        if credential.is_none_or(|credential| !credential.names().decide(name)) {
            sum.add_field(name, value.as_bytes());
        }
    }
    let query = head.uri.query().unwrap_or_default().split('&');
    for part in query.filter(|part| !credential.is_some_and(|credential| credential.decides_parameter(part)))
    {
        sum.add_parameter(part);
    }
    Caller(sum.0)
}

fn attached(rule: &AuthRule) -> impl Iterator<Item = &Auth> {
    rule.credentials.iter().map(|credential| &credential.auth)
}

/// A hash that does not depend on the order of its parts: attaching a field may move others.
#[derive(Debug, Default)]
struct CallerHash(u64);

impl CallerHash {
    fn add(&mut self, name: &str, value: impl FnOnce(&mut DefaultHasher)) {
        let mut hasher = KEY.build_hasher();
        name.hash(&mut hasher);
        value(&mut hasher);
        self.0 = self.0.wrapping_add(hasher.finish());
    }

    fn add_field(&mut self, name: &HeaderName, value: &[u8]) {
        let written = name.as_str();
        match *name {
            header::AUTHORIZATION => self.add(written, |hasher| authorization(value, hasher)),
            header::COOKIE => self.add_cookies(value),
            _ if written == "signature-input" => {
                self.add(written, |hasher| {
                    parameters(value, hasher);
                });
            }
            _ if ends(written, &KEYS) || FIELDS.contains(&written) || is_token(written) => {
                self.add(written, |hasher| authorization(value, hasher));
            }
            _ => {}
        }
    }

    fn add_parameter(&mut self, part: &str) {
        let Some((name, value)) = part.split_once('=') else {
            return;
        };
        if ends(name, &KEYS) || PARAMETERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            self.add("?", |hasher| {
                name.hash(hasher);
                token(value.as_bytes(), hasher);
            });
        } else if ends(name, &["credential"]) {
            // AWS and Google: key id, date, region, service.
            let value: Vec<u8> = percent_decode(value.as_bytes()).collect();
            self.add("?", |hasher| before(&value, b'/').hash(hasher));
        }
    }

    fn add_cookies(&mut self, value: &[u8]) {
        for cookie in value.split(|byte| *byte == b';') {
            let Some((name, value)) = cut(cookie.trim_ascii(), b'=') else {
                continue;
            };
            let Ok(name) = str::from_utf8(name) else { continue };
            if ends(name, &KEYS) || SESSIONS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                self.add("cookie", |hasher| {
                    name.hash(hasher);
                    token(value, hasher);
                });
            }
        }
    }
}

/// Hashes the constant part of Authorization, or of a field that is used like it.
fn authorization(value: &[u8], hasher: &mut DefaultHasher) {
    let value = value.trim_ascii();
    let (scheme, rest) = match cut(value, b' ') {
        Some((scheme, rest)) if !scheme.contains(&b'=') => (scheme, rest.trim_ascii()),
        Some(_) | None => (&b""[..], value),
    };
    scheme.hash(hasher);
    let is_one_of = |schemes: &[&str]| find(scheme, schemes).is_some();
    if is_one_of(&["Basic"]) {
        rest.hash(hasher);
    } else if is_one_of(&SIGNED_SCHEMES) {
        before(rest, b':').hash(hasher);
    } else if !is_one_of(&PASSING_SCHEMES) && !parameters(rest, hasher) {
        token(rest, hasher);
    }
}

/// Hashes the parameters of a list that name a key or a user: Digest, OAuth 1, Hawk, signatures of all kinds.
/// Returns whether there are any.
fn parameters(list: &[u8], hasher: &mut DefaultHasher) -> bool {
    let (mut is_quoted, mut has_any) = (false, false);
    let parts = list.split(|byte| {
        is_quoted ^= *byte == b'"';
        !is_quoted && matches!(byte, b',' | b';' | b'&' | b' ')
    });
    for part in parts {
        let Some((name, value)) = cut(part, b'=') else {
            continue;
        };
        let Some(name) = find(name, &NAMES) else { continue };
        has_any = true;
        name.hash(hasher);
        let value = value.trim_ascii();
        let value = (value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\"")))
        .unwrap_or(value);
        match name {
            // Key id, date, region, service.
            "credential" => before(value, b'/').hash(hasher),
            _ => value.hash(hasher),
        }
    }
    has_any
}

/// Hashes a token: its user if it is a JSON Web Token, which an app may make for each request, or else all of it.
fn token(token: &[u8], hasher: &mut DefaultHasher) {
    let Some(claims) = claims(token) else {
        return token.hash(hasher);
    };
    let is_of_user = |name: &str| {
        if claims.contains_key("sub") {
            matches!(name, "iss" | "sub" | "azp" | "client_id" | "tid")
        } else {
            !PASSING_CLAIMS.contains(&name)
        }
    };
    let mut of_user = claims.iter().filter(|(name, _)| is_of_user(name)).peekable();
    if of_user.peek().is_none() {
        return token.hash(hasher);
    }
    for (name, value) in of_user {
        name.hash(hasher);
        value.to_string().hash(hasher);
    }
}

/// Returns the claims of a signed JSON Web Token (RFC 7519). `None`: another kind of token.
fn claims(token: &[u8]) -> Option<Map<String, Value>> {
    // Every JSON object in base64 begins with this.
    let mut parts = token.strip_prefix(b"eyJ")?.split(|byte| *byte == b'.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&BASE64URL_NOPAD.decode(claims).ok()?).ok()
}

/// Returns whether a name ends in one of `words`, ignoring case and punctuation.
fn ends(name: &str, words: &[&str]) -> bool {
    words.iter().any(|word| {
        let mut letters = name.bytes().rev().filter(u8::is_ascii_alphanumeric);
        word.bytes().rev().all(|own| {
            letters
                .next()
                .is_some_and(|letter| letter.to_ascii_lowercase() == own)
        })
    })
}

/// Matches X-Vault-Token, Circle-Token, Private-Token and many more, but not tokens that protect a form or belong
/// to another field.
fn is_token(field: &str) -> bool {
    ends(field, &["token"])
        && !ends(
            field,
            &[
                "continuationtoken",
                "csrftoken",
                "securitytoken",
                "verificationtoken",
                "xsrftoken",
            ],
        )
}

fn find<'w>(written: &[u8], words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .copied()
        .find(|word| written.eq_ignore_ascii_case(word.as_bytes()))
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == at)?;
    Some((&text[..end], &text[end + 1..]))
}

fn before(text: &[u8], end: u8) -> &[u8] {
    cut(text, end).map_or(text, |(before, _)| before)
}
