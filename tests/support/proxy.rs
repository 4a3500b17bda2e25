//! The program under test: started on a configuration and watched until its end.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::pki::trusting;
use super::programs::{clean, outrider, wait};
use super::{PATIENCE, Response, Wire, leak};

/// A running outrider. When it is dropped it is killed, and all that it wrote is searched for secrets.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
    /// All that it writes. A file and not a pipe: what it wrote before an event is there when the event is seen.
    output: File,
}

impl Proxy {
    /// Starts on `config`: YAML, indented as the test likes, completed by [`configuration`].
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// Starts with the one destination `p`, at `authority`, and these settings.
    #[track_caller]
    pub(crate) fn to(authority: &str, settings: &str) -> Self {
        Self::start(&destination(authority, settings))
    }

    /// Starts on `config`, with environment variables.
    #[track_caller]
    pub(crate) fn start_with(config: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outrider.yml");
        std::fs::write(&file, configuration(config, folder.path())).unwrap();
        Self::launch(&file, folder, env)
    }

    /// Starts on a file that the test keeps itself.
    #[track_caller]
    pub(crate) fn on(file: &Path) -> Self {
        Self::launch(file, tempfile::tempdir().unwrap(), &[])
    }

    /// Starts on `config`, with environment variables, in a process for which these shell commands were run before.
    #[track_caller]
    pub(crate) fn start_after(commands: &str, config: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outrider.yml");
        std::fs::write(&file, configuration(config, folder.path())).unwrap();
        let mut command = clean("sh");
        command
            .arg("-ec")
            .arg(format!("{commands}; exec \"$0\" run --config \"$1\""));
        command.arg(env!("CARGO_BIN_EXE_outrider")).arg(file);
        Self::launch_by(command, folder, env)
    }

    #[track_caller]
    fn launch(file: &Path, folder: TempDir, env: &[(&str, &str)]) -> Self {
        let mut command = outrider(["run", "--config"]);
        command.arg(file);
        Self::launch_by(command, folder, env)
    }

    #[track_caller]
    fn launch_by(mut command: Command, folder: TempDir, env: &[(&str, &str)]) -> Self {
        command.current_dir(folder.path()).env("TMPDIR", folder.path());
        command.envs(env.iter().copied());
        let output = tempfile::tempfile().unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let begin = Instant::now();
        let (address, admin) = loop {
            let whole = |line: &&str| line.ends_with('\n');
            if let Some(addresses) = text(&output)
                .split_inclusive('\n')
                .filter(whole)
                .find_map(started)
            {
                break addresses;
            }
            let has_ended = child.try_wait().unwrap().is_some();
            if has_ended || begin.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("outrider did not start: {}", text(&output));
            }
            thread::sleep(Duration::from_millis(2));
        };
        Self {
            child,
            address,
            admin,
            folder,
            output,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a connection to the proxy.
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// Sends a GET in absolute form on a new connection.
    #[track_caller]
    pub(crate) fn get(&self, url: &str) -> Response {
        self.ask("GET", url, "")
    }

    /// Sends a request in absolute form, without a body; `headers` are whole lines.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, url: &str, headers: &str) -> Response {
        let authority = url.split('/').nth(2).unwrap_or_default();
        self.raw(format!(
            "{method} {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    /// Sends these bytes on a new connection, and returns the response.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.wire().ask(bytes)
    }

    /// Sends a CONNECT. Returns the answer and its connection.
    #[track_caller]
    pub(crate) fn connect(&self, authority: &str) -> (Response, Wire) {
        let mut wire = self.wire();
        wire.send(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        ));
        (wire.bodiless_response(), wire)
    }

    /// Opens a tunnel.
    #[track_caller]
    pub(crate) fn tunnel(&self, authority: &str) -> Wire {
        let (response, wire) = self.connect(authority);
        assert_eq!(response.status, 200, "{response:?} {}", response.text());
        wire
    }

    /// Opens an intercepted tunnel to `partner.test:PORT`, with TLS under our authority and HTTP/1.1.
    #[track_caller]
    pub(crate) fn intercepted(&self, authority: &str) -> Wire {
        self.intercepted_as(authority, &["http/1.1"])
    }

    /// Opens an intercepted tunnel with these protocols offered.
    #[track_caller]
    pub(crate) fn intercepted_as(&self, authority: &str, alpn: &[&str]) -> Wire {
        let (name, _) = authority.rsplit_once(':').unwrap();
        self.tunnel(authority)
            .tls(name, &trusting(&self.bundle(), alpn))
            .expect("a handshake under our authority")
    }

    /// Returns the path of the roots that the app should trust.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca-bundle.pem")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("outrider.yml")
    }

