//! From the tree to how much, how often and how patiently a destination is asked: limits, priorities, retries, the
//! circuit breaker, the cache, rehearsals, and the store that several instances share.

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};

use super::destination::{method, path, tls};
use super::keys;
use super::node::shown;
use super::reader::{Field, Reader, one_of};
use super::{
    AppliesTo, Cache, CircuitBreaker, Class, OnLimit, Priority, RateLimit, RateLimitStore, Rehearse, Retry,
    SecretRef, Text, Tls,
};
use crate::host::Scheme;
use crate::units;

pub(super) fn concurrency(reader: &Reader<'_>) -> Option<u32> {
    reader
        .take("concurrency")?
        .number(1, keys::MOST_CONCURRENT, "a number")
}

pub(super) fn queue(reader: &Reader<'_>) -> usize {
    reader
        .take("queue")
        .and_then(|field| field.number(1, keys::MOST_WAITING, "a number"))
        .unwrap_or(1000)
}

pub(super) fn on_limit(reader: &Reader<'_>) -> OnLimit {
    reader
        .take("on_limit")
        .and_then(patience)
        .unwrap_or(OnLimit::Reject)
}

pub(super) fn apply_to(reader: &Reader<'_>) -> AppliesTo {
    let choices = [
        ("auto", AppliesTo::Auto),
        ("destination", AppliesTo::Destination),
        ("host", AppliesTo::Host),
        ("credential", AppliesTo::Credential),
        ("route", AppliesTo::Route),
    ];
    let field = reader.take("limits_apply_to");
    field.and_then(|field| field.choice(&choices)).unwrap_or_default()
}

fn patience(field: Field<'_>) -> Option<OnLimit> {
    let right = "write reject, or wait and how long at most, as in wait 2s";
    let text = field.text(right)?;
    if text == "reject" {
        return Some(OnLimit::Reject);
    }
    let wait = text
        .strip_prefix("wait ")
        .map(|duration| units::parse_duration(duration.trim()));
    match wait {
        Some(Ok(duration)) => Some(OnLimit::Wait(duration)),
        Some(Err(_)) | None => {
            field.problem(
                format_args!("`{}` is neither reject nor a wait", shown(text)),
                right,
            );
            None
        }
    }
}

pub(super) fn rate_limits(field: Option<Field<'_>>) -> Vec<RateLimit> {
    let Some(field) = field else { return Vec::new() };
    let fields = if field.is_list() {
        field
            .filled_list("remove the key, or write a limit, as in 5/s")
            .unwrap_or_default()
    } else if field.is_mapping() {
        field.problem(
            "a limit with a match stands in a list",
            "write [{ limit: 5/s, match: { path: /api/** } }]",
        );
        return Vec::new();
    } else {
        vec![field]
    };
    let mut limits = Vec::new();
    for field in fields {
        let limit = if field.is_mapping() {
            field
                .clone()
                .reader(keys::RATE_LIMIT)
                .and_then(|reader| matched_limit(&reader))
        } else {
            rate(&field).map(|rate| RateLimit {
                rate,
                method: None,
                path: None,
            })
        };
        let Some(limit) = limit else { continue };
        if limits.contains(&limit) {
            field.problem("the same limit stands twice", "keep one of them");
        }
        limits.push(limit);
    }
    limits
}

fn matched_limit(reader: &Reader<'_>) -> Option<RateLimit> {
    let rate = reader
        .need("limit", "write limit: 5/s")
        .and_then(|field| rate(&field));
    let (method, path) = matched(reader);
    Some(RateLimit {
        rate: rate?,
        method,
        path,
    })
}

fn rate(field: &Field<'_>) -> Option<units::Rate> {
    let text = field.text("write requests per unit, as in 5/s, 30/m, 1000/h or 10000/d")?;
    field.kept(text, text.parse())
}

