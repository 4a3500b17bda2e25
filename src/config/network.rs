//! Where the proxy listens, what may be reached, and which resolver answers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::declare::{Syntax, ValueKind, Word};
use super::node::shown;
use super::parent::{Bypass, ParentRoots, Parents};
use super::reader::{Located, SectionReader, one_of};
use super::syntax::{Filled, ListOf, OneOrMore, Port, Positive};
use super::tls::OrNull;
use super::{ParentKeys, PathBuf, SecretRef};
use crate::host::{Host, HostPattern};

const LISTEN: SocketAddr = SocketAddr::new(LOCALHOST, 3128);
const ADMIN: SocketAddr = SocketAddr::new(LOCALHOST, 9901);
/// The example of a resolver in a problem.
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 53);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `sun_path` has 108 bytes on Linux, the last of which is NUL.
const LONGEST_SOCKET: usize = 107;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// As it is written.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Syntax for Listen {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write an address with its port, as in 127.0.0.1:3128";

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text(Self::IF_EMPTY)?;
        if let Some(path) = text.strip_prefix("unix:") {
            let path = written.path_of(path)?;
            if path.as_os_str().len() > LONGEST_SOCKET {
                written.problem(
                    "the path is too long for a socket",
                    format_args!("keep it to {LONGEST_SOCKET} bytes"),
                );
                return None;
            }
            return Some(Self::Unix(path));
        }
        address(&written, text, LISTEN).map(Self::Tcp)
    }
}

impl Listen {
    /// Returns the TCP address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the address that others than this machine may reach.
    pub(crate) fn public(&self) -> Option<SocketAddr> {
        self.address()
            .filter(|address| !address.ip().to_canonical().is_loopback())
    }
}

/// One listener or several, each once.
pub(super) struct Listeners;

impl Syntax for Listeners {
    type Value = Vec<Listen>;

    const KIND: ValueKind = OneOrMore::<Listen>::KIND;

    fn read(written: Located<'_>) -> Option<Vec<Listen>> {
        let listeners = OneOrMore::<Listen>::read(written.clone())?;
        for (i, listener) in listeners.iter().enumerate() {
            let is_free = matches!(listener, Listen::Tcp(address) if address.port() == 0);
            if listeners[..i].contains(listener) && !is_free {
                written.problem_at(i, "stands twice", "keep one of them");
            }
        }
        Some(listeners)
    }
}

/// The address of the admin listener; `false` reads as `None`.
pub(super) struct AdminAddress;

impl Syntax for AdminAddress {
    type Value = Option<SocketAddr>;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Address, ValueKind::Literal("false")]);

    fn read(written: Located<'_>) -> Option<Option<SocketAddr>> {
        if written.plain() == Some("false") {
            return Some(None);
        }
        let text = written.text("write an address with its port, as in 127.0.0.1:9901, or false")?;
        address(&written, text, ADMIN).map(Some)
    }
}

/// Reads an address with its port; a problem takes what is missing from `example`.
pub(super) fn address(written: &Located<'_>, text: &str, example: SocketAddr) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let named = text
        .strip_prefix("localhost")
        .map(|rest| rest.trim_start_matches(':'));
    let (what, right) = if let Ok(ip) = text.parse() {
        ("an address without a port", SocketAddr::new(ip, example.port()))
    } else if let Ok(port) = text.trim_start_matches(':').parse() {
        ("a port without an address", SocketAddr::new(example.ip(), port))
    } else if let Some(port) = named {
        let port = port.parse().unwrap_or_else(|_| example.port());
        (
            "a name where an address is wanted",
            SocketAddr::new(example.ip(), port),
        )
    } else {
        ("not an address with a port", example)
    };
    written.problem(
        format_args!("`{}` is {what}", shown(text)),
        format_args!("write {right}"),
    );
    None
}

section! {
    /// What may be reached.
    pub(crate) struct Egress {
        /// Hosts that no destination names; observe: let them pass as with tunnel, and record what deny would refuse.
        default: EgressDefault = "deny";
        /// For those hosts.
        ports: Vec<u16> as ListOf<Port> = "[80, 443]";
        /// Blocks that resolved addresses must not be in. They add to the classes, which are always denied.
        deny_networks: Vec<Network> as ListOf<Network>
            = "[private, link-local, loopback, multicast, metadata, reserved]";
        /// Exceptions, for example 10.255.0.0/16 or loopback: the only way to open a class. A smaller block of
        /// deny_networks stays denied.
        allow_networks: Vec<Network> as ListOf<Network> = "[]";
        /// A proxy that everything leaves through, or several, the next where one fails: http://, https:// or socks5://, a
        /// reference to such a URL, or a mapping.
        parent: Vec<ParentKeys> as Parents = "[]";
        /// Roots for https:// parents instead of the system's: a file or a folder. The system's have those of
        /// CF_SYSTEM_CERT_PATH.
        parent_ca: Option<SecretRef> as ParentRoots = "null";
        /// Hosts that are reached without `egress.parent`, and the names below them.
        parent_bypass: Vec<HostPattern> as OrNull<ListOf<Bypass>> = "[apps.internal]";
    }
}

choice! {
    pub(crate) enum EgressDefault {
        Deny = "deny",
        Tunnel = "tunnel",
        /// As `tunnel`, and what `deny` would refuse is recorded.
        Observe = "observe",
    }
}

