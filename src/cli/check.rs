//! `outrider check`: every problem of a configuration at once.
//!
//! What the file says is checked by `config` and `policy`; here also what it points to: every secret is read where the
//! proxy would read it, and every certificate and key is looked into.

use std::process::ExitCode;
use std::time::SystemTime;

use super::{ConfigArg, note, print};
use crate::auth::{Credentials, SecretMatcher};
use crate::clients::KeySet;
use crate::config::{
    ClientCertificate, Config, ConfigSource, DEFAULT_FILE, DestinationKeys, HeaderText, Problems,
    ROUTE_SERVICE, RateLimitStore, RouteAuth, RouteServiceKeys, SESSION_TOKEN, SecretRef, TcpKeys, Text, Tls,
    locate,
};
use crate::error::ErrorChain;
use crate::policy::{self, Policy};
use crate::secret::roots::SystemRoots;
use crate::secret::{self, Snapshot, pem, pkcs12};
use crate::store::StoreAddress;
use crate::upstream::tls;

mod against;
mod bypassed;
mod clients;
pub(super) mod manifest;
pub(super) mod parents;
mod placeholders;
mod warnings;

/// Check a configuration and list every problem in it
///
/// Reads the configuration, and every secret, certificate and key that it refers to, as `outrider run` would.
/// Each problem is one line: file:line:column: path: what is wrong; what would be right. The exit code is then 1.
/// Where nothing is wrong nothing is printed, and the exit code is 0; warnings go to standard error and do not
/// change it. With --against, what the change means is printed, what lets more through first; of the old file no secret
/// is read.
///
/// With --offline no secret is read, so that a file for another machine can be checked: references have to be written well,
/// but need not lead anywhere. With --manifest the manifest of `cf push` is checked, too: what keeps the sidecar from
/// working there, and what the platform would ignore without a word.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  $ outrider check --config outrider.yml
  outrider.yml:12:5: destinations.partner.rate_limt: no such key; did you mean `rate_limit`?
  $ outrider check --manifest manifest.yml
  manifest.yml:11:14: applications[0].sidecars[0].command: the shell stays between the platform and outrider, [...]
  $ git show origin/main:outrider.yml | outrider check --against -
  lets more through, or trusts others:
    becomes reachable: api.example.com (destination api)")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// Say what the change from this file means: hosts, credentials, limits, trust; - is standard input
    #[arg(long, value_name = "OLD", value_hint = clap::ValueHint::FilePath)]
    against: Option<std::path::PathBuf>,

    /// Exit with 3 where the change lets more through, or trusts others
    #[arg(long, requires = "against")]
    fail_on_widening: bool,

    /// Check all but the secrets, whose environment, files and services are elsewhere
    #[arg(long)]
    offline: bool,

    /// Check a manifest of cf push, and offline the outrider.yml in each app's folder, or that of --config
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "against")]
    manifest: Option<std::path::PathBuf>,
}

