//! What is believed of the limits of one destination's upstream, and how we keep to them.
//!
//! | the upstream says | we believe | and do |
//! | --- | --- | --- |
//! | a refusal with `Retry-After` | a *pause* | send nothing until then, an hour at most |
//! | how much is left of a quota | a *quota* | send no more than that, counting requests under way, until it resets |
//! | a refusal and nothing else | a *guessed rate* | find out when it opens, and keep to what passed from one opening to the next |
//!
//! ```text
//!             a refusal with a time          the time is over
//!   open ────────────────────────▶ stopped ────────────────▶ one goes first ──▶ open
//!    │  ▲                                ▲   it is refused      │
//!    │  │ it passes                      └─────────────────────┘
//!    │  └──────────────────────┐ it is refused
//!    └▶ one goes at once ──────┴──────────▶ stopped
//!       (a refusal without a time)          (a fifth of the time since the first refusal)
//! ```
//!
//! A belief is about a [`Subject`]: a host and port, and the caller as the upstream sees it. There it is about the
//! [`Route`] whose answer told it, and *widens* when an answer to a second route shows figures that can be the same
//! counter, or a stop that ends at the same moment: then it is about all paths that begin as both do. It *narrows* when
//! an answer to a route shows other figures, or shows none where the others do. It is *forgotten* when it holds nobody
//! and tells nothing.
//!
//! A tunnel, of whose bytes nothing is seen, waits for the end of a pause of its host and is counted nowhere.
//!
//! Pure: time is passed in, as nanoseconds since the limiter was made. What the answers say is read in
//! [`hints`](super::hints), who goes first is decided in [`book`](super::book).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) use self::heard::Heard;
use self::heard::Source;
pub(super) use self::route::Route;
use self::set::Set;
use self::subject::{Outlook as Beliefs, Subject};

mod guess;
mod heard;
mod quota;
mod ramp;
mod route;
mod set;
mod subject;

/// What is counted outside of the lock: how many requests went, and how many of them have been answered or lost.
///
/// A request counts itself and then looks whether anybody watches; whoever learns something first says that it watches
/// and then reads the counts. So one of them sees the other.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    ended: AtomicU64,
    watched: AtomicBool,
    went: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Learned {
    /// By [`About::subject`]. At most [`MOST_SUBJECTS`].
    subjects: HashMap<u64, Subject>,
    traffic: Arc<Traffic>,
    /// Requests may wait, so that it is worth to go carefully.
    waits: bool,
    /// What is about one route may turn out to be about several.
    widens: bool,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// Of host, port and caller.
    pub(super) subject: u64,
    /// Of host and port.
    pub(super) host: u64,
    /// `None`: a tunnel.
    pub(super) route: Option<Route>,
}

/// What is remembered of a request that goes, until its answer comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// It is counted as under way; a tunnel is not.
    is_counted: bool,
    number: u64,
    /// Where it was counted; zero: nobody looked.
    subject: u64,
    /// The beliefs that it was taken from.
    taken: Set,
}

/// How it stands for one request as far as the upstream has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Free,
    /// These hold it.
    Held(Holders, Hold),
}

/// For how long a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Until the answer to one that went first comes, or then at the latest.
    Probed(u64),
    Until(u64),
}

/// Which beliefs hold a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    subject: u64,
    set: Set,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum News {
    /// The upstream says for how long nobody goes.
    Stopped(Duration),
    /// The upstream does not say. For so long nobody goes; then requests go at this rate, if there is one.
    Guessed(Duration, Option<f64>),
    /// The rate has long been higher than what comes.
    Forgotten,
}

/// What a wait is forecast from.
#[derive(Debug)]
pub(super) struct Outlook {
    beliefs: Option<Beliefs>,
    now: u64,
    subject: u64,
}

/// A quota as a refusal tells it, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) limit: Option<u64>,
    pub(super) window: Duration,
}

/// A belief for people. Moments are nanoseconds since the limiter was made.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) concerns: String,
    pub(super) host: Box<str>,
    pub(super) left: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) name: Box<str>,
    pub(super) paused_until: Option<u64>,
    pub(super) per_second: Option<f64>,
    pub(super) resets: Option<u64>,
    pub(super) source: Source,
}

