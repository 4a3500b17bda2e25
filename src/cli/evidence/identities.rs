//! IA-3 and IA-5: who is authenticated by what, where each secret comes from, and when it ends.

use std::sync::Arc;

use super::facts::{FactProof, Gathered, ReadableSecrets, Standing, code, codes};
use super::inbound;
use crate::auth::Credentials;
use crate::cli::check::{
    Reference, parents, references, references_of_route_service, references_of_store, references_of_tcp,
};
use crate::config::{
    Auth, ClientCertificate, ClientKeys, HeaderText, Identity, PlaceholderMode, ROUTE_SERVICE, SecretRef,
    ServerCertificate, Tls,
};
use crate::error::ErrorChain;
use crate::policy::{Destination, ParentPlan};
use crate::units::rfc3339;
use crate::upstream::tls;

/// How the facts of IA-3 are gathered.
pub(super) const DEVICES: &[fn(&mut Gathered<'_>)] =
    &[servers, ourselves, clients, local_ports, inbound::devices];

/// How the facts of IA-5 are gathered.
pub(super) const AUTHENTICATORS: &[fn(&mut Gathered<'_>)] =
    &[strength, sources, certificates, credentials, protection, answers];

const DEVICE: &str = "ia-3_smt";
const STRENGTH: &str = "ia-5_smt.c";
const RENEWAL: &str = "ia-5_smt.f";
const PROTECTION: &str = "ia-5_smt.g";

/// What a refused secret or certificate means.
const UNUSABLE: &str = "requests that need it are refused";

/// Returns the destinations and the servers of `tcp` to which outrider speaks TLS itself.
fn over_tls<'s>(found: &Gathered<'s>) -> impl Iterator<Item = &'s Arc<Destination>> + use<'s> {
    let all = found.policy().destinations.iter().skip(1);
    all.filter(|one| match &one.tcp {
        Some(entry) => entry.tls.is_some(),
        None => one.is_route_service || !one.deny && (one.intercept || one.upgrade),
    })
}

/// Tells how servers are authenticated.
fn servers(found: &mut Gathered<'_>) {
    let mut is_any = false;
    for one in over_tls(found) {
        is_any = true;
        let tls = &one.tls;
        let mut text = format!(
            "a server has to show a valid certificate for {}, under {}",
            match &tls.server_name {
                Some(name) => format!("the name {}", code(&name.to_string())),
                None => "its host".to_owned(),
            },
            roots(tls)
        );
        let mut keys = vec!["ca"];
        keys.extend(tls.ca_extra.is_some().then_some("ca_extra"));
        keys.extend(tls.server_name.is_some().then_some("server_name"));
        if !tls.pins.is_empty() {
            keys.push("pins");
            text.push_str(&format!(
                ", with one of `{}` pinned keys in its chain",
                tls.pins.len()
            ));
        }
        let at = |key: &str| format!("{}.tls.{key}", one.place());
        if tls.crl.is_empty() {
            let proofs = [found.setting(at("crl"))];
            let text = "no lists of revoked certificates are configured (and OCSP is not asked), so a revoked certificate of a \
                        server is accepted";
            found.add_of(&one.name, DEVICE, Standing::Gap, text, proofs);
        } else {
            keys.push("crl");
            text.push_str(&format!(", that no list of {} revokes", codes(&tls.crl)));
        }
        let mut proofs: Vec<_> = keys.into_iter().map(|key| found.setting(at(key))).collect();
        proofs.push(FactProof::Metric(
            "outrider_errors_total{error=\"tls_certificate_error\"}",
        ));
        found.add_of(&one.name, DEVICE, Standing::Met, text, proofs);
    }
    if is_any {
        let text = "No key of the configuration turns the verification of servers off.";
        let page = FactProof::Always("docs/destinations.md#trusting-the-upstream");
        found.add(DEVICE, Standing::Met, text, [page]);
    }
    for one in found.destinations().filter(|one| !one.intercept) {
        let proofs = [found.setting(format!("{}.mode", one.place()))];
        let text = "in a CONNECT the app alone authenticates the server";
        found.add_of(&one.name, DEVICE, Standing::Gap, text, proofs);
    }
}

fn roots(tls: &Tls) -> String {
    let own = tls.ca.as_ref().map(|ca| code(&ca.to_string()));
    let more = tls.ca_extra.as_ref().map(|ca| code(&ca.to_string()));
    let first = own.unwrap_or_else(|| "the system's roots".to_owned());
    match more {
        None => first,
        Some(more) => format!("{first} and {more}"),
    }
}

/// Tells where outrider shows who it is.
fn ourselves(found: &mut Gathered<'_>) {
    for one in found.policy().destinations.iter().skip(1) {
        let Some(pair) = &one.tls.client_certificate else {
            continue;
        };
        let text = format!(
            "outrider shows a client certificate where the server asks for one: {}",
            code(&pair.to_string())
        );
        let proofs = [found.setting(format!("{}.tls.client_certificate", one.place()))];
        found.add_of(&one.name, DEVICE, Standing::Met, text, proofs);
    }
}

/// Tells who may use the listener.
fn clients(found: &mut Gathered<'_>) {
    let config = found.config();
    if config.clients.is_empty() {
        let text = format!(
            "The listener ({}) asks nobody who he is: every process that reaches it may use what the policy allows, and the \
             credentials with it. (Under `outrider exec` it asks for a random password.)",
            codes(&config.listen)
        );
        let proofs = [found.setting("clients"), found.setting("listen")];
        return found.add(DEVICE, Standing::Gap, text, proofs);
    }
    for client in &config.clients {
        let place = format!("clients.{}", client.name);
        let proofs = [
            found.setting(place.as_str()),
            FactProof::Metric("outrider_client_requests_total"),
            FactProof::LogField("client"),
        ];
        found.add_of(&place, DEVICE, Standing::Met, known_by(client), proofs);
        if client.needs_certificate() {
            let text = "lists of revoked certificates are not read for clients";
            let page = FactProof::Always("docs/callers.md#certificates");
            found.add_of(&place, DEVICE, Standing::Gap, text, [page]);
        }
    }
}

fn known_by(client: &ClientKeys) -> String {
    let mut signs: Vec<String> = Vec::new();
    if let Some(password) = &client.basic {
        signs.push(format!("the password in {}", code(&password.to_string())));
    }
    for identity in client.identities() {
        signs.push(match identity {
            Identity::App(guid) => format!("an instance identity of the app {}", code(&guid)),
            Identity::Name(name) => format!("a certificate with {}", code(&name.to_string())),
            Identity::Organization(guid) => {
                format!("an instance identity of the organization {}", code(&guid))
            }
            Identity::Space(guid) => format!("an instance identity of the space {}", code(&guid)),
        });
    }
    if let Some(ca) = &client.ca {
        signs.push(format!("the authority {}", code(&ca.to_string())));
    }
    format!("known by {}", signs.join(", and "))
}

fn local_ports(found: &mut Gathered<'_>) {
    for entry in &found.config().tcp {
        let proofs = [found.setting(format!("tcp.{}.listen", entry.name))];
        let text = "the local port asks nobody who he is: every process that reaches it gets what outrider shows to the server";
        found.add_of(&entry.name, DEVICE, Standing::Gap, text, proofs);
    }
}

/// Tells how strong keys and passwords have to be.
fn strength(found: &mut Gathered<'_>) {
    let mut all = found.policy().destinations.iter();
    if all.any(|one| one.tls.client_certificate.is_some()) {
        let text = "Keys of client certificates are RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519; \
                    others are refused.";
        let page = FactProof::Always("docs/credentials.md#client-certificates");
        found.add(STRENGTH, Standing::Met, text, [page]);
    }
    let uses_passwords = |auth: &Auth| {
        matches!(
            auth,
            Auth::Basic { .. } | Auth::Bearer(_) | Auth::Header { .. } | Auth::Query { .. }
        )
    };
    let text = "how strong it is, is not judged";
    for one in found.destinations() {
        for credential in one.auth.iter().flat_map(|rule| &rule.credentials) {
            if uses_passwords(&credential.auth) {
                let proofs = [found.setting(format!("{}.{}", one.place(), credential.place))];
                found.add_of(&one.name, STRENGTH, Standing::Unknown, text, proofs);
            }
        }
    }
    let passwords = found.config().clients.iter().filter(|one| one.basic.is_some());
    for client in passwords {
        let place = format!("clients.{}", client.name);
        let proofs = [found.setting(format!("{place}.basic"))];
        found.add_of(&place, STRENGTH, Standing::Unknown, text, proofs);
    }
}

/// A secret, whose it is, and the key that names it.
struct Named<'s> {
    whose: String,
    path: String,
    from: &'s SecretRef,
}

/// Returns every secret that the configuration refers to.
fn named<'s>(found: &Gathered<'s>) -> Vec<Named<'s>> {
    let config = found.config();
    let mut all = Vec::new();
    let mut add = |whose: &str, references: Vec<Reference<'s>>| {
        let secret = references.into_iter().filter(|one| one.holds.is_secret());
        all.extend(secret.map(|one| Named {
            whose: whose.to_owned(),
            path: one.path,
            from: one.to,
        }));
    };
    for one in &config.destinations {
        add(&one.name, references(one));
    }
    for entry in &config.tcp {
        add(&entry.name, references_of_tcp(entry));
    }
    if let Some(store) = &config.rate_limit_store {
        add("rate_limit_store", references_of_store(store));
    }
    if let Some(keys) = &config.route_service {
        add(ROUTE_SERVICE, references_of_route_service(keys));
    }
    let mut plans: Vec<&ParentPlan> = Vec::new();
    for plan in found
        .policy()
        .destinations
        .iter()
        .filter_map(|one| one.parent.as_deref())
    {
        if !plans.iter().any(|known| known.place == plan.place) {
            plans.push(plan);
            add(&plan.place, parents::secrets(plan));
        }
    }
    for client in &config.clients {
        if let Some(from) = &client.basic {
            let whose = format!("clients.{}", client.name);
            let path = format!("{whose}.basic");
            all.push(Named { whose, path, from });
        }
    }
    let own = match &config.listen_tls {
        ServerCertificate::Pair(ClientCertificate::Pem { key, passphrase, .. }) => {
            vec![("key", Some(key)), ("passphrase", passphrase.as_ref())]
        }
        ServerCertificate::Pair(ClientCertificate::Pkcs12 { file, password }) => {
            vec![("pkcs12", Some(file)), ("password", password.as_ref())]
        }
        ServerCertificate::Pair(ClientCertificate::InstanceIdentity)
        | ServerCertificate::Auto
        | ServerCertificate::Off => Vec::new(),
    };
    all.extend(own.into_iter().filter_map(|(key, from)| {
        Some(Named {
            whose: "listen_tls".to_owned(),
            path: format!("listen_tls.{key}"),
            from: from?,
        })
    }));
    all
}

