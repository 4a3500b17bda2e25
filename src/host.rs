//! Where a request wants to go, parsed once at the edge.
//!
//! One host has many spellings: letter case, a trailing dot, Unicode, punycode, IPv4 inside IPv6. Every decision
//! (which destination, which credential, which limit) is taken on the one canonical form that [`Host::parse`]
//! makes, and that form is also what is resolved and dialled. A text that some other parser could read as a
//! different host (`0x7f.1`, `127.1`, `[example.com]`, `host%00`) is refused, never guessed at.
//!
//! What may be reached is decided in `policy`, not here.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

#[cfg(test)]
mod tests;

/// Bytes of a name in its dotted form (RFC 1035, section 3.1).
const MAX_NAME: usize = 253;

/// Digits of 65535.
const LONGEST_PORT: usize = 5;

/// Bytes of one label.
const MAX_LABEL: usize = 63;

/// A host in its one canonical form: a lower-case A-label name without trailing dot, or an address.
///
/// An IPv4-mapped IPv6 address is the IPv4 address: the kernel dials the same peer for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Cloned for every request that leaves, so its text is shared.
    Name(Arc<str>),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Scheme, host and port as asked, normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A host pattern of the configuration: `host`, `host:port`, `host:*`, `*.suffix`, an address or a CIDR block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPattern {
    pub(crate) what: Pattern,
    pub(crate) port: PortPattern,
}

/// Which ports of a host a pattern means, from the widest to the most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PortPattern {
    /// `*`
    Any,
    /// Without a port: 80 and 443.
    Usual,
    One(u16),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Host(Host),
    /// `*.example.com`, held as `example.com`: any name below it, not the name itself.
    Suffix(Arc<str>),
    /// Host bits are zero. Matches targets that are written as an address, never a name that resolves into it.
    Network(IpNet),
}

/// Why a text is not a usable host or target. `Display` says what would be right, and does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the host is neither a name, a dotted-quad IPv4 address nor a bracketed IPv6 address")]
    Host,
    #[error("the request target is not an absolute http:// or https:// URL")]
    NotAbsolute,
    #[error("the target of a CONNECT is host:port, without scheme and path")]
    NotAuthority,
    #[error("not a host, a suffix or a network")]
    Pattern,
    #[error("the port is missing or not a number from 1 to 65535")]
    Port,
    #[error("only http and https can be forwarded")]
    Scheme,
    #[error("the target carries a user name or password")]
    Userinfo,
}

impl Host {
    /// Parses the host of an authority: a name, a strict dotted quad, or a bracketed IPv6 address.
    ///
    /// One trailing dot is dropped. A last label that is a number (`127.1`, `0x7f000001`) makes the whole an
    /// address for many parsers, so it must be a strict dotted quad.
    pub(crate) fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner = rest.strip_suffix(']').ok_or(HostError::Host)?;
            // std's parser knows no zone ids, which is what we want: `[fe80::1%25eth0]` is refused.
            let address: Ipv6Addr = inner.parse().map_err(|_| HostError::Host)?;
            return Ok(IpAddr::V6(address).into());
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.')) {
            // A strict dotted quad, or an error.
            return bare.parse().map(Self::V4).map_err(|_| HostError::Host);
        }
        match shape(bare) {
            Shape::Address => bare.parse().map(Self::V4).map_err(|_| HostError::Host),
            Shape::Bad => Err(HostError::Host),
            Shape::Name if bare.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Ok(Self::Name(bare.to_ascii_lowercase().into()))
            }
            Shape::Name => Ok(Self::Name(bare.into())),
            Shape::International => Ok(Self::Name(to_a_labels(text)?)),
        }
    }

    /// Parses `host[:port]`, where `port` stands for one that is not written.
    pub(crate) fn with_port(text: &str, port: u16) -> Result<(Self, u16), HostError> {
        let (host, written) = split_port(text)?;
        Ok((Self::parse(host)?, written.map_or(Ok(port), parse_port)?))
    }

    /// Returns the address, if the host is written as one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address)),
        }
    }

    /// `self == Host::parse(text)`, without allocation for the usual spellings.
    fn is_spelled(&self, text: &str) -> bool {
        match self {
            Self::Name(name) if text.eq_ignore_ascii_case(name) => true,
            _ => Self::parse(text).is_ok_and(|host| host == *self),
        }
    }
}

/// Takes a few instructions for an address, because a host is hashed several times a request. Equality compares the kinds.
impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Name(name) => name.hash(state),
            Self::V4(address) => state.write_u32(address.to_bits()),
            Self::V6(address) => state.write_u128(address.to_bits()),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

/// As in an authority: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

