//! The local certificate authority, its leaves, and the bundle that makes the app trust it.
//!
//! Where the proxy has to see a request inside TLS it ends the app's TLS itself, under a leaf that this authority
//! signs. The authority is made at start, its key never leaves the process, and its certificate is constrained to
//! the hosts that are intercepted. The app learns of it from a bundle that holds the system's roots and this one.
//!
//! The authority's certificate holds for a year, because apps read the bundle once; `ca.lifetime` bounds the
//! leaves. Which hosts are intercepted is decided in `policy`, and the handshake happens in `proxy`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{CipherSuite, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::config::Constraints;
use crate::host::{Host, HostPattern};
use crate::secret::roots::{AUTHORITY_NAME, SystemRoots};

use certificate::Validity;
use constraints::PermittedHosts;
use leaves::{Leaf, LeafCache};

mod bundle;
mod certificate;
mod client_files;
mod constraints;
mod leaves;
mod place;
#[cfg(test)]
mod tests;
mod truststore;

pub(crate) use client_files::{AGENTS, ClientFiles, NODE_MODULE};
pub(crate) use place::{is_ours, settle};
pub(crate) use truststore::TRUSTSTORE_PASSWORD;

/// A certificate authority whose key lives in this process only.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    constraints: PermittedHosts,
    identity: Arc<AuthorityKeys>,
    leaves: LeafCache,
    lifetime: Duration,
    validity: Validity,
}

/// Why the app cannot be given a certificate, or the bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A certificate or key could not be made.
    #[error("the local authority cannot make a certificate")]
    Certificate(#[from] rcgen::Error),

    /// A file, a folder or a link belongs to another user, who could replace the roots that the app trusts.
    #[error(
        "{} belongs to another user, who could change what the app trusts; \
         name another place in ca.bundle and ca.truststore",
        path.display()
    )]
    Foreign {
        /// The file, the folder or the link.
        path: PathBuf,
    },

    /// Built with the `fips` feature, but the crypto module is not in FIPS mode.
    #[error(
        "this build is for FIPS 140-3, and its module is not in that mode; build it again as docs/fips.md says"
    )]
    NotApproved,

    /// Others than its owner could replace the roots that the app trusts.
    #[error(
        "{} can be changed by other users, and so could what the app trusts; \
         `chmod go-w` it (`chmod +t` a folder that others need), or name another place in ca.bundle and ca.truststore",
        path.display()
    )]
    Open {
        /// The file or the folder.
        path: PathBuf,
    },

    /// The TLS library refuses the key or the settings.
    #[error("the local authority cannot serve TLS")]
    Tls(#[from] rustls::Error),

    /// A file or folder could not be written.
    #[error("cannot write {}; name a place that can be written in ca.bundle and ca.truststore", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What a minted leaf offers to the app by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// http/1.1, then http/1.0, which some offer alone.
    H1,
    /// h2, then the same.
    H2,
}

/// The name and the keys of an authority, which stay the same when the hosts change.
struct AuthorityKeys {
    issuer: Issuer<'static, KeyPair>,
    /// One key for all leaves, so that a new name costs one signature and no key.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    name: String,
    provider: Arc<CryptoProvider>,
}

impl Authority {
    /// A new key and certificate, name-constrained to `hosts` as far as `about` says; leaves live at most
    /// `lifetime`.
    pub(crate) fn new(hosts: &[HostPattern], about: Constraints, lifetime: Duration) -> Result<Self, Error> {
        let identity = Arc::new(AuthorityKeys::generate()?);
        Self::certify(
            identity,
            PermittedHosts::of(hosts, about),
            lifetime,
            SystemTime::now(),
        )
    }

    /// The same key under a certificate for other hosts; `None` where nothing changes.
    ///
    /// An app that holds the certificate of `self` goes on trusting the leaves for the hosts that it names; only
    /// for hosts that were added ([`Self::widens`]) does it need the new bundle, and a restart to read it.
    pub(crate) fn for_hosts(
        &self,
        hosts: &[HostPattern],
        about: Constraints,
        lifetime: Duration,
    ) -> Result<Option<Self>, Error> {
        let constraints = PermittedHosts::of(hosts, about);
        if constraints == self.constraints && lifetime == self.lifetime {
            return Ok(None);
        }
        Self::certify(
            Arc::clone(&self.identity),
            constraints,
            lifetime,
            SystemTime::now(),
        )
        .map(Some)
    }

