//! From a compiled policy to everything that is alive about it: the one life of a destination.
//!
//! [`bring_up`] makes every destination, for a start, a reload and a rotation of secrets alike. Each part of the
//! previous [`Live`] whose settings and secrets are the same is kept: connections and TLS sessions by the settings
//! of the upstream and the bytes of its secrets; circuits, retry budgets, rehearsals and limiters by their
//! settings; a cache where the answers would be the same. It only makes, so that what it made can be dropped
//! without a trace: [`take_over`] publishes what is used.
//!
//! A secret that cannot be used makes a [`FailedPart`]. The callers differ in what they do with it: a start logs it,
//! and the destination refuses its requests; a reload is refused as a whole; a rotation keeps the old route and
//! looks again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::placeholder::RoutePlaceholders;
use crate::auth::{self, Credentials, TokenEndpoint};
use crate::ca::Authority;
use crate::clients;
use crate::config::{Auth, Config, HeaderText, SecretRef, TokenUrl};
use crate::error::ErrorChain;
use crate::limit::LazyLimiter;
use crate::panics::caught;
use crate::policy::{Destination, ParentPlan, Policy};
use crate::proxy::{Live, Route};
use crate::secret::Snapshot;
use crate::store::QuotaStore;
use crate::telemetry::{CircuitState, Counters, CredentialKind, Telemetry};
use crate::units::unix_seconds;
use crate::upstream::parent::{self, ParentSettingsError, Parents};
use crate::upstream::service::ServiceEndpoint;
use crate::upstream::{Endpoint, tls};

use super::build::Builder;
use super::running::{breaker, cache, rehearsal, retry_policy};

/// What destinations are made from, beside the policy.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'i> {
    pub(super) builder: &'i Builder,
    pub(super) config: &'i Config,
    pub(super) secrets: &'i Snapshot,
    pub(super) store: Option<&'i QuotaStore>,
    pub(super) telemetry: &'i Telemetry,
}

/// A part of a destination that cannot be made, because a secret cannot be used.
#[derive(Debug)]
pub(super) struct FailedPart {
    pub(super) destination: Arc<str>,
    pub(super) error: DestinationError,
    /// The previous one goes on in its place. Else requests to the destination are refused.
    pub(super) is_kept: bool,
    /// It did not work before either.
    pub(super) was_broken: bool,
}

/// Why a part of a destination cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestinationError {
    #[error(transparent)]
    Clients(#[from] clients::BuildError),

    #[error("{place}")]
    Credentials { place: String, source: auth::Error },

    #[error("{place}")]
    Parent {
        place: String,
        source: Arc<ParentSettingsError>,
    },

    #[error("{place}.tls")]
    Tls {
        place: String,
        source: Arc<tls::SettingsError>,
    },
}

mod callers;

type BuiltParents = Result<Option<Arc<Parents>>, Arc<ParentSettingsError>>;

/// One build.
struct Build<'b> {
    inputs: Inputs<'b>,
    failed: Vec<FailedPart>,
    /// Connections that wait were made under the rules of then: other rules, other connections.
    has_same_egress: bool,
    /// Made once for each plan, and shared by its destinations.
    parents: Vec<(Arc<ParentPlan>, BuiltParents)>,
    policy: &'b Policy,
    previous: Option<&'b Live>,
    /// One for each destination of the policy, in their order.
    reached: Vec<Reached<'b>>,
}

/// How a destination is reached.
struct Reached<'b> {
    /// The destination of this name before.
    before: Option<&'b Arc<Route>>,
    endpoint: Arc<Endpoint>,
    /// Of all secrets of the destination.
    fingerprint: u64,
}

