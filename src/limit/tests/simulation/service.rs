//! Services that limit their callers, each counting as real packages count.
//!
//! Pure: time is passed in, in milliseconds since the simulation began. What a service reports is in
//! [`reporting`](super::reporting).

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::adapter::Request;

/// How a service counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// The window starts with the first request.
    FixedWindow,
    /// The window is aligned to the clock, as Kong's is.
    CalendarWindow,
    SlidingLog,
    /// Two windows; the former one is weighted by the part of it that is still within sight.
    SlidingCounter,
    /// The reset is the time until the bucket is full.
    TokenBucket,
    /// The reset is the time until the next token, as Envoy reports it.
    TokenBucketNext,
    /// Burst 1, as in tower_governor: every allowed answer says that nothing is left, and names no reset.
    BucketOfOne,
    /// nginx `limit_req` without a burst.
    StrictSpacing,
    /// Refuses while so many requests are in flight.
    Concurrency,
    /// A fixed window for each user.
    PerUser,
    /// A fixed window for each route, without a name.
    PerRoute,
    /// A fixed window for each host of a wildcard.
    PerHost,
    /// One fixed window for several routes.
    OneCounter,
    /// Refuses every tenth request at random; there is no limit.
    Random429,
    Random503,
}

/// So many requests in so many milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) count: u64,
    /// The limit from the middle of the time on.
    pub(super) later: u64,
    pub(super) window: u64,
    /// How long the client sends, in milliseconds.
    pub(super) duration: u64,
}

#[derive(Debug)]
pub(super) struct Service {
    model: Model,
    limit: Limit,
    counters: Vec<(&'static str, Counter)>,
    random: StdRng,
}

/// The answer of a service to a request, and the figures that it could report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) status: u16,
    /// `None`: there is no limit.
    pub(super) limit: Option<u64>,
    pub(super) left: u64,
    /// Milliseconds until the whole quota is back, or what the model reports as that.
    pub(super) reset: Option<u64>,
    /// Milliseconds until a request would be allowed.
    pub(super) retry: u64,
    /// Milliseconds until the answer goes back.
    pub(super) takes: u64,
}

#[derive(Debug)]
enum Counter {
    Window {
        start: Option<u64>,
        used: u64,
    },
    Calendar {
        window: u64,
        used: u64,
    },
    Log(VecDeque<u64>),
    Weighted {
        window: u64,
        before: u64,
        used: u64,
    },
    /// A token is as many units as the window has milliseconds. Each millisecond adds as many units as the limit
    /// allows requests.
    Bucket {
        units: u64,
        at: u64,
    },
    /// When the requests in flight end.
    Slots(Vec<u64>),
}

impl Limit {
    pub(super) const fn new(name: &'static str, count: u64, window: u64, duration: u64) -> Self {
        Self {
            name,
            count,
            later: count,
            window,
            duration,
        }
    }
}

impl Model {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed window",
            Self::CalendarWindow => "calendar window",
            Self::SlidingLog => "sliding log",
            Self::SlidingCounter => "sliding counter",
            Self::TokenBucket => "token bucket",
            Self::TokenBucketNext => "token bucket, next token told",
            Self::BucketOfOne => "token bucket of one",
            Self::StrictSpacing => "strict spacing",
            Self::Concurrency => "concurrency",
            Self::PerUser => "a counter per user",
            Self::PerRoute => "a counter per route",
            Self::PerHost => "a counter per host",
            Self::OneCounter => "one counter, many routes",
            Self::Random429 => "every tenth 429",
            Self::Random503 => "every tenth 503",
        }
    }

    /// How many counters the client's requests meet.
    pub(super) fn counters(self) -> u64 {
        match self {
            Self::PerUser | Self::PerRoute | Self::PerHost => 3,
            _ => 1,
        }
    }

    /// The counter that a request meets.
    pub(super) fn counter(self, request: &Request) -> &'static str {
        match self {
            Self::PerUser => request.user,
            Self::PerRoute => request.route(),
            Self::PerHost => request.host,
            _ => "",
        }
    }

    /// How many requests in `duration` a service of this kind allows at most, for each counter. `None`: all.
    pub(super) fn allows(self, limit: Limit, duration: u64) -> Option<u64> {
        let limit = Limit {
            count: u64::midpoint(limit.count, limit.later),
            ..limit
        };
        let earned = limit.count * duration / limit.window;
        match self {
            Self::FixedWindow | Self::SlidingLog | Self::SlidingCounter => {
                Some(limit.count * duration.div_ceil(limit.window))
            }
            Self::PerUser | Self::PerRoute | Self::PerHost | Self::OneCounter => {
                Some(limit.count * duration.div_ceil(limit.window))
            }
            Self::CalendarWindow => Some(limit.count * (duration.div_ceil(limit.window) + 1)),
            Self::TokenBucket | Self::TokenBucketNext => Some(limit.count + earned),
            Self::BucketOfOne | Self::StrictSpacing => Some(1 + earned),
            Self::Concurrency => Some(limit.count * duration / limit.window),
            Self::Random429 | Self::Random503 => None,
        }
    }

    fn new_counter(self) -> Counter {
        match self {
            Self::FixedWindow | Self::PerUser | Self::PerRoute | Self::PerHost | Self::OneCounter => {
                Counter::Window { start: None, used: 0 }
            }
            Self::CalendarWindow => Counter::Calendar { window: 0, used: 0 },
            Self::SlidingLog => Counter::Log(VecDeque::new()),
            Self::SlidingCounter => Counter::Weighted {
                window: 0,
                before: 0,
                used: 0,
            },
            Self::TokenBucket | Self::TokenBucketNext | Self::BucketOfOne | Self::StrictSpacing => {
                // Full, however large it is.
                Counter::Bucket {
                    units: u64::MAX,
                    at: 0,
                }
            }
            Self::Concurrency | Self::Random429 | Self::Random503 => Counter::Slots(Vec::new()),
        }
    }
}

