//! The client matrix: real programs under `exec`, and what reaches the origin. It keeps the tables of `docs/clients.md`.
//!
//! A client is one start of a program of `tests/clients`. It asks a list of URLs, and prints `== NAME` and the answer for each. All
//! names resolve in outrider's `dns.hosts` only: an answer proves that the proxy was used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::nginx;
use crate::support::pki::server_params;
use crate::support::programs::{ServerProcess, clean, outrider, tool, wait};
use crate::support::proxy::configuration;
use crate::support::{Pki, closed_port};

mod further;
mod page;
mod programs;

use page::Row;
use programs::{Client, Kind};

/// The questions of the first table: how a host is asked, and which.
const CELLS: [(Kind, &str); 6] = [
    (Kind::Clear, "plain.test"),
    (Kind::Upgrade, "upgrade.test"),
    (Kind::Tls, "tunnel.test"),
    (Kind::Mutual, "intercept.test"),
    (Kind::Tls, "shut.test"),
    (Kind::Clear, "closed.test"),
];

/// The questions of the second table: what the entry is, what is in NO_PROXY, and the host that is asked.
const FORMS: [(&str, &str, &str); 12] = [
    ("the host", "exact.test", "exact.test"),
    ("`.suffix`", ".dot.test", "a.dot.test"),
    ("`suffix`, for a host below it", "bare.test", "a.bare.test"),
    ("`*.suffix`", "*.star.test", "a.star.test"),
    ("`host:port`", "port.test:@PORT@", "port.test"),
    (
        "`a b`, for b: a blank and no comma",
        "one.test two.test",
        "two.test",
    ),
    (
        "`a, b`, for b: a comma and a blank",
        "spaced.test, after.test",
        "after.test",
    ),
    ("`host`, for `myhost`", "label.test", "mylabel.test"),
    ("`HOST`, in capitals", "UPPER.TEST", "upper.test"),
    ("a network, for an address in it", "127.77.0.0/16", "127.77.0.1"),
    ("`address:port`", "127.78.0.1:@PORT@", "127.78.0.1"),
    ("no entry, for an address of loopback", "", "127.79.0.1"),
];

/// The last one: the same, of the whole list.
const STAR: (&str, &str, &str) = ("`*`, alone", "*", "all.test");

/// The longest that a client may take for all of its questions.
const BOUND: Duration = Duration::from_secs(90);

/// What OkHttp and Apache's client of Debian need.
const JARS: [&str; 6] = [
    "okhttp",
    "okio",
    "httpclient",
    "httpcore",
    "commons-logging",
    "commons-codec",
];

/// How clients say that they have looked for the address of a host, which only those do that do not ask the proxy for it.
const LOOKED_UP: [&str; 17] = [
    "cannot resolve",
    "could not resolve",
    "couldn't resolve",
    "dns error",
    "enotfound",
    "err_name_not_resolved",
    "errors resolving",
    "failed to resolve",
    "getaddrinfo",
    "name or service not known",
    "name resolution",
    "no such host",
    "resolverror",
    "unable to locate remote host",
    "unable to resolve",
    "unknownhost",
    "unresolvedaddress",
];

#[test]
fn every_client_does_what_the_page_says() {
    page::compare(&page::CORE, &rows(page::CORE.clients));
}

#[test]
#[ignore = "a wider set, of which each run takes minutes: tests/run --all-clients"]
fn every_client_of_the_wider_set_does_what_the_page_says() {
    page::compare(&page::FURTHER, &rows(page::FURTHER.clients));
}

/// What looks like a client that goes past the proxy may be one that has failed otherwise.
#[test]
fn a_client_that_crashes_does_not_count_as_one_that_goes_past() {
    for (answer, is_past) in [
        ("curl: (6) Could not resolve host: plain.test", true),
        ("Error: getaddrinfo EAI_AGAIN plain.test", true),
        ("java.nio.channels.UnresolvedAddressException", true),
        ("hello plain.test", true),
        ("hello other.test", false),
        ("Segmentation fault", false),
        ("Error: Cannot find module 'undici'", false),
        ("", false),
    ] {
        assert_eq!(went_past(answer, "plain.test"), is_past, "{answer}");
    }
}

/// Runs clients, two at a time.
fn rows(clients: &'static [Client]) -> Vec<Row> {
    let rig = Rig::new();
    let seen = Mutex::new(BTreeMap::new());
    let next = Mutex::new(clients.iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((at, client)) = next.lock().unwrap().next() else {
                        break;
                    };
                    let begun = Instant::now();
                    let row = rig.row(client);
                    println!("{:4.1} s {}", begun.elapsed().as_secs_f32(), client.name);
                    seen.lock().unwrap().insert(at, row);
                }
            });
        }
    });
    seen.into_inner().unwrap().into_values().collect()
}

