//! Local ports (`tcp`) behind parent proxies: Squid by CONNECT, microsocks by SOCKS5.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use tempfile::TempDir;

use crate::support::local_ports::{Service, as_nobody, entry, give, local_port, psql, tls};
use crate::support::parents::ParentProgram;
use crate::support::programs::ServerProcess;
use crate::support::{Origin, PATIENCE, Pki, Proxy, Wire, closed_port, eventually, run};

/// A Squid that lets CONNECT pass to one port, and knows `partner.test`.
struct Squid {
    folder: TempDir,
    port: u16,
    _server: ServerProcess,
}

impl Squid {
    fn letting_pass(to: u16) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, port) = (folder.path().to_owned(), closed_port());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let at = path.display();
        fs::write(path.join("hosts"), "127.0.0.1 partner.test\n").unwrap();
        let conf = format!(
            "http_port 127.0.0.1:{port}\nhosts_file {at}/hosts\nacl ours port {to}\nhttp_access allow ours\n\
             http_access deny all\npid_filename {at}/pid\naccess_log stdio:{at}/access.log\ncache_log {at}/cache.log\n\
             coredump_dir {at}\ncache deny all\nshutdown_lifetime 0 seconds\npinger_enable off\n"
        );
        fs::write(path.join("squid.conf"), conf).unwrap();
        give(&path);
        let mut command = as_nobody("squid", &path);
        // A name for its shared memory, which another squid may have under the usual one.
        let name = format!("t{port}");
        let server = ServerProcess::start(command.args(["-N", "-n", &name, "-f", "squid.conf"]), port);
        Self {
            folder,
            port,
            _server: server,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }
}

/// Echoes what comes.
fn echo(wire: &mut Wire) {
    while let Ok(byte) = wire.read_exact(1) {
        wire.send(byte);
    }
}

/// Returns what comes back for `text`: nothing where the connection is refused, which may be before a byte is sent.
fn said(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut told = vec![0; text.len()];
    let asked = stream.write_all(text.as_bytes());
    match asked.and_then(|()| stream.read_exact(&mut told)) {
        Ok(()) => String::from_utf8(told).unwrap(),
        Err(error) => {
            let ends = [
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
                ErrorKind::UnexpectedEof,
            ];
            assert!(ends.contains(&error.kind()), "{error}");
            String::new()
        }
    }
}

#[test]
fn a_database_is_reached_through_squid_and_a_refusal_of_squid_is_told() {
    let pki = Pki::new();
    let server = Service::postgres(&pki);
    let squid = Squid::letting_pass(server.port);
    let certificate = tls(&pki, Some(&pki.client("app")));
    let denied = closed_port();
    let proxy = Proxy::start(&format!(
        "egress: {{ allow_networks: [loopback], parent: \"http://127.0.0.1:{}\" }}\ntcp:\n{}{}{}",
        squid.port,
        entry("behind", server.port, &certificate, "starttls: postgres"),
        entry("denied", denied, &certificate, "starttls: postgres"),
        entry(
            "direct",
            server.port,
            &certificate,
            "starttls: postgres, parent: none"
        ),
    ));
    let who = "select client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    let psql = |name: &str| run(&mut psql(local_port(&proxy, name), "", who));
    assert_eq!(psql("direct").succeeded().stdout.trim(), "/CN=app");
    assert!(!squid.log().contains("CONNECT"), "{}", squid.log());
    assert_eq!(psql("behind").succeeded().stdout.trim(), "/CN=app");
    let passed = format!("CONNECT partner.test:{}", server.port);
    eventually("Squid has seen it", || squid.log().contains(&passed));

    let told = psql("denied");
    assert!(
        told.stderr.contains("FATAL:  outrider: ") && told.stderr.contains("403"),
        "{told:?}"
    );
    eventually("the log says who refused", || {
        let log = proxy.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("\"destination\":\"denied\""));
        lines.any(|line| line.contains("detail") && line.contains("parent"))
    });
}

#[test]
fn a_port_leaves_through_socks5_where_its_entry_says_so() {
    let pki = Pki::new();
    let origin = Origin::https(pki.demanding(&pki.server("partner.test")), echo);
    let mut parent = ParentProgram::microsocks(false);
    let line = entry(
        "echo",
        origin.port(),
        &tls(&pki, Some(&pki.client("app"))),
        &format!("parent: \"{}\"", parent.url()),
    );
    // microsocks resolves by the system, which knows no partner.test.
    let proxy = Proxy::start(&format!("tcp:\n{}", line.replace("partner.test", "127.0.0.1")));
    let local = local_port(&proxy, "echo");
    assert_eq!(said(local, "hello"), "hello");
    parent.stop();
    assert_eq!(said(local, "hello"), "", "there is no other way");
    eventually("the log names the parent", || {
        proxy
            .log()
            .lines()
            .any(|line| line.contains("detail") && line.contains(&format!("127.0.0.1:{}", parent.port)))
    });
}
