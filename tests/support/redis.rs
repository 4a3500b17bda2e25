//! A real Redis server that can be killed and started again at the same port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use super::programs::ServerProcess;
use super::{Identity, PATIENCE, Pki, closed_port};

/// A running server that keeps nothing on disk; it ends with the test.
pub(crate) struct Redis {
    arguments: Vec<String>,
    server: Option<ServerProcess>,
    folder: TempDir,
    port: u16,
    password: Option<String>,
    /// Of a server that also speaks TLS.
    tls_port: Option<u16>,
}

impl Redis {
    /// Speaks in the clear and lets everybody in.
    #[track_caller]
    pub(crate) fn open() -> Self {
        Self::start(Vec::new(), None, None)
    }

    /// Wants `password`, and speaks TLS as `identity` on a port of its own.
    #[track_caller]
    pub(crate) fn guarded(pki: &Pki, identity: &Identity, password: &str) -> Self {
        let tls_port = closed_port();
        let mut arguments = vec!["--tls-port".to_owned(), tls_port.to_string()];
        for (key, path) in [
            ("--tls-cert-file", &identity.cert_path),
            ("--tls-key-file", &identity.key_path),
            ("--tls-ca-cert-file", &pki.ca()),
        ] {
            arguments.extend([key.to_owned(), path.display().to_string()]);
        }
        arguments.extend(["--tls-auth-clients", "no", "--requirepass", password].map(str::to_owned));
        Self::start(arguments, Some(password.to_owned()), Some(tls_port))
    }

    #[track_caller]
    fn start(arguments: Vec<String>, password: Option<String>, tls_port: Option<u16>) -> Self {
        let mut redis = Self {
            arguments,
            server: None,
            folder: tempfile::tempdir().unwrap(),
            port: closed_port(),
            password,
            tls_port,
        };
        redis.restart();
        redis
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again, empty.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--bind",
                "127.0.0.1",
                "--port",
            ])
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments);
        self.server = Some(ServerProcess::start(&mut command, self.port));
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port.unwrap()
    }

    /// How many times the script was run, and how long one run took on average, in microseconds.
    pub(crate) fn runs(&self) -> (u64, f64) {
        let stats = self.say("INFO commandstats");
        let of = |command: &str| {
            let line = stats.lines().find(|line| line.starts_with(command))?;
            let field = |key: &str| {
                let field = line.split([':', ',']).find_map(|field| field.strip_prefix(key))?;
                field.parse::<f64>().ok()
            };
            Some((field("calls=")?, field("usec=")?))
        };
        let all = [of("cmdstat_evalsha:"), of("cmdstat_eval:")];
        let (calls, micros) = all
            .into_iter()
            .flatten()
            .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (calls as u64, micros / f64::max(calls, 1.0))
    }

    /// All keys.
    pub(crate) fn keys(&self) -> String {
        self.say("EVAL \"return table.concat(redis.call('KEYS', '*'), ' ')\" 0")
    }

    /// Says one line and returns the text of the answer.
    fn say(&self, command: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut line = String::new();
        if let Some(password) = &self.password {
            socket
                .write_all(format!("AUTH {password}\r\n").as_bytes())
                .unwrap();
            reader.read_line(&mut line).unwrap();
            line.clear();
        }
        socket.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        reader.read_line(&mut line).unwrap();
        let length: usize = line.trim_start_matches('$').trim_end().parse().unwrap();
        let mut text = vec![0; length];
        reader.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}
