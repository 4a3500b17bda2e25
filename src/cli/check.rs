//! `outrider check`: every problem of a configuration at once.
//!
//! What the file says is checked by `config` and `policy`; here also what it points to: every secret is read where the
//! proxy would read it, and every certificate and key is looked into.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::{ConfigArg, print};
use crate::auth::{Credentials, SecretMatcher};
use crate::config::{
    ClientCertificate, Config, ConfigSource, Constraints, DEFAULT_FILE, DestinationKeys, Egress, HeaderText,
    Mode, Network, NetworkClass, OnLimit, Problems, SESSION_TOKEN, SecretRef, TcpKeys, Tls, read_text,
};
use crate::host::{Host, HostPattern, Pattern, PortPattern};
use crate::policy::{self, Policy};
use crate::secret::roots::SystemRoots;
use crate::secret::{self, Snapshot, pem, pkcs12};
use crate::store::{self, StoreAddress};
use crate::upstream::tls;
use against::{Changes, Side};

mod against;

/// The name of standard input in problems.
const STDIN: &str = "standard input";

/// Bytes; one more than a configuration may have, so that a larger one is refused and not cut.
const LARGEST_INPUT: u64 = (1 << 20) + 1;

/// The exit code of `--fail-on-widening`.
const WIDENS: u8 = 3;

mod parents;

mod placeholders;

/// Check a configuration and list every problem in it
///
/// Reads the configuration, and every secret, certificate and key that it refers to, as `outrider run` would.
/// Each problem is one line: file:line:column: path: what is wrong; what would be right. The exit code is then 1.
/// Where nothing is wrong nothing is printed, and the exit code is 0; warnings go to standard error and do not
/// change it. With --against, what the change means is printed, what lets more through first; of the old file no secret
/// is read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  $ outrider check --config outrider.yml
  outrider.yml:12:5: destinations.partner.rate_limt: no such key; did you mean `rate_limit`?
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
}

/// Checks, and says what was found.
pub(super) fn run(args: &Args) -> ExitCode {
    let (config, source) = match args.config.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let (problems, warnings) = examine(&config, &Snapshot::of_process(), SystemTime::now());
    if source == ConfigSource::Embedded {
        note(&format!(
            "note: there is no {DEFAULT_FILE} here, so {source} holds"
        ));
    }
    if !warnings.is_empty() {
        warnings
            .to_string()
            .lines()
            .for_each(|line| note(&format!("warning: {line}")));
    }
    if !problems.is_empty() {
        return refuse(&problems);
    }
    match &args.against {
        None => ExitCode::SUCCESS,
        Some(old) => compare(old, config, &source, args.fail_on_widening),
    }
}

/// Says what the change from the file `old` means. The old file has to be sound as well, secrets aside.
fn compare(old: &Path, config: Config, source: &ConfigSource, fails_on_widening: bool) -> ExitCode {
    let read = || {
        let text = source.file().map_or_else(|| Ok(String::new()), read_text)?;
        let new = Side::compiled(config, &text)?;
        let (old, name) = if old.as_os_str() == "-" {
            (
                read_input(std::io::stdin().lock()).map_err(|error| unread(&error))?,
                STDIN.to_owned(),
            )
        } else {
            (read_text(old)?, old.display().to_string())
        };
        Ok((Side::of(&old, &name)?, new))
    };
    match read() {
        Err(problems) => refuse(&problems),
        Ok((old, new)) => {
            let changes = Changes::between(&old, &new);
            match print(&changes.text()) {
                ExitCode::SUCCESS if fails_on_widening && changes.widen() => ExitCode::from(WIDENS),
                code => code,
            }
        }
    }
}

/// Reads a configuration from standard input, no more than one may have.
fn read_input(input: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    input.take(LARGEST_INPUT).read_to_string(&mut text)?;
    Ok(text)
}

fn unread(error: &std::io::Error) -> Problems {
    let mut problems = Problems {
        file: STDIN.to_owned(),
        ..Problems::default()
    };
    problems.add(
        "",
        format!("cannot be read: {error}"),
        "give the old file as UTF-8 text",
    );
    problems
}

