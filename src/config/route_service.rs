//! outrider as a Cloud Foundry route service: the inbound half, a separate app to which routes are bound.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::declare::{Syntax, ValueKind};
use super::network::address;
use super::node::shown;
use super::reader::{Located, SectionReader};
use super::syntax::{Filled, Number, OneOrMore, Switched, is_label};
use super::{Config, DestinationKeys, Listen, ParentChoice, SecretRef, TimeoutOverrides, Tls, TokenUrl};
use crate::host::{HostPattern, Scheme};
use crate::units::Rate;

/// The name of the route service in metrics and logs, and of its section.
pub(crate) const ROUTE_SERVICE: &str = "route_service";

/// The example of an address in a problem. It is the port that the platform gives every app.
const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

const MOST_HOPS: u64 = 32;
const LARGEST_SKEW: Duration = Duration::from_secs(300);

section! {
    /// The route service: who may come through it, and to which hosts.
    pub(crate) struct RouteServiceKeys, check {
        /// Where the platform's router connects. $PORT is the port that the platform gives the app; 8080 where it is not set.
        listen: SocketAddr as PlatformAddress = "0.0.0.0:$PORT";
        /// The hosts that X-CF-Forwarded-Url may name, written as the hosts of a destination: those of the bound routes.
        to: Vec<HostPattern> as Filled<HostPattern> = required "write to: [app.example.gov]";
        /// Addresses and blocks from which clients may come; default: all, which needs `auth`.
        allow: Vec<IpNet> as Filled<AddressRange>;
        /// Which entry of X-Forwarded-For is the client, counted from the end: how many trusted proxies have added one;
        /// default: 1, the last.
        trusted_hops: Option<usize> as Number<usize, 1, MOST_HOPS>;
        /// In its place, the addresses of the trusted proxies: the last entry that is not one of them is the client.
        trusted_networks: Vec<IpNet> as Filled<AddressRange>;
        /// How clients show who they are, in Authorization; off: they need not, which needs `allow`.
        auth: Option<RouteAuth> as Switched<RouteAuth> = "off";
        /// As in 10/s burst 20: how often each client may come. A client is an IPv4 address, or a /64 network of IPv6.
        rate_limit: Option<Rate>;
        /// The path at which the platform asks whether the service runs; off: none.
        health: Option<String> as Switched<HealthPath> = "/healthz";
        /// How TLS is spoken to the router that X-CF-Forwarded-Url leads to.
        tls: Tls = "{}";
        /// true: a URL with http:// is asked for over https://, because the request carries the router's signature.
        upgrade: bool = "true";
        /// The proxy that the router is reached through: inherit (egress.parent), none, or as egress.parent is written.
        parent: ParentChoice = "inherit";
        /// Where they differ from the ones of the whole file.
        timeouts: TimeoutOverrides = "{}";
    }
}

section! {
    /// What clients of the route service have to show in Authorization; one of what is written is enough.
    pub(crate) struct RouteAuth, check {
        /// Passwords by user name (RFC 7617). The name is the label in metrics and logs.
        basic: Vec<(Arc<str>, SecretRef)> as BasicUsers = "{}";
        /// A token, or several (RFC 6750).
        bearer: Vec<SecretRef> as OneOrMore<SecretRef>;
        /// Tokens of an issuer: JSON Web Tokens (RFC 7519).
        jwt: Option<Box<TokenRules>>;
        /// true: Authorization goes on to the app as it came; else it is for the route service alone.
        forward: bool = "false";
    }
}

section! {
    /// Which JSON Web Tokens are taken. They have to say exp, iss and aud.
    pub(crate) struct TokenRules {
        /// The issuer's public keys, as a JSON Web Key Set: its https:// URL, or a reference.
        jwks: JwksPlace = required "write jwks: https://login.example.gov/keys, or file:PATH";
        /// What iss has to say.
        issuer: String as NonEmpty = required "write issuer: https://login.example.gov";
        /// What aud has to say: one text or several, any of which will do.
        audience: Vec<String> as OneOrMore<NonEmpty> = required "write audience: my-app";
        /// The algorithms that are taken, as RFC 7518 and 8037 call them.
        algorithms: Vec<jsonwebtoken::Algorithm> as Filled<TokenAlgorithm>
            = "[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]";
        /// How far the clocks of issuer and route service may be apart; up to 5m.
        skew: Duration as ClockSkew = "30s";
    }
}

