//! How much each destination may be asked at once and over time.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::policy::Destination;
use crate::telemetry::{Counters, Telemetry};

/// The limiters of all destinations. State survives a reload where the settings are equal.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    // private: DashMap<name, Arc<Limiter>>
}

/// The limits of one destination.
#[derive(Debug)]
pub(crate) struct Limiter {
    // private
}

/// Leave to send one request. Frees its concurrency slot on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    // private
}

/// Why a request is not sent now: which limit, and when it would pass.
#[derive(Clone, Debug, thiserror::Error)]
#[error("TODO")]
pub(crate) struct Refusal {
    /// As written in the configuration, or `concurrency`.
    pub(crate) limit: Arc<str>,
    /// Never less than a second when rendered; `None` where nobody can know (concurrency).
    pub(crate) retry_after: Duration,
}

impl Limits {
    /// The limiter of a destination: the running one where its limits are as before, else a new one.
    pub(crate) fn of(&self, destination: &Destination, telemetry: &Telemetry) -> Arc<Limiter> {
        todo!("{destination:?} {telemetry:?}")
    }
}

impl Limiter {
    /// Nothing to admit: no permit is needed. Lets the request path skip all of this.
    pub(crate) fn is_unlimited(&self) -> bool {
        todo!()
    }

    /// Waits for its turn, in order of arrival, or refuses at once when the wait would be longer than allowed.
    ///
    /// `path` is without query. Dropping the future gives everything back.
    pub(crate) async fn admit(self: &Arc<Self>, method: &Method, path: &str) -> Result<Permit, Refusal> {
        todo!("{method} {path}")
    }
}

impl Permit {
    /// How long the request had to wait for it.
    pub(crate) fn waited(&self) -> Duration {
        todo!()
    }
}

impl Refusal {
    /// `RateLimit-Policy` and `RateLimit` field values (draft-ietf-httpapi-ratelimit-headers).
    pub(crate) fn fields(&self) -> [(&'static str, String); 2] {
        todo!()
    }
}
