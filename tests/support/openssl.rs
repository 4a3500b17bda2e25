//! OpenSSL's test server.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use super::programs::{ServerProcess, clean};
use super::{Identity, PATIENCE};

/// A running `openssl s_server` on a free port; it ends with the test. It answers a GET with a page about the
/// connection, the client's certificate included.
pub(crate) struct SServer {
    port: u16,
    _server: ServerProcess,
}

impl SServer {
    /// Starts the server with `identity` and more arguments of s_server.
    #[track_caller]
    pub(crate) fn start(identity: &Identity, arguments: &[&str]) -> Self {
        let mut command = clean("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www"]);
        command.arg("-cert").arg(&identity.cert_path);
        command.arg("-key").arg(&identity.key_path);
        command.args(arguments);
        let child = (command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn())
        .unwrap_or_else(|error| panic!("openssl: {error}; tests/run --tools installs it"));
        let mut server = ServerProcess(child);
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end: the server would block on a full pipe.
            while let Some(Ok(line)) = lines.next() {
                let port = line
                    .strip_prefix("ACCEPT ")
                    .and_then(|rest| rest.rsplit_once(':'));
                if let Some(port) = port.and_then(|(_, port)| port.trim().parse::<u16>().ok()) {
                    let _ = tell.send(port);
                }
            }
        });
        let Ok(port) = told.recv_timeout(PATIENCE) else {
            panic!("openssl s_server {arguments:?} does not listen");
        };
        Self {
            port,
            _server: server,
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
