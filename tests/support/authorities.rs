//! Authorities, chains of them, and certificates with any fault that a test needs.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, RevocationReason, RevokedCertParams, SerialNumber, SigningKey, date_time_ymd,
};
use tempfile::TempDir;

use super::pki::server_params;
use super::programs::clean;
use super::{Identity, run};

/// A certificate that can issue others.
pub(crate) struct Authority {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
    pub(crate) pem: String,
}

/// A root authority and the folder of its files.
pub(crate) struct Authorities {
    pub(crate) folder: TempDir,
    pub(crate) root: Authority,
}

pub(crate) type Change<'a> = &'a dyn Fn(&mut CertificateParams);

impl Authority {
    pub(crate) fn new(name: &str, issuer: Option<&Self>, change: Change) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            None => params.self_signed(&key),
            Some(issuer) => params.signed_by(&key, &issuer.issuer()),
        };
        let pem = certificate.unwrap().pem();
        Self { params, key, pem }
    }

    pub(crate) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// Makes a revocation list with these serial numbers.
    pub(crate) fn list(&self, revoked: &[u64]) -> String {
        list(&self.issuer(), revoked)
    }
}

impl Authorities {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Authority::new("Agency Root", None, &|_| {});
        std::fs::write(folder.path().join("root.pem"), &root.pem).unwrap();
        std::fs::write(folder.path().join("root.key"), root.key.serialize_pem()).unwrap();
        Self { folder, root }
    }

    /// Makes an authority with a version 1 certificate, which has no extensions. rcgen cannot make one.
    pub(crate) fn old_root(&self) -> Authority {
        let key = KeyPair::generate().unwrap();
        let (path, config) = (self.path("old.key"), self.path("old.cnf"));
        std::fs::write(&path, key.serialize_pem()).unwrap();
        // The usual configuration adds extensions, which no certificate of version 1 has.
        std::fs::write(&config, "[req]\ndistinguished_name=name\n[name]\n").unwrap();
        let make = |version: &[&str]| {
            let mut openssl = clean("openssl");
            openssl.args(["req", "-x509", "-new", "-days", "9", "-subj", "/CN=Old Root"]);
            openssl.arg("-config").arg(&config).arg("-key").arg(&path);
            run(openssl.args(version))
        };
        // OpenSSL 3.0 makes one of version 1 where nothing asks for extensions, and has no word for it.
        let mut made = make(&["-x509v1"]);
        if !made.status.success() {
            made = make(&[]);
        }
        let pem = made.succeeded().stdout.clone();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Old Root");
        Authority { params, key, pem }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a server certificate for `names`, signed by `issuer` and sent with the chain `above`.
    pub(crate) fn leaf(
        &self,
        names: &[&str],
        issuer: &Authority,
        above: &[&Authority],
        change: Change,
    ) -> Identity {
        let mut params = server_params(names);
        params.distinguished_name.push(DnType::CommonName, "The Partner");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer.issuer()).unwrap().pem();
        let above = above.iter().map(|authority| &*authority.pem);
        self.write(
            std::iter::once(&*leaf).chain(above).collect(),
            key.serialize_pem(),
        )
    }

    pub(crate) fn write(&self, cert: String, key: String) -> Identity {
        let name = format!("{:x}", rand::random::<u64>());
        Identity::write(self.folder.path(), &name, cert, key)
    }

    /// Makes a key and a certificate of the root with openssl, for kinds that rcgen does not have.
    pub(crate) fn by_openssl(&self, key: &[&str], sign: &[&str]) -> Identity {
        let of = |name: &str| self.path(name).display().to_string();
        let openssl = |arguments: &[&str]| {
            run(clean("openssl").args(arguments)).succeeded();
        };
        let (key_path, request, cert) = (of("o.key"), of("o.csr"), of("o.crt"));
        std::fs::write(
            self.path("o.ext"),
            "subjectAltName=DNS:partner.test\nextendedKeyUsage=serverAuth\n",
        )
        .unwrap();
        openssl(&[key, &["-out", &key_path]].concat());
        openssl(&[
            "req",
            "-new",
            "-key",
            &key_path,
            "-subj",
            "/CN=The Partner",
            "-out",
            &request,
        ]);
        let (root, root_key, extensions) = (of("root.pem"), of("root.key"), of("o.ext"));
        let by_root = [
            "-CA",
            &root,
            "-CAkey",
            &root_key,
            "-CAcreateserial",
            "-extfile",
            &extensions,
        ];
        openssl(
            &[
                &["x509", "-req", "-in", &request, "-out", &cert, "-days", "9"],
                &by_root[..],
                sign,
            ]
            .concat(),
        );
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        // Its key is PKCS#8 from genpkey.
        self.write(read(&cert), read(&key_path))
    }
}

/// Makes the revocation list of an issuer, in PEM.
pub(crate) fn list(issuer: &Issuer<'_, impl SigningKey>, revoked: &[u64]) -> String {
    let entry = |number: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*number),
        revocation_time: date_time_ymd(2026, 1, 2),
        reason_code: Some(RevocationReason::Superseded),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 3),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}
