//! `outrider init`: a starter configuration, or the sidecar in a manifest that is there.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint;

use super::{fail, print};

mod manifest;

/// Write a commented starter outrider.yml, or add the sidecar to a manifest of cf push
///
/// The file is sound as it stands: it denies everything until you list a destination. What is already there is
/// never overwritten.
///
/// With --manifest the sidecar's entry is added to a manifest that is there. Comments, order, indentation and quotes stay.
/// The difference is shown first, and the file is changed when you say so at the terminal, or with --write. A manifest
/// that runs outrider already is left alone, and so is one in which the entry would not be sound.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outrider init
  outrider init --path config/outrider.yml
  outrider init --manifest manifest.yml
  outrider init --manifest manifest.yml --app api --process-types web,worker --write")]
pub(super) struct Args {
    /// Where to write it
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_FILE, value_hint = ValueHint::FilePath)]
    path: PathBuf,

    /// The manifest of cf push to which the sidecar is added
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "path")]
    manifest: Option<PathBuf>,

    #[command(flatten)]
    sidecar: manifest::SidecarArgs,
}

/// Writes it and says what to do next.
pub(super) fn run(args: &Args) -> ExitCode {
    if let Some(path) = &args.manifest {
        return manifest::run(path, &args.sidecar);
    }
    let path = args.path.display();
    match write(&args.path) {
        Ok(()) => print(&format!(
            "Wrote {path}.\n\
             Next: list a destination in it, then\n  \
             outrider check --config {path}\n  \
             outrider exec --config {path} -- curl https://HOST/\n"
        )),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fail(&format!(
            "{path} is already there and stays as it is; remove it, or name another file with --path"
        )),
        Err(error) => fail(&format!(
            "{path} cannot be written: {error}; name a file in a folder that can be written with --path"
        )),
    }
}

/// Creates the file; an existing file or link is an error.
fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(STARTER.as_bytes())
}

const STARTER: &str = include_str!("starter.yml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EgressDefault};
    use crate::policy::Policy;

    #[test]
    fn the_starter_is_sound_and_denies_everything() {
        let config = Config::parse(STARTER, "outrider.yml").unwrap();
        assert_eq!(config.egress.default, EgressDefault::Deny);
        assert!(config.destinations.is_empty());
    }

    /// A user who removes the comment signs has a sound file too.
    #[test]
    fn the_examples_in_the_starter_are_sound() {
        // Before an example of a key stands an even number of spaces; before prose, one or three.
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(rest) if (rest.len() - rest.trim_start_matches(' ').len()) % 2 == 0 => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        let text: String = STARTER.lines().map(uncommented).collect();
        let config = Config::parse(&text, "outrider.yml").map_err(|problems| problems.to_string());
        let config = config.unwrap();
        assert_eq!(config.destinations.len(), 3);
        assert!(!config.egress.parent.is_empty());
        assert_eq!(
            (
                config.clients.len(),
                config.tcp.len(),
                config.placeholders.keep.len()
            ),
            (1, 1, 1)
        );
        Policy::compile(&config)
            .map_err(|problems| problems.to_string())
            .unwrap();
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outrider.yml");
        write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), STARTER);

        std::fs::write(&path, "mine").unwrap();
        assert_eq!(write(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");

        let link = folder.path().join("link.yml");
        std::os::unix::fs::symlink(folder.path().join("elsewhere.yml"), &link).unwrap();
        assert_eq!(write(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!folder.path().join("elsewhere.yml").exists());
    }
}
