//! Secrets that have changed and cannot be used yet.
//!
//! A certificate and its key are two files, and a platform that renews them replaces one after the other (Cloud
//! Foundry the key first), so for a moment the new key lies beside the old certificate. A destination whose new
//! secrets cannot be used therefore keeps what it had and is tried again. It is logged only when that has lasted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::live::FailedPart;
use crate::proxy::Route;
use crate::telemetry::{CredentialKind, RefreshResult};
use crate::units::rfc3339;
use crate::upstream::Endpoint;
use crate::upstream::tls::Lifetime;

/// Longer than any platform needs from the first file of a pair to the second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Destinations that keep old secrets because the new ones cannot be used.
#[derive(Debug, Default)]
pub(super) struct PendingSecrets(HashMap<Arc<str>, Pending>);

#[derive(Clone, Copy, Debug)]
struct Pending {
    is_reported: bool,
    since: Instant,
}

impl PendingSecrets {
    /// Whether some destination waits for secrets that can be used.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether one has not waited for long: two files of a pair are seldom far apart.
    pub(super) fn is_short(&self, now: Instant) -> bool {
        (self.0.values()).any(|pending| now.duration_since(pending.since) < PATIENCE)
    }

    /// Replaces the list by those that `failed` now, and returns the ones to be reported: once, when it has lasted.
    pub(super) fn lasting(&mut self, failed: Vec<FailedPart>, now: Instant) -> Vec<FailedPart> {
        let old = std::mem::take(&mut self.0);
        let mut lasting = Vec::new();
        for failed in failed {
            let known = old.get(&failed.destination).copied();
            let mut pending = known.unwrap_or(Pending {
                is_reported: false,
                since: now,
            });
            let is_due = !pending.is_reported && now.duration_since(pending.since) >= PATIENCE;
            pending.is_reported |= is_due;
            let is_first = self.0.insert(Arc::clone(&failed.destination), pending).is_none();
            lasting.extend((is_due && is_first).then_some(failed));
        }
        lasting
    }
}

/// Logs that `route` has other secrets than the one `before`, and its certificate where that is another one.
pub(super) fn log_rotation(route: &Route, before: &Route) {
    let life = life_of(&route.endpoint).filter(|life| life_of(&before.endpoint) != Some(life));
    if life.is_some() {
        (route.counters).credential_refresh(CredentialKind::ClientCertificate, RefreshResult::Done);
    }
    tracing::info!(
        destination = %route.destination.name,
        certificate = life.map(|life| life.serial.as_str()),
        expires = life.map(|life| tracing::field::display(rfc3339(life.not_after))),
        "secrets rotated"
    );
}

/// Returns how long the client certificate lives that is shown there.
pub(super) fn life_of(endpoint: &Endpoint) -> Option<&Lifetime> {
    endpoint.tls().ok()?.life()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::live::DestinationError;

    #[test]
    fn what_does_not_fit_is_told_once_when_it_has_lasted() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let failed = |name: &str| FailedPart {
            destination: name.into(),
            error: DestinationError::Credentials {
                place: format!("destinations.{name}"),
                source: crate::auth::Error::Panicked,
            },
            is_kept: true,
            was_broken: false,
        };
        let mut waiting = PendingSecrets::default();
        let mut told = |names: &[&str], seconds| {
            let failed = names.iter().map(|name| failed(name)).collect();
            let lasting = waiting.lasting(failed, at(seconds));
            let names: Vec<_> = lasting.iter().map(|failed| &*failed.destination).collect();
            (names.join(" "), waiting.is_any(), waiting.is_short(at(seconds)))
        };
        let is = |names: &str, is_any, is_short| (names.to_owned(), is_any, is_short);
        assert_eq!(told(&["a"], 0), is("", true, true));
        assert_eq!(told(&["a", "b"], 4), is("", true, true));
        assert_eq!(told(&["a", "b"], 5), is("a", true, true));
        assert_eq!(told(&["a", "b"], 9), is("b", true, false));
        assert_eq!(told(&["a", "b"], 100), is("", true, false));
        // It fitted in between: a new wait begins.
        assert_eq!(told(&["b"], 101), is("", true, false));
        assert_eq!(told(&["a"], 102), is("", true, true));
        assert_eq!(told(&[], 103), is("", false, false));
        // Of two faults of one destination the first is reported.
        assert_eq!(told(&["c", "c"], 110), is("", true, true));
        assert_eq!(told(&["c", "c"], 115), is("c", true, false));
    }
}