/// Checks, and says what was found.
pub(super) fn run(args: &Args) -> ExitCode {
    if let Some(path) = &args.manifest {
        return manifest::run(path, args.config.config.as_deref());
    }
    let source = locate(args.config.config.as_deref());
    let loaded = if args.offline {
        source.load_elsewhere()
    } else {
        source.load()
    };
    let config = match loaded {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    let (problems, warnings) = if args.offline {
        examine_written(&config)
    } else {
        examine(&config, &Snapshot::of_process(), SystemTime::now())
    };
    if source == ConfigSource::Embedded {
        note(&format!(
            "note: there is no {DEFAULT_FILE} here, so {source} holds"
        ));
    }
    warn(&warnings);
    if !problems.is_empty() {
        return refuse(&problems);
    }
    match &args.against {
        None => ExitCode::SUCCESS,
        Some(old) => match against::run(old, config, &source, args.fail_on_widening) {
            Ok(code) => code,
            Err(problems) => refuse(&problems),
        },
    }
}

/// Says what is allowed and probably wrong.
fn warn(warnings: &Problems) {
    let text = warnings.to_string();
    text.lines().for_each(|line| note(&format!("warning: {line}")));
}

fn refuse(problems: &Problems) -> ExitCode {
    print(&format!("{problems}\n"));
    ExitCode::FAILURE
}

/// Returns the problems of a configuration that could be read, and warnings.
fn examine(config: &Config, snapshot: &Snapshot, now: SystemTime) -> (Problems, Problems) {
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    let policy = examine_rules(config, &mut problems, &mut warnings);
    let mut readable = Vec::new();
    let roots = SystemRoots::new(snapshot, &config.ca.bundle);
    clients::examine(config, snapshot, &mut problems, &mut warnings);
    for destination in &config.destinations {
        if read_all(&references(destination), snapshot, &mut problems, &mut warnings) {
            readable.push(&*destination.name);
        }
    }
    for entry in &config.tcp {
        if read_all(&references_of_tcp(entry), snapshot, &mut problems, &mut warnings) {
            readable.push(&*entry.name);
        }
    }
    if let Some(written) = &config.route_service
        && read_all(
            &references_of_route_service(written),
            snapshot,
            &mut problems,
            &mut warnings,
        )
    {
        readable.push(ROUTE_SERVICE);
    }
    if let Some(written) = &config.rate_limit_store {
        if let Err(error) = StoreAddress::read(written, snapshot) {
            add(&mut problems, "rate_limit_store", &error);
        }
        if let Err(error) = tls::Settings::of(&written.tls, snapshot, &roots) {
            add_keyed(&mut problems, "rate_limit_store", &error);
        }
        for reference in references_of_store(written) {
            for warning in snapshot.warnings(reference.to) {
                add(&mut warnings, &reference.path, &warning);
            }
        }
    }
    if let Some(policy) = &policy {
        parents::examine(config, policy, snapshot, &roots, &mut problems, &mut warnings);
        for destination in policy
            .destinations
            .iter()
            .filter(|d| readable.contains(&&*d.name))
        {
            build(destination, snapshot, &roots, now, &mut problems, &mut warnings);
        }
    }
    (
        problems.located(&config.locations),
        warnings.located(&config.locations),
    )
}

/// Does the same without the secrets, for a configuration that holds on another machine.
fn examine_written(config: &Config) -> (Problems, Problems) {
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    examine_rules(config, &mut problems, &mut warnings);
    if let Some(Err(error)) = config.rate_limit_store.as_ref().map(StoreAddress::examine) {
        add(&mut problems, "rate_limit_store", &error);
    }
    (
        problems.located(&config.locations),
        warnings.located(&config.locations),
    )
}

/// Examines what the file says, and returns what it means.
fn examine_rules(config: &Config, problems: &mut Problems, warnings: &mut Problems) -> Option<Policy> {
    warnings::warn_of_observing(&config.egress, warnings);
    warnings::warn_of_networks(&config.egress, warnings);
    warnings::warn_of_denied(config, warnings);
    bypassed::find_bypassed(config, problems, warnings);
    clients::warn_of_clear_passwords(config, warnings);
    for destination in &config.destinations {
        warnings::warn_of_limits(destination, warnings);
        warnings::warn_of_tunnels(destination, warnings);
        warnings::warn_of_reach(destination, warnings);
        warnings::warn_of_clear_wires(destination, warnings);
        warnings::warn_of_rehearsal(destination, warnings);
    }
    for entry in &config.tcp {
        warnings::warn_of_clear_ports(entry, warnings);
    }
    placeholders::warn_of_placeholders(config, warnings);
    match Policy::compile(config) {
        Ok(policy) => {
            warnings::warn_of_addresses(config, &policy, warnings);
            Some(policy)
        }
        Err(found) => {
            problems.all.extend(found.all);
            None
        }
    }
}

/// Builds from the secrets what the proxy builds from them.
fn build(
    destination: &policy::Destination,
    snapshot: &Snapshot,
    roots: &SystemRoots,
    now: SystemTime,
    problems: &mut Problems,
    warnings: &mut Problems,
) {
    let path = destination.place();
    if let Err(error) = Credentials::check(destination, snapshot) {
        add(problems, &path, &error);
    }
    match tls::Settings::build(destination, snapshot, roots) {
        Err(error) => add_keyed(problems, &path, &error),
        Ok(settings) => {
            // What is told of a secret's place has been told with its path.
            let found = settings.warnings(now).into_iter();
            for warning in found.filter(|warning| !matches!(warning, tls::TlsWarning::Secret(_))) {
                add_keyed(warnings, &path, &warning);
            }
        }
    }
}

/// A reference of a destination.
pub(super) struct Reference<'c> {
    pub(super) path: String,
    pub(super) to: &'c SecretRef,
    pub(super) holds: Holds<'c>,
}

/// What has to be found where a reference points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds<'c> {
    /// A secret that leaves with the request.
    Attached,
    Certificates,
    /// Which may be empty.
    ClientSecret,
    /// And the passphrase that opens it.
    Key(Option<&'c SecretRef>),
    /// A JSON Web Key Set.
    PublicKeys,
    /// And the password that opens it.
    Pkcs12(Option<&'c SecretRef>),
    /// Lists of revoked certificates.
    Lists,
    /// A secret that leaves with the request, and may be empty.
    Password,
    Secret,
    /// Which keys that last do not have.
    SessionToken,
}

impl Holds<'_> {
    /// Certificates are public, and so is which of them are revoked.
    pub(super) fn is_secret(self) -> bool {
        !matches!(self, Self::Certificates | Self::Lists | Self::PublicKeys)
    }
}

