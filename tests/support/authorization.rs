//! A real authorization server, known as `login.test`, and a resource server that takes its tokens, as `api.test`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use super::pki::server_params;
use super::programs::{ServerProcess, clean, run, tool};
use super::{CANARY, Identity, Pki, Proxy, Wire};

/// Both servers, in one process; it ends with the test.
pub(crate) struct AuthorizationServer {
    _server: ServerProcess,
    control: u16,
    pub(crate) api: u16,
    pub(crate) client: Identity,
    pub(crate) login: u16,
    pub(crate) pki: Pki,
    /// It can be used once.
    pub(crate) refresh_token: String,
    keys: Vec<(&'static str, String)>,
}

/// What the servers have received.
#[derive(Debug)]
pub(crate) struct AuthorizationLog {
    /// The times of token requests, in seconds.
    pub(crate) requests: Vec<f64>,
    /// The status codes of the resource server.
    pub(crate) api: Vec<u64>,
    /// The number of token requests without an answer.
    pub(crate) held: u64,
    pub(crate) tokens: Vec<String>,
}

/// The secret of the client, with characters that a form and a header must encode.
pub(crate) const SECRET: &str = "canary-2f6b-s/+ :%&=~";
pub(crate) const SUBJECT: &str = "canary-2f6b-subject.token";
const TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

impl AuthorizationServer {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let pki = Pki::new();
        let client = pki.client("app");
        let login = pki.issue("login", server_params(&["login.test", "api.test"]));
        let keys: Vec<_> = ALGORITHMS
            .iter()
            .map(|(name, how)| (*name, generate(how)))
            .collect();
        let public = keys
            .iter()
            .map(|(name, key)| ((*name).to_owned(), public(key).into()));
        let public: serde_json::Map<_, _> = public.collect();
        let packages = tool("node_modules/oidc-provider");
        let given = serde_json::json!({
            "ca": pki.ca(), "cert": login.cert_path, "key": login.key_path, "keys": public,
            "packages": packages.ancestors().nth(2), "secret": SECRET, "subject": SUBJECT, "type": TYPE,
        });
        let child = (clean(tool("node_modules/node/bin/node"))
            .args(["--no-warnings", "tests/support/authorization.mjs"])
            .arg(given.to_string())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()))
        .spawn()
        .unwrap();
        let mut server = ServerProcess(child);
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
        let ready: serde_json::Value = serde_json::from_str(&ready.expect("it ended at once")).unwrap();
        // Later output must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        let port = |name: &str| u16::try_from(ready[name].as_u64().unwrap()).unwrap();
        Self {
            _server: server,
            control: port("control"),
            api: port("api"),
            client,
            login: port("port"),
            pki,
            refresh_token: ready["refresh"].as_str().unwrap().to_owned(),
            keys,
        }
    }

    /// Returns a configuration with the destination `api`, with this under `oauth2` beside `token_url`; `more` are
    /// more keys.
    pub(crate) fn yaml(&self, oauth2: &str, more: &str) -> String {
        let token_url = format!("https://login.test:{}/token", self.login);
        self.yaml_of(
            &format!("oauth2: {{ token_url: \"{token_url}\", {oauth2} }}"),
            more,
        )
    }

    /// Returns the same configuration with this under `auth`.
    pub(crate) fn yaml_of(&self, auth: &str, more: &str) -> String {
        format!(
            "destinations: {{ api: {{ hosts: [\"api.test:{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ {auth} }}, {more} }} }}\n\
             dns: {{ hosts: {{ login.test: 127.0.0.1, api.test: 127.0.0.1 }} }}",
            self.api,
            self.pki.ca().display(),
        )
    }

    /// Starts a proxy on [`yaml`](Self::yaml), with every secret of the client in its environment.
    #[track_caller]
    pub(crate) fn proxy(&self, oauth2: &str) -> Proxy {
        self.start(&self.yaml(oauth2, ""))
    }

    #[track_caller]
    pub(crate) fn start(&self, yaml: &str) -> Proxy {
        let mut variables = vec![
            ("SECRET", SECRET),
            ("SUBJECT", SUBJECT),
            ("REFRESH", &self.refresh_token),
            ("WRONG", "canary-2f6b-wrong"),
        ];
        variables.extend(self.keys.iter().map(|(name, key)| (*name, key.as_str())));
        Proxy::start_with(yaml, &variables)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://api.test:{}{path}", self.api)
    }

    /// Sets the answer to token requests: `ok`, `busy`, `echo`, `hold`, `redirect` or `reset`.
    pub(crate) fn mode(&self, mode: &str) {
        self.steer(&format!("/mode?value={mode}"));
    }

    /// Sets the lifetime of new tokens, in seconds.
    pub(crate) fn lifetime(&self, seconds: u32) {
        self.steer(&format!("/lifetime?value={seconds}"));
    }

    /// Revokes all tokens that were used so far.
    pub(crate) fn revoke(&self) {
        self.steer("/revoke");
    }

    /// Closes the port of the token endpoint.
    pub(crate) fn close(&self) {
        self.steer("/close");
    }

    pub(crate) fn open(&self) {
        self.steer("/open");
    }

    pub(crate) fn seen(&self) -> AuthorizationLog {
        let state = self.steer("/state");
        let list = |name: &str| state[name].as_array().unwrap().clone();
        AuthorizationLog {
            requests: list("requests")
                .iter()
                .map(|at| at.as_f64().unwrap() / 1000.0)
                .collect(),
            api: list("api")
                .iter()
                .map(|status| status.as_u64().unwrap())
                .collect(),
            held: state["held"].as_u64().unwrap(),
            tokens: list("tokens")
                .iter()
                .map(|token| token.as_str().unwrap().to_owned())
                .collect(),
        }
    }

    /// Asserts that the program has written no token and no key.
    #[track_caller]
    pub(crate) fn assert_quiet(&self, proxy: &Proxy) {
        let written = proxy.log() + &proxy.page("/metrics").text();
        assert!(!written.contains(CANARY), "{written}");
        for token in self.seen().tokens.iter().chain([&self.refresh_token]) {
            assert!(!written.contains(token.as_str()), "a token in\n{written}");
        }
        assert!(!written.contains("BEGIN"), "a key in\n{written}");
        // Assertions: the first bytes of every compact JWT.
        assert!(!written.contains("eyJ"), "an assertion in\n{written}");
    }

    fn steer(&self, path: &str) -> serde_json::Value {
        let address = format!("127.0.0.1:{}", self.control);
        let answer = Wire::connect(address.parse().unwrap()).ask(format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.text()).unwrap()
    }
}

fn generate(how: &[&str]) -> String {
    let made = run(Command::new("openssl").arg("genpkey").args(how));
    made.succeeded();
    made.stdout
}

fn public(key: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key).unwrap();
    let read = run(Command::new("openssl")
        .args(["pkey", "-pubout", "-in"])
        .arg(file.path()));
    read.succeeded();
    read.stdout
}

const ALGORITHMS: [(&str, &[&str]); 10] = [
    ("RS256", &["-algorithm", "RSA"]),
    ("RS384", &["-algorithm", "RSA"]),
    ("RS512", &["-algorithm", "RSA"]),
    ("PS256", &["-algorithm", "RSA"]),
    ("PS384", &["-algorithm", "RSA"]),
    ("PS512", &["-algorithm", "RSA"]),
    (
        "ES512",
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    ),
    (
        "ES256",
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    ),
    (
        "ES384",
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    ),
    ("EdDSA", &["-algorithm", "ED25519"]),
];
