//! All that is decided about one destination.
//!
//! Here "not written" becomes a value: whether `http://` is upgraded, whether a CONNECT is intercepted. Below this
//! nothing asks again what the user may have meant.
//!
//! Which targets belong to a destination is known to [`super::router`], not here.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::path::{self, PathGlob};
use super::reading::Readings;
use super::{Denial, method};
use crate::config::{
    self, AppliesTo, Auth, AuthRule, Cache, CircuitBreaker, HeaderText, Headers, HttpVersion, Mode, OnLimit,
    Priority, Problems, RateLimit, Rehearse, Retry, Timeouts, Tls,
};
use crate::fields;
use crate::host::{Scheme, Target};
use crate::http1::HeadRules;

/// A destination of the configuration, compiled. Nothing here is optional in the sense of "default".
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    pub(crate) index: usize,
    /// The first that [matches](Self::auth_rule) counts.
    pub(crate) auth: Vec<AuthRule>,
    /// One for each of `auth`.
    auth_paths: Vec<Option<PathGlob>>,
    pub(crate) cache: Option<Cache>,
    pub(crate) circuit_breaker: Option<CircuitBreaker>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) headers: Headers,
    pub(crate) http: HttpVersion,
    pub(crate) insecure_attach_over_http: bool,
    /// How many instances share each rate limit, as written.
    pub(crate) instances: Option<NonZeroU32>,
    /// Whom and what a learned limit concerns.
    pub(crate) limits_apply_to: AppliesTo,
    pub(crate) on_limit: OnLimit,
    pub(crate) priorities: Vec<Priority>,
    /// How many requests may wait.
    pub(crate) queue: usize,
    pub(crate) rate_limits: Vec<RateLimit>,
    pub(crate) rehearse: Option<Rehearse>,
    /// What the upstream says about its limits is kept to.
    pub(crate) respect_upstream: bool,
    /// How much of fields an answer may have.
    pub(crate) response_fields: HeadRules,
    pub(crate) retry: Option<Retry>,
    /// Secrets are struck out of the bodies of answers too.
    pub(crate) scrub: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) tls: Tls,
    /// `http://` from the app leaves as TLS.
    pub(crate) upgrade: bool,
    /// Via is added.
    pub(crate) via: bool,
    /// A CONNECT is ended here, because something must see the requests.
    pub(crate) intercept: bool,
    /// Empty: all.
    methods: Vec<Method>,
    /// Empty: all.
    paths: Vec<PathGlob>,
    /// Methods or paths make a difference.
    judges: bool,
    /// The methods that rules are about.
    ruled: Vec<Method>,
}

impl Destination {
    /// The destination of all hosts that no other one names: nothing is attached, nothing is limited.
    pub(super) fn unlisted(timeouts: Timeouts, response_fields: HeadRules) -> Self {
        Self {
            name: UNLISTED.into(),
            index: 0,
            auth: Vec::new(),
            auth_paths: Vec::new(),
            cache: None,
            circuit_breaker: None,
            concurrency: None,
            headers: Headers::default(),
            http: HttpVersion::Auto,
            insecure_attach_over_http: false,
            instances: None,
            limits_apply_to: AppliesTo::default(),
            on_limit: OnLimit::Reject,
            priorities: Vec::new(),
            queue: 0,
            rate_limits: Vec::new(),
            rehearse: None,
            // Many hosts are one here: what one of them says must not hold the others.
            respect_upstream: false,
            response_fields,
            retry: None,
            scrub: false,
            timeouts,
            tls: Tls::default(),
            upgrade: false,
            via: false,
            intercept: false,
            methods: Vec::new(),
            paths: Vec::new(),
            judges: false,
            ruled: Vec::new(),
        }
    }

