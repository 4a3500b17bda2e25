//! TLS to upstreams: the roots that are trusted, the client certificate, and explanations of failed handshakes.
//!
//! [`Settings`] are made once for a destination: its roots, its identity, its lowest version. Under them each host and port
//! has its session store, so that a session never resumes for another identity, other roots, another port or another ALPN
//! offer. There is no early data and no key log.
//!
//! [`identity`] loads the client certificate, [`verify`] checks the server's, [`error`] explains failures. Which connections
//! may be shared is decided in the pool.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

pub(crate) use certificate::name_shown;
pub(crate) use crypto::provider;
pub(crate) use error::Error;
#[cfg(test)]
pub(super) use fault::CertificateFault;
pub(crate) use handshake::tell;
pub(crate) use identity::{Lifetime, chain_of};
pub(crate) use late::Session;
pub(crate) use settings_error::SettingsError;

use super::FastMap;
use crate::config::{ClientCertificate, SecretRef, Tls, TlsVersion};
use crate::host::{Host, Target};
use crate::policy::Destination;
use crate::secret::anchors::Anchors;
use crate::secret::roots::SystemRoots;
use crate::secret::{self, Secret, Snapshot, pem};
use crate::sync::lock;
use crate::units::rfc3339;
use identity::ClientIdentity;
use late::Late;
use presenter::Presenter;
use revocation::Revocation;
use settings_error::TlsKey;
use verify::{Generation, Verifier};

mod certificate;
mod chain;
mod crypto;
mod error;
mod explain;
mod fault;
mod handshake;
mod identity;
mod late;
mod policies;
mod presenter;
mod revocation;
mod settings_error;
mod usage;
mod verify;

#[cfg(test)]
mod tests;

/// The most hosts, ports and protocols of one destination that can resume sessions.
const ORIGINS: usize = 256;

/// The TLS settings of one destination: one identity, one set of roots, and their session stores, so that no session made for
/// one identity resumes for another.
pub(crate) struct Settings {
    configs: Mutex<FastMap<(Target, Alpn), Config>>,
    /// By host: which certificates its servers have asked for.
    presenters: Mutex<FastMap<Host, Arc<Presenter>>>,
    terms: Arc<Terms>,
}

/// What does not change: see [`Settings::sibling`].
struct Terms {
    /// Without ALPN and session store: [`Settings::config`] adds them.
    base: ClientConfig,
    identity: Option<ClientIdentity>,
    /// Its ClientHello is longer than a segment of TCP.
    is_long: bool,
    server_name: Option<ServerName<'static>>,
    verifier: Arc<Verifier>,
    versions: TlsVersion,
    warnings: Vec<TlsWarning>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Secured<S> {
    pub(crate) stream: Session<S>,
    /// The end of the first certificate or list on which the trust in the server rests.
    pub(crate) until: SystemTime,
}

/// The TLS configuration of a target, and the verifier of its sessions.
#[derive(Clone)]
struct Config {
    config: Arc<ClientConfig>,
    generation: Arc<Generation>,
}

/// What we offer by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Alpn {
    H1,
    H2,
    /// h2, then http/1.1.
    Either,
}

/// Something about TLS settings that a person should look at. The settings are used all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsWarning {
    #[error("tls.client_certificate: expired {}; renew it", rfc3339(*since))]
    Expired { since: SystemTime },

    #[error(
        "tls.crl: the list of {issuer} was to be renewed by {}, so every server of its is refused; get the new one",
        rfc3339(*since)
    )]
    ListEnded { issuer: String, since: SystemTime },

    #[error(
        "the system has no trusted roots, so nothing can be verified; install ca-certificates or set tls.ca"
    )]
    NoRoots,

    #[error(
        "tls.client_certificate: not meant for clients (its extended key usage lacks clientAuth); many servers will refuse it"
    )]
    NotForClients,

    #[error(
        "tls.client_certificate: its key is not for signing (its key usage lacks digitalSignature), as every handshake \
         needs it; many servers will refuse it"
    )]
    NotForSigning,

    #[error(
        "tls.client_certificate: its issuer {name} may sign no certificates (it lacks cA or keyCertSign); many servers \
         will refuse it"
    )]
    NotIssuer { name: String },

    #[error("tls.client_certificate: not valid before {}; check the clock", rfc3339(*from))]
    NotYetValid { from: SystemTime },

    #[error(transparent)]
    Secret(#[from] secret::SecretWarning),

    #[error(
        "tls.client_certificate: {name} is signed with {hash}, which servers refuse today; have it issued again, signed \
         with SHA-256"
    )]
    WeakSignature { name: String, hash: &'static str },
}

