//! How a start command runs outrider.

use std::path::Path;

/// What a start command does with outrider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Start {
    /// `outrider exec`: around another command.
    Around,
    /// It does not name outrider.
    Other,
    /// `outrider run`.
    Run {
        /// The shell becomes outrider.
        by_exec: bool,
    },
    /// outrider without a subcommand that serves.
    Useless,
}

/// Words before a program that leave it the process.
const WRAPPERS: [&str; 4] = ["env", "nice", "nohup", "command"];

/// Reads a command as far as needed to find outrider in it. The first start counts.
pub(in crate::cli) fn start_of(command: &str) -> Start {
    let separated = command.replace("&&", ";");
    let commands = separated.split([';', '|', '&', '\n', '(', ')', '{', '}']);
    commands
        .map(start_of_one)
        .find(|start| *start != Start::Other)
        .unwrap_or(Start::Other)
}

/// Whether the shell itself becomes the last program of a command.
pub(super) fn ends_by_exec(command: &str) -> bool {
    let separated = command.replace("&&", ";");
    let last = separated
        .split([';', '|', '\n'])
        .rfind(|one| !one.trim().is_empty());
    last.is_some_and(|last| words(last).next() == Some("exec"))
}

fn start_of_one(command: &str) -> Start {
    let mut words = words(command).peekable();
    let by_exec = words.next_if_eq(&"exec").is_some();
    while words
        .next_if(|word| is_assignment(word) || WRAPPERS.contains(word) || word.starts_with('-'))
        .is_some()
    {}
    let program = words.next().map(Path::new).and_then(Path::file_name);
    let is_ours = program.is_some_and(|name| name.to_string_lossy().starts_with("outrider"));
    if !is_ours {
        return Start::Other;
    }
    match words.next() {
        Some("run") => Start::Run { by_exec },
        Some("exec") => Start::Around,
        Some(_) | None => Start::Useless,
    }
}

/// Returns the words of a command without the variables that are set for it; quotes are left out.
fn words(command: &str) -> impl Iterator<Item = &str> {
    let words = command
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']));
    words.skip_while(|word| is_assignment(word))
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outrider_is_found_however_it_is_started() {
        let run = |by_exec| Start::Run { by_exec };
        for (command, start) in [
            ("exec ./outrider run", run(true)),
            ("./outrider run", run(false)),
            ("exec ./outrider-0.1.0 run --config a.yml", run(true)),
            ("./outrider run; sleep 5", run(false)),
            ("cd x && exec \"$HOME/outrider\" run", run(true)),
            ("RUST_LOG=debug exec $DEPS_DIR/0/bin/outrider run", run(true)),
            ("exec env A=b ./outrider run", run(true)),
            ("env A=b ./outrider run", run(false)),
            ("outrider exec -- npm start", Start::Around),
            ("migrate && exec ./outrider exec -- CMD", Start::Around),
            ("exec ./outrider", Start::Useless),
            ("exec ./outrider --version", Start::Useless),
            ("exec ./start-sidecar.sh", Start::Other),
            ("exec python3 app.py --outrider run", Start::Other),
            ("echo outrider run", Start::Other),
            ("", Start::Other),
        ] {
            assert_eq!(start_of(command), start, "{command}");
        }
    }

    #[test]
    fn a_script_is_judged_by_its_last_command() {
        for (command, by_exec) in [
            ("exec ./start.sh", true),
            ("A=1 exec ./start.sh", true),
            ("./start.sh", false),
            ("cd x; exec ./start.sh;", true),
            ("exec ./start.sh; echo gone", false),
            ("", false),
        ] {
            assert_eq!(ends_by_exec(command), by_exec, "{command}");
        }
    }
}
