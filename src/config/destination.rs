//! A destination as it is written.

use std::sync::{Arc, LazyLock};

use http::Method;

use super::auth::AuthRules;
use super::declare::{Section as _, Syntax, ValueKind};
use super::limits::{
    AppliesTo, Cache, CircuitBreaker, MOST_CONCURRENT, MOST_WAITING, OnLimit, Priorities, Priority,
    RateLimit, RateLimits, Rehearse, Retry,
};
use super::node::shown;
use super::reader::{Located, SectionReader};
use super::syntax::{Filled, NamedSection, Number, Switched, is_label};
use super::{AuthRule, Config, Headers, Mark, ParentChoice, ROUTE_SERVICE, TimeoutOverrides, Tls, UNLISTED};
use crate::host::HostPattern;
use crate::path::PathGlob;

section! {
    /// A destination as it is written. Each key says in brackets what it implies ([`Mark`]).
    pub(crate) struct DestinationKeys, check {
        /// host, host:port, host:* (any port), *.suffix, address or CIDR; the most specific wins. Without a port: 80 and 443.
        hosts: Vec<HostPattern> as Filled<HostPattern> [] = required "write hosts: [api.example.com]";
        /// true: refuse these hosts, whatever else the file says; a pattern that is as specific as one that allows wins.
        deny: bool [] = "false";
        /// Only these paths, as in /api/**; default: all.
        paths: Vec<PathGlob> as Filled<PathGlob> [EndsTls];
        /// Only these methods; default: all.
        methods: Vec<Method> as Filled<Method> [EndsTls];
        /// The credential that is attached; or a list by path and method, of which the first match counts.
        auth: Vec<AuthRule> as AuthRules [EndsTls, Answers];
        /// Headers that are set and removed.
        headers: Headers [EndsTls, Answers] = "{}";
        /// How TLS is spoken to the destination.
        tls: Option<Arc<Tls>> as Tls [EndsTls, Upstream, Answers];
        /// auto intercepts CONNECT where a key here needs to see the request; under tunnel, limits count tunnels.
        mode: Mode [] = "auto";
        /// http:// from the app leaves as https://, and cookies of that host alone lose Secure on their way back; default: true
        /// with tls or auth.
        upgrade: Option<bool> [Answers];
        /// The version spoken to the destination; auto: by ALPN, mirrored to the app, in clear as the app.
        http: HttpVersion [Upstream] = "auto";
        /// 5/s, 30/m, 1000/h or 10000/d; one or several. `5/s burst 10` lets ten pass at once after a quiet time; without
        /// burst, as many as the number.
        rate_limits("rate_limit"): Vec<RateLimit> as RateLimits [EndsTls, CountsTunnels];
        /// Which requests go first where several wait; the first match counts.
        priorities("priority"): Vec<Priority> as Priorities [] = "[]";
        /// Requests at once.
        concurrency: Option<u32> as Number<u32, 1, MOST_CONCURRENT> [EndsTls, CountsTunnels];
        /// reject, or `wait D`: queue in order, and 429 at once if it would take longer.
        on_limit: OnLimit [] = "reject";
        /// How many requests may wait; past it they are refused.
        queue: usize as Number<usize, 1, MOST_WAITING> [] = "1000";
        /// Learn from 429, 503, Retry-After, RateLimit and X-RateLimit-*; default: true where requests are seen.
        respect_upstream: Option<bool> [EndsTls];
        /// What a learned limit concerns: all of the destination, a host, a credential at a host, or a route of these; auto:
        /// what the answers show.
        limits_apply_to: AppliesTo [EndsTls] = "auto";
        /// What is sent again, of what is safe to send again; off: only what a stale connection lost.
        retry: Option<Retry> as Switched<Retry> [EndsTls] = "off";
        /// Leave a failing host alone for a while.
        circuit_breaker: Option<CircuitBreaker> as Switched<CircuitBreaker> [EndsTls] = "off";
        /// Keep answers, so that they need not be asked for again (RFC 9111).
        cache: Option<Cache> as Switched<Cache> [EndsTls, Answers] = "off";
        /// Simulate the destination's limits and faults, to see the app under them.
        rehearse: Option<Rehearse> as Switched<Rehearse> [EndsTls] = "off";
        /// true: redact attached secrets from the text of answers too; from their fields they are always redacted. Default: true
        /// where the app has placeholders for them.
        scrub: Option<bool> [EndsTls, Answers];
        /// true: over HTTP/1.1 field names leave as the sender spelled them (SOAPAction, ETag), both ways; else in lower case.
        preserve_header_case: bool [Upstream] = "false";
        /// true: add Via to requests and responses. Some servers send answers to such requests uncompressed (nginx as shipped).
        via: bool [] = "false";
        /// true: attach the credential even where the request leaves in clear.
        insecure_attach_over_http: bool [] = "false";
        /// Where they differ from the ones of the whole file.
        timeouts: TimeoutOverrides [Upstream] = "{}";
        /// The proxy that this destination is reached through: inherit (egress.parent), none, or as egress.parent is written.
        parent: ParentChoice [Upstream] = "inherit";
    }
    later {
        /// The one request that doctor may send.
        "probe" = ["null"];
    }
    also {
        name: Arc<str>;
    }
}

