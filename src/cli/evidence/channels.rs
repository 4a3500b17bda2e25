//! SC-8: what is encrypted on which way.

use super::cryptography::offered_groups;
use super::facts::{FactProof, Gathered, Standing, code};
use super::inbound;
use crate::config::{
    Auth, EgressDefault, OAuth2, ParentKeys, ParentScheme, ParentUrlParts, ServerCertificate, Text, Tls,
    TlsVersion, Word as _, store_url,
};
use crate::host::Scheme;
use crate::policy::Destination;
use crate::store::StoreAddress;

/// How the facts of SC-8 are gathered.
pub(super) const TRANSMISSION: &[fn(&mut Gathered<'_>)] = &[
    to_destinations,
    to_unlisted,
    to_token_endpoints,
    to_servers,
    to_parents,
    to_store,
    to_receiver,
    from_apps,
    inbound::transmission,
    to_readers,
];

const SENT: &str = "sc-8_smt";

/// Returns the versions of TLS that are spoken under these settings.
fn versions(tls: &Tls) -> &'static str {
    match tls.min_version {
        TlsVersion::V1_2 => "TLS 1.2 or 1.3",
        TlsVersion::V1_3 => "TLS 1.3 only",
    }
}

/// Returns the keys of a `tls` section that say how TLS is spoken.
fn tls_proofs(found: &Gathered<'_>, place: &str) -> Vec<FactProof> {
    let keys = ["tls.min_version", "tls.groups"];
    let mut proofs: Vec<_> = keys.map(|key| found.setting(format!("{place}.{key}"))).into();
    proofs.push(FactProof::Metric(
        "outrider_tls_handshake_seconds{side=\"upstream\"}",
    ));
    proofs
}

fn to_destinations(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        let place = one.place();
        let upgrade = found.setting(format!("{place}.upgrade"));
        if one.intercept || one.upgrade {
            let which = match (one.intercept, one.upgrade) {
                (true, true) => "every request leaves",
                (false, _) => "requests by http:// leave",
                (true, false) => "requests by https:// leave",
            };
            let upgraded = if one.upgrade {
                "; http:// from the app is upgraded"
            } else {
                ""
            };
            let text = format!(
                "{which} over {} (key exchange {}) to a verified server{upgraded}",
                versions(&one.tls),
                offered_groups(&one.tls)
            );
            let mut proofs = tls_proofs(found, &place);
            proofs.push(upgrade.clone());
            found.add_of(&one.name, SENT, Standing::Met, text, proofs);
        }
        if !one.upgrade {
            let text = "what the app asks for by http:// leaves in clear";
            found.add_of(&one.name, SENT, Standing::Gap, text, [upgrade]);
        }
        if !one.intercept {
            let proofs = [
                found.setting(format!("{place}.mode")),
                FactProof::Metric("outrider_tunnels_total"),
            ];
            let text = "in a CONNECT, TLS is that of the app, if it speaks TLS at all: its version, and who the server is, are \
                        not known here";
            found.add_of(&one.name, SENT, Standing::Gap, text, proofs);
        }
        if one.insecure_attach_over_http {
            let proofs = [found.setting(format!("{place}.insecure_attach_over_http"))];
            let text = "the credential is attached where the request leaves in clear, too";
            found.add_of(&one.name, SENT, Standing::Gap, text, proofs);
        }
    }
}

fn to_unlisted(found: &mut Gathered<'_>) {
    if found.config().egress.default == EgressDefault::Deny {
        return;
    }
    let proofs = [
        found.setting("egress.default"),
        FactProof::Metric("outrider_requests_total{destination=\"unlisted\"}"),
    ];
    let text = "To hosts that no destination names, http:// leaves in clear, and in a CONNECT TLS is that of the app, if it \
                speaks TLS at all.";
    found.add(SENT, Standing::Gap, text, proofs);
}

/// The credentials of a destination that are tokens, each with its path.
fn token_requests(one: &Destination) -> impl Iterator<Item = (String, &OAuth2)> {
    let credentials = one.auth.iter().flat_map(|rule| &rule.credentials);
    credentials.filter_map(|credential| match &credential.auth {
        Auth::OAuth2(oauth2) => Some((
            format!("destinations.{}.{}.oauth2", one.name, credential.place),
            &**oauth2,
        )),
        _ => None,
    })
}

fn to_token_endpoints(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        for (place, oauth2) in token_requests(one) {
            let endpoint = code(&oauth2.token_url.target.to_string());
            let (standing, text) = match oauth2.token_url.target.scheme {
                Scheme::Https => (
                    Standing::Met,
                    format!("access tokens are requested over TLS, from {endpoint}"),
                ),
                Scheme::Http => (
                    Standing::Gap,
                    format!("access tokens are requested in clear, from {endpoint}"),
                ),
            };
            let proofs = [found.setting(format!("{place}.token_url"))];
            found.add_of(&one.name, SENT, standing, text, proofs);
        }
    }
}

/// Tells of the local ports of `tcp`.
fn to_servers(found: &mut Gathered<'_>) {
    for entry in &found.config().tcp {
        let place = format!("tcp.{}", entry.name);
        let Some(tls) = &entry.tls else {
            let proofs = [found.setting(format!("{place}.tls"))];
            let text = "outrider speaks no TLS: what the app sends in clear leaves in clear";
            found.add_of(&entry.name, SENT, Standing::Gap, text, proofs);
            continue;
        };
        let mut proofs = tls_proofs(found, &place);
        let starttls = match entry.starttls {
            None => String::new(),
            Some(protocol) => {
                proofs.push(found.setting(format!("{place}.starttls")));
                format!(
                    "; the protocol ({}) asks for TLS in the clear first, and a server that offers none is refused",
                    code(protocol.word())
                )
            }
        };
        let text = format!(
            "connections leave over {} (key exchange {}) to a verified server{starttls}",
            versions(tls),
            offered_groups(tls)
        );
        found.add_of(&entry.name, SENT, Standing::Met, text, proofs);
    }
}