/// Every reference of a destination, and what it is for.
pub(super) fn references(destination: &DestinationKeys) -> Vec<Reference<'_>> {
    let mut references = Vec::new();
    let mut add = |key: &str, to, holds| {
        references.push(Reference {
            path: format!("destinations.{}.{key}", destination.name),
            to,
            holds,
        });
    };
    for credential in destination.auth.iter().flat_map(|rule| &rule.credentials) {
        for (key, reference) in credential.auth.references() {
            let holds = match key {
                SESSION_TOKEN => Holds::SessionToken,
                // These leave as they are, or in base64.
                "basic.password" => Holds::Password,
                "oauth2.client_secret" => Holds::ClientSecret,
                key if key.ends_with(".certificate") => Holds::Certificates,
                "bearer" | "header.value" | "query.value" => Holds::Attached,
                _ => Holds::Secret,
            };
            add(&format!("{}.{key}", credential.place), reference, holds);
        }
    }
    for (name, value) in &destination.headers.set {
        if let HeaderText::Reference(value) = value {
            add(&format!("headers.set.{name}"), value, Holds::Attached);
        }
    }
    if let Some(tls) = &destination.tls {
        of_tls(tls, &mut add);
    }
    references
}

/// Adds every reference of a `tls` section.
fn of_tls<'c>(tls: &'c Tls, add: &mut dyn FnMut(&str, &'c SecretRef, Holds<'c>)) {
    for (key, roots) in [("tls.ca", &tls.ca), ("tls.ca_extra", &tls.ca_extra)] {
        if let Some(roots) = roots {
            add(key, roots, Holds::Certificates);
        }
    }
    match &tls.crl[..] {
        [only] => add("tls.crl", only, Holds::Lists),
        several => {
            for (i, list) in several.iter().enumerate() {
                add(&format!("tls.crl[{i}]"), list, Holds::Lists);
            }
        }
    }
    if let Some(identity) = &tls.client_certificate {
        match identity {
            // What it is made of is found, and told of, when it is built.
            ClientCertificate::InstanceIdentity => {}
            ClientCertificate::Pem {
                cert,
                key,
                passphrase,
            } => {
                add("tls.client_certificate.cert", cert, Holds::Certificates);
                add("tls.client_certificate.key", key, Holds::Key(passphrase.as_ref()));
                if let Some(passphrase) = passphrase {
                    add("tls.client_certificate.passphrase", passphrase, Holds::Secret);
                }
            }
            ClientCertificate::Pkcs12 { file, password } => {
                add(
                    "tls.client_certificate.pkcs12",
                    file,
                    Holds::Pkcs12(password.as_ref()),
                );
                if let Some(password) = password {
                    add("tls.client_certificate.password", password, Holds::Secret);
                }
            }
        }
    }
}

/// Every reference of a local port, and what it is for.
pub(super) fn references_of_tcp(entry: &TcpKeys) -> Vec<Reference<'_>> {
    let mut references = Vec::new();
    let mut add = |key: &str, to, holds| {
        references.push(Reference {
            path: format!("tcp.{}.{key}", entry.name),
            to,
            holds,
        });
    };
    if let Some(tls) = &entry.tls {
        of_tls(tls, &mut add);
    }
    references
}

/// Every reference of the route service.
pub(super) fn references_of_route_service(written: &RouteServiceKeys) -> Vec<Reference<'_>> {
    let mut references = Vec::new();
    let mut add = |key: &str, to, holds| {
        references.push(Reference {
            path: format!("{ROUTE_SERVICE}.{key}"),
            to,
            holds,
        });
    };
    for (place, to) in written.auth.iter().flat_map(RouteAuth::references) {
        let holds = if place == "jwt.jwks" {
            Holds::PublicKeys
        } else {
            Holds::Secret
        };
        add(&format!("auth.{place}"), to, holds);
    }
    of_tls(&written.tls, &mut add);
    references
}

/// Every secret of the store.
pub(super) fn references_of_store(store: &RateLimitStore) -> Vec<Reference<'_>> {
    let mut references = Vec::new();
    let mut add = |key: &str, to, holds| {
        references.push(Reference {
            path: format!("rate_limit_store{key}"),
            to,
            holds,
        });
    };
    if let Text::Reference(url) = &store.url {
        add("", url, Holds::Secret);
    }
    if let Some(password) = &store.sentinel_password {
        add(".sentinel_password", password, Holds::Password);
    }
    of_tls(&store.tls, &mut |key, to, holds| {
        add(&format!(".{key}"), to, holds)
    });
    references.retain(|reference| reference.holds.is_secret());
    references
}

