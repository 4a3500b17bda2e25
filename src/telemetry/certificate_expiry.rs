//! When the certificates of a destination's upstreams expire, and the warning before they do.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its expiry a certificate is warned of.
const WARNING: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many hosts of one destination are remembered.
const MAX_HOSTS: usize = 1000;

/// When the certificate of each host of one destination expires, as of its last full handshake.
#[derive(Debug, Default)]
pub(super) struct CertificateExpiries {
    by_host: HashMap<Box<str>, SystemTime>,
    warned: Option<SystemTime>,
}

/// What to report after a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpiryNotice {
    /// The earliest expiry of all hosts.
    pub(super) earliest: SystemTime,
    /// Whether to log a warning about the certificate just seen.
    pub(super) is_warning: bool,
}

impl CertificateExpiries {
    /// Notes that the certificate of `host` is valid until `until`.
    ///
    /// A certificate that expired more than a day ago no longer counts: requests to its host fail, so the host
    /// is no longer in use.
    pub(super) fn note(&mut self, host: &str, until: SystemTime, now: SystemTime) -> ExpiryNotice {
        self.by_host.retain(|_, expiry| *expiry + DAY > now);
        if self.by_host.len() >= MAX_HOSTS {
            // Names come from the app: a flood of them may lose some expiries, but may not fill our memory.
            self.by_host.clear();
        }
        self.by_host.insert(host.into(), until);
        let was_quiet = self.warned.is_none_or(|at| at + DAY <= now || now < at);
        let is_warning = until < now + WARNING && was_quiet;
        if is_warning {
            self.warned = Some(now);
        }
        ExpiryNotice {
            earliest: self.by_host.values().copied().min().unwrap_or(until),
            is_warning,
        }
    }

    /// Forgets all hosts.
    pub(super) fn clear(&mut self) {
        self.by_host.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn day(number: u64) -> SystemTime {
        UNIX_EPOCH + DAY * u32::try_from(number).unwrap()
    }

    #[test]
    fn the_earliest_expiry_counts_until_it_is_a_day_past() {
        let mut expiries = CertificateExpiries::default();
        for (host, until, now, earliest) in [
            ("a", 100, 1, 100),
            ("b", 50, 2, 50),
            // b has a new one.
            ("b", 200, 3, 100),
            ("c", 20, 4, 20),
            ("a", 300, 20, 20),
            // c was not seen again.
            ("a", 300, 22, 200),
        ] {
            let notice = expiries.note(host, day(until), day(now));
            assert_eq!(notice.earliest, day(earliest), "{host} at {now}");
        }
        expiries.clear();
        assert_eq!(expiries.note("z", day(900), day(23)).earliest, day(900));
    }

    #[test]
    fn a_person_is_warned_once_a_day_within_the_last_week() {
        let mut expiries = CertificateExpiries::default();
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
                expiries.note(host, until, now).is_warning,
                warned,
                "{host} at {now:?}"
            );
        }
        expiries.clear();
        assert!(
            !expiries.note("b", day(25), day(24) + 2 * hour).is_warning,
            "a reload warned again"
        );
    }

    #[test]
    fn a_flood_of_hosts_takes_no_memory() {
        let mut expiries = CertificateExpiries::default();
        for n in 0..3 * MAX_HOSTS {
            expiries.note(&n.to_string(), day(9), day(1));
        }
        assert!(expiries.by_host.len() <= MAX_HOSTS);
    }
}
