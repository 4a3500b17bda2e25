//! A real nginx that demands a client certificate, and on one path also a bearer token.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::programs::ServerProcess;
use super::{Pki, TOKEN, closed_port};

/// A running nginx on a free port; it ends with the test.
pub(crate) struct Nginx {
    port: u16,
    /// Declared before its folder, so that it ends first.
    _server: ServerProcess,
    _folder: TempDir,
}

impl Nginx {
    /// Serves `partner.test` with certificates of `pki`: `/` answers with the client's subject, `/serial` the
    /// serial number of the certificate and `r` where the session was resumed, `/token` wants [`TOKEN`] as
    /// well, `/echo` shows what it got, and what is below `/whole` is answered once its body is read. `h2`:
    /// also speaks HTTP/2.
    #[track_caller]
    pub(crate) fn demanding(pki: &Pki, h2: bool) -> Self {
        Self::start(pki, h2, "")
    }

    /// Starts the same server with a list of revoked certificates.
    #[track_caller]
    pub(crate) fn revoking(pki: &Pki, list: &Path) -> Self {
        Self::start(pki, false, &format!("ssl_crl {};", list.display()))
    }

    /// Starts the same server with more directives.
    #[track_caller]
    pub(crate) fn with(pki: &Pki, more: &str) -> Self {
        Self::start(pki, false, more)
    }

    /// Starts the same server with HTTP/2; it closes a connection after so many requests.
    #[track_caller]
    pub(crate) fn closing_after(pki: &Pki, requests: u32) -> Self {
        Self::start(pki, true, &format!("keepalive_requests {requests};"))
    }

    #[track_caller]
    fn start(pki: &Pki, h2: bool, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = pki.server("partner.test");
        let port = closed_port();
        let conf = CONF
            .replace(
                "@LISTEN@",
                &format!("127.0.0.1:{port} ssl{}", if h2 { " http2" } else { "" }),
            )
            .replace("@CERT@", &server.cert_path.display().to_string())
            .replace("@KEY@", &server.key_path.display().to_string())
            .replace("@CA@", &pki.ca().display().to_string())
            .replace("@TOKEN@", TOKEN)
            .replace("@MORE@", more);
        Self {
            _server: start(folder.path(), &conf, port),
            port,
            _folder: folder,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns `partner.test:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("partner.test:{}", self.port)
    }
}

/// Starts nginx in `folder` with this block `http`, in which `@FOLDER@` is the folder, and waits until it listens on
/// `port`.
#[track_caller]
pub(crate) fn start(folder: &Path, http: &str, port: u16) -> ServerProcess {
    let file = folder.join("nginx.conf");
    let conf = format!("{HEAD}{http}}}\n").replace("@FOLDER@", &folder.display().to_string());
    std::fs::write(&file, conf).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    ServerProcess::start(command.args(["-e", "stderr"]), port)
}

/// One process in the foreground, all files in its own folder.
const HEAD: &str = "
daemon off;
master_process off;
pid @FOLDER@/nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
client_body_temp_path @FOLDER@/body;
proxy_temp_path @FOLDER@/proxy;
fastcgi_temp_path @FOLDER@/fastcgi;
uwsgi_temp_path @FOLDER@/uwsgi;
scgi_temp_path @FOLDER@/scgi;
";

/// The block `http`.
const CONF: &str = "
access_log off;
map $http_authorization $known { default 0; \"Bearer @TOKEN@\" 1; }
server {
  listen @LISTEN@;
  server_name partner.test;
  ssl_certificate @CERT@;
  ssl_certificate_key @KEY@;
  ssl_client_certificate @CA@;
  ssl_verify_client on;
  @MORE@
  location / { return 200 \"hello $ssl_client_s_dn over $server_protocol\"; }
  location /serial { return 200 \"$ssl_client_serial $ssl_session_reused\"; }
  location /echo {
    default_type application/json;
    add_header X-Echo $http_authorization;
    return 200 '{\"authorization\":\"$http_authorization\"}';
  }
  location /whole { proxy_pass http://unix:@FOLDER@/whole:; }
  location /token {
    if ($known = 0) { return 401; }
    return 200 \"hello $ssl_client_s_dn with a token over $server_protocol\";
  }
}
server {
  listen unix:@FOLDER@/whole;
  return 200 whole;
}
";