pub(super) fn priorities(reader: &Reader<'_>) -> Vec<Priority> {
    let classes = [
        ("high", Class::High),
        ("normal", Class::Normal),
        ("low", Class::Low),
    ];
    let fields = reader
        .take("priority")
        .filter(|field| !field.is_empty())
        .and_then(Field::list)
        .unwrap_or_default();
    let priority = |field: Field<'_>| {
        let reader = field.reader(keys::PRIORITY)?;
        let class = reader
            .need("class", "write class: high, normal or low")
            .and_then(|field| field.choice(&classes));
        let (method, path) = matched(&reader);
        Some(Priority {
            class: class?,
            method,
            path,
        })
    };
    fields.into_iter().filter_map(priority).collect()
}

pub(super) fn retry(reader: &Reader<'_>) -> Option<Retry> {
    let reader = switched(reader, "retry", keys::RETRY)?;
    let (on_connect, on_status) = retried(reader.take("on"));
    Some(Retry {
        attempts: reader
            .take("attempts")
            .and_then(|field| field.number(2, keys::MOST_ATTEMPTS, "a number"))
            .unwrap_or(2),
        budget: percent(reader.take("budget"), 1).unwrap_or(20),
        on_connect,
        on_status,
        max_wait: reader
            .take("max_wait")
            .and_then(Field::duration)
            .unwrap_or(Duration::from_secs(5)),
    })
}

/// `connect` and status codes.
fn retried(field: Option<Field<'_>>) -> (bool, Vec<StatusCode>) {
    let right = format!("write {}", one_of(keys::RETRIED));
    let Some(fields) = field.and_then(|field| field.filled_list(&right)) else {
        return (
            true,
            vec![StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE],
        );
    };
    let (mut on_connect, mut on_status) = (false, Vec::new());
    for field in &fields {
        let Some(text) = field.text(&right) else { continue };
        let is_new = match text.parse() {
            _ if !keys::RETRIED.contains(&text) => {
                let what = format_args!("`{}` is nothing after which a request is sent again", shown(text));
                field.problem(what, &right);
                continue;
            }
            Ok(status) if on_status.contains(&status) => false,
            Ok(status) => {
                on_status.push(status);
                true
            }
            Err(_) => !std::mem::replace(&mut on_connect, true),
        };
        if !is_new {
            field.problem("stands twice", "keep one of them");
        }
    }
    (on_connect, on_status)
}

pub(super) fn circuit_breaker(reader: &Reader<'_>) -> Option<CircuitBreaker> {
    let reader = switched(reader, "circuit_breaker", keys::CIRCUIT_BREAKER)?;
    let duration = |name, fallback| {
        reader
            .take(name)
            .and_then(Field::positive_duration)
            .unwrap_or(fallback)
    };
    Some(CircuitBreaker {
        failures: reader
            .take("failures")
            .and_then(|field| field.number(1, keys::MOST_FAILURES, "a number"))
            .unwrap_or(10),
        open_for: duration("open_for", Duration::from_secs(15)),
        within: duration("within", Duration::from_secs(30)),
    })
}

pub(super) fn cache(reader: &Reader<'_>) -> Option<Cache> {
    let reader = switched(reader, "cache", keys::CACHE)?;
    let duration = |name, fallback| reader.take(name).and_then(Field::duration).unwrap_or(fallback);
    Some(Cache {
        min_fresh: duration("min_fresh", Duration::ZERO),
        size: reader
            .take("size")
            .and_then(|field| field.size("64KiB", "16GiB"))
            .unwrap_or(16 << 20),
        stale_if_error: duration("stale_if_error", Duration::from_secs(600)),
        stale_while_revalidate: duration("stale_while_revalidate", Duration::ZERO),
    })
}

