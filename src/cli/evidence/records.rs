//! AU-2, AU-3 and SI-4: what is recorded, what a record has, and what watches the traffic.

use super::facts::{FactProof, Gathered, Standing, code};
use crate::config::{Access, EgressDefault, LogFormat, PlaceholderMode, Word as _};

/// How the facts of AU-2 are gathered.
pub(super) const EVENTS: &[fn(&mut Gathered<'_>)] = &[able, requests, own_events, tunnels];

/// How the facts of AU-3 are gathered.
pub(super) const CONTENT: &[fn(&mut Gathered<'_>)] = &[fields, source, left_out, format];

/// How the facts of SI-4 are gathered.
pub(super) const MONITORING: &[fn(&mut Gathered<'_>)] =
    &[refusals, carried_away, blind, metrics, reports, simulated];

const ABLE: &str = "au-2_smt.a";
const CHOSEN: &str = "au-2_smt.c";
const DETECT: &str = "si-4_smt.a";
const UNAUTHORIZED: &str = "si-4_smt.b";
const DEVICES: &str = "si-4_smt.c";

fn able(found: &mut Gathered<'_>) {
    let text = "outrider can log every request and every tunnel, refusals with their reason, failed TLS handshakes, reloads of \
                the configuration, secrets that were renewed or cannot be used, certificates that end soon, and its own start \
                and end.";
    let proofs = [FactProof::Always("docs/operating.md#logs")];
    found.add(ABLE, Standing::Met, text, proofs);
}

/// Tells which requests are logged.
fn requests(found: &mut Gathered<'_>) {
    let access = found.setting("log.access");
    let counted = FactProof::Metric("outrider_requests_total");
    let (standing, text) = match found.config().log.access {
        Access::All => (
            Standing::Met,
            "Every request and every tunnel is a line in the log.",
        ),
        Access::Errors => (
            Standing::Gap,
            "Requests that were refused, failed, had to wait or were answered with 4xx or 5xx are lines in the log; requests \
             that succeed are counted and not logged (`log.access: all` logs them).",
        ),
        Access::None => (
            Standing::Gap,
            "No request is logged, refused ones neither; they are counted only.",
        ),
    };
    found.add(CHOSEN, standing, text, [access, counted]);
}

/// Tells which events of outrider itself are logged.
fn own_events(found: &mut Gathered<'_>) {
    let level = found.config().log.level;
    let shown = level.to_string().to_ascii_lowercase();
    let (standing, text) = if level >= tracing::Level::INFO {
        let text = format!(
            "Events of outrider itself are logged from the level `{shown}` up: reloads, renewed secrets and the end of \
             certificates are among them. The variable `OUTRIDER_LOG` overrides the level."
        );
        (Standing::Met, text)
    } else {
        let text = format!(
            "Events of outrider itself are logged from the level `{shown}` up: successful reloads and renewed secrets, at level \
             `info`, are not. The variable `OUTRIDER_LOG` overrides the level."
        );
        (Standing::Gap, text)
    };
    let proofs = [
        found.setting("log.level"),
        FactProof::Metric("outrider_config_reloads_total"),
        FactProof::Metric("outrider_credential_refresh_total"),
    ];
    found.add(CHOSEN, standing, text, proofs);
    let text = "Lines that are read too slowly are dropped, and counted: traffic does not wait for the log.";
    let proofs = [FactProof::Metric("outrider_log_lines_dropped_total")];
    found.add(CHOSEN, Standing::Gap, text, proofs);
}

/// Tells that requests in tunnels are not logged.
fn tunnels(found: &mut Gathered<'_>) {
    let text = "a CONNECT is one event, however many requests are in it";
    each_blind(found, CHOSEN, text);
}

/// Tells which fields say what a record has to say.
fn fields(found: &mut Gathered<'_>) {
    let access = found.config().log.access;
    for (part, text, fields) in [
        (
            "au-3_smt.a",
            "A line says what happened: the method, and for a refusal the error type, the reason and a sentence.",
            &["method", "error", "reason", "detail"][..],
        ),
        (
            "au-3_smt.b",
            "A line says when: UTC, to the microsecond, and how long it took.",
            &["timestamp", "duration_ms", "wait_ms"],
        ),
        (
            "au-3_smt.c",
            "A line says where: the destination of the configuration, host, port and path.",
            &["destination", "host", "port", "path"],
        ),
        (
            "au-3_smt.e",
            "A line says how it ended: the status, and whether the upstream, the cache or outrider itself answered.",
            &["status", "answered_by", "error", "sent", "received"],
        ),
    ] {
        let proofs: Vec<_> = fields.iter().map(|field| FactProof::LogField(field)).collect();
        if access == Access::None {
            let text = "There is no line for any request.";
            found.add(part, Standing::Gap, text, [found.setting("log.access")]);
        } else {
            found.add(part, Standing::Met, text, proofs);
        }
    }
}

/// Tells whether a line says who sent the request.
fn source(found: &mut Gathered<'_>) {
    let config = found.config();
    let is_logged = config.log.access != Access::None;
    let (standing, text) = if config.clients.is_empty() {
        (
            Standing::Gap,
            "A line does not say who sent the request: without `clients` nobody is asked. (Beside an app it is a process of that \
             app's container.)",
        )
    } else if is_logged {
        (
            Standing::Met,
            "A line says which of the `clients` sent the request.",
        )
    } else {
        (
            Standing::Gap,
            "Which of the `clients` sent a request is counted, and not logged.",
        )
    };
    for part in ["au-3_smt.d", "au-3_smt.f"] {
        let proofs = [
            found.setting("clients"),
            FactProof::LogField("client"),
            FactProof::Metric("outrider_client_requests_total"),
        ];
        found.add(part, standing, text, proofs);
    }
}

fn left_out(found: &mut Gathered<'_>) {
    let text = "Query strings, header fields, bodies and secrets are never in a line; hosts and paths are cut to a bounded length, \
                and control characters are escaped.";
    found.add(
        "au-3_smt.c",
        Standing::Note,
        text,
        [FactProof::Always("docs/operating.md#logs")],
    );
}

fn format(found: &mut Gathered<'_>) {
    let format = found.config().log.format;
    let how = match format {
        LogFormat::Auto => "JSON, on a terminal text",
        LogFormat::Json => "JSON",
        LogFormat::Text => "text",
    };
    let text = format!(
        "Lines are {how} ({}), on standard error.",
        code(&format!("format: {}", format.word()))
    );
    let proofs = [found.setting("log.format")];
    found.add("au-3_smt.a", Standing::Note, text, proofs);
}

/// Tells what is noticed of attempts to get elsewhere.
fn refusals(found: &mut Gathered<'_>) {
    let text = "Requests that the policy refuses are counted by destination and reason; the last 16 refusals are on the status page.";
    let proofs = [
        FactProof::Metric("outrider_denied_total"),
        FactProof::Always("docs/operating.md#metrics"),
    ];
    found.add(UNAUTHORIZED, Standing::Met, text, proofs);
    if found.config().egress.default == EgressDefault::Tunnel {
        let text = "Connections to hosts that no destination names are not told apart from wanted ones (`observe` records them, \
                    `deny` refuses them).";
        let proofs = [found.setting("egress.default")];
        found.add(UNAUTHORIZED, Standing::Gap, text, proofs);
    }
    let text = "Handshakes that fail, distrust of the local authority, refused credentials and open circuits are counted; alert \
                rules for them come with outrider.";
    let proofs = [
        FactProof::Metric("outrider_errors_total"),
        FactProof::Metric("outrider_client_distrust_total"),
        FactProof::Metric("outrider_credential_refused_total"),
        FactProof::Metric("outrider_circuit_state"),
        FactProof::Always("grafana/README.md"),
    ];
    found.add(DETECT, Standing::Met, text, proofs);
}

/// Tells whether a secret on its way elsewhere is noticed.
fn carried_away(found: &mut Gathered<'_>) {
    let mode = found.setting("placeholders.mode");
    if found.config().placeholders.mode == PlaceholderMode::Never {
        let text = "An app that sends a secret elsewhere is not noticed: it has no placeholders.";
        return found.add(DETECT, Standing::Gap, text, [mode]);
    }
    let text = "An app that sends the placeholder of a secret elsewhere is refused, counted, and a warning in the log. Not seen: \
                placeholders in tunnels, and in bodies that are compressed or encoded.";
    let proofs = [
        mode,
        FactProof::Metric("outrider_denied_total{reason=\"placeholder\"}"),
    ];
    found.add(DETECT, Standing::Met, text, proofs);
}

/// Tells where nothing inside is monitored.
fn blind(found: &mut Gathered<'_>) {
    let text = "what is in a tunnel is not monitored; only its bytes, its length in time and its end are";
    each_blind(found, DETECT, text);
    let egress = &found.config().egress;
    if egress.default != EgressDefault::Deny {
        let text = "What is in tunnels to hosts that no destination names is not monitored.";
        let proofs = [
            found.setting("egress.default"),
            FactProof::Metric("outrider_tunnels_total"),
        ];
        found.add(DETECT, Standing::Gap, text, proofs);
    }
}

/// Adds a gap for whatever passes unread.
fn each_blind(found: &mut Gathered<'_>, part: &'static str, text: &str) {
    let tunnels = found.destinations().filter(|one| !one.intercept);
    let tunnels = tunnels.map(|one| (one, format!("{}.mode", one.place())));
    let ports = found.policy().destinations.iter().map(|one| &**one);
    let ports = ports
        .filter(|one| one.tcp.is_some())
        .map(|one| (one, one.place()));
    for (one, key) in tunnels.chain(ports) {
        let proofs = [found.setting(key), FactProof::Metric("outrider_tunnels_total")];
        found.add_of(&one.name, part, Standing::Gap, text, proofs);
    }
}

/// Tells how the metrics get to somebody who looks at them.
fn metrics(found: &mut Gathered<'_>) {
    let config = found.config();
    let mut ways = Vec::new();
    let mut proofs = Vec::new();
    if let Some(address) = config.admin {
        ways.push(format!(
            "a page to be scraped at {}",
            code(&format!("http://{address}/metrics"))
        ));
    }
    proofs.push(found.setting("admin"));
    if let Some(push) = &config.telemetry.push {
        let every = humantime::format_duration(push.every);
        ways.push(format!(
            "a push to {} every `{every}`",
            code(&push.url.target.to_string())
        ));
    }
    proofs.push(found.setting("telemetry.push"));
    if let Some(every) = config.log.metrics {
        let every = humantime::format_duration(every);
        ways.push(format!("the key counters as a line of the log every `{every}`"));
    }
    proofs.push(found.setting("log.metrics"));
    let is_read = config.telemetry.push.is_some() || config.log.metrics.is_some();
    let (standing, text) = if ways.is_empty() {
        let text =
            "Nobody can read the metrics: there is no admin page, no push, and no counters in the log.";
        (Standing::Gap, text.to_owned())
    } else if is_read {
        (
            Standing::Met,
            format!("Metrics leave outrider by {}.", ways.join(", and ")),
        )
    } else {
        let text = format!(
            "Metrics are offered by {}; whether somebody scrapes it is not known here, and nothing is pushed or logged.",
            ways.join(", and ")
        );
        (Standing::Unknown, text)
    };
    found.add(DEVICES, standing, text, proofs);
}

fn reports(found: &mut Gathered<'_>) {
    let text = "There are no traces: `telemetry.otlp` does not work yet.";
    let page = FactProof::Always("docs/operating.md#what-does-not-work-yet");
    found.add(DEVICES, Standing::Note, text, [page]);
}

/// Tells of answers that no server gave.
fn simulated(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        let Some(rehearse) = &one.rehearse else { continue };
        let text = format!(
            "answers are simulated ({}), so its figures are not those of the service",
            code(&rehearse.to_string())
        );
        let proofs = [
            found.setting(format!("{}.rehearse", one.place())),
            FactProof::Metric("outrider_rehearsed_total"),
        ];
        found.add_of(&one.name, DETECT, Standing::Gap, text, proofs);
    }
}
