//! How much, how often and how patiently a destination is asked: limits, priorities, retries, the circuit breaker, the
//! cache, rehearsals, and the store that several instances share.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::{Located, SectionReader};
use super::rule::Matcher;
use super::syntax::{Filled, GIB, KIB, ListOf, Number, Percent, Positive, Size};
use super::{SecretRef, Text, Tls};
use crate::host::Scheme;
use crate::units::{self, Rate};

/// At most, in words of the language: requests at once, and requests before a rehearsed limit.
pub(super) const MOST_CONCURRENT: u64 = u32::MAX as u64;
pub(super) const MOST_WAITING: u64 = 1_000_000;
const MOST_ATTEMPTS: u64 = 10;
const MOST_FAILURES: u64 = 1_000_000;

/// Answers after which a request may be sent again.
const REPEATABLE: &[&str] = &["connect", "408", "425", "429", "500", "502", "503", "504"];

section! {
    /// How often some of the requests may be sent.
    #[derive(Hash)]
    pub(crate) struct RateLimit {
        /// As in 2/s burst 4.
        rate("limit"): Rate = required "write limit: 5/s";
        /// Which requests it counts; default: all.
        matcher("match"): Matcher = "{}";
    }
}

/// One limit or several.
pub(super) struct RateLimits;

/// A rate, or a rate with a match.
struct ListedLimit;

impl Syntax for ListedLimit {
    type Value = RateLimit;

    const KIND: ValueKind = ValueKind::Any(&[Rate::KIND, RateLimit::KIND]);

    const IF_EMPTY: &'static str = "remove the key, or write a limit, as in 5/s";

    fn read(written: Located<'_>) -> Option<RateLimit> {
        if written.is_mapping() {
            return RateLimit::read(written);
        }
        Rate::read(written).map(|rate| RateLimit {
            rate,
            matcher: Matcher::default(),
        })
    }
}

impl Syntax for RateLimits {
    type Value = Vec<RateLimit>;

    const KIND: ValueKind = ValueKind::Any(&[Rate::KIND, Filled::<ListedLimit>::KIND]);

    fn read(written: Located<'_>) -> Option<Vec<RateLimit>> {
        if written.is_mapping() {
            written.problem(
                "a limit with a match stands in a list",
                "write [{ limit: 5/s, match: { path: /api/** } }]",
            );
            return None;
        }
        if !written.is_list() {
            return ListedLimit::read(written).map(|limit| vec![limit]);
        }
        let limits = Filled::<ListedLimit>::read(written.clone())?;
        written.each_once(&limits, "the same limit stands twice", "keep one of them");
        Some(limits)
    }
}

section! {
    /// Which requests go first where several wait. The first match counts; without one a request is [`Class::Normal`].
    #[derive(Hash)]
    pub(crate) struct Priority {
        /// Which requests are of this class; default: all.
        matcher("match"): Matcher = "{}";
        /// high, normal or low.
        class: Class = required "write class: high, normal or low";
    }
}

choice! {
    /// In the order in which they go.
    #[derive(Default, PartialOrd, Ord)]
    pub(crate) enum Class {
        High = "high",
        #[default]
        Normal = "normal",
        Low = "low",
    }
}

/// Classes of requests, in the order in which they are looked for.
pub(super) struct Priorities;

impl Syntax for Priorities {
    type Value = Vec<Priority>;

    const KIND: ValueKind = ValueKind::List(&Priority::KIND);

    fn read(written: Located<'_>) -> Option<Vec<Priority>> {
        if written.is_empty() {
            return Some(Vec::new());
        }
        ListOf::<Priority>::read(written)
    }
}

/// What happens to a request that a limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLimit {
    Reject,
    Wait(Duration),
}

impl Syntax for OnLimit {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Choice(&["reject"]), ValueKind::Text]);

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write reject, or wait and how long at most, as in wait 2s";
        let text = written.text(right)?;
        if text == "reject" {
            return Some(Self::Reject);
        }
        let wait = text
            .strip_prefix("wait ")
            .map(|duration| units::parse_duration(duration.trim()));
        match wait {
            Some(Ok(duration)) => Some(Self::Wait(duration)),
            Some(Err(_)) | None => {
                written.problem(
                    format_args!("`{}` is neither reject nor a wait", shown(text)),
                    right,
                );
                None
            }
        }
    }
}

choice! {
    /// What a limit is taken to be about that the upstream reports.
    #[derive(Default)]
    pub(crate) enum AppliesTo {
        /// What its answers show.
        #[default]
        Auto = "auto",
        Destination = "destination",
        Host = "host",
        Credential = "credential",
        Route = "route",
    }
}

