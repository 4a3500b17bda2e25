//! The address of a client behind trusted proxies, as X-Forwarded-For says it.
//!
//! Everybody can send the field, and each proxy adds the address from which it was called at its end. So only as many
//! entries can be trusted as there are trusted proxies, and they are counted from the end: the entries before them are
//! never looked at. An entry that is no address is not skipped, because that would move the others.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use crate::config::RouteServiceKeys;
use crate::message::Fields;

const FIELD: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose entries are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrustedProxies {
    /// So many of them have added an entry; at least 1.
    Hops(usize),
    /// All proxies with these addresses.
    Networks(Vec<IpNet>),
}

/// Why the address of a client is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardedFault {
    #[error("entry {place} from the end of X-Forwarded-For is no address")]
    Junk { place: usize },
    #[error("X-Forwarded-For has {count} entries, and the client's should be number {wanted} from the end")]
    Short { count: usize, wanted: usize },
}

impl TrustedProxies {
    pub(crate) fn of(written: &RouteServiceKeys) -> Self {
        if written.trusted_networks.is_empty() {
            Self::Hops(written.trusted_hops.unwrap_or(1))
        } else {
            Self::Networks(written.trusted_networks.clone())
        }
    }

    /// Returns the address of the client that sent a request with these fields.
    pub(crate) fn client(&self, fields: &Fields) -> Result<IpAddr, ForwardedFault> {
        let lines = fields.get_all(FIELD).rev();
        let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        match self {
            Self::Hops(wanted) => {
                let wanted = (*wanted).max(1);
                let mut count = 0;
                let entry = entries.find(|_| {
                    count += 1;
                    count == wanted
                });
                let entry = entry.ok_or(ForwardedFault::Short { count, wanted })?;
                address(entry).ok_or(ForwardedFault::Junk { place: wanted })
            }
            Self::Networks(networks) => {
                let mut nearest = None;
                for (i, entry) in entries.enumerate() {
                    let address = address(entry).ok_or(ForwardedFault::Junk { place: i + 1 })?;
                    nearest = Some(address);
                    if !networks.iter().any(|network| network.contains(&address)) {
                        break;
                    }
                }
                // Where all of them are trusted proxies, the first is itself the client.
                nearest.ok_or(ForwardedFault::Short { count: 0, wanted: 1 })
            }
        }
    }
}

/// Reads an entry: an address, with a port or without. An IPv4 address inside IPv6 is the IPv4 address.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let is_port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit());
    let bare = if let Some(rest) = text.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        let has_port = port.strip_prefix(':').is_some_and(is_port);
        (inner.contains(':') && (port.is_empty() || has_port)).then_some(inner)?
    } else {
        match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => is_port(port).then_some(host)?,
            Some(_) | None => text,
        }
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(proxies: &TrustedProxies, lines: &[&str]) -> Result<IpAddr, ForwardedFault> {
        let mut fields = Fields::new();
        for line in lines {
            fields.append(FIELD, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        proxies.client(&fields)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What a client sends stands at the left and is never reached, however it is written.
    #[test]
    fn entries_are_counted_from_the_trusted_end() {
        let junk = |place| Err(ForwardedFault::Junk { place });
        let short = |count, wanted| Err(ForwardedFault::Short { count, wanted });
        for (hops, lines, expected) in [
            (1, &["203.0.113.7"][..], Ok(ip("203.0.113.7"))),
            (1, &["10.1.1.1, 203.0.113.7"], Ok(ip("203.0.113.7"))),
            (2, &["10.1.1.1, 203.0.113.7, 192.0.2.1"], Ok(ip("203.0.113.7"))),
            (2, &["junk,,  , 203.0.113.7\t,192.0.2.1"], Ok(ip("203.0.113.7"))),
            // Two fields are one list.
            (1, &["203.0.113.7", "192.0.2.1"], Ok(ip("192.0.2.1"))),
            (2, &["203.0.113.7", "192.0.2.1"], Ok(ip("203.0.113.7"))),
            (
                3,
                &["198.51.100.9, 203.0.113.7", "192.0.2.1"],
                Ok(ip("198.51.100.9")),
            ),
            // An empty entry counts.
            (1, &["203.0.113.7,"], junk(1)),
            (2, &["203.0.113.7,"], Ok(ip("203.0.113.7"))),
            (2, &["203.0.113.7,,192.0.2.1"], junk(2)),
            (1, &["203.0.113.7", ""], junk(1)),
            // Ports and brackets.
            (1, &["203.0.113.7:4711"], Ok(ip("203.0.113.7"))),
            (1, &["[2001:db8::1]:4711"], Ok(ip("2001:db8::1"))),
            (1, &["[2001:db8::1]"], Ok(ip("2001:db8::1"))),
            (1, &["2001:DB8::1"], Ok(ip("2001:db8::1"))),
            (1, &["::ffff:203.0.113.7"], Ok(ip("203.0.113.7"))),
            (1, &["[::ffff:203.0.113.7]:80"], Ok(ip("203.0.113.7"))),
            // Nothing is guessed.
            (1, &["unknown"], junk(1)),
            (1, &["_hidden"], junk(1)),
            (1, &["203.0.113.7:"], junk(1)),
            (1, &["203.0.113.7:x"], junk(1)),
            (1, &["203.0.113.7:+80"], junk(1)),
            (1, &["203.0.113.7:99999"], junk(1)),
            (1, &["203.0.113.07"], junk(1)),
            (1, &["203.0.113"], junk(1)),
            (1, &["0xcb007107"], junk(1)),
            (1, &["[203.0.113.7]"], junk(1)),
            (1, &["[2001:db8::1"], junk(1)),
            (1, &["[2001:db8::1]x"], junk(1)),
            (1, &["fe80::1%eth0"], junk(1)),
            (1, &["203.0.113.7 10.0.0.1"], junk(1)),
            (1, &["\"203.0.113.7\""], junk(1)),
            (1, &["203.0.113.7\u{a0}"], junk(1)),
            (1, &[], short(0, 1)),
            (3, &["203.0.113.7, 192.0.2.1"], short(2, 3)),
        ] {
            assert_eq!(
                client(&TrustedProxies::Hops(hops), lines),
                expected,
                "{hops} {lines:?}"
            );
        }
    }

    #[test]
    fn the_last_entry_that_is_no_trusted_proxy_is_the_client() {
        let networks = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"].map(|text| text.parse().unwrap());
        let proxies = TrustedProxies::Networks(networks.to_vec());
        for (lines, expected) in [
            (&["203.0.113.7"][..], Ok(ip("203.0.113.7"))),
            (
                &["203.0.113.7, 10.9.9.9:80, [2001:db8::5]:1, 192.0.2.1"],
                Ok(ip("203.0.113.7")),
            ),
            (
                &["10.0.0.5, 203.0.113.7", "10.9.9.9", "::ffff:10.1.1.1"],
                Ok(ip("203.0.113.7")),
            ),
            // A forged entry ends the list where it stands.
            (&["203.0.113.7, 198.51.100.1, 10.0.0.1"], Ok(ip("198.51.100.1"))),
            (&["10.0.0.7, 10.0.0.8"], Ok(ip("10.0.0.7"))),
            (
                &["203.0.113.7, junk, 10.0.0.1"],
                Err(ForwardedFault::Junk { place: 2 }),
            ),
            (&["10.0.0.1,"], Err(ForwardedFault::Junk { place: 1 })),
            (&[], Err(ForwardedFault::Short { count: 0, wanted: 1 })),
        ] {
            assert_eq!(client(&proxies, lines), expected, "{lines:?}");
        }
    }
}
