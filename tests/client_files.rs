//! Clients that read a file or want one variable more: under `exec` they reach a service with mutual TLS, with no setting.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::partner::destination;
use crate::support::programs::{clean, curl, is_not_packaged, outrider, tool};
use crate::support::proxy::configuration;
use crate::support::{Nginx, Pki, ProgramOutput, Proxy, TOKEN, closed_port, run};

/// A service that demands a certificate and a token, and a configuration for it in a folder with a blank in its name.
struct Service {
    nginx: Nginx,
    folder: tempfile::TempDir,
    _pki: Pki,
}

impl Service {
    fn new() -> Self {
        let pki = Pki::new();
        let nginx = Nginx::demanding(&pki, true);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("my app")).unwrap();
        let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "");
        std::fs::write(
            folder.path().join("outrider.yml"),
            configuration(&yaml, folder.path()),
        )
        .unwrap();
        Self {
            nginx,
            folder,
            _pki: pki,
        }
    }

    fn url(&self) -> String {
        format!("https://{}/token", self.nginx.authority())
    }

    /// Runs a client under `exec`, twice over where `is_nested`.
    #[track_caller]
    fn exec(&self, client: &Command, is_nested: bool) -> ProgramOutput {
        let file = self.folder.path().join("outrider.yml");
        let mut command = outrider(["exec", "--config"]);
        command.arg(&file);
        if is_nested {
            // The inner one needs the secret itself.
            command.args(["--keep-secrets", "--"]);
            command.arg(env!("CARGO_BIN_EXE_outrider"));
            command
                .args(["exec", "--keep-secrets", "--config"])
                .arg(&file)
                .arg("--");
        } else {
            command.arg("--");
        }
        command.arg(client.get_program()).args(client.get_args());
        command
            .env("TOKEN", TOKEN)
            .env("TMPDIR", self.folder.path().join("my app"));
        for (name, value) in client.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        run(&mut command)
    }

    #[track_caller]
    fn greets(&self, client: &Command) {
        for is_nested in [false, true] {
            let done = self.exec(client, is_nested);
            assert!(
                done.stdout.contains("hello CN=app with a token"),
                "{client:?}: {done:#?}"
            );
        }
    }
}

#[test]
fn php_perl_and_wget_need_no_setting() {
    let service = Service::new();
    let url = service.url();
    let php = format!(
        "$c = curl_init('{url}'); curl_setopt($c, CURLOPT_RETURNTRANSFER, true); echo curl_exec($c), curl_error($c);"
    );
    let lwp = format!("use LWP::UserAgent; print LWP::UserAgent->new->get('{url}')->decoded_content");
    let mojo = format!("use Mojo::UserAgent; print Mojo::UserAgent->new->get('{url}')->res->body");
    for (program, arguments) in [
        ("php", vec!["-r", &php]),
        ("perl", vec!["-e", &lwp]),
        ("perl", vec!["-e", &mojo]),
        ("wget", vec!["-qO-", "-t1", &url]),
    ] {
        if !is_not_packaged(program) {
            service.greets(clean(program).args(arguments));
        }
    }
    if !is_not_packaged("php") {
        // Settings of the app stay, and so do the extensions that are built in.
        let own = service.folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("own.ini"), "memory_limit = 77M\n").unwrap();
        let mut client = clean("php");
        client.env("PHP_INI_SCAN_DIR", format!(":{}", own.display()));
        service.greets(client.args(["-r", &format!("echo ini_get('memory_limit'); {php}")]));
        let told = service.exec(&client, false).stdout;
        assert!(told.starts_with("77M"), "{told}");
    }
}

/// The versions of Node that are in use. The first has no proxy of any kind.
fn nodes() -> Vec<(u32, PathBuf)> {
    let mut found = vec![(24, tool("node_modules/node/bin/node"))];
    for version in [20, 22, 26] {
        found.push((
            version,
            tool(&format!("nodes/node_modules/node{version}/bin/node")),
        ));
    }
    found
}

/// What SDKs do: an agent for themselves, in several ways. `exit` ends with what the answers were.
const AGENTS: &str = r#"
const http = require('node:http'), https = require('node:https'), util = require('node:util');
class Derived extends https.Agent { constructor() { super({ keepAlive: true }) } }
function Older() { https.Agent.call(this, { keepAlive: true }) }
util.inherits(Older, https.Agent);
const ask = (agent) => new Promise((resolve) => {
  const sent = https.get(process.argv[1], { agent }, (answer) => {
    let text = ''; answer.on('data', (part) => text += part).on('end', () => resolve(text));
  });
  sent.on('error', (error) => resolve(error.code));
});
(async () => {
  const { Agent } = await import('node:https');
  const agents = [new https.Agent({ keepAlive: true }), https.Agent({}), new Derived(), new Older(), new Agent(), false];
  const answers = await Promise.all(agents.map(ask));
  const kinds = [agents[2] instanceof https.Agent, agents[0] instanceof http.Agent, https.globalAgent instanceof https.Agent];
  console.log(JSON.stringify({ answers, kinds, options: process.execArgv }));
  process.exit();
})();
"#;

