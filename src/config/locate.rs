//! Finds the configuration, and reads its file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Config, Environment, Problem, Problems, node};

/// The configuration file in the working directory.
pub(crate) const DEFAULT_FILE: &str = "outrider.yml";

/// The source of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    /// There is no file: the built-in default.
    Embedded,
    File(PathBuf),
}

/// Returns the source of the configuration: the `explicit` file, else `$OUTRIDER_CONFIG`, else `./outrider.yml` if it
/// exists, else the built-in default.
///
/// The built-in default allows more than most files, so it never replaces a file that is named, or one that exists and
/// cannot be read.
pub(crate) fn locate(explicit: Option<&Path>) -> ConfigSource {
    locate_in(explicit, Environment::of_process(), Path::new(DEFAULT_FILE))
}

/// Finds the configuration as [`locate`] does, and reads it.
pub(crate) fn load_located(explicit: Option<&Path>) -> Result<(Config, ConfigSource), Problems> {
    let source = locate(explicit);
    Ok((source.load()?, source))
}

impl ConfigSource {
    pub(crate) fn load(&self) -> Result<Config, Problems> {
        match self {
            Self::Embedded => Ok(Config::embedded()),
            Self::File(path) => Config::load(path),
        }
    }

    /// Reads it for another machine: variables in its paths that are not set here stand for themselves.
    pub(crate) fn load_elsewhere(&self) -> Result<Config, Problems> {
        match self {
            Self::Embedded => Ok(Config::embedded()),
            Self::File(path) => {
                let text = super::read_text(path)?;
                Config::parse_elsewhere(&text, &path.display().to_string())
            }
        }
    }

    /// Returns the file to watch.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Embedded => None,
            Self::File(path) => Some(path),
        }
    }
}

/// For a log line or a person.
impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("the built-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn locate_in(explicit: Option<&Path>, environment: Environment<'_>, default: &Path) -> ConfigSource {
    if let Some(path) = explicit {
        return ConfigSource::File(path.to_owned());
    }
    if let Some(path) = environment.variable(VARIABLE) {
        return ConfigSource::File(path.into());
    }
    match default.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => ConfigSource::Embedded,
        Ok(_) | Err(_) => ConfigSource::File(default.to_owned()),
    }
}

/// Reads a file, at most as many bytes of it as a configuration may have.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(node::LARGEST as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let right = match error.kind() {
            io::ErrorKind::NotFound => "name a file that is there, or run `outrider init` to write one",
            io::ErrorKind::IsADirectory => "name a file in it",
            _ => "make it readable for this user",
        };
        return Err(Problem {
            path: String::new(),
            at: None,
            what: format!("cannot be read: {error}"),
            right: right.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let sound = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..sound];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem {
            path: String::new(),
            at: Some((line, 1)),
            what: "not UTF-8 text".to_owned(),
            right: "save the file as UTF-8".to_owned(),
        }
    })
}

/// The variable that names the configuration file where the command line does not.
const VARIABLE: &str = "OUTRIDER_CONFIG";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn the_command_line_comes_before_the_variable_and_that_before_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("outrider.yml");
        let set = |name: &str| (name == VARIABLE).then(|| OsString::from("variable.yml"));
        let empty = |name: &str| (name == VARIABLE).then(OsString::new);
        let file = |path: &str| ConfigSource::File(path.into());
        let explicit = Some(Path::new("explicit.yml"));

        assert_eq!(
            locate_in(explicit, Environment::new(&set), &here),
            file("explicit.yml")
        );
        assert_eq!(
            locate_in(None, Environment::new(&set), &here),
            file("variable.yml")
        );
        assert_eq!(
            locate_in(None, Environment::new(&empty), &here),
            ConfigSource::Embedded
        );
        std::fs::write(&here, "drain: 8s").unwrap();
        assert_eq!(
            locate_in(None, Environment::new(&empty), &here),
            ConfigSource::File(here)
        );
    }

    /// The built-in default allows more than most files: it must not replace one.
    #[test]
    fn a_file_that_cannot_be_read_is_never_replaced_by_what_is_built_in() {
        let folder = tempfile::tempdir().unwrap();
        let dangling = folder.path().join("outrider.yml");
        std::os::unix::fs::symlink("gone.yml", &dangling).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        // A link to nothing, a path through a file, a folder.
        for path in [dangling, file.join("outrider.yml"), folder.path().to_owned()] {
            let source = locate_in(None, Environment::new(&|_| None), &path);
            assert_eq!(source, ConfigSource::File(path));
            assert!(source.load().is_err());
        }
    }
}