/// Makes every destination of `policy`, and keeps what is the same of `previous`. Changes nothing that is in use.
pub(super) fn bring_up(
    policy: Arc<Policy>,
    authority: Arc<Authority>,
    inputs: Inputs<'_>,
    previous: Option<&Live>,
) -> (Live, Vec<FailedPart>) {
    let mut build = Build {
        inputs,
        failed: Vec::new(),
        has_same_egress: previous.is_some_and(|old| old.policy.egress == policy.egress),
        parents: Vec::new(),
        policy: &policy,
        previous,
        reached: Vec::new(),
    };
    build.reach_all();
    let routes = build.routes();
    let clients = build.clients();
    let route_service = build.guard();
    let failed = build.failed;
    let live = Live {
        authority,
        clients,
        limits: inputs.config.limits.clone(),
        policy,
        route_service,
        routes,
    };
    (live, failed)
}

/// Publishes `live`, which is used from now on in the place of `previous`: limiters, gauges, and what a person
/// should know about certificates.
pub(super) fn take_over(live: &Live, previous: Option<&Live>, builder: &Builder, telemetry: &Telemetry) {
    let credentials = live.routes.iter().filter_map(|route| route.credentials.as_ref());
    builder.limits.hold(
        live.routes.iter().map(|route| Arc::clone(&route.limiter)),
        credentials.flat_map(Credentials::limiters).cloned(),
    );
    let own = telemetry.counters("none");
    let until = unix_seconds(live.authority.not_after());
    own.credential_expiry(CredentialKind::LocalCa, until);
    match live.clients.as_ref().and_then(|clients| clients.life()) {
        Some(life) => {
            own.credential_expiry(CredentialKind::ListenerCertificate, unix_seconds(life.not_after))
        }
        None => own.credential_removed(CredentialKind::ListenerCertificate),
    }
    let mut before = by_name(previous);
    for route in &live.routes {
        let before = before.remove(&route.destination.name);
        if before.is_none_or(|before| !Arc::ptr_eq(&before.endpoint, &route.endpoint)) {
            publish_certificates(route);
        }
        if route.breaker.is_none() && before.is_some_and(|before| before.breaker.is_some()) {
            // It may have been open when it was taken out.
            route.counters.circuit(CircuitState::Closed);
        }
    }
    for gone in before.values() {
        (gone.counters).credential_removed(CredentialKind::ClientCertificate);
    }
}

/// Logs, at each start and reload, what must not be forgotten.
pub(super) fn remind(live: &Live, config: &Config) {
    if let Some(networks) = config.egress.unnamed_classes() {
        tracing::warn!(
            networks,
            "denied although egress.deny_networks does not name them; to open one, add it to egress.allow_networks"
        );
    }
    for rehearsal in live.routes.iter().filter_map(|route| route.rehearsal.as_ref()) {
        rehearsal.announce();
    }
}

/// Returns every secret that a destination is made with.
pub(super) fn references(destination: &Destination, secrets: &Snapshot) -> Vec<SecretRef> {
    let credentials = destination.auth.iter().flat_map(|rule| &rule.credentials);
    let of_credentials = credentials.flat_map(|credential| credential.auth.references());
    let of_headers = (destination.headers.set.iter()).filter_map(|(_, value)| match value {
        HeaderText::Reference(reference) => Some(reference),
        HeaderText::Plain(_) => None,
    });
    let tls = &destination.tls;
    let certificate = tls.client_certificate.as_ref();
    (of_credentials.map(|(_, reference)| reference))
        .chain(of_headers)
        .chain(tls.ca.iter().chain(&tls.ca_extra).chain(&tls.crl))
        .cloned()
        .chain(certificate.map_or_else(Vec::new, |certificate| secrets.parts(certificate)))
        .chain(
            destination
                .parent
                .iter()
                .flat_map(|plan| parent::references(plan, secrets)),
        )
        .collect()
}