#[test]
fn agents_that_a_library_of_node_creates_use_the_proxy() {
    let service = Service::new();
    for (version, node) in nodes() {
        let mut client = clean(node);
        client.args(["-e", AGENTS, &service.url()]);
        client.env("NODE_OPTIONS", "--max-old-space-size=200 --title=\"my app\"");
        for is_nested in [false, true] {
            let done = service.exec(&client, is_nested);
            let told: serde_json::Value = serde_json::from_str(&done.stdout)
                .unwrap_or_else(|error| panic!("{version} {error}: {done:#?}"));
            let wanted = if version == 20 {
                "ENOTFOUND"
            } else {
                "hello CN=app with a token"
            };
            for answer in told["answers"].as_array().unwrap() {
                let answer = answer.as_str().unwrap();
                assert!(answer.starts_with(wanted), "{version}: {told}");
            }
            assert_eq!(told["kinds"], serde_json::json!([true, true, true]), "{version}");
        }
    }
}

/// Under its permission model Node may not read a file of ours, and starts all the same.
#[test]
fn node_with_permissions_starts_and_uses_the_proxy() {
    let service = Service::new();
    for (version, node) in nodes() {
        let mut client = clean(node);
        client.arg(match version {
            20 => "--experimental-permission",
            _ => "--permission",
        });
        if version >= 26 {
            client.arg("--allow-net");
        }
        client.args(["-e", AGENTS, &service.url()]);
        let done = service.exec(&client, false);
        let told: serde_json::Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{version} {error}: {done:#?}"));
        let wanted = if version == 20 {
            "ENOTFOUND"
        } else {
            "hello CN=app with a token"
        };
        for answer in told["answers"].as_array().unwrap() {
            assert!(answer.as_str().unwrap().starts_with(wanted), "{version}: {told}");
        }
    }
}

/// An agent that opens connections by itself, as one for another proxy does, gets its requests as they are.
#[test]
fn agents_with_a_way_of_their_own_are_left_alone() {
    const OWN: &str = r#"
        const http = require('http'), net = require('net');
        const server = http.createServer((request, answer) => answer.end(request.url)).listen(0, '127.0.0.1', () => {
          class Own extends http.Agent {
            createConnection(options, done) { return net.connect(server.address().port, '127.0.0.1') }
          }
          http.get('http://service.test/path', { agent: new Own() }, (answer) => {
            answer.on('data', (part) => process.stdout.write(part)).on('end', () => process.exit());
          });
        });"#;
    let service = Service::new();
    for (version, node) in nodes() {
        let done = service.exec(clean(node).args(["-e", OWN]), false);
        assert_eq!(done.stdout, "/path", "{version}: {done:#?}");
    }
}

/// Node does not start where a module of NODE_OPTIONS is missing, so `env` never names one that is not there.
#[test]
fn env_writes_what_it_names_and_names_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let env = |bundle: &Path| {
        let file = folder.path().join("outrider.yml");
        let text = format!(
            "ca: {{ bundle: \"{}\", truststore: \"{}\" }}",
            bundle.display(),
            bundle.with_extension("p12").display()
        );
        std::fs::write(&file, text).unwrap();
        let done = run(outrider(["env", "--format", "json", "--config"]).arg(&file));
        let variables: serde_json::Value = serde_json::from_str(&done.succeeded().stdout).unwrap();
        (variables, done.stderr)
    };
    let (variables, told) = env(&folder.path().join("run/bundle.pem"));
    assert_eq!(told, "");
    let path = |name: &str| PathBuf::from(variables[name].as_str().unwrap().trim_start_matches(['-', ':']));
    assert!(path("SYSTEM_WGETRC").is_file());
    assert!(path("PHP_INI_SCAN_DIR").join("outrider.ini").is_file());
    let options = variables["NODE_OPTIONS"].as_str().unwrap();
    assert!(Path::new(options.strip_prefix("--require ").unwrap()).is_file());

    let (variables, told) = env(&folder.path().join("it's/bundle.pem"));
    for name in ["SYSTEM_WGETRC", "PHP_INI_SCAN_DIR", "NODE_OPTIONS"] {
        assert!(variables.get(name).is_none(), "{name}");
    }
    assert!(told.contains("name another place in ca.bundle"), "{told}");
}

