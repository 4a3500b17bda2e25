//! Why a parent brought us nowhere: who refused, and what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::Parent;
use crate::config::ParentScheme;
use crate::host::Target;
use crate::policy::Denial;
use crate::upstream::{Error, dial, resolve, tls};

/// A failure of a parent, or one that it reports. `Display` is a sentence for the developer of the app.
#[derive(Debug)]
pub(crate) struct ParentError {
    fault: ParentFault,
    /// The parents that have failed in the end.
    tried: usize,
    /// `host:port`
    name: Arc<str>,
    scheme: ParentScheme,
    target: Target,
}

/// What happened at a parent.
#[derive(Debug)]
pub(super) enum ParentFault {
    Answered {
        status: StatusCode,
        meaning: Meaning,
    },
    /// The connection ended without an answer.
    Closed,
    /// The tunnel was opened, and ended without a byte.
    ClosedTunnel,
    /// 407, or another answer that means the same. `has_some`: we sent credentials.
    Credentials {
        has_some: bool,
    },
    /// Our own rules: it would be a loop, or a metadata service.
    Denied(Denial),
    Dial(dial::Error),
    Dns(resolve::Error),
    /// Not HTTP, or too large.
    Malformed(String),
    NotSocks,
    /// The tunnel was opened, and what came through it is no TLS.
    NoTls,
    /// No answer within this time.
    Silent(Duration),
    /// The reply of a SOCKS5 server.
    Socks(u8),
    Tls(Box<tls::Error>),
}

/// What an HTTP parent means by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It has too much to do.
    Busy,
    /// It could not reach the target, and does not say why.
    Dead,
    /// Its rules deny the target.
    Denied,
    /// Either of the two, and it does not say which.
    DeniedOrDead,
    /// It leads back to us.
    Loop,
    /// The target's name does not resolve there.
    NoName,
    /// It does not serve such requests: it is no proxy, or another one.
    NoProxy,
    /// The platform answers in its place.
    NotRunning,
    /// The target refused it.
    Refused,
    /// The target did not answer it in time.
    TimedOut,
    /// It is another outrider, and knows us by no certificate.
    UnknownClient,
    /// It has no such page: it is no proxy.
    WebServer,
}

/// Who has to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The parent has failed: another one may work.
    Parent,
    /// The parent has failed, or the target has: the parent does not say.
    Unclear,
    /// The parent works, and the target was not reached.
    Target,
}

impl ParentError {
    pub(super) fn new(parent: &Parent, target: &Target, fault: ParentFault) -> Self {
        Self {
            fault,
            tried: 1,
            name: Arc::clone(&parent.name),
            scheme: parent.scheme,
            target: target.clone(),
        }
    }

    /// Notes that so many parents failed, of which this was the first.
    pub(super) fn after(self, tried: usize) -> Self {
        Self { tried, ..self }
    }

    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match &self.fault {
            ParentFault::Answered { meaning, .. } => match meaning {
                Meaning::Busy
                | Meaning::Dead
                | Meaning::Denied
                | Meaning::DeniedOrDead
                | Meaning::NotRunning => "destination_unavailable",
                Meaning::Loop => "proxy_loop_detected",
                Meaning::NoName => "dns_error",
                Meaning::NoProxy | Meaning::UnknownClient | Meaning::WebServer => "proxy_configuration_error",
                Meaning::Refused => "connection_refused",
                Meaning::TimedOut => "connection_timeout",
            },
            ParentFault::Closed | ParentFault::ClosedTunnel => "connection_terminated",
            ParentFault::Credentials { .. } => "proxy_configuration_error",
            ParentFault::Denied(Denial::Loop { .. }) => "proxy_loop_detected",
            ParentFault::Denied(_) => "proxy_configuration_error",
            ParentFault::Dial(error) => error.proxy_status(),
            ParentFault::Dns(error) => error.proxy_status(),
            ParentFault::Malformed(_) | ParentFault::NotSocks => "http_protocol_error",
            ParentFault::NoTls => "tls_protocol_error",
            ParentFault::Silent(_) => "connection_timeout",
            ParentFault::Socks(reply) => match reply {
                4 => "dns_error",
                5 => "connection_refused",
                6 => "connection_timeout",
                _ => "destination_unavailable",
            },
            ParentFault::Tls(error) => error.proxy_status(),
        }
    }

    #[cfg(test)]
    pub(super) fn fault_for_tests(&self) -> &ParentFault {
        &self.fault
    }

    pub(crate) fn timed_out(&self) -> bool {
        match &self.fault {
            ParentFault::Answered { meaning, .. } => *meaning == Meaning::TimedOut,
            ParentFault::Dial(dial::Error::Timeout { .. })
            | ParentFault::Dns(resolve::Error::Timeout { .. })
            | ParentFault::Silent(_)
            | ParentFault::Socks(6) => true,
            ParentFault::Tls(error) => matches!(**error, tls::Error::Timeout { .. }),
            ParentFault::Closed
            | ParentFault::ClosedTunnel
            | ParentFault::Credentials { .. }
            | ParentFault::Denied(_)
            | ParentFault::Dial(_)
            | ParentFault::Dns(_)
            | ParentFault::Malformed(_)
            | ParentFault::NoTls
            | ParentFault::NotSocks
            | ParentFault::Socks(_) => false,
        }
    }

    /// Returns the word for logs.
    pub(crate) fn fault(&self) -> &'static str {
        self.fault.words().1
    }

    /// Whether the target has failed, as far as the parent says. Not where its rules deny the target, or may do so.
    pub(crate) fn is_failure_of_target(&self) -> bool {
        match &self.fault {
            ParentFault::Answered { meaning, .. } => matches!(
                meaning,
                Meaning::Dead | Meaning::NoName | Meaning::Refused | Meaning::TimedOut
            ),
            ParentFault::Socks(reply) => matches!(reply, 1 | 3..=6),
            ParentFault::Closed
            | ParentFault::ClosedTunnel
            | ParentFault::Credentials { .. }
            | ParentFault::Denied(_)
            | ParentFault::Dial(_)
            | ParentFault::Dns(_)
            | ParentFault::Malformed(_)
            | ParentFault::NoTls
            | ParentFault::NotSocks
            | ParentFault::Silent(_)
            | ParentFault::Tls(_) => false,
        }
    }
}

