//! The hosts under which the admin port may be requested.
//!
//! A web page can make a browser request any address, but can read only answers of the same origin. With DNS
//! rebinding an attacker lets his own name resolve to our address, so that our pages belong to his origin;
//! `Host` then has that name. Therefore the admin port answers only to names that nobody else can point at it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Version};
use serde_json::Value;

use crate::host::Host;

/// The names and addresses that `Host` may have: loopback, the addresses of the admin port, the routes of the
/// app. Any port is allowed, because the port may have been forwarded.
#[derive(Clone, Debug)]
pub(crate) struct AllowedHosts {
    listening: Option<IpAddr>,
    /// The local address of the connection: it differs from `listening` if that is a wildcard address.
    reached: Option<IpAddr>,
    routes: Arc<[Arc<str>]>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRejection {
    /// Its host is not one of ours.
    Foreign,
    /// It has no Host, or more than one.
    Malformed,
}

impl AllowedHosts {
    /// Builds the set from the listening address and the routes in `VCAP_APPLICATION` (Cloud Foundry).
    pub(crate) fn new(listening: Option<SocketAddr>, application: Option<&str>) -> Self {
        Self {
            listening: listening.map(|address| address.ip().to_canonical()),
            reached: None,
            routes: application.map(routes).unwrap_or_default().into(),
        }
    }

    /// Adds the local address of a connection.
    pub(super) fn for_connection(&self, reached: Option<SocketAddr>) -> Self {
        Self {
            reached: reached.map(|address| address.ip().to_canonical()),
            ..self.clone()
        }
    }

    /// Checks the host of a request. HTTP/1.0 may omit it: no browser is so old.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), HostRejection> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let is_named = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().is_ok_and(|host| self.is_named_by(host)),
            (None, _) if request.version() == Version::HTTP_10 => true,
            (None, _) | (_, Some(_)) => return Err(HostRejection::Malformed),
        };
        let authority = request.uri().authority();
        if is_named && authority.is_none_or(|authority| self.is_named_by(authority.as_str())) {
            Ok(())
        } else {
            Err(HostRejection::Foreign)
        }
    }

    fn is_named_by(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        // `host()` leaves out user information, and text between the bracket of an address and its port.
        let port = authority.as_str().strip_prefix(authority.host());
        let is_port = |rest: &str| match rest.strip_prefix(':') {
            Some(digits) => digits.parse::<u16>().is_ok(),
            None => rest.is_empty(),
        };
        if !port.is_some_and(is_port) {
            return false;
        }
        match Host::parse(authority.host()) {
            Ok(Host::Name(name)) => {
                is_localhost(&name) || self.routes.iter().any(|route| is_route(&name, route))
            }
            Ok(Host::V4(address)) => self.is_at(address.into()),
            Ok(Host::V6(address)) => self.is_at(address.into()),
            Err(_) => false,
        }
    }

    fn is_at(&self, address: IpAddr) -> bool {
        address.is_loopback() || [self.listening, self.reached].contains(&Some(address))
    }
}

/// Returns whether a name resolves only to loopback (RFC 6761 section 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Returns whether a name is a route or one of its instances: the platform's DNS also has `0.app.apps.internal`.
fn is_route(name: &str, route: &str) -> bool {
    match name.strip_suffix(route) {
        Some("") => true,
        Some(rest) => rest
            .strip_suffix('.')
            .is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit())),
        None => false,
    }
}