/// Reads what each of them points to. Returns whether all of it can be used.
fn read_all(
    references: &[Reference<'_>],
    snapshot: &Snapshot,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> bool {
    let before = problems.all.len();
    for reference in references {
        read(reference, snapshot, problems, warnings);
    }
    problems.all.len() == before
}

/// Reads what a reference points to, as the proxy would.
fn read(reference: &Reference<'_>, snapshot: &Snapshot, problems: &mut Problems, warnings: &mut Problems) {
    let secret = match reference.holds {
        Holds::Lists => snapshot.read_list(reference.to),
        Holds::ClientSecret | Holds::Password => snapshot.read_password(reference.to),
        Holds::Certificates | Holds::Key(_) | Holds::Pkcs12(_) | Holds::PublicKeys => {
            snapshot.read_binary(reference.to)
        }
        Holds::Attached | Holds::Secret | Holds::SessionToken => snapshot.read(reference.to),
    };
    let secret = match secret {
        Ok(secret) => secret,
        Err(secret::Error::Unset { .. }) if reference.holds == Holds::SessionToken => {
            return warnings.add(
                reference.path.as_str(),
                format!("{} is not set, so there is no session token", reference.to),
                "right for keys that last; set it for temporary ones",
            );
        }
        Err(error) => return add(problems, &reference.path, &error),
    };
    // What is wrong with the secret that opens this one is told under its own key.
    let opener = |opener: Option<&SecretRef>| opener.map(|opener| snapshot.read(opener)).transpose();
    match reference.holds {
        Holds::Certificates => {
            if let Err(error) = pem::certificates(&secret) {
                add(problems, &reference.path, &error);
            }
        }
        Holds::Key(passphrase) => {
            if let Ok(passphrase) = opener(passphrase)
                && let Err(error) = pem::unlocked_key(&secret, passphrase.as_ref())
            {
                add(problems, &reference.path, &error);
            }
        }
        Holds::Lists => {
            if let Err(error) = pem::revocation_lists(&secret) {
                add(problems, &reference.path, &error);
            }
        }
        Holds::Pkcs12(password) => {
            if let Ok(password) = opener(password)
                && let Err(error) = pkcs12::open(&secret, password.as_ref())
            {
                add(problems, &reference.path, &error);
            }
        }
        Holds::PublicKeys => {
            if let Err(error) = KeySet::read(secret.expose()) {
                add(problems, &reference.path, &error);
            }
        }
        Holds::ClientSecret | Holds::Password if secret.expose().is_empty() => warnings.add(
            reference.path.as_str(),
            format!("{} is set to nothing, so that the secret is empty", reference.to),
            "right where the server wants it so; else set it",
        ),
        Holds::Attached | Holds::Password if !SecretMatcher::finds(secret.expose()) => warnings.add(
            reference.path.as_str(),
            format!(
                "{} is too short to be looked for in answers that echo it",
                reference.to
            ),
            "have a longer one made, of 16 characters or more",
        ),
        Holds::Attached | Holds::ClientSecret | Holds::Password | Holds::Secret | Holds::SessionToken => {}
    }
    if reference.holds.is_secret() {
        for warning in snapshot.warnings(reference.to) {
            add(warnings, &reference.path, &warning);
        }
    }
}

/// Files an error whose text begins with its key, as in `tls.ca: …`, under that key.
fn add_keyed(problems: &mut Problems, path: &str, error: &(dyn std::error::Error + 'static)) {
    let (what, right) = told(error);
    match what.split_once(": ") {
        Some((key, what)) if key.starts_with("tls") => problems.add(format!("{path}.{key}"), what, right),
        Some(_) | None => problems.add(path, what, right),
    }
}

/// Files an error under `path`.
fn add(problems: &mut Problems, path: &str, error: &(dyn std::error::Error + 'static)) {
    let (what, right) = told(error);
    // Some errors name their place themselves, for logs.
    let own = what.strip_prefix(path).and_then(|rest| rest.strip_prefix(": "));
    problems.add(path, own.unwrap_or(&what), right);
}

/// Returns the whole chain of an error, and the remedy after its semicolon.
fn told(error: &(dyn std::error::Error + 'static)) -> (String, String) {
    let what = ErrorChain(error).to_string();
    match what.rsplit_once("; ") {
        Some((what, right)) => (what.to_owned(), right.to_owned()),
        None => (what, String::new()),
    }
}

#[cfg(test)]
mod tests;