pub(super) fn rehearse(reader: &Reader<'_>) -> Option<Rehearse> {
    let reader = switched(reader, "rehearse", keys::REHEARSE)?;
    let answers = keys::REHEARSED.map(|text| (text, text));
    let rehearse = Rehearse {
        after: reader
            .take("after")
            .and_then(|field| field.number(0, keys::MOST_CONCURRENT, "a number")),
        answer: reader
            .take("answer")
            .and_then(|field| field.choice(&answers))
            .and_then(|text| text.parse().ok())
            .unwrap_or(StatusCode::TOO_MANY_REQUESTS),
        fail: percent(reader.take("fail"), 0).unwrap_or(0),
        latency: reader
            .take("latency")
            .and_then(Field::duration)
            .unwrap_or(Duration::ZERO),
        retry_after: reader
            .take("retry_after")
            .and_then(Field::positive_duration)
            .unwrap_or(Duration::from_secs(10)),
    };
    if !["after", "latency", "fail"]
        .iter()
        .any(|key| reader.written().any(|written| written == *key))
    {
        reader.problem(
            "nothing to simulate",
            "write when the limit is reached, as in { after: 20 }, or latency or fail",
        );
    }
    Some(rehearse)
}

/// A URL or a reference to one, or a mapping with what else is needed.
pub(super) fn rate_limit_store(field: Option<Field<'_>>) -> Option<RateLimitStore> {
    let field = field.filter(|field| !field.is_empty())?;
    if !field.is_mapping() {
        return Some(RateLimitStore {
            url: store_text(&field)?,
            sentinel_password: None,
            tls: Tls::default(),
        });
    }
    let reader = field.reader(keys::RATE_LIMIT_STORE)?;
    let url = reader.take("url");
    if url.is_none() {
        reader.problem(
            "`url` is missing",
            "write where the store is, as in url: vcap:redis/uri",
        );
    }
    let sentinel_password = reader.take("sentinel_password").and_then(Field::secret);
    let tls = reader.take("tls").and_then(tls).unwrap_or_default();
    Some(RateLimitStore {
        url: store_text(&url?)?,
        sentinel_password,
        tls,
    })
}

/// A plain URL must not hold a password: the file is read by many.
fn store_text(field: &Field<'_>) -> Option<Text> {
    let right = "write a reference, as in vcap:redis/uri, or redis://HOST:PORT where there is no password";
    let text = field.clone().text(right)?;
    if let Some(reference) = SecretRef::parse(text, field.decoding.environment) {
        return reference
            .map_err(|error| field.problem(&error, error.right()))
            .ok()
            .map(Text::Reference);
    }
    // Not repeated: it may hold a password wherever it went wrong.
    match store_url(text) {
        None | Some((_, _, "")) => {
            field.problem("neither a reference nor a URL of Redis or Valkey", right);
            None
        }
        Some((_, _, address)) if address.contains('@') || address.contains("password=") => {
            field.problem("a URL with a password where a reference belongs", right);
            None
        }
        Some(_) => Some(Text::Plain(text.to_owned())),
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

/// The mapping after a key that is off where it is not written, or is `null`, `off` or `false`.
fn switched<'a>(reader: &Reader<'a>, name: &str, table: keys::Table) -> Option<Reader<'a>> {
    let field = reader.take(name)?;
    let is_off = field.is_null() || matches!(field.plain(), Some("off" | "false"));
    if is_off { None } else { field.reader(table) }
}

/// A whole number of a hundred, as in `20%`.
fn percent(field: Option<Field<'_>>, least: u8) -> Option<u8> {
    let field = field?;
    let right = format!("write whole percents from {least}% to 100%, as in 20%");
    let text = field.text(&right)?;
    let percent = units::parse_percent(text).filter(|percent| *percent >= least);
    if percent.is_none() {
        field.problem(format_args!("`{}` is not a share", shown(text)), right);
    }
    percent
}

/// The method and the path of a `match`.
pub(super) fn matched(reader: &Reader<'_>) -> (Option<Method>, Option<String>) {
    let matched = reader.section("match", keys::MATCH);
    let method = matched.take("method").and_then(|field| method(&field));
    let path = matched.take("path").and_then(|field| path(&field));
    (method, path)
}

/// For a person: what is done.
impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tries at most, after", self.attempts)?;
        let connect = self.on_connect.then_some("connect");
        let statuses = self.on_status.iter().map(StatusCode::as_str);
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

/// For a person: what is done.
/// As a sentence tells whom a limit concerns that was learned.
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

/// For a person: what is done.
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