    /// How a token endpoint is reached that no destination names: with all that `self` says of TLS, so that its secrets
    /// go to no server that its lists or pins refuse. Only `server_name` is of its own servers alone.
    pub(crate) fn of_token_endpoint(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            index: self.index,
            tls: Tls {
                server_name: None,
                ..self.tls.clone()
            },
            ..Self::unlisted(self.timeouts, self.response_fields)
        }
    }

    /// Files what is wrong under `destinations.NAME`; what it returns is used only where there is no problem.
    pub(super) fn compile(
        config: &config::Destination,
        index: usize,
        instances: Option<NonZeroU32>,
        response_fields: HeadRules,
        problems: &mut Problems,
    ) -> Self {
        let (paths, auth_paths) = compile_globs(config, problems);
        let destination = Self {
            name: config.name.as_str().into(),
            index,
            auth: config.auth.clone(),
            auth_paths,
            cache: config.cache,
            circuit_breaker: config.circuit_breaker,
            concurrency: config.concurrency,
            headers: config.headers.clone(),
            http: config.http,
            insecure_attach_over_http: config.insecure_attach_over_http,
            instances,
            limits_apply_to: config.limits_apply_to,
            on_limit: config.on_limit,
            priorities: config.priorities.clone(),
            queue: config.queue,
            rate_limits: config.rate_limits.clone(),
            rehearse: config.rehearse,
            respect_upstream: config.respect_upstream.unwrap_or(true),
            response_fields: HeadRules {
                keeps_spelling: config.preserve_header_case,
                ..response_fields
            },
            retry: config.retry.clone(),
            scrub: config.scrub,
            timeouts: config.timeouts,
            tls: config.tls.clone().unwrap_or_default(),
            via: config.via,
            upgrade: config
                .upgrade
                .unwrap_or_else(|| config.tls.is_some() || attaches(&config.auth)),
            intercept: match config.mode {
                Mode::Auto => must_see(config).next().is_some(),
                Mode::Intercept => true,
                Mode::Tunnel => false,
            },
            methods: config.methods.clone(),
            judges: !config.methods.is_empty()
                || !config.paths.is_empty()
                || rules(config).any(|(method, path)| method.is_some() || path.is_some()),
            ruled: rules(config).filter_map(|(method, _)| method.cloned()).collect(),
            paths,
        };
        destination.check(problems);
        destination
    }

    /// Whether the method and the path (no query) are allowed.
    ///
    /// Where `paths` is set, a path that servers read differently (dot segments, encoded slashes) is where each reading is.
    pub(crate) fn permits(&self, method: &Method, path: &str) -> Result<(), Denial> {
        let covers = |own: &Method| method::covers(own, method);
        if !self.methods.is_empty() && !self.methods.iter().any(covers) {
            return Err(Denial::Method {
                destination: Arc::clone(&self.name),
                method: method.clone(),
            });
        }
        if self.judges
            && !method::is_registered(method)
            && !self.methods.contains(method)
            && !self.ruled.contains(method)
        {
            return Err(Denial::UnknownMethod {
                destination: Arc::clone(&self.name),
                method: method.clone(),
            });
        }
        if self.paths.is_empty() {
            return Ok(());
        }
        path::allow(&self.paths, path).map_err(|refused| Denial::Path {
            destination: Arc::clone(&self.name),
            refused,
        })
    }

    /// Refuses what some servers take for the method or the path of a request, where these make a difference.
    pub(crate) fn heeds(&self, query: Option<&str>, fields: &HeaderMap) -> Result<(), Denial> {
        if !self.judges {
            return Ok(());
        }
        let named = query
            .filter(|query| method::is_overridden(query))
            .map(|_| "_method in the query");
        match named.or_else(|| fields::overrides(fields)) {
            None => Ok(()),
            Some(name) => Err(Denial::Override {
                destination: Arc::clone(&self.name),
                name,
            }),
        }
    }

    /// Which of `auth` decides what is attached to a request; `path` is without query.
    ///
    /// A path that servers read differently is refused where one of the readings would be given another credential.
    pub(crate) fn auth_rule(&self, method: &Method, path: &str) -> Result<Option<usize>, Denial> {
        let rule = |matches: &dyn Fn(&PathGlob) -> bool| {
            (self.auth.iter().zip(&self.auth_paths)).position(|(rule, glob)| {
                (rule.method.as_ref()).is_none_or(|own| method::covers(own, method))
                    && glob.as_ref().is_none_or(matches)
            })
        };
        let written = rule(&|glob| glob.matches(path));
        if self.auth_paths.iter().all(Option::is_none) {
            return Ok(written);
        }
        let ambiguous = |reading: String, other: String| Denial::Ambiguous {
            destination: Arc::clone(&self.name),
            written: self.shown(written),
            reading,
            other,
        };
        let readings = Readings::of(path);
        let Some(all) = readings.all() else {
            return Err(ambiguous(
                "one of very many paths".to_owned(),
                "any rule".to_owned(),
            ));
        };
        for reading in all {
            // A server may heed the case or not.
            let exact = reading.exact.map(|_| rule(&|glob| glob.means_exactly(reading)));
            for other in exact.into_iter().chain([rule(&|glob| glob.means(reading))]) {
                if other != written && !self.credentials(other).eq(self.credentials(written)) {
                    return Err(ambiguous(reading.shown(), self.shown(other)));
                }
            }
        }
        Ok(written)
    }

    /// What a rule attaches.
    fn credentials(&self, rule: Option<usize>) -> impl Iterator<Item = &Auth> {
        let rule = rule.map(|rule| &self.auth[rule]);
        rule.into_iter()
            .flat_map(|rule| &rule.credentials)
            .map(|one| &one.auth)
    }

    /// A rule as a sentence names it.
    fn shown(&self, rule: Option<usize>) -> String {
        match rule {
            None => "no rule of auth".to_owned(),
            Some(rule) => {
                let path = self.auth[rule].path.as_deref().unwrap_or("any path");
                format!("auth[{rule}] ({path})")
            }
        }
    }

    /// Whether a request to `target` leaves over TLS, and the port it leaves to: with `upgrade`, 80 becomes 443
    /// and any other port stays. A credential that would leave in clear is `Denial::Plaintext`.
    pub(crate) fn leaves(&self, target: &Target) -> Result<Target, Denial> {
        match target.scheme {
            Scheme::Https => Ok(target.clone()),
            Scheme::Http if self.upgrade => {
                let port = if target.port == 80 { 443 } else { target.port };
                Ok(Target {
                    scheme: Scheme::Https,
                    host: target.host.clone(),
                    port,
                })
            }
            Scheme::Http if self.attaches_secret() && !self.insecure_attach_over_http => {
                Err(Denial::Plaintext {
                    destination: Arc::clone(&self.name),
                })
            }
            Scheme::Http => Ok(target.clone()),
        }
    }

    /// Whether a request may carry any of several credentials.
    pub(crate) fn has_pool(&self) -> bool {
        self.auth.iter().any(|rule| rule.credentials.len() > 1)
    }

    /// Whether the configuration names `method` as one of this destination's.
    pub(crate) fn names(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// Whether connections made for `self` may serve `other`, its secrets aside.
    pub(crate) fn has_same_upstream(&self, other: &Self) -> bool {
        self.name == other.name
            && self.http == other.http
            && self.response_fields == other.response_fields
            && self.timeouts == other.timeouts
            && self.tls == other.tls
    }

    /// Whether a request would be answered by `other` as by `self`, secrets aside, and what is stored may be kept.
    pub(crate) fn has_same_answers(&self, other: &Self) -> bool {
        self.name == other.name
            && self.auth == other.auth
            && self.cache == other.cache
            && self.headers == other.headers
            && self.scrub == other.scrub
            && self.tls == other.tls
            && self.upgrade == other.upgrade
    }

    /// Whether a request carries a secret when it leaves. A client certificate is none: it cannot leave in clear.
    fn attaches_secret(&self) -> bool {
        attaches(&self.auth)
            || self
                .headers
                .set
                .iter()
                .any(|(_, text)| matches!(text, HeaderText::Reference(_)))
    }

    /// Where credentials stand whose tokens would be asked for in clear.
    fn clear_token_urls(&self) -> Vec<&str> {
        let credentials = self.auth.iter().flat_map(|rule| &rule.credentials);
        let clear = credentials.filter(|credential| {
            matches!(&credential.auth, Auth::OAuth2(oauth2) if oauth2.token_url.target.scheme == Scheme::Http)
        });
        clear.map(|credential| credential.place.as_str()).collect()
    }

    /// What is well-formed key by key and contradicts itself as a whole.
    fn check(&self, problems: &mut Problems) {
        let at = |key: &str| format!("destinations.{}.{key}", self.name);
        if self.http == HttpVersion::H2 && !self.upgrade && !self.intercept {
            problems.add(
                at("http"),
                "HTTP/2 needs TLS of our own making: here http:// leaves in clear and CONNECT passes untouched",
                "add upgrade: true or mode: intercept, or leave out http",
            );
        }
        let clear = self.clear_token_urls();
        for place in clear.iter().filter(|_| !self.insecure_attach_over_http) {
            problems.add(
                at(&format!("{place}.oauth2.token_url")),
                "http:// would show the client's secret, and the token, to everybody on the way",
                "write https://",
            );
        }
        if self.insecure_attach_over_http && self.upgrade && clear.is_empty() {
            problems.add(
                at("insecure_attach_over_http"),
                "http:// is upgraded to https:// here, so nothing leaves in clear",
                "leave it out (safe), or add upgrade: false (the credential can be read on the way)",
            );
        } else if self.insecure_attach_over_http && !self.attaches_secret() {
            problems.add(
                at("insecure_attach_over_http"),
                "there is no credential to attach",
                "leave it out",
            );
        }
        if !self.respect_upstream && self.limits_apply_to != AppliesTo::Auto {
            problems.add(
                at("limits_apply_to"),
                "no limit is learned here that could apply to anything",
                "leave it out, or respect_upstream: false",
            );
        }
        if self.scrub && !self.attaches_secret() {
            problems.add(
                at("scrub"),
                "there is no secret to attach, and so none to strike out",
                "leave it out",
            );
        }
    }
}

