//! Tokens that are asked for (RFC 6749): one for each credential, shared by all workers, kept in memory alone.
//!
//! [`Tokens::ready`] waits for a token that is valid, [`Tokens::value`] attaches it, and [`Tokens::refuse`] has another
//! one asked for in the place of one that the upstream refused. When that leads to a token request is decided in
//! [`state`], what stands in it in [`request`], and what is made of its answer in [`answer`]. A request goes the way of
//! all others: resolver, egress policy, dialler, verified TLS. It runs in a task of its own, so that a client that goes
//! away takes it from nobody; redirects are not followed.
//!
//! The `oauth2` crate is not used: of the grants here it has two, of the ways to authenticate two, and it wants the
//! body in its own buffers, which are not wiped.

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http_body::Body;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

pub(crate) use error::{Error, NoToken};

use crate::config::{ClientAuth, OAuth2};
use crate::host::Target;
use crate::policy::Egress;
use crate::secret::Sources;
use crate::sync::lock;
use crate::telemetry::log::Chain;
use crate::telemetry::{Counters, CredentialKind, RefreshResult};
use crate::upstream::resolve::Resolver;
use crate::upstream::{self, DialContext, Endpoint, Outbound, Protocol, ResponseBody};
use answer::{Denial, Grant};
use error::{Failure, Reason};
use request::{Form, Plan};
use state::{State, Step, Token};

mod answer;
mod error;
mod request;
mod state;
#[cfg(test)]
mod tests;

/// How a token endpoint is reached.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Differs whenever the client shows another certificate there.
    pub(crate) identity: u64,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) egress: Arc<Egress>,
}

/// The token of one credential.
#[derive(Debug)]
pub(crate) struct Tokens {
    shared: Arc<Shared>,
    source: Arc<Source>,
}

/// Whether a request can have a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// A token request is under way.
    Asked,
    /// The last token request failed, and the endpoint is left alone for so long.
    Paused(Duration),
}

/// Where tokens come from.
#[derive(Debug)]
struct Source {
    /// Of the destination that the tokens are for.
    counters: Arc<Counters>,
    door: Door,
    plan: Plan,
    target: Target,
}

/// What a reload keeps.
struct Shared {
    client: Mutex<Client>,
    /// Of the settings and every secret in them.
    fingerprint: u64,
    /// Told whenever a flight is over.
    landed: watch::Sender<()>,
    /// The refresh token that the server gave last.
    rotated: Mutex<Option<Zeroizing<String>>>,
    state: Mutex<State>,
}

/// How the client is written.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// The one in which the server knew the client last, or which is tried next.
    form: Form,
    /// The server knew it in neither.
    is_refused: bool,
}

/// A token request under way. Dropped before it has landed, it is given up, and another worker may start the next.
struct Flight {
    is_over: bool,
    number: u64,
    shared: Arc<Shared>,
}