section! {
    /// What is sent again.
    pub(crate) struct Retry {
        /// How often a request is sent at most, the first time included.
        attempts: u32 as Number<u32, 2, MOST_ATTEMPTS> = "2";
        /// After what: no connection, or one of these answers.
        on: RetryOn = "[connect, 429, 503]";
        /// An answer that asks for a longer wait is passed on as it is.
        max_wait: Duration = "5s";
        /// How many of the requests may be repeats.
        budget: u8 as Percent<1> = "20%";
    }
}

/// After what a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetryOn {
    /// No connection could be made.
    pub(crate) connect: bool,
    /// One of these answers.
    pub(crate) statuses: Vec<StatusCode>,
}

/// One of [`REPEATABLE`]: a status, or `None` for `connect`.
struct Repeatable;

impl Syntax for Repeatable {
    type Value = Option<StatusCode>;

    const KIND: ValueKind = ValueKind::Choice(REPEATABLE);

    const IF_EMPTY: &'static str = "write connect, 408, 425, 429, 500, 502, 503 or 504";

    fn read(written: Located<'_>) -> Option<Option<StatusCode>> {
        let text = written.text(Self::IF_EMPTY)?;
        if !REPEATABLE.contains(&text) {
            let what = format_args!("`{}` is nothing after which a request is sent again", shown(text));
            written.problem(what, Self::IF_EMPTY);
            return None;
        }
        Some(text.parse().ok())
    }
}

impl Syntax for RetryOn {
    type Value = Self;

    const KIND: ValueKind = Filled::<Repeatable>::KIND;

    fn read(written: Located<'_>) -> Option<Self> {
        let all = Filled::<Repeatable>::read(written.clone())?;
        written.each_once(&all, "stands twice", "keep one of them");
        Some(Self {
            connect: all.contains(&None),
            statuses: all.into_iter().flatten().collect(),
        })
    }
}

section! {
    /// When a failing host is left alone.
    #[derive(Copy)]
    pub(crate) struct CircuitBreaker {
        /// After so many failures a host is left alone.
        failures: u32 as Number<u32, 1, MOST_FAILURES> = "10";
        /// Failures count for so long.
        within: Duration as Positive = "30s";
        /// After so long one request tries whether the host works again.
        open_for: Duration as Positive = "15s";
    }
}

section! {
    /// What is kept of answers.
    #[derive(Copy)]
    pub(crate) struct Cache {
        /// Of all that is kept, from 64KiB to 16GiB.
        size: u64 as Size<{ 64 * KIB }, { 16 * GIB }> = "16MiB";
        /// An answer that is kept is used without asking until it is this old.
        min_fresh: Duration = "0s";
        /// How long after its time an answer is used while the destination fails.
        stale_if_error: Duration = "10m";
        /// How long after its time an answer is used while a new one is fetched.
        stale_while_revalidate: Duration = "0s";
    }
}

section! {
    /// Faults that are simulated.
    #[derive(Copy)]
    pub(crate) struct Rehearse, check {
        /// After so many requests the limit is simulated as reached; default: never.
        after: Option<u32> as Number<u32, 0, MOST_CONCURRENT>;
        /// The status of the refusal.
        answer: StatusCode as RehearsedAnswer = "429";
        /// The wait that the refusal asks for; then as many requests pass again.
        retry_after: Duration as Positive = "10s";
        /// Added to every answer.
        latency: Duration = "0s";
        /// How many of the requests fail.
        fail: u8 as Percent<0> = "0%";
    }
}

words! {
    /// How a destination reports that its limit is reached.
    RehearsedAnswer: StatusCode {
        "429" = StatusCode::TOO_MANY_REQUESTS,
        "503" = StatusCode::SERVICE_UNAVAILABLE,
        "403" = StatusCode::FORBIDDEN,
    }
}

impl Rehearse {
    fn check(&self, reader: &SectionReader<'_>) {
        let simulates = |key: &str| matches!(key, "after" | "latency" | "fail");
        if !reader.written().any(simulates) {
            reader.problem(
                "nothing to simulate",
                "write when the limit is reached, as in { after: 20 }, or latency or fail",
            );
        }
    }
}

section! {
    /// How the store of the quotas is reached.
    pub(crate) struct RateLimitStore {
        /// Where the store is, as after rate_limit_store itself.
        url: Text as StoreUrl = required "write where the store is, as in url: vcap:redis/uri";
        /// What Sentinels ask for; the password of the URL is for the servers that they watch.
        sentinel_password: Option<SecretRef>;
        /// The certificate that we show and whom we trust, as for a destination.
        tls: Tls = "{}";
    }
}

/// A URL or a reference to one, or a mapping with what else is needed; `None` where it is empty.
pub(super) struct OptionalStore;