impl Traffic {
    /// A request goes; its number.
    pub(super) fn go(&self) -> u64 {
        self.went.fetch_add(1, Ordering::SeqCst)
    }

    /// A request was answered, or ended without an answer.
    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether requests have to ask [`Learned`].
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    pub(super) fn watch(&self, on: bool) {
        self.watched.store(on, Ordering::SeqCst);
    }

    /// The next request's number, and how many are under way.
    fn counts(&self) -> (u64, u64) {
        let ended = self.ended.load(Ordering::SeqCst);
        let next = self.went.load(Ordering::SeqCst);
        (next, next.saturating_sub(ended))
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn out(&self) -> u64 {
        self.counts().1
    }
}

impl About {
    /// Of a tunnel to a host, by its hash.
    pub(super) fn tunnel(host: u64) -> Self {
        Self {
            subject: host,
            host,
            route: None,
        }
    }
}

impl Stamp {
    /// Of a request that went while nothing was known.
    pub(super) fn unasked(number: u64) -> Self {
        Self {
            is_counted: true,
            number,
            ..Self::default()
        }
    }

    /// As another subject sees it.
    fn elsewhere(self) -> Self {
        Self {
            taken: Set::default(),
            ..self
        }
    }

    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }
}

impl Standing {
    /// When to look again where it is held.
    pub(super) fn due(self) -> Option<u64> {
        match self {
            Self::Free => None,
            Self::Held(_, Hold::Probed(until) | Hold::Until(until)) => Some(until),
        }
    }
}

impl Holders {
    pub(super) fn shares(self, other: Self) -> bool {
        self.subject == other.subject && self.set.shares(other.set)
    }
}

impl Learned {
    /// `waits`: requests may wait. `widens`: what is about one route may turn out to be about several.
    pub(super) fn new(traffic: Arc<Traffic>, waits: bool, widens: bool) -> Self {
        // From the beginning, so that the first request goes carefully.
        traffic.watch(waits);
        Self {
            subjects: HashMap::new(),
            traffic,
            waits,
            widens,
        }
    }

