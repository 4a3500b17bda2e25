//! Who may use the listener: what `check` says about it.

use super::{add, told};
use crate::clients::{self, BuildError, CommandClient};
use crate::config::{ClientCertificate, Config, Problems, ServerCertificate};
use crate::secret::Snapshot;
use crate::telemetry::Telemetry;

/// Builds the clients as the proxy would, and adds what is wrong with them.
pub(super) fn examine(
    config: &Config,
    snapshot: &Snapshot,
    problems: &mut Problems,
    warnings: &mut Problems,
) {
    let built = clients::build(
        config,
        &CommandClient::default(),
        snapshot,
        &Telemetry::new(),
        None,
    );
    for error in &built.failed {
        match error {
            BuildError::Client { client, source } => {
                add(problems, &format!("clients.{client}"), &**source);
            }
            BuildError::NoCertificate => add(problems, "clients", error),
            BuildError::ListenTls(source) => {
                let (what, right) = told(source);
                // It begins with the key.
                let (path, what) = match what.split_once(": ") {
                    Some((path, what)) if path.starts_with("listen_tls") => (path, what),
                    Some(_) | None => ("listen_tls", what.as_str()),
                };
                problems.add(path, what, right);
            }
            other => add(problems, "listen_tls", other),
        }
    }
    let own = match &config.listen_tls {
        ServerCertificate::Pair(ClientCertificate::Pem { key, passphrase, .. }) => [
            Some(("listen_tls.key", key)),
            passphrase.as_ref().map(|one| ("listen_tls.passphrase", one)),
        ],
        ServerCertificate::Pair(ClientCertificate::Pkcs12 { file, password }) => [
            Some(("listen_tls.pkcs12", file)),
            password.as_ref().map(|one| ("listen_tls.password", one)),
        ],
        // The platform makes these files: nobody can chmod them.
        ServerCertificate::Pair(ClientCertificate::InstanceIdentity)
        | ServerCertificate::Auto
        | ServerCertificate::Off => [None, None],
    };
    let own = own
        .into_iter()
        .flatten()
        .map(|(path, one)| (path.to_owned(), one));
    let passwords = config.clients.iter().filter_map(|client| {
        let basic = client.basic.as_ref()?;
        Some((format!("clients.{}.basic", client.name), basic))
    });
    for (path, reference) in passwords.chain(own) {
        for warning in snapshot.warnings(reference) {
            add(warnings, &path, &warning);
        }
    }
}

/// Warns of passwords that others can read on the way to the listener.
pub(super) fn warn_of_clear_passwords(config: &Config, warnings: &mut Problems) {
    let is_public = config.listen.iter().any(|listen| listen.public().is_some());
    if let Some(client) = config.clients.iter().find(|client| client.basic.is_some())
        && is_public
    {
        warnings.add(
            format!("clients.{}.basic", client.name),
            "its password goes over the network in clear where it does not speak TLS to the listener",
            "set listen_tls, and write https:// in the URL of the proxy; a certificate beside the password rules the rest out",
        );
    }
}