/// The keys of a destination for which something must see the requests within a CONNECT, so that `mode: auto` intercepts it.
pub(crate) fn must_see(config: &config::Destination) -> impl Iterator<Item = &'static str> {
    let written = MUST_SEE.iter().filter(|(_, is_written)| is_written(config));
    written.map(|(key, _)| *key)
}

/// The keys that do nothing for a tunnel whose bytes pass untouched: of all that [`must_see`] only limits, which then
/// count tunnels, still do.
pub(crate) fn idle_in_tunnels(config: &config::Destination) -> impl Iterator<Item = &'static str> {
    must_see(config).filter(|key| !matches!(*key, "concurrency" | "rate_limit"))
}

/// The globs of `paths`, and of each of `auth`; those of the limits and priorities are only checked here.
fn compile_globs(
    config: &config::Destination,
    problems: &mut Problems,
) -> (Vec<PathGlob>, Vec<Option<PathGlob>>) {
    let mut parse = |key: &str, i: usize, below: &str, text: &str| {
        let path = || format!("destinations.{}.{key}[{i}]{below}", config.name);
        PathGlob::parse(text)
            .map_err(|error| problems.add(path(), error.to_string(), ""))
            .ok()
    };
    let limits = config.rate_limits.iter().map(|limit| limit.path.as_ref());
    let priorities = config.priorities.iter().map(|priority| priority.path.as_ref());
    let matched = (limits.enumerate().map(|(i, path)| ("rate_limit", i, path)))
        .chain(priorities.enumerate().map(|(i, path)| ("priority", i, path)));
    for (key, i, path) in matched {
        path.map(|path| parse(key, i, ".match.path", path));
    }
    let paths = config.paths.iter().enumerate();
    let paths = paths
        .filter_map(|(i, text)| parse("paths", i, "", text))
        .collect();
    let of_auth = config.auth.iter().enumerate();
    let of_auth = of_auth.map(|(i, rule)| parse("auth", i, ".match.path", rule.path.as_ref()?));
    (paths, of_auth.collect())
}