/// One nginx that answers `hello HOST` in every way, and the configuration of outrider.
struct Rig {
    folder: tempfile::TempDir,
    yaml: String,
    /// Ports: cleartext, TLS, TLS with a demanded certificate, HTTP/2 in clear.
    ports: [u16; 4],
    _servers: [ServerProcess; 2],
    _pki: Pki,
}

impl Rig {
    fn new() -> Self {
        let pki = Pki::new();
        let folder = tempfile::tempdir().unwrap();
        let ports = std::array::from_fn(|_| closed_port());
        let [sockets, calls] = std::array::from_fn(|_| closed_port());
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
            .replace("@SOCKETS@", &sockets.to_string())
            .replace("@CALLS@", &calls.to_string())
            .replace("@CLEAR@", &clear.to_string())
            .replace("@TLS@", &tls.to_string())
            .replace("@MUTUAL@", &mutual.to_string())
            .replace("@H2@", &h2.to_string())
            .replace("@CERT@", &server.cert_path.display().to_string())
            .replace("@KEY@", &server.key_path.display().to_string())
            .replace("@CA@", &pki.ca().display().to_string());
        let mut inner = clean(tool("venv/bin/python"));
        inner
            .arg(place("@CLIENTS@/origin.py"))
            .args([sockets, calls].map(|port| port.to_string()));
        let inner = ServerProcess::start(&mut inner, calls);
        let servers = [nginx::start(&origin, &conf, clear), inner];
        let listed = FORMS.iter().map(|(_, _, host)| host).chain([&STAR.2]);
        let open: Vec<String> = (listed.clone())
            .flat_map(|host| [clear, h2].map(|port| format!("\"{host}:{port}\"")))
            .collect();
        let names = CELLS.iter().map(|(_, host)| host).chain(listed);
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
            _servers: servers,
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

    /// Starts a client once with all of its questions, and once more with another NO_PROXY.
    fn row(&self, client: &'static Client) -> Row {
        let mut row = Row::new(client);
        match version(client) {
            Ok(version) => row.version = version,
            Err(why) => {
                row.missing = Some(format!("{}: {why}", client.name));
                return row;
            }
        }
        let mut asked: Vec<(String, &str)> = (CELLS.iter())
            .map(|&(kind, host)| (self.url(kind, host, client), host))
            .collect();
        if client.has_forms {
            asked.extend((FORMS.iter()).map(|&(_, _, host)| (self.url(Kind::Clear, host, client), host)));
        }
        let [clear, _, _, h2] = self.ports;
        let port = if client.is_grpc { h2 } else { clear };
        let list: Vec<_> = (FORMS.iter())
            .filter(|(_, entry, _)| !entry.is_empty())
            .map(|(_, entry, _)| entry.replace("@PORT@", &port.to_string()))
            .collect();
        let seen = self.ask(client, &list.join(","), &asked);
        for (at, (_, host)) in asked.iter().enumerate() {
            let answer = seen.answer(host);
            let is_answered = is_greeted(answer, host) && (!client.echoes || answer.contains("and back"));
            let cell = match at {
                0..4 if seen.is_known(host) => {
                    if is_answered {
                        "ok"
                    } else {
                        "**no**"
                    }
                }
                4..6 if seen.is_known(host) => refusal(answer),
                0..6 => {
                    if went_past(answer, host) {
                        "**past**"
                    } else {
                        "**failed**"
                    }
                }
                _ => seen.form(host),
            };
            (if at < CELLS.len() {
                &mut row.cells
            } else {
                &mut row.forms
            })
            .push(cell.to_owned());
        }
        row.output = seen.output;
        if row.has_forms() {
            let (_, list, host) = STAR;
            let seen = self.ask(client, list, &[(self.url(Kind::Clear, host, client), host)]);
            row.forms.push(seen.form(host).to_owned());
            row.output += &seen.output;
        }
        row
    }

    /// Starts a client under `exec`.
    fn ask(&self, client: &Client, no_proxy: &str, asked: &[(String, &str)]) -> Seen {
        // A bundle for each: two processes must not write one file.
        let own = tempfile::tempdir().unwrap();
        let file = own.path().join("outrider.yml");
        std::fs::write(&file, configuration(&self.yaml, own.path())).unwrap();
        let mut command = outrider(["exec", "--no-proxy", no_proxy, "--config"]);
        command.arg(file);
        if client.is_without_password {
            command.arg("--no-password");
        }
        command.arg("--").args(arguments(client));
        command.args(asked.iter().map(|(url, host)| format!("{host}={url}")));
        let tools = tool("clients").parent().unwrap().to_owned();
        let modules = ["clients", "further"]
            .map(|folder| tools.join(folder).join("node_modules").display().to_string());
        command
            .env("CF_SYSTEM_CERT_PATH", self.folder.path().join("system"))
            .env("TOOLS", &tools)
            .env("CARGO", env!("CARGO"))
            .env("NODE_PATH", modules.join(":"))
            .env("RES_OPTIONS", "timeout:1 attempts:1");
        let (output, log) = bounded(&mut command);
        let log: Vec<String> = log
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(str::to_owned)
            .collect();
        Seen {
            answers: sections(&output),
            output: format!("{output}\n--- outrider:\n{}", log.join("\n")),
            log,
        }
    }
}

/// What one start of a client has led to.
struct Seen {
    /// What it printed, by host.
    answers: BTreeMap<String, String>,
    log: Vec<String>,
    output: String,
}

impl Seen {
    fn answer(&self, host: &str) -> &str {
        self.answers.get(host).map_or("", String::as_str)
    }

