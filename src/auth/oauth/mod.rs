//! OAuth tokens (RFC 6749): one for each credential, shared by all workers, kept only in memory.
//!
//! [`Tokens::ready`] waits for a valid token, [`Tokens::value`] returns it, and [`Tokens::refuse`] replaces one
//! that the upstream refused. [`state`] decides when a token is requested, [`request`] builds the request,
//! [`answer`] reads the response. A token request uses resolver, egress policy, dialler and verified TLS like any
//! other request. It runs in a separate task, so that it goes on when the client that caused it leaves. Redirects
//! are not followed.
//!
//! Why our own: the `oauth2` crate knows two of the grants and two of the ways to authenticate the client that are
//! needed here, and keeps the body in buffers that are not wiped.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

pub(crate) use error::{Error, NoToken};

use crate::config::{ClientAuth, OAuth2};
use crate::error::ErrorChain;
use crate::host::Target;
use crate::message::Response;
use crate::secret::Snapshot;
use crate::sync::lock;
use crate::telemetry::{Counters, CredentialKind, RefreshResult};
use crate::upstream::service::{ServiceEndpoint, WholeError, whole};
use crate::upstream::{self, Endpoint, Outbound, ResponseBody};
use answer::{IssuedToken, TokenDenial};
use error::{TokenFailure, TokenFailureReason};
use request::{BasicEncoding, TokenRequestPlan};
use state::{State, Token, TokenStep};

mod answer;
mod error;
mod request;
mod state;
#[cfg(test)]
mod tests;

/// The longest token request, from name resolution to the last byte of the response.
const LONGEST_REQUEST: Duration = Duration::from_secs(20);

/// The largest response. Tokens that list every group of a user have tens of kilobytes.
const LARGEST: usize = 64 * 1024;

/// How much earlier than the server says a token expires here.
const MARGIN: Duration = Duration::from_secs(30);

/// The lifetime of a token if the server does not say one. A token that is refused earlier is replaced.
const UNTOLD: Duration = Duration::from_secs(600);

/// How a token endpoint is reached.
#[derive(Clone, Debug)]
pub(crate) struct TokenEndpoint {
    /// Changes whenever the client certificate for it does.
    pub(crate) identity: u64,
    pub(crate) service: ServiceEndpoint,
}

/// The token of one credential.
#[derive(Debug)]
pub(crate) struct Tokens {
    shared: Arc<SharedToken>,
    fetcher: Arc<TokenFetcher>,
}

/// Whether a request can get a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenReadiness {
    Ready,
    /// A token request is under way.
    Requested,
    /// The last token request failed. The endpoint is not asked again before this time is over.
    Paused(Duration),
}

/// Sends token requests.
#[derive(Debug)]
struct TokenFetcher {
    /// The counters of the destination that the tokens are for.
    counters: Arc<Counters>,
    token_endpoint: ServiceEndpoint,
    plan: TokenRequestPlan,
    target: Target,
}

/// The state of a token, which a reload keeps.
struct SharedToken {
    client: Mutex<EncodingChoice>,
    /// A hash of the settings and of every secret in them.
    fingerprint: u64,
    /// Notified at the end of each token request.
    finished: watch::Sender<()>,
    /// The refresh token that the server issued last.
    rotated: Mutex<Option<Zeroizing<String>>>,
    state: Mutex<State>,
}

/// Which encoding of client_secret_basic is used.
#[derive(Clone, Copy, Debug, Default)]
struct EncodingChoice {
    /// The encoding that the server accepted last, or that is tried next.
    form: BasicEncoding,
    /// The server accepted neither encoding.
    is_refused: bool,
}

/// A token request under way. If it is dropped before its end, another worker may start the next one.
struct TokenRequest {
    is_over: bool,
    number: u64,
    shared: Arc<SharedToken>,
}