/// What `exec --check` says is found out by running the runtime, and the program itself is not run.
#[test]
fn exec_check_says_whether_requests_of_the_runtime_arrive_and_trust_us() {
    const ARRIVED: &str = "request    arrived at the proxy";
    const TRUSTED: &str = "trust      trusts outrider's certificate";
    let service = Service::new();
    let checked = |program: &Path, more: &[&str], trust: Option<&str>| {
        let mut command = outrider(["exec", "--check", "--config"]);
        command.arg(service.folder.path().join("outrider.yml")).args(more);
        command.env("TMPDIR", service.folder.path()).env("TOKEN", TOKEN);
        command.env("HOME", service.folder.path());
        if let Some(name) = trust {
            command.env(name, "1");
        }
        run(command.arg("--").arg(program).arg("no-such-file"))
    };
    let check = |program: &Path, more: &[&str]| checked(program, more, None);
    let clients = |name: &str| tool(&format!("clients/node_modules/.bin/{name}"));
    for (program, name) in [
        (tool("venv/bin/python"), "Python"),
        (clients("bun"), "Bun"),
        (clients("deno"), "Deno"),
        ("curl".into(), "curl"),
        ("git".into(), "git"),
        ("go".into(), "Go"),
        ("perl".into(), "Perl"),
        ("php".into(), "PHP"),
        ("Rscript".into(), "R"),
        ("ruby".into(), "Ruby"),
        ("wget".into(), "wget"),
    ] {
        if is_not_packaged(&program.to_string_lossy()) {
            continue;
        }
        let done = check(&program, &[]);
        for part in [&format!("runtime    {name}"), ARRIVED, TRUSTED] {
            assert!(done.stdout.contains(part), "{name}: {part}: {done:#?}");
        }
        assert_eq!(done.code(), 0, "{name}: {done:#?}");
    }
    for (version, node) in nodes() {
        let done = check(&node, &[]);
        assert!(
            done.stdout.contains(&format!("version    v{version}.")),
            "{done:?}"
        );
        assert_eq!(done.code(), i32::from(version == 20), "{done:?}");
        assert_eq!(
            done.stdout.matches("did NOT arrive").count(),
            if version == 20 { 2 } else { 0 },
            "{done:?}"
        );
    }
    if !is_not_packaged("javac") {
        let done = check(Path::new("java"), &[]);
        assert_eq!(
            (done.code(), done.stdout.matches("--no-password").count()),
            (1, 3),
            "{done:#?}"
        );
        let done = check(Path::new("java"), &["--no-password"]);
        assert!(
            done.succeeded().stdout.contains(ARRIVED) && done.stdout.contains(TRUSTED),
            "{done:#?}"
        );
    }
    // A client that asks, and does not trust.
    std::fs::write(service.folder.path().join(".curlrc"), "cacert = /etc/hostname\n").unwrap();
    let done = check(Path::new("curl"), &[]);
    assert!(done.stdout.contains(ARRIVED), "{done:#?}");
    assert!(
        done.stdout
            .contains("trust      did NOT arrive over TLS that ends here: curl: ("),
        "{done:#?}"
    );
    assert_eq!(done.code(), 1);
    let own = service.folder.path().join("own");
    std::fs::write(&own, "#!/bin/sh\ntouch \"$0.ran\"\n").unwrap();
    assert!(check(&own, &[]).succeeded().stdout.contains("so it is not run"));
    assert!(!own.with_extension("ran").exists());
    assert_eq!(check(Path::new("no-such-program-anywhere"), &[]).code(), 127);
}

/// Some clients show nothing of a refusal, and the user asks `exec --check` then.
#[test]
fn exec_check_shows_the_last_refusals_of_the_outrider_that_runs() {
    let proxy = Proxy::start_with("", &[]);
    run(&mut curl([
        "-s",
        "-x",
        &format!("http://{}", proxy.address()),
        "https://elsewhere.test/",
    ]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let told = |admin: &str| {
        std::fs::write(&file, format!("admin: {admin}\n")).unwrap();
        let mut command = outrider(["exec", "--check", "--config"]);
        command.arg(&file).env("TMPDIR", folder.path());
        run(command.args(["--", "curl"])).stdout
    };
    let here = told(&proxy.admin().to_string());
    assert!(
        here.contains("CONNECT elsewhere.test 403 elsewhere.test:443 is named by no destination"),
        "{here}"
    );
    assert!(told(&format!("127.0.0.1:{}", closed_port())).contains("refusals   not known"));
    assert!(!told("false").contains("refusals"));
}
