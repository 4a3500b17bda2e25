//! Hosts that apps reach without the proxy: the NO_PROXY list that `env`, `exec` and the profile script set.
//!
//! Clients disagree about it: some take `example.com` for the name alone, others also for the names below it, some ignore
//! a leading dot, few know blocks, wildcards and ports. So only what all of them understand is accepted, and an entry
//! counts for a name and everything below it: a call that some client makes past the proxy gets no credential.

use std::fmt;
use std::net::IpAddr;

use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::Located;
use crate::host::{Host, Pattern};

/// What would be right.
const RIGHT: &str = "write a name, .SUFFIX or an address, as in apps.internal, .apps.internal or 127.0.0.1";

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoProxyHost {
    /// As it is written, and given to apps.
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
        let is_sound = !text.starts_with('.') || matches!(host, Host::Name(_));
        is_sound.then(|| Self {
            text: text.to_owned(),
            host,
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
    use crate::host::HostPattern;

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
        let config = Config::parse("no_proxy: [a.test, .b.test, 10.0.0.1, '::1']", "a.yml").unwrap();
        let list: Vec<_> = config.no_proxy.iter().map(NoProxyHost::as_str).collect();
        assert_eq!(list, ["a.test", ".b.test", "10.0.0.1", "::1"]);
    }
}