impl Tokens {
    /// Reads the secrets, and requests nothing yet. Keeps a token of `running` that would be requested in the same
    /// way.
    pub(super) fn build<'t>(
        settings: &OAuth2,
        snapshot: &Snapshot,
        token_endpoint: TokenEndpoint,
        counters: Arc<Counters>,
        mut running: impl Iterator<Item = &'t Self>,
    ) -> Result<Self, Error> {
        let plan = TokenRequestPlan::build(settings, snapshot)?;
        let fingerprint = fingerprint(settings, snapshot, token_endpoint.identity);
        let kept = running.find(|running| running.shared.fingerprint == fingerprint);
        let shared = kept.map_or_else(
            || Arc::new(SharedToken::new(fingerprint)),
            |kept| Arc::clone(&kept.shared),
        );
        let fetcher = TokenFetcher {
            counters,
            token_endpoint: token_endpoint.service,
            plan,
            target: settings.token_url.target.clone(),
        };
        Ok(Self {
            shared,
            fetcher: Arc::new(fetcher),
        })
    }

    /// Returns how the token endpoint is reached.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.fetcher.token_endpoint.endpoint
    }

    /// Checks that a token could be requested.
    pub(super) fn check(settings: &OAuth2, snapshot: &Snapshot) -> Result<(), Error> {
        TokenRequestPlan::build(settings, snapshot).map(drop)
    }

    /// Waits for a valid token and adds the time to `waited`. Replaces an old one in the background.
    pub(super) async fn ready(&self, waited: &mut Duration) -> Result<(), Error> {
        loop {
            let mut finished = {
                let mut state = self.shared.state();
                match state.step(Instant::now()) {
                    TokenStep::Use => return Ok(()),
                    TokenStep::UseAndRequest(request) => {
                        self.ask(request);
                        return Ok(());
                    }
                    TokenStep::Refuse(no_token) => return Err(no_token.into()),
                    TokenStep::Request(request) => self.ask(request),
                    TokenStep::Wait => {}
                }
                // Subscribed under the lock, so that the end of the request is not missed.
                self.shared.finished.subscribe()
            };
            let since = Instant::now();
            // Cannot fail: the sender lives as long as `self`.
            let _ = finished.changed().await;
            *waited += since.elapsed();
        }
    }

    /// Returns whether there is a valid token, without waiting. Requests one if it is missing or old and the
    /// endpoint may be asked.
    pub(super) fn readiness(&self, now: Instant) -> TokenReadiness {
        match self.shared.state().step(now) {
            TokenStep::Use => TokenReadiness::Ready,
            TokenStep::UseAndRequest(request) => {
                self.ask(request);
                TokenReadiness::Ready
            }
            TokenStep::Request(request) => {
                self.ask(request);
                TokenReadiness::Requested
            }
            TokenStep::Wait => TokenReadiness::Requested,
            TokenStep::Refuse(no_token) => TokenReadiness::Paused(no_token.retry_after),
        }
    }

    /// Waits for the end of the current token request, whatever its result.
    pub(super) fn finished(&self) -> impl Future<Output = ()> + use<> {
        let mut finished = self.shared.finished.subscribe();
        async move {
            // Cannot fail: the one who waits keeps the sender.
            let _ = finished.changed().await;
        }
    }

    /// Returns the value of Authorization for a request that is sent now, marked sensitive.
    pub(super) fn value(&self) -> Result<HeaderValue, Error> {
        let state = self.shared.state();
        state.value(Instant::now()).cloned().ok_or(Error::Overdue)
    }

    /// Reports that the upstream answered 401 to `value`. The token is not used again.
    ///
    /// Returns false if another token was refused shortly before. Then the token stays, so that a 401 that is not
    /// about the token costs little.
    pub(super) fn refuse(&self, value: &HeaderValue) -> bool {
        self.shared.state().refuse(value, Instant::now(), rand::random())
    }

    /// Starts a token request in the background.
    fn ask(&self, number: u64) {
        let request = TokenRequest {
            is_over: false,
            number,
            shared: Arc::clone(&self.shared),
        };
        let fetcher = Arc::clone(&self.fetcher);
        tokio::spawn(async move {
            let started = Instant::now();
            let fetched = timeout(LONGEST_REQUEST, fetcher.fetch(&request.shared)).await;
            match fetched {
                Ok(Ok(grant)) => {
                    let token = token(&grant, started, rand::random());
                    if token.over > Instant::now() {
                        request.succeed(grant, token, &fetcher);
                    } else {
                        request.fail(TokenFailureReason::Outlived.into(), &fetcher);
                    }
                }
                Ok(Err(denial)) => request.fail(denial, &fetcher),
                Err(_) => request.fail(TokenFailureReason::Slow(LONGEST_REQUEST).into(), &fetcher),
            }
        });
    }
}

impl TokenFetcher {
    /// Requests a token, and again in the other encoding if the server does not know the client. Once the server
    /// has refused both, only one encoding is tried at a time: some servers lock out a client that fails often.
    async fn fetch(&self, shared: &SharedToken) -> Result<IssuedToken, TokenDenial> {
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
            // The client is wrong in both encodings.
            Err(again) if again.reason.is_of_client() => {
                shared.client().is_refused = true;
                Err(denial)
            }
            Err(_) => answer,
        }
    }

    /// Requests a token, and a second time if the first request was lost without a response.
    async fn ask(&self, shared: &SharedToken, form: BasicEncoding) -> Result<IssuedToken, TokenDenial> {
        let mut is_first = true;
        loop {
            let rotated = lock(&shared.rotated).clone();
            let (head, body) = (self.plan.request(rotated.as_ref(), form, SystemTime::now()))
                .map_err(TokenFailureReason::from)?;
            let body = Outbound::whole(body);
            match self.token_endpoint.send(&head, body, &self.target).await {
                Ok(response) => return self.read(response).await,
                Err(failed) => {
                    let is_lost = matches!(
                        failed.error,
                        upstream::Error::CutShort { .. } | upstream::Error::Incomplete(_)
                    );
                    if !(is_first && is_lost && self.plan.is_repeatable()) {
                        return Err(TokenFailureReason::Unreachable(Box::new(failed.error)).into());
                    }
                }
            }
            is_first = false;
        }
    }

    async fn read(&self, response: Response<ResponseBody>) -> Result<IssuedToken, TokenDenial> {
        let (head, body) = response.into_parts();
        if head.status.is_redirection() {
            return Err(TokenFailureReason::Redirected(head.status).into());
        }
        let body = whole(body, LARGEST).await.map_err(TokenFailureReason::from)?;
        let (status, fields, now) = (head.status, &head.headers, SystemTime::now());
        let secrets = self.plan.secrets();
        if status.is_success() {
            IssuedToken::read(status, fields, &body, self.plan.is_exchange, secrets, now)
        } else {
            Err(TokenDenial::read(status, fields, &body, secrets, now))
        }
    }
}