/// Tells where each secret comes from, and how a new value is taken over.
fn sources(found: &mut Gathered<'_>) {
    for secret in named(found) {
        let (standing, renewal) = match secret.from {
            SecretRef::Env(_) => (
                Standing::Note,
                "is read at the start: a new value takes a restart",
            ),
            SecretRef::File(_) => (
                Standing::Met,
                "is read again when it changes: a new value is taken over while outrider runs",
            ),
            SecretRef::Vcap { .. } => (
                Standing::Note,
                "is read again where the platform gives services as files (`VCAP_SERVICES_FILE_PATH`, \
                 `SERVICE_BINDING_ROOT`); else a new value takes a restart",
            ),
        };
        let text = format!(
            "the secret of {} comes from {}, which {renewal}",
            code(&secret.path),
            code(&secret.from.to_string())
        );
        let proofs = [found.setting(secret.path.as_str())];
        found.add_of(&secret.whose, RENEWAL, standing, text, proofs);
    }
}

/// Tells when client certificates end.
fn certificates(found: &mut Gathered<'_>) {
    for one in over_tls(found) {
        let at = |key: &str| format!("{}.tls{key}", one.place());
        let has_identity = one.tls.client_certificate.is_some();
        let Some(secrets) = found.secrets() else {
            if has_identity {
                let proofs = [found.setting(at(".client_certificate"))];
                let text = "when its client certificate ends was not read (`--offline`)";
                found.add_of(&one.name, RENEWAL, Standing::Unknown, text, proofs);
            }
            continue;
        };
        match tls::Settings::build(one, secrets.snapshot, secrets.roots) {
            Err(error) => {
                let text = format!(
                    "its TLS settings cannot be used as they were read, so {UNUSABLE}: {}",
                    code(&ErrorChain(&error).to_string())
                );
                let proofs = [found.setting(at(""))];
                found.add_of(&one.name, RENEWAL, Standing::Gap, text, proofs);
            }
            Ok(settings) => certificate(found, one, &settings, secrets),
        }
    }
}

