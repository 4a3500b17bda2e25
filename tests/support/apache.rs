//! A real Apache that asks for a client certificate on one path only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::programs::ServerProcess;
use super::{Pki, closed_port};

/// A running Apache on a free port; it ends with the test.
pub(crate) struct Apache {
    port: u16,
    /// Declared before its folder, so that it ends first.
    _server: ServerProcess,
    _folder: TempDir,
}

impl Apache {
    /// Serves `partner.test` over one `version` of TLS: `/` to everyone, and `/late/` to who shows a
    /// certificate of `pki`.
    #[track_caller]
    pub(crate) fn asking_late(pki: &Pki, version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // Its processes run as another user.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in [("docs", "everyone"), ("docs/late", "known")] {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("index.html"), text).unwrap();
        }
        let server = pki.server("partner.test");
        let port = closed_port();
        let conf = CONF
            .replace("@FOLDER@", &path.display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@CERT@", &server.cert_path.display().to_string())
            .replace("@KEY@", &server.key_path.display().to_string())
            .replace("@CA@", &pki.ca().display().to_string())
            .replace("@VERSION@", version);
        fs::write(path.join("apache.conf"), conf).unwrap();
        let mut command = Command::new("apache2");
        command.arg("-X").arg("-f").arg(path.join("apache.conf"));
        Self {
            _server: ServerProcess::start(&mut command, port),
            port,
            _folder: folder,
        }
    }

    /// Returns `partner.test:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("partner.test:{}", self.port)
    }
}

/// All files in its own folder.
const CONF: &str = "
ServerRoot @FOLDER@
Listen 127.0.0.1:@PORT@
PidFile @FOLDER@/pid
ErrorLog @FOLDER@/error.log
Mutex pthread
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
StartServers 1
ServerName partner.test
DocumentRoot @FOLDER@/docs
SSLEngine on
SSLSessionCache none
SSLCertificateFile @CERT@
SSLCertificateKeyFile @KEY@
SSLCACertificateFile @CA@
SSLProtocol -all +@VERSION@
<Location /late/>
  SSLVerifyClient require
</Location>
";