impl ParentFault {
    /// Returns the label of the metric: a closed set.
    pub(super) fn result(&self) -> &'static str {
        self.words().0
    }

    /// Returns the label of the metric, and the word for logs.
    fn words(&self) -> (&'static str, &'static str) {
        const CREDENTIALS: (&str, &str) = ("credentials", "parent_credentials");
        const DENIED: (&str, &str) = ("denied", "parent_denied");
        const NO_PROXY: (&str, &str) = ("no_proxy", "parent_no_proxy");
        const TARGET_DNS: (&str, &str) = ("target_dns", "parent_target");
        const TARGET_REFUSED: (&str, &str) = ("target_refused", "parent_target");
        const TARGET_TIMEOUT: (&str, &str) = ("target_timeout", "parent_target");
        const TARGET_UNREACHABLE: (&str, &str) = ("target_unreachable", "parent_target");
        const UNREACHABLE: (&str, &str) = ("unreachable", "parent_unreachable");
        match self {
            Self::Answered { meaning, .. } => match meaning {
                Meaning::Busy => ("busy", "parent_busy"),
                Meaning::Dead => TARGET_UNREACHABLE,
                Meaning::Denied | Meaning::DeniedOrDead => DENIED,
                Meaning::Loop => ("loop", "parent_loop"),
                Meaning::NoName => TARGET_DNS,
                Meaning::NoProxy | Meaning::WebServer => NO_PROXY,
                Meaning::NotRunning => UNREACHABLE,
                Meaning::Refused => TARGET_REFUSED,
                Meaning::TimedOut => TARGET_TIMEOUT,
                Meaning::UnknownClient => CREDENTIALS,
            },
            Self::Closed => ("closed", "parent_closed"),
            Self::ClosedTunnel | Self::NoTls => ("closed_tunnel", "parent_closed_tunnel"),
            Self::Credentials { .. } => CREDENTIALS,
            Self::Denied(_) => ("not_allowed", "parent_not_allowed"),
            Self::Dial(_) | Self::Dns(_) => UNREACHABLE,
            Self::Malformed(_) => ("malformed", "parent_malformed"),
            Self::NotSocks => NO_PROXY,
            Self::Silent(_) => ("silent", "parent_silent"),
            Self::Socks(reply) => match reply {
                2 => DENIED,
                3 | 4 => TARGET_DNS,
                5 => TARGET_REFUSED,
                6 => TARGET_TIMEOUT,
                7 => NO_PROXY,
                _ => TARGET_UNREACHABLE,
            },
            Self::Tls(_) => ("tls", "parent_tls"),
        }
    }

    /// Whether the parent itself has failed, so that the next one is tried.
    pub(super) fn is_of_parent(&self) -> bool {
        self.side() == Side::Parent
    }

    /// Whether the parent works, and the target has failed or is denied.
    pub(super) fn is_of_target(&self) -> bool {
        self.side() == Side::Target
    }

    /// Whether the next parent is tried although this one may work.
    pub(super) fn may_be_of_parent(&self) -> bool {
        matches!(self, Self::Closed)
    }

    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Silent(_))
    }

    /// Returns the scheme that the parent may speak instead, where the fault looks like it; else nothing.
    pub(super) fn other_scheme(&self, scheme: ParentScheme) -> &'static str {
        match (scheme, self) {
            (
                ParentScheme::Http,
                Self::Closed
                | Self::Answered {
                    status: StatusCode::BAD_REQUEST,
                    ..
                },
            ) => "; if its port speaks TLS, write https://",
            (ParentScheme::Http, Self::Malformed(_)) => {
                "; if its port speaks TLS, write https://, and if it speaks SOCKS5, socks5://"
            }
            (ParentScheme::Https, Self::Tls(error)) if error.may_be_without_tls() => {
                "; if its port speaks no TLS, write http://, and if it speaks SOCKS5, socks5://"
            }
            (ParentScheme::Socks5, Self::Closed | Self::NotSocks | Self::Silent(_)) => {
                "; if it is an HTTP proxy, write http://, and if its port speaks TLS, https://"
            }
            _ => "",
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Answered { meaning, .. } => match meaning {
                Meaning::Busy
                | Meaning::Loop
                | Meaning::NoProxy
                | Meaning::NotRunning
                | Meaning::UnknownClient
                | Meaning::WebServer => Side::Parent,
                Meaning::Dead
                | Meaning::Denied
                | Meaning::DeniedOrDead
                | Meaning::NoName
                | Meaning::Refused
                | Meaning::TimedOut => Side::Target,
            },
            Self::Credentials { .. }
            | Self::Denied(_)
            | Self::Dial(_)
            | Self::Dns(_)
            | Self::Malformed(_)
            | Self::NotSocks
            | Self::Tls(_) => Side::Parent,
            Self::Closed | Self::ClosedTunnel | Self::NoTls | Self::Silent(_) => Side::Unclear,
            Self::Socks(7) => Side::Parent,
            Self::Socks(_) => Side::Target,
        }
    }
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, target, .. } = self;
        let scheme = self.scheme.as_str();
        write!(
            f,
            "through the parent proxy {scheme}://{name} to {target}: {}{}",
            self.fault,
            self.fault.other_scheme(self.scheme)
        )?;
        match self.tried {
            0 | 1 => Ok(()),
            several => write!(
                f,
                "; all {several} parents failed, and nothing is sent around them"
            ),
        }
    }
}

