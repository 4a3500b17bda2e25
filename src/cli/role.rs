//! `outrider role`: whether a start command brings the proxy, for the profile script of `sidecar/`.
//!
//! The platform runs the profile script for the app and for the sidecar, and tells it only the start command. The
//! sidecar must not wait for itself, and needs its secrets. So the command is read as a shell would read it, and so are
//! the shell scripts that it names. What cannot be found so (a program of another language that starts outrider) is
//! told by `OUTRIDER_ROLE=sidecar` in front of the command. Nothing is executed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::print;

mod words;

/// Scripts that name scripts are followed so far, and so many of them.
const DEPTH: usize = 4;
const SCRIPTS: usize = 16;
/// A longer file is no script that starts a sidecar.
const LARGEST: u64 = 64 * 1024;
/// In bytes; a whole start command has half of that at most.
const LONGEST_WORD: usize = 8 * 1024;

/// Says what a command is that cannot be read.
const VARIABLE: &str = "OUTRIDER_ROLE";

/// Words after which a command still begins.
const PREFIXES: &[&str] = &[
    "!", "{", "do", "elif", "else", "exec", "export", "if", "then", "time", "until", "while",
];

/// Commands whose words are text.
const SILENT: &[&str] = &[":", "[", "[[", "cat", "echo", "grep", "printf", "test"];

const SHELLS: &[&str] = &["ash", "bash", "dash", "ksh", "sh", "zsh"];

const PLATFORMS: &[&str] = &["aarch64", "amd64", "arm64", "linux", "musl", "x86_64"];

/// Tell whether a start command runs the proxy: prints `sidecar`, `exec` or `app`
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {
    /// The start command, as one text
    #[arg(allow_hyphen_values = true)]
    command: String,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let role = StartCommand::default().of_text(&args.command, DEPTH);
    print(match role {
        Role::App => "app\n",
        Role::Exec => "exec\n",
        Role::Sidecar => "sidecar\n",
    })
}

/// What a command is, the stronger one last: one that runs the proxy may do other things, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    App,
    Exec,
    Sidecar,
}

/// A command that is read, with all that it names.
#[derive(Debug, Default)]
struct StartCommand {
    /// Scripts that were read, each once.
    scripts: Vec<PathBuf>,
    /// Scripts that the command itself writes before it runs them: file and text.
    written: HashMap<String, String>,
    /// What the command sets, beside the variables of this process.
    variables: HashMap<String, String>,
}

impl StartCommand {
    fn of_text(&mut self, text: &str, depth: usize) -> Role {
        let mut role = Role::App;
        for command in words::commands(text) {
            role = role.max(self.of_command(&command, depth));
        }
        role
    }

    fn of_command(&mut self, command: &words::ShellCommand, depth: usize) -> Role {
        let words: Vec<String> = command.words.iter().map(|word| self.expanded(word)).collect();
        let mut role = Role::App;
        if !command.input.is_empty() {
            let is_run = words.iter().any(|word| is_shell(word));
            match (depth.checked_sub(1), output(&words)) {
                (Some(depth), _) if is_run => role = self.of_text(&command.input, depth),
                (_, Some(file)) => drop(self.written.insert(file.to_owned(), command.input.clone())),
                (_, None) => {}
            }
        }
        let mut before_program = true;
        let mut program = "";
        for (i, word) in words.iter().enumerate() {
            let mut is_program = false;
            if before_program {
                if let Some((name, value)) = word.split_once('=')
                    && is_name(name)
                {
                    if name == VARIABLE && value == "sidecar" {
                        return Role::Sidecar;
                    }
                    self.variables.insert(name.to_owned(), value.to_owned());
                    continue;
                }
                before_program = PREFIXES.contains(&word.as_str());
                is_program = !before_program;
                if is_program {
                    program = word;
                    if SILENT.contains(&word.as_str()) {
                        return Role::App;
                    }
                }
            }
            if word == &format!("{VARIABLE}=sidecar") {
                return Role::Sidecar;
            }
            role = role.max(match words.get(i + 1).map(String::as_str) {
                Some("run") if is_outrider(word) => Role::Sidecar,
                Some("exec") if is_outrider(word) => return role.max(Role::Exec),
                _ => Role::App,
            });
            let before = i.checked_sub(1).map_or("", |before| words[before].as_str());
            let is_command_text =
                is_shell_option(before) || program == "eval" || before == "<<<" && is_shell(program);
            if let Some(depth) = depth.checked_sub(1) {
                let is_run = is_program || i > 0 && reads_script(&words[i - 1]);
                role = role.max(if is_command_text {
                    self.of_text(word, depth)
                } else {
                    self.of_script(word, is_run, depth)
                });
            }
        }
        role
    }

