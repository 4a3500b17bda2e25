//! Under which names the store keeps the limits of a destination.
//!
//! Whoever uses the same credential has the same quota at the upstream, so the names come from the credential, and from
//! the destination's hosts where there is none. They are made under the store's password, so that nobody who sees them
//! can try out credentials on them. All names of a destination share a hash tag: a cluster keeps them in one place.

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;

use super::Address;
use crate::config::{Auth, Destination, RateLimit, SecretRef, Text};
use crate::secret::Sources;

/// The name of each of a destination's rates, in their order.
pub(super) fn names(destination: &Destination, address: &Address, sources: &Sources) -> Vec<String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, address.key());
    let mut identity = Identity::new(&key);
    let credentials: Vec<_> = destination
        .auth
        .iter()
        .flat_map(|rule| &rule.credentials)
        .collect();
    if credentials.is_empty() {
        identity.add(b"hosts");
        let mut hosts: Vec<_> = destination.hosts.iter().map(ToString::to_string).collect();
        hosts.sort_unstable();
        hosts.iter().for_each(|host| identity.add(host.as_bytes()));
    }
    for credential in credentials {
        // The same token is the same token however it is sent.
        match &credential.auth {
            Auth::Bearer(_) | Auth::Header { .. } | Auth::Query { .. } => identity.add(b"token"),
            other => identity.add(other.kind().as_bytes()),
        }
        if let Auth::Basic {
            username: Text::Plain(username),
            ..
        } = &credential.auth
        {
            identity.add(username.as_bytes());
        }
        for (_, reference) in credential.auth.references() {
            identity.secret(reference, sources);
        }
    }
    let tag = identity.end();
    let name = |limit: &RateLimit| {
        let mut name = Identity::new(&key);
        name.add(tag.as_bytes());
        name.add(limit.rate.to_string().as_bytes());
        name.add(limit.method.as_ref().map_or("", http::Method::as_str).as_bytes());
        name.add(limit.path.as_deref().unwrap_or_default().as_bytes());
        format!("outrider:{{{tag}}}:{}", name.end())
    };
    destination.rate_limits.iter().map(name).collect()
}

/// A keyed hash over parts, each with its length before it.
struct Identity(hmac::Context);

impl Identity {
    fn new(key: &hmac::Key) -> Self {
        Self(hmac::Context::with_key(key))
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// One that cannot be read counts by its place; requests to its destination are refused anyway.
    fn secret(&mut self, reference: &SecretRef, sources: &Sources) {
        match sources.read(reference) {
            Ok(secret) => self.add(secret.expose()),
            Err(_) => self.add(reference.to_string().as_bytes()),
        }
    }

    /// Half of the hash is more than enough to tell limits apart.
    fn end(self) -> String {
        HEXLOWER.encode(&self.0.sign().as_ref()[..16])
    }
}
