//! AC-4: what may be reached, and what is seen of it.

use std::num::NonZeroU32;

use super::facts::{FactProof, Gathered, Standing, code, codes, listed};
use super::inbound;
use crate::cli::check::references;
use crate::config::{Config, EgressDefault, Mark, Mode, OnLimit, PlaceholderMode, SecretRef, TakenPast};
use crate::host::{HostPattern, Pattern, PortPattern};
use crate::policy::Destination;

/// How the facts of AC-4 are gathered.
pub(super) const ENFORCEMENT: &[fn(&mut Gathered<'_>)] = &[
    unlisted,
    reloads,
    refused,
    allowed,
    seen,
    attached,
    past,
    placeholders,
    limits,
    local_ports,
    clients,
    inbound::flows,
];

const FLOW: &str = "ac-4_smt";

/// Tells what happens to hosts that no destination names.
fn unlisted(found: &mut Gathered<'_>) {
    let egress = &found.config().egress;
    let ports = codes(&egress.ports);
    let default = found.setting("egress.default");
    let open = |how: &str| {
        format!(
            "Hosts that no destination names pass on the ports {ports}: every public address can be reached, {how}. What \
             is in a CONNECT, or in a UDP tunnel, is not seen."
        )
    };
    match egress.default {
        EgressDefault::Deny => found.add(
            FLOW,
            Standing::Met,
            "A host that no destination names is refused.",
            [
                default,
                FactProof::Metric("outrider_denied_total{reason=\"unlisted\"}"),
                FactProof::LogField("reason"),
            ],
        ),
        EgressDefault::Observe => found.add(
            FLOW,
            Standing::Gap,
            open("and what `deny` would have refused is recorded"),
            [
                default,
                found.setting("egress.ports"),
                FactProof::Metric("outrider_observed_total"),
                FactProof::LogField("would_deny"),
            ],
        ),
        EgressDefault::Tunnel => found.add(
            FLOW,
            Standing::Gap,
            open("and nothing records that it was not named"),
            [
                default,
                found.setting("egress.ports"),
                FactProof::Metric("outrider_requests_total{destination=\"unlisted\"}"),
            ],
        ),
    }
    if found.is_built_in() {
        found.add(
            FLOW,
            Standing::Gap,
            "There is no configuration file. The built-in default holds, which tunnels every public host and attaches nothing.",
            [FactProof::Always("docs/destinations.md")],
        );
    }
}

/// Tells what a change of the file does.
fn reloads(found: &mut Gathered<'_>) {
    if found.is_built_in() {
        return;
    }
    let text = "A changed configuration is taken over whole or not at all: where anything in it is wrong, the old one stays in force.";
    let proofs = [
        FactProof::Metric("outrider_config_reloads_total"),
        FactProof::Metric("outrider_config_loaded_timestamp_seconds"),
        FactProof::Always("docs/operating.md#reload"),
    ];
    found.add(FLOW, Standing::Met, text, proofs);
}

/// Tells the hosts that are refused by name.
fn refused(found: &mut Gathered<'_>) {
    for one in found.config().destinations.iter().filter(|one| one.deny) {
        let place = format!("destinations.{}", one.name);
        let text = format!("refused, whatever else the file says: {}", codes(&one.hosts));
        let proofs = [
            found.setting(format!("{place}.deny")),
            found.setting(format!("{place}.hosts")),
            FactProof::Metric("outrider_denied_total{reason=\"denied\"}"),
        ];
        found.add_of(&one.name, FLOW, Standing::Met, text, proofs);
    }
}

/// Tells which hosts may be reached, and with which requests.
fn allowed(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        let at = |key: &str| format!("destinations.{}.{key}", one.name);
        let mut text = format!("these hosts may be reached: {}", codes(&one.hosts));
        let mut proofs = vec![found.setting(at("hosts"))];
        let limited = [
            ("methods", codes(&one.methods)),
            ("paths", codes(one.paths.iter().map(|glob| glob.as_str()))),
        ];
        for (key, values) in limited.iter().filter(|(_, values)| !values.is_empty()) {
            text.push_str(&format!("; only these {key}: {values}"));
            proofs.push(found.setting(at(key)));
        }
        if one.methods.is_empty() && one.paths.is_empty() {
            text.push_str("; with every method and path");
        }
        found.add_of(&one.name, FLOW, Standing::Met, text, proofs);

        let wide: Vec<_> = one.hosts.iter().filter(|host| is_wide(host)).collect();
        if !wide.is_empty() {
            let text = format!(
                "{} names hosts or ports that nobody listed one by one",
                codes(wide)
            );
            let proofs = [found.setting(at("hosts"))];
            found.add_of(&one.name, FLOW, Standing::Gap, text, proofs);
        }
        if !one.headers.remove.is_empty() {
            let text = format!(
                "these header fields are removed from requests: {}",
                codes(&one.headers.remove)
            );
            let proofs = [found.setting(at("headers.remove"))];
            found.add_of(&one.name, FLOW, Standing::Met, text, proofs);
        }
    }
}

