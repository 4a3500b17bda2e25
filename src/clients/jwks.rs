//! The keys of the issuer of tokens: from a file, or from the issuer itself.
//!
//! Keys of an issuer are asked for when the first token comes, again in the background once they are some minutes old, and at
//! once for a token whose key is not known, since issuers change keys without a word. However many such tokens come, the
//! issuer is asked twice a minute at most. Keys that were read stay while the issuer cannot be reached, for a day.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::token::{KeySet, KeySetError, TokenFault, TokenHead};
use crate::config::{TokenRules, TokenUrl};
use crate::error::ErrorChain;
use crate::message::Request;
use crate::sync::lock;
use crate::upstream::service::{ServiceEndpoint, WholeError, whole};
use crate::upstream::{self, Outbound};

/// The age from which keys are asked for again while they are used, and that at which they are used no more.
const FRESH: Duration = Duration::from_secs(300);
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
/// Within it the issuer is asked twice.
const SPAN: Duration = Duration::from_secs(60);
/// From the name look-up to the last byte.
const LONGEST_FETCH: Duration = Duration::from_secs(10);
const LARGEST: usize = 256 * 1024;

/// Where keys come from.
#[derive(Debug)]
pub(crate) enum IssuerKeys {
    Fetched(Arc<KeyFetcher>),
    Fixed(Arc<KeySet>),
}

/// The keys at a URL.
#[derive(Debug)]
pub(crate) struct KeyFetcher {
    issuer: ServiceEndpoint,
    /// Kept over a reload.
    shared: Arc<SharedKeys>,
}

#[derive(Debug)]
struct SharedKeys {
    /// Notified at the end of each fetch.
    finished: watch::Sender<()>,
    state: Mutex<FetchState>,
    url: TokenUrl,
}

#[derive(Debug, Default)]
struct FetchState {
    /// When the issuer was asked last, the newer time second.
    asked: [Option<Instant>; 2],
    is_asking: bool,
    /// With the moment of their question.
    keys: Option<(Instant, Arc<KeySet>)>,
}

/// Ends the question in whatever way its task ends.
struct Asking(Arc<SharedKeys>);

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the answer broke off")]
    Incomplete,
    #[error(transparent)]
    Keys(#[from] KeySetError),
    #[error("the answer is larger than {} KiB", LARGEST / 1024)]
    Large,
    #[error("no answer within {} s", LONGEST_FETCH.as_secs())]
    Slow,
    #[error("the answer is {0}, and redirects are not followed")]
    Status(StatusCode),
    #[error("its URL has no usable path")]
    Url,
    #[error("it cannot be reached")]
    Unreachable(#[source] upstream::Error),
}

impl IssuerKeys {
    /// Verifies a token. `None`: the issuer has not said its keys.
    pub(crate) async fn verify(&self, token: &[u8], rules: &TokenRules) -> Option<Result<(), TokenFault>> {
        let head = match TokenHead::read(token, rules) {
            Ok(head) => head,
            Err(fault) => return Some(Err(fault)),
        };
        let keys = match self {
            Self::Fixed(keys) => Arc::clone(keys),
            Self::Fetched(fetcher) => fetcher.keys(&head).await?,
        };
        Some(keys.verify(token, &head, rules))
    }
}

impl KeyFetcher {
    /// Keeps the keys of `running` where it is about the same URL.
    pub(crate) fn new(url: &TokenUrl, issuer: ServiceEndpoint, running: Option<&Self>) -> Self {
        let same = running.filter(|running| running.shared.url == *url);
        let shared = same.map_or_else(
            || {
                Arc::new(SharedKeys {
                    finished: watch::Sender::new(()),
                    state: Mutex::default(),
                    url: url.clone(),
                })
            },
            |same| Arc::clone(&same.shared),
        );
        Self { issuer, shared }
    }

    /// Returns the keys for a token, which may still not have its own; `None`: no keys are known.
    async fn keys(&self, head: &TokenHead) -> Option<Arc<KeySet>> {
        let now = Instant::now();
        let known = self.shared.state().known(now);
        if let Some((asked, keys)) = &known
            && keys.has(head)
        {
            if now.saturating_duration_since(*asked) > FRESH {
                self.ask(now);
            }
            return Some(Arc::clone(keys));
        }
        if let Some(mut finished) = self.ask(now) {
            // Cannot fail: the sender lives as long as `self`. The fetch has its own limit.
            let _ = finished.changed().await;
        }
        let known = self.shared.state().known(Instant::now());
        known.map(|(_, keys)| keys)
    }

    /// Asks the issuer, in a task that goes on when the client leaves. `None`: it was asked twice a moment ago.
    fn ask(&self, now: Instant) -> Option<watch::Receiver<()>> {
        let mut state = self.shared.state();
        // Subscribed under the lock, so that the end of the question is not missed.
        let finished = self.shared.finished.subscribe();
        if state.is_asking {
            return Some(finished);
        }
        let [before, last] = state.asked;
        if before.is_some_and(|asked| now.saturating_duration_since(asked) < SPAN) {
            return None;
        }
        state.asked = [last, Some(now)];
        state.is_asking = true;
        drop(state);
        let (asking, issuer) = (Asking(Arc::clone(&self.shared)), self.issuer.clone());
        tokio::spawn(async move {
            let fetched = timeout(LONGEST_FETCH, fetch(&issuer, &asking.0.url)).await;
            match fetched.unwrap_or(Err(FetchError::Slow)) {
                Ok(keys) => asking.0.state().keys = Some((now, Arc::new(keys))),
                Err(error) => tracing::warn!(
                    issuer = %asking.0.url.target,
                    error = %ErrorChain(&error),
                    "the keys of the issuer of tokens cannot be read: those from before stay for a day",
                ),
            }
            drop(asking);
        });
        Some(finished)
    }
}

impl FetchState {
    fn known(&self, now: Instant) -> Option<(Instant, Arc<KeySet>)> {
        let is_usable =
            |(asked, _): &&(Instant, Arc<KeySet>)| now.saturating_duration_since(*asked) < LONGEST_LIFE;
        self.keys.as_ref().filter(is_usable).cloned()
    }
}

impl SharedKeys {
    fn state(&self) -> MutexGuard<'_, FetchState> {
        lock(&self.state)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.state().is_asking = false;
        self.0.finished.send_replace(());
    }
}

impl From<WholeError> for FetchError {
    fn from(error: WholeError) -> Self {
        match error {
            WholeError::Incomplete => Self::Incomplete,
            WholeError::TooLarge => Self::Large,
        }
    }
}

async fn fetch(issuer: &ServiceEndpoint, url: &TokenUrl) -> Result<KeySet, FetchError> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = url.path_and_query.parse().map_err(|_| FetchError::Url)?;
    let json = HeaderValue::from_static("application/json, application/jwk-set+json");
    head.headers.insert(header::ACCEPT, json);
    let sent = issuer.send(&head, Outbound::Empty, &url.target).await;
    let response = sent.map_err(|failed| FetchError::Unreachable(failed.error))?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    Ok(KeySet::read(&whole(response.into_body(), LARGEST).await?)?)
}