    /// Reads the file that a word names, if it is a shell script.
    fn of_script(&mut self, word: &str, is_sourced: bool, depth: usize) -> Role {
        // Taken out, so that one that runs itself is read once.
        if let Some(text) = self.written.remove(word) {
            return self.of_text(&text, depth);
        }
        let Some(path) = found(word) else {
            return Role::App;
        };
        if self.scripts.len() >= SCRIPTS || self.scripts.contains(&path) {
            return Role::App;
        }
        let Some(text) = script(&path, is_sourced) else {
            return Role::App;
        };
        self.scripts.push(path);
        self.of_text(&text, depth)
    }

    /// Puts values in place of variables. One that is not known stays as it is.
    fn expanded(&self, word: &words::ShellWord) -> String {
        let value = |name: &str| {
            let own = self.variables.get(name).cloned();
            own.or_else(|| std::env::var(name).ok())
                .filter(|value| !value.is_empty())
        };
        word.with(LONGEST_WORD, value)
    }
}

/// Whether a word names this program: by its usual names, with a version or a platform after it, or by its file.
fn is_outrider(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or_default();
    if let Some(rest) = name.strip_prefix("outrider") {
        let rest = rest.trim_start_matches(['-', '_', '.']);
        let is_version = rest
            .trim_start_matches('v')
            .starts_with(|c: char| c.is_ascii_digit());
        return rest.is_empty() || is_version || PLATFORMS.iter().any(|word| rest.starts_with(word));
    }
    let own = std::env::current_exe().and_then(fs::canonicalize).ok();
    own.is_some() && found(word).and_then(|path| fs::canonicalize(path).ok()) == own
}