impl Service {
    pub(super) fn new(model: Model, limit: Limit) -> Self {
        Self {
            model,
            limit,
            counters: Vec::new(),
            random: StdRng::seed_from_u64(11),
        }
    }

    /// The counter that a request meets.
    pub(super) fn counter(&self, request: &Request) -> &'static str {
        self.model.counter(request)
    }

    pub(super) fn ask(&mut self, request: &Request, now: u64) -> Figures {
        let refusal = match self.model {
            Model::Random429 => Some(429),
            Model::Random503 => Some(503),
            _ => None,
        };
        if let Some(refusal) = refusal {
            let is_refused = self.random.random_ratio(1, 10);
            return Figures {
                status: if is_refused { refusal } else { 200 },
                limit: None,
                left: 0,
                reset: None,
                retry: 0,
                takes: 0,
            };
        }
        let (model, mut limit) = (self.model, self.limit);
        if now >= limit.duration / 2 {
            limit.count = limit.later;
        }
        let key = model.counter(request);
        let counter = match self.counters.iter().position(|(own, _)| *own == key) {
            Some(place) => &mut self.counters[place].1,
            None => {
                self.counters.push((key, model.new_counter()));
                let last = self.counters.last_mut();
                &mut last.unwrap().1
            }
        };
        counter.take(model, limit, now)
    }
}

impl Counter {
    fn take(&mut self, model: Model, limit: Limit, now: u64) -> Figures {
        let Limit { count, window, .. } = limit;
        match self {
            Self::Window { start, used } => {
                if start.is_none_or(|start| now >= start + window) {
                    (*start, *used) = (Some(now), 0);
                }
                let reset = start.map_or(0, |start| start + window - now);
                Figures::of_window(used, count, reset)
            }
            Self::Calendar { window: own, used } => {
                let wall = now + super::BEGIN;
                if *own != wall / window {
                    (*own, *used) = (wall / window, 0);
                }
                Figures::of_window(used, count, window - wall % window)
            }
            Self::Log(times) => {
                while times.front().is_some_and(|first| now >= first + window) {
                    times.pop_front();
                }
                let is_allowed = (times.len() as u64) < count;
                if is_allowed {
                    times.push_back(now);
                }
                let reset = times.front().map_or(0, |first| first + window - now);
                let left = count.saturating_sub(times.len() as u64);
                Figures::new(is_allowed, count, left, Some(reset), reset)
            }
            Self::Weighted {
                window: own,
                before,
                used,
            } => {
                let index = now / window;
                match index - *own {
                    0 => {}
                    1 => (*own, *before, *used) = (index, *used, 0),
                    _ => (*own, *before, *used) = (index, 0, 0),
                }
                let left = window - now % window;
                let weight = |used: u64| *before * left + used * window;
                let is_allowed = weight(*used + 1) <= count * window;
                *used += u64::from(is_allowed);
                let remaining = (count * window).saturating_sub(weight(*used)) / window;
                let retry = if *used < count {
                    left.saturating_sub((count - 1 - *used) * window / (*before).max(1))
                } else {
                    left + window - (count - 1) * window / *used
                };
                Figures::new(is_allowed, count, remaining, Some(left), retry)
            }
            Self::Bucket { units, at } => {
                let most = match model {
                    Model::BucketOfOne | Model::StrictSpacing => 1,
                    _ => count,
                };
                *units = units.saturating_add((now - *at) * count).min(most * window);
                *at = now;
                let is_allowed = *units >= window;
                if is_allowed {
                    *units -= window;
                }
                let next = window.saturating_sub(*units).div_ceil(count);
                let reset = match model {
                    Model::BucketOfOne | Model::StrictSpacing => None,
                    Model::TokenBucketNext => Some(next),
                    _ => Some((most * window - *units).div_ceil(count)),
                };
                Figures::new(is_allowed, most, *units / window, reset, next)
            }
            Self::Slots(ends) => {
                ends.retain(|end| *end > now);
                let is_allowed = (ends.len() as u64) < count;
                if is_allowed {
                    ends.push(now + window);
                }
                let figures = Figures::new(is_allowed, count, count - ends.len() as u64, None, window);
                Figures {
                    takes: if is_allowed { window } else { 0 },
                    ..figures
                }
            }
        }
    }
}

impl Figures {
    pub(super) fn is_allowed(&self) -> bool {
        self.status == 200
    }

    fn new(is_allowed: bool, limit: u64, left: u64, reset: Option<u64>, retry: u64) -> Self {
        Self {
            status: if is_allowed { 200 } else { 429 },
            limit: Some(limit),
            left,
            reset,
            retry,
            takes: 0,
        }
    }

    fn of_window(used: &mut u64, count: u64, reset: u64) -> Self {
        let is_allowed = *used < count;
        *used += u64::from(is_allowed);
        Self::new(is_allowed, count, count.saturating_sub(*used), Some(reset), reset)
    }
}