impl FailedPart {
    /// Logs that requests to the destination are refused.
    pub(super) fn log(&self) {
        let destination = &self.destination;
        match &self.error {
            DestinationError::Clients(error) => tracing::error!(
                error = %ErrorChain(error),
                "a part of who may come in does not work: nobody comes in by it until this is corrected",
            ),
            DestinationError::Credentials { source, .. } => tracing::error!(
                %destination,
                error = %ErrorChain(source),
                "no credential: requests to this destination are refused until this is corrected",
            ),
            DestinationError::Parent { source, .. } => tracing::error!(
                %destination,
                error = %ErrorChain(source.as_ref()),
                "no parent proxy: requests to this destination are refused until this is corrected",
            ),
            DestinationError::Tls { source, .. } => tracing::error!(
                %destination,
                error = %ErrorChain(source.as_ref()),
                "no TLS: requests to this destination are refused until this is corrected",
            ),
        }
    }

    /// Whether a reload is refused for it. Of a pair that is being replaced the other half is waited for
    /// afterwards.
    pub(super) fn refuses_reload(&self) -> bool {
        let is_half = self.is_kept && self.error.is_mismatch();
        !self.was_broken && !is_half
    }
}

impl DestinationError {
    /// Whether a certificate and a key are not of one pair, as while they are being replaced.
    fn is_mismatch(&self) -> bool {
        match self {
            Self::Clients(error) => error.is_mismatch(),
            Self::Credentials { .. } => false,
            Self::Parent { source, .. } => source.is_mismatch(),
            Self::Tls { source, .. } => source.is_mismatch(),
        }
    }

    pub(super) fn is_of_client_certificate(&self) -> bool {
        match self {
            Self::Clients(_) | Self::Credentials { .. } | Self::Parent { .. } => false,
            Self::Tls { source, .. } => source.is_of_client_certificate(),
        }
    }
}

impl<'b> Build<'b> {
    fn reach_all(&mut self) {
        let before = by_name(self.previous);
        let policy = self.policy;
        for destination in &policy.destinations {
            let before = before.get(&destination.name).copied();
            let reached = self.reach(destination, before);
            self.reached.push(reached);
        }
    }

    /// Returns how a destination is reached: as before where nothing about that has changed.
    fn reach(&mut self, destination: &Arc<Destination>, before: Option<&'b Arc<Route>>) -> Reached<'b> {
        let Inputs {
            builder,
            secrets,
            telemetry,
            ..
        } = self.inputs;
        let fingerprint = secrets.fingerprint(&references(destination, secrets));
        let same =
            before.filter(|old| self.has_same_egress && old.destination.has_same_upstream(destination));
        if let Some(old) = same.filter(|old| old.fingerprint == fingerprint) {
            return Reached::as_before(old);
        }
        let parents = self.parents(destination);
        if let Err(source) = &parents {
            let error = DestinationError::Parent {
                place: destination.place(),
                source: Arc::clone(source),
            };
            let works = |old: &Route| old.endpoint.parents().is_ok();
            if let Some(old) = self.fails(destination, error, before, same, works) {
                return Reached::as_before(old);
            }
        }
        let tls = caught(|| builder.tls(destination, secrets));
        let tls = tls.unwrap_or(Err(tls::SettingsError::Panicked)).map_err(Arc::new);
        if let Err(source) = &tls {
            let error = DestinationError::Tls {
                place: destination.place(),
                source: Arc::clone(source),
            };
            let works = |old: &Route| old.endpoint.tls().is_ok();
            if let Some(old) = self.fails(destination, error, before, same, works) {
                return Reached::as_before(old);
            }
        }
        let counters = telemetry.counters(&destination.name);
        Reached {
            before,
            endpoint: Arc::new(Endpoint::new(Arc::clone(destination), counters, tls).behind(parents)),
            fingerprint,
        }
    }

    /// Notes that a part of a destination cannot be made. Returns the route that goes on in its place: one of the same
    /// configuration in which the part works.
    fn fails(
        &mut self,
        destination: &Destination,
        error: DestinationError,
        before: Option<&'b Arc<Route>>,
        same: Option<&'b Arc<Route>>,
        works: impl Fn(&Route) -> bool,
    ) -> Option<&'b Arc<Route>> {
        let kept = same.filter(|old| works(old));
        self.failed.push(FailedPart {
            destination: Arc::clone(&destination.name),
            error,
            is_kept: kept.is_some(),
            was_broken: before.is_some_and(|old| !works(old)),
        });
        kept
    }

