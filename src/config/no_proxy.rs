//! Hosts that apps reach without the proxy: the NO_PROXY list that `env`, `exec` and the profile script set.
//!
//! Clients disagree about it: some take `example.com` for the name alone, others also for the names below it, some ignore
//! a leading dot, few know blocks, wildcards and ports. So only what all of them understand is accepted, and an entry
//! counts for a name and everything below it: a call that some client makes past the proxy gets no credential.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::Located;
use super::{DestinationKeys, entries_of};
use crate::host::{Host, HostPattern, Pattern};

/// What would be right.
const RIGHT: &str = "write a name, .SUFFIX or an address, as in apps.internal, .apps.internal or 127.0.0.1";

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoProxyHost {
    /// As it is given to apps: names in small letters and ASCII, as most clients compare them.
    text: String,
    host: Host,
}

/// How much of a pattern an entry takes past the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TakenPast {
    Part,
    All,
}

impl NoProxyHost {
    /// Reads an entry as it stands in a variable; `None` for what a host cannot be compared with.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('.').unwrap_or(text);
        let host = match bare.parse() {
            Ok(IpAddr::V6(address)) => IpAddr::V6(address).into(),
            Ok(IpAddr::V4(_)) | Err(_) => Host::parse(bare).ok()?,
        };
        let dot = if text.starts_with('.') { "." } else { "" };
        let text = match &host {
            Host::Name(name) => format!("{dot}{name}"),
            Host::V4(_) | Host::V6(_) if dot.is_empty() => text.to_owned(),
            Host::V4(_) | Host::V6(_) => return None,
        };
        Some(Self { text, host })
    }

    /// Finds the entries of a list, as a variable holds it, by which some client calls a destination past the proxy although
    /// a credential is attached there. An entry with a wildcard counts for what is below it.
    pub(crate) fn bypassing<'l>(
        list: &'l str,
        destinations: &'l [Arc<DestinationKeys>],
    ) -> impl Iterator<Item = (&'l str, &'l DestinationKeys)> {
        entries_of(list).filter_map(|entry| {
            let read = Self::parse(entry.strip_prefix('*').unwrap_or(entry));
            let takes = |host: &HostPattern| {
                entry == "*" || read.as_ref().is_some_and(|read| read.takes(&host.what).is_some())
            };
            let bypassed = destinations
                .iter()
                .find(|own| own.carries_credential() && own.hosts.iter().any(takes))?;
            Some((entry, &**bypassed))
        })
    }

    /// Returns how much of a pattern's hosts some client asks without the proxy.
    pub(crate) fn takes(&self, pattern: &Pattern) -> Option<TakenPast> {
        let is_below = |name: &str, above: &str| {
            name.strip_suffix(above)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match (pattern, &self.host) {
            (Pattern::Host(Host::Name(name)), Host::Name(own)) => {
                is_below(name, own).then_some(TakenPast::All)
            }
            (Pattern::Suffix(suffix), Host::Name(own)) if is_below(suffix, own) => Some(TakenPast::All),
            (Pattern::Suffix(suffix), Host::Name(own)) => is_below(own, suffix).then_some(TakenPast::Part),
            (Pattern::Host(host), own) => (host == own).then_some(TakenPast::All),
            (Pattern::Network(block), Host::V4(own)) => {
                block.contains(&IpAddr::V4(*own)).then_some(TakenPast::Part)
            }
            (Pattern::Network(block), Host::V6(own)) => {
                block.contains(&IpAddr::V6(*own)).then_some(TakenPast::Part)
            }
            (Pattern::Suffix(_), Host::V4(_) | Host::V6(_)) | (Pattern::Network(_), Host::Name(_)) => None,
        }
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Name(name) => &**name == "localhost",
            Host::V4(address) => address.is_loopback(),
            Host::V6(address) => address.is_loopback(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for NoProxyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Syntax for NoProxyHost {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text(RIGHT)?;
        if let Some(host) = Self::parse(text).filter(|_| !text.starts_with('[')) {
            return Some(host);
        }
        let what = if text.contains('*') {
            "clients disagree about wildcards"
        } else if text.contains('/') {
            "few clients understand blocks of addresses"
        } else if text.contains(':') {
            "few clients understand ports"
        } else {
            "neither a name nor an address"
        };
        written.problem(format_args!("`{}`: {what}", shown(text)), RIGHT);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_entry_counts_for_a_name_and_what_is_below_it() {
        use TakenPast::{All, Part};
        for (entry, pattern, taken) in [
            ("apps.internal", "apps.internal", Some(All)),
            ("apps.internal", "a.apps.internal", Some(All)),
            ("apps.internal", "a.apps.internal:61443", Some(All)),
            (".apps.internal", "a.apps.internal", Some(All)),
            // Some clients ignore the dot.
            (".apps.internal", "apps.internal", Some(All)),
            ("apps.internal", "*.apps.internal", Some(All)),
            ("apps.internal", "*.b.apps.internal", Some(All)),
            ("apps.internal", "*.internal", Some(Part)),
            ("apps.internal", "myapps.internal", None),
            ("apps.internal", "*.myapps.internal", None),
            ("apps.internal", "internal", None),
            ("APPS.internal", "apps.INTERNAL", Some(All)),
            ("127.0.0.1", "127.0.0.1:8080", Some(All)),
            ("127.0.0.1", "127.0.0.2", None),
            ("127.0.0.1", "127.0.0.0/8", Some(Part)),
            ("::1", "[::1]:80", Some(All)),
            ("::1", "::/0", Some(Part)),
            ("127.0.0.1", "*.1", None),
        ] {
            let Ok(parsed) = HostPattern::parse(pattern) else {
                continue;
            };
            let entry = NoProxyHost::parse(entry).unwrap();
            assert_eq!(entry.takes(&parsed.what), taken, "{entry} {pattern}");
        }
    }

    #[test]
    fn what_clients_read_in_different_ways_is_refused() {
        for (text, what) in [
            ("\"*\"", "clients disagree about wildcards"),
            ("\"*.apps.internal\"", "clients disagree about wildcards"),
            ("10.0.0.0/8", "few clients understand blocks"),
            ("db.internal:5432", "few clients understand ports"),
            ("\"[::1]\"", "few clients understand ports"),
            ("\"a.test,b.test\"", "neither a name nor an address"),
            ("\"a.test b.test\"", "neither a name nor an address"),
            ("\"\"", "neither a name nor an address"),
            (".", "neither a name nor an address"),
            (".127.0.0.1", "neither a name nor an address"),
            ("127.1", "neither a name nor an address"),
            ("\"a'; rm -rf /\"", "few clients understand blocks"),
        ] {
            let problems = Config::parse(&format!("no_proxy: [{text}]"), "a.yml")
                .unwrap_err()
                .to_string();
            assert!(problems.contains(what), "{text}: {problems}");
        }
        let config = Config::parse("no_proxy: [a.test, .B.test., ü.test, 10.0.0.1, '::1']", "a.yml").unwrap();
        let list: Vec<_> = config.no_proxy.iter().map(NoProxyHost::as_str).collect();
        assert_eq!(list, ["a.test", ".b.test", "xn--tda.test", "10.0.0.1", "::1"]);
    }
}