fn is_wide(host: &HostPattern) -> bool {
    matches!(host.what, Pattern::Suffix(_) | Pattern::Network(_)) || host.port == PortPattern::Any
}

/// Tells where the requests inside https:// are seen, and where tunnels are blind.
fn seen(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        let mode = found.setting(format!("destinations.{}.mode", one.name));
        let keys = one.set(Mark::EndsTls);
        let is_explicit = one.mode == Mode::Intercept;
        if one.intercept {
            let why = if is_explicit {
                "`mode: intercept`".to_owned()
            } else {
                codes(&keys)
            };
            let text = format!(
                "every request is seen, that in a CONNECT too: its TLS is ended here, because of {why}; the rules of the \
                 destination hold for each"
            );
            let mut proofs: Vec<_> = (keys.iter().filter(|_| !is_explicit))
                .map(|key| found.setting(format!("destinations.{}.{key}", one.name)))
                .collect();
            proofs.extend(is_explicit.then_some(mode));
            proofs.push(FactProof::LogField("path"));
            found.add_of(&one.name, FLOW, Standing::Met, text, proofs);
        } else {
            let idle = one.idle_in_tunnels();
            let idle = if idle.is_empty() {
                String::new()
            } else {
                format!("; {} hold for http:// only", codes(&idle))
            };
            let text = format!(
                "blind: a CONNECT, or a UDP tunnel for HTTP/3, passes untouched, and what is in it is neither seen nor \
                 judged{idle}"
            );
            let proofs = [mode, FactProof::Metric("outrider_tunnels_total")];
            found.add_of(&one.name, FLOW, Standing::Gap, text, proofs);
        }
    }
}

/// Tells where credentials go.
fn attached(found: &mut Gathered<'_>) {
    for one in found.destinations().filter(|one| one.carries_credential()) {
        let at = |key: &str| format!("destinations.{}.{key}", one.name);
        let mut proofs = Vec::new();
        if one.attaches() {
            proofs.push(found.setting(at("auth")));
        }
        if one.tls.client_certificate.is_some() {
            proofs.push(found.setting(at("tls.client_certificate")));
        }
        proofs.push(FactProof::Always("docs/credentials.md#who-gets-a-credential"));
        found.add_of(
            &one.name,
            FLOW,
            Standing::Met,
            "its credential is attached for these hosts and no others; the names in CONNECT, in TLS and in `Host` have to agree",
            proofs,
        );
    }
}

/// Tells which listed hosts apps call without the proxy.
fn past(found: &mut Gathered<'_>) {
    let config = found.config();
    for one in &config.destinations {
        for (i, host) in one.hosts.iter().enumerate() {
            let taken = config
                .no_proxy
                .iter()
                .find_map(|entry| Some((entry, entry.takes(&host.what)?)));
            let Some((entry, taken)) = taken else { continue };
            let which = match taken {
                TakenPast::All => "apps call",
                TakenPast::Part => "apps call some hosts of",
            };
            let text = format!(
                "{which} {} past the proxy ({}), so nothing that is written of the destination holds for these calls",
                code(&host.to_string()),
                code(&format!("no_proxy: {entry}"))
            );
            let proofs = [
                found.setting("no_proxy"),
                found.setting(format!("destinations.{}.hosts[{i}]", one.name)),
            ];
            found.add_of(&one.name, FLOW, Standing::Gap, text, proofs);
        }
    }
}

/// Tells whether an app can carry a secret elsewhere.
fn placeholders(found: &mut Gathered<'_>) {
    let config = found.config();
    if !has_app_secrets(config) {
        return;
    }
    let mode = found.setting("placeholders.mode");
    let holds = "the app gets a random placeholder in place of each secret that a destination takes from a variable or a \
                 bound service, and a request that carries one to any other host is refused";
    let (standing, text) = match config.placeholders.mode {
        PlaceholderMode::Auto => (
            Standing::Met,
            format!("Under `outrider exec`, and beside an app on Cloud Foundry, {holds}."),
        ),
        PlaceholderMode::Always => (Standing::Met, format!("Everywhere, {holds}.")),
        PlaceholderMode::Never => (
            Standing::Gap,
            "The app has the secrets of destinations as they are, and can send them anywhere that the policy lets it."
                .to_owned(),
        ),
    };
    let refused = FactProof::Metric("outrider_denied_total{reason=\"placeholder\"}");
    let proofs: Vec<_> = [mode]
        .into_iter()
        .chain((standing == Standing::Met).then_some(refused))
        .collect();
    found.add(FLOW, standing, text, proofs);
    if standing == Standing::Met && !config.placeholders.keep.is_empty() {
        let text = format!(
            "The app has these secrets as they are: {}.",
            codes(&config.placeholders.keep)
        );
        let proofs = [found.setting("placeholders.keep")];
        found.add(FLOW, Standing::Gap, text, proofs);
    }
}

