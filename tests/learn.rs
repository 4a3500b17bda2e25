//! `egress.default: observe` and `outrider learn`, on the traffic of real clients.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::packages::Packages;
use crate::support::programs::{clean, curl, outrider, python, tool};
use crate::support::{Pki, Proxy, closed_port, eventually, run};

/// The hosts of the clients, all of them this machine. `other.test` is asked for by nobody.
const HOSTS: [&str; 7] = [
    "pip.test",
    "npm.test",
    "git.test",
    "files.test",
    "both.test",
    "grpc.test",
    "other.test",
];

/// A file as a person keeps it: comments, quotes, blank lines, a mapping in the middle.
const FILE: &str = "\
# the egress of the build
listen: 127.0.0.1:0
admin: 127.0.0.1:0   # by hand

egress: { default: observe, allow_networks: [loopback], ports: [80, 443, @PORTS@] }

destinations:
  # kept as it is
  \"weather\":
    hosts: ['api.weather.test']   # no change here
    rate_limit: 5/s

# names of this machine
dns: { hosts: { @HOSTS@ } }
log: { format: json, access: errors }
ca: { bundle: \"@FOLDER@/ca-bundle.pem\" }
";

/// The servers, the file, and where the clients put what they fetch.
struct Build {
    pki: Pki,
    packages: Packages,
    grpc: u16,
    folder: TempDir,
}

impl Build {
    fn new() -> Self {
        let pki = Pki::new();
        let packages = Packages::serve_as(&pki, &HOSTS, "npm.test");
        let build = Self {
            pki,
            packages,
            grpc: closed_port(),
            folder: tempfile::tempdir().unwrap(),
        };
        let ports = build.ports().map(|port| port.to_string()).join(", ");
        let hosts = HOSTS.map(|host| format!("{host}: 127.0.0.1")).join(", ");
        let text = (FILE.replace("@PORTS@", &ports).replace("@HOSTS@", &hosts))
            .replace("@FOLDER@", &build.folder.path().display().to_string());
        fs::write(build.file(), text).unwrap();
        build
    }

    fn ports(&self) -> [u16; 3] {
        [self.packages.plain, self.packages.tls, self.grpc]
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("outrider.yml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// What the clients ask for.
    fn expected(&self) -> Vec<(&'static str, u16)> {
        let Packages { plain, tls, .. } = self.packages;
        let mut all = vec![
            ("pip.test", tls),
            ("npm.test", plain),
            ("git.test", tls),
            ("files.test", plain),
            ("both.test", plain),
            ("both.test", tls),
            ("grpc.test", self.grpc),
        ];
        all.sort_unstable();
        all
    }

    /// Runs every client through `proxy`; each has to succeed.
    fn run_clients(&self, proxy: &Proxy) {
        let Packages { plain, tls, .. } = self.packages;
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let through = |command: &mut Command| {
            let url = format!("http://{}", proxy.address());
            for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
                command.env(name, &url);
            }
            command.current_dir(folder.path()).env("HOME", folder.path());
            run(command)
        };
        let ca = self.pki.ca();
        let mut pip = clean(tool("venv/bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ]);
        pip.args(["--isolated", "--target", "pip", "--index-url"]);
        pip.arg(format!("https://pip.test:{tls}/simple/"))
            .arg("--cert")
            .arg(&ca)
            .arg("probe");
        through(&mut pip).succeeded();
        assert!(folder.path().join("pip/probe.py").exists());

        let mut npm = clean("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            "npm",
            "--cache",
            "npm-cache",
        ]);
        npm.args(["--registry", &format!("http://npm.test:{plain}/"), "probe"]);
        fs::create_dir(folder.path().join("npm")).unwrap();
        through(npm.env("NO_UPDATE_NOTIFIER", "1")).succeeded();
        assert!(folder.path().join("npm/node_modules/probe/package.json").exists());

        let mut git = clean("git");
        git.args(["clone", "-q", &format!("https://git.test:{tls}/probe.git"), "git"]);
        through(git.env("GIT_SSL_CAINFO", &ca).env("GIT_CONFIG_NOSYSTEM", "1")).succeeded();
        assert!(folder.path().join("git/file").exists());

        for url in [
            format!("http://files.test:{plain}/file.txt?secret=canary-2f6b"),
            format!("http://both.test:{plain}/file.txt"),
            format!("https://both.test:{tls}/file.txt"),
        ] {
            let mut command = curl(["--fail", "--cacert", ca.to_str().unwrap(), &url]);
            assert_eq!(through(&mut command).succeeded().stdout, "a file\n");
        }
        let grpc = GRPC.replace("@PORT@", &self.grpc.to_string());
        assert_eq!(through(&mut python(&grpc)).succeeded().stdout, "called\n");
    }

    /// Runs `outrider learn` on the file.
    fn learn(&self, arguments: &[&str]) -> crate::support::ProgramOutput {
        let mut command = outrider(["learn", "--config"]);
        run(command.arg(self.file()).args(arguments))
    }
}

/// A server and a client that reaches it through the proxy of the environment.
const GRPC: &str = r#"
import grpc
from concurrent import futures

class All(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[All()])
assert server.add_insecure_port("127.0.0.1:@PORT@") == @PORT@
server.start()
channel = grpc.insecure_channel("grpc.test:@PORT@")
assert channel.unary_unary("/t/unary")(b"hello", timeout=15) == b"hello"
channel.close()
server.stop(None).wait()
print("called")
"#;

/// The hosts and ports of the page /observed.
fn observed(proxy: &Proxy) -> Vec<(String, u16)> {
    let page: Value = serde_json::from_str(&proxy.page("/observed").text()).unwrap();
    let hosts = page["observed"].as_array().unwrap().iter();
    let hosts = hosts.map(|entry| {
        assert_eq!(
            (&entry["would_deny"], &entry["failed"]),
            (&"unlisted".into(), &0.into()),
            "{entry}"
        );
        let port = u16::try_from(entry["port"].as_u64().unwrap()).unwrap();
        (entry["host"].as_str().unwrap().to_owned(), port)
    });
    hosts.collect()
}

/// Whether a CONNECT to the host and port is allowed.
fn is_allowed(proxy: &Proxy, host: &str, port: u16) -> bool {
    let (response, _) = proxy.connect(&format!("{host}:{port}"));
    response.status != 403
}

#[test]
fn what_is_learned_from_real_clients_lets_them_pass_and_nothing_else() {
    let build = Build::new();
    let before = build.text();
    {
        let proxy = Proxy::on(&build.file());
        build.run_clients(&proxy);
        let expected: Vec<_> = build
            .expected()
            .iter()
            .map(|(host, port)| ((*host).to_owned(), *port))
            .collect();
        eventually("everything is in the record", || observed(&proxy) == expected);
        assert!(proxy.metric("outrider_observed_total", &[("reason", "unlisted")]) >= 7.0);
        let page = proxy.page("/observed").text();
        assert!(page.contains("/file.txt") && !page.contains("secret"), "{page}");

        // Shown, and nothing changed.
        let admin = format!("http://{}", proxy.admin());
        let shown = build.learn(&["--from", &admin]);
        assert!(shown.succeeded().stdout.starts_with("--- "), "{shown:?}");
        assert!(shown.stderr.contains("is not changed yet"), "{shown:?}");
        assert_eq!(build.text(), before);
        // The log says the same, once the last tunnel has ended.
        eventually("everything is in the log", || {
            let log = proxy.log();
            let lines = log.lines().filter(|line| line.contains("would_deny"));
            let lines: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
            let is_told = |host: &str, port: u16| {
                lines
                    .iter()
                    .any(|line| line["host"] == host && line["port"] == port)
            };
            expected.iter().all(|(host, port)| is_told(host, *port))
        });
        let file = build.folder.path().join("log");
        fs::write(&file, proxy.log()).unwrap();
        let from_log = build.learn(&[file.to_str().unwrap()]);
        assert_eq!(from_log.succeeded().stdout, shown.stdout, "{from_log:?}");

        // Written; a second time there is nothing to do.
        let written = build.learn(&["--from", &admin, "--write"]);
        assert_eq!(written.succeeded().stdout, shown.stdout, "{written:?}");
        let learned = build.text();
        let again = build.learn(&["--from", &admin, "--write"]);
        assert!(
            again.succeeded().stderr.contains("nothing to add: 7 of 7"),
            "{again:?}"
        );
        assert_eq!((again.stdout.as_str(), build.text()), ("", learned));
    }
    let learned = build.text();
    // Every line is where it was, and the new ones are together.
    let added = learned.lines().filter(|line| !before.contains(line)).count();
    assert_eq!(learned.lines().count(), before.lines().count() + added);
    let start = learned.find("  both-test:\n").unwrap();
    assert_eq!(learned[..start], before[..start]);
    assert!(learned.ends_with(&before[start..]), "{learned}");
    assert!(!learned.contains("auth"), "{learned}");

    let denying = learned.replace("default: observe", "default: deny");
    fs::write(build.file(), &denying).unwrap();
    run(outrider(["check", "--config"]).arg(build.file())).succeeded();
    let proxy = Proxy::on(&build.file());
    build.run_clients(&proxy);
    let mut refused = 0;
    for host in HOSTS {
        for port in build.ports().into_iter().chain([80, 443]) {
            let is_expected = build.expected().contains(&(host, port));
            assert_eq!(is_allowed(&proxy, host, port), is_expected, "{host}:{port}");
            refused += usize::from(!is_expected);
        }
    }
    assert_eq!(refused, 7 * 5 - 7);
    let subdomain = proxy.get(&format!("http://x.files.test:{}/file.txt", build.packages.plain));
    assert_eq!(subdomain.status, 403);
    assert_eq!(observed(&proxy), []);
}

/// Networks, ports and `deny: true` hold under `observe`; what is refused is not in the record.
#[test]
fn observe_opens_no_network_port_or_denied_host() {
    let origin = crate::support::Origin::http(crate::support::origin::echo);
    let port = origin.port();
    let proxy = Proxy::start(&format!(
        "
        egress: {{ default: observe, ports: [{port}], allow_networks: [127.0.0.1] }}
        dns: {{ hosts: {{ a.test: 127.0.0.1, private.test: 10.0.0.1, meta.test: 169.254.169.254, gone.test: 127.0.0.1, \
         bad.test: 127.0.0.1 }} }}
        destinations: {{ bad: {{ hosts: [\"bad.test:*\"], deny: true }} }}
        "
    ));
    let url = |host: &str| format!("http://{host}:{port}/x");
    assert_eq!(proxy.get(&url("a.test")).status, 200);
    assert_eq!(proxy.get(&url("private.test")).status, 403);
    assert_eq!(proxy.get(&url("meta.test")).status, 403);
    assert_eq!(proxy.get(&url("bad.test")).status, 403);
    assert_eq!(proxy.get("http://a.test:81/").status, 403);
    assert_eq!(proxy.connect("169.254.169.254:80").0.status, 403);
    eventually("what passed is in the record", || {
        observed(&proxy) == [("a.test".to_owned(), port)]
    });
    assert_eq!(origin.seen().len(), 1);
    eventually("it is in the log", || proxy.log().contains("would_deny"));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("would_deny")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["host"], &line["port"]), (&"a.test".into(), &port.into()));
    assert_eq!(log.matches("would_deny").count(), 1, "{log}");
    for reason in ["network", "denied", "port"] {
        assert!(
            proxy.metric("outrider_denied_total", &[("reason", reason)]) >= 1.0,
            "{reason}"
        );
    }

    // The page is guarded as the others are.
    let mut wire = crate::support::Wire::connect(proxy.admin());
    let foreign = wire.ask("GET /observed HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
    assert_eq!(foreign.status, 421);
    let post = crate::support::Wire::connect(proxy.admin())
        .ask("POST /observed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(post.status, 405);
}

/// Each failure names its reason and the remedy, and leaves the file.
#[test]
fn what_cannot_be_learned_is_told_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let line = r#"{"target":"access","would_deny":"unlisted","method":"CONNECT","host":"a.test","port":443,"status":200}"#;
    let log = folder.path().join("log");
    fs::write(&log, format!("{line}\n")).unwrap();
    let learn = |text: &str, arguments: &[&str]| {
        fs::write(&file, text).unwrap();
        let mut command = outrider(["learn", "--write", "--config"]);
        let done = run(command.arg(&file).args(arguments));
        assert_eq!(done.code(), 1, "{done:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{done:?}");
        done.stderr
    };
    let log = log.to_str().unwrap();
    let odd = learn(
        "? destinations\n: { b: { hosts: [b.test] } }\n# end\n",
        &[log, "--name", "b"],
    );
    assert!(
        odd.contains("has a destination b") && odd.contains("choose another name"),
        "{odd}"
    );
    let unclear = learn("destinations: { # c\n  }\n", &[log]);
    assert!(
        unclear.contains("the lines to add:\n\ndestinations:\n  a-test:\n"),
        "{unclear}"
    );
    let broken = learn("destinations: { a: {} }\n", &[log]);
    assert!(broken.contains("`hosts` is missing"), "{broken}");
    let nobody = learn("admin: 127.0.0.1:1\n", &[]);
    assert!(
        nobody.contains("no record at http://127.0.0.1:1/observed (")
            && nobody.ends_with("outrider learn -\n"),
        "{nobody}"
    );
    let off = learn("admin: false\n", &[]);
    assert!(off.contains("admin: false") && off.contains("--from"), "{off}");
    let url = learn("drain: 8s\n", &["--from", "https://127.0.0.1:9901/x"]);
    assert!(url.contains("as in http://127.0.0.1:9901"), "{url}");
    let gone = learn("drain: 8s\n", &["/nowhere/log"]);
    assert!(gone.contains("/nowhere/log cannot be read"), "{gone}");
    readable(&file);
}

/// A file that is not there becomes one that denies everything else.
fn readable(file: &Path) {
    let folder = tempfile::tempdir_in(file.parent().unwrap()).unwrap();
    let log = file.parent().unwrap().join("log");
    let mut command = outrider(["learn", "--write"]);
    let done = run(command.current_dir(folder.path()).arg(&log));
    assert!(
        done.succeeded()
            .stdout
            .starts_with("--- /dev/null\n+++ outrider.yml\n"),
        "{done:?}"
    );
    let text = fs::read_to_string(folder.path().join("outrider.yml")).unwrap();
    assert_eq!(text, "destinations:\n  a-test:\n    hosts: [\"a.test:443\"]\n");
}

/// The command in a pipeline: exit codes, standard input, and nothing of a secret.
#[test]
fn a_change_of_the_file_is_told_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = |hosts: &str, secret: &str| {
        format!("destinations: {{ a: {{ hosts: [{hosts}], auth: {{ bearer: {secret} }} }} }}\n")
    };
    fs::write(path("token"), "canary-2f6b-token").unwrap();
    let secret = format!("file:{}", path("token").display());
    fs::write(path("new.yml"), file("a.test, b.test", &secret)).unwrap();
    // The secret of the old file is not there.
    fs::write(path("old.yml"), file("a.test", "env:GONE")).unwrap();
    fs::write(path("wider.yml"), file("\"*.test\"", &secret)).unwrap();
    fs::write(path("broken.yml"), "destinations: { a: {} }").unwrap();
    let check = |script: &str| {
        let mut command = clean("sh");
        command
            .current_dir(folder.path())
            .env("OUTRIDER_CONFIG", "new.yml");
        let done = run(command.args(["-c", &script.replace("outrider", env!("CARGO_BIN_EXE_outrider"))]));
        assert!(!format!("{done:?}").contains("canary"), "{done:?}");
        (done.code(), done.stdout)
    };
    let (code, told) = check("cat old.yml | outrider check --against -");
    assert_eq!(code, 0, "{told}");
    assert!(told.starts_with("lets more through"), "{told}");
    assert!(
        told.contains("becomes reachable: b.test (destination a)"),
        "{told}"
    );
    assert!(
        told.contains("credential no longer goes to a.test: bearer from env:GONE"),
        "{told}"
    );
    assert_eq!(check("outrider check --against old.yml --fail-on-widening").0, 3);
    let (code, told) = check("outrider check --against wider.yml --fail-on-widening");
    assert_eq!(code, 0, "{told}");
    assert!(told.starts_with("lets less through:\n"), "{told}");
    assert_eq!(
        check("outrider check --against new.yml").1,
        "nothing changes: both files mean the same\n"
    );
    let (code, told) = check("outrider check --against - <broken.yml");
    assert_eq!(code, 1, "{told}");
    assert!(
        told.starts_with("standard input:1:20: destinations.a: `hosts` is missing"),
        "{told}"
    );
    let (code, told) = check("outrider check --against gone.yml");
    assert!(
        code == 1 && told.starts_with("gone.yml: cannot be read"),
        "{told}"
    );
    let (code, told) = check("outrider check --config broken.yml --against old.yml");
    assert!(code == 1 && told.starts_with("broken.yml:"), "{told}");
    // A reader that closes early is no failure.
    assert_eq!(check("outrider check --against old.yml | true").0, 0);
}
