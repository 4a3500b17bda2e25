//! The client matrix: real programs under `exec`, and what reaches the origin. It keeps the tables of `docs/clients.md`.
//!
//! A client is one start of a program of `tests/clients`. It asks a list of URLs, and prints `== NAME` and the answer for each. All
//! names resolve in outrider's `dns.hosts` only: an answer proves that the proxy was used.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::support::nginx;
use crate::support::pki::server_params;
use crate::support::programs::{ServerProcess, clean, outrider, skipped, tool, wait};
use crate::support::proxy::configuration;
use crate::support::{Pki, closed_port};

mod programs;

use programs::{CLIENTS, Client, Kind};

/// The columns of the first table.
const CELLS: [(&str, Kind, &str); 6] = [
    ("plain", Kind::Clear, "plain.test"),
    ("upgrade", Kind::Upgrade, "upgrade.test"),
    ("tunnel", Kind::Tls, "tunnel.test"),
    ("interception, mutual TLS", Kind::Mutual, "intercept.test"),
    ("refusal, https://", Kind::Tls, "shut.test"),
    ("refusal, http://", Kind::Clear, "closed.test"),
];

/// The columns of the second table: the entry of NO_PROXY, and the host that is asked.
const FORMS: [(&str, &str, &str); 9] = [
    ("host", "exact.test", "exact.test"),
    (".suffix", ".dot.test", "a.dot.test"),
    ("suffix", "bare.test", "a.bare.test"),
    ("*.suffix", "*.star.test", "a.star.test"),
    ("host:port", "port.test:@PORT@", "port.test"),
    ("a b", "one.test two.test", "two.test"),
    ("part of a label", "label.test", "mylabel.test"),
    ("HOST", "UPPER.TEST", "upper.test"),
    ("CIDR", "127.77.0.0/16", "127.77.0.1"),
];

/// The longest that a client may take for all of its questions.
const BOUND: Duration = Duration::from_secs(60);

const START: &str =
    "<!-- The tables are written by a test: OUTRIDER_WRITE_DOCS=1 cargo test --test tests client_matrix -->";
const END: &str = "<!-- end of the tables -->";

/// Runs every client, two at a time, and compares each cell with the page.
#[test]
fn every_client_does_what_the_page_says() {
    let rig = Rig::new();
    let seen = Mutex::new(BTreeMap::new());
    let next = Mutex::new(CLIENTS.iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((at, client)) = next.lock().unwrap().next() else {
                        break;
                    };
                    let row = rig.row(client);
                    seen.lock().unwrap().insert(at, row);
                }
            });
        }
    });
    let rows: Vec<Row> = seen.into_inner().unwrap().into_values().collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let missing: Vec<_> = rows.iter().filter_map(|row| row.missing.as_deref()).collect();
    for why in &missing {
        skipped(&format!("not run: {why}; tests/run --tools installs it"));
    }
    assert!(
        missing.is_empty() || std::env::var_os("CI").is_none(),
        "clients are missing: {missing:#?}"
    );
    if std::env::var_os("OUTRIDER_WRITE_DOCS").is_some() {
        assert!(missing.is_empty(), "the page wants every client: {missing:#?}");
        let (head, rest) = page.split_once(START).expect("the page has the first mark");
        let (_, tail) = rest.split_once(END).expect("the page has the second mark");
        return std::fs::write(&file, format!("{head}{START}\n\n{}\n{END}{tail}", tables(&rows))).unwrap();
    }
    // Another Debian has other clients; those of PyPI and npm are pinned.
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_twelve = release.contains("VERSION_ID=\"12\"");
    let (pinned, others): (Vec<_>, Vec<_>) =
        (rows.iter()).partition(|row| is_twelve || row.client.command.starts_with("@TOOLS@"));
    for difference in others.iter().flat_map(|row| row.differences(&page)) {
        skipped(&format!(
            "on this Debian otherwise: {}",
            difference.lines().next().unwrap()
        ));
    }
    let differences: Vec<String> = pinned.iter().flat_map(|row| row.differences(&page)).collect();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    let names = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| client") && !line.starts_with("| ---"));
    for line in names {
        let name = line.split(" | ").next().unwrap().trim_start_matches("| ");
        assert!(
            CLIENTS.iter().any(|client| client.name == name),
            "docs/clients.md has {name}, which no test runs"
        );
    }
}