impl Tokens {
    /// Reads the secrets. Nothing is asked for yet. The token of one of `running` stays that would be asked for in the
    /// same way.
    pub(super) fn build<'t>(
        settings: &OAuth2,
        sources: &Sources,
        door: Door,
        counters: Arc<Counters>,
        mut running: impl Iterator<Item = &'t Self>,
    ) -> Result<Self, Error> {
        let plan = Plan::build(settings, sources)?;
        let fingerprint = fingerprint(settings, sources, door.identity);
        let kept = running.find(|running| running.shared.fingerprint == fingerprint);
        let shared = kept.map_or_else(
            || Arc::new(Shared::new(fingerprint)),
            |kept| Arc::clone(&kept.shared),
        );
        let source = Source {
            counters,
            door,
            plan,
            target: settings.token_url.target.clone(),
        };
        Ok(Self {
            shared,
            source: Arc::new(source),
        })
    }

    /// How the token endpoint is reached.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.source.door.endpoint
    }

    /// Whether a token could be asked for.
    pub(super) fn check(settings: &OAuth2, sources: &Sources) -> Result<(), Error> {
        Plan::build(settings, sources).map(drop)
    }

    /// Waits until there is a token that is valid, and adds to `waited` how long. One that ages is replaced without a wait.
    pub(super) async fn ready(&self, waited: &mut Duration) -> Result<(), Error> {
        loop {
            let mut landed = {
                let mut state = self.shared.state();
                match state.step(Instant::now()) {
                    Step::Go => return Ok(()),
                    Step::GoAndAsk(flight) => {
                        self.ask(flight);
                        return Ok(());
                    }
                    Step::Refuse(no_token) => return Err(no_token.into()),
                    Step::Ask(flight) => self.ask(flight),
                    Step::Wait => {}
                }
                // Under the lock: the flight has not landed yet, and its landing is going to be seen.
                self.shared.landed.subscribe()
            };
            let since = Instant::now();
            // Its sender lives as long as `self` does.
            let _ = landed.changed().await;
            *waited += since.elapsed();
        }
    }

    /// Whether there is a token that is valid, without a wait; where there is none, one is asked for if the endpoint may
    /// be asked. One that ages is replaced.
    pub(super) fn readiness(&self, now: Instant) -> Readiness {
        match self.shared.state().step(now) {
            Step::Go => Readiness::Ready,
            Step::GoAndAsk(flight) => {
                self.ask(flight);
                Readiness::Ready
            }
            Step::Ask(flight) => {
                self.ask(flight);
                Readiness::Asked
            }
            Step::Wait => Readiness::Asked,
            Step::Refuse(no_token) => Readiness::Paused(no_token.retry_after),
        }
    }

    /// Waits until the token request that is under way now is over, however it ends.
    pub(super) fn landing(&self) -> impl Future<Output = ()> + use<> {
        let mut landed = self.shared.landed.subscribe();
        async move {
            // Its sender is kept by whoever waits.
            let _ = landed.changed().await;
        }
    }

    /// The value of `Authorization` for a request that leaves now; sensitive.
    pub(super) fn value(&self) -> Result<HeaderValue, Error> {
        let state = self.shared.state();
        state.value(Instant::now()).cloned().ok_or(Error::Overdue)
    }

    /// The upstream answered 401 to `value`, which is not used again; whoever is [`ready`](Self::ready) next has another
    /// one. False where tokens are refused one after the other: then it stays, so that a 401 which is not about the token
    /// costs little.
    pub(super) fn refuse(&self, value: &HeaderValue) -> bool {
        (self.shared.state()).refuse(value, Instant::now(), rand::random())
    }

    /// Starts a token request, which goes on when nobody waits for it any more.
    fn ask(&self, number: u64) {
        let flight = Flight {
            is_over: false,
            number,
            shared: Arc::clone(&self.shared),
        };
        let source = Arc::clone(&self.source);
        tokio::spawn(async move {
            let started = Instant::now();
            let fetched = timeout(LONGEST_FLIGHT, source.fetch(&flight.shared)).await;
            match fetched {
                Ok(Ok(grant)) => {
                    let token = token(&grant, started, rand::random());
                    if token.over > Instant::now() {
                        flight.land(grant, token, &source);
                    } else {
                        flight.fail(Reason::Outlived.into(), &source);
                    }
                }
                Ok(Err(denial)) => flight.fail(denial, &source),
                Err(_) => flight.fail(Reason::Slow(LONGEST_FLIGHT).into(), &source),
            }
        });
    }
}

impl Source {
    /// Asks; and once more where the server does not know the client, and may know it as it is written otherwise. Once it
    /// has refused both, it is asked in one form at a time, in turn: some lock out a client that fails often.
    async fn fetch(&self, shared: &Shared) -> Result<Grant, Denial> {
        let client = *shared.client();
        let denial = match self.ask(shared, client.form).await {
            Err(denial) if self.plan.has_other_form() && denial.reason.is_of_client() => denial,
            other => {
                shared.client().is_refused &= other.is_err();
                return other;
            }
        };
        let form = client.form.other();
        if client.is_refused {
            shared.client().form = form;
            return Err(denial);
        }
        let answer = self.ask(shared, form).await;
        match &answer {
            Ok(_) => {
                shared.client().form = form;
                tracing::info!(
                    destination = self.counters.destination(),
                    token_endpoint = %self.target,
                    ?form,
                    "the server reads client_secret_basic in this form",
                );
                answer
            }
            // It is the client itself.
            Err(again) if again.reason.is_of_client() => {
                shared.client().is_refused = true;
                Err(denial)
            }
            Err(_) => answer,
        }
    }

    /// Asks once; and once more where the first request was lost before anything was heard of it.
    async fn ask(&self, shared: &Shared, form: Form) -> Result<Grant, Denial> {
        let mut is_first = true;
        loop {
            let rotated = lock(&shared.rotated).clone();
            let (head, body) =
                (self.plan.request(rotated.as_ref(), form, SystemTime::now())).map_err(Reason::from)?;
            let ways = DialContext {
                resolver: &self.door.resolver,
                egress: &self.door.egress,
            };
            let mut body = Outbound::whole(body);
            let (target, endpoint) = (&self.target, &self.door.endpoint);
            match upstream::send(&head, &mut body, target, Protocol::H1, endpoint, ways, &()).await {
                Ok(response) => return self.read(response).await,
                Err(failed) => {
                    let is_lost = matches!(
                        failed.error,
                        upstream::Error::CutShort { .. } | upstream::Error::Incomplete(_)
                    );
                    if !(is_first && is_lost && self.plan.is_repeatable()) {
                        return Err(Reason::Unreachable(Box::new(failed.error)).into());
                    }
                }
            }
            is_first = false;
        }
    }