impl Settings {
    /// Reads certificates and keys; a key that does not belong to its certificate is an error.
    pub(crate) fn build(
        destination: &Destination,
        snapshot: &Snapshot,
        roots: &SystemRoots,
    ) -> Result<Self, SettingsError> {
        Self::of(&destination.tls, snapshot, roots)
    }

    /// Makes the settings that a `tls` section asks for.
    pub(crate) fn of(tls: &Tls, snapshot: &Snapshot, roots: &SystemRoots) -> Result<Self, SettingsError> {
        let mut warnings = Vec::new();
        let identity = tls
            .client_certificate
            .as_ref()
            .map(|pair| ClientIdentity::load(pair, snapshot))
            .transpose()?;
        if let (Some(identity), Some(pair)) = (&identity, &tls.client_certificate) {
            let private = match pair {
                // The platform makes these files: nobody can chmod them.
                ClientCertificate::InstanceIdentity => None,
                ClientCertificate::Pem { key, .. } => Some(key),
                ClientCertificate::Pkcs12 { file, .. } => Some(file),
            };
            let found = private.map_or_else(Vec::new, |reference| snapshot.warnings(reference));
            warnings.extend(found.into_iter().map(TlsWarning::from));
            warnings.extend(identity.warnings.iter().cloned());
        }

        let provider = if tls.groups.is_empty() {
            provider().clone()
        } else {
            Arc::new(crypto::exchanging(&tls.groups)?)
        };
        let (anchors, named) = trusted(tls, snapshot, roots)?;
        warnings.extend(anchors.is_empty().then_some(TlsWarning::NoRoots));
        let verifier = Arc::new(Verifier {
            named,
            pins: tls.pins.clone(),
            provider: provider.clone(),
            revocation: revoked(tls, snapshot)?,
            anchors,
        });
        let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS12, &rustls::version::TLS13],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let mut base = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(SettingsError::Crypto)?
            // rustls calls each custom verifier dangerous. Ours asks webpki and explains its answer.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Generation::new(&verifier)))
            .with_no_client_auth();
        base.resumption = Resumption::disabled();
        if cfg!(feature = "fips") && !base.fips() {
            return Err(SettingsError::NotApproved);
        }

