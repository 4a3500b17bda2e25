//! The files of the demo: certificates, a token and the configuration, all made for one run.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::Error;
use super::services::{Service, ServicePorts};

/// The certificate of the authority of the services.
pub(super) const AUTHORITY: &str = "ca.pem";

/// The roots that the app trusts, written by the proxy.
pub(super) const BUNDLE: &str = "ca-bundle.pem";

/// The name in the app's certificate.
pub(super) const CLIENT: &str = "demo-app";

pub(super) const ON_LIMIT: &str = "wait 900ms";

/// The time between two calls under [`RATE_LIMIT`].
pub(super) const PERIOD: Duration = Duration::from_millis(200);

pub(super) const RATE_LIMIT: &str = "5/s burst 1";

/// A folder that is removed on drop, and the authority that signs for the services and the app.
pub(super) struct DemoFiles {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    token: String,
}

impl DemoFiles {
    /// Makes the folder and all files but the configuration. The folder becomes the working directory, so that the
    /// configuration can name its files as a user's would.
    pub(super) fn new() -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("outrider-demo-").tempdir()?;
        std::env::set_current_dir(folder.path())?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "outrider demo authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let files = Self {
            authority: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
            folder,
            token: HEXLOWER.encode(&rand::random::<[u8; 16]>()),
        };
        let (certificate, key) = files.issue(CLIENT, ExtendedKeyUsagePurpose::ClientAuth)?;
        files.write(AUTHORITY, &files.authority.pem())?;
        files.write("app.crt", &certificate.pem())?;
        files.write("app.key", &key.serialize_pem())?;
        files.write("token", &format!("{}\n", files.token))?;
        Ok(files)
    }

    /// Returns the path of a file in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Returns how a service ends TLS. The partner demands a certificate of our authority; the reports have no TLS.
    pub(super) fn tls(&self, service: Service) -> Result<Option<TlsAcceptor>, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match service {
            Service::Api => builder.with_no_client_auth(),
            Service::Partner => {
                let mut roots = RootCertStore::empty();
                roots.add(self.authority.der().clone())?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(io::Error::other)?)
            }
            Service::Reports => return Ok(None),
        };
        let (certificate, key) = self.issue(service.host(), ExtendedKeyUsagePurpose::ServerAuth)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
        let config = builder.with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }

    /// Returns the configuration: as a user would write it, except the settings that keep it on this machine.
    pub(super) fn configuration(ports: ServicePorts) -> String {
        format!(
            "\
listen: 127.0.0.1:0                       # any free port
admin: 127.0.0.1:0
log: {{ level: error, access: none }}       # the demo itself reports instead
ca: {{ bundle: {BUNDLE}, truststore: truststore.p12 }}
egress: {{ allow_networks: [loopback] }}    # the services are on this machine
dns: {{ hosts: {{ partner.demo: 127.0.0.1, api.demo: 127.0.0.1, reports.demo: 127.0.0.1, trap.demo: 169.254.169.254 }} }}
destinations:
  partner:
    hosts: [\"{partner}\"]
    tls: {{ client_certificate: {{ cert: file:app.crt, key: file:app.key }}, ca: file:ca.pem }}
  api:
    hosts: [\"{api}\"]
    auth: {{ bearer: file:token }}
    tls: {{ ca: file:ca.pem }}
  reports:
    hosts: [\"{reports}\"]
    rate_limit: {RATE_LIMIT}
    on_limit: {ON_LIMIT}
  trap:
    hosts: [trap.demo]                    # listed, but its address is that of a metadata service
",
            partner = ports.authority(Service::Partner),
            api = ports.authority(Service::Api),
            reports = ports.authority(Service::Reports),
        )
    }

    /// Writes the configuration and returns its path.
    pub(super) fn write_configuration(&self, ports: ServicePorts) -> io::Result<PathBuf> {
        self.write("outrider.yml", &Self::configuration(ports))?;
        Ok(self.path("outrider.yml"))
    }

    fn issue(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<(rcgen::Certificate, KeyPair), Error> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.authority)?, key))
    }

    /// Writes a file that only we can read, as secrets should be.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(name))?;
        file.write_all(text.as_bytes())
    }
}
