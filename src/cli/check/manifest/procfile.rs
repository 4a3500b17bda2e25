//! The Procfile in an app's folder: process types that the manifest need not list, with their commands.
//!
//! The platform reads it as a mapping in YAML of type to command when the app is staged, and fails on anything else. A
//! command of the manifest goes before one of the Procfile.

use std::collections::BTreeMap;
use std::path::Path;

use super::folder_of;
use crate::config::{Manifest, ManifestValue, Problems, read_text};

const NAME: &str = "Procfile";

/// Process types, each with its command.
#[derive(Debug, Default)]
pub(super) struct Procfile {
    commands: BTreeMap<String, String>,
}

impl Procfile {
    /// Reads those of all apps of a manifest in `folder`, by the place of the app, and returns what is wrong with them.
    pub(super) fn of_all(manifest: &Manifest, folder: &Path) -> (BTreeMap<String, Self>, Vec<Problems>) {
        let (mut all, mut wrong) = (BTreeMap::new(), Vec::new());
        for app in manifest.applications() {
            match Self::of(&app, folder) {
                Ok(Some(procfile)) => {
                    all.insert(app.path, procfile);
                }
                Ok(None) => {}
                Err(problems) => wrong.push(problems),
            }
        }
        (all, wrong)
    }

    /// Reads that of an app; `None` where no such file exists, or where the platform would not look at it.
    fn of(app: &ManifestValue<'_>, folder: &Path) -> Result<Option<Self>, Problems> {
        let file = folder_of(app, folder).join(NAME);
        if app.get("docker").is_some() || !file.is_file() {
            return Ok(None);
        }
        Self::parse(&read_text(&file)?, &file.display().to_string()).map(Some)
    }

    pub(super) fn parse(text: &str, name: &str) -> Result<Self, Problems> {
        let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_empty) {
            return Ok(Self::default());
        }
        let read = Manifest::parse(text, name)?;
        let right = "write a line for each process type, as in `web: COMMAND`";
        let mut problems = read.problems.clone();
        let mut procfile = Self::default();
        match read.root().entries() {
            None => problems.add("", "the platform cannot read it when it stages the app", right),
            Some(entries) => {
                for entry in entries {
                    match entry.value.scalar() {
                        Some(command) => {
                            procfile.commands.insert(entry.key.to_owned(), command.to_owned());
                        }
                        None => problems.add(entry.value.path, "has to be a command", right),
                    }
                }
            }
        }
        let problems = problems.located(&read.locations);
        if problems.is_empty() {
            Ok(procfile)
        } else {
            Err(problems)
        }
    }

    /// Returns the process types, sorted.
    pub(super) fn types(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    pub(super) fn command(&self, process_type: &str) -> Option<&str> {
        self.commands.get(process_type).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_the_platform_does() {
        let procfile = Procfile::parse("# c\nweb: exec gunicorn app\nworker: 'a: b'\n", "Procfile").unwrap();
        assert_eq!(procfile.types().collect::<Vec<_>>(), ["web", "worker"]);
        assert_eq!(procfile.command("worker"), Some("a: b"));
        assert_eq!(Procfile::parse("\n# c\n", "Procfile").unwrap().types().count(), 0);
        for (text, said) in [
            ("web: a: b\n", "app/Procfile:1:7: "),
            ("web\n", "app/Procfile: the platform cannot read it"),
            ("web: [a]\n", "app/Procfile:1:6: web: has to be a command"),
            ("web: a\nweb: b\n", "app/Procfile:2:1: web: stands twice"),
        ] {
            let problems = Procfile::parse(text, "app/Procfile").unwrap_err().to_string();
            assert!(problems.starts_with(said), "{problems}");
        }
    }
}