/// A reference to the URL of a store, or the URL where it has no password: many people read the file.
pub(super) struct StoreUrl;

impl Syntax for OptionalStore {
    type Value = Option<RateLimitStore>;

    const KIND: ValueKind = ValueKind::Any(&[
        ValueKind::Secret,
        ValueKind::Text,
        RateLimitStore::KIND,
        ValueKind::Literal("null"),
    ]);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        if written.is_mapping() {
            return RateLimitStore::read(written).map(Some);
        }
        if written.is_empty() {
            return Some(None);
        }
        StoreUrl::read(written).map(|url| {
            Some(RateLimitStore {
                url,
                sentinel_password: None,
                tls: Tls::default(),
            })
        })
    }
}

impl Syntax for StoreUrl {
    type Value = Text;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Secret, ValueKind::Text]);

    fn read(written: Located<'_>) -> Option<Text> {
        let right =
            "write a reference, as in vcap:redis/uri, or redis://HOST:PORT where there is no password";
        let text = written.text(right)?;
        if let Some(reference) = written.reference(text) {
            return reference.map(Text::Reference);
        }
        // Not repeated: it may contain a password.
        match store_url(text) {
            None | Some((_, _, "")) => {
                written.problem("neither a reference nor a URL of Redis or Valkey", right);
                None
            }
            Some((_, _, address)) if address.contains('@') || address.contains("password=") => {
                written.problem("a URL with a password where a reference belongs", right);
                None
            }
            Some(_) => Some(Text::Plain(text.to_owned())),
        }
    }
}

/// What the URL of a store leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreForm {
    Cluster,
    Sentinel,
    Server,
}

/// Returns whether the URL of a store asks for TLS, as `https` does, what it leads to, and the rest of it; `None` when it
/// is no such URL. Clients and platforms write all of these: valkeys (valkey-py, Aiven), redis+ssl and redis+tls
/// (Lettuce), valkey+tls (Bun), redis-cluster and redis-sentinel (fred, Lettuce), redis+cluster and redis+sentinel (limits).
pub(crate) fn store_url(text: &str) -> Option<(Scheme, StoreForm, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let name = scheme.to_ascii_lowercase();
    let mut words = name.split(['+', '-']);
    let mut scheme = match words.next()? {
        "redis" | "valkey" => Scheme::Http,
        "rediss" | "valkeys" => Scheme::Https,
        _ => return None,
    };
    let mut form = StoreForm::Server;
    for word in words {
        match (word, form) {
            ("ssl" | "tls", _) if scheme == Scheme::Http => scheme = Scheme::Https,
            ("cluster", StoreForm::Server) => form = StoreForm::Cluster,
            ("sentinel", StoreForm::Server) => form = StoreForm::Sentinel,
            _ => return None,
        }
    }
    Some((scheme, form, rest))
}

/// What is done, for a person.
impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tries at most, after", self.attempts)?;
        let connect = self.on.connect.then_some("connect");
        let statuses = self.on.statuses.iter().map(StatusCode::as_str);
        for (i, reason) in connect.into_iter().chain(statuses).enumerate() {
            write!(f, "{} {reason}", if i > 0 { "," } else { "" })?;
        }
        let wait = humantime::format_duration(self.max_wait);
        write!(
            f,
            "; waits {wait} at most; repeats are {}% of the requests at most",
            self.budget
        )
    }
}

/// What a learned limit concerns, in a sentence.
impl fmt::Display for AppliesTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => {
                "a credential at a host, and a route until another one shows the same counter (auto)"
            }
            Self::Credential => "a credential at a host, whatever the route",
            Self::Destination => "all of the destination, whatever the host, the credential and the route",
            Self::Host => "a host, whatever the credential and the route",
            Self::Route => "a route of a host, for one credential",
        })
    }
}

impl fmt::Display for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open_for = humantime::format_duration(self.open_for);
        let within = humantime::format_duration(self.within);
        write!(
            f,
            "opens for {open_for} after {} failures within {within}",
            self.failures
        )
    }
}

/// What is done, for a person.
impl fmt::Display for Rehearse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.after.map(|after| {
            let wait = humantime::format_duration(self.retry_after);
            format!(
                "{} with Retry-After {wait} after {after} requests",
                self.answer.as_str()
            )
        });
        let fail = (self.fail > 0).then(|| format!("{}% of the requests fail", self.fail));
        let latency = (!self.latency.is_zero())
            .then(|| format!("{} of latency", humantime::format_duration(self.latency)));
        let all: Vec<_> = [limit, fail, latency].into_iter().flatten().collect();
        f.write_str(&all.join(", "))
    }
}