fn certificate(
    found: &mut Gathered<'_>,
    one: &Destination,
    settings: &tls::Settings,
    secrets: &ReadableSecrets<'_>,
) {
    let place = format!("{}.tls", one.place());
    let warnings = settings.warnings(secrets.now).into_iter();
    let is_told_here = |warning: &tls::TlsWarning| {
        !matches!(
            warning,
            tls::TlsWarning::Secret(_)
                | tls::TlsWarning::Expired { .. }
                | tls::TlsWarning::NotYetValid { .. }
        )
    };
    for warning in warnings.filter(is_told_here) {
        let proofs = [found.setting(place.as_str())];
        let text = code(&warning.to_string());
        found.add_of(&one.name, RENEWAL, Standing::Gap, text, proofs);
    }
    let Some(life) = settings.life() else { return };
    let proofs = [
        found.setting(format!("{place}.client_certificate")),
        FactProof::Metric("outrider_credential_expiry_timestamp_seconds{kind=\"client_certificate\"}"),
    ];
    // Its end is another one each day, and evidence is compared from day to day.
    let is_over = life.not_after < secrets.now;
    if life.is_of_platform && !is_over {
        let text = "its client certificate is the platform's, which renews it before it ends";
        return found.add_of(&one.name, RENEWAL, Standing::Met, text, proofs);
    }
    let (from, until) = (rfc3339(life.not_before), rfc3339(life.not_after));
    let serial = code(&life.serial);
    let (standing, text) = if is_over {
        let text = format!("its client certificate (serial number {serial}) ended `{until}`");
        (Standing::Gap, text)
    } else if secrets.now < life.not_before {
        let text = format!("its client certificate (serial number {serial}) is not valid before `{from}`");
        (Standing::Gap, text)
    } else {
        let text = format!(
            "its client certificate (serial number {serial}) is valid from `{from}` to `{until}`; the log warns before its end"
        );
        (Standing::Met, text)
    };
    found.add_of(&one.name, RENEWAL, standing, text, proofs);
}

