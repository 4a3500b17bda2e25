//! `outrider check --against OLD`: what a change of the file means.
//!
//! Two policies are compared, not two texts: a host that another pattern names as well has not changed. What lets more
//! through comes first ([`Effect`]). [`reach`] says which hosts become reachable, [`credentials`] which secrets go where,
//! [`rules`] what a destination asks and allows, [`ports`] where local ports lead, [`process`] all the rest. Values are shown as they are written;
//! secrets are references, and so never here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::print;
use crate::config::{ChangedKey, Config, ConfigSource, Problems, WrittenConfig, read_text};
use crate::policy::Policy;

mod credentials;
mod ports;
mod process;
mod reach;
mod rules;
#[cfg(test)]
mod tests;

/// The name of standard input in problems.
const STDIN: &str = "standard input";

/// Bytes; one more than a configuration may have, so that a larger one is refused and not cut.
const LARGEST_INPUT: u64 = (1 << 20) + 1;

/// The exit code of `--fail-on-widening`.
const WIDENS: u8 = 3;

/// One of the two files.
#[derive(Debug)]
pub(super) struct Side {
    policy: Policy,
    written: WrittenConfig,
}

/// Whether a change lets more through, less, or neither that can be told. What cannot be told to let less through and
/// concerns access counts as [`Effect::Wider`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    Wider,
    Other,
    Narrower,
}

/// Everything that the change means, each once.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeSet<(Effect, String)>);

/// Says what the change from the file `old` means. The old file has to be sound as well, secrets aside.
pub(super) fn run(
    old: &Path,
    config: Config,
    source: &ConfigSource,
    fails_on_widening: bool,
) -> Result<ExitCode, Problems> {
    let text = source.file().map_or_else(|| Ok(String::new()), read_text)?;
    let new = Side::compiled(config, &text)?;
    let (old, name) = if old.as_os_str() == "-" {
        (
            read_input(std::io::stdin().lock()).map_err(|error| unread(&error))?,
            STDIN.to_owned(),
        )
    } else {
        (read_text(old)?, old.display().to_string())
    };
    let changes = Changes::between(&Side::of(&old, &name)?, &new);
    Ok(match print(&changes.text()) {
        ExitCode::SUCCESS if fails_on_widening && changes.widen() => ExitCode::from(WIDENS),
        code => code,
    })
}

/// Reads a configuration from standard input, no more than one may have.
fn read_input(input: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    input.take(LARGEST_INPUT).read_to_string(&mut text)?;
    Ok(text)
}

fn unread(error: &std::io::Error) -> Problems {
    let mut problems = Problems {
        file: STDIN.to_owned(),
        ..Problems::default()
    };
    problems.add(
        "",
        format!("cannot be read: {error}"),
        "give the old file as UTF-8 text",
    );
    problems
}

impl Side {
    /// Compiles a text that has been read; `name` is that of its file.
    pub(super) fn of(text: &str, name: &str) -> Result<Self, Problems> {
        let config = Config::parse(text, name)?;
        Self::compiled(config, text)
    }

    /// `text` is that of `config`.
    pub(super) fn compiled(config: Config, text: &str) -> Result<Self, Problems> {
        Ok(Self {
            policy: Policy::compile(&config)?,
            written: WrittenConfig::new(config, text),
        })
    }
}

impl Changes {
    /// Compares two files.
    pub(super) fn between(old: &Side, new: &Side) -> Self {
        let mut changes = Self::default();
        let routes = reach::compare(old, new, &mut changes);
        credentials::compare(&routes, &old.written.config, &new.written.config, &mut changes);
        rules::compare(&routes, old, new, &mut changes);
        ports::compare(old, new, &mut changes);
        process::compare(old, new, &mut changes);
        changes
    }

    fn add(&mut self, effect: Effect, what: impl Into<String>) {
        self.0.insert((effect, what.into()));
    }

    /// Whether something lets more through than before.
    pub(super) fn widen(&self) -> bool {
        self.0.iter().any(|(effect, _)| *effect == Effect::Wider)
    }

    /// Returns the lines for a person.
    pub(super) fn text(&self) -> String {
        if self.0.is_empty() {
            return "nothing changes: both files mean the same\n".to_owned();
        }
        let mut text = String::new();
        for (effect, heading) in [
            (Effect::Wider, "lets more through, or trusts others:"),
            (Effect::Other, "changes otherwise:"),
            (Effect::Narrower, "lets less through:"),
        ] {
            let lines = self.0.iter().filter(|(own, _)| *own == effect);
            for (i, (_, line)) in lines.enumerate() {
                if i == 0 {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{heading}");
                }
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }
}

/// Returns both values of a key in one line, and what the change means, if that is known.
fn told(key: &ChangedKey, how: &str) -> String {
    let ChangedKey { path, old, new } = key;
    let how = if how.is_empty() {
        String::new()
    } else {
        format!(" ({how})")
    };
    format!("{path}: {old} → {new}{how}")
}

/// Returns items with commas between them; of many only the first.
fn listed<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 12;
    let all: Vec<T> = items.into_iter().collect();
    let shown: Vec<&str> = all.iter().take(MOST).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