/// What one client did.
struct Row {
    client: &'static Client,
    version: String,
    cells: Vec<String>,
    forms: Vec<String>,
    output: String,
    missing: Option<String>,
}

impl Row {
    /// Whether its reading of NO_PROXY says anything: a client that never asks the proxy passes it always.
    fn has_forms(&self) -> bool {
        !self.forms.is_empty() && self.cells[0] == "ok"
    }

    /// Compares the row with both tables of the page.
    fn differences(&self, page: &str) -> Vec<String> {
        if self.missing.is_some() {
            return Vec::new();
        }
        let name = self.client.name;
        let lines: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with(&format!("| {name} | ")))
            .map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
            .collect();
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: Option<&&str>, seen: &str| {
            if expected != Some(&seen) {
                found.push(format!(
                    "{name}, {what}: expected {expected:?}, seen {seen:?}\n{}",
                    self.output
                ));
            }
        };
        let remedy = self.client.remedy;
        let line = lines.first();
        for (at, ((what, ..), seen)) in CELLS.iter().zip(&self.cells).enumerate() {
            compare(what, line.and_then(|line| line.get(at + 2)), seen);
        }
        compare(
            "remedy",
            line.and_then(|line| line.get(CELLS.len() + 2)),
            if remedy.is_empty() { "–" } else { remedy },
        );
        let forms: &[String] = if self.has_forms() { &self.forms } else { &[] };
        for (at, ((what, ..), seen)) in FORMS.iter().zip(forms).enumerate() {
            compare(what, lines.get(1).and_then(|line| line.get(at + 1)), seen);
        }
        found
    }
}

/// Writes both tables.
fn tables(rows: &[Row]) -> String {
    let mut text = String::from("| client | version |");
    CELLS
        .iter()
        .for_each(|(name, ..)| write!(text, " {name} |").unwrap());
    text.push_str(" what to do |\n| --- | --- |");
    text.push_str(&" --- |".repeat(CELLS.len() + 1));
    for row in rows {
        let remedy = if row.client.remedy.is_empty() {
            "–"
        } else {
            row.client.remedy
        };
        write!(
            text,
            "\n| {} | {} | {} | {remedy} |",
            row.client.name,
            row.version,
            row.cells.join(" | ")
        )
        .unwrap();
    }
    text.push_str("\n\n## NO_PROXY, by running\n\n`past` = the entry takes a request past the proxy; `·` = it does not.\n\n| client |");
    FORMS
        .iter()
        .for_each(|(name, ..)| write!(text, " {name} |").unwrap());
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(FORMS.len()));
    for row in rows.iter().filter(|row| row.has_forms()) {
        write!(text, "\n| {} | {} |", row.client.name, row.forms.join(" | ")).unwrap();
    }
    text.push('\n');
    text
}

/// One nginx that answers `hello HOST` in every way, and the configuration of outrider.
struct Rig {
    folder: tempfile::TempDir,
    yaml: String,
    /// Ports: cleartext, TLS, TLS with a demanded certificate, HTTP/2 in clear.
    ports: [u16; 4],
    _server: ServerProcess,
    _pki: Pki,
}

