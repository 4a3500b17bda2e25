//! From the configuration and its secrets to the clients.
//!
//! What cannot be used never opens the listener: a client whose secret cannot be read is nobody, and the listener asks all the
//! same. The caller decides what happens then: a start goes on without that client, a reload is refused, a rotation keeps the
//! clients of before.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tls;
use super::token::KeySetError;
use super::trust::Trust;
use super::{Client, Clients, CommandClient, Password, RouteGuard, Written};
use crate::config::{ClientCertificate, ClientKeys, Config, SecretRef, ServerCertificate};
use crate::secret::{self, Snapshot, pem};
use crate::telemetry::Telemetry;
use crate::upstream::tls::{Lifetime, SettingsError, certified};

/// The name of the command of `outrider exec` in log and metrics.
const COMMAND: &str = "outrider";

/// What was built, and what could not be.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) clients: Option<Arc<Clients>>,
    pub(crate) failed: Vec<BuildError>,
}

/// Why a client cannot be known, or TLS not be spoken on the listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(
        "certificate {position} of {reference} is no X.509 certificate that can be used; export it again"
    )]
    BadAuthority { reference: SecretRef, position: usize },

    #[error("clients.{client}")]
    Client {
        client: Arc<str>,
        #[source]
        source: Box<Self>,
    },

    #[error("listen_tls: no TLS version or cipher is left to speak")]
    Crypto(#[source] rustls::Error),

    #[error("listen_tls")]
    ListenTls(#[source] ServerCertificateError),

    #[error(
        "{reference} holds only our own certificate, without the authority that issued it; name the authority as `ca` of the \
         client"
    )]
    NoAuthority { reference: SecretRef },

    #[error(
        "clients are known by certificates, but the listener has none to speak TLS with; write listen_tls: {{ cert: \
         file:PATH, key: file:PATH }}"
    )]
    NoCertificate,

    #[error(
        "listen_tls: this build is for FIPS 140-3, and its module is not in that mode; build it again as docs/fips.md says"
    )]
    NotApproved,

    #[error("{reference} cannot be used")]
    Pem {
        reference: SecretRef,
        source: pem::Error,
    },

    #[error(
        "instance identities are known by the authority of our own; elsewhere name it as `ca` of the client"
    )]
    Platform(#[source] secret::Error),

    #[error("route_service.auth.{place}")]
    RouteService {
        place: String,
        #[source]
        source: Box<Self>,
    },

    #[error("{reference} cannot be used")]
    Keys {
        reference: SecretRef,
        source: KeySetError,
    },

    #[error("the secret cannot be read")]
    Secret(#[source] secret::Error),
}

/// Why the certificate of the listener cannot be used. The reader is that of client certificates.
#[derive(Debug)]
pub(crate) struct ServerCertificateError(SettingsError);

impl fmt::Display for ServerCertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(&text.replace("tls.client_certificate", "listen_tls"))
    }
}

impl Error for ServerCertificateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl BuildError {
    /// Whether a certificate and a key are not of one pair, as while they are being replaced.
    pub(crate) fn is_mismatch(&self) -> bool {
        matches!(self, Self::ListenTls(ServerCertificateError(error)) if error.is_mismatch())
    }
}

/// Makes the clients of a configuration; `previous` where nothing has changed. `None`: the listener serves everybody, in
/// clear.
pub(crate) fn build(
    config: &Config,
    command: &CommandClient,
    secrets: &Snapshot,
    telemetry: &Telemetry,
    previous: Option<&Arc<Clients>>,
) -> Built {
    let written = Written {
        clients: config.clients.clone(),
        listen_tls: config.listen_tls.clone(),
    };
    let is_open = written.clients.is_empty() && command.0.is_none();
    if is_open && written.listen_tls == ServerCertificate::Auto {
        return Built {
            clients: None,
            failed: Vec::new(),
        };
    }
    let fingerprint = secrets.fingerprint(&references(config, secrets));
    let is_same =
        |old: &&Arc<Clients>| old.fingerprint == fingerprint && old.written == written && old.is_whole;
    if let Some(old) = previous.filter(is_same) {
        return Built {
            clients: Some(Arc::clone(old)),
            failed: Vec::new(),
        };
    }
    let mut failed = Vec::new();
    let mut trust = Trust::default();
    let mut clients = Vec::new();
    clients.extend(
        command
            .0
            .as_ref()
            .map(|password| Client::command(password, telemetry)),
    );
    for keys in &written.clients {
        match Client::new(keys, &mut trust, secrets, telemetry) {
            Ok(client) => clients.push(client),
            Err(source) => failed.push(BuildError::Client {
                client: Arc::clone(&keys.name),
                source: Box::new(source),
            }),
        }
    }
    // Stable: of two that are as specific, the first in the file.
    clients.sort_by_key(|client| {
        let ranks = client.identities.iter().map(crate::config::Identity::rank);
        ranks.min().unwrap_or(u8::MAX)
    });
    let trust = Arc::new(trust);
    let (tls, life) = match listener_tls(&written, &trust, secrets) {
        Ok(Some((tls, life))) => (Some(Arc::new(tls)), Some(life)),
        Ok(None) => (None, None),
        Err(error) => {
            failed.push(error);
            (None, None)
        }
    };
    static GENERATION: AtomicU64 = AtomicU64::new(1);
    let clients = Clients {
        asks: !is_open,
        clients: clients.into_iter().map(Arc::new).collect(),
        fingerprint,
        generation: GENERATION.fetch_add(1, Ordering::Relaxed),
        is_whole: failed.is_empty(),
        life,
        tls,
        trust,
        written,
    };
    Built {
        clients: Some(Arc::new(clients)),
        failed,
    }
}