/// Says something beside the result. Where nobody listens, nobody is told.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn refuse(problems: &Problems) -> ExitCode {
    print(&format!("{problems}\n"));
    ExitCode::FAILURE
}

/// Returns the problems of a configuration that could be read, and warnings.
fn examine(config: &Config, snapshot: &Snapshot, now: SystemTime) -> (Problems, Problems) {
    let mut problems = Problems::default();
    let mut warnings = Problems::default();
    let mut readable = Vec::new();
    warn_of_networks(&config.egress, &mut warnings);
    warn_of_denied(config, &mut warnings);
    for destination in &config.destinations {
        let before = problems.all.len();
        for reference in references(destination) {
            read(&reference, snapshot, &mut problems, &mut warnings);
        }
        if problems.all.len() == before {
            readable.push(&*destination.name);
        }
        warn_of_limits(destination, &mut warnings);
        warn_of_tunnels(destination, &mut warnings);
        warn_of_reach(destination, &mut warnings);
        warn_of_clear_wires(destination, &mut warnings);
        warn_of_rehearsal(destination, &mut warnings);
    }
    for entry in &config.tcp {
        let before = problems.all.len();
        for reference in references_of_tcp(entry) {
            read(&reference, snapshot, &mut problems, &mut warnings);
        }
        if problems.all.len() == before {
            readable.push(&*entry.name);
        }
        warn_of_clear_ports(entry, &mut warnings);
    }
    placeholders::warn_of_placeholders(config, &mut warnings);
    if let Some(written) = &config.rate_limit_store {
        if let Err(error) = StoreAddress::read(written, snapshot) {
            add(&mut problems, "rate_limit_store", &error);
        }
        let roots = SystemRoots::new(snapshot, &config.ca.bundle);
        if let Err(error) = tls::Settings::of(&written.tls, snapshot, &roots) {
            add_keyed(&mut problems, "rate_limit_store", &error);
        }
        for reference in store::references(written, snapshot) {
            for warning in snapshot.warnings(&reference) {
                add(&mut warnings, "rate_limit_store", &warning);
            }
        }
    }
    match Policy::compile(config) {
        Ok(policy) => {
            warn_of_addresses(config, &policy, &mut warnings);
            let roots = SystemRoots::new(snapshot, &config.ca.bundle);
            parents::examine(config, &policy, snapshot, &roots, &mut problems, &mut warnings);
            for destination in policy
                .destinations
                .iter()
                .filter(|d| readable.contains(&&*d.name))
            {
                build(destination, snapshot, &roots, now, &mut problems, &mut warnings);
            }
        }
        Err(found) => problems.all.extend(found.all),
    }
    (
        problems.located(&config.locations),
        warnings.located(&config.locations),
    )
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
struct Reference<'c> {
    path: String,
    to: &'c SecretRef,
    holds: Holds<'c>,
}