    /// Nothing is known that could hold a request back.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let is_begun = !self.waits || !self.subjects.is_empty();
        is_begun && self.subjects.values().all(|subject| subject.is_idle(now))
    }

    /// How it stands for a request that has waited since `arrived` and waits for `patience`.
    pub(super) fn standing(&mut self, about: &About, arrived: u64, patience: u64, now: u64) -> Standing {
        let Some(route) = &about.route else {
            let holders = Holders {
                subject: about.subject,
                set: Set::one(0),
            };
            return self
                .stopped_until(about.host, now)
                .map_or(Standing::Free, |until| {
                    Standing::Held(holders, Hold::Until(until))
                });
        };
        let counts = self.traffic.counts();
        if self.waits {
            self.subject(about, now);
        }
        let Some(subject) = self.subjects.get_mut(&about.subject) else {
            return Standing::Free;
        };
        let (set, hold) = subject.held(route, (arrived, patience), counts, now);
        let holders = Holders {
            subject: about.subject,
            set,
        };
        match set.is_empty() {
            true => Standing::Free,
            false => Standing::Held(holders, hold),
        }
    }

    /// A request goes for which it stands free.
    pub(super) fn take(&mut self, about: &About, now: u64) -> Stamp {
        let Some(route) = &about.route else {
            return Stamp::default();
        };
        let number = self.traffic.go();
        let subject = self.subjects.get_mut(&about.subject);
        Stamp {
            is_counted: true,
            number,
            subject: about.subject,
            taken: subject
                .map(|subject| subject.take(route, now))
                .unwrap_or_default(),
        }
    }

    /// A request goes while nothing is known.
    pub(super) fn pass(&self) -> Stamp {
        Stamp::unasked(self.traffic.go())
    }

    /// A request that was taken did not go after all.
    pub(super) fn give_back(&mut self, stamp: Stamp) {
        if !stamp.is_counted {
            return;
        }
        self.traffic.end();
        self.end(stamp);
        let is_last = self.traffic.counts().0 == stamp.number + 1;
        if let Some(subject) = self.subjects.get_mut(&stamp.subject) {
            subject.give_back(stamp, is_last);
        }
    }

    /// A request that [`Traffic`] has counted as ended is not under way any more.
    pub(super) fn end(&mut self, stamp: Stamp) {
        // A subject that was not known when the request went may have counted it as one of those under way.
        for (key, subject) in &mut self.subjects {
            let is_own = *key == stamp.subject;
            subject.end(if is_own { stamp } else { stamp.elsewhere() });
        }
    }

    /// An answer came to a request that [`Traffic`] has counted as ended.
    pub(super) fn hear(&mut self, stamp: Stamp, about: &About, heard: &Heard<'_>, now: u64) -> Option<News> {
        self.end(stamp);
        let route = about.route.as_ref()?;
        let counts = self.traffic.counts();
        if heard.hints.is_some() {
            self.subject(about, now);
        }
        let subject = self.subjects.get_mut(&about.subject)?;
        if subject.host.is_empty() {
            subject.host = heard.host.to_string().into();
        }
        subject.hear(stamp, route, heard, counts, now)
    }

    /// Until when somebody is kept away, as the upstream says.
    pub(super) fn paused_until(&self, now: u64) -> Option<u64> {
        let until = self.subjects.values().filter_map(Subject::paused_until).max();
        until.filter(|until| *until > now)
    }

    /// What is left of the quota of which least is left: 1 full, 0 exhausted.
    pub(super) fn ratio(&self, now: u64) -> Option<f64> {
        let ratios = self.subjects.values().filter_map(|subject| subject.ratio(now));
        ratios.reduce(f64::min)
    }

    /// All that is believed now.
    pub(super) fn known(&self, now: u64) -> Vec<Known> {
        self.subjects
            .values()
            .flat_map(|subject| subject.known(now))
            .collect()
    }

    /// For a request that is about this.
    pub(super) fn outlook(&self, about: &About, now: u64) -> Outlook {
        Outlook {
            beliefs: self.subjects.get(&about.subject).map(Subject::outlook),
            now,
            subject: about.subject,
        }
    }

    /// When one could go that comes after those in the outlook, and by which quota.
    pub(super) fn when(&self, outlook: &Outlook, about: &About) -> (u64, Told) {
        let Some(route) = &about.route else {
            let stopped = self.stopped_until(about.host, outlook.now);
            return (stopped.unwrap_or(outlook.now), Told::default());
        };
        match (self.subjects.get(&about.subject), &outlook.beliefs) {
            (Some(subject), Some(beliefs)) if about.subject == outlook.subject => {
                subject.when(beliefs, route, outlook.now)
            }
            _ => (outlook.now, Told::default()),
        }
    }

    /// One goes at this moment.
    pub(super) fn play(&self, outlook: &mut Outlook, about: &About, at: u64) {
        if about.subject == outlook.subject
            && let Some(route) = &about.route
            && let Some(beliefs) = &mut outlook.beliefs
            && let Some(subject) = self.subjects.get(&about.subject)
        {
            subject.play(beliefs, route, at);
        }
    }

    /// Until when a tunnel to a host has to wait.
    fn stopped_until(&self, host: u64, now: u64) -> Option<u64> {
        let of_host = self.subjects.values().filter(|subject| subject.host_hash == host);
        of_host.filter_map(|subject| subject.stopped_until(now)).max()
    }

    /// Makes sure that there is one. Past the most the one goes that was used longest ago, first one of whom nothing has
    /// been told. A new one begins as carefully as the other callers of its host go by now.
    fn subject(&mut self, about: &About, now: u64) -> &mut Subject {
        let is_new = !self.subjects.contains_key(&about.subject);
        let same = self
            .subjects
            .values()
            .filter(|subject| is_new && subject.host_hash == about.host);
        let most = same.map(Subject::most).max().unwrap_or(1);
        if self.subjects.len() >= MOST_SUBJECTS && is_new {
            let key = |(key, subject): (&u64, &Subject)| (!subject.is_blank(now), subject.used, *key);
            if let Some((_, _, oldest)) = self.subjects.iter().map(key).min() {
                self.subjects.remove(&oldest);
            }
        }
        let (waits, widens, next) = (self.waits, self.widens, self.traffic.counts().0);
        let new = || Subject::new(about.host, waits, most, widens, next, now);
        self.subjects.entry(about.subject).or_insert_with(new)
    }
}

const MOST_SUBJECTS: usize = 64;
