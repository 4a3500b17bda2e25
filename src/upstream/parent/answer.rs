//! What common proxies mean by their refusals.
//!
//! The status alone says little: Caddy answers 403 where its rules deny a host and where a host is dead, squid 500 where a
//! name does not resolve, tinyproxy 401 to a wrong password. So the fields and the text that are known of each are looked at
//! first. Nothing of an answer is repeated: it chooses among our own words.

use http::StatusCode;
use http::header::{self};

use super::error::{Meaning, ParentFault};
use crate::http1::ReasonPhrase;
use crate::message::{Fields, Response};

/// RFC 9209.
const PROXY_STATUS: &str = "proxy-status";
const SQUID_ERROR: &str = "x-squid-error";
/// Set by the router of Cloud Foundry where it answers in the place of an app.
const ROUTER_ERROR: &str = "x-cf-routererror";

/// From the sentences of `ClientRefusal`. A host or a destination in another sentence has no spaces.
const ABOUT_CERTIFICATE: [&str; 3] = [
    "the client certificate of ",
    "clients with a certificate only",
    "has to show its certificate ",
];

/// The reason phrases of Traffic Server where it could not reach a destination.
const PHRASES: [&str; 2] = ["Cannot find server", "Connection refused"];

/// What Envoy, mitmproxy, proxy.py and Traffic Server write into the body of a refusal.
const REASONS: &[(&str, Meaning)] = &[
    ("RBAC: access denied", Meaning::Denied),
    ("DNS resolution failure", Meaning::NoName),
    ("reset reason: connection timeout", Meaning::TimedOut),
    ("reset reason: remote connection failure", Meaning::Refused),
    ("delayed connect error: 111", Meaning::Refused),
    ("[Errno -2]", Meaning::NoName),
    ("[Errno -3]", Meaning::NoName),
    ("[Errno -5]", Meaning::NoName),
    ("[Errno 111]", Meaning::Refused),
    ("[Errno 110]", Meaning::TimedOut),
    ("upstream connect error", Meaning::Dead),
];

/// A refusal, in the parts that tell its meaning.
#[derive(Debug)]
pub(super) struct ParentRefusal {
    fields: Fields,
    /// The reason phrase, where it is not the usual one.
    phrase: String,
    /// The beginning of the body.
    pub(super) reason: Vec<u8>,
    status: StatusCode,
}

impl ParentRefusal {
    pub(super) fn of(response: &Response<()>) -> Self {
        let phrase = response.extensions().get::<ReasonPhrase>();
        let phrase = phrase.map(|phrase| String::from_utf8_lossy(phrase.0.as_bytes()).into_owned());
        Self {
            fields: response.headers().clone(),
            phrase: phrase.unwrap_or_default(),
            reason: Vec::new(),
            status: response.status(),
        }
    }

    /// Whether the body may say more than the head.
    pub(super) fn wants_reason(&self) -> bool {
        let is_told = self.fields.contains_key(SQUID_ERROR) || self.fields.contains_key(ROUTER_ERROR);
        let is_empty = self.value(header::CONTENT_LENGTH.as_str()) == b"0";
        !is_told && !is_empty && self.status.is_server_error()
    }

    fn value(&self, name: &str) -> &[u8] {
        self.fields.get(name).map_or(&[], |value| value.as_bytes())
    }

    /// Whether the server calls itself so.
    fn is_by(&self, server: &str) -> bool {
        let own = self.value(header::SERVER.as_str());
        own.get(..server.len())
            .is_some_and(|own| own.eq_ignore_ascii_case(server.as_bytes()))
    }

    fn says(&self, words: &str) -> bool {
        memchr::memmem::find(&self.reason, words.as_bytes()).is_some()
    }

    /// Returns whether it refuses our credentials, or wants some.
    fn is_about_credentials(&self) -> bool {
        match self.status.as_u16() {
            407 => true,
            // tinyproxy, to a wrong password.
            401 => self.fields.contains_key(header::WWW_AUTHENTICATE),
            // proxy-chain, of the proxy behind it.
            597 => true,
            _ => self.value(SQUID_ERROR).starts_with(b"ERR_CACHE_ACCESS_DENIED"),
        }
    }

    /// Whether a 404 is that of privoxy (its phrase), of proxy-chain, or of npm's proxy, which has nothing to show. Any other
    /// is a page that a web server does not have.
    fn is_missing_name(&self) -> bool {
        let shows = [header::SERVER, header::CONTENT_TYPE, header::CONTENT_LENGTH];
        self.phrase.starts_with("No such domain")
            || self.is_by("ProxyChain")
            || !shows.iter().any(|name| self.fields.contains_key(name))
    }

