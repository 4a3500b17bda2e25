//! Local ports of outrider (`tcp`), and the real servers behind them. Each of these demands a client certificate.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::programs::{ServerProcess, clean, wait};
use super::{Identity, Pki, Proxy, closed_port, eventually, run};

/// Whom servers run as that refuse to be root: nobody.
const NOBODY: u32 = 65_534;

/// The password of every account.
pub(crate) const PASSWORD: &str = "canary-2f6b-account";

/// A running server with its folder; it ends with the test.
pub(crate) struct Service {
    pub(crate) port: u16,
    /// Of a server that also begins with TLS at once.
    pub(crate) tls_port: u16,
    folder: TempDir,
    server: ServerProcess,
}

impl Drop for Service {
    /// Asks first: a killed PostgreSQL leaves shared memory behind.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.server.0), Signal::QUIT);
        wait(&mut self.server.0, Duration::from_secs(2));
    }
}

/// A folder with the server's certificate, its key, and the authority of its clients, that the server may read.
fn server_folder(pki: &Pki) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let server = pki.server("partner.test");
    fs::copy(pki.ca(), path.join("ca.pem")).unwrap();
    fs::copy(&server.cert_path, path.join("server.crt")).unwrap();
    fs::copy(&server.key_path, path.join("server.key")).unwrap();
    fs::set_permissions(path.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

/// Gives a folder, and all that is in it, to nobody.
pub(crate) fn give(path: &Path) {
    if !geteuid().is_root() {
        return;
    }
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        fs::read_dir(path)
            .unwrap()
            .for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// Returns a command that runs as nobody, in the folder.
pub(crate) fn as_nobody(program: &str, folder: &Path) -> Command {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = clean(program);
    command.env("PATH", path).env("HOME", folder).current_dir(folder);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Returns a text with the folder and the port filled in.
fn filled(text: &str, folder: &Path, port: u16, tls_port: u16) -> String {
    text.replace("@FOLDER@", &folder.display().to_string())
        .replace("@PORT@", &port.to_string())
        .replace("@TLS_PORT@", &tls_port.to_string())
        .replace("@PASSWORD@", PASSWORD)
}

/// The newest PostgreSQL of Debian.
fn postgres_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("tests/run --tools installs it");
    let mut versions: Vec<_> = versions.map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.pop().expect("a version").join("bin").join(name)
}

impl Service {
    /// Starts a program, and waits until it listens.
    #[track_caller]
    fn start(command: &mut Command, folder: TempDir, port: u16, tls_port: u16) -> Self {
        Self {
            port,
            tls_port,
            folder,
            server: ServerProcess::start(command, port),
        }
    }

    /// PostgreSQL: the user `app` logs in by password and by a certificate for that name.
    #[track_caller]
    pub(crate) fn postgres(pki: &Pki) -> Self {
        let folder = server_folder(pki);
        let (path, port) = (folder.path(), closed_port());
        give(path);
        let data = path.join("data");
        let initdb = postgres_program("initdb").display().to_string();
        run(as_nobody(&initdb, path)
            .args([
                "--auth=trust",
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
                "-U",
                "postgres",
                "-D",
            ])
            .arg(&data))
        .succeeded();
        let rules =
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let postgres = postgres_program("postgres").display().to_string();
        let mut command = as_nobody(&postgres, path);
        command.arg("-D").arg(&data);
        let port_text = port.to_string();
        for (key, value) in [
            ("ssl", "on"),
            ("ssl_cert_file", "../server.crt"),
            ("ssl_key_file", "../server.key"),
            ("ssl_ca_file", "../ca.pem"),
            ("port", &port_text),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &path.display().to_string()),
            ("fsync", "off"),
        ] {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        let service = Self::start(&mut command, folder, port, 0);
        eventually("PostgreSQL takes commands", || {
            service.sql("select 1").status.success()
        });
        (service.sql(&format!("create user app password '{PASSWORD}'"))).succeeded();
        service.sql("create database app owner app").succeeded();
        service
    }

    /// Runs SQL in a PostgreSQL, past outrider.
    pub(crate) fn sql(&self, text: &str) -> super::ProgramOutput {
        let mut command = clean("psql");
        command.arg("--host").arg(self.folder.path());
        command.args([
            "--port",
            &self.port.to_string(),
            "--username=postgres",
            "-AtXc",
            text,
        ]);
        run(&mut command)
    }

    /// MariaDB: the user `app` logs in by password and any certificate of the authority.
    #[track_caller]
    pub(crate) fn mariadb(pki: &Pki) -> Self {
        let folder = server_folder(pki);
        let (path, port) = (folder.path(), closed_port());
        let init = "CREATE DATABASE app;\nCREATE USER 'app'@'%' IDENTIFIED BY '@PASSWORD@' REQUIRE X509;\n\
            GRANT ALL ON app.* TO 'app'@'%';\n";
        fs::write(path.join("init.sql"), filled(init, path, port, 0)).unwrap();
        give(path);
        run(as_nobody("mariadb-install-db", path)
            .args([
                "--no-defaults",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ])
            .arg("--skip-name-resolve")
            .arg(format!("--datadir={}", path.join("data").display())))
        .succeeded();
        let options = "--no-defaults --datadir=@FOLDER@/data --port=@PORT@ --bind-address=127.0.0.1 \
            --socket=@FOLDER@/socket --pid-file=@FOLDER@/pid --ssl-ca=@FOLDER@/ca.pem --ssl-cert=@FOLDER@/server.crt \
            --ssl-key=@FOLDER@/server.key --init-file=@FOLDER@/init.sql --skip-log-bin \
            --innodb-flush-log-at-trx-commit=0";
        let options = filled(options, path, port, 0);
        let mut command = as_nobody("mariadbd", path);
        command.args(options.split_whitespace());
        Self::start(&mut command, folder, port, 0)
    }

    /// OpenLDAP: StartTLS on one port, TLS at once on the other.
    #[track_caller]
    pub(crate) fn slapd(pki: &Pki) -> Self {
        let folder = server_folder(pki);
        let (path, port, tls_port) = (folder.path(), closed_port(), closed_port());
        fs::create_dir(path.join("db")).unwrap();
        fs::write(path.join("slapd.conf"), filled(SLAPD, path, port, tls_port)).unwrap();
        let base = "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n";
        fs::write(path.join("base.ldif"), base).unwrap();
        give(path);
        run(as_nobody("slapadd", path).args(["-f", "slapd.conf", "-l", "base.ldif"])).succeeded();
        let mut command = as_nobody("slapd", path);
        command.args(["-d", "0", "-f", "slapd.conf", "-h"]);
        command.arg(format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"));
        Self::start(&mut command, folder, port, tls_port)
    }

    /// Dovecot: STARTTLS on one port, TLS at once on the other; both log in by password too.
    #[track_caller]
    pub(crate) fn dovecot(pki: &Pki) -> Self {
        let folder = server_folder(pki);
        let (path, port, tls_port) = (folder.path(), closed_port(), closed_port());
        fs::create_dir(path.join("mail")).unwrap();
        let version = run(as_nobody("dovecot", path).arg("--version"))
            .succeeded()
            .stdout
            .clone();
        let own = if version.starts_with("2.3") {
            DOVECOT_2_3
        } else {
            DOVECOT_2_4
        };
        let conf = filled(&format!("{own}{DOVECOT}"), path, port, tls_port);
        let [user, group] = ["-un", "-gn"].map(|which| {
            let id = run(as_nobody("id", path).arg(which));
            id.succeeded().stdout.trim().to_owned()
        });
        let conf = conf.replace("@USER@", &user).replace("@GROUP@", &group);
        fs::write(path.join("dovecot.conf"), conf).unwrap();
        give(path);
        let mut command = as_nobody("dovecot", path);
        command.args(["-F", "-c", "dovecot.conf"]);
        Self::start(&mut command, folder, port, tls_port)
    }

    /// Mosquitto: the name in the certificate is the user.
    #[track_caller]
    pub(crate) fn mosquitto(pki: &Pki) -> Self {
        let folder = server_folder(pki);
        let (path, port) = (folder.path(), closed_port());
        fs::write(path.join("mosquitto.conf"), filled(MOSQUITTO, path, port, 0)).unwrap();
        give(path);
        let mut command = as_nobody("mosquitto", path);
        command.args(["-c", "mosquitto.conf"]);
        Self::start(&mut command, folder, port, 0)
    }

    /// Postfix: takes mail after STARTTLS with a certificate, and throws it away. Its master has to be root.
    #[track_caller]
    pub(crate) fn postfix(pki: &Pki) -> Self {
        let folder = server_folder(pki);
        let (path, port) = (folder.path(), closed_port());
        for name in ["etc", "data", "queue"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        fs::write(path.join("etc/main.cf"), filled(POSTFIX, path, port, 0)).unwrap();
        fs::write(
            path.join("etc/master.cf"),
            filled(POSTFIX_SERVICES, path, port, 0),
        )
        .unwrap();
        run(clean("chown").arg("postfix").arg(path.join("data"))).succeeded();
        run(clean("/usr/sbin/postfix")
            .arg("-c")
            .arg(path.join("etc"))
            .arg("check"));
        let mut command = clean("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(path.join("etc")).arg("-d");
        Self::start(&mut command, folder, port, 0)
    }
}

/// Returns a psql that asks by a local port, as the user `app`; `more` are further parameters of the connection.
pub(crate) fn psql(port: u16, more: &str, sql: &str) -> Command {
    let mut command = clean("psql");
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "15");
    command
        .arg("-AtX")
        .arg(format!("host=127.0.0.1 port={port} user=app dbname=app {more}"));
    command.args(["-c", sql]);
    command
}

/// Returns the `tls` of an entry.
pub(crate) fn tls(pki: &Pki, client: Option<&Identity>) -> String {
    let certificate = client.map_or_else(String::new, |client| {
        format!(", client_certificate: {}", client.yaml())
    });
    format!("{{ ca: \"file:{}\"{certificate} }}", pki.ca().display())
}

/// Returns an entry of `tcp` on a free port, as a line; `more` are further keys.
pub(crate) fn entry(name: &str, to: u16, tls: &str, more: &str) -> String {
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", {more}")
    };
    format!("  {name}: {{ listen: 127.0.0.1:0, to: \"partner.test:{to}\", tls: {tls}{more} }}\n")
}

/// Returns the port that the log says was opened last for an entry.
#[track_caller]
pub(crate) fn local_port(proxy: &Proxy, name: &str) -> u16 {
    let mut port = None;
    eventually("the log names the local port", || {
        let log = proxy.log();
        let is_ours = |line: &&str| {
            line.contains("a local port is open") && line.contains(&format!("\"destination\":\"{name}\""))
        };
        let line = log.lines().rfind(is_ours);
        let rest = line.and_then(|line| line.split_once("\"listen\":\"127.0.0.1:"));
        port = rest.and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
        port.is_some()
    });
    port.unwrap()
}

const SLAPD: &str = "
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_ldif
pidfile @FOLDER@/pid
TLSCACertificateFile @FOLDER@/ca.pem
TLSCertificateFile @FOLDER@/server.crt
TLSCertificateKeyFile @FOLDER@/server.key
TLSVerifyClient demand
security tls=1
database ldif
suffix dc=test
rootdn cn=admin,dc=test
rootpw @PASSWORD@
directory @FOLDER@/db
";

const DOVECOT: &str = "
base_dir = @FOLDER@/run
state_dir = @FOLDER@/state
log_path = @FOLDER@/log
default_internal_user = @USER@
default_internal_group = @GROUP@
default_login_user = @USER@
protocols = imap
listen = 127.0.0.1
ssl = required
auth_ssl_require_client_cert = yes
first_valid_uid = 0
first_valid_gid = 0
service imap-login {
  chroot =
  inet_listener imap {
    port = @PORT@
  }
  inet_listener imaps {
    port = @TLS_PORT@
    ssl = yes
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
";

const DOVECOT_2_3: &str = "
ssl_cert = <@FOLDER@/server.crt
ssl_key = <@FOLDER@/server.key
ssl_ca = <@FOLDER@/ca.pem
ssl_verify_client_cert = yes
ssl_require_crl = no
mail_location = maildir:@FOLDER@/mail/%u
passdb {
  driver = static
  args = password=@PASSWORD@
}
userdb {
  driver = static
  args = uid=@USER@ gid=@GROUP@ home=@FOLDER@/mail/%u
}
";

const DOVECOT_2_4: &str = "
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
ssl_server_cert_file = @FOLDER@/server.crt
ssl_server_key_file = @FOLDER@/server.key
ssl_server_ca_file = @FOLDER@/ca.pem
ssl_server_request_client_cert = yes
ssl_server_require_crl = no
mail_driver = maildir
mail_path = @FOLDER@/mail/%{user}
passdb static {
  password = @PASSWORD@
}
userdb static {
  fields {
    uid = @USER@
    gid = @GROUP@
    home = @FOLDER@/mail/%{user}
  }
}
";

const MOSQUITTO: &str = "
listener @PORT@ 127.0.0.1
cafile @FOLDER@/ca.pem
certfile @FOLDER@/server.crt
keyfile @FOLDER@/server.key
require_certificate true
use_identity_as_username true
";

const POSTFIX: &str = "
compatibility_level = 3.6
queue_directory = @FOLDER@/queue
data_directory = @FOLDER@/data
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = partner.test
mydestination = partner.test
mynetworks = 127.0.0.0/8
local_recipient_maps =
local_transport = discard:
maillog_file = @FOLDER@/log
maillog_file_prefixes = @FOLDER@
alias_maps =
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = @FOLDER@/server.crt
smtpd_tls_key_file = @FOLDER@/server.key
smtpd_tls_CAfile = @FOLDER@/ca.pem
smtpd_tls_req_ccert = yes
";

const POSTFIX_SERVICES: &str = "
127.0.0.1:@PORT@ inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
discard unix - - n - - discard
anvil unix - - n - 1 anvil
error unix - - n - - error
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
";
