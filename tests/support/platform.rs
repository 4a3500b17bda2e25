//! Cloud Foundry's side of instance identities: the authorities, and what each instance gets.

use std::path::{Path, PathBuf};

use rcgen::{CertifiedIssuer, KeyPair};
use tempfile::TempDir;

use super::pki::authority_params;
use super::programs::{clean, curl};
use super::{ProgramOutput, Proxy, run};

/// A platform like Cloud Foundry: a root in the folder of system certificates, and an authority for instances below it.
pub(crate) struct Platform {
    folder: TempDir,
    pub(crate) root: CertifiedIssuer<'static, KeyPair>,
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

/// An instance, and where its identity is.
pub(crate) struct Instance {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    system: PathBuf,
}

impl Platform {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = CertifiedIssuer::self_signed(authority_params("appRootCA"), KeyPair::generate().unwrap())
            .unwrap();
        std::fs::create_dir(folder.path().join("system")).unwrap();
        std::fs::write(folder.path().join("system/root.crt"), root.pem()).unwrap();
        let issuer = Self::below(&root);
        Self { folder, root, issuer }
    }

    pub(crate) fn below(root: &CertifiedIssuer<'static, KeyPair>) -> CertifiedIssuer<'static, KeyPair> {
        let params = authority_params("instanceIdentityCA");
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), root).unwrap()
    }

    pub(crate) fn root(&self) -> String {
        self.folder.path().join("system/root.crt").display().to_string()
    }

    /// Gives an instance the identity of an app in a space, as the platform does: the key first.
    pub(crate) fn instance(&self, name: &str, app: &str, space: &str) -> Instance {
        self.instance_of(
            name,
            &[
                "organization:o-1",
                &format!("space:{space}"),
                &format!("app:{app}"),
            ],
        )
    }

    /// Gives an instance an identity with these units. By OpenSSL: rcgen writes one unit at most.
    pub(crate) fn instance_of(&self, name: &str, units: &[&str]) -> Instance {
        let folder = self.folder.path();
        let at = |kind: &str| folder.join(format!("{name}.{kind}"));
        std::fs::write(folder.join("ca.pem"), self.issuer.pem()).unwrap();
        std::fs::write(folder.join("ca.key"), self.issuer.key().serialize_pem()).unwrap();
        let subject = (units.iter()).fold(format!("/CN={name}"), |subject, unit| {
            format!("{subject}/OU={unit}")
        });
        let mut command = clean("openssl");
        command.current_dir(folder);
        command.args(
            "req -x509 -days 1 -CA ca.pem -CAkey ca.key -nodes -keyout new.key -out new.crt".split(' '),
        );
        command.args("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj".split(' '));
        command.arg(subject);
        for extension in [
            "basicConstraints=CA:false",
            "extendedKeyUsage=clientAuth,serverAuth",
            &format!("subjectAltName=DNS:{name},IP:127.0.0.1"),
        ] {
            command.args(["-addext", extension]);
        }
        run(&mut command).succeeded();
        let chain = std::fs::read_to_string(folder.join("new.crt")).unwrap() + &self.issuer.pem();
        std::fs::write(folder.join("new.crt"), chain).unwrap();
        for kind in ["key", "crt"] {
            std::fs::rename(folder.join(format!("new.{kind}")), at(kind)).unwrap();
        }
        Instance {
            cert: at("crt"),
            key: at("key"),
            system: folder.join("system"),
        }
    }
}

impl Instance {
    pub(crate) fn variables(&self) -> [(&str, &str); 3] {
        [
            ("CF_INSTANCE_CERT", self.cert.to_str().unwrap()),
            ("CF_INSTANCE_KEY", self.key.to_str().unwrap()),
            ("CF_SYSTEM_CERT_PATH", self.system.to_str().unwrap()),
        ]
    }
}

/// Runs curl through the TLS of a listener, with this pair.
pub(crate) fn curl_as(
    proxy: &Proxy,
    ca: &str,
    pair: Option<(&Path, &Path)>,
    more: &[&str],
    url: &str,
) -> ProgramOutput {
    let at = format!("https://127.0.0.1:{}", proxy.address().port());
    let mut command = curl([
        "--proxy",
        &at,
        "--proxy-cacert",
        ca,
        "--write-out",
        " %{http_code}",
        url,
    ]);
    if let Some((cert, key)) = pair {
        command.arg("--proxy-cert").arg(cert).arg("--proxy-key").arg(key);
    }
    run(command.args(more))
}