/// Tells when credentials end, as far as that is known.
fn credentials(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        if let Some(secrets) = found.secrets()
            && let Err(error) = Credentials::check(one, secrets.snapshot)
        {
            let text = format!(
                "its credential cannot be used as it was read, so {UNUSABLE}: {}",
                code(&ErrorChain(&error).to_string())
            );
            let proofs = [found.setting(format!("{}.auth", one.place()))];
            found.add_of(&one.name, RENEWAL, Standing::Gap, text, proofs);
        }
        for credential in one.auth.iter().flat_map(|rule| &rule.credentials) {
            let (standing, text, metric) = end(&credential.auth);
            let proofs = [
                found.setting(format!("{}.{}", one.place(), credential.place)),
                FactProof::Metric(metric),
            ];
            found.add_of(&one.name, RENEWAL, standing, text, proofs);
        }
    }
}

/// Returns what is known about the end of a credential, and the metric that shows it.
fn end(auth: &Auth) -> (Standing, String, &'static str) {
    let refused = "outrider_credential_refused_total";
    let unknown = || {
        let text = format!(
            "when its credential ({}) ends is known to its service only; answers 401 and 403 to it are counted",
            code(auth.kind())
        );
        (Standing::Unknown, text, refused)
    };
    match auth {
        Auth::OAuth2(oauth2) => {
            let text = format!(
                "access tokens are asked for (grant {}, client authentication {}), kept in memory only, and renewed before they \
                 end",
                code(oauth2.grant()),
                code(oauth2.client_auth())
            );
            let metric = "outrider_credential_expiry_timestamp_seconds{kind=\"token\"}";
            (Standing::Met, text, metric)
        }
        Auth::Jwt(jwt) => {
            let lifetime = humantime::format_duration(jwt.lifetime);
            let text = format!("tokens are signed here, each valid for `{lifetime}`");
            (Standing::Met, text, refused)
        }
        Auth::HttpSignature(signature) => match signature.expires {
            Some(expires) => {
                let expires = humantime::format_duration(expires);
                let text = format!("each signature is void after `{expires}`");
                (Standing::Met, text, refused)
            }
            None => {
                let text = "its signatures name no time after which they are void (`expires`)".to_owned();
                (Standing::Gap, text, refused)
            }
        },
        Auth::AwsSigV4(_)
        | Auth::Basic { .. }
        | Auth::Bearer(_)
        | Auth::Header { .. }
        | Auth::Hmac(_)
        | Auth::Query { .. } => unknown(),
    }
}