impl Egress {
    /// Returns the classes that `deny_networks` leaves out although it looks like a complete list.
    pub(crate) fn unnamed_classes(&self) -> Option<String> {
        let denied = &self.deny_networks;
        let is_meant = denied.is_empty() || denied.iter().any(|network| matches!(network, Network::Class(_)));
        let is_unnamed = |class: NetworkClass| {
            let class = Network::Class(class);
            is_meant && !denied.contains(&class) && !self.allow_networks.contains(&class)
        };
        let unnamed = NetworkClass::CHOICES
            .iter()
            .filter(|(_, class)| is_unnamed(*class));
        let names: Vec<_> = unnamed.map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Class(NetworkClass),
    Block(IpNet),
}

choice! {
    pub(crate) enum NetworkClass {
        Private = "private",
        LinkLocal = "link-local",
        Loopback = "loopback",
        Multicast = "multicast",
        Metadata = "metadata",
        Reserved = "reserved",
    }
}

/// A class, a block or a single address.
impl Syntax for Network {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Any(&[NetworkClass::KIND, ValueKind::Text]);

    fn read(written: Located<'_>) -> Option<Self> {
        let names: Vec<_> = NetworkClass::CHOICES.iter().map(|(name, _)| *name).collect();
        let right = format!("write {}, or a block as in 10.255.0.0/16", one_of(&names));
        let text = written.text(&right)?;
        if let Some((_, class)) = NetworkClass::CHOICES.iter().find(|(name, _)| *name == text) {
            return Some(Self::Class(*class));
        }
        let block = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match block {
            Ok(block) => Some(Self::Block(block.trunc())),
            Err(_) => {
                written.problem(
                    format_args!("`{}` is neither a class of networks nor a block", shown(text)),
                    right,
                );
                None
            }
        }
    }
}

section! {
    /// Which resolver answers, and for how long.
    pub(crate) struct Dns, check {
        /// The system's resolvers, or a list of ADDRESS:PORT.
        servers: Vec<SocketAddr> as Resolvers = "system";
        /// How long a look-up may take.
        timeout: Duration as Positive = "5s";
        /// An answer is kept at least this long.
        min_ttl: Duration = "5s";
        /// And at most this long.
        max_ttl: Duration = "5m";
        /// How long an answer is used after its time while the resolver fails.
        stale: Duration = "1m";
        /// Names and their addresses, before any look-up.
        hosts: BTreeMap<Arc<str>, Vec<IpAddr>> as Hosts = "{}";
    }
}

impl Dns {
    fn check(&self, reader: &SectionReader<'_>) {
        let longer = reader.take("min_ttl").or_else(|| reader.take("max_ttl"));
        if let Some(written) = longer.filter(|_| self.min_ttl > self.max_ttl) {
            written.problem(
                "`min_ttl` is longer than `max_ttl`",
                "write min_ttl: 5s and max_ttl: 5m, or the like",
            );
        }
    }
}

/// `system`, which reads as an empty list, or a list of resolvers.
pub(super) struct Resolvers;

impl Syntax for Resolvers {
    type Value = Vec<SocketAddr>;

    const KIND: ValueKind =
        ValueKind::Any(&[ValueKind::Choice(&["system"]), Filled::<ResolverAddress>::KIND]);

    fn read(written: Located<'_>) -> Option<Vec<SocketAddr>> {
        match written.scalar() {
            Some("system") => Some(Vec::new()),
            Some(text) => {
                written.problem(
                    format_args!("`{}` is no list of resolvers", shown(text)),
                    ResolverAddress::IF_EMPTY,
                );
                None
            }
            None => Filled::<ResolverAddress>::read(written),
        }
    }
}

/// A resolver.
struct ResolverAddress;

impl Syntax for ResolverAddress {
    type Value = SocketAddr;

    const KIND: ValueKind = ValueKind::Address;

    const IF_EMPTY: &'static str = "write system, or a list as in [10.0.0.2:53]";

    fn read(written: Located<'_>) -> Option<SocketAddr> {
        let text = written.text("write ADDRESS:PORT, as in 10.0.0.2:53")?;
        address(&written, text, RESOLVER)
    }
}

/// Names of hosts and their addresses.
pub(super) struct Hosts;

impl Syntax for Hosts {
    type Value = BTreeMap<Arc<str>, Vec<IpAddr>>;

    const KIND: ValueKind = ValueKind::Named("", &OneOrMore::<HostAddress>::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let mut hosts = BTreeMap::new();
        for (entry, written) in written.named()? {
            let Ok(Host::Name(name)) = Host::parse(&entry.key) else {
                written.problem(
                    "the key is not the name of a host",
                    "write a name, as in api.example.test: 192.0.2.1",
                );
                continue;
            };
            let addresses = OneOrMore::<HostAddress>::read(written.clone()).unwrap_or_default();
            match hosts.entry(name) {
                Entry::Occupied(_) => written.problem("the same host stands twice", "keep one of them"),
                Entry::Vacant(vacant) => {
                    vacant.insert(addresses);
                }
            }
        }
        Some(hosts)
    }
}

/// The address of a host, without a port.
struct HostAddress;

impl Syntax for HostAddress {
    type Value = IpAddr;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write at least one address";

    fn read(written: Located<'_>) -> Option<IpAddr> {
        let text = written.text("write an address, as in 192.0.2.1")?;
        let ip = text.parse().ok();
        if ip.is_none() {
            written.problem(
                format_args!("`{}` is no address", shown(text)),
                "write it without a port, as in 192.0.2.1",
            );
        }
        ip
    }
}
