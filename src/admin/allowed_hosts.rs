//! The names by which the admin port may be asked.
//!
//! A web page can make a browser ask any address, but it reads only answers of its own origin. So its author lets a name
//! of his resolve to our address (DNS rebinding), and our pages are of his origin. `Host` then has that name. The door
//! therefore answers to names only that nobody else can point at it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Version};
use serde_json::Value;

use crate::host::Host;

/// The names and addresses that a request may ask the door by: loopback, its own addresses, the routes of the app. The port
/// may be any: it may have been forwarded.
#[derive(Clone, Debug)]
pub(crate) struct AllowedHosts {
    listening: Option<IpAddr>,
    /// Where the connection has come to: it differs where the door listens on all addresses.
    reached: Option<IpAddr>,
    routes: Arc<[Arc<str>]>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRejection {
    /// It asks for somebody else.
    Foreign,
    /// It has more than one Host, or lacks one.
    Malformed,
}

impl AllowedHosts {
    /// Of a door that listens on an address, beside an app whose routes `VCAP_APPLICATION` tells (Cloud Foundry).
    pub(crate) fn new(listening: Option<SocketAddr>, application: Option<&str>) -> Self {
        Self {
            listening: listening.map(|address| address.ip().to_canonical()),
            reached: None,
            routes: application.map(routes).unwrap_or_default().into(),
        }
    }

    /// The same, for a connection that has come to this address.
    pub(super) fn with(&self, reached: Option<SocketAddr>) -> Self {
        Self {
            reached: reached.map(|address| address.ip().to_canonical()),
            ..self.clone()
        }
    }

    /// Whether a request asks for this door. One of HTTP/1.0 need not say whom it asks: no browser is so old.
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
        // `host()` leaves out a user, and what stands between the bracket of an address and its port.
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

/// Names that resolve to loopback and nowhere else (RFC 6761 section 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// A route, or one of its instances: the platform's DNS knows `0.app.apps.internal`, too.
fn is_route(name: &str, route: &str) -> bool {
    match name.strip_suffix(route) {
        Some("") => true,
        Some(rest) => {
            (rest.strip_suffix('.')).is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
        }
        None => false,
    }
}

/// The hosts of the app's routes. They may have a port or a path.
fn routes(application: &str) -> Vec<Arc<str>> {
    let application: Value = serde_json::from_str(application).unwrap_or_default();
    let written = application["application_uris"].as_array().into_iter().flatten();
    (written.filter_map(Value::as_str))
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

    fn own(listening: &str, reached: &str) -> AllowedHosts {
        let address = |text: &str| Some(text.parse().unwrap());
        AllowedHosts::new(address(listening), Some(APPLICATION)).with(address(reached))
    }

    fn checked(own: &AllowedHosts, version: Version, uri: &str, hosts: &[&str]) -> Result<(), HostRejection> {
        let mut request = Request::get(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        own.check(&request.body(()).unwrap())
    }

    #[test]
    fn only_names_that_nobody_else_can_point_here_are_answered() {
        let loopback = own("127.0.0.1:9901", "127.0.0.1:9901");
        let everywhere = own("0.0.0.0:9901", "10.255.7.9:9901");
        let both = own("[::]:9901", "[::ffff:10.255.7.9]:9901");
        for (own, host, is_own) in [
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
            let expected = is_own.then_some(()).ok_or(HostRejection::Foreign);
            for version in [Version::HTTP_10, Version::HTTP_11] {
                assert_eq!(
                    checked(own, version, "/metrics", &[host]),
                    expected,
                    "{host:?} of {own:?}"
                );
            }
            if !host.is_empty() && host.parse::<Authority>().is_ok() {
                let uri = format!("http://{host}/metrics");
                assert_eq!(
                    checked(own, Version::HTTP_11, &uri, &["localhost"]),
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
    fn what_is_no_application_has_no_routes() {
        for application in ["", "[]", "null", r#"{"application_uris": "localhost"}"#] {
            assert!(
                AllowedHosts::new(None, Some(application)).routes.is_empty(),
                "{application}"
            );
        }
    }
}