/// Reads the hosts of the app's routes, which may be written with a port or a path.
fn routes(application: &str) -> Vec<Arc<str>> {
    let application: Value = serde_json::from_str(application).unwrap_or_default();
    let written = application["application_uris"].as_array().into_iter().flatten();
    written
        .filter_map(Value::as_str)
        .filter_map(|route| route.split(['/', ':']).next())
        .filter_map(|host| match Host::parse(host) {
            Ok(Host::Name(name)) => Some(name),
            Ok(Host::V4(_) | Host::V6(_)) | Err(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLICATION: &str = r#"{"application_name": "app", "application_uris":
        ["app.apps.internal", "shop.example.gov/api", "tcp.example.gov:1024", "10.1.2.3", 7]}"#;

    fn hosts(listening: &str, reached: &str) -> AllowedHosts {
        let address = |text: &str| Some(text.parse().unwrap());
        AllowedHosts::new(address(listening), Some(APPLICATION)).for_connection(address(reached))
    }

    fn checked(
        allowed: &AllowedHosts,
        version: Version,
        uri: &str,
        hosts: &[&str],
    ) -> Result<(), HostRejection> {
        let mut request = Request::get(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        allowed.check(&request.body(()).unwrap())
    }

    #[test]
    fn only_names_that_nobody_else_can_point_here_are_answered() {
        let loopback = hosts("127.0.0.1:9901", "127.0.0.1:9901");
        let everywhere = hosts("0.0.0.0:9901", "10.255.7.9:9901");
        let both = hosts("[::]:9901", "[::ffff:10.255.7.9]:9901");
        for (allowed, host, is_allowed) in [
            (&loopback, "127.0.0.1:9901", true),
            (&loopback, "127.0.0.1", true),
            (&loopback, "127.9.9.9:1", true),
            (&loopback, "localhost:9901", true),
            (&loopback, "LocalHost.", true),
            (&loopback, "metrics.localhost:80", true),
            (&loopback, "[::1]:9901", true),
            (&loopback, "[::ffff:127.0.0.1]:9901", true),
            (&loopback, "app.apps.internal:9901", true),
            (&loopback, "3.APP.apps.internal:9901", true),
            (&loopback, "shop.example.gov", true),
            (&loopback, "tcp.example.gov:9901", true),
            (&everywhere, "10.255.7.9:9901", true),
            (&everywhere, "0.0.0.0:9901", true),
            (&everywhere, "127.0.0.1:9901", true),
            (&both, "10.255.7.9", true),
            (&both, "[::]:9901", true),
            (&loopback, "", false),
            (&loopback, "evil.example", false),
            (&loopback, "evil.example:9901", false),
            (&loopback, "localhost.evil.example", false),
            (&loopback, "127.0.0.1.evil.example", false),
            (&loopback, "evillocalhost", false),
            (&loopback, ".localhost", false),
            (&loopback, "localhost@evil.example", false),
            (&loopback, "evil.example@localhost", false),
            (&loopback, "localhost, evil.example", false),
            (&loopback, "localhost:9901:80", false),
            (&loopback, "localhost/", false),
            (&loopback, "evil.app.apps.internal", false),
            (&loopback, "x3.app.apps.internal", false),
            (&loopback, "3app.apps.internal", false),
            (&loopback, "apps.internal", false),
            (&loopback, "10.1.2.3", false),
            (&loopback, "10.255.7.9:9901", false),
            (&loopback, "0.0.0.0:9901", false),
            (&loopback, "[::1", false),
            (&loopback, "[::1]evil.example", false),
            (&loopback, "[::1].evil.example:80", false),
            (&loopback, "localhost:evil.example", false),
            (&loopback, "127.0.0.1:99999", false),
            (&loopback, "2130706433", false),
            (&everywhere, "10.255.7.8:9901", false),
            (&everywhere, "evil.example:9901", false),
        ] {
            let expected = is_allowed.then_some(()).ok_or(HostRejection::Foreign);
            for version in [Version::HTTP_10, Version::HTTP_11] {
                assert_eq!(
                    checked(allowed, version, "/metrics", &[host]),
                    expected,
                    "{host:?} for {allowed:?}"
                );
            }
            if !host.is_empty() && host.parse::<Authority>().is_ok() {
                let uri = format!("http://{host}/metrics");
                assert_eq!(
                    checked(allowed, Version::HTTP_11, &uri, &["localhost"]),
                    expected,
                    "{uri}"
                );
            }
        }
        let hostless = AllowedHosts::new(None, None);
        assert_eq!(checked(&hostless, Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(
            checked(&hostless, Version::HTTP_11, "/", &[]),
            Err(HostRejection::Malformed)
        );
        for hosts in [["localhost", "localhost"], ["localhost", "evil.example"]] {
            assert_eq!(
                checked(&hostless, Version::HTTP_11, "/", &hosts),
                Err(HostRejection::Malformed)
            );
        }
        assert_eq!(
            checked(&hostless, Version::HTTP_10, "http://evil.example/", &[]),
            Err(HostRejection::Foreign)
        );
    }

    #[test]
    fn a_malformed_application_has_no_routes() {
        for application in ["", "[]", "null", r#"{"application_uris": "localhost"}"#] {
            assert!(
                AllowedHosts::new(None, Some(application)).routes.is_empty(),
                "{application}"
            );
        }
    }
}
