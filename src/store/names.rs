//! Under which names the store keeps the limits of a destination.
//!
//! A quota belongs to a client of an upstream, so the names come from the destination's hosts and from the
//! references to its credential: `env:TOKEN`, `vcap:weather/token`. The secrets behind the references never take
//! part. Everybody who can read the store could try guesses on a name that was made from one.
//!
//! All names of a destination share a hash tag: a cluster keeps them in one place.

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use crate::config::{Auth, DestinationKeys, Matcher, RateLimit, Text};
use crate::path::PathGlob;

/// Returns the name of each of a destination's rates, in their order.
pub(super) fn names(destination: &DestinationKeys) -> Vec<String> {
    let mut identity = NameHash::new();
    let mut hosts: Vec<_> = destination.hosts.iter().map(ToString::to_string).collect();
    hosts.sort_unstable();
    identity.add(&(hosts.len() as u64).to_be_bytes());
    hosts.iter().for_each(|host| identity.add(host.as_bytes()));
    for credential in destination.auth.iter().flat_map(|rule| &rule.credentials) {
        identity.add(credential.auth.kind().as_bytes());
        if let Some(client) = client(&credential.auth) {
            identity.add(client.as_bytes());
        }
        for (_, reference) in credential.auth.references() {
            identity.add(reference.to_string().as_bytes());
        }
    }
    let tag = identity.end();
    let name = |limit: &RateLimit| {
        let mut name = NameHash::new();
        name.add(tag.as_bytes());
        name.add(limit.rate.to_string().as_bytes());
        let Matcher { method, path } = &limit.matcher;
        name.add(method.as_ref().map_or("", http::Method::as_str).as_bytes());
        name.add(path.as_ref().map_or("", PathGlob::as_str).as_bytes());
        format!("outrider:{{{tag}}}:{}", name.end())
    };
    destination.rate_limits.iter().map(name).collect()
}

/// Returns the name of the client where it is written out.
fn client(auth: &Auth) -> Option<&str> {
    let name = match auth {
        Auth::Basic { username, .. } => Some(username),
        Auth::OAuth2(oauth) => oauth.client_id.as_ref(),
        Auth::AwsSigV4(_)
        | Auth::Bearer(_)
        | Auth::Header { .. }
        | Auth::Jwt(_)
        | Auth::Hmac(_)
        | Auth::HttpSignature(_)
        | Auth::Query { .. } => None,
    };
    match name {
        Some(Text::Plain(name)) => Some(name),
        Some(Text::Reference(_)) | None => None,
    }
}

/// A hash over parts, each with its length before it.
struct NameHash(digest::Context);

impl NameHash {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// Half of the hash is more than enough to tell limits apart.
    fn end(self) -> String {
        HEXLOWER.encode(&self.0.finish().as_ref()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn of(destination: &str) -> Vec<String> {
        let text = format!("destinations:\n  d: {{ {destination} }}\n");
        let config = Config::parse(&text, "test.yml").unwrap();
        names(&config.destinations[0])
    }

    #[test]
    fn names_come_from_hosts_references_and_limits() {
        let usual = "hosts: [a.test, b.test], rate_limit: 5/s, auth: { bearer: env:TOKEN }";
        assert_eq!(of(usual), of(usual));
        assert_eq!(of(usual), of(&usual.replace("a.test, b.test", "b.test, a.test")));
        for (part, other) in [
            ("a.test", "c.test"),
            ("5/s", "6/s"),
            ("5/s", "[{ limit: 5/s, match: { method: POST } }]"),
            ("5/s", "[{ limit: 5/s, match: { path: /a } }]"),
            ("env:TOKEN", "env:OTHER"),
            (
                "{ bearer: env:TOKEN }",
                "{ basic: { username: a, password: env:TOKEN } }",
            ),
            (", auth: { bearer: env:TOKEN }", ""),
        ] {
            assert_ne!(of(usual), of(&usual.replace(part, other)), "{other}");
        }
        let of_user = |name: &str| {
            of(&format!(
                "hosts: [a.test], rate_limit: 5/s, auth: {{ basic: {{ username: {name}, password: env:P }} }}"
            ))
        };
        assert_ne!(of_user("one"), of_user("two"));
        let of_client = |id: &str| {
            of(&format!(
                "hosts: [a.test], rate_limit: 5/s, auth: {{ oauth2: {{ token_url: 'https://b.test/t', client_id: {id}, \
                 client_secret: env:S }} }}"
            ))
        };
        assert_ne!(of_client("one"), of_client("two"));
    }
}