impl Scheme {
    /// Returns the port of an authority that names none.
    pub(crate) const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Target {
    /// Reads the target of an absolute-form request: `http://host[:port]/…` or `https://host[:port]/…`. Drops userinfo.
    pub(crate) fn of_absolute(uri: &http::Uri) -> Result<Self, HostError> {
        let scheme = match uri.scheme_str() {
            None => return Err(HostError::NotAbsolute),
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            Some(_) => return Err(HostError::Scheme),
        };
        // http::Uri's own `host()` and `port()` are lenient (an empty or oversized port is no port), so
        // the authority is read as a whole.
        let authority = uri.authority().ok_or(HostError::NotAbsolute)?.as_str();
        let authority = match position(authority, b'@') {
            // Which of two `@` ends the userinfo is where parsers differ.
            Some(at) if authority[at + 1..].contains('@') => return Err(HostError::Userinfo),
            Some(at) => &authority[at + 1..],
            None => authority,
        };
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => parse_port(port)?,
            None => scheme.default_port(),
        };
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port,
        })
    }

    /// Reads the target of a CONNECT: `host:port`, the port required. Its scheme is [`Scheme::Https`].
    pub(crate) fn of_connect(uri: &http::Uri) -> Result<Self, HostError> {
        if uri.scheme().is_some() || uri.path_and_query().is_some() {
            return Err(HostError::NotAuthority);
        }
        let authority = uri.authority().ok_or(HostError::NotAuthority)?.as_str();
        if authority.contains('@') {
            return Err(HostError::Userinfo);
        }
        let (host, port) = split_port(authority)?;
        let port = parse_port(port.ok_or(HostError::Port)?)?;
        Ok(Self {
            scheme: Scheme::Https,
            host: Host::parse(host)?,
            port,
        })
    }

    /// Whether an authority (a Host field or `:authority`) names this target; its port may be left out
    /// where it is the scheme's default.
    pub(crate) fn is_named_by(&self, authority: &str) -> bool {
        let Ok((host, port)) = split_port(authority) else {
            return false;
        };
        let same_port = match port {
            Some(port) => parse_port(port) == Ok(self.port),
            None => self.port == self.scheme.default_port(),
        };
        same_port && self.host.is_spelled(host)
    }
}

/// `host:port`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl HostPattern {
    /// Parses `host`, `host:port`, `*.suffix`, `*.suffix:port`, an address (IPv6 with or without brackets, with
    /// brackets where a port follows) or a CIDR block (`10.0.0.0/8`, `fd00::/8:8443`); a port may be `*`.
    ///
    /// Names are brought to the same form as those of requests.
    pub(crate) fn parse(text: &str) -> Result<Self, HostError> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self {
                what: Pattern::Host(IpAddr::V6(address).into()),
                port: PortPattern::Usual,
            });
        }
        if text.contains("//") {
            return Err(HostError::Pattern);
        }
        if let Some((address, rest)) = text.split_once('/') {
            let (length, port) = match rest.split_once(':') {
                Some((length, port)) => (length, PortPattern::parse(port)?),
                None => (rest, PortPattern::Usual),
            };
            return Ok(Self {
                what: Pattern::Network(parse_network(address, length)?),
                port,
            });
        }
        let (host, port) = split_port(text).map_err(|_| HostError::Pattern)?;
        let port = port.map_or(Ok(PortPattern::Usual), PortPattern::parse)?;
        let what = match host.strip_prefix("*.") {
            Some(suffix) => match Host::parse(suffix) {
                Ok(Host::Name(name)) => Pattern::Suffix(name),
                // An address has no names below it.
                Ok(Host::V4(_) | Host::V6(_)) | Err(_) => return Err(HostError::Pattern),
            },
            None => Pattern::Host(Host::parse(host).map_err(|_| HostError::Pattern)?),
        };
        Ok(Self { what, port })
    }

    /// Whether it names the host and the port of a target.
    pub(crate) fn covers(&self, target: &Target) -> bool {
        let is_host = match (&self.what, &target.host) {
            (Pattern::Host(own), host) => own == host,
            (Pattern::Suffix(suffix), Host::Name(name)) => name
                .strip_suffix(&**suffix)
                .is_some_and(|rest| rest.ends_with('.')),
            (Pattern::Suffix(_), Host::V4(_) | Host::V6(_)) => false,
            (Pattern::Network(network), host) => host.ip().is_some_and(|ip| network.contains(&ip)),
        };
        is_host && self.port.matches(target.port)
    }
}

/// As written, normalised.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "{host}"),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)?;
        match self.port {
            PortPattern::Any => f.write_str(":*"),
            PortPattern::One(port) => write!(f, ":{port}"),
            PortPattern::Usual => Ok(()),
        }
    }
}

