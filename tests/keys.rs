//! Keys, certificates and stores as common tools write them: each is accepted, or refused with the command that
//! makes something of it that is taken. Every such command is run here, and what it writes is taken.
//!
//! What is written is in `keys/tools.txt`; the table in `docs/keys.md` is what comes out. `OUTRIDER_WRITE_DOCS=1`
//! writes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use tempfile::TempDir;

use crate::support::programs::{clean, outrider, skipped, tool, wait};
use crate::support::{CANARY, PATIENCE, run};

/// The password of everything; no message may show it.
const PASSWORD: &str = "canary-2f6b-sesame";

/// One file that a tool writes.
struct KeyFile {
    tool: &'static str,
    what: &'static str,
    /// Its place in the configuration.
    place: &'static str,
    outcome: Outcome,
    /// In a shell.
    make: &'static str,
}

enum Outcome {
    Taken,
    /// The message contains a command: the input for its prompt, and the place of the file that it makes.
    Corrected(&'static str, &'static str),
}

impl KeyFile {
    fn all() -> Vec<Self> {
        let rows = include_str!("keys/tools.txt").split("\n== ").skip(1);
        rows.map(Self::read).collect()
    }

    fn read(text: &'static str) -> Self {
        let (head, make) = text.split_once('\n').unwrap();
        let [tool, what, place, outcome] = head.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{head}");
        };
        let outcome = match outcome.strip_prefix("mended ") {
            Some(mended) => {
                let (typed, place) = mended.split_once(": ").unwrap();
                Outcome::Corrected(typed, place)
            }
            None if outcome == "taken" => Outcome::Taken,
            None => panic!("{outcome}"),
        };
        Self {
            tool,
            what,
            place,
            outcome,
            make,
        }
    }

    /// Makes the file, and returns the line of the table that says what became of it.
    fn line(&self) -> String {
        let Self { tool, what, .. } = self;
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        fs::write(path.join("tools.sh"), include_str!("keys/tools.sh")).unwrap();
        let made = try_shell(path, &format!(". ./tools.sh\n{}", self.make), "");
        // certtool of Debian 13 ends so where it is to use no password.
        let has_crashed = made
            .as_ref()
            .is_err_and(|output| output.contains("Segmentation fault"));
        if has_crashed && matches!(self.outcome, Outcome::Taken) {
            skipped(&format!("{tool} of this Debian crashes when it makes {what}"));
            return format!("| {tool} | {what} | taken |");
        }
        made.unwrap_or_else(|output| panic!("{output}"));
        let told = problem(path, self.place);
        let became = match (&self.outcome, told) {
            (Outcome::Taken, None) => "taken".to_owned(),
            (Outcome::Corrected(typed, place), Some(told)) => {
                correct(path, &told, typed, place);
                told
            }
            (_, told) => panic!("{tool}, {what}: {told:?}"),
        };
        format!("| {tool} | {what} | {} |", became.replace('|', "\\|"))
    }
}

#[test]
fn what_tools_write_is_accepted_or_refused_with_a_remedy() {
    let mut by_tool: BTreeMap<&str, Vec<KeyFile>> = BTreeMap::new();
    for row in KeyFile::all() {
        by_tool.entry(row.tool).or_default().push(row);
    }
    by_tool.retain(|tool, _| {
        let is_here = is_here(tool);
        if !is_here {
            skipped(&format!(
                "{tool} is not here, so nothing that it writes was tried"
            ));
        }
        is_here
    });
    let lines: Vec<String> = thread::scope(|scope| {
        let lines = |rows: &[KeyFile]| rows.iter().map(KeyFile::line).collect::<Vec<_>>();
        let tools: Vec<_> = by_tool
            .values()
            .map(|rows| scope.spawn(move || lines(rows)))
            .collect();
        tools.into_iter().flat_map(|tool| tool.join().unwrap()).collect()
    });
    compare_or_write(&lines);
}

/// Returns whether a tool is installed. Tools that `tests/run` installs must be.
fn is_here(name: &str) -> bool {
    let runs = |program: &str, argument: &str| {
        let command = clean(program)
            .arg(argument)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        command.is_ok_and(|status| status.success())
    };
    match name {
        "keytool" => runs("keytool", "-help"),
        "Botan" => runs("botan", "version"),
        _ => true,
    }
}

/// Runs the command in the message, and checks the file that it makes.
#[track_caller]
fn correct(folder: &Path, message: &str, typed: &str, place: &str) {
    let is_command = |part: &&str| part.contains(" -") && !part.starts_with('-');
    let command = message.split('`').skip(1).step_by(2).find(is_command);
    let password = format!("{PASSWORD}\n");
    let lines = match typed {
        "passwords" => password.repeat(4),
        // A new passphrase, and once more.
        "off" => format!("{password}\n\n"),
        "names" => format!("{}{}", password.repeat(2), "\n".repeat(9)),
        "nothing" => "\n\n".to_owned(),
        other => panic!("{other}"),
    };
    shell(folder, command.unwrap_or_else(|| panic!("{message}")), &lines);
    if typed == "names" {
        // What an authority does.
        let issue =
            "openssl x509 -req -in REQUEST.pem -signkey KEY.pem -passin env:PASSWORD -days 30 -out CERT.pem";
        shell(folder, issue, "");
    }
    let told = problem(folder, place);
    assert_eq!(told, None, "after {command:?}");
}