        let server_name = tls.server_name.as_ref().map(name_of);
        let terms = Terms {
            base,
            identity,
            is_long: crypto::has_long_hello(&provider),
            server_name,
            verifier,
            versions: tls.min_version,
            warnings,
        };
        Ok(Self::under(Arc::new(terms)))
    }

    /// Returns the same settings with new session stores, for another destination.
    pub(crate) fn sibling(&self) -> Self {
        Self::under(Arc::clone(&self.terms))
    }

    fn under(terms: Arc<Terms>) -> Self {
        Self {
            configs: Mutex::default(),
            presenters: Mutex::default(),
            terms,
        }
    }

    /// Returns what a person should know about these settings as of `now`.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<TlsWarning> {
        let mut warnings = self.terms.warnings.clone();
        let ended = self.terms.verifier.revocation.ended(now);
        warnings.extend(ended.map(|(issuer, since)| TlsWarning::ListEnded {
            issuer: issuer.to_owned(),
            since,
        }));
        if let Some(identity) = &self.terms.identity {
            let (from, until) = (identity.life.not_before, identity.life.not_after);
            warnings.extend((until < now).then_some(TlsWarning::Expired { since: until }));
            warnings.extend((now < from).then_some(TlsWarning::NotYetValid { from }));
        }
        warnings
    }

    /// Returns when the client certificate is valid; `None` without one.
    pub(crate) fn life(&self) -> Option<&Lifetime> {
        self.terms.identity.as_ref().map(|identity| &identity.life)
    }

    /// Returns the name that is sent as SNI and verified: `tls.server_name`, else the host. An address is verified, not sent.
    pub(crate) fn server_name(&self, host: &Host) -> ServerName<'static> {
        self.terms.server_name.clone().unwrap_or_else(|| name_of(host))
    }

    /// Makes a client handshake within `limit`, over any connection to `target`.
    ///
    /// With [`Alpn::H2`] a server that does not choose h2 is an error; otherwise the caller checks what was chosen.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        target: &Target,
        alpn: Alpn,
        limit: Duration,
    ) -> Result<Secured<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = &target.host;
        let secured = self
            .handshake(stream, host, self.config(target, alpn, SystemTime::now()), limit)
            .await?;
        match alpn {
            Alpn::H2 if secured.stream.connection().alpn_protocol() != Some(b"h2") => Err(Error::NoHttp2 {
                host: host.to_string(),
            }),
            Alpn::H1 | Alpn::H2 | Alpn::Either => Ok(secured),
        }
    }

    /// Does the same for a protocol that is not HTTP, with its name in ALPN if it has one. No session is resumed.
    pub(crate) async fn connect_bare<S>(
        &self,
        stream: S,
        host: &Host,
        alpn: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Secured<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = self.terms.base.clone();
        config.alpn_protocols.extend(alpn.map(<[u8]>::to_vec));
        self.handshake(stream, host, self.renewed(host, config), limit)
            .await
    }

    async fn handshake<S>(
        &self,
        stream: S,
        host: &Host,
        config: Config,
        limit: Duration,
    ) -> Result<Secured<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Config { config, generation } = config;
        let handshake = TlsConnector::from(config).connect(self.server_name(host), stream);
        match tokio::time::timeout(limit, handshake).await {
            Err(_) => Err(Error::Timeout {
                host: host.to_string(),
                hint: error::length_hint(&self.before(host)),
                limit,
            }),
            Ok(Err(error)) => Err(self.failed_handshake(error, host)),
            Ok(Ok(stream)) => Ok(Secured {
                stream: Session::new(stream),
                until: generation.until().unwrap_or(SystemTime::UNIX_EPOCH),
            }),
        }
    }

    /// Explains an error on a connection made with these settings, if TLS is one of its causes; else `None`. In TLS 1.3 a
    /// refused client certificate shows only here, on the first read. The request may have been processed, so it must not be
    /// sent again unless it is idempotent.
    pub(crate) fn explain(&self, error: &(dyn std::error::Error + 'static), host: &Host) -> Option<Error> {
        if let Some(how) = Late::of(error) {
            let host = host.to_string();
            return Some(Error::ClientCertificateLate { host, how });
        }
        let cause = error::find(error)?;
        Some(Error::of_rustls(cause, &host.to_string(), &self.before(host)))
    }

    fn failed_handshake(&self, error: io::Error, host: &Host) -> Error {
        let before = self.before(host);
        match error::find(&error) {
            Some(cause) if error::is_not_tls(cause) => Error::NotTls {
                host: host.to_string(),
                hint: String::new(),
            },
            Some(cause) => Error::of_rustls(cause, &host.to_string(), &before),
            None => Error::Closed {
                host: host.to_string(),
                hint: error::closing_hint(&before),
                source: error,
            },
        }
    }

    /// Returns what came before an error on a connection to `host`.
    fn before(&self, host: &Host) -> error::Before {
        let presenters = lock(&self.presenters);
        let presenter = presenters.get(host).cloned();
        drop(presenters);
        error::Before {
            asked: presenter.map(|presenter| presenter.asked()).unwrap_or_default(),
            is_long: self.terms.is_long,
            versions: self.terms.versions,
        }
    }

    /// Returns what shows our certificate to `host`.
    fn presenter(&self, host: &Host) -> Arc<Presenter> {
        let mut presenters = lock(&self.presenters);
        if let Some(presenter) = presenters.get(host) {
            return presenter.clone();
        }
        if presenters.len() >= ORIGINS {
            presenters.clear();
        }
        let certified = self
            .terms
            .identity
            .as_ref()
            .map(|identity| identity.certified.clone());
        let presenter = Arc::new(Presenter::new(certified));
        presenters.insert(host.clone(), presenter.clone());
        presenter
    }

    /// Returns the configuration for `target`, with its session store; everything else is shared. Its sessions are dropped when
    /// a certificate or list has ended on which one of them rests.
    fn config(&self, target: &Target, alpn: Alpn, now: SystemTime) -> Config {
        let is_current = |config: &&Config| config.generation.until().is_none_or(|until| now < until);
        let key = (target.clone(), alpn);
        let mut configs = lock(&self.configs);
        if let Some(config) = configs.get(&key).filter(is_current) {
            return config.clone();
        }
        if configs.len() >= ORIGINS {
            // Names come from the app. With too many of them some sessions cannot resume, but memory stays bounded.
            configs.clear();
        }
        let mut config = self.terms.base.clone();
        config.alpn_protocols = match alpn {
            Alpn::H1 => vec![b"http/1.1".to_vec()],
            Alpn::H2 => vec![b"h2".to_vec()],
            Alpn::Either => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        config.resumption = Resumption::in_memory_sessions(1);
        let config = self.renewed(&target.host, config);
        configs.insert(key, config.clone());
        config
    }

    /// Makes the configuration for `host`, with another verifier.
    fn renewed(&self, host: &Host, mut config: ClientConfig) -> Config {
        let generation = Arc::new(Generation::new(&self.terms.verifier));
        config
            .dangerous()
            .set_certificate_verifier(Arc::clone(&generation) as _);
        config.client_auth_cert_resolver = self.presenter(host);
        Config {
            config: Arc::new(config),
            generation,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("identity", &self.terms.identity)
            .field("server_name", &self.terms.server_name)
            .finish_non_exhaustive()
    }
}

/// Reads the roots: those of `tls.ca` instead of the system's, and those of `tls.ca_extra` in addition. Also returns the
/// certificates of both, each of which is trusted as a server's certificate as well.
fn trusted(
    tls: &Tls,
    snapshot: &Snapshot,
    roots: &SystemRoots,
) -> Result<(Arc<Anchors>, Vec<CertificateDer<'static>>), SettingsError> {
    let written = [(TlsKey::Ca, &tls.ca), (TlsKey::CaExtra, &tls.ca_extra)];
    let mut anchors = match &tls.ca {
        Some(_) => Arc::new(Anchors::new()),
        None => roots.anchors().clone(),
    };
    let mut pinned = Vec::new();
    for (key, reference) in written {
        let Some(reference) = reference else { continue };
        for (i, certificate) in authorities(key, reference, snapshot)?.into_iter().enumerate() {
            Arc::make_mut(&mut anchors)
                .add(certificate.clone())
                .map_err(|_| SettingsError::BadCertificate {
                    key,
                    reference: reference.clone(),
                    position: i + 1,
                })?;
            pinned.push(certificate);
        }
    }
    Ok((anchors, pinned))
}

/// Reads the lists of `tls.crl`.
fn revoked(tls: &Tls, snapshot: &Snapshot) -> Result<Revocation, SettingsError> {
    let mut lists = Vec::new();
    let mut places = Vec::new();
    for reference in &tls.crl {
        let key = TlsKey::Crl;
        let secret = snapshot
            .read_list(reference)
            .map_err(|source| SettingsError::Secret { key, source })?;
        let found = pem::revocation_lists(&secret).map_err(|source| SettingsError::Pem {
            key,
            reference: reference.clone(),
            source,
        })?;
        places.extend((1..=found.len()).map(|position| (reference, position)));
        lists.extend(found);
    }
    Revocation::new(&lists).map_err(|(i, source)| {
        let (reference, position) = places[i];
        SettingsError::BadList {
            reference: reference.clone(),
            position,
            source,
        }
    })
}

/// Reads the certificates that `reference` under `key` names; at least one.
fn certificates(
    key: TlsKey,
    reference: &SecretRef,
    snapshot: &Snapshot,
) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let text = read(key, reference, snapshot)?;
    pem::certificates(&text).map_err(|source| SettingsError::Pem {
        key,
        reference: reference.clone(),
        source,
    })
}

/// The same of every file where `reference` is a folder, as `CF_SYSTEM_CERT_PATH` is. There, a file without certificates is
/// passed over, but one of them must have some.
fn authorities(
    key: TlsKey,
    reference: &SecretRef,
    snapshot: &Snapshot,
) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let files = snapshot.spread(reference);
    if files.first() == Some(reference) {
        return certificates(key, reference, snapshot);
    }
    let found: Vec<_> = (files.iter())
        .filter_map(|file| certificates(key, file, snapshot).ok())
        .flatten()
        .collect();
    if found.is_empty() {
        let reference = reference.clone();
        return Err(SettingsError::NoAuthority { key, reference });
    }
    Ok(found)
}

fn read(key: TlsKey, reference: &SecretRef, snapshot: &Snapshot) -> Result<Secret, SettingsError> {
    snapshot
        .read_binary(reference)
        .map_err(|source| SettingsError::Secret { key, source })
}

/// Reads a certificate and its key, for the side of a handshake that shows them.
pub(crate) fn certified(
    pair: &ClientCertificate,
    snapshot: &Snapshot,
) -> Result<(Arc<CertifiedKey>, Lifetime), SettingsError> {
    let identity = ClientIdentity::load(pair, snapshot)?;
    Ok((identity.certified, identity.life))
}

fn name_of(host: &Host) -> ServerName<'static> {
    match host {
        // A parsed host is a name of at most 253 letters, digits, hyphens and dots. If rustls does not accept it, no server
        // can have it; it is then verified as a name that nobody can have (RFC 6761).
        Host::Name(name) => ServerName::try_from(name.to_string()).unwrap_or_else(|_| nobody()),
        Host::V4(address) => ServerName::IpAddress(std::net::IpAddr::V4(*address).into()),
        Host::V6(address) => ServerName::IpAddress(std::net::IpAddr::V6(*address).into()),
    }
}

fn nobody() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED).into())
}