choice! {
    /// Whether a CONNECT is ended here.
    pub(crate) enum Mode {
        Auto = "auto",
        Intercept = "intercept",
        Tunnel = "tunnel",
    }
}

choice! {
    pub(crate) enum HttpVersion {
        Auto = "auto",
        H1 = "1",
        H2 = "2",
    }
}

impl DestinationKeys {
    /// Returns a destination with nothing written, for hosts that no destination names.
    pub(crate) fn unwritten(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::nothing().clone()
        }
    }

    /// Returns what holds where nothing is written.
    fn nothing() -> &'static Self {
        static NOTHING: LazyLock<DestinationKeys> = LazyLock::new(|| {
            let text = "destinations: { a: { hosts: [a.invalid] } }";
            // The text is ours and every test that compiles a policy parses it, so it cannot fail.
            let config = Config::parse(text, "a built-in text").expect("the built-in text is sound");
            let mut destinations = config.destinations.iter().map(|own| DestinationKeys::clone(own));
            DestinationKeys {
                hosts: Vec::new(),
                name: "".into(),
                ..destinations.next().expect("the built-in text has a destination")
            }
        });
        &NOTHING
    }

    /// Whether a key with `mark` has another value in `other`.
    pub(crate) fn differs(&self, other: &Self, mark: Mark) -> bool {
        self.differing(other).iter().any(|key| key.implies(mark))
    }

    /// Returns the keys with `mark` that are set to something that takes effect.
    pub(crate) fn set(&self, mark: Mark) -> Vec<&'static str> {
        let keys = self.differing(Self::nothing()).into_iter();
        let keys = keys.filter(|key| key.implies(mark)).map(|key| key.name);
        let mut keys: Vec<_> = keys
            .filter(|key| match *key {
                "auth" => self.attaches(),
                "respect_upstream" => self.respect_upstream == Some(true),
                "scrub" => self.scrub == Some(true),
                // `tls: {}` only asks for the upgrade of http://.
                "tls" => self.tls.as_ref().is_some_and(|tls| **tls != Tls::default()),
                _ => true,
            })
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Returns the keys that are set and do nothing for a tunnel whose bytes pass untouched.
    pub(crate) fn idle_in_tunnels(&self) -> Vec<&'static str> {
        let counting: Vec<_> = Self::marked(Mark::CountsTunnels).collect();
        let mut keys = self.set(Mark::EndsTls);
        keys.retain(|key| !counting.contains(key));
        keys
    }

    /// Returns the names of all keys with `mark`.
    pub(crate) fn marked(mark: Mark) -> impl Iterator<Item = &'static str> {
        let keys = Self::KEYS.iter().filter(move |key| key.implies(mark));
        keys.map(|key| key.name)
    }

    /// Whether a credential is attached to any request.
    pub(crate) fn attaches(&self) -> bool {
        self.auth.iter().any(|rule| !rule.credentials.is_empty())
    }

    /// Whether a credential or a client certificate leaves with its requests.
    pub(crate) fn carries_credential(&self) -> bool {
        let tls = self.tls.as_ref();
        self.attaches() || tls.is_some_and(|tls| tls.client_certificate.is_some())
    }

    fn check(&self, reader: &SectionReader<'_>) {
        if self.deny {
            self.check_denied(reader);
        }
        if self.cache.is_some() && self.auth.iter().any(|rule| rule.credentials.len() > 1) {
            reader.problem(
                "a cache beside a pool: what is answered to one credential would be given for another",
                "remove cache, or keep one credential",
            );
        }
    }

    /// Files a problem for each key that has no effect, since no request gets further than `deny: true`.
    fn check_denied(&self, reader: &SectionReader<'_>) {
        for key in self.differing(Self::nothing()) {
            let written = reader
                .take(key.name)
                .filter(|_| !matches!(key.name, "hosts" | "deny"));
            if let Some(written) = written {
                written.problem(
                    "has no effect beside `deny: true`, which refuses every request",
                    "leave it out; to refuse some requests only, list the others in paths or methods",
                );
            }
        }
    }
}

impl NamedSection for DestinationKeys {
    const WHAT: &'static str = "a destination";

    fn taken(name: &str) -> Option<&'static str> {
        match name {
            ROUTE_SERVICE => Some("metrics use it for the route service"),
            _ => is_taken(name).then_some("metrics use it for requests without a destination"),
        }
    }

    fn set_name(&mut self, name: Arc<str>) {
        self.name = name;
    }
}

/// Whether a destination may have this name.
pub(crate) fn is_destination_name(name: &str) -> bool {
    !name.is_empty() && is_label(name) && !is_taken(name)
}

fn is_taken(name: &str) -> bool {
    matches!(name, "none" | UNLISTED | ROUTE_SERVICE)
}

impl Syntax for HostPattern {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write at least one, as in [api.example.com]";

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write a host, as in api.example.com")?;
        let pattern = Self::parse(text).map_err(|error| {
            let right = "write host, host:port, \"host:*\", \"*.suffix\", an address or a CIDR block; no scheme, no path";
            written.problem(format_args!("`{}`: {error}", shown(text)), right);
        });
        pattern.ok()
    }
}
