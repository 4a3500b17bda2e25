//! Several credentials of which any will do.
//!
//! A request gets the one with the most left of what the upstream has told of its quota; where nothing is told they
//! take turns. One that the upstream refuses with 401 is left out for a while, which doubles with each refusal: somebody
//! may mend it over there. One whose token cannot be had is left out as long as its token endpoint is left alone. Where all
//! are left out, the one whose time is up first is tried.
//!
//! A request waits for a token only where no member has one. Then it goes with the first one that comes, so that a token
//! endpoint that is slow or down holds no request up while another member can go.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::{Credential, Error, Readiness};
use crate::sync::lock;

#[derive(Debug)]
pub(super) struct Pool {
    members: Vec<Member>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    credential: Arc<Credential>,
    rest: Mutex<Rest>,
}

/// How often a credential was refused since it last worked, and until when it is left out.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    refusals: u32,
    until: Option<Instant>,
}

impl Pool {
    /// `old`: the same pool before a reload. There is at least one member.
    pub(super) fn new(members: Vec<Arc<Credential>>, old: Option<&Self>) -> Self {
        let rest = |index: usize| old.and_then(|old| old.members.get(index)).map(|old| *old.rest());
        let members = members.into_iter().enumerate().map(|(index, credential)| Member {
            credential,
            rest: Mutex::new(rest(index).unwrap_or_default()),
        });
        Self {
            members: members.collect(),
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.members.iter().map(|member| &member.credential)
    }

    pub(super) fn pick(&self, now: Instant) -> &Arc<Credential> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.members.len();
        &self.best(turn, now).0.credential
    }

    /// Whether a request can have one of them without a wait. Those that lack a token have it asked for.
    pub(super) fn has_one_ready(&self, now: Instant) -> bool {
        self.best(0, now).1 < WAITS
    }

    /// Waits until one of them can be put on a request, and adds to `waited` how long.
    pub(super) async fn ready(&self, waited: &mut Duration) -> Result<(), Error> {
        loop {
            // Before the look: what lands after it is going to be seen.
            let credentials = self.members().filter_map(|credential| credential.tokens());
            let mut landings: Vec<_> = credentials.map(|tokens| Box::pin(tokens.landing())).collect();
            let (best, standing) = self.best(0, Instant::now());
            if standing != WAITS {
                return best.credential.ready(waited).await;
            }
            let since = Instant::now();
            poll_fn(|cx| {
                let mut landed = landings.iter_mut().map(|landing| landing.as_mut().poll(cx));
                match landed.any(|landed| landed.is_ready()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            *waited += since.elapsed();
        }
    }

    /// The one that would do best, beginning with the one whose turn it is, and how well.
    fn best(&self, turn: usize, now: Instant) -> (&Member, f64) {
        let (before, after) = self.members.split_at(turn);
        let in_turn = after.iter().chain(before);
        let standings = in_turn.map(|member| (member, member.standing(now)));
        // Of several that are equally good the first one: whose turn it is.
        let best = standings.min_by(|(_, one), (_, other)| one.total_cmp(other));
        best.unwrap_or((&self.members[turn], 0.0))
    }

    /// Whether this is one of them, and another one is not left out.
    pub(super) fn has_instead_of(&self, credential: &Arc<Credential>, now: Instant) -> bool {
        let is_own = |member: &&Member| Arc::ptr_eq(&member.credential, credential);
        let is_fit = |member: &Member| member.standing(now) < RESTS;
        self.members.iter().any(|member| is_own(&member))
            && self
                .members
                .iter()
                .any(|member| !is_own(&member) && is_fit(member))
    }

    /// An answer came to a request with this credential.
    pub(super) fn hear(
        &self,
        credential: &Arc<Credential>,
        status: StatusCode,
        destination: &str,
        now: Instant,
    ) {
        let own = (self.members.iter()).find(|member| Arc::ptr_eq(&member.credential, credential));
        let Some(member) = own else { return };
        let mut rest = member.rest();
        if status != StatusCode::UNAUTHORIZED {
            if rest.until.is_some_and(|until| until <= now) {
                *rest = Rest::default();
                drop(rest);
                tracing::info!(destination, credential = %credential.place, "accepted again: back in the pool");
            }
            return;
        }
        // Those that were under way together are refused once.
        if rest.until.is_some_and(|until| now < until) {
            return;
        }
        let time = (SHORTEST * 2_u32.saturating_pow(rest.refusals.min(16))).min(LONGEST);
        *rest = Rest {
            refusals: rest.refusals + 1,
            until: Some(now + time),
        };
        drop(rest);
        tracing::warn!(
            destination,
            credential = %credential.place,
            seconds = time.as_secs(),
            "refused with 401: left out of the pool for a while; renew it",
        );
    }
}

impl Member {
    /// How well it would do now: the less the better. Whether it is left out counts most, then whether it has to be
    /// waited for, then whether it may be used at all, then how much of its quota is used up.
    fn standing(&self, now: Instant) -> f64 {
        let until = self.rest().until;
        let rest = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if !rest.is_zero() {
            return RESTS + rest.as_secs_f64();
        }
        match self.credential.readiness(now) {
            Readiness::Ready => {}
            Readiness::Asked => return WAITS,
            Readiness::Paused(rest) => return RESTS + rest.as_secs_f64(),
        }
        let limiter = self.credential.limiter.as_ref();
        1.0 - limiter.and_then(|limiter| limiter.left()).unwrap_or(1.0)
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        lock(&self.rest)
    }
}

/// More than the standing of any that is ready: its token is being asked for.
const WAITS: f64 = 5.0;
/// More than what any other standing is.
const RESTS: f64 = 10.0;

const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests;
