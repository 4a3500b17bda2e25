//! When the certificates of a destination's upstreams end, and the word about it in time.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// What each host of one destination showed in its last full handshake.
#[derive(Debug, Default)]
pub(super) struct CertificateExpiries {
    by_host: HashMap<Box<str>, SystemTime>,
    warned: Option<SystemTime>,
}

/// What is to be told after a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpiryNotice {
    /// The soonest end of all hosts.
    pub(super) soonest: SystemTime,
    /// Whether a person should be warned of the certificate that was shown.
    pub(super) is_warning: bool,
}

impl CertificateExpiries {
    /// `host` showed a certificate that is valid until `until`.
    ///
    /// One that ended more than a day ago no longer counts: a host that still had it could not be asked, so it is one
    /// that nobody asks any more.
    pub(super) fn shown(&mut self, host: &str, until: SystemTime, now: SystemTime) -> ExpiryNotice {
        self.by_host.retain(|_, end| *end + DAY > now);
        if self.by_host.len() >= MOST {
            // Names come from the app. A flood of them costs the memory of some ends, not ours.
            self.by_host.clear();
        }
        self.by_host.insert(host.into(), until);
        let was_quiet = self.warned.is_none_or(|at| at + DAY <= now || now < at);
        let is_warning = until < now + WARNING && was_quiet;
        if is_warning {
            self.warned = Some(now);
        }
        ExpiryNotice {
            soonest: self.by_host.values().copied().min().unwrap_or(until),
            is_warning,
        }
    }

    /// The destination is reached in another way from now on: what was seen before may be nobody's.
    pub(super) fn forget(&mut self) {
        self.by_host.clear();
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its end a certificate is warned of.
const WARNING: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Hosts of one destination that are remembered.
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn day(number: u64) -> SystemTime {
        UNIX_EPOCH + DAY * u32::try_from(number).unwrap()
    }

    #[test]
    fn the_soonest_end_counts_until_it_is_a_day_past() {
        let mut ends = CertificateExpiries::default();
        for (host, until, now, soonest) in [
            ("a", 100, 1, 100),
            ("b", 50, 2, 50),
            // b has a new one.
            ("b", 200, 3, 100),
            ("c", 20, 4, 20),
            ("a", 300, 20, 20),
            // c was not seen again.
            ("a", 300, 22, 200),
        ] {
            let told = ends.shown(host, day(until), day(now));
            assert_eq!(told.soonest, day(soonest), "{host} at {now}");
        }
        ends.forget();
        assert_eq!(ends.shown("z", day(900), day(23)).soonest, day(900));
    }

    #[test]
    fn a_person_is_warned_once_a_day_within_the_last_week() {
        let mut ends = CertificateExpiries::default();
        let hour = Duration::from_secs(60 * 60);
        for (host, until, now, warned) in [
            ("a", day(30), day(22), false),
            ("a", day(30), day(23) + hour, true),
            ("a", day(30), day(23) + 2 * hour, false),
            ("b", day(29), day(23) + 3 * hour, false),
            ("b", day(29), day(24) + hour, true),
            ("a", day(60), day(26), false),
        ] {
            assert_eq!(
                ends.shown(host, until, now).is_warning,
                warned,
                "{host} at {now:?}"
            );
        }
        ends.forget();
        assert!(
            !ends.shown("b", day(25), day(24) + 2 * hour).is_warning,
            "a reload warned again"
        );
    }

    #[test]
    fn a_flood_of_hosts_takes_no_memory() {
        let mut ends = CertificateExpiries::default();
        for n in 0..3 * MOST {
            ends.shown(&n.to_string(), day(9), day(1));
        }
        assert!(ends.by_host.len() <= MOST);
    }
}