/// Returns every secret that the clients, the listener's TLS and the guard of the route service are made of.
pub(crate) fn references(config: &Config, secrets: &Snapshot) -> Vec<SecretRef> {
    let of_clients = config
        .clients
        .iter()
        .flat_map(|keys| keys.basic.iter().chain(&keys.ca));
    let own = pair(&config.clients, &config.listen_tls);
    let is_of_platform = |keys: &Arc<ClientKeys>| keys.needs_certificate() && keys.ca.is_none();
    let is_platform_asked = config.clients.iter().any(is_of_platform);
    let platform = secrets.instance_identity().ok().filter(|_| is_platform_asked);
    of_clients
        .cloned()
        .chain(own.map_or_else(Vec::new, |own| secrets.parts(&own)))
        .chain(platform.map(|pair| pair.cert))
        .chain(RouteGuard::references(config))
        .collect()
}

impl Clients {
    /// Whether it was made of the same configuration as `other`.
    pub(crate) fn is_of_same_configuration(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Client {
    fn command(password: &Password, telemetry: &Telemetry) -> Self {
        Self {
            counters: telemetry.client(COMMAND),
            identities: Vec::new(),
            authority: None,
            is_command: true,
            destinations: None,
            name: COMMAND.into(),
            password: Some(password.clone()),
        }
    }

    fn new(
        keys: &ClientKeys,
        trust: &mut Trust,
        secrets: &Snapshot,
        telemetry: &Telemetry,
    ) -> Result<Self, BuildError> {
        let password = keys.basic.as_ref().map(|reference| {
            let secret = secrets.read(reference).map_err(BuildError::Secret)?;
            Ok(Password::of(&keys.name, secret.expose()))
        });
        let identities = keys.identities();
        let authority = (!identities.is_empty()).then(|| trust.of(keys.ca.as_ref(), secrets));
        Ok(Self {
            counters: telemetry.client(&keys.name),
            authority: authority.transpose()?,
            identities,
            is_command: false,
            destinations: (!keys.destinations.is_empty()).then(|| keys.destinations.clone()),
            name: Arc::clone(&keys.name),
            password: password.transpose()?,
        })
    }
}

/// Returns where the certificate of the listener is; `None`: it speaks no TLS.
fn pair(clients: &[Arc<ClientKeys>], written: &ServerCertificate) -> Option<ClientCertificate> {
    match written {
        ServerCertificate::Pair(pair) => Some(pair.clone()),
        ServerCertificate::Auto => {
            let is_needed = clients.iter().any(|keys| keys.needs_certificate());
            is_needed.then_some(ClientCertificate::InstanceIdentity)
        }
        ServerCertificate::Off => None,
    }
}

fn listener_tls(
    written: &Written,
    trust: &Arc<Trust>,
    secrets: &Snapshot,
) -> Result<Option<(rustls::ServerConfig, Lifetime)>, BuildError> {
    let Some(pair) = pair(&written.clients, &written.listen_tls) else {
        return Ok(None);
    };
    if written.listen_tls == ServerCertificate::Auto && secrets.instance_identity().is_err() {
        return Err(BuildError::NoCertificate);
    }
    let of_pair = |error| BuildError::ListenTls(ServerCertificateError(error));
    let (own, life) = certified(&pair, secrets).map_err(of_pair)?;
    Ok(Some((tls::config(own, trust)?, life)))
}