    /// Whether this authority vouches for hosts that `earlier` did not list, so that apps need the new bundle.
    pub(crate) fn widens(&self, earlier: &Self) -> bool {
        self.constraints.widen(&earlier.constraints)
    }

    /// Whether its constraints are about addresses that are intercepted, which BoringSSL does not take.
    pub(crate) fn confines_addresses(&self) -> bool {
        self.constraints.confine_addresses()
    }

    /// The TLS settings that serve `host` to the app: minted once, kept, bounded in number.
    ///
    /// TLS 1.2 and 1.3, no early data. A session ticket opens sessions of the same host only.
    pub(crate) fn serve(&self, host: &Host, offer: Offer) -> Result<Arc<ServerConfig>, Error> {
        self.serve_at(host, offer, SystemTime::now())
    }

    /// When the authority's own certificate expires.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.validity.until
    }

    /// Writes the system's roots and this authority's certificate, PEM and PKCS#12, each atomically.
    ///
    /// The PKCS#12 file opens with the password `changeit`, Java's convention for stores that hold nothing secret.
    pub(crate) fn write(&self, roots: &SystemRoots, bundle: &Path, truststore: &Path) -> Result<(), Error> {
        bundle::write(&self.certificate, roots, bundle, truststore)
    }

    fn certify(
        identity: Arc<AuthorityKeys>,
        constraints: PermittedHosts,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let validity = Validity::of_authority(now);
        let certificate = certificate::authority(&identity.name, &identity.issuer, &constraints, validity)?;
        Ok(Self {
            certificate,
            constraints,
            identity,
            leaves: LeafCache::default(),
            lifetime,
            validity,
        })
    }

    fn serve_at(&self, host: &Host, offer: Offer, now: SystemTime) -> Result<Arc<ServerConfig>, Error> {
        if let Some(config) = self.leaves.fresh(host, offer, now) {
            return Ok(config);
        }
        // Two requests for a new name at once both mint it, and the later leaf stays: cheaper than a lock for all.
        let leaf = self.mint(host, now)?;
        let config = leaf.config(offer);
        self.leaves.keep(host.clone(), leaf, now);
        Ok(config)
    }

    fn mint(&self, host: &Host, now: SystemTime) -> Result<Leaf, Error> {
        let identity = &self.identity;
        let validity = Validity::of_leaf(now, self.lifetime, self.validity);
        let certificate = certificate::leaf(host, &identity.leaf_key, &identity.issuer, validity)?;
        let key = CertifiedKey::new(vec![certificate], Arc::clone(&identity.leaf_signer));

        let mut config = ServerConfig::builder_with_provider(Arc::clone(&identity.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.ignore_client_order = true;
        // A separate ticket key binds tickets to this name; the default session store would cost tens of
        // kilobytes a name.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // Each connection leaves as many as the next one takes.
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if cfg!(feature = "fips") && !config.fips() {
            return Err(Error::NotApproved);
        }
        Ok(Leaf::new(config, validity))
    }
}

/// Returns the cryptography that serves the app: all that the library has, AES-128-GCM with SHA-256 first.
///
/// Most clients name AES-256 first, whose SHA-384 is costly: processors have instructions for SHA-256 only. X25519 and the P-256
/// of the leaf are no stronger than AES-128.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    (provider.cipher_suites).sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

/// Never shows a key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("name", &self.identity.name)
            .field("constraints", &self.constraints)
            .finish_non_exhaustive()
    }
}

impl AuthorityKeys {
    fn generate() -> Result<Self, Error> {
        // A random name distinguishes the bundles of two processes.
        let name = format!("{AUTHORITY_NAME}{:08x}", rand::random::<u32>());
        let issuer = certificate::issuer(&name, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);

        let provider = Arc::new(provider());
        // Here, because an authority is made at each start: a build that is not what it says does not serve.
        if cfg!(feature = "fips") && !provider.fips() {
            return Err(Error::NotApproved);
        }
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf_der = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
        let leaf_signer = provider.key_provider.load_private_key(leaf_der.into())?;

        Ok(Self {
            issuer,
            leaf_key,
            leaf_signer,
            name,
            provider,
        })
    }
}