    /// Returns the parents of a destination: those that another one has, or that were there before.
    fn parents(&mut self, destination: &Destination) -> BuiltParents {
        let Some(plan) = &destination.parent else {
            return Ok(None);
        };
        let known = self.parents.iter().find(|(known, _)| Arc::ptr_eq(known, plan));
        if let Some((_, built)) = known {
            return built.clone();
        }
        let Inputs {
            builder,
            secrets,
            telemetry,
            ..
        } = self.inputs;
        let fingerprint = secrets.fingerprint(&parent::references(plan, secrets));
        let routes = self.previous.into_iter().flat_map(|live| &live.routes);
        let mut running = routes.filter_map(|route| route.endpoint.parents().ok().flatten());
        let same = running.find(|old| old.fingerprint() == fingerprint && old.plan() == plan);
        let built = match same {
            Some(old) => Ok(Some(Arc::clone(old))),
            None => {
                let rules = self.policy.egress.for_operator();
                let new =
                    || Parents::build(plan, secrets, &builder.roots, &rules, &builder.marker, telemetry);
                let new = caught(new).unwrap_or(Err(ParentSettingsError::Panicked));
                new.map(|new| Some(Arc::new(new))).map_err(Arc::new)
            }
        };
        self.parents.push((Arc::clone(plan), built.clone()));
        built
    }

