//! Environment variables, and paths that name them.
//!
//! The environment is passed in, so that a test need not set a variable.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Looks environment variables up. One that is set to nothing counts as not set: as part of a path it would
/// silently name another file.
#[derive(Clone, Copy)]
pub(crate) struct Environment<'e> {
    look_up: &'e dyn Fn(&str) -> Option<OsString>,
}

/// Why a path cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    #[error("the path is empty")]
    Empty,
    #[error("a `$` without the name of a variable")]
    Nameless,
    #[error("the path contains a NUL byte")]
    Nul,
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error("`~` stands for the home directory only before a `/`")]
    User,
}

impl ExpandError {
    /// Returns the remedy.
    pub(super) fn right(&self) -> &'static str {
        match self {
            Self::Empty => "write a path",
            Self::Nameless => "write $NAME or ${NAME}",
            Self::Nul => "write it without",
            Self::Unset(_) => "set it, or write another path",
            Self::User => "write ~/PATH",
        }
    }
}

impl<'e> Environment<'e> {
    /// Builds an environment from a function that looks a variable up.
    #[cfg(test)]
    pub(crate) fn new(look_up: &'e dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { look_up }
    }

    pub(crate) fn variable(self, name: &str) -> Option<OsString> {
        (self.look_up)(name).filter(|value| !value.is_empty())
    }

    /// Replaces `$NAME`, `${NAME}` and a leading `~` in a path. `$TMPDIR` is `/tmp` where it is not set.
    pub(crate) fn expand(self, path: &str) -> Result<PathBuf, ExpandError> {
        let mut expanded = OsString::new();
        let mut rest = path;
        if let Some(below) = path.strip_prefix('~') {
            if !below.is_empty() && !below.starts_with('/') {
                return Err(ExpandError::User);
            }
            expanded.push(self.named("HOME")?);
            rest = below;
        }
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push(before);
            let (name, after) = variable_name(after).ok_or(ExpandError::Nameless)?;
            expanded.push(self.named(name)?);
            rest = after;
        }
        expanded.push(rest);
        if expanded.is_empty() {
            return Err(ExpandError::Empty);
        }
        if expanded.as_encoded_bytes().contains(&0) {
            return Err(ExpandError::Nul);
        }
        Ok(PathBuf::from(expanded))
    }

    fn named(self, name: &str) -> Result<OsString, ExpandError> {
        match self.variable(name) {
            Some(value) => Ok(value),
            None if name == "TMPDIR" => Ok(OsStr::new("/tmp").to_owned()),
            None => Err(ExpandError::Unset(name.to_owned())),
        }
    }
}

/// Splits a list as a variable holds it: at commas, blanks and line breaks.
pub(crate) fn entries_of(variable: &str) -> impl Iterator<Item = &str> {
    let entries = variable.split(|letter: char| letter == ',' || letter.is_whitespace());
    entries.filter(|entry| !entry.is_empty())
}

impl Environment<'static> {
    /// Returns the environment of the running process, in which a variable that is not set stands for itself, as in
    /// `$CF_SYSTEM_CERT_PATH`: for a configuration that is read elsewhere than where it holds.
    pub(crate) fn elsewhere() -> Self {
        Self {
            look_up: &|name| {
                let value = std::env::var_os(name).filter(|value| !value.is_empty());
                value.or_else(|| Some(format!("${name}").into()))
            },
        }
    }

    /// Returns the environment of the running process.
    pub(crate) fn of_process() -> Self {
        Self {
            look_up: &|name| std::env::var_os(name),
        }
    }
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

/// Splits the text after a `$` into the name of a variable and the rest.
fn variable_name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => {
            let end = text
                .bytes()
                .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                .count();
            text.split_at(end)
        }
    };
    is_variable_name(name).then_some((name, after))
}

/// Whether a name has only letters, digits and `_`, and does not begin with a digit.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(name: &str) -> Option<OsString> {
        match name {
            "HOME" => Some("/home/vcap/app".into()),
            "DIR" => Some("certs".into()),
            "EMPTY" => Some("".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_the_home_directory_are_expanded() {
        for (path, expanded) in [
            ("certs/a.pem", "certs/a.pem"),
            ("$DIR/a.pem", "certs/a.pem"),
            ("${DIR}a/$DIR.pem", "certsa/certs.pem"),
            ("~/a.pem", "/home/vcap/app/a.pem"),
            ("~", "/home/vcap/app"),
            ("a~b", "a~b"),
            ("$TMPDIR/outrider/ca.pem", "/tmp/outrider/ca.pem"),
        ] {
            assert_eq!(
                Environment::new(&look_up).expand(path),
                Ok(PathBuf::from(expanded)),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_that_cannot_be_expanded_is_refused_with_the_name_it_lacks() {
        let unset = |name: &str| ExpandError::Unset(name.to_owned());
        for (path, error) in [
            ("$MISSING/a.pem", unset("MISSING")),
            ("${MISSING}/a.pem", unset("MISSING")),
            ("$EMPTY/a.pem", unset("EMPTY")),
            ("a/$", ExpandError::Nameless),
            ("$/a", ExpandError::Nameless),
            ("${DIR", ExpandError::Nameless),
            ("${}", ExpandError::Nameless),
            ("$1", ExpandError::Nameless),
            ("~root/a", ExpandError::User),
            ("", ExpandError::Empty),
            ("a\0b", ExpandError::Nul),
        ] {
            assert_eq!(Environment::new(&look_up).expand(path), Err(error), "{path:?}");
        }
        assert_eq!(Environment::new(&|_| None).expand("~/a"), Err(unset("HOME")));
    }
}