/// Finds the file of a word, on the PATH if it has no folder.
fn found(word: &str) -> Option<PathBuf> {
    if word.is_empty() || word.starts_with('-') || word.len() > 4096 {
        return None;
    }
    let here = Path::new(word);
    if word.contains('/') || here.is_file() {
        return here.is_file().then(|| here.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(word))
        .find(|path| path.is_file())
}

/// Reads a shell script. One that a shell is given needs no first line to tell what it is.
fn script(path: &Path, is_sourced: bool) -> Option<String> {
    // A pipe would be waited for: `found` took files only.
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(LARGEST + 1)
        .read_to_end(&mut text)
        .ok()?;
    let text = String::from_utf8(text)
        .ok()
        .filter(|text| text.len() as u64 <= LARGEST)?;
    let first = text.lines().next().unwrap_or_default();
    let is_for_shell =
        first.starts_with("#!") && first.split(['/', ' ', '\t']).any(|word| SHELLS.contains(&word));
    (is_for_shell || (is_sourced && !first.starts_with("#!"))).then_some(text)
}

/// Whether what follows is the text of a command: `-c`, also among other letters.
fn is_shell_option(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

/// Whether what follows is read by a shell.
fn reads_script(word: &str) -> bool {
    is_shell(word) || matches!(word, "source" | ".")
}

fn is_shell(word: &str) -> bool {
    SHELLS.contains(&word.rsplit('/').next().unwrap_or_default())
}

/// Returns the file into which a command writes: after `>`, or of `tee`.
fn output(words: &[String]) -> Option<&str> {
    words.iter().enumerate().find_map(|(i, word)| {
        let next = || words.get(i + 1).map(String::as_str);
        match word
            .strip_prefix('>')
            .map(|file| file.trim_start_matches(['>', '|']))
        {
            Some("") => next(),
            Some(file) => Some(file),
            None if word == "tee" => next(),
            None => None,
        }
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_however_it_is_wrapped() {
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let start = script(
            "start.sh",
            "#!/usr/bin/env bash\nset -e\nexec ./outrider run --config x.yml\n",
        );
        let nested = script("nested.sh", &format!("#!/bin/sh\n# runs it\n. {start}\n"));
        let variable = script(
            "variable",
            "#!/bin/bash\nbin=\"$HOME\"/outrider\nexec \"$bin\" run\n",
        );
        let plain = script("plain.txt", "outrider run\n");
        let python = script("app.py", "#!/usr/bin/env python3\noutrider run\n");
        let circle = folder.path().join("circle").display().to_string();
        script("circle", &format!("#!/bin/sh\n{circle}\n"));
        let link = folder.path().join("proxy");
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &link).unwrap();
        let link = link.display();

        let cases = [
            (Role::Sidecar, "exec ./outrider run".to_owned()),
            (Role::Sidecar, "./outrider-0.1.0 run".to_owned()),
            (
                Role::Sidecar,
                "exec $HOME/bin/outrider_linux_amd64 run".to_owned(),
            ),
            (Role::Sidecar, "./outrider run; echo ended".to_owned()),
            (Role::Sidecar, "./outrider run& wait".to_owned()),
            (
                Role::Sidecar,
                "exec $DEPS_DIR/0/bin/outrider run --config x".to_owned(),
            ),
            (Role::Sidecar, "\"./outrider\" 'run'".to_owned()),
            (Role::Sidecar, "./out\\\nrider \\\n run".to_owned()),
            (
                Role::Sidecar,
                "RUST_LOG=info exec env A=b timeout 9 ./outrider run".to_owned(),
            ),
            (
                Role::Sidecar,
                "while true; do ./outrider run; sleep 1; done".to_owned(),
            ),
            (Role::Sidecar, "bash -lc 'exec ./outrider run'".to_owned()),
            (Role::Sidecar, "sh -c \"sh -c 'exec outrider run'\"".to_owned()),
            (Role::Sidecar, "eval 'exec outrider run'".to_owned()),
            (Role::Sidecar, "cd /x && (outrider run)".to_owned()),
            (
                Role::Sidecar,
                "OUTRIDER=./outrider; exec $OUTRIDER run".to_owned(),
            ),
            (Role::Sidecar, "exec ${OUTRIDER_PLACE:-./outrider} run".to_owned()),
            (Role::Sidecar, format!("exec {start}")),
            (Role::Sidecar, format!("bash {nested}")),
            (Role::Sidecar, variable),
            (Role::Sidecar, format!("sh {plain}")),
            (Role::Sidecar, format!("exec {link} run")),
            (
                Role::Sidecar,
                "OUTRIDER_ROLE=sidecar exec python3 supervise.py".to_owned(),
            ),
            (
                Role::Sidecar,
                "exec env OUTRIDER_ROLE=sidecar python3 supervise.py".to_owned(),
            ),
            (
                Role::Sidecar,
                "export OUTRIDER_ROLE=sidecar; python3 supervise.py".to_owned(),
            ),
            (Role::Sidecar, "bash <<EOF\nexec ./outrider run\nEOF".to_owned()),
            (
                Role::Sidecar,
                "exec /bin/sh -e <<-'END' # below\n\t./migrate; exec ./outrider run\n\tEND\n".to_owned(),
            ),
            (Role::Sidecar, "bash <<< 'exec ./outrider run'".to_owned()),
            (
                Role::Sidecar,
                "cat > run.sh <<'EOF'\n#!/bin/sh\nexec ./outrider run\nEOF\nexec sh run.sh".to_owned(),
            ),
            (
                Role::Sidecar,
                "tee ./r.sh << EOF >/dev/null; chmod +x ./r.sh\nexec ./outrider run\nEOF\nexec ./r.sh"
                    .to_owned(),
            ),
            (
                Role::Sidecar,
                "cat > outrider.yml <<EOF\nlisten: 127.0.0.1:3128\nEOF\nexec ./outrider run".to_owned(),
            ),
            (
                Role::Sidecar,
                "cat <<A; cat <<B\n1\nA\n2\nB\n./outrider run".to_owned(),
            ),
            (
                Role::App,
                "cat > notes.md <<EOF\n./outrider run\nEOF\nexec python3 app.py".to_owned(),
            ),
            (Role::App, "python3 - <<'EOF'\n./outrider run\nEOF".to_owned()),
            (
                Role::App,
                "cat >x <<EOF\nsh x; exec sh x\nEOF\nexec sh x".to_owned(),
            ),
            (Role::Sidecar, "n=$((1 << 2))\nexec ./outrider run".to_owned()),
            (Role::App, "echo $((1 << 2)); <<".to_owned()),
            (Role::App, "python3 -c 'print(1 << 3)'\npython3 app.py".to_owned()),
            (Role::Exec, "outrider exec -- python3 app.py".to_owned()),
            (
                Role::Exec,
                "migrate && exec ./outrider exec -- ./outrider run".to_owned(),
            ),
            (Role::App, "python3 app.py # beside `./outrider run`".to_owned()),
            (Role::App, "echo outrider run; python3 app.py".to_owned()),
            (Role::App, "./outrider check && python3 app.py".to_owned()),
            (Role::App, "./outrider-tools run".to_owned()),
            (Role::App, "./myoutrider run".to_owned()),
            (Role::App, "python3 -m outrider; run".to_owned()),
            (Role::App, format!("cat {plain}")),
            (Role::App, format!("exec {python}")),
            (Role::App, format!("python3 {python}")),
            (Role::App, circle),
            (Role::App, "OUTRIDER_ROLE=app ./serve".to_owned()),
            (Role::App, String::new()),
            (Role::App, "'unended \"quote $( ${ \\".to_owned()),
            (Role::App, format!("{}run", "sh -c ".repeat(5000))),
            (Role::App, format!("A=xxxxxxxx; {}$A run", "A=$A$A; ".repeat(60))),
            (
                Role::Sidecar,
                format!("A=x; {}exec ./outrider run", "A=$A$A; ".repeat(60)),
            ),
            (Role::App, "cat /dev/zero /proc/self/mem; . /dev/stdin".to_owned()),
        ];
        for (role, command) in cases {
            assert_eq!(
                StartCommand::default().of_text(&command, DEPTH),
                role,
                "{command}"
            );
        }
    }
}
