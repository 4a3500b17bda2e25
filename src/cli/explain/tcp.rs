//! What happens to a connection of a local port.

use std::sync::Arc;

use http::Method;

use super::{Explanation, joined};
use crate::config::{Config, Word as _};
use crate::policy::{Destination, Policy};

/// Returns the entry of `tcp` that `asked` names: `tcp:NAME`, or `NAME` alone.
pub(super) fn named<'p>(asked: &str, policy: &'p Policy) -> Option<&'p Arc<Destination>> {
    policy.tcp(asked.strip_prefix("tcp:").unwrap_or(asked))
}

/// Whether `asked` means an entry of `tcp`, and not the port of a host with that name.
pub(super) fn is_name(asked: &str) -> bool {
    let name = asked.strip_prefix("tcp:");
    name.is_some_and(|name| !name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Says which entries of `tcp` there are.
pub(super) fn entries(policy: &Policy) -> String {
    let entries = policy.destinations.iter().filter(|one| one.tcp.is_some());
    let names: Vec<_> = entries.map(|one| one.name.to_string()).collect();
    if names.is_empty() {
        "it has no `tcp`".to_owned()
    } else {
        format!("the entries of `tcp` are {}", names.join(", "))
    }
}

impl Explanation {
    /// Follows a connection from its local port to the server.
    pub(super) fn of_tcp(destination: &Destination, policy: &Policy, config: &Config) -> Self {
        let mut explanation = Self::new();
        if let Some(entry) = &destination.tcp {
            explanation.tell("entry", destination.place());
            explanation.tell("listens on", entry.listen.to_string());
            let to = &entry.to;
            let way = match (&entry.tls, entry.starttls) {
                (None, _) => "whatever the app sends (tls: off)".to_owned(),
                (Some(_), None) => "TLS from the first byte".to_owned(),
                (Some(_), Some(protocol)) => {
                    format!("TLS, asked for in the clear as {} does", protocol.word())
                }
            };
            explanation.tell("leaves as", format!("{way}, to {to}"));
            let parent = destination.parent.as_deref().filter(|plan| !plan.bypasses(to));
            match explanation.addresses(to, parent.is_some(), policy, config) {
                Err(denial) => explanation.refuse(&denial),
                Ok(judged) => {
                    explanation.shown(destination);
                    explanation.limits(destination, &Method::CONNECT, "");
                    explanation.tell("parent", super::behind(parent, destination, to));
                    explanation.pass(judged);
                }
            }
        }
        explanation
    }

    /// Reports what the server is shown, and what it has to show.
    fn shown(&mut self, destination: &Destination) {
        let tls = &destination.tls;
        if destination.tcp.as_ref().is_none_or(|entry| entry.tls.is_none()) {
            return;
        }
        let certificate = tls.client_certificate.as_ref().map(ToString::to_string);
        self.tell(
            "client certificate",
            certificate.unwrap_or_else(|| "none".to_owned()),
        );
        let roots = match (&tls.ca, &tls.ca_extra) {
            (Some(ca), None) => ca.to_string(),
            (Some(ca), Some(more)) => format!("{ca} and {more}"),
            (None, Some(more)) => format!("the system's roots and {more}"),
            (None, None) => "the system's roots".to_owned(),
        };
        self.tell("trusted", roots);
        if !tls.crl.is_empty() {
            self.tell("revocation", joined(tls.crl.iter().map(ToString::to_string)));
        }
        if !tls.pins.is_empty() {
            self.tell(
                "pins",
                format!("the chain must have one of {} keys", tls.pins.len()),
            );
        }
    }
}