impl fmt::Display for ParentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { status, meaning } => {
                write!(f, "the parent answered {}: {}", status.as_str(), meaning.words())
            }
            Self::Closed => f.write_str(
                "the parent closed the connection without an answer; pproxy and proxy-chain do that where the destination \
                 cannot be reached, and any parent when it is stopped: see its log",
            ),
            Self::ClosedTunnel => f.write_str(
                "the parent opened the tunnel and closed it without a byte; Traffic Server does that where the destination \
                 cannot be reached, and Caddy with probe resistance where it does not know our credentials: see the \
                 destination's host and port, then the credentials of the parent, then its log",
            ),
            Self::Credentials { has_some: true } => f.write_str(
                "the parent does not accept our credentials; see the user and the password in its URL or beside it",
            ),
            Self::Credentials { has_some: false } => f.write_str(
                "the parent wants credentials and has none from us; put them into its URL, kept in a variable or a bound \
                 service, or write { url: …, username: NAME, password: env:NAME }",
            ),
            Self::Denied(denial) => write!(f, "the parent's own address may not be reached: {}", refused(denial)),
            Self::Dial(error) => write!(f, "the parent cannot be reached: {error}"),
            Self::Dns(error) => write!(f, "the parent cannot be reached: {error}"),
            Self::Malformed(what) => write!(
                f,
                "the parent's answer cannot be read ({what}); see that it is an HTTP proxy, and its port"
            ),
            Self::NotSocks => f.write_str(
                "the parent does not answer as a SOCKS5 server does; see its port",
            ),
            Self::NoTls => f.write_str(
                "the parent opened the tunnel, and what came through it is no TLS; see that the destination speaks TLS on \
                 this port, and, with Caddy's probe resistance, the credentials of the parent",
            ),
            Self::Silent(limit) => write!(
                f,
                "the parent did not answer within {} (twice timeouts.connect); mostly the destination does not answer it: see \
                 that it can reach this host and port, or that it does not hang",
                humantime::format_duration(*limit)
            ),
            Self::Socks(reply) => write!(f, "the parent replied {reply}: {}", words_of_socks(*reply)),
            Self::Tls(error) => write!(f, "TLS to the parent failed: {}", keys_of_parent(&error.to_string())),
        }
    }
}

