//! Real servers with rate limits, and a real client that does not wait.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::programs::{ServerProcess, clean, curl, run};
use super::{Proxy, Wire, closed_port, nginx};

/// A server with a rate limit; it ends with the test.
pub(crate) struct RateLimitedServer {
    _server: ServerProcess,
    port: u16,
    folder: TempDir,
}

/// One request in the server's log: its time in seconds, and the status of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedRequest {
    pub(crate) at: f64,
    pub(crate) status: u16,
}

/// The results of a client's requests.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) statuses: Vec<u16>,
    pub(crate) took: Duration,
}

impl RateLimitedServer {
    /// Starts `limited.py` in one of its modes.
    #[track_caller]
    pub(crate) fn python(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/limited.py");
        let child = clean("python3")
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("python3: {error}; tests/run --tools installs it"));
        let mut server = ServerProcess(child);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("limited.py ended at once"));
        Self {
            _server: server,
            port,
            folder,
        }
    }

    /// Starts nginx with `limit_req`: `rate` a second and `burst` beyond, refused with `status`.
    #[track_caller]
    pub(crate) fn nginx(rate: u32, burst: u32, status: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = closed_port();
        let conf = CONF
            .replace("@PORT@", &port.to_string())
            .replace("@RATE@", &rate.to_string())
            .replace("@BURST@", &burst.to_string())
            .replace("@STATUS@", &status.to_string());
        std::fs::create_dir(folder.path().join("files")).unwrap();
        std::fs::write(folder.path().join("files/ok"), "ok").unwrap();
        Self {
            _server: nginx::start(folder.path(), &conf, port),
            port,
            folder,
        }
    }

    /// Returns `partner.test:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("partner.test:{}", self.port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority())
    }

    /// Starts a proxy with this destination and these settings.
    #[track_caller]
    pub(crate) fn proxy(&self, settings: &str) -> Proxy {
        Proxy::to(&self.authority(), settings)
    }

    /// Returns every request so far, except those that this function sends.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<LoggedRequest> {
        if let Ok(log) = std::fs::read_to_string(self.folder.path().join("access.log")) {
            let line = |line: &str| {
                let (at, status) = line.split_once(' ')?;
                Some(LoggedRequest {
                    at: at.parse().ok()?,
                    status: status.trim().parse().ok()?,
                })
            };
            return log.lines().filter_map(line).collect();
        }
        let told = Wire::connect(([127, 0, 0, 1], self.port).into())
            .ask("GET /told HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let told: serde_json::Value = serde_json::from_str(&told.text()).unwrap();
        let request = |request: &serde_json::Value| LoggedRequest {
            at: request[0].as_f64().unwrap(),
            status: u16::try_from(request[1].as_u64().unwrap()).unwrap(),
        };
        told["requests"].as_array().unwrap().iter().map(request).collect()
    }

    /// Sends `count` GETs at once with curl, each to a different path below `path`, through
    /// `proxy` or without one.
    #[track_caller]
    pub(crate) fn burst(&self, proxy: Option<&Proxy>, path: &str, count: usize) -> Burst {
        let mut command = curl([
            "--no-progress-meter",
            "--parallel",
            "--parallel-immediate",
            "--parallel-max",
            "100",
        ]);
        command.args(["--output", "/dev/null", "--write-out", "%{http_code}\\n"]);
        match proxy {
            Some(proxy) => command.args(["--proxy", &format!("http://{}", proxy.address())]),
            None => command.args(["--resolve", &format!("{}:127.0.0.1", self.authority())]),
        };
        command.arg(self.url(&format!("{path}[1-{count}]")));
        let started = Instant::now();
        let ran = run(&mut command);
        let took = started.elapsed();
        let statuses: Vec<u16> = ran
            .succeeded()
            .stdout
            .lines()
            .map(|line| line.parse().unwrap())
            .collect();
        assert_eq!(statuses.len(), count);
        Burst { statuses, took }
    }
}

impl Burst {
    pub(crate) fn count(&self, status: u16) -> usize {
        self.statuses.iter().filter(|own| **own == status).count()
    }
}

/// Returns how many requests were refused.
pub(crate) fn refused(asked: &[LoggedRequest]) -> usize {
    asked.iter().filter(|asked| asked.status != 200).count()
}

/// Returns the time between the first and the last accepted request, in seconds.
pub(crate) fn span(asked: &[LoggedRequest]) -> f64 {
    let times = asked
        .iter()
        .filter(|asked| asked.status == 200)
        .map(|asked| asked.at);
    times.clone().fold(f64::MIN, f64::max) - times.fold(f64::MAX, f64::min)
}

/// The block `http`.
const CONF: &str = "
log_format told '$msec $status';
access_log @FOLDER@/access.log told;
keepalive_requests 100000;
limit_req_zone $server_port zone=all:1m rate=@RATE@r/s;
server {
  listen 127.0.0.1:@PORT@ backlog=1024;
  # `return` would answer before the limit is looked at; a file does not.
  root @FOLDER@/files;
  location / {
    limit_req zone=all burst=@BURST@ nodelay;
    limit_req_status @STATUS@;
    try_files /ok =404;
  }
}
";