impl Rig {
    fn new() -> Self {
        let pki = Pki::new();
        let folder = tempfile::tempdir().unwrap();
        let ports = std::array::from_fn(|_| closed_port());
        let [clear, tls, mutual, h2] = ports;
        let server = pki.issue(
            "origin",
            server_params(&["tunnel.test", "upgrade.test", "intercept.test"]),
        );
        std::fs::create_dir(folder.path().join("system")).unwrap();
        std::fs::copy(pki.ca(), folder.path().join("system/ca.crt")).unwrap();
        std::fs::create_dir(folder.path().join("origin")).unwrap();
        let origin = folder.path().join("origin");
        let conf = CONF
            .replace("@ANSWERS@", ANSWERS)
            .replace("@CLEAR@", &clear.to_string())
            .replace("@TLS@", &tls.to_string())
            .replace("@MUTUAL@", &mutual.to_string())
            .replace("@H2@", &h2.to_string())
            .replace("@CERT@", &server.cert_path.display().to_string())
            .replace("@KEY@", &server.key_path.display().to_string())
            .replace("@CA@", &pki.ca().display().to_string());
        let process = nginx::start(&origin, &conf, clear);
        let open: Vec<String> = (FORMS.iter())
            .map(|(_, _, host)| format!("\"{host}:{clear}\""))
            .collect();
        let names = (CELLS.iter().map(|(_, _, host)| host)).chain(FORMS.iter().map(|(_, _, host)| host));
        let hosts: Vec<_> = names
            .filter(|host| host.ends_with("test"))
            .map(|host| format!("{host}: 127.0.0.1"))
            .collect();
        let yaml = format!(
            "dns: {{ hosts: {{ {} }} }}\n\
             destinations:\n  \
               open: {{ hosts: [\"plain.test:{clear}\", \"plain.test:{h2}\", {}] }}\n  \
               tunnel: {{ hosts: [\"tunnel.test:{tls}\"], mode: tunnel }}\n  \
               mutual: {{ hosts: [\"upgrade.test:{mutual}\", \"intercept.test:{mutual}\"], tls: {{ ca: \"file:{}\", \
               client_certificate: {} }} }}\n",
            hosts.join(", "),
            open.join(", "),
            pki.ca().display(),
            pki.client("app").yaml(),
        );
        Self {
            folder,
            yaml,
            ports,
            _server: process,
            _pki: pki,
        }
    }

    fn url(&self, kind: Kind, host: &str, client: &Client) -> String {
        let [clear, tls, mutual, h2] = self.ports;
        let clear = if client.is_grpc { h2 } else { clear };
        match kind {
            Kind::Clear => format!("http://{host}:{clear}/"),
            Kind::Upgrade => format!("http://{host}:{mutual}/"),
            Kind::Tls => format!("https://{host}:{tls}/"),
            Kind::Mutual => format!("https://{host}:{mutual}/"),
        }
    }

    /// Starts a client once, with all of its questions.
    fn row(&self, client: &'static Client) -> Row {
        let mut row = Row {
            client,
            version: String::new(),
            cells: Vec::new(),
            forms: Vec::new(),
            output: String::new(),
            missing: None,
        };
        match version(client) {
            Ok(version) => row.version = version,
            Err(why) => {
                row.missing = Some(format!("{}: {why}", client.name));
                return row;
            }
        }
        // A bundle for each: two processes must not write one file.
        let own = tempfile::tempdir().unwrap();
        let file = own.path().join("outrider.yml");
        std::fs::write(&file, configuration(&self.yaml, own.path())).unwrap();
        let mut asked: Vec<(String, &str)> = (CELLS.iter())
            .map(|&(_, kind, host)| (self.url(kind, host, client), host))
            .collect();
        if client.has_forms {
            asked.extend((FORMS.iter()).map(|&(_, _, host)| (self.url(Kind::Clear, host, client), host)));
        }
        let list = FORMS.map(|(_, entry, _)| entry.replace("@PORT@", &self.ports[0].to_string()));
        let mut command = outrider(["exec", "--no-proxy", &list.join(","), "--config"]);
        command.arg(file);
        if client.is_without_password {
            command.arg("--no-password");
        }
        command.arg("--").args(arguments(client));
        for (_, host) in &asked {
            let (url, _) = asked.iter().find(|(_, other)| other == host).unwrap();
            command.arg(format!("{host}={url}"));
        }
        let tools = tool("clients").parent().unwrap().to_owned();
        command
            .env("CF_SYSTEM_CERT_PATH", self.folder.path().join("system"))
            .env("TOOLS", &tools)
            .env("CARGO", env!("CARGO"))
            .env("NODE_PATH", tools.join("clients/node_modules"))
            .env("RES_OPTIONS", "timeout:1 attempts:1");
        let (output, log) = bounded(&mut command);
        let answers = sections(&output);
        let log: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
        let is_known = |host: &str| log.iter().any(|line| line.contains(host));
        for (at, (_, host)) in asked.iter().enumerate() {
            let answer = answers.get(*host).map_or("", String::as_str);
            let cell = match at {
                0..4 if answer.contains(&format!("hello {host}"))
                    || answer.contains(&format!("hello-{host}")) =>
                {
                    "ok"
                }
                0..4 if is_known(host) => "**no**",
                0..6 if !is_known(host) => "**past**",
                4 | 5 => refusal(answer),
                _ if is_known(host) => "·",
                _ => "past",
            };
            (if at < CELLS.len() {
                &mut row.cells
            } else {
                &mut row.forms
            })
            .push(cell.to_owned());
        }
        row.output = format!("{output}\n--- outrider:\n{}", log.join("\n"));
        row
    }
}