words! {
    /// Algorithms with a public key. A key for HMAC could be used to sign by everybody who reads it.
    TokenAlgorithm: jsonwebtoken::Algorithm {
        "RS256" = jsonwebtoken::Algorithm::RS256,
        "RS384" = jsonwebtoken::Algorithm::RS384,
        "RS512" = jsonwebtoken::Algorithm::RS512,
        "PS256" = jsonwebtoken::Algorithm::PS256,
        "PS384" = jsonwebtoken::Algorithm::PS384,
        "PS512" = jsonwebtoken::Algorithm::PS512,
        "ES256" = jsonwebtoken::Algorithm::ES256,
        "ES384" = jsonwebtoken::Algorithm::ES384,
        "EdDSA" = jsonwebtoken::Algorithm::EdDSA,
    }
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwksPlace {
    Issuer(TokenUrl),
    Reference(SecretRef),
}

impl Syntax for JwksPlace {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Any(&[TokenUrl::KIND, ValueKind::Secret]);

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write the https:// URL of the issuer's keys, or file:PATH";
        let text = written.text(right)?;
        if let Some(reference) = written.reference(text) {
            return reference.map(Self::Reference);
        }
        let url = TokenUrl::read(written.clone())?;
        if url.target.scheme == Scheme::Http {
            written.problem("http:// would let everybody on the way put in keys of his", right);
            return None;
        }
        Some(Self::Issuer(url))
    }
}

/// A text that is not empty.
struct NonEmpty;

impl Syntax for NonEmpty {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write what the tokens say";

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text(Self::IF_EMPTY)?;
        if text.is_empty() {
            written.problem("an empty text", Self::IF_EMPTY);
            return None;
        }
        Some(text.to_owned())
    }
}

/// How far two clocks may be apart.
struct ClockSkew;

impl Syntax for ClockSkew {
    type Value = Duration;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Duration> {
        let skew = written.clone().duration()?;
        if skew > LARGEST_SKEW {
            written.problem("tokens would be taken long after their time", "write 5m or less");
            return None;
        }
        Some(skew)
    }
}

impl RouteServiceKeys {
    /// Returns what the section says in the words of a destination.
    pub(crate) fn as_destination(&self) -> DestinationKeys {
        DestinationKeys {
            parent: self.parent.clone(),
            timeouts: self.timeouts,
            tls: Some(Arc::new(self.tls.clone())),
            ..DestinationKeys::unwritten(ROUTE_SERVICE)
        }
    }

    fn check(&self, reader: &SectionReader<'_>) {
        if self.allow.is_empty() && self.auth.is_none() {
            reader.problem(
                "nothing says who may come, so everybody could",
                "write the addresses of clients under `allow`, or what they have to show under `auth`; where everybody should, \
                 allow: [0.0.0.0/0, \"::/0\"]",
            );
        }
        if self.trusted_hops.is_some()
            && let Some(written) = reader.take("trusted_networks")
        {
            written.problem(
                "`trusted_hops` says already which entry is the client",
                "keep one of the two",
            );
        }
    }
}

impl RouteAuth {
    /// Returns every reference to a secret, with its place.
    pub(crate) fn references(&self) -> Vec<(String, &SecretRef)> {
        let users = self.basic.iter();
        let users = users.map(|(name, reference)| (format!("basic.{name}"), reference));
        let keys = self.jwt.iter().filter_map(|rules| match &rules.jwks {
            JwksPlace::Issuer(_) => None,
            JwksPlace::Reference(reference) => Some(("jwt.jwks".to_owned(), reference)),
        });
        users.chain(self.bearer_tokens()).chain(keys).collect()
    }

