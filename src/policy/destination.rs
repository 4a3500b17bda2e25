//! A destination: what was written, and what follows from it.
//!
//! Here "not written" becomes a value: whether `http://` is upgraded, whether a CONNECT is intercepted. No later code
//! asks for the meaning of a key that is not written.
//!
//! Which targets belong to a destination is known to [`super::router`], not here.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use http::Method;

use super::{Denial, ParentPlan};
use crate::config::{
    self, AppliesTo, Auth, HeaderText, HttpVersion, Mark, Matcher, Mode, Problems, ROUTE_SERVICE,
    RouteServiceKeys, TcpKeys, Timeouts, Tls,
};
use crate::fields;
use crate::host::{Scheme, Target};
use crate::http1::HeadRules;
use crate::message::Fields;
use crate::method;
use crate::path::{self, PathGlob, Readings};

/// The name of `destinations[0]`, and so the label of unlisted hosts in metrics and logs.
const UNLISTED: &str = "unlisted";

/// A destination of the configuration, and what follows from what is written.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    pub(crate) index: usize,
    /// What was written, under the names of the keys. A field of this struct with the name of a key hides the written one:
    /// it is the value that takes effect.
    pub(crate) written: Arc<config::DestinationKeys>,
    /// How many instances share each rate limit, as the file says for all destinations.
    pub(crate) instances: Option<NonZeroU32>,
    /// Every request is refused. In a field, so that a request need not follow the pointer to what was written.
    pub(super) denies: bool,
    /// A CONNECT is ended here, because the proxy must see the requests.
    pub(crate) intercept: bool,
    /// The parent proxies behind which its hosts are. `None`: they are reached directly.
    pub(crate) parent: Option<Arc<ParentPlan>>,
    /// The upstream's reports of its limits are kept to.
    pub(crate) respect_upstream: bool,
    /// How many fields, and how large ones, an answer may have.
    pub(crate) response_fields: HeadRules,
    /// The route service is its only way in: no request is routed to it.
    pub(crate) is_route_service: bool,
    /// A local port is its only way in: no request is routed to it.
    pub(crate) tcp: Option<Arc<TcpKeys>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) tls: Arc<Tls>,
    /// `http://` from the app leaves as TLS.
    pub(crate) upgrade: bool,
    /// Methods or paths make a difference.
    has_rules: bool,
}

/// What was written can be read as the destination's own fields.
impl Deref for Destination {
    type Target = config::DestinationKeys;

    fn deref(&self) -> &config::DestinationKeys {
        &self.written
    }
}

impl Destination {
    /// Builds the destination of all hosts that no other one names: nothing is attached, nothing is limited.
    pub(super) fn unlisted(
        timeouts: Timeouts,
        response_fields: HeadRules,
        parent: Option<Arc<ParentPlan>>,
    ) -> Self {
        Self {
            name: UNLISTED.into(),
            index: 0,
            written: Arc::new(config::DestinationKeys::unwritten(UNLISTED)),
            instances: None,
            denies: false,
            intercept: false,
            parent,
            // Many hosts are one here: the limit of one of them must not hold the others.
            respect_upstream: false,
            response_fields,
            is_route_service: false,
            tcp: None,
            timeouts,
            tls: usual_tls(),
            upgrade: false,
            has_rules: false,
        }
    }