fn to_parents(found: &mut Gathered<'_>) {
    let mut places = Vec::new();
    for one in &found.policy().destinations {
        let Some(plan) = &one.parent else { continue };
        for (i, parent) in plan.parents.iter().enumerate() {
            let place = plan.place_of(i);
            if !places.contains(&place) {
                to_parent(found, &place, parent);
                places.push(place);
            }
        }
    }
}

fn to_parent(found: &mut Gathered<'_>, place: &str, parent: &ParentKeys) {
    let (scheme, mut proofs) = match &parent.url {
        Text::Plain(url) => (ParentUrlParts::parse(url).ok().map(|url| url.scheme), Vec::new()),
        Text::Reference(reference) => {
            let read = found.secrets().map(|secrets| secrets.snapshot.read(reference));
            let scheme = read.and_then(Result::ok).and_then(|url| {
                let url = std::str::from_utf8(url.expose()).ok()?;
                ParentUrlParts::parse(url).ok().map(|url| url.scheme)
            });
            let read = scheme.map(|_| FactProof::Read(reference.to_string()));
            (scheme, read.into_iter().collect())
        }
    };
    proofs.push(found.setting(place));
    let (standing, text) = match scheme {
        Some(ParentScheme::Https) => (
            Standing::Met,
            format!(
                "The parent at {} is reached over {}.",
                code(place),
                versions(&parent.tls)
            ),
        ),
        Some(ParentScheme::Http | ParentScheme::Socks5) => (
            Standing::Gap,
            format!(
                "The parent at {} is reached in clear: what outrider sends to it, credentials for it included, can be read \
                 on the way, the TLS in its tunnels excepted.",
                code(place)
            ),
        ),
        None => (
            Standing::Unknown,
            format!(
                "Whether the parent at {} is reached over TLS is in a secret that was not read.",
                code(place)
            ),
        ),
    };
    found.add(SENT, standing, text, proofs);
}

fn to_store(found: &mut Gathered<'_>) {
    let Some(store) = &found.config().rate_limit_store else {
        return;
    };
    let mut proofs = vec![found.setting("rate_limit_store")];
    let is_tls = match &store.url {
        Text::Plain(url) => store_url(url).map(|(scheme, ..)| scheme == Scheme::Https),
        Text::Reference(reference) => {
            let read = found
                .secrets()
                .map(|secrets| StoreAddress::read(store, secrets.snapshot));
            let is_tls = read.and_then(Result::ok).map(|address| address.is_tls());
            proofs.extend(is_tls.map(|_| FactProof::Read(reference.to_string())));
            is_tls
        }
    };
    let (standing, text) = match is_tls {
        Some(true) => (
            Standing::Met,
            format!(
                "The store of rate limits is reached over {}.",
                versions(&store.tls)
            ),
        ),
        Some(false) => (
            Standing::Gap,
            "The store of rate limits is reached in clear.".to_owned(),
        ),
        None => (
            Standing::Unknown,
            "Whether the store of rate limits is reached over TLS is in a secret that was not read."
                .to_owned(),
        ),
    };
    found.add(SENT, standing, text, proofs);
}

/// Tells how metrics are pushed.
fn to_receiver(found: &mut Gathered<'_>) {
    let Some(push) = &found.config().telemetry.push else {
        return;
    };
    let target = &push.url.target;
    // As the app's requests: its destination may upgrade it.
    let own = found.policy().named(target);
    let is_tls = target.scheme == Scheme::Https || own.is_some_and(|one| one.upgrade);
    let (standing, how) = if is_tls {
        (Standing::Met, "over TLS")
    } else {
        (Standing::Gap, "in clear")
    };
    let text = format!("Metrics are pushed to {} {how}.", code(&target.to_string()));
    let proofs = [found.setting("telemetry.push")];
    found.add(SENT, standing, text, proofs);
}

/// Tells how the app reaches outrider.
fn from_apps(found: &mut Gathered<'_>) {
    let config = found.config();
    let has_tls = match config.listen_tls {
        ServerCertificate::Auto => config.clients.iter().any(|client| client.needs_certificate()),
        ServerCertificate::Off => false,
        ServerCertificate::Pair(_) => true,
    };
    for listen in &config.listen {
        let shown = code(&listen.to_string());
        let proofs = [found.setting("listen"), found.setting("listen_tls")];
        let (standing, text) = match (listen.public(), has_tls) {
            (None, _) => (
                Standing::Note,
                format!(
                    "Between app and listener {shown} requests by http:// and passwords are in clear, and do not leave the machine."
                ),
            ),
            (Some(_), true) => (
                Standing::Gap,
                format!(
                    "The listener {shown} speaks TLS, and cleartext to clients that do not ask for TLS: their requests by http:// \
                     and their passwords cross the network in clear."
                ),
            ),
            (Some(_), false) => (
                Standing::Gap,
                format!(
                    "The listener {shown} speaks no TLS: requests by http:// and passwords cross the network in clear."
                ),
            ),
        };
        found.add(SENT, standing, text, proofs);
    }
}

/// Tells how the pages are read.
fn to_readers(found: &mut Gathered<'_>) {
    if let Some(address) = found.config().admin
        && !address.ip().to_canonical().is_loopback()
    {
        let text = format!(
            "Metrics and status at {} cross the network in clear.",
            code(&address.to_string())
        );
        let proofs = [found.setting("admin")];
        found.add(SENT, Standing::Gap, text, proofs);
    }
}
