//! The commands of the pages: each is run as a person types it, beside a partner on loopback. [`NOT_RUN`] lists the others.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::support::partner::destination;
use crate::support::programs::clean;
use crate::support::proxy::configuration;
use crate::support::{Nginx, Pki, ProgramOutput, Proxy, TOKEN, run};

/// Commands that are not run here, by how they begin, and the reason.
const NOT_RUN: [(&str, &str); 20] = [
    ("alias outrider=", "needs Docker"),
    ("apt-get install", "installs packages of the system"),
    ("ab ", "needs a machine of its own for half a million requests"),
    ("cargo bench", "tests/run runs each bench once"),
    ("curl --proxy", "needs a proxy on the usual port, or a gateway"),
    ("git -c http.proxy", "needs a repository elsewhere"),
    ("ssh -o", "needs a server elsewhere"),
    ("cargo build", "cargo has built the program that is run here"),
    ("cargo test", "runs these tests"),
    ("cf ", "needs a Cloud Foundry"),
    ("docker ", "needs Docker"),
    ("install -m", "changes the system"),
    ("outrider package --binary", "needs a program for another machine"),
    (
        "sidecar/release",
        "builds for half an hour; tests/release tests it",
    ),
    ("systemctl ", "needs systemd as the first process"),
    ("TMPDIR=/run outrider", "changes the system"),
    (
        "export PATH=$PWD/target/",
        "the environment of the commands has it",
    ),
    (
        "tests/fuzz/run",
        "builds everything again, and runs for as long as it is asked to",
    ),
    ("tests/ledger", "builds a release; tests/run runs it"),
    ("tests/run", "runs these tests"),
];

/// A command of a page, and what is run instead, as the program is already built.
const BUILT: [(&str, &str); 1] = [("cargo run --profile dev-release -- ", "outrider ")];

/// A command of a page.
struct Command {
    text: String,
    /// `PAGE:LINE`.
    place: String,
}

impl Command {
    /// The commands in the `sh` blocks of a page; a line that ends in `\` goes on in the next one.
    fn of_page(path: &str) -> Vec<Self> {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let mut commands: Vec<Self> = Vec::new();
        let mut language = None;
        let mut goes_on = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(fence) = line.strip_prefix("```") {
                language = if language.is_none() { Some(fence) } else { None };
            } else if language == Some("sh") && !line.is_empty() && !line.starts_with('#') {
                if goes_on {
                    let last = &mut commands.last_mut().unwrap().text;
                    last.push('\n');
                    last.push_str(line);
                } else {
                    commands.push(Self {
                        text: line.to_owned(),
                        place: format!("{path}:{}", number + 1),
                    });
                }
                goes_on = line.ends_with('\\');
            }
        }
        commands
    }

    /// The entry of [`NOT_RUN`] for this command.
    fn not_run(&self) -> Option<&'static str> {
        let mut begins = NOT_RUN.iter().map(|(begin, _)| *begin);
        let text = BUILT
            .iter()
            .fold(self.text.clone(), |text, (from, to)| text.replace(from, to));
        begins.find(|begin| text.starts_with(begin))
    }
}

/// The folder in which a reader types: the program built, an app's folder, a certificate, and a partner to call.
struct Desktop {
    folder: TempDir,
    pki: Pki,
    partner: Nginx,
    /// What the metrics are asked of.
    proxy: Proxy,
}

impl Desktop {
    /// Makes the folder; `yaml` becomes its `outrider.yml`.
    fn with(yaml: &str) -> Self {
        let pki = Pki::new();
        let partner = Nginx::demanding(&pki, true);
        let client = pki.client("app");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for made in ["certs", "my-app", "target/release"] {
            fs::create_dir_all(path.join(made)).unwrap();
        }
        symlink(
            env!("CARGO_BIN_EXE_outrider"),
            path.join("target/release/outrider"),
        )
        .unwrap();
        run(clean("cp").arg("-r").arg(root().join("sidecar")).arg(path)).succeeded();
        fs::copy(root().join("manifest.yml"), path.join("manifest.yml")).unwrap();
        for at in ["certs/partner", "partner"] {
            fs::copy(&client.cert_path, path.join(at).with_extension("crt")).unwrap();
            fs::copy(&client.key_path, path.join(at).with_extension("key")).unwrap();
        }
        let yaml = yaml.replace("partner.agency.gov", &format!("\"{}\"", partner.authority()));
        fs::write(path.join("outrider.yml"), configuration(&yaml, path)).unwrap();
        // Without outrider, too, the partner's name leads to loopback.
        let resolve = format!("resolve = \"{}:127.0.0.1\"\n", partner.authority());
        fs::write(path.join(".curlrc"), resolve).unwrap();

        let yaml = destination(&pki, &client, &partner.authority(), "");
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        let answer = proxy.get(&format!("https://{}/", partner.authority()));
        assert_eq!(answer.status, 200);
        Self {
            folder,
            pki,
            partner,
            proxy,
        }
    }