impl SharedToken {
    fn new(fingerprint: u64) -> Self {
        Self {
            client: Mutex::default(),
            fingerprint,
            finished: watch::Sender::new(()),
            rotated: Mutex::new(None),
            state: Mutex::new(State::default()),
        }
    }

    fn client(&self) -> MutexGuard<'_, EncodingChoice> {
        lock(&self.client)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for SharedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedToken").finish_non_exhaustive()
    }
}

impl TokenRequest {
    fn succeed(mut self, grant: IssuedToken, token: Token, fetcher: &TokenFetcher) {
        self.is_over = true;
        let destination = fetcher.counters.destination();
        let lifetime = token.over.saturating_duration_since(Instant::now());
        if let Some(refresh_token) = grant.refresh_token {
            let mut rotated = lock(&self.shared.rotated);
            if !fetcher.plan.is_repeatable() && rotated.replace(refresh_token).is_none() {
                tracing::warn!(
                    destination,
                    token_endpoint = %fetcher.target,
                    "the server gives a new refresh token with each token; the one of the configuration may not work \
                     after a restart",
                );
            }
        }
        let has_recovered = self.shared.state().succeed(self.number, token);
        self.shared.finished.send_replace(());
        let over = SystemTime::now() + lifetime;
        let over = over.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        fetcher
            .counters
            .credential_expiry(CredentialKind::Token, i64::try_from(over).unwrap_or(i64::MAX));
        fetcher
            .counters
            .credential_refresh(CredentialKind::Token, RefreshResult::Done);
        let (lifetime, token_endpoint) = (lifetime.as_secs(), &fetcher.target);
        if has_recovered {
            tracing::info!(destination, %token_endpoint, lifetime, "there is a token again");
        } else {
            tracing::debug!(destination, %token_endpoint, lifetime, "there is a new token");
        }
    }

    fn fail(mut self, denial: TokenDenial, fetcher: &TokenFetcher) {
        self.is_over = true;
        let failure = Arc::new(TokenFailure {
            endpoint: fetcher.target.clone(),
            reason: denial.reason,
        });
        let pause = self
            .shared
            .state()
            .fail(self.number, &failure, Instant::now(), rand::random());
        self.shared.finished.send_replace(());
        fetcher
            .counters
            .credential_refresh(CredentialKind::Token, RefreshResult::Failed);
        tracing::warn!(
            destination = fetcher.counters.destination(),
            error = %ErrorChain(&*failure),
            told = denial.description.as_deref(),
            again_in = %humantime::format_duration(Duration::from_millis(pause.as_millis() as u64)),
            "no new token",
        );
    }
}

impl Drop for TokenRequest {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.state().abandon(self.number);
            self.shared.finished.send_replace(());
        }
    }
}

/// Computes when a token expires that was requested at `started`, and when it is replaced. `chance` is from 0 to 1.
fn token(grant: &IssuedToken, started: Instant, chance: f64) -> Token {
    // An Instant cannot represent centuries.
    let lifetime = grant.lifetime.unwrap_or(UNTOLD);
    // The request that carries it takes some time, and clocks differ.
    let usable = lifetime - MARGIN.min(lifetime / 4);
    Token {
        ageing: started + usable.mul_f64(0.7 + chance.clamp(0.0, 1.0) / 10.0),
        over: started + usable,
        value: grant.value.clone(),
    }
}

impl From<WholeError> for TokenFailureReason {
    fn from(error: WholeError) -> Self {
        match error {
            WholeError::Incomplete => Self::Incomplete,
            WholeError::TooLarge => Self::TooLarge(LARGEST),
        }
    }
}

/// Returns a hash that changes whenever a token would be requested in another way.
fn fingerprint(settings: &OAuth2, snapshot: &Snapshot, identity: u64) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = HASHER.build_hasher();
    settings.hash(&mut hasher);
    let references = settings.references().into_iter();
    snapshot
        .fingerprint(references.map(|(_, reference)| reference))
        .hash(&mut hasher);
    if settings.client_auth == ClientAuth::Tls {
        // The token may be bound to the certificate (RFC 8705, section 3).
        identity.hash(&mut hasher);
    }
    hasher.finish()
}