/// What has to be found where a reference points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds<'c> {
    /// A secret that leaves with the request.
    Attached,
    Certificates,
    /// Which may be empty.
    ClientSecret,
    /// And the passphrase that opens it.
    Key(Option<&'c SecretRef>),
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

/// Every reference of a destination, and what it is for.
fn references(destination: &DestinationKeys) -> Vec<Reference<'_>> {
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
fn references_of_tcp(entry: &TcpKeys) -> Vec<Reference<'_>> {
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

/// Reads what a reference points to, as the proxy would.
fn read(reference: &Reference<'_>, snapshot: &Snapshot, problems: &mut Problems, warnings: &mut Problems) {
    let secret = match reference.holds {
        Holds::Lists => snapshot.read_list(reference.to),
        Holds::ClientSecret | Holds::Password => snapshot.read_password(reference.to),
        Holds::Certificates | Holds::Key(_) | Holds::Pkcs12(_) => snapshot.read_binary(reference.to),
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
    // Certificates are public, and so is which of them are revoked.
    if !matches!(reference.holds, Holds::Certificates | Holds::Lists) {
        for warning in snapshot.warnings(reference.to) {
            add(warnings, &reference.path, &warning);
        }
    }
}

/// Warns of interception by address: clients on BoringSSL know no name constraints for addresses, and refuse them.
fn warn_of_addresses(config: &Config, policy: &Policy, warnings: &mut Problems) {
    if config.ca.constraints != Constraints::NamesAndAddresses {
        return;
    }
    for written in &config.destinations {
        let mut compiled = policy.destinations.iter();
        let is_intercepted = compiled.any(|one| one.intercept && *one.name == *written.name);
        let is_address = |host: &&HostPattern| {
            matches!(
                host.what,
                Pattern::Network(_) | Pattern::Host(Host::V4(_) | Host::V6(_))
            )
        };
        if let Some(host) = written.hosts.iter().find(is_address).filter(|_| is_intercepted) {
            warnings.add(
                format!("destinations.{}.hosts", written.name),
                format!(
                    "https to {host} is intercepted, and clients on BoringSSL (gRPC, Envoy, Electron, Bun) refuse our \
                     certificate for an address"
                ),
                "give them a name; or set `ca.constraints: names`, whose price is in docs/destinations.md",
            );
        }
    }
}

/// Warns of a list of denied networks that looks as if it opened the others, and of open metadata services.
fn warn_of_networks(egress: &Egress, warnings: &mut Problems) {
    if let Some(unnamed) = egress.unnamed_classes() {
        warnings.add(
            "egress.deny_networks",
            format!("these networks are denied although the list does not name them: {unnamed}"),
            "name all classes or none; to open one, add it to egress.allow_networks",
        );
    }
    let metadata = Network::Class(NetworkClass::Metadata);
    if let Some(at) = egress.allow_networks.iter().position(|allow| *allow == metadata) {
        warnings.add(
            format!("egress.allow_networks[{at}]"),
            "the metadata services of the platform can be reached, and they give out credentials",
            "remove metadata, or name one address",
        );
    }
}

/// Warns of limits that let nothing through, and of an order for a queue that is always empty.
fn warn_of_limits(destination: &DestinationKeys, warnings: &mut Problems) {
    let path = |key: &str| format!("destinations.{}.{key}", destination.name);
    for (i, _) in (destination.rate_limits.iter().enumerate()).filter(|(_, limit)| limit.rate.count == 0) {
        warnings.add(
            path(&format!("rate_limit[{i}]")),
            "a rate of zero refuses every request that it concerns",
            "write how many may pass, or leave the destination out",
        );
    }
    if !destination.priorities.is_empty() && destination.on_limit == OnLimit::Reject {
        warnings.add(
            path("priority"),
            "nobody waits here, so nobody goes first",
            "write on_limit: wait 2s, or remove it",
        );
    }
}

/// Warns of keys that do nothing for `https://`, because its tunnels pass untouched.
fn warn_of_tunnels(destination: &DestinationKeys, warnings: &mut Problems) {
    if destination.mode != Mode::Tunnel {
        return;
    }
    let idle = destination.idle_in_tunnels();
    if !idle.is_empty() {
        warnings.add(
            format!("destinations.{}.mode", destination.name),
            format!(
                "tunnels of https:// pass untouched, so they get nothing of {}",
                idle.join(", ")
            ),
            "remove mode, or mode: intercept, to have it for every request",
        );
    }
}

/// Warns of credentials that reach more hosts than may be meant.
fn warn_of_reach(destination: &DestinationKeys, warnings: &mut Problems) {
    let identity = destination
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_certificate.is_some());
    if !destination.attaches() && !identity {
        return;
    }
    for (i, host) in destination.hosts.iter().enumerate() {
        let is_of_many = matches!(host.what, Pattern::Suffix(_) | Pattern::Network(_));
        let (what, right) = match host.port {
            _ if is_of_many => (
                format!("every host under {host} gets the credential"),
                "name the hosts one by one if they are not all yours to trust",
            ),
            PortPattern::Any => (
                format!("whatever listens at {host} gets the credential"),
                "name the ports one by one if they are not all yours to trust",
            ),
            PortPattern::One(_) | PortPattern::Usual => continue,
        };
        warnings.add(
            format!("destinations.{}.hosts[{i}]", destination.name),
            what,
            right,
        );
    }
}

/// Warns of patterns that another destination denies, although they are listed to be reached.
fn warn_of_denied(config: &Config, warnings: &mut Problems) {
    let (denying, others): (Vec<_>, Vec<_>) = config.destinations.iter().partition(|own| own.deny);
    let denied: HashMap<&HostPattern, &str> = (denying.iter())
        .flat_map(|own| own.hosts.iter().map(|host| (host, &*own.name)))
        .collect();
    for destination in others {
        for (i, host) in destination.hosts.iter().enumerate() {
            if let Some(name) = denied.get(host) {
                warnings.add(
                    format!("destinations.{}.hosts[{i}]", destination.name),
                    format!("destinations.{name} denies {host}, so it is refused"),
                    "take it out of one of the two",
                );
            }
        }
    }
}

/// Warns of credentials that can be read on the way.
fn warn_of_clear_wires(destination: &DestinationKeys, warnings: &mut Problems) {
    if destination.insecure_attach_over_http {
        let path = format!("destinations.{}.insecure_attach_over_http", destination.name);
        warnings.add(
            path,
            "the credential may leave in clear",
            "remove it if the destination speaks TLS",
        );
    }
}

/// Warns of a local port that ends no TLS, and of one whose protocol asks for TLS in the clear and is not told so.
fn warn_of_clear_ports(entry: &TcpKeys, warnings: &mut Problems) {
    let path = |key: &str| format!("tcp.{}.{key}", entry.name);
    if entry.tls.is_none() {
        warnings.add(
            path("tls"),
            "off: what the app sends in clear leaves in clear, and no certificate is shown",
            "right for an app that speaks TLS itself; else remove it",
        );
        return;
    }
    if entry.starttls.is_some() {
        return;
    }
    // On these ports TLS never begins at once.
    let asks = match entry.to.port {
        25 | 587 => "smtp",
        143 => "imap",
        389 => "ldap",
        3306 => "mysql",
        5432 => "postgres",
        _ => return,
    };
    warnings.add(
        path("to"),
        format!("servers on port {} ask for TLS in the clear first", entry.to.port),
        format!("add starttls: {asks}"),
    );
}

/// Warns of a rehearsal, which must not run in production.
fn warn_of_rehearsal(destination: &DestinationKeys, warnings: &mut Problems) {
    if let Some(rehearse) = &destination.rehearse {
        warnings.add(
            format!("destinations.{}.rehearse", destination.name),
            format!("answers of this destination are simulated: {rehearse}"),
            "remove it before production",
        );
    }
}

/// Files an error whose text begins with its key, as in `tls.ca: …`, under that key.
fn add_keyed(problems: &mut Problems, path: &str, error: &dyn std::error::Error) {
    let (what, right) = told(error);
    match what.split_once(": ") {
        Some((key, what)) if key.starts_with("tls") => problems.add(format!("{path}.{key}"), what, right),
        Some(_) | None => problems.add(path, what, right),
    }
}

/// Files an error under `path`.
fn add(problems: &mut Problems, path: &str, error: &dyn std::error::Error) {
    let (what, right) = told(error);
    problems.add(path, what, right);
}

/// Returns the whole chain of an error, and the remedy after its semicolon.
fn told(error: &dyn std::error::Error) -> (String, String) {
    let mut what = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        what = format!("{what}: {error}");
        cause = error.source();
    }
    match what.rsplit_once("; ") {
        Some((what, right)) => (what.to_owned(), right.to_owned()),
        None => (what, String::new()),
    }
}

#[cfg(test)]
mod tests;