/// Runs a script that has no terminal, so that it asks for passwords on its standard input.
#[track_caller]
fn shell(folder: &Path, script: &str, typed: &str) {
    try_shell(folder, script, typed).unwrap_or_else(|output| panic!("{output}"));
}

/// Returns script and output where it fails.
fn try_shell(folder: &Path, script: &str, typed: &str) -> Result<(), String> {
    let mut command = clean("setsid");
    command.args(["--wait", "sh", "-ec", script]);
    let output = fs::File::create(folder.join("output")).unwrap();
    let mut child = command
        .current_dir(folder)
        .env("PASSWORD", PASSWORD)
        .env("PYTHON", tool("venv/bin/python"))
        .env("NODE", tool("node_modules/node/bin/node"))
        .env("NODE_PATH", tool("node_modules"))
        .env("HOME", folder)
        .env("GNUPGHOME", folder)
        .stdin(Stdio::piped())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    // What asks for nothing does not read it.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let status = wait(&mut child, 3 * PATIENCE);
    let output = String::from_utf8_lossy(&fs::read(folder.join("output")).unwrap()).into_owned();
    if status.is_some_and(|status| status.success()) {
        Ok(())
    } else {
        Err(format!("{script}\n{output}"))
    }
}

/// Returns what `outrider check` reports about the file at this place; `None` if nothing is wrong.
fn problem(folder: &Path, place: &str) -> Option<String> {
    let mut parts = place.split(' ');
    let kind = parts.next().unwrap();
    let files: Vec<_> = parts.map(|file| format!("\"file:{file}\"")).collect();
    let certificate = |keys: &str| format!("tls: {{ client_certificate: {{ {keys} }} }}");
    let setting = match (kind, &files[..]) {
        ("pair", [cert, key]) => certificate(&format!("cert: {cert}, key: {key}")),
        ("locked", [cert, key]) => {
            certificate(&format!("cert: {cert}, key: {key}, passphrase: env:PASSWORD"))
        }
        ("pkcs12", [file]) => certificate(&format!("pkcs12: {file}, password: env:PASSWORD")),
        ("open", [file]) => certificate(&format!("pkcs12: {file}")),
        ("ca", [file]) => format!("tls: {{ ca: {file} }}"),
        ("signing", [file]) => {
            format!("auth: {{ jwt: {{ key: {file}, algorithm: RS256, claims: {{ iss: app }} }} }}")
        }
        _ => panic!("{place}"),
    };
    let yaml = format!("destinations: {{ partner: {{ hosts: [api.partner.test], {setting} }} }}\n");
    fs::write(folder.join("outrider.yml"), yaml).unwrap();
    let check = run(outrider(["check"]).current_dir(folder).env("PASSWORD", PASSWORD));
    let said = format!("{}{}", check.stdout, check.stderr);
    assert!(!said.contains(CANARY), "{said}");
    let problem = |line: &str| {
        Some(
            line.split_once("destinations.partner")?
                .1
                .split_once(": ")?
                .1
                .to_owned(),
        )
    };
    let first = check.stdout.lines().find_map(problem);
    assert_eq!(first.is_none(), check.code() == 0, "{said}");
    first
}

/// Writes the table where `OUTRIDER_WRITE_DOCS` is set; fails where the document has another. The lines of
/// tools that are not here stay as they are.
fn compare_or_write(lines: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keys.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN_MARK).unwrap();
    let (old, after) = rest.split_once(END_MARK).unwrap();
    let tool = |line: &str| line.split(" | ").next().unwrap_or_default().to_owned();
    let tried: Vec<_> = lines.iter().map(|line| tool(line)).collect();
    let is_kept =
        |line: &&str| line.starts_with("| ") && !tried.contains(&tool(line)) && !HEAD.contains(line);
    let mut new: Vec<_> = old.lines().filter(is_kept).map(str::to_owned).collect();
    new.extend(lines.iter().cloned());
    // Those of a tool stay in the order in which they are written down.
    new.sort_by_key(|line| tool(line));
    let table = format!("\n{HEAD}{}\n", new.join("\n"));
    if old == table {
        return;
    }
    assert!(
        std::env::var_os("OUTRIDER_WRITE_DOCS").is_some(),
        "docs/keys.md has another table; OUTRIDER_WRITE_DOCS=1 writes this one:\n{table}"
    );
    fs::write(&path, format!("{before}{BEGIN_MARK}{table}{END_MARK}{after}")).unwrap();
}

const HEAD: &str = "| tool | what it writes | outrider |\n| --- | --- | --- |\n";
const BEGIN_MARK: &str = "<!-- begin: keys -->";
const END_MARK: &str = "<!-- end: keys -->";