    pub(crate) fn bearer_tokens(&self) -> impl Iterator<Item = (String, &SecretRef)> {
        let is_one = self.bearer.len() == 1;
        self.bearer.iter().enumerate().map(move |(i, reference)| {
            let place = if is_one {
                "bearer".to_owned()
            } else {
                format!("bearer[{i}]")
            };
            (place, reference)
        })
    }

    fn check(&self, reader: &SectionReader<'_>) {
        if self.references().is_empty() && self.jwt.is_none() {
            reader.problem(
                "nothing says what has to be shown",
                "write basic: { NAME: env:PASSWORD }, bearer: env:TOKEN or jwt below it, or auth: off",
            );
        }
    }
}

/// Passwords by the names of their users.
struct BasicUsers;

impl Syntax for BasicUsers {
    type Value = Vec<(Arc<str>, SecretRef)>;

    const KIND: ValueKind = ValueKind::Named("^[a-z0-9_-]{1,63}$", &SecretRef::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let users = written.named()?.into_iter().map(|(entry, written)| {
            if !is_label(&entry.key) || entry.key.is_empty() {
                written.problem(
                    "not a name for a user",
                    "use at most 63 of a to z, 0 to 9, - and _",
                );
            }
            Some((entry.key.as_str().into(), written.secret()?))
        });
        // All are read, so that the problems of all are found.
        let users: Vec<_> = users.collect();
        users.into_iter().collect()
    }
}

/// Where the platform's router connects.
struct PlatformAddress;

impl Syntax for PlatformAddress {
    type Value = SocketAddr;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<SocketAddr> {
        let text = written.text("write an address with its port, as in 0.0.0.0:$PORT")?;
        let port = written.decoding.environment.variable("PORT");
        let port = port.and_then(|port| port.into_string().ok());
        // Read for another machine, a variable stands for itself.
        let port = port.filter(|port| port.parse::<u16>().is_ok());
        let port = port.unwrap_or_else(|| EVERYWHERE.port().to_string());
        let text = text.replace("${PORT}", &port).replace("$PORT", &port);
        address(&written, &text, EVERYWHERE)
    }
}

/// The path of a health check.
struct HealthPath;

impl Syntax for HealthPath {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let right = "write a path, as in /healthz, or off";
        let text = written.text(right)?;
        let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path || text.contains(['?', '#']) {
            written.problem(format_args!("`{}` is not a path", shown(text)), right);
            return None;
        }
        Some(text.to_owned())
    }
}

/// An address or a block of addresses.
struct AddressRange;

impl Syntax for AddressRange {
    type Value = IpNet;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write at least one, as in [203.0.113.0/24]";

    fn read(written: Located<'_>) -> Option<IpNet> {
        let right = "write an address or a block, as in 203.0.113.7 or 203.0.113.0/24";
        let text = written.text(right)?;
        let range = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(|one| IpNet::from(one.to_canonical())));
        if range.is_err() {
            written.problem(
                format_args!("`{}` is neither an address nor a block", shown(text)),
                right,
            );
        }
        range.ok().map(|range| range.trunc())
    }
}

impl Config {
    /// Checks that the route service has a port for itself.
    pub(super) fn check_route_service(&self, reader: &SectionReader<'_>) {
        let own = self.route_service.as_ref().map(|own| own.listen);
        let Some(own) = own.filter(|own| own.port() != 0) else {
            return;
        };
        let meets = |other: SocketAddr| {
            let is_same = |other: SocketAddr| other.ip() == own.ip() || other.ip().is_unspecified();
            other.port() == own.port() && (is_same(other) || own.ip().is_unspecified())
        };
        let of_listen = |listen: &Listen| listen.address().is_some_and(meets);
        let taken = if self.listen.iter().any(of_listen) {
            "listen".to_owned()
        } else if self.admin.is_some_and(meets) {
            "admin".to_owned()
        } else if let Some(entry) = self.tcp.iter().find(|entry| of_listen(&entry.listen)) {
            format!("tcp.{}", entry.name)
        } else {
            return;
        };
        if let Some(written) = reader.take(ROUTE_SERVICE) {
            written.problem(
                format_args!("its port is that of {taken}, too"),
                "write another port for one of them",
            );
        }
    }
}
