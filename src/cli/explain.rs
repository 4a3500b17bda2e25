//! `outrider explain`: the verdict on a URL, and why.
//!
//! It asks the compiled policy the questions that the proxy asks about a request, in the same order, and prints the
//! answers. Nothing is decided here, and nothing is resolved or dialled except the admin port of an outrider that runs
//! here: it reports the limits that it has learned. References to secrets are shown, secrets never.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;

use http::{Method, Uri};

use super::ConfigArg;
use crate::config::{
    Auth, Config, DestinationKeys, HeaderText, HttpVersion, Mark, Mode, NoProxyHost, OnLimit, RateLimit,
    Text, Tls, Word as _,
};
use crate::host::{Host, Pattern, Scheme, Target};
use crate::http1::RawTarget;
use crate::message::Fields;
use crate::policy::{Denial, Destination, ParentPlan, Policy, RequestForm, Verdict, WouldDeny};
use crate::upstream::resolve;

use self::now::Now;

mod now;
mod tcp;
#[cfg(test)]
mod tests;

/// The effect of `respect_upstream`.
const LEARNS: &str = "limits that the upstream's answers tell are kept to, too";

/// Say what would happen to a request, and why
///
/// Nothing is sent, but for one request to the admin port of an outrider that runs here: what it has learned is told.
/// Exits with 0 where the request would pass, 1 where it would be refused, 2 where the configuration cannot be used.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  outrider explain --method POST https://api.weather.gov/points/39,-97")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,

    /// The request's method
    #[arg(short, long, default_value = "GET")]
    method: Method,

    /// What the app asks for; a bare host or host:port means https (port 80: http). tcp:NAME is a local port
    url: String,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let compiled = args
        .config
        .load()
        .and_then(|(config, source)| Ok((Policy::compile(&config)?, config, source)));
    let (policy, config, source) = match compiled {
        Ok(compiled) => compiled,
        Err(problems) => {
            // A reader that closed its end misses nothing.
            let _ = writeln!(io::stderr(), "{problems}");
            return ExitCode::from(2);
        }
    };
    let mut explanation = match tcp::named(&args.url, &policy) {
        Some(destination) => Explanation::of_tcp(destination, &policy, &config),
        None if tcp::is_name(&args.url) => {
            let _ = writeln!(
                io::stderr(),
                "{}: no such entry in {source}; {}",
                args.url.replacen(':', ".", 1),
                tcp::entries(&policy)
            );
            return ExitCode::from(2);
        }
        None => Explanation::of(&args.url, &args.method, &policy, &config),
    };
    explanation.facts.insert(0, ("configuration", source.to_string()));
    if let Some(learner) = explanation.learner.take() {
        explanation.tell_now(Now::ask(config.admin, &learner.destination, &learner.host));
    }
    let text = if args.json {
        explanation.json()
    } else {
        explanation.text()
    };
    let _ = io::stdout().write_all(text.as_bytes());
    if explanation.passes {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The facts about a request, in order.
#[derive(Debug)]
struct Explanation {
    facts: Vec<(&'static str, String)>,
    /// The host whose limits a running outrider may have learned.
    learner: Option<Learner>,
    /// The limits that it has learned.
    now: Option<Now>,
    passes: bool,
}

#[derive(Debug)]
struct Learner {
    destination: Arc<str>,
    /// As in `https://host:port`.
    host: String,
}

impl Explanation {
    fn new() -> Self {
        Self {
            facts: Vec::new(),
            learner: None,
            now: None,
            passes: false,
        }
    }

    fn of(url: &str, method: &Method, policy: &Policy, config: &Config) -> Self {
        let mut explanation = Self::new();
        match parse(url) {
            Ok((target, uri)) => explanation.follow(&target, method, &uri, policy, config),
            Err(why) => explanation.tell("verdict", format!("refused with 400: {why}")),
        }
        explanation
    }

    /// Follows a request through the policy, and stops where the proxy would refuse it.
    fn follow(&mut self, target: &Target, method: &Method, uri: &Uri, policy: &Policy, config: &Config) {
        let path = uri.path();
        let asked = match target.scheme {
            Scheme::Http => RequestForm::Request,
            // Clients ask a proxy for https by CONNECT.
            Scheme::Https => RequestForm::Connect,
        };
        self.tell("request", format!("{method} {}://{target}{path}", target.scheme));
        let (destination, pattern) = policy.find(target);
        let written = (destination.index > 0).then_some(&*destination.written);
        self.tell(
            "destination",
            match pattern {
                Some(pattern) => format!("{}, by its host {pattern}", destination.name),
                None => format!("{}: no destination names {target}", destination.name),
            },
        );

        let host = Pattern::Host(target.host.clone());
        if let Some(entry) = config.no_proxy.iter().find(|entry| entry.takes(&host).is_some()) {
            self.tell("past the proxy", past(entry));
        }
        let verdict = policy.route(target, asked);
        match &verdict {
            Verdict::Deny(_, denial) => return self.refuse(denial),
            Verdict::Forward(_) => {}
            Verdict::Intercept(_) => self.tell("connect", intercepted(written)),
            Verdict::Observe(_, reason) => self.tell("observed", observed(*reason)),
            Verdict::Tunnel(_) => self.tell("connect", tunnelled(written)),
        }
        let tunnel = match &verdict {
            Verdict::Tunnel(_) => true,
            Verdict::Observe(..) => asked == RequestForm::Connect,
            Verdict::Deny(..) | Verdict::Forward(_) | Verdict::Intercept(_) => false,
        };
        if *method == Method::TRACE && !tunnel {
            let why = "TRACE is never passed on, because the answer would show what is attached";
            return self.tell("verdict", format!("refused with 405: {why}"));
        }
        let left = if tunnel {
            Ok(target.clone())
        } else {
            destination
                .permits(method, path)
                .and_then(|()| destination.refuse_overrides(uri.query(), &Fields::new()))
                .and_then(|()| destination.auth_rule(method, path))
                .and_then(|_| destination.leaves(target))
        };
        let left = match left {
            Ok(left) => left,
            Err(denial) => return self.refuse(&denial),
        };
        self.tell("leaves as", leaving(&left, target, tunnel, destination));
        let parent = destination.parent.as_deref();
        let parent = parent.filter(|plan| !plan.bypasses(&left));
        let judged = match self.addresses(&left, parent.is_some(), policy, config) {
            Ok(judged) => judged,
            Err(denial) => return self.refuse(&denial),
        };
        if !tunnel {
            self.attached(destination, method, path, left.scheme);
            self.cache(destination, method);
        }
        if tunnel {
            self.limits(destination, &Method::CONNECT, "");
        } else {
            self.limits(destination, method, path);
            self.failures(destination, method);
        }
        if destination.respect_upstream {
            self.learner = Some(Learner {
                destination: Arc::clone(&destination.name),
                host: format!("{}://{left}", left.scheme),
            });
        }
        self.tell("parent", behind(parent, destination, &left));
        self.pass(judged);
    }

    /// Ends with a verdict. `judged`: the addresses are known and approved.
    fn pass(&mut self, judged: bool) {
        self.passes = true;
        let verdict = if judged {
            "passes"
        } else {
            "passes, unless the name resolves to denied networks only"
        };
        self.tell("verdict", verdict.to_owned());
    }

    /// Reports the addresses as far as they are known without resolving; returns whether they are known and approved.
    fn addresses(
        &mut self,
        left: &Target,
        has_parent: bool,
        policy: &Policy,
        config: &Config,
    ) -> Result<bool, Denial> {
        let (resolved, source): (Vec<IpAddr>, _) = match &left.host {
            Host::V4(address) => (vec![(*address).into()], "as asked"),
            Host::V6(address) => (vec![(*address).into()], "as asked"),
            Host::Name(name) => match (config.dns.hosts.get(name), resolve::local(name)) {
                (Some(addresses), _) => (addresses.clone(), "by dns.hosts"),
                (None, Some(addresses)) => (addresses.to_vec(), "the name means this machine"),
                (None, None) if has_parent => {
                    let rule =
                        "the parent resolves the name; egress.deny_networks does not judge what it finds";
                    self.tell("addresses", rule.to_owned());
                    return Ok(true);
                }
                (None, None) => {
                    let rule = "as resolved; those in denied networks are left out";
                    self.tell("addresses", rule.to_owned());
                    return Ok(false);
                }
            },
        };
        let approved = policy.egress.approve(&resolved, left.port)?;
        let list = joined(
            approved
                .addresses()
                .iter()
                .map(|address| address.ip().to_string()),
        );
        self.tell("addresses", format!("{list} ({source})"));
        Ok(true)
    }

    /// Reports what is added to the request and removed from it.
    fn attached(&mut self, destination: &Destination, method: &Method, path: &str, scheme: Scheme) {
        let rule = destination.auth_rule(method, path).ok().flatten();
        let written = rule.map_or(&[] as &[_], |rule| &destination.auth[rule].credentials);
        let credential = match written {
            [] => "none".to_owned(),
            [one] => credential(&one.auth),
            several => {
                let all = joined(several.iter().map(|one| credential(&one.auth)));
                format!("one of {}: {all}", several.len())
            }
        };
        let clear = !written.is_empty() && scheme == Scheme::Http;
        let warning = if clear {
            " IN CLEAR (insecure_attach_over_http)"
        } else {
            ""
        };
        self.tell("credential", format!("{credential}{warning}"));
        if scheme == Scheme::Https {
            let certificate = destination.tls.client_certificate.as_ref();
            let certificate = certificate.map(ToString::to_string);
            self.tell(
                "client certificate",
                certificate.unwrap_or_else(|| "none".to_owned()),
            );
        }
        let Tls { crl, pins, .. } = &*destination.tls;
        if scheme == Scheme::Https && !crl.is_empty() {
            self.tell("revocation", joined(crl.iter().map(ToString::to_string)));
        }
        if scheme == Scheme::Https && !pins.is_empty() {
            self.tell("pins", format!("the chain must have one of {} keys", pins.len()));
        }
        let set = destination.headers.set.iter().map(|(name, text)| match text {
            HeaderText::Plain(_) => name.to_string(),
            HeaderText::Reference(reference) => format!("{name} from {reference}"),
        });
        if !destination.headers.set.is_empty() {
            self.tell("headers set", joined(set));
        }
        if !destination.headers.remove.is_empty() {
            self.tell(
                "headers removed",
                joined(destination.headers.remove.iter().cloned()),
            );
        }
    }

    fn limits(&mut self, destination: &Destination, method: &Method, path: &str) {
        let instances = destination.instances.map_or(1, NonZeroU32::get);
        let shared = match instances {
            1 => String::new(),
            _ => format!(" shared by {instances} instances"),
        };
        let rates = destination.rate_limits.iter().map(|limit| {
            let other = if limit.matcher.reaches(method, path) {
                ""
            } else {
                " (not this request)"
            };
            format!("{}{}{shared}{other}", limit.rate, matched(limit))
        });
        let slots = destination.concurrency.map(|slots| format!("{slots} at once"));
        let all: Vec<_> = rates.chain(slots).collect();
        if all.is_empty() {
            self.tell("limits", "none".to_owned());
        } else {
            self.tell("limits", joined(&all));
        }
        if destination.respect_upstream {
            self.tell("respect_upstream", LEARNS.to_owned());
            self.tell(
                "limits_apply_to",
                format!("a limit that is learned concerns {}", destination.limits_apply_to),
            );
        } else if all.is_empty() {
            return;
        }
        let OnLimit::Wait(longest) = destination.on_limit else {
            return self.tell("on_limit", "reject".to_owned());
        };
        let longest = humantime::format_duration(longest);
        self.tell("on_limit", format!("wait {longest}"));
        self.tell("queue", format!("{} requests", destination.queue));
        if !destination.priorities.is_empty() {
            let class = destination
                .priorities
                .iter()
                .find(|priority| priority.matcher.reaches(method, path));
            let class = class.map(|priority| priority.class).unwrap_or_default();
            self.tell("priority", class.word().to_owned());
        }
    }

    /// Reports what happens when the destination fails, and whether answers are simulated.
    fn failures(&mut self, destination: &Destination, method: &Method) {
        if let Some(retry) = &destination.retry {
            let unsafe_method = if method.is_idempotent() {
                String::new()
            } else {
                format!("; {method} without an Idempotency-Key only after connect")
            };
            self.tell("retry", format!("{retry}{unsafe_method}"));
        }
        if let Some(breaker) = &destination.circuit_breaker {
            self.tell("circuit breaker", breaker.to_string());
        }
        if let Some(rehearse) = &destination.rehearse {
            self.tell("REHEARSAL", format!("simulated: {rehearse}"));
        }
    }

    fn cache(&mut self, destination: &Destination, method: &Method) {
        let Some(cache) = &destination.cache else {
            return;
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let effect = if method.is_safe() {
                "has no part in it"
            } else {
                "lets go of what it has from there, once this succeeds"
            };
            return self.tell("cache", effect.to_owned());
        }
        let times = [
            ("not asked again within", cache.min_fresh),
            ("stale while it is refreshed for", cache.stale_while_revalidate),
            ("stale where the destination fails for", cache.stale_if_error),
        ];
        let told = times
            .into_iter()
            .filter(|(_, time)| !time.is_zero())
            .map(|(what, time)| format!("{what} {}", humantime::format_duration(time)));
        let size = match cache.size >> 10 {
            kib if kib % 1024 == 0 => format!("{} MiB by RFC 9111", kib >> 10),
            kib => format!("{kib} KiB by RFC 9111"),
        };
        self.tell("cache", joined(std::iter::once(size).chain(told)));
    }

    fn refuse(&mut self, denial: &Denial) {
        self.tell("verdict", format!("refused ({}): {denial}", denial.reason()));
    }

    /// Adds the learned limits before the verdict, which is last.
    fn tell_now(&mut self, now: Now) {
        let verdict = self.facts.pop();
        for line in now.lines() {
            self.tell("limits now", line);
        }
        self.facts.extend(verdict);
        self.now = Some(now);
    }

    fn tell(&mut self, what: &'static str, answer: String) {
        self.facts.push((what, answer));
    }

    /// A line a fact.
    fn text(&self) -> String {
        let mut text = String::new();
        for (what, answer) in &self.facts {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what:<20}{answer}");
        }
        text
    }

    /// One object: the facts under their names, and whether the request `passes`.
    fn json(&self) -> String {
        let facts = self
            .facts
            .iter()
            .map(|(what, answer)| (what.to_lowercase().replace(' ', "_"), answer.as_str().into()));
        let passes = [("passes".to_owned(), self.passes.into())];
        let now = self.now.as_ref().map(|now| ("limits_now".to_owned(), now.json()));
        let object: serde_json::Map<String, serde_json::Value> = facts.chain(passes).chain(now).collect();
        format!("{}\n", serde_json::Value::Object(object))
    }
}

/// Reads a URL as a person types it. The error is the reason of the 400.
fn parse(url: &str) -> Result<(Target, Uri), String> {
    let absolute = if url.contains("://") {
        url.to_owned()
    } else {
        let authority = url.split(['/', '?', '#']).next().unwrap_or(url);
        let scheme = if authority.ends_with(":80") {
            Scheme::Http
        } else {
            Scheme::Https
        };
        // An IPv6 address without brackets is understood here, unlike in a request.
        match authority.parse() {
            Ok(IpAddr::V6(address)) => format!("{scheme}://[{address}]{}", &url[authority.len()..]),
            Ok(IpAddr::V4(_)) | Err(_) => format!("{scheme}://{url}"),
        }
    };
    // As a request is read.
    let uri = (absolute.parse())
        .or_else(|_| RawTarget::read(absolute.as_bytes()).map(|(uri, _)| uri))
        .map_err(|fault| format!("{fault}; write it as in https://api.example.com/path"))?;
    let target = Target::of_absolute(&uri).map_err(|error| error.to_string())?;
    Ok((target, uri))
}

/// Returns the parents of a request as they are written.
fn behind(parent: Option<&ParentPlan>, destination: &Destination, left: &Target) -> String {
    match (parent, &destination.parent) {
        (None, None) => "none".to_owned(),
        (None, Some(_)) => format!("none: egress.parent_bypass names {}", left.host),
        (Some(plan), _) => {
            let all = joined(plan.parents.iter().map(|parent| match &parent.url {
                Text::Plain(url) => url.clone(),
                Text::Reference(reference) => reference.to_string(),
            }));
            let others = if plan.parents.len() > 1 {
                ", the first that works"
            } else {
                ""
            };
            format!("{all} ({}{others})", plan.place)
        }
    }
}

fn past(entry: &NoProxyHost) -> String {
    format!(
        "apps under env, exec or the profile script call it directly (no_proxy: {entry}); what follows is for others"
    )
}

fn intercepted(written: Option<&DestinationKeys>) -> String {
    let why = match written {
        Some(written) if written.mode == Mode::Auto => joined(written.set(Mark::EndsTls)),
        Some(_) | None => "mode: intercept".to_owned(),
    };
    format!("intercepted, because of {why}: the app sees a certificate of the local authority")
}

fn tunnelled(written: Option<&DestinationKeys>) -> String {
    let Some(written) = written else {
        return "tunnelled, by egress.default: bytes pass untouched, nothing is attached".to_owned();
    };
    let idle = joined(written.idle_in_tunnels());
    if idle.is_empty() {
        "tunnelled, because nothing has to see the requests: bytes pass untouched".to_owned()
    } else {
        format!("tunnelled, because of mode: tunnel: bytes pass untouched, {idle} work for http:// only")
    }
}

fn observed(reason: WouldDeny) -> String {
    let what = match reason {
        WouldDeny::Port => "a destination names the host, though not this port",
        WouldDeny::Unlisted => "no destination names the host",
    };
    format!("egress.default: observe lets it pass and records it; deny would refuse it, because {what}")
}

fn leaving(left: &Target, asked: &Target, tunnel: bool, destination: &Destination) -> String {
    let place = format!("{}://{left}", left.scheme);
    if tunnel {
        return format!("whatever the app sends, to {left}");
    }
    let version = match (destination.http, left.scheme) {
        (HttpVersion::Auto | HttpVersion::H1, Scheme::Http) | (HttpVersion::H1, Scheme::Https) => "HTTP/1.1",
        (HttpVersion::Auto, Scheme::Https) => "HTTP version as agreed",
        (HttpVersion::H2, _) => "HTTP/2",
    };
    let upgraded = if left.scheme == asked.scheme {
        ""
    } else {
        ", upgraded"
    };
    format!("{place}, {version}{upgraded}")
}

/// Returns the kind of a credential and the place of its secret.
pub(super) fn credential(auth: &Auth) -> String {
    match auth {
        Auth::AwsSigV4(aws) => format!(
            "AWS Signature Version 4 for {} in {}, key from {}",
            aws.service, aws.region, aws.secret_access_key
        ),
        Auth::Basic { username, password } => match username {
            Text::Plain(_) => format!("basic, password from {password}"),
            Text::Reference(username) => {
                format!("basic, user name from {username}, password from {password}")
            }
        },
        Auth::Bearer(token) => format!("bearer from {token}"),
        Auth::Header { name, value } => format!("header {name} from {value}"),
        Auth::Jwt(jwt) => format!("bearer, a JWT signed here with {}", jwt.key),
        Auth::OAuth2(oauth2) => format!(
            "bearer, a token from {} (OAuth 2.0 {}, client_auth {})",
            oauth2.token_url.text,
            oauth2.grant(),
            oauth2.client_auth(),
        ),
        Auth::Hmac(hmac) => format!("{}, key from {}", hmac.algorithm, hmac.key),
        Auth::HttpSignature(signature) => format!(
            "HTTP message signature (RFC 9421) with {}, key from {}",
            signature.algorithm, signature.key
        ),
        Auth::Query { name, value } => format!("query parameter {name} from {value}"),
    }
}

/// ` for POST /api/reindex`; empty for a limit of all requests.
fn matched(limit: &RateLimit) -> String {
    limit
        .matcher
        .parts()
        .fold(String::new(), |text, part| match text.as_str() {
            "" => format!(" for {part}"),
            _ => format!("{text} {part}"),
        })
}

fn joined<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.as_ref().to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}