    /// Whether it is an outrider that wants a certificate, or another one.
    fn is_about_certificate(&self) -> bool {
        let told = self.value(PROXY_STATUS);
        self.status == StatusCode::FORBIDDEN
            && told.starts_with(b"outrider; error=http_request_denied;")
            && wants_certificate(told)
    }

    fn meaning(&self) -> Meaning {
        if self.fields.contains_key(ROUTER_ERROR) {
            return Meaning::NotRunning;
        }
        if self.is_about_certificate() {
            return Meaning::UnknownClient;
        }
        if let Some(meaning) = of_squid(self.value(SQUID_ERROR)) {
            return meaning;
        }
        let told = REASONS.iter().find(|(words, _)| self.says(words));
        if let Some((_, meaning)) = told {
            return *meaning;
        }
        match self.status.as_u16() {
            // Traffic Server (the phrase), Caddy, privoxy and npm's proxy (404), proxy-chain.
            500 if self.phrase.starts_with("Cannot find server") => Meaning::NoName,
            502 if self.is_by("Caddy") => Meaning::NoName,
            502 if self.phrase.starts_with("Connection refused") => Meaning::Refused,
            404 if self.is_missing_name() => Meaning::NoName,
            404 | 410 => Meaning::WebServer,
            593 => Meaning::NoName,
            594 => Meaning::Refused,
            403 if self.is_by("Caddy") || self.value(header::CONTENT_LENGTH.as_str()) == b"0" => {
                Meaning::DeniedOrDead
            }
            403 | 451 => Meaning::Denied,
            408 | 504 => Meaning::TimedOut,
            429 => Meaning::Busy,
            508 => Meaning::Loop,
            500 | 502 | 503 | 590..=599 => Meaning::Dead,
            _ => Meaning::NoProxy,
        }
    }
}

/// Whether a sentence of `ClientRefusal` is about the certificate of the client.
pub(crate) fn wants_certificate(told: &[u8]) -> bool {
    let says = |words: &&str| memchr::memmem::find(told, words.as_bytes()).is_some();
    ABOUT_CERTIFICATE.iter().any(says)
}

/// Explains the refusal of a CONNECT. `has_credentials`: some were sent.
pub(super) fn of_connect(refusal: &ParentRefusal, has_credentials: bool) -> ParentFault {
    if refusal.is_about_credentials() {
        return ParentFault::Credentials {
            has_some: has_credentials,
        };
    }
    ParentFault::Answered {
        status: refusal.status,
        meaning: refusal.meaning(),
    }
}

/// Explains an answer to a request in absolute-form, if it is certain that the parent made it and not the destination.
pub(super) fn of_forwarding(response: &Response<()>, has_credentials: bool) -> Option<ParentFault> {
    let status = response.status();
    if !(status.is_client_error() || status.as_u16() >= 500) {
        return None;
    }
    let refusal = ParentRefusal::of(response);
    let is_own = status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        || refusal.is_by("tinyproxy/")
        || refusal.is_by("ProxyChain")
        || refusal.is_by("mitmproxy ")
        || refusal.is_by("ATS/") && PHRASES.iter().any(|phrase| refusal.phrase.starts_with(phrase))
        || refusal.fields.contains_key(SQUID_ERROR)
        || refusal.fields.contains_key(ROUTER_ERROR)
        || refusal.fields.contains_key("proxy-agent")
        || matches!(status.as_u16(), 590..=599);
    is_own.then(|| of_connect(&refusal, has_credentials))
}

/// Reads `X-Squid-Error`: a word and a number of the system.
fn of_squid(value: &[u8]) -> Option<Meaning> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty())?;
    let (word, number) = text.split_once(' ').unwrap_or((text, ""));
    Some(match (word, number.trim()) {
        ("ERR_ACCESS_DENIED" | "ERR_FORWARDING_DENIED" | "ERR_SHUTTING_DOWN", _) => Meaning::Denied,
        // 500 to CONNECT, where the name does not resolve; 502 to GET.
        ("ERR_CANNOT_FORWARD" | "ERR_DNS_FAIL", _) | ("ERR_READ_ERROR", "0") => Meaning::NoName,
        ("ERR_CONNECT_FAIL", "111") => Meaning::Refused,
        ("ERR_CONNECT_FAIL", "110") | ("ERR_READ_TIMEOUT" | "ERR_LIFETIME_EXP", _) => Meaning::TimedOut,
        ("ERR_INVALID_URL" | "ERR_INVALID_REQ" | "ERR_UNSUP_REQ" | "ERR_TOO_BIG", _) => Meaning::NoProxy,
        _ => Meaning::Dead,
    })
}