    async fn read(&self, response: http::Response<ResponseBody>) -> Result<Grant, Denial> {
        let (head, body) = response.into_parts();
        if head.status.is_redirection() {
            return Err(Reason::Redirected(head.status).into());
        }
        let body = whole(body).await?;
        let (status, fields, now) = (head.status, &head.headers, SystemTime::now());
        let secrets = self.plan.secrets();
        match status.is_success() {
            true => Grant::read(status, fields, &body, self.plan.is_exchange, secrets, now),
            false => Err(Denial::read(status, fields, &body, secrets, now)),
        }
    }
}

impl Shared {
    fn new(fingerprint: u64) -> Self {
        Self {
            client: Mutex::default(),
            fingerprint,
            landed: watch::Sender::new(()),
            rotated: Mutex::new(None),
            state: Mutex::new(State::default()),
        }
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        lock(&self.client)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Flight {
    fn land(mut self, grant: Grant, token: Token, source: &Source) {
        self.is_over = true;
        let destination = source.counters.destination();
        let lifetime = token.over.saturating_duration_since(Instant::now());
        if let Some(refresh_token) = grant.refresh_token {
            let mut rotated = lock(&self.shared.rotated);
            if !source.plan.is_repeatable() && rotated.replace(refresh_token).is_none() {
                tracing::warn!(
                    destination,
                    token_endpoint = %source.target,
                    "the server gives a new refresh token with each token; the one of the configuration may not work \
                     after a restart",
                );
            }
        }
        let has_recovered = self.shared.state().land(self.number, token);
        self.shared.landed.send_replace(());
        let over = SystemTime::now() + lifetime;
        let over = over.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        source
            .counters
            .credential_expiry(CredentialKind::Token, i64::try_from(over).unwrap_or(i64::MAX));
        source
            .counters
            .credential_refresh(CredentialKind::Token, RefreshResult::Done);
        let (lifetime, token_endpoint) = (lifetime.as_secs(), &source.target);
        if has_recovered {
            tracing::info!(destination, %token_endpoint, lifetime, "there is a token again");
        } else {
            tracing::debug!(destination, %token_endpoint, lifetime, "there is a new token");
        }
    }

    fn fail(mut self, denial: Denial, source: &Source) {
        self.is_over = true;
        let failure = Arc::new(Failure {
            endpoint: source.target.clone(),
            reason: denial.reason,
        });
        let pause = (self.shared.state()).fail(self.number, &failure, Instant::now(), rand::random());
        self.shared.landed.send_replace(());
        source
            .counters
            .credential_refresh(CredentialKind::Token, RefreshResult::Failed);
        tracing::warn!(
            destination = source.counters.destination(),
            error = %Chain(&*failure),
            told = denial.description.as_deref(),
            again_in = %humantime::format_duration(Duration::from_millis(pause.as_millis() as u64)),
            "no new token",
        );
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.state().abandon(self.number);
            self.shared.landed.send_replace(());
        }
    }
}

/// When a token that was asked for at `started` is over, and when another one is asked for. `chance` is from 0 to 1.
fn token(grant: &Grant, started: Instant, chance: f64) -> Token {
    // No clock can add centuries.
    let lifetime = grant.lifetime.unwrap_or(UNTOLD);
    // The request that it is attached to takes its time, and the clocks of two servers differ.
    let usable = lifetime - MARGIN.min(lifetime / 4);
    Token {
        ageing: started + usable.mul_f64(0.7 + chance.clamp(0.0, 1.0) / 10.0),
        over: started + usable,
        value: grant.value.clone(),
    }
}

/// Reads a body of at most [`LARGEST`] bytes.
async fn whole(mut body: ResponseBody) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST));
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(|_| Reason::Cut)?.into_data() {
            if bytes.len() + data.len() > LARGEST {
                return Err(Reason::TooLarge(LARGEST));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// Differs whenever a token would be asked for in another way.
fn fingerprint(settings: &OAuth2, sources: &Sources, identity: u64) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = HASHER.build_hasher();
    settings.hash(&mut hasher);
    for (_, reference) in settings.references() {
        if let Ok(secret) = sources.read(reference) {
            secret.expose().hash(&mut hasher);
        }
    }
    if settings.client_auth == ClientAuth::Tls {
        // The token may be bound to the certificate (RFC 8705, section 3).
        identity.hash(&mut hasher);
    }
    hasher.finish()
}

/// From the first look-up to the last byte of the answer.
const LONGEST_FLIGHT: Duration = Duration::from_secs(20);

/// Of an answer. Tokens that list every group of a user have tens of kilobytes.
const LARGEST: usize = 64 * 1024;

/// How much earlier than the server says a token is over.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a token is used of which the server does not say how long it is valid. Refused earlier, it is renewed.
const UNTOLD: Duration = Duration::from_secs(600);