/// How much of the refusal reaches the user.
fn refusal(answer: &str) -> &'static str {
    if answer.contains("named by no destination") || answer.contains("by no destination") {
        "sentence"
    } else if answer.contains("403") {
        "403"
    } else if answer.contains("orbidden") {
        "word"
    } else {
        "none"
    }
}

/// Replaces the places of files: `@TOOLS@`, `@CLIENTS@`.
fn arguments(client: &Client) -> Vec<String> {
    client.command.split(' ').map(place).collect()
}

fn place(word: &str) -> String {
    let tools = tool("clients").parent().unwrap().display().to_string();
    let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    word.replace("@TOOLS@", &tools)
        .replace("@CLIENTS@", &clients.display().to_string())
        .replace("@CARGO@", env!("CARGO"))
}

/// Asks a client for its version: the first number with a dot in it. An error says why it cannot run.
fn version(client: &Client) -> Result<String, String> {
    let mut command = clean("sh");
    command.arg("-c").arg(place(client.version));
    command.env("NODE_PATH", place("@TOOLS@/clients/node_modules"));
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    text.split(|c: char| !is_part(c))
        .map(|word| word.trim_matches('.'))
        .find(|word| output.status.success() && word.contains('.'))
        .map(str::to_owned)
        .ok_or_else(|| {
            format!(
                "`{}` says {:?}",
                client.version,
                text.lines().next().unwrap_or("nothing")
            )
        })
}

/// Splits what a client printed by its headings.
fn sections(output: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in output.split("== ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap_or((part, ""));
        found.insert(name.trim().to_owned(), text.to_owned());
    }
    found
}

/// Runs a client to its end or to [`BOUND`]. Returns standard output and standard error.
fn bounded(command: &mut Command) -> (String, String) {
    let [output, errors] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    let mut child = (command.stdin(Stdio::null()))
        .stdout(output.reopen().unwrap())
        .stderr(errors.reopen().unwrap())
        .spawn()
        .unwrap();
    let end = wait(&mut child, BOUND);
    let [output, errors] = [output, errors]
        .map(|file| String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned());
    assert!(
        end.is_some(),
        "{command:?} did not end in {BOUND:?}:\n{output}\n{errors}"
    );
    (output, errors)
}

/// Answers as what each client wants: a page, a repository of git, a package of npm, crates and a gRPC status.
const CONF: &str = r#"
access_log off;
server {
  listen 127.0.0.1:@CLEAR@;
  listen 127.77.0.1:@CLEAR@;
  listen 127.0.0.1:@H2@ http2;
  listen 127.0.0.1:@TLS@ ssl http2;
  ssl_certificate @CERT@;
  ssl_certificate_key @KEY@;
@ANSWERS@
}
server {
  listen 127.0.0.1:@MUTUAL@ ssl http2;
  ssl_certificate @CERT@;
  ssl_certificate_key @KEY@;
  ssl_client_certificate @CA@;
  ssl_verify_client on;
@ANSWERS@
}
"#;

const ANSWERS: &str = r#"
    add_header Access-Control-Allow-Origin *;
    location / { default_type text/plain; return 200 "hello $host"; }
    location /info/refs { default_type text/plain; return 200 "5fa05960000000000000000000000000000000aa\trefs/heads/hello-$host\n"; }
    location = /hello {
      default_type application/json;
      return 200 '{"name":"hello","description":"hello $host","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"hello","version":"1.0.0","description":"hello $host","dist":{"tarball":"http://$host/x.tgz"}}}}';
    }
    location = /config.json { default_type application/json; return 200 '{"dl":"$scheme://$http_host/dl","api":"$scheme://$http_host"}'; }
    location /api/ {
      default_type application/json;
      return 200 '{"crates":[{"name":"hello","description":"hello $host","max_version":"1.0.0"}],"meta":{"total":1}}';
    }
    location = /hello/hello {
      default_type application/grpc;
      add_header grpc-status 9;
      add_header grpc-message "hello $host";
      return 200 "";
    }
"#;