impl PortPattern {
    fn parse(text: &str) -> Result<Self, HostError> {
        match text {
            "*" => Ok(Self::Any),
            port => parse_port(port).map(Self::One),
        }
    }

    pub(crate) fn matches(self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::One(own) => own == port,
            Self::Usual => matches!(port, 80 | 443),
        }
    }
}

/// What a text without brackets and trailing dot can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Its last label is a number: a dotted quad or nothing.
    Address,
    Bad,
    /// Not ASCII, or with a punycode label.
    International,
    /// Plain ASCII labels of letters, digits, hyphens and underscores.
    Name,
}

/// Decides in one pass over the bytes, so that the usual name costs no table look-ups.
fn shape(text: &str) -> Shape {
    if text.len() > MAX_NAME {
        return if text.is_ascii() {
            Shape::Bad
        } else {
            Shape::International
        };
    }
    let mut punycode = false;
    let mut last: &[u8] = &[];
    for label in text.as_bytes().split(|byte| *byte == b'.') {
        let plain = label
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        // Non-ASCII first: a label's length counts in its encoded form.
        if !plain && !label.is_ascii() {
            return Shape::International;
        }
        if !plain || label.is_empty() || label.len() > MAX_LABEL {
            // A later label may be non-ASCII, but this one is wrong in any alphabet.
            return Shape::Bad;
        }
        punycode |= label.len() >= 4 && label[..4].eq_ignore_ascii_case(b"xn--");
        last = label;
    }
    let hex = last.len() >= 2 && last[..2].eq_ignore_ascii_case(b"0x");
    let number = last.iter().all(u8::is_ascii_digit) || (hex && last[2..].iter().all(u8::is_ascii_hexdigit));
    match (number, punycode) {
        (true, _) => Shape::Address,
        (false, true) => Shape::International,
        (false, false) => Shape::Name,
    }
}

/// UTS-46 to A-labels. What it maps to must be a plain name: full-width digits do not make an address.
fn to_a_labels(text: &str) -> Result<Arc<str>, HostError> {
    // A bound before the table work; every character becomes at least one byte of the result or vanishes.
    if text.len() > 4 * MAX_NAME {
        return Err(HostError::Host);
    }
    let ascii = Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map_err(|_| HostError::Host)?;
    // Only now, because an ideographic full stop is a trailing dot as well.
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    match shape(name) {
        Shape::International if name.is_ascii() => Ok(name.into()),
        Shape::Name => Ok(name.into()),
        Shape::Address | Shape::Bad | Shape::International => Err(HostError::Host),
    }
}

/// Splits `host[:port]`; brackets stay with the host. The port may be empty; [`parse_port`] refuses that.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), HostError> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or(HostError::Host)? + 2,
        None => position(authority, b':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(HostError::Host),
    }
}

/// Returns the place of the first such byte. An authority is so short that a plain loop beats a search by blocks.
fn position(text: &str, byte: u8) -> Option<usize> {
    text.bytes().position(|other| other == byte)
}

/// Digits only: no sign, no blank, no leading zero, 1 to 65535.
fn parse_port(text: &str) -> Result<u16, HostError> {
    let digits = text.as_bytes();
    if digits.len() > LONGEST_PORT || digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit)
    {
        return Err(HostError::Port);
    }
    let number = digits
        .iter()
        .fold(0, |number: u32, digit| number * 10 + u32::from(digit - b'0'));
    match u16::try_from(number) {
        Ok(0) | Err(_) => Err(HostError::Port),
        Ok(port) => Ok(port),
    }
}

/// A block by its strict address and prefix length; an IPv4-mapped block is the IPv4 block.
fn parse_network(address: &str, length: &str) -> Result<IpNet, HostError> {
    let address: IpAddr = address.parse().map_err(|_| HostError::Pattern)?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Pattern);
    }
    let length: u8 = length.parse().map_err(|_| HostError::Pattern)?;
    let network = match (address, address.to_canonical()) {
        (IpAddr::V6(_), IpAddr::V4(address)) if length >= MAPPED => {
            Ipv4Net::new(address, length - MAPPED).map(IpNet::V4)
        }
        (IpAddr::V4(address), _) => Ipv4Net::new(address, length).map(IpNet::V4),
        (IpAddr::V6(address), _) => Ipv6Net::new(address, length).map(IpNet::V6),
    };
    network
        .map(|network| network.trunc())
        .map_err(|_| HostError::Pattern)
}

/// Prefix length of `::ffff:0:0/96`, where the IPv4 address begins.
const MAPPED: u8 = 96;
