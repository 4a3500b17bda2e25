//! A pool of credentials, any of which will do.
//!
//! A request gets the credential with the largest share of its quota left, as reported by the upstream. Without
//! reports they take turns. A credential that gets a 401 is excluded for a time, which doubles with each further
//! 401; somebody may repair it at the service. A credential without a token is excluded as long as its token
//! endpoint is not asked. If all are excluded, the one whose time ends first is tried.
//!
//! A request waits for a token only if no member has one, and then takes the first one that arrives. So a slow or
//! dead token endpoint delays no request while another member is ready.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::{Error, LiveCredential, TokenReadiness};
use crate::sync::lock;

/// The rank of a member whose token has been requested: greater than that of any ready one.
const WAITING: f64 = 5.0;

/// The least rank of an excluded member.
const EXCLUDED: f64 = 10.0;
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
pub(super) struct CredentialPool {
    members: Vec<PoolMember>,
    /// Counts the choices, so that equal members take turns.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct PoolMember {
    credential: Arc<LiveCredential>,
    exclusion: Mutex<Exclusion>,
}

/// How often a credential was refused since it last worked, and until when it is excluded.
#[derive(Clone, Copy, Debug, Default)]
struct Exclusion {
    refusals: u32,
    until: Option<Instant>,
}

impl CredentialPool {
    /// Makes a pool of at least one member. `old`: the same pool before a reload, whose exclusions are kept.
    pub(super) fn new(members: Vec<Arc<LiveCredential>>, old: Option<&Self>) -> Self {
        let exclusion = |index: usize| {
            old.and_then(|old| old.members.get(index))
                .map(|old| *old.exclusion())
        };
        let members = members
            .into_iter()
            .enumerate()
            .map(|(index, credential)| PoolMember {
                credential,
                exclusion: Mutex::new(exclusion(index).unwrap_or_default()),
            });
        Self {
            members: members.collect(),
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<LiveCredential>> {
        self.members.iter().map(|member| &member.credential)
    }

    pub(super) fn pick(&self, now: Instant) -> &Arc<LiveCredential> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.members.len();
        &self.best(turn, now).0.credential
    }

    /// Returns whether a request can have one of them without waiting. Requests the tokens that are missing.
    pub(super) fn has_one_ready(&self, now: Instant) -> bool {
        self.best(0, now).1 < WAITING
    }

    /// Waits until one of them is ready. Adds the time to `waited`.
    pub(super) async fn ready(&self, waited: &mut Duration) -> Result<(), Error> {
        loop {
            // Subscribed before the check, so that no change is missed.
            let credentials = self.members().filter_map(|credential| credential.tokens());
            let mut finished: Vec<_> = credentials.map(|tokens| Box::pin(tokens.finished())).collect();
            let (best, rank) = self.best(0, Instant::now());
            if rank != WAITING {
                return best.credential.ready(waited).await;
            }
            let since = Instant::now();
            poll_fn(|cx| {
                let mut is_finished = finished.iter_mut().map(|one| one.as_mut().poll(cx));
                if is_finished.any(|is_finished| is_finished.is_ready()) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            *waited += since.elapsed();
        }
    }

    /// Returns the best member and its rank. Among equal ones the first from `turn` on.
    fn best(&self, turn: usize, now: Instant) -> (&PoolMember, f64) {
        let (before, after) = self.members.split_at(turn);
        let in_turn = after.iter().chain(before);
        let ranks = in_turn.map(|member| (member, member.rank(now)));
        // `min_by` returns the first of equal ones.
        let best = ranks.min_by(|(_, one), (_, other)| one.total_cmp(other));
        best.unwrap_or((&self.members[turn], 0.0))
    }

    /// Returns whether this is a member, and another member is not excluded.
    pub(super) fn has_alternative_to(&self, credential: &Arc<LiveCredential>, now: Instant) -> bool {
        let is_own = |member: &&PoolMember| Arc::ptr_eq(&member.credential, credential);
        let is_fit = |member: &PoolMember| member.rank(now) < EXCLUDED;
        self.members.iter().any(|member| is_own(&member))
            && self
                .members
                .iter()
                .any(|member| !is_own(&member) && is_fit(member))
    }

    /// Excludes a member after a 401, or readmits it after another response.
    pub(super) fn record_status(
        &self,
        credential: &Arc<LiveCredential>,
        status: StatusCode,
        destination: &str,
        now: Instant,
    ) {
        let own = self
            .members
            .iter()
            .find(|member| Arc::ptr_eq(&member.credential, credential));
        let Some(member) = own else { return };
        let mut exclusion = member.exclusion();
        if status != StatusCode::UNAUTHORIZED {
            if exclusion.until.is_some_and(|until| until <= now) {
                *exclusion = Exclusion::default();
                drop(exclusion);
                tracing::info!(destination, credential = %credential.place, "accepted again: back in the pool");
            }
            return;
        }
        // Requests that were sent at the same time count as one refusal.
        if exclusion.until.is_some_and(|until| now < until) {
            return;
        }
        let time = (SHORTEST * 2_u32.saturating_pow(exclusion.refusals.min(16))).min(LONGEST);
        *exclusion = Exclusion {
            refusals: exclusion.refusals + 1,
            until: Some(now + time),
        };
        drop(exclusion);
        tracing::warn!(
            destination,
            credential = %credential.place,
            seconds = time.as_secs(),
            "refused with 401: left out of the pool for a while; renew it",
        );
    }
}

impl PoolMember {
    /// Returns its rank now: the smaller, the better. Excluded members come last, by the time that is left; before
    /// them those without a token; before them the ready ones, by the used share of their quota.
    fn rank(&self, now: Instant) -> f64 {
        let until = self.exclusion().until;
        let exclusion = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if !exclusion.is_zero() {
            return EXCLUDED + exclusion.as_secs_f64();
        }
        match self.credential.readiness(now) {
            TokenReadiness::Ready => {}
            TokenReadiness::Requested => return WAITING,
            TokenReadiness::Paused(exclusion) => return EXCLUDED + exclusion.as_secs_f64(),
        }
        let limiter = self.credential.limiter.as_ref();
        1.0 - limiter.and_then(|limiter| limiter.left()).unwrap_or(1.0)
    }

    fn exclusion(&self) -> MutexGuard<'_, Exclusion> {
        lock(&self.exclusion)
    }
}

#[cfg(test)]
mod tests;
