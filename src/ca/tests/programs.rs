//! The files as the programs of this machine read them: openssl, curl, Python, Node, Java. One that is missing is
//! named on standard error and left out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::{authority, client, connect, leaf_of, name, roots};
use crate::ca::{Authority, Error, Offer, TRUSTSTORE_PASSWORD};
use crate::host::Host;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;

/// The files of one authority.
struct Files {
    folder: TempDir,
    bundle: PathBuf,
    truststore: PathBuf,
}

impl Files {
    fn of(authority: &Authority) -> Self {
        let folder = TempDir::new().unwrap();
        let bundle = folder.path().join("made/for us/ca-bundle.pem");
        let truststore = folder.path().join("made/for us/truststore.p12");
        authority.write(&roots(), &bundle, &truststore).unwrap();
        Self {
            folder,
            bundle,
            truststore,
        }
    }
}

/// Answers `ok` over TLS until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // A client that refuses us is one of the outcomes under test, not a failure of the server.
                let _ = answer(stream.unwrap(), &config);
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        TcpStream::connect(self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<()> {
    let tls = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut tls = StreamOwned::new(tls, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn is_here(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("{program} is not on this machine: its check is left out");
    }
    found.is_ok()
}

/// Without the trust and proxies of the developer who runs the tests.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy().to_ascii_lowercase();
        if text.contains("proxy") || text.contains("ssl") || text.contains("_ca") || text.starts_with("java")
        {
            command.env_remove(variable);
        }
    }
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Lets `attempt` call hosts inside the constraints, and outside where the program `enforces` those of a trusted root.
fn check(what: &str, enforces: bool, attempt: impl Fn(&Files, &str, SocketAddr) -> Output) {
    let table: &[(&[&str], &str, bool)] = &[
        (&["api.example.com", "*.apps.internal"], "api.example.com", true),
        (&["api.example.com", "*.apps.internal"], "a.b.apps.internal", true),
        (&["api.example.com", "*.apps.internal"], "example.com", false),
        (&["api.example.com", "127.0.0.0/8"], "127.0.0.1", true),
        (&["api.example.com"], "127.0.0.1", false),
        (&["10.0.0.1"], "127.0.0.1", false),
        (&["127.0.0.1"], "api.example.com", false),
        (&[], "api.example.com", false),
        (&[], "127.0.0.1", false),
    ];
    for (hosts, host, accepted) in table.iter().filter(|(_, _, accepted)| *accepted || enforces) {
        let authority = authority(hosts);
        let files = Files::of(&authority);
        let served = match host.parse() {
            Ok(ip) => Host::V4(ip),
            Err(_) => name(host),
        };
        let server = Server::start(authority.serve(&served, Offer::H1).unwrap());
        let output = attempt(&files, host, server.address);
        assert_eq!(
            output.status.success(),
            *accepted,
            "{what}: {host} under {hosts:?}: {}",
            text(&output)
        );
    }
}

#[test]
fn openssl_accepts_the_leaf_in_its_strictest_mode_and_refuses_one_outside() {
    if !is_here("openssl") {
        return;
    }
    for (hosts, host, accepted) in [
        (&["api.example.com"][..], "api.example.com", true),
        (&["*.example.com"], "a.b.example.com", true),
        (&["api.example.com"], "example.com", false),
        (&["10.0.0.1"], "api.example.com", false),
        (&[], "api.example.com", false),
    ] {
        let trusted = authority(hosts);
        let files = Files::of(&trusted);
        // A twin with the same key but open constraints hands the leaf out; what is under test is the trust.
        let twin = trusted
            .for_hosts(
                &[super::pattern(&format!("*.{host}"))],
                super::Constraints::default(),
                super::WEEK,
            )
            .unwrap();
        let config = trusted.serve(&name(host), Offer::H1).unwrap();
        let leaf = leaf_of(config, twin.as_ref().unwrap_or(&trusted), &name(host));
        let path = files.folder.path().join("leaf.pem");
        fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", leaf.as_ref()))).unwrap();

        let mut openssl = program("openssl");
        openssl.args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            host,
        ]);
        let output = openssl
            .arg("-CAfile")
            .arg(&files.bundle)
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(
            output.status.success(),
            accepted,
            "{host} under {hosts:?}: {}",
            text(&output)
        );
        assert!(
            accepted || text(&output).contains("permitted subtree violation"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn curl_trusts_the_bundle_inside_the_constraints_only() {
    if !is_here("curl") {
        return;
    }
    check("curl", true, |files, host, address| {
        let mut curl = program("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--max-time",
            "20",
        ]);
        curl.args(["--resolve", &format!("{host}:{}:127.0.0.1", address.port())]);
        curl.env("CURL_CA_BUNDLE", &files.bundle)
            .arg(format!("https://{host}:{}/", address.port()));
        curl.output().unwrap()
    });
}

#[test]
fn python_trusts_the_bundle_inside_the_constraints_only() {
    if !is_here("python3") {
        return;
    }
    // VERIFY_X509_STRICT is what Python 3.13 sets by itself.
    let script = "
import socket, ssl, sys
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(('127.0.0.1', int(sys.argv[2])), timeout=20) as raw:
    with context.wrap_socket(raw, server_hostname=sys.argv[1]) as tls:
        tls.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')
        assert tls.recv(100).startswith(b'HTTP/1.1 200')
";
    check("python", true, |files, host, address| {
        let mut python = program("python3");
        python
            .args(["-c", script, host, &address.port().to_string()])
            .env("SSL_CERT_FILE", &files.bundle);
        python.output().unwrap()
    });
}

#[test]
fn node_trusts_the_bundle_inside_the_constraints_only() {
    if !is_here("node") {
        return;
    }
    let script = "
const [host, port] = process.argv.slice(1);
const servername = /^[0-9.]+$/.test(host) ? undefined : host;
require('https').get({ host, port, servername, timeout: 20000, lookup: (_, options, done) =>
    options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4) },
  (response) => { response.resume(); process.exitCode = response.statusCode === 200 ? 0 : 2; })
  .on('error', (error) => { console.error(error); process.exitCode = 1; });
";
    check("node", true, |files, host, address| {
        let mut node = program("node");
        node.args(["-e", script, host, &address.port().to_string()])
            .env("NODE_EXTRA_CA_CERTS", &files.bundle);
        node.output().unwrap()
    });
}

#[test]
fn java_trusts_the_truststore() {
    if !is_here("javac") {
        return;
    }
    let source = "
import java.net.*;
import javax.net.ssl.*;
class Probe {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        Socket raw = new Socket(\"127.0.0.1\", port);
        raw.setSoTimeout(20000);
        SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        try (SSLSocket tls = (SSLSocket) factory.createSocket(raw, args[0], port, true)) {
            SSLParameters parameters = tls.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm(\"HTTPS\");
            tls.setSSLParameters(parameters);
            tls.getOutputStream().write(\"GET / HTTP/1.1\\r\\n\\r\\n\".getBytes());
            if (tls.getInputStream().read() != 'H') throw new Exception(\"no answer\");
        }
    }
}
";
    let classes = TempDir::new().unwrap();
    let path = classes.path().join("Probe.java");
    fs::write(&path, source).unwrap();
    let output = program("javac").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));

    check("java", false, |files, host, address| {
        let mut java = program("java");
        java.arg(format!(
            "-Djavax.net.ssl.trustStore={}",
            files.truststore.display()
        ));
        java.arg(format!(
            "-Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"
        ));
        java.arg("-Djavax.net.ssl.trustStoreType=PKCS12")
            .arg("-cp")
            .arg(classes.path());
        java.args(["Probe", host, &address.port().to_string()])
            .output()
            .unwrap()
    });
}

#[test]
fn keytool_sees_every_root_as_trusted() {
    if !is_here("keytool") {
        return;
    }
    let files = Files::of(&authority(&["api.example.com"]));
    let mut keytool = program("keytool");
    keytool.args([
        "-J-Duser.language=en",
        "-list",
        "-storepass",
        TRUSTSTORE_PASSWORD,
        "-keystore",
    ]);
    let output = keytool.arg(&files.truststore).output().unwrap();
    let list = text(&output);
    assert!(output.status.success(), "{list}");
    let in_bundle = fs::read_to_string(&files.bundle)
        .unwrap()
        .matches("BEGIN CERTIFICATE")
        .count();
    assert_eq!(list.matches("trustedCertEntry").count(), in_bundle, "{list}");
    assert!(list.contains("outrider,"), "{list}");
}

#[test]
fn the_files_are_readable_by_all_and_their_folder_is_ours() {
    let files = Files::of(&authority(&["api.example.com"]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&files.bundle), 0o644);
    assert_eq!(mode(&files.truststore), 0o644);
    assert_eq!(mode(&files.folder.path().join("made")), 0o700);
    assert_eq!(mode(&files.folder.path().join("made/for us")), 0o700);
}

#[test]
fn the_bundle_holds_the_roots_of_the_system_and_ours_first() {
    let authority = authority(&["api.example.com"]);
    let files = Files::of(&authority);
    let bundle = pem::parse_many(fs::read(&files.bundle).unwrap()).unwrap();
    assert_eq!(bundle[0].contents(), authority.certificate.as_ref());
    let rest: Vec<_> = bundle[1..].iter().map(pem::Pem::contents).collect();
    assert_eq!(rest, roots().read().certificates().collect::<Vec<_>>());
}

#[test]
fn writing_again_replaces_the_file_and_leaves_nothing_behind() {
    let (first, second) = (authority(&["a.test"]), authority(&["a.test"]));
    let files = Files::of(&first);
    second.write(&roots(), &files.bundle, &files.truststore).unwrap();
    let bundle = pem::parse_many(fs::read(&files.bundle).unwrap()).unwrap();
    assert_eq!(bundle[0].contents(), second.certificate.as_ref());
    assert!(
        bundle
            .iter()
            .all(|certificate| certificate.contents() != first.certificate.as_ref())
    );
    assert_eq!(fs::read_dir(files.bundle.parent().unwrap()).unwrap().count(), 2);
}

/// A profile script exports `SSL_CERT_FILE` to us, too: the authority of the run before must not stay trusted.
#[test]
fn our_own_bundle_is_no_source_of_roots() {
    let first = authority(&["a.test"]);
    let files = Files::of(&first);
    let snapshot = Snapshot::of_variables([("SSL_CERT_FILE", files.bundle.to_str().unwrap())]);
    let roots = SystemRoots::new(&snapshot, &files.bundle);
    authority(&["a.test"])
        .write(&roots, &files.bundle, &files.truststore)
        .unwrap();
    let bundle = pem::parse_many(fs::read(&files.bundle).unwrap()).unwrap();
    assert!(
        bundle
            .iter()
            .all(|certificate| certificate.contents() != first.certificate.as_ref())
    );
}

#[test]
fn a_link_in_the_way_is_replaced_and_not_followed() {
    let folder = TempDir::new().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let bundle = folder.path().join("ca-bundle.pem");
    std::os::unix::fs::symlink(&victim, &bundle).unwrap();
    authority(&["a.test"])
        .write(&roots(), &bundle, &folder.path().join("t.p12"))
        .unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(fs::symlink_metadata(&bundle).unwrap().is_file());
}

/// Below a shared `/tmp` somebody else may have made our folder before us, to swap the roots of the app later.
#[test]
fn nothing_is_written_where_others_can_change_it() {
    let folder = TempDir::new().unwrap();
    let open = folder.path().join("outrider");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let error = authority(&["a.test"])
        .write(&roots(), &open.join("ca.pem"), &open.join("t.p12"))
        .unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
}

#[test]
fn a_place_that_cannot_be_written_is_named_with_the_remedy() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = authority(&["a.test"])
        .write(&roots(), &file.join("ca.pem"), &file.join("t.p12"))
        .unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    let message = error.to_string();
    assert!(
        message.contains(file.to_str().unwrap()) && message.contains("ca.bundle"),
        "{message}"
    );
}

/// K4: the whole of it is part of a start-up that has a tenth of a second. Thirty times that, for a debug build on
/// a machine that does other things: what is caught is a key derivation of the usual length.
#[test]
fn making_and_writing_an_authority_is_quick() {
    let start = Instant::now();
    let authority = authority(&["a.test"]);
    let _files = Files::of(&authority);
    let spent = start.elapsed();
    eprintln!("made and written in {spent:?}");
    assert!(spent.as_secs() < 3, "{spent:?}");

    let server = authority.serve(&name("a.test"), Offer::H2).unwrap();
    assert!(connect(&client(&authority), server, &name("a.test")).is_ok());
}