impl Meaning {
    fn words(self) -> &'static str {
        match self {
            Self::Busy => "it has too much to do; try again later, or have another one beside it",
            Self::Dead => {
                "it could not reach the destination; see the destination's name, host and port from there, and the parent's \
                 log"
            }
            Self::Denied => "its rules deny this destination; have the host and the port allowed there",
            Self::DeniedOrDead => {
                "it says so where its rules deny the destination (host or port not in its list), and also where no address of \
                 the destination could be reached; have both allowed there, then see whether the destination is up"
            }
            Self::Loop => {
                "the request has come back to outrider; see that nothing sends outrider's own requests to it"
            }
            Self::NoName => {
                "the destination's name does not resolve there; see its spelling, or, for a name that only this side knows, \
                 add it to egress.parent_bypass"
            }
            Self::NoProxy => {
                "it does not serve such a request; see that this is a proxy, that it allows CONNECT, and its port"
            }
            Self::NotRunning => {
                "the platform's router answers in its place; see that the parent's app runs and its route is right"
            }
            Self::Refused => {
                "the destination refused its connection; see the destination's port, and that it is up"
            }
            Self::TimedOut => "the destination did not answer it in time; see the firewalls between the two",
            Self::UnknownClient => {
                "it is an outrider that serves its clients only, and our certificate is that of none; see client_certificate \
                 under tls of this parent, and clients there"
            }
            Self::WebServer => {
                "it answers like a web server, not a proxy; see the host and the port of the parent, and that it allows CONNECT"
            }
        }
    }
}

/// Explains why a parent may not be at its address. No list of networks changes that.
pub(super) fn refused(denial: &Denial) -> String {
    match denial {
        Denial::Network { address, class } => format!(
            "the address {address} is in a network where no parent may be ({class}), whatever egress.allow_networks holds; \
             name another proxy"
        ),
        Denial::Loop { address } => format!(
            "{address} is a listener of outrider itself, which cannot be its own parent; name another proxy"
        ),
        other => other.to_string(),
    }
}

/// Names the keys of a parent in place of those of a destination.
pub(super) fn keys_of_parent(text: &str) -> String {
    let text = text.replace("tls.ca or tls.ca_extra", "tls.ca");
    let text = text
        .replace("in tls.ca", "in egress.parent_ca")
        .replace("set tls.ca", "set egress.parent_ca")
        .replace("this destination", "this parent");
    if text.contains("egress.parent_ca") {
        format!("{text} (or in tls.ca of the parent, written as {{ url: …, tls: {{ ca: file:PATH }} }})")
    } else if text.contains("set tls.") {
        format!("{text} (of the parent, written as {{ url: …, tls: {{ … }} }})")
    } else {
        text
    }
}

fn words_of_socks(reply: u8) -> &'static str {
    match reply {
        1 => {
            "it failed and does not say why; microsocks says so where the destination's name does not resolve"
        }
        2 => Meaning::Denied.words(),
        3 => {
            "the destination's network cannot be reached from there, or, with simple-socks, its name does not resolve"
        }
        4 => "the destination's host cannot be reached from there, or its name does not resolve",
        5 => Meaning::Refused.words(),
        6 => Meaning::TimedOut.words(),
        7 => "it does not serve CONNECT; see that this is a SOCKS5 proxy for TCP",
        8 => "it cannot reach this kind of address; many reach IPv4 only",
        _ => "no reply that RFC 1928 knows; see its log",
    }
}

impl std::error::Error for ParentError {}

impl From<ParentError> for Error {
    fn from(error: ParentError) -> Self {
        Self::Parent(Box::new(error))
    }
}

impl From<Denial> for ParentFault {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<dial::Error> for ParentFault {
    fn from(error: dial::Error) -> Self {
        Self::Dial(error)
    }
}

impl From<resolve::Error> for ParentFault {
    fn from(error: resolve::Error) -> Self {
        Self::Dns(error)
    }
}

impl From<Box<tls::Error>> for ParentFault {
    fn from(error: Box<tls::Error>) -> Self {
        Self::Tls(error)
    }
}
