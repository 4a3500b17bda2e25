//! Who may use the listener: what `check` says about it.

use super::add;
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
            BuildError::ListenTls(source) => add(problems, "listen_tls", source),
            other => add(problems, "listen_tls", other),
        }
    }
    let key = match &config.listen_tls {
        ServerCertificate::Pair(ClientCertificate::Pem { key, .. }) => Some(("listen_tls", key)),
        ServerCertificate::Pair(ClientCertificate::Pkcs12 { file, .. }) => Some(("listen_tls", file)),
        // The platform makes these files: nobody can chmod them.
        ServerCertificate::Pair(ClientCertificate::InstanceIdentity)
        | ServerCertificate::Auto
        | ServerCertificate::Off => None,
    };
    let passwords = config.clients.iter().filter_map(|client| client.basic.as_ref());
    let secrets = passwords.map(|basic| ("clients", basic)).chain(key);
    for (path, reference) in secrets {
        for warning in snapshot.warnings(reference) {
            add(warnings, path, &warning);
        }
    }
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
