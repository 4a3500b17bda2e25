//! A private authority for one test, and what it signs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// An authority and the folder in which its certificates lie.
pub(crate) struct Pki {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM texts and as files.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) cert_path: PathBuf,
    pub(crate) key_path: PathBuf,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::named("outrider test authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap());
        let issuer = issuer.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    /// Returns the path of the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a server certificate for `name` and for 127.0.0.1.
    pub(crate) fn server(&self, name: &str) -> Identity {
        self.issue(name, server_params(&[name, "127.0.0.1"]))
    }

    /// Makes a client certificate with the subject `CN=name`.
    pub(crate) fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    /// Signs `params` and writes `name.crt` and `name.key`.
    pub(crate) fn issue(&self, name: &str, params: CertificateParams) -> Identity {
        self.issue_for(name, params, &KeyPair::generate().unwrap())
    }

    /// Makes a certificate for a key of the test.
    pub(crate) fn issue_for(&self, name: &str, mut params: CertificateParams, key: &KeyPair) -> Identity {
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(key, &self.issuer).unwrap().pem();
        Identity::write(self.folder.path(), name, cert, key.serialize_pem())
    }

    /// Makes a revocation list with these serial numbers.
    pub(crate) fn list(&self, revoked: &[u64]) -> String {
        super::authorities::list(&self.issuer, revoked)
    }

    /// Configures a TLS server with `identity` that asks for no certificate.
    pub(crate) fn accepting(&self, identity: &Identity) -> ServerConfig {
        accepting(identity)
    }

    /// Configures a TLS server with `identity` that demands a certificate of this authority.
    pub(crate) fn demanding(&self, identity: &Identity) -> ServerConfig {
        self.demanding_over(identity, rustls::ALL_VERSIONS)
    }

    /// Configures the same server for these TLS versions.
    pub(crate) fn demanding_over(
        &self,
        identity: &Identity,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let (chain, key) = identity.der();
        ServerConfig::builder_with_protocol_versions(versions)
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap()
    }
}

/// Returns what an authority has in its certificate. Python 3.13 and later demand key usages of authorities, and the
/// identifier of the authority in all others.
pub(super) fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Identity {
    /// Writes both texts into a folder, as `name.crt` and `name.key`.
    pub(super) fn write(folder: &Path, name: &str, cert: String, key: String) -> Self {
        let cert_path = folder.join(format!("{name}.crt"));
        let key_path = folder.join(format!("{name}.key"));
        std::fs::write(&cert_path, &cert).unwrap();
        std::fs::write(&key_path, &key).unwrap();
        Self {
            cert,
            key,
            cert_path,
            key_path,
        }
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes())
            .map(Result::unwrap)
            .collect();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }

    /// As the value of `client_certificate`.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "{{ cert: \"file:{}\", key: \"file:{}\" }}",
            self.cert_path.display(),
            self.key_path.display()
        )
    }
}

/// A TLS server that shows `identity`, valid or not, and asks for no certificate.
pub(crate) fn accepting(identity: &Identity) -> ServerConfig {
    let (chain, key) = identity.der();
    let builder = ServerConfig::builder();
    let key = builder
        .crypto_provider()
        .key_provider
        .load_private_key(key)
        .unwrap();
    // `with_single_cert` would look at the certificate.
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    builder.with_no_client_auth().with_cert_resolver(Arc::new(shown))
}

/// Returns the parameters of a plain server certificate for `names`.
pub(crate) fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Configures a client that trusts the certificates in the file `bundle` and offers the protocols `alpn`.
pub(crate) fn trusting(bundle: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(bundle).unwrap().map(Result::unwrap);
    roots.add_parsable_certificates(certificates);
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