    /// Whether the proxy was asked for it.
    fn is_known(&self, host: &str) -> bool {
        let ends = ['"', ':'].map(|end| format!("\"{host}{end}"));
        self.log
            .iter()
            .any(|line| ends.iter().any(|name| line.contains(name)))
    }

    /// What became of a host that NO_PROXY may name.
    fn form(&self, host: &str) -> &'static str {
        match self.is_known(host) {
            true => "·",
            false if went_past(self.answer(host), host) => "●",
            false => "**failed**",
        }
    }
}

/// Whether the origin has answered; the name of a branch has no blank.
fn is_greeted(answer: &str, host: &str) -> bool {
    let words = [" ", "-"].map(|blank| format!("hello{blank}{host}"));
    words.iter().any(|words| answer.contains(words))
}

/// Whether a client that has not asked the proxy has asked the host: it got an answer, or looked for the address.
fn went_past(answer: &str, host: &str) -> bool {
    let answer = answer.to_lowercase();
    is_greeted(&answer, host) || LOOKED_UP.iter().any(|words| answer.contains(words))
}

/// How much of the refusal reaches the user.
fn refusal(answer: &str) -> &'static str {
    if answer.contains("named by no destination") || answer.contains("by no destination") {
        "reason"
    } else if answer.contains("403") {
        "403"
    } else if answer.contains("orbidden") {
        "word"
    } else {
        "none"
    }
}

/// Replaces the places of files: `@TOOLS@`, `@CLIENTS@`, `@JARS@`.
fn arguments(client: &Client) -> Vec<String> {
    client.command.split(' ').map(place).collect()
}

fn place(word: &str) -> String {
    let tools = tool("clients").parent().unwrap().display().to_string();
    let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let jars = JARS.map(|name| format!("/usr/share/java/{name}.jar"));
    word.replace("@TOOLS@", &tools)
        .replace("@CLIENTS@", &clients.display().to_string())
        .replace("@CARGO@", env!("CARGO"))
        .replace("@JARS@", &jars.join(":"))
}

/// Asks a client for its version: the first number with a dot in it, up to its third part. An error says why it cannot run.
fn version(client: &Client) -> Result<String, String> {
    let mut command = clean("sh");
    command.arg("-c").arg(place(client.version));
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    text.split(|c: char| !is_part(c))
        .map(|word| word.trim_matches('.'))
        .find(|word| output.status.success() && word.contains('.'))
        .map(|word| word.split('.').take(3).collect::<Vec<_>>().join("."))
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

/// Answers as what each client wants: a page, a repository of git, a package of npm, crates, spans. WebSockets and gRPC are
/// answered by `origin.py` behind it.
const CONF: &str = r#"
access_log off;
server {
  listen 127.0.0.1:@CLEAR@;
  listen 127.77.0.1:@CLEAR@;
  listen 127.78.0.1:@CLEAR@;
  listen 127.79.0.1:@CLEAR@;
  listen 127.0.0.1:@H2@ http2;
  listen 127.77.0.1:@H2@ http2;
  listen 127.78.0.1:@H2@ http2;
  listen 127.79.0.1:@H2@ http2;
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
    location / {
      default_type text/plain;
      error_page 418 = @sockets;
      if ($http_upgrade = websocket) { return 418; }
      return 200 "hello $host";
    }
    location @sockets {
      proxy_pass http://127.0.0.1:@SOCKETS@;
      proxy_http_version 1.1;
      proxy_set_header Upgrade websocket;
      proxy_set_header Connection upgrade;
      proxy_set_header X-Asked $host;
    }
    location = /v1/traces {
      default_type application/json;
      return 200 '{"partialSuccess":{"rejectedSpans":1,"errorMessage":"hello $host"}}';
    }
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
    location = /hello/hello { grpc_pass grpc://127.0.0.1:@CALLS@; grpc_set_header x-asked $host; }
"#;