    /// Writes another configuration over the file, completed as the first one was.
    pub(crate) fn rewrite(&self, config: &str) {
        let fresh = self.folder.path().join("outrider.yml.new");
        std::fs::write(&fresh, configuration(config, self.folder.path())).unwrap();
        std::fs::rename(fresh, self.config_file()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn exit(&mut self) -> ExitStatus {
        wait(&mut self.child, PATIENCE).expect("outrider to end")
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns all that the program has written to standard output and standard error.
    pub(crate) fn log(&self) -> String {
        text(&self.output)
    }

    /// Gets a page of the admin port.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> Response {
        Wire::connect(self.admin).ask(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        ))
    }

    /// Adds up a metric over all series with these labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.page("/metrics").text();
        let wanted: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        page.lines()
            .filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '))
            .filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
            .filter(|(labels, _)| wanted.iter().all(|label| labels.contains(label)))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .fold(0.0, |sum, value| sum + value)
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// Returns the peak of resident memory in bytes.
    pub(crate) fn resident_peak(&self) -> u64 {
        self.status("VmHWM:") * 1024
    }

    /// Returns the resident memory that is not mapped from files, in bytes: it does not depend on the size of
    /// the program. Pages of the program that the loader has changed are counted to its file; but to ordinary users the
    /// maps of a process are closed that keeps its memory to itself, and there they are counted.
    pub(crate) fn anonymous(&self) -> u64 {
        let Ok(maps) = std::fs::read_to_string(format!("/proc/{}/smaps", self.child.id())) else {
            return self.status("RssAnon:") * 1024;
        };
        let (mut is_counted, mut held) = (false, 0);
        for line in maps.lines() {
            match line.split_once(':') {
                Some(("Anonymous", size)) if is_counted => {
                    held += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                }
                // The head of a mapping ends in the name of its file, if there is one.
                _ if line.starts_with(|first: char| first.is_ascii_digit() || first.is_ascii_lowercase()) => {
                    is_counted = !line.contains(" /");
                }
                _ => {}
            }
        }
        held * 1024
    }

    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Proxy {
    /// G1: no test may leave a secret in the program's output, on its pages or in its files.
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("--- outrider wrote:\n{}", self.log());
            return;
        }
        let mut paths = vec!["/metrics", "/status", "/healthz", "/readyz"];
        if !self.runs() {
            paths.clear();
        }
        for path in paths {
            let page = self.page(path);
            assert_eq!(
                leak(&format!("{:?} {}", page.headers, page.text())),
                None,
                "a secret on {path}"
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for name in ["ca-bundle.pem", "truststore.p12", "outrider/truststore.p12"] {
            let file = std::fs::read(self.folder.path().join(name)).unwrap_or_default();
            assert_eq!(leak(&String::from_utf8_lossy(&file)), None, "a secret in {name}");
        }
        let log = self.log();
        assert_eq!(leak(&log), None, "a secret in the log:\n{log}");
        assert!(!log.contains("panicked"), "a panic:\n{log}");
    }
}

/// Returns a configuration with the destination `p`.
pub(crate) fn destination(authority: &str, settings: &str) -> String {
    format!("destinations: {{ p: {{ hosts: [\"{authority}\"], {settings} }} }}")
}

/// Returns the text as a whole configuration, completed by the keys that every test needs: free ports, the
/// bundle in `folder`, `partner.test` and `other.test` as names of this machine, and loopback allowed.
pub(crate) fn configuration(text: &str, folder: &Path) -> String {
    let margin = |line: &&str| line.len() - line.trim_start().len();
    let indent = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| margin(&line))
        .min();
    let mut yaml: String = text
        .lines()
        .map(|line| format!("{}\n", line.get(indent.unwrap_or(0)..).unwrap_or("")))
        .collect();
    let defaults = [
        ("listen", "127.0.0.1:0".to_owned()),
        ("admin", "127.0.0.1:0".to_owned()),
        ("workers", "2".to_owned()),
        (
            "ca",
            format!("{{ bundle: \"{}\" }}", folder.join("ca-bundle.pem").display()),
        ),
        ("egress", "{ allow_networks: [loopback] }".to_owned()),
        (
            "dns",
            "{ hosts: { partner.test: 127.0.0.1, other.test: 127.0.0.1 } }".to_owned(),
        ),
        ("log", "{ format: json, access: all }".to_owned()),
    ];
    for (key, value) in defaults {
        if !yaml.lines().any(|line| line.starts_with(&format!("{key}:"))) {
            yaml.push_str(&format!("{key}: {value}\n"));
        }
    }
    yaml
}

/// Collects the output of a pipe, and sends the addresses when it has the start-up line.
/// Reads `… proxy on ADDRESS, metrics on http://ADDRESS/metrics …`: proxy and admin address.
fn started(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let after = |mark: &str| {
        let rest = line.split_once(mark)?.1;
        let end = rest
            .find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    Some((after("proxy on ")?, after("metrics on http://")?))
}

/// Reads the file from its begin. Its position is not moved: the program writes there.
fn text(output: &File) -> String {
    let mut bytes = vec![0; output.metadata().unwrap().len().try_into().unwrap()];
    output.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