/// Whether a destination uses a secret that is in the environment of the app, too.
fn has_app_secrets(config: &Config) -> bool {
    let mut all = config.destinations.iter().flat_map(|one| references(one));
    all.any(|one| one.holds.is_secret() && !matches!(one.to, SecretRef::File(_)))
}

/// Tells how much may flow.
fn limits(found: &mut Gathered<'_>) {
    let config = found.config();
    for one in found.destinations() {
        let Some(text) = limit(one) else { continue };
        let mut proofs = Vec::new();
        for (key, is_written) in [
            ("rate_limit", !one.rate_limits.is_empty()),
            ("concurrency", one.concurrency.is_some()),
            ("on_limit", one.on_limit != OnLimit::Reject),
        ] {
            if is_written {
                proofs.push(found.setting(format!("destinations.{}.{key}", one.name)));
            }
        }
        proofs.push(FactProof::Metric("outrider_limit_refused_total"));
        found.add_of(&one.name, FLOW, Standing::Met, text, proofs);
    }
    for one in found.destinations().filter(|one| limit(one).is_none()) {
        let proofs = ["rate_limit", "concurrency"];
        let proofs = proofs.map(|key| found.setting(format!("destinations.{}.{key}", one.name)));
        let text = "no rate limit and no limit of requests at once is configured";
        found.add_of(&one.name, FLOW, Standing::Note, text, proofs);
    }
    if config.rate_limit_store.is_some() {
        let proofs = [
            found.setting("rate_limit_store"),
            FactProof::Metric("outrider_quota_store_errors_total"),
        ];
        let text = "All instances share each rate limit by way of a store; while it is away, each keeps to its part.";
        found.add(FLOW, Standing::Met, text, proofs);
    }
}

fn limit(one: &Destination) -> Option<String> {
    let rates = one.rate_limits.iter().map(|limit| {
        let of = limit.matcher.parts().collect::<Vec<_>>().join(" ");
        let of = if of.is_empty() {
            of
        } else {
            format!(" for {}", code(&of))
        };
        format!("{}{of}", code(&limit.rate.to_string()))
    });
    let slots = one.concurrency.map(|slots| format!("`{slots}` at once"));
    let all: Vec<_> = rates.chain(slots).collect();
    if all.is_empty() {
        return None;
    }
    let then = match one.on_limit {
        OnLimit::Reject => "is refused with 429".to_owned(),
        OnLimit::Wait(longest) => {
            let longest = humantime::format_duration(longest);
            format!("waits `{longest}` at most, then is refused with 429")
        }
    };
    let shared = match one.instances.map_or(1, NonZeroU32::get) {
        1 => String::new(),
        several => format!(", shared by `{several}` instances"),
    };
    let what = if one.intercept {
        "requests"
    } else {
        "requests by http://, and tunnels (what is in a tunnel is not counted)"
    };
    Some(format!(
        "limits on {what}: {}{shared}; what is more {then}",
        listed(all)
    ))
}

/// Tells where the local ports lead.
fn local_ports(found: &mut Gathered<'_>) {
    for entry in &found.config().tcp {
        let at = |key: &str| format!("tcp.{}.{key}", entry.name);
        let text = format!(
            "the local port {} leads to {} and nowhere else",
            code(&entry.listen.to_string()),
            code(&entry.to.to_string())
        );
        let proofs = [found.setting(at("to")), found.setting(at("listen"))];
        found.add_of(&entry.name, FLOW, Standing::Met, text, proofs);
        let proofs = [
            found.setting(format!("tcp.{}", entry.name)),
            FactProof::Metric("outrider_tunnels_total"),
        ];
        let text = "what is said through the local port is not read";
        found.add_of(&entry.name, FLOW, Standing::Gap, text, proofs);
    }
}

/// Tells which clients may use some destinations only.
fn clients(found: &mut Gathered<'_>) {
    for client in &found.config().clients {
        let place = format!("clients.{}", client.name);
        if client.destinations.is_empty() {
            let proofs = [found.setting(format!("{place}.destinations"))];
            let text = "may use all that the policy allows";
            found.add_of(&place, FLOW, Standing::Note, text, proofs);
            continue;
        }
        let text = format!("may use these destinations only: {}", codes(&client.destinations));
        let proofs = [
            found.setting(format!("{place}.destinations")),
            FactProof::Metric("outrider_client_requests_total"),
            FactProof::Metric("outrider_denied_total{reason=\"client\"}"),
        ];
        found.add_of(&place, FLOW, Standing::Met, text, proofs);
    }
}