    /// Types `commands` into one shell; stops at the first one that fails.
    fn types(&self, commands: &[Command]) -> ProgramOutput {
        let mut script = "set -eu -o pipefail\n".to_owned();
        for Command { text, place } in commands {
            let text = BUILT
                .iter()
                .fold(text.clone(), |text, (from, to)| text.replace(from, to))
                .replace("partner.agency.gov", &self.partner.authority())
                .replace("127.0.0.1:9901", &self.proxy.admin().to_string());
            script.push_str(&format!("echo '@ {place}'\n{text}\n"));
        }
        let path = self.folder.path();
        let programs = std::env::var("PATH").unwrap_or_default();
        let ca = self.pki.ca();
        run(clean("bash")
            .args(["-c", &script])
            .current_dir(path)
            .env("PATH", format!("{}/target/release:{programs}", path.display()))
            .env("TMPDIR", path)
            .env("CURL_HOME", path)
            .env("CURL_CA_BUNDLE", &ca)
            .env("SSL_CERT_FILE", &ca))
    }
}

/// The first page from its top to its end: the partner refuses the bare call, and greets the one through outrider.
#[test]
fn the_commands_of_the_first_page_run() {
    let commands = runnable("README.md");
    assert!(commands.len() >= 6, "{}", commands.len());
    let desk = Desktop::with(&first_yaml("README.md"));
    let typed = desk.types(&commands);
    let (bare, through) = (typed.succeeded().stdout)
        .split_once("hello CN=app")
        .unwrap_or_else(|| panic!("{typed:#?}"));
    assert!(bare.contains("400"), "{typed:#?}");
    assert!(through.contains("outrider is in my-app"), "{typed:#?}");
}

#[test]
fn the_commands_of_the_other_pages_run() {
    let desk = Desktop::with(&first_yaml("README.md"));
    let mut count = 0;
    for page in pages().iter().filter(|page| *page != "README.md") {
        let commands = runnable(page);
        count += commands.len();
        desk.types(&commands).succeeded();
    }
    assert!(count >= 6, "{count}");
}

/// A reason that no command needs any more goes.
#[test]
fn every_reason_not_to_run_a_command_is_needed() {
    let commands: Vec<Command> = pages().iter().flat_map(|page| Command::of_page(page)).collect();
    let needed: HashSet<&str> = commands.iter().filter_map(Command::not_run).collect();
    let spare: Vec<_> = (NOT_RUN.iter())
        .filter(|(begin, _)| !needed.contains(begin))
        .collect();
    assert!(spare.is_empty(), "{spare:?}");
}

/// What the pages write for Prometheus is what it reads.
#[test]
fn prometheus_reads_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        root().join("grafana/prometheus-rules.yml"),
        folder.path().join("prometheus-rules.yml"),
    )
    .unwrap();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let blocks = text
            .split("```yaml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.starts_with("scrape_configs:")) {
            count += 1;
            let file = folder.path().join("prometheus.yml");
            fs::write(&file, block).unwrap();
            run(clean("promtool").args(["check", "config"]).arg(&file)).succeeded();
        }
    }
    assert!(count >= 2, "{count}");
}

/// The commands of a page that are run here.
fn runnable(page: &str) -> Vec<Command> {
    let mut commands = Command::of_page(page);
    commands.retain(|command| command.not_run().is_none());
    commands
}

/// The first configuration in a page.
fn first_yaml(page: &str) -> String {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let block = text
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    block.unwrap().to_owned()
}

/// Every page that may have commands.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().display()))
        .filter(|path| path.ends_with(".md"))
        .collect();
    pages.sort();
    let others = [
        "README.md",
        "grafana/README.md",
        "sidecar/README.md",
        "tests/README.md",
    ];
    pages.extend(others.map(str::to_owned));
    pages
}

/// The top of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