/// Tells how secrets are kept from those whom they do not concern.
fn protection(found: &mut Gathered<'_>) {
    let text = "The configuration refers to secrets (`env:`, `file:`, `vcap:`): where one belongs, a value is an error. The log, \
                the metrics, the status page and this evidence have none.";
    let page = FactProof::Always("docs/credentials.md#where-secrets-come-from");
    found.add(PROTECTION, Standing::Met, text, [page]);
    for secret in named(found) {
        if !matches!(secret.from, SecretRef::File(_)) {
            continue;
        }
        let proofs = [found.setting(secret.path.as_str())];
        match found.secrets() {
            None => {
                let text = "who may read the files of its secrets was not looked at (`--offline`)";
                found.add_of(&secret.whose, PROTECTION, Standing::Unknown, text, proofs);
            }
            Some(secrets) => {
                for warning in secrets.snapshot.warnings(secret.from) {
                    let text = code(&warning.to_string());
                    found.add_of(&secret.whose, PROTECTION, Standing::Gap, text, proofs.clone());
                }
            }
        }
    }
    let config = found.config();
    for one in &config.destinations {
        let plain = one.headers.set.iter();
        let plain = plain.filter(|(_, text)| matches!(text, HeaderText::Plain(_)));
        let names: Vec<_> = plain.map(|(name, _)| name.to_string()).collect();
        if names.is_empty() {
            continue;
        }
        let text = format!(
            "the values of these header fields are written in the file; whether one is a secret cannot be told: {}",
            codes(names)
        );
        let proofs = [found.setting(format!("destinations.{}.headers.set", one.name))];
        found.add_of(&one.name, PROTECTION, Standing::Unknown, text, proofs);
    }
    let mut all = named(found).into_iter();
    if config.placeholders.mode == PlaceholderMode::Never
        && all.any(|secret| !matches!(secret.from, SecretRef::File(_)))
    {
        let text = "The app's environment has the secrets that come from variables and bound services.";
        let proofs = [found.setting("placeholders.mode")];
        found.add(PROTECTION, Standing::Gap, text, proofs);
    }
}

/// Tells whether answers can carry attached secrets back.
fn answers(found: &mut Gathered<'_>) {
    for one in found.destinations().filter(|one| one.attaches()) {
        let (standing, text) = match one.scrub {
            Some(true) => (
                Standing::Met,
                "attached secrets are struck out of the fields and the text of answers",
            ),
            Some(false) => (
                Standing::Gap,
                "attached secrets are struck out of the fields of answers, and not of their text (`scrub: false`)",
            ),
            None => (
                Standing::Met,
                "attached secrets are struck out of the fields of answers, and of their text where the app has placeholders \
                 for them",
            ),
        };
        let proofs = [
            found.setting(format!("{}.scrub", one.place())),
            FactProof::Metric("outrider_secrets_struck_total"),
        ];
        found.add_of(&one.name, PROTECTION, standing, text, proofs);
    }
}