/// Method and path of each rule that has them.
fn rules(config: &config::Destination) -> impl Iterator<Item = (Option<&Method>, Option<&String>)> {
    let auth = config
        .auth
        .iter()
        .map(|rule| (rule.method.as_ref(), rule.path.as_ref()));
    let limits = config
        .rate_limits
        .iter()
        .map(|limit| (limit.method.as_ref(), limit.path.as_ref()));
    let classes = config
        .priorities
        .iter()
        .map(|class| (class.method.as_ref(), class.path.as_ref()));
    auth.chain(limits).chain(classes)
}

/// Whether anything is attached to any request.
pub(crate) fn attaches(auth: &[AuthRule]) -> bool {
    auth.iter().any(|rule| !rule.credentials.is_empty())
}

/// Whether a key is written.
type IsWritten = fn(&config::Destination) -> bool;

/// The keys of [`must_see`]. docs/destinations.md has them as well.
pub(crate) const MUST_SEE: [(&str, IsWritten); 14] = [
    ("auth", |config| attaches(&config.auth)),
    ("cache", |config| config.cache.is_some()),
    ("circuit_breaker", |config| config.circuit_breaker.is_some()),
    ("concurrency", |config| config.concurrency.is_some()),
    ("headers", |config| config.headers != Headers::default()),
    ("limits_apply_to", |config| {
        config.limits_apply_to != AppliesTo::Auto
    }),
    ("methods", |config| !config.methods.is_empty()),
    ("paths", |config| !config.paths.is_empty()),
    ("rate_limit", |config| !config.rate_limits.is_empty()),
    ("rehearse", |config| config.rehearse.is_some()),
    ("respect_upstream", |config| config.respect_upstream == Some(true)),
    ("retry", |config| config.retry.is_some()),
    ("scrub", |config| config.scrub),
    // `tls: {}` only asks for the upgrade of http://.
    ("tls", |config| {
        config.tls.as_ref().is_some_and(|tls| *tls != Tls::default())
    }),
];

/// The name of `destinations[0]`, and so the label of unlisted hosts in metrics and logs.
const UNLISTED: &str = "unlisted";