    /// Builds the destination of a token endpoint that no destination names: it has the TLS of `self`, so that the secrets
    /// of `self` reach no server that its lists or pins refuse. Only `server_name` is about the servers of `self` alone.
    pub(crate) fn of_token_endpoint(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            index: self.index,
            tls: if self.tls.server_name.is_none() {
                Arc::clone(&self.tls)
            } else {
                Arc::new(Tls {
                    server_name: None,
                    ..Tls::clone(&self.tls)
                })
            },
            ..Self::unlisted(self.timeouts, self.response_fields, self.parent.clone())
        }
    }

    /// Builds the destination of a local port. Where it leaves to is in `tcp`, and no router knows it.
    pub(super) fn of_tcp(
        written: &Arc<TcpKeys>,
        index: usize,
        config: &config::Config,
        parent: Option<&Arc<ParentPlan>>,
    ) -> Self {
        let timeouts = written.timeouts(config.timeouts);
        let keys = written.as_destination();
        let place = format!("tcp.{}", written.name);
        let parent = ParentPlan::of_destination(&keys, &place, &config.egress, parent);
        Self {
            name: Arc::clone(&written.name),
            index,
            tls: keys.tls.clone().unwrap_or_else(usual_tls),
            written: Arc::new(keys),
            tcp: Some(Arc::clone(written)),
            ..Self::unlisted(timeouts, config.limits.response_fields(), parent)
        }
    }

    /// Builds the destination of the route service: each request says itself where it leaves to, and no router knows it.
    pub(super) fn of_route_service(
        written: &RouteServiceKeys,
        index: usize,
        config: &config::Config,
        parent: Option<&Arc<ParentPlan>>,
    ) -> Self {
        let keys = written.as_destination();
        let parent = ParentPlan::of_destination(&keys, ROUTE_SERVICE, &config.egress, parent);
        let timeouts = config.timeouts.with(written.timeouts);
        Self {
            name: Arc::clone(&keys.name),
            index,
            written: Arc::new(keys),
            is_route_service: true,
            tls: Arc::new(written.tls.clone()),
            ..Self::unlisted(timeouts, config.limits.response_fields(), parent)
        }
    }

    /// Returns its path in the configuration.
    pub(crate) fn place(&self) -> String {
        if self.is_route_service {
            return ROUTE_SERVICE.to_owned();
        }
        let section = if self.tcp.is_some() { "tcp" } else { "destinations" };
        format!("{section}.{}", self.name)
    }

    /// Derives what follows from a destination of the configuration. Files problems under `destinations.NAME`; the result
    /// is used only if there is no problem.
    pub(super) fn compile(
        written: &Arc<config::DestinationKeys>,
        index: usize,
        config: &config::Config,
        parent: Option<&Arc<ParentPlan>>,
        problems: &mut Problems,
    ) -> Self {
        let destination = Self {
            name: Arc::clone(&written.name),
            index,
            instances: config.instances,
            denies: written.deny,
            intercept: match written.mode {
                Mode::Auto => !written.set(Mark::EndsTls).is_empty(),
                Mode::Intercept => true,
                Mode::Tunnel => false,
            },
            parent: ParentPlan::of_destination(
                written,
                &format!("destinations.{}", written.name),
                &config.egress,
                parent,
            ),
            respect_upstream: written.respect_upstream.unwrap_or(true),
            response_fields: HeadRules {
                keeps_spelling: written.preserve_header_case,
                ..config.limits.response_fields()
            },
            is_route_service: false,
            tcp: None,
            timeouts: config.timeouts.with(written.timeouts),
            tls: written.tls.clone().unwrap_or_else(usual_tls),
            upgrade: written
                .upgrade
                .unwrap_or_else(|| written.tls.is_some() || written.attaches()),
            has_rules: !written.methods.is_empty()
                || !written.paths.is_empty()
                || matchers(written).any(|matcher| !matcher.is_any()),
            written: Arc::clone(written),
        };
        destination.check(problems);
        destination
    }

    /// Checks whether the method and the path (no query) are allowed.
    ///
    /// With `paths`, a path that servers read differently (dot segments, encoded slashes) has to be allowed in each reading.
    pub(crate) fn permits(&self, method: &Method, path: &str) -> Result<(), Denial> {
        let covers = |own: &Method| method::covers(own, method);
        let methods = &self.written.methods;
        if !methods.is_empty() && !methods.iter().any(covers) {
            return Err(Denial::Method {
                destination: Arc::clone(&self.name),
                method: method.clone(),
            });
        }
        if self.has_rules
            && !method::is_registered(method)
            && !methods.contains(method)
            && !matchers(&self.written).any(|matcher| matcher.method.as_ref() == Some(method))
        {
            return Err(Denial::UnknownMethod {
                destination: Arc::clone(&self.name),
                method: method.clone(),
            });
        }
        if self.written.paths.is_empty() {
            return Ok(());
        }
        path::allow(&self.written.paths, path).map_err(|refused| Denial::Path {
            destination: Arc::clone(&self.name),
            refused,
        })
    }

    /// Refuses parameters and fields that some servers take for the method or the path of a request, where these make a
    /// difference.
    pub(crate) fn refuse_overrides(&self, query: Option<&str>, fields: &Fields) -> Result<(), Denial> {
        if !self.has_rules {
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

    /// Returns the index of the rule of `auth` that decides what is attached to a request; `path` is without query.
    ///
    /// A path that servers read differently is refused where one of the readings would be given another credential.
    pub(crate) fn auth_rule(&self, method: &Method, path: &str) -> Result<Option<usize>, Denial> {
        let rules = &self.written.auth;
        let rule = |matches: &dyn Fn(&PathGlob) -> bool| {
            let is_first =
                |matcher: &Matcher| matcher.covers(method) && matcher.path.as_ref().is_none_or(matches);
            rules.iter().position(|rule| is_first(&rule.matcher))
        };
        let written = rule(&|glob| glob.matches(path));
        if rules.iter().all(|rule| rule.matcher.path.is_none()) {
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

    /// Returns the credentials of a rule.
    fn credentials(&self, rule: Option<usize>) -> impl Iterator<Item = &Auth> {
        let rule = rule.map(|rule| &self.written.auth[rule]);
        rule.into_iter()
            .flat_map(|rule| &rule.credentials)
            .map(|one| &one.auth)
    }

    /// Returns a rule as a sentence names it.
    fn shown(&self, rule: Option<usize>) -> String {
        let Some(rule) = rule else {
            return "no rule of auth".to_owned();
        };
        let path = self.written.auth[rule].matcher.path.as_ref();
        format!("auth[{rule}] ({})", path.map_or("any path", PathGlob::as_str))
    }

    /// Returns the target that a request to `target` leaves for: with `upgrade`, http becomes https, port 80 becomes 443,
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
            Scheme::Http if self.attaches_secret() && !self.written.insecure_attach_over_http => {
                Err(Denial::Plaintext {
                    destination: Arc::clone(&self.name),
                })
            }
            Scheme::Http => Ok(target.clone()),
        }
    }

    /// Whether a request may carry any of several credentials.
    pub(crate) fn has_pool(&self) -> bool {
        self.written.auth.iter().any(|rule| rule.credentials.len() > 1)
    }

    /// Whether the configuration names `method` as one of this destination's.
    pub(crate) fn names(&self, method: &Method) -> bool {
        self.written.methods.contains(method)
    }

    /// Whether connections made for `self` may serve `other`, its secrets aside.
    pub(crate) fn has_same_upstream(&self, other: &Self) -> bool {
        self.name == other.name
            && self.response_fields == other.response_fields
            && self.timeouts == other.timeouts
            && self.tls == other.tls
            && self.parent == other.parent
            && !self.written.differs(&other.written, Mark::Upstream)
    }

    /// Whether stored answers may be kept: `other` would be answered as `self` is, secrets aside.
    pub(crate) fn has_same_answers(&self, other: &Self) -> bool {
        self.name == other.name && !self.written.differs(&other.written, Mark::Answers)
    }

    /// Whether a request carries a secret when it leaves. A client certificate does not count: it cannot leave in clear.
    fn attaches_secret(&self) -> bool {
        let mut set = self.written.headers.set.iter();
        self.written.attaches() || set.any(|(_, text)| matches!(text, HeaderText::Reference(_)))
    }

    /// Returns the paths of the credentials whose tokens would be requested in clear.
    fn clear_token_urls(&self) -> Vec<&str> {
        let credentials = self.written.auth.iter().flat_map(|rule| &rule.credentials);
        let clear = credentials.filter(|credential| {
            matches!(&credential.auth, Auth::OAuth2(oauth2) if oauth2.token_url.target.scheme == Scheme::Http)
        });
        clear.map(|credential| credential.place.as_str()).collect()
    }

    /// Files a problem for keys that are well-formed one by one and contradict each other.
    fn check(&self, problems: &mut Problems) {
        let at = |key: &str| format!("destinations.{}.{key}", self.name);
        let written = &self.written;
        if written.http == HttpVersion::H2 && !self.upgrade && !self.intercept {
            problems.add(
                at("http"),
                "HTTP/2 needs TLS of our own making: here http:// leaves in clear and CONNECT passes untouched",
                "add upgrade: true or mode: intercept, or leave out http",
            );
        }
        let clear = self.clear_token_urls();
        for place in clear.iter().filter(|_| !written.insecure_attach_over_http) {
            problems.add(
                at(&format!("{place}.oauth2.token_url")),
                "http:// would show the client's secret, and the token, to everybody on the way",
                "write https://",
            );
        }
        if written.insecure_attach_over_http && self.upgrade && clear.is_empty() {
            problems.add(
                at("insecure_attach_over_http"),
                "http:// is upgraded to https:// here, so nothing leaves in clear",
                "leave it out (safe), or add upgrade: false (the credential can be read on the way)",
            );
        } else if written.insecure_attach_over_http && !self.attaches_secret() {
            problems.add(
                at("insecure_attach_over_http"),
                "there is no credential to attach",
                "leave it out",
            );
        }
        if !self.respect_upstream && written.limits_apply_to != AppliesTo::Auto {
            problems.add(
                at("limits_apply_to"),
                "no limit is learned here that could apply to anything",
                "leave it out, or respect_upstream: false",
            );
        }
        if written.scrub == Some(true) && !self.attaches_secret() {
            problems.add(
                at("scrub"),
                "there is no secret to attach, and so none to strike out",
                "leave it out",
            );
        }
    }
}

/// Returns what holds where nothing is written about TLS: one value for all destinations.
fn usual_tls() -> Arc<Tls> {
    static USUAL: LazyLock<Arc<Tls>> = LazyLock::new(Arc::default);
    Arc::clone(&USUAL)
}

/// Returns which requests each rule of a destination is about.
fn matchers(written: &config::DestinationKeys) -> impl Iterator<Item = &Matcher> {
    let auth = written.auth.iter().map(|rule| &rule.matcher);
    let limits = written.rate_limits.iter().map(|limit| &limit.matcher);
    let classes = written.priorities.iter().map(|class| &class.matcher);
    auth.chain(limits).chain(classes)
}
