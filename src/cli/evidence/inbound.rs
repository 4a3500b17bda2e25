//! The route service: who may come in through it, and where to.

use super::facts::{FactProof, Gathered, Standing, code, codes};
use crate::config::{ROUTE_SERVICE, RouteServiceKeys};

fn written<'s>(found: &Gathered<'s>) -> Option<&'s RouteServiceKeys> {
    found.config().route_service.as_deref()
}

fn setting(found: &Gathered<'_>, key: &str) -> FactProof {
    found.setting(format!("{ROUTE_SERVICE}.{key}"))
}

/// Tells of AC-4 where a request may be forwarded to, and how often.
pub(super) fn flows(found: &mut Gathered<'_>) {
    let Some(keys) = written(found) else { return };
    let text = format!(
        "requests from outside are forwarded to these hosts only, and every request is seen: {}",
        codes(&keys.to)
    );
    let proofs = [
        setting(found, "to"),
        FactProof::Metric("outrider_denied_total{reason=\"forwarded_url\"}"),
    ];
    found.add_of(ROUTE_SERVICE, "ac-4_smt", Standing::Met, text, proofs);
    let (standing, text) = match &keys.rate_limit {
        Some(rate) => (
            Standing::Met,
            format!("each client may come {} times", code(&rate.to_string())),
        ),
        None => (
            Standing::Note,
            "how often a client may come is not limited".to_owned(),
        ),
    };
    let proofs = [
        setting(found, "rate_limit"),
        FactProof::Metric("outrider_limit_refused_total"),
    ];
    found.add_of(ROUTE_SERVICE, "ac-4_smt", standing, text, proofs);
}

/// Tells of SC-7 from where clients may come.
pub(super) fn boundary(found: &mut Gathered<'_>) {
    let Some(keys) = written(found) else { return };
    let listen = code(&keys.listen.to_string());
    let is_open = keys.allow.is_empty() || keys.allow.iter().any(|block| block.prefix_len() == 0);
    let (standing, text) = if is_open {
        let text = format!("listens at {listen} for other machines, and serves clients from every address");
        (Standing::Gap, text)
    } else {
        let text = format!(
            "listens at {listen} for other machines, and serves clients from these addresses only: {}; the address is read \
             from the trusted end of X-Forwarded-For",
            codes(&keys.allow)
        );
        (Standing::Met, text)
    };
    let proofs = [
        setting(found, "allow"),
        setting(found, "listen"),
        setting(found, "trusted_hops"),
        setting(found, "trusted_networks"),
        FactProof::Metric("outrider_denied_total{reason=\"client_address\"}"),
    ];
    found.add_of(ROUTE_SERVICE, "sc-7_smt.c", standing, text, proofs);
}

/// Tells of SC-8 what is encrypted on the way in and on.
pub(super) fn transmission(found: &mut Gathered<'_>) {
    let Some(keys) = written(found) else { return };
    let text = "its listener speaks no TLS: whether requests are encrypted on their way to it is up to the platform's router";
    let proofs = [setting(found, "listen")];
    found.add_of(ROUTE_SERVICE, "sc-8_smt", Standing::Gap, text, proofs);
    let (standing, text) = if keys.upgrade {
        (
            Standing::Met,
            "requests are forwarded over TLS to a verified server",
        )
    } else {
        (
            Standing::Gap,
            "requests are forwarded as their URL says, in clear where it begins with http://",
        )
    };
    let proofs = [setting(found, "upgrade"), setting(found, "tls.min_version")];
    found.add_of(ROUTE_SERVICE, "sc-8_smt", standing, text, proofs);
}

/// Tells of IA-3 what clients have to show.
pub(super) fn devices(found: &mut Gathered<'_>) {
    let Some(keys) = written(found) else { return };
    let proofs = [setting(found, "auth"), FactProof::LogField("client")];
    let Some(auth) = &keys.auth else {
        let text = "clients show no credential: their addresses alone decide";
        return found.add_of(ROUTE_SERVICE, "ia-3_smt", Standing::Gap, text, proofs);
    };
    let mut shown = Vec::new();
    if !auth.basic.is_empty() {
        let users = auth.basic.iter().map(|(name, _)| name);
        shown.push(format!("the password of one of the users {}", codes(users)));
    }
    if !auth.bearer.is_empty() {
        shown.push(format!("one of `{}` bearer tokens", auth.bearer.len()));
    }
    if let Some(rules) = &auth.jwt {
        shown.push(format!(
            "a JSON Web Token of {} for {}",
            code(&rules.issuer),
            codes(&rules.audience)
        ));
    }
    let text = format!("clients have to show {}", shown.join(", or "));
    found.add_of(ROUTE_SERVICE, "ia-3_smt", Standing::Met, text, proofs);
}
