//! Where a request wants to go, parsed once at the edge.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A host in its one canonical form: a lower-case A-label name without trailing dot, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Name(Box<str>),
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

/// Why a text is no usable host or target. `Display` says what would be right, without echoing the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("the host is neither a name, a dotted-quad IPv4 address nor a bracketed IPv6 address")]
    Host,
    #[error("the request target is not an absolute http:// or https:// URL")]
    NotAbsolute,
    #[error("the port is missing or not a number from 1 to 65535")]
    Port,
    #[error("only http and https can be forwarded")]
    Scheme,
    #[error("the target carries a user name or password")]
    Userinfo,
}

/// A host pattern of the configuration: `host`, `host:port`, `*.suffix`, an address or a CIDR block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPattern {
    pub(crate) what: Pattern,
    /// Without a port: 80 and 443.
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Host(Host),
    /// `*.example.com`, held as `example.com`: any name below it, not the name itself.
    Suffix(Box<str>),
    Network(IpNet),
}

impl Host {
    /// Parses a host as it stands in an authority: a name, a strict dotted quad, or a bracketed IPv6 address.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        todo!("{text}")
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        todo!()
    }
}

/// As in an authority: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        {
            let _ = f;
            todo!()
        }
    }
}

impl Target {
    /// The target of an absolute-form request: `http://host[:port]/…` or `https://host[:port]/…`. Userinfo is dropped.
    pub(crate) fn of_absolute(uri: &http::Uri) -> Result<Self, ParseError> {
        todo!("{uri}")
    }

    /// The target of a CONNECT: `host:port`, the port required. Its scheme is [`Scheme::Https`].
    pub(crate) fn of_connect(uri: &http::Uri) -> Result<Self, ParseError> {
        todo!("{uri}")
    }

    /// Whether an authority (a Host field or `:authority`) names this target; its port may be left out
    /// where it is the scheme's default.
    pub(crate) fn is_named_by(&self, authority: &str) -> bool {
        todo!("{authority}")
    }
}

/// `host:port`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        {
            let _ = f;
            todo!()
        }
    }
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        todo!("{text}")
    }
}

/// As written, normalised.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        {
            let _ = f;
            todo!()
        }
    }
}
