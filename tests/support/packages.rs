//! Local servers of packages: an index for pip, a registry for npm, a repository for git, files for curl.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::pki::server_params;
use super::programs::{ServerProcess, clean, python, run};
use super::{Pki, closed_port, nginx};

/// An nginx with all of them, in clear and over TLS; it ends with the test.
pub(crate) struct Packages {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    /// Declared before its folder, so that it ends first.
    _server: ServerProcess,
    _folder: TempDir,
}

impl Packages {
    /// Serves the package `probe` to pip below `/simple/` and to npm as `http://npm_host:PORT/probe`, the repository
    /// `/probe.git`, and `/file.txt`. `names` are those of the certificate.
    #[track_caller]
    pub(crate) fn serve_as(pki: &Pki, names: &[&str], npm_host: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (plain, tls) = (closed_port(), closed_port());
        for made in ["docs/simple/probe", "docs/tarballs", "package"] {
            fs::create_dir_all(path.join(made)).unwrap();
        }
        fs::write(path.join("docs/file.txt"), "a file\n").unwrap();
        let wheel = "probe-1.0-py3-none-any.whl";
        let index = format!("<!DOCTYPE html><a href=\"/simple/probe/{wheel}\">{wheel}</a>");
        fs::write(path.join("docs/simple/probe/index.html"), index).unwrap();
        run(python(WHEEL).arg(path.join("docs/simple/probe").join(wheel))).succeeded();
        fs::write(
            path.join("package/package.json"),
            r#"{"name":"probe","version":"1.0.0"}"#,
        )
        .unwrap();
        let tarball = path.join("docs/tarballs/probe-1.0.0.tgz");
        run(clean("tar")
            .arg("-czf")
            .arg(tarball)
            .arg("-C")
            .arg(path)
            .arg("package"))
        .succeeded();
        let document = DOCUMENT.replace("@TARBALLS@", &format!("http://{npm_host}:{plain}/tarballs"));
        fs::write(path.join("docs/probe"), document).unwrap();
        repository(path);
        let server = pki.issue("packages", server_params(names));
        let conf = CONF
            .replace("@PLAIN@", &plain.to_string())
            .replace("@TLS@", &tls.to_string())
            .replace("@CERT@", &server.cert_path.display().to_string())
            .replace("@KEY@", &server.key_path.display().to_string());
        Self {
            _server: nginx::start(path, &conf, tls),
            plain,
            tls,
            _folder: folder,
        }
    }
}

/// Makes `docs/probe.git`, as a server of files serves it.
fn repository(path: &Path) {
    let script = "git init -q -b main work && cd work && echo text >file && git add file && git -c user.name=a \
                  -c user.email=a@a.test commit -q -m first && git clone -q --bare . ../docs/probe.git && cd ../docs/probe.git \
                  && git update-server-info";
    let mut command = clean("sh");
    command
        .current_dir(path)
        .env("HOME", path)
        .env("GIT_CONFIG_NOSYSTEM", "1");
    run(command.args(["-ec", script])).succeeded();
}

/// A wheel is a zip of a module and three texts about it.
const WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("probe.py", "print('probe works')\n")
    info = "probe-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "probe.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n")
"#;

/// What a registry says of a package.
const DOCUMENT: &str = r#"{ "name": "probe", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": {
  "name": "probe", "version": "1.0.0", "dist": { "tarball": "@TARBALLS@/probe-1.0.0.tgz" } } } }"#;

/// The block `http`.
const CONF: &str = "
access_log off;
types { text/html html; }
server {
  listen 127.0.0.1:@PLAIN@;
  listen 127.0.0.1:@TLS@ ssl;
  ssl_certificate @CERT@;
  ssl_certificate_key @KEY@;
  root @FOLDER@/docs;
  index index.html;
  location = /probe { default_type application/json; }
}
";