    fn routes(&mut self) -> Vec<Arc<Route>> {
        let is_rotated = |reached: &Reached<'_>| {
            (reached.before).is_some_and(|before| before.fingerprint != reached.fingerprint)
        };
        let is_any_rotated = self.reached.iter().any(is_rotated);
        let policy = self.policy;
        let route = |destination| self.route(destination, is_any_rotated);
        policy.destinations.iter().map(route).collect()
    }

    /// Returns what a request to a destination needs: as before where nothing has changed.
    fn route(&mut self, destination: &Arc<Destination>, is_any_rotated: bool) -> Arc<Route> {
        let Reached {
            before,
            endpoint,
            fingerprint,
        } = &self.reached[destination.index];
        let (before, fingerprint) = (*before, *fingerprint);
        let is_same_endpoint = |old: &&Arc<Route>| Arc::ptr_eq(&old.endpoint, endpoint);
        // The configuration is the same.
        let same = before.filter(|old| Arc::ptr_eq(&old.destination, destination));
        // Its token may be asked for at a destination that has changed.
        let may_move = is_any_rotated && asks_for_tokens(destination);
        if let Some(old) = same.filter(is_same_endpoint).filter(|_| !may_move) {
            return Arc::clone(old);
        }
        let counters = self.inputs.telemetry.counters(&destination.name);
        let credentials = match self.credentials(destination, &counters) {
            Ok(credentials) => Some(credentials),
            Err(source) => {
                let error = DestinationError::Credentials {
                    place: destination.place(),
                    source,
                };
                let works = |old: &Route| old.credentials.is_some();
                if let Some(old) = self.fails(destination, error, before, same, works) {
                    return Arc::clone(old);
                }
                None
            }
        };
        let Inputs {
            builder,
            config,
            secrets,
            store,
            ..
        } = self.inputs;
        let written = (config.destinations.iter()).find(|written| *written.name == *destination.name);
        let sharing = store
            .zip(written)
            .and_then(|(store, written)| store.sharing(written, config.instances));
        Arc::new(Route {
            breaker: breaker(destination, before, &counters),
            cache: cache(destination, before.filter(|_| self.has_same_egress)),
            credentials,
            endpoint: Arc::clone(&self.reached[destination.index].endpoint),
            limiter: Arc::new(LazyLimiter::of(
                destination,
                sharing,
                &counters,
                before.map(|old| &*old.limiter),
            )),
            // The app's own requests have placeholders; those of its clients are not searched.
            placeholders: (builder.placeholders.load().as_ref())
                .filter(|_| !destination.is_route_service)
                .map(|set| Arc::new(RoutePlaceholders::of(set, destination, secrets))),
            rehearsal: rehearsal(destination, before, &counters),
            retry_policy: retry_policy(destination, before),
            destination: Arc::clone(destination),
            counters,
            fingerprint,
        })
    }

    fn credentials(
        &self,
        destination: &Destination,
        counters: &Arc<Counters>,
    ) -> Result<Credentials, auth::Error> {
        let Reached { before, endpoint, .. } = &self.reached[destination.index];
        let Inputs {
            builder,
            secrets,
            telemetry,
            ..
        } = self.inputs;
        let old = before.and_then(|old| old.credentials.as_ref());
        // With the endpoint every byte of every secret is the same.
        let is_same = before.is_some_and(|old| {
            Arc::ptr_eq(&old.endpoint, endpoint) && old.destination.auth == destination.auth
        });
        let credentials = caught(|| {
            Credentials::build(
                destination,
                secrets,
                endpoint,
                |place| builder.limits.of_member(destination, place, telemetry),
                |url| self.token_endpoint(url, destination, counters),
                old,
                old.filter(|_| is_same),
            )
        });
        credentials.unwrap_or(Err(auth::Error::Panicked))
    }

    /// Returns how a token endpoint is reached: as the destination that names its host, else as the one that needs
    /// the token. The host needs no destination: the configuration that holds its address allows it. What its name
    /// resolves to is judged all the same.
    fn token_endpoint(
        &self,
        url: &TokenUrl,
        destination: &Destination,
        counters: &Arc<Counters>,
    ) -> TokenEndpoint {
        let Inputs { builder, secrets, .. } = self.inputs;
        let named = self.policy.named(&url.target);
        let reached = &self.reached[named.map_or(destination.index, |named| named.index)];
        let endpoint = if named.is_some() {
            Arc::clone(&reached.endpoint)
        } else {
            let destination = Arc::new(destination.of_token_endpoint());
            let tls = builder.tls(&destination, secrets).map_err(Arc::new);
            // As the destination that needs the token is reached.
            let parents = reached
                .endpoint
                .parents()
                .map(Option::<&_>::cloned)
                .map_err(Arc::clone);
            Arc::new(Endpoint::new(destination, Arc::clone(counters), tls).behind(parents))
        };
        TokenEndpoint {
            identity: reached.fingerprint,
            service: ServiceEndpoint {
                egress: Arc::clone(&self.policy.egress),
                endpoint,
                resolver: Arc::clone(&builder.resolver),
            },
        }
    }
}

impl<'b> Reached<'b> {
    fn as_before(route: &'b Arc<Route>) -> Self {
        Self {
            before: Some(route),
            endpoint: Arc::clone(&route.endpoint),
            fingerprint: route.fingerprint,
        }
    }
}

fn by_name(live: Option<&Live>) -> HashMap<&Arc<str>, &Arc<Route>> {
    let routes = live.into_iter().flat_map(|live| &live.routes);
    routes.map(|route| (&route.destination.name, route)).collect()
}

fn asks_for_tokens(destination: &Destination) -> bool {
    let mut credentials = destination.auth.iter().flat_map(|rule| &rule.credentials);
    credentials.any(|credential| matches!(credential.auth, Auth::OAuth2(_)))
}

/// Publishes what a person should know about the certificates of a destination that is reached in another way now.
fn publish_certificates(route: &Route) {
    route.counters.forget_upstream_certificates();
    let Ok(settings) = route.endpoint.tls() else {
        return;
    };
    for warning in settings.warnings(SystemTime::now()) {
        tracing::warn!(destination = %route.destination.name, "{warning}");
    }
    let kind = CredentialKind::ClientCertificate;
    match settings.life() {
        Some(life) => (route.counters).credential_expiry(kind, unix_seconds(life.not_after)),
        None => route.counters.credential_removed(kind),
    }
}
