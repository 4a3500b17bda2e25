//! References to secrets: the place of a secret, never the secret.

use std::fmt;

use super::environment::{ExpandError, is_variable_name};
use super::{Environment, SecretRef};

/// Why a text that begins like a reference is not one. Never shows the text: it may be a secret behind a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReferenceError {
    #[error("no name of an environment variable after `env:`")]
    Env,
    #[error("{0}")]
    File(#[from] ExpandError),
    #[error("no service and key after `vcap:`")]
    Vcap,
}

impl SecretRef {
    /// Reads `env:NAME`, `file:PATH` or `vcap:SERVICE/KEY[/KEY…]`; `None` for a text that begins otherwise.
    pub(super) fn parse(text: &str, environment: Environment<'_>) -> Option<Result<Self, ReferenceError>> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "env" if is_variable_name(rest) => Some(Ok(Self::Env(rest.to_owned()))),
            "env" => Some(Err(ReferenceError::Env)),
            "file" => Some(
                environment
                    .expand(rest)
                    .map(Self::File)
                    .map_err(ReferenceError::File),
            ),
            "vcap" => Some(vcap(rest).ok_or(ReferenceError::Vcap)),
            _ => None,
        }
    }
}

/// `env:NAME`, `file:PATH`, `vcap:SERVICE/KEY[/KEY…]`.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Vcap { service, keys } => write!(f, "vcap:{service}/{}", keys.join("/")),
        }
    }
}

impl ReferenceError {
    pub(super) fn right(&self) -> &'static str {
        match self {
            Self::Env => "write env:NAME, with letters, digits and _",
            Self::File(error) => error.right(),
            Self::Vcap => "write vcap:SERVICE/KEY, with no part empty",
        }
    }
}

fn vcap(text: &str) -> Option<SecretRef> {
    let mut parts = text.split('/').map(str::to_owned);
    let service = parts.next()?;
    let keys: Vec<_> = parts.collect();
    let sound = |part: &String| !part.is_empty() && !part.contains(char::is_control);
    let whole = sound(&service) && !keys.is_empty() && keys.iter().all(sound);
    whole.then_some(SecretRef::Vcap { service, keys })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn parse(text: &str) -> Option<Result<SecretRef, ReferenceError>> {
        SecretRef::parse(
            text,
            Environment::new(&|name| (name == "DIR").then(|| "certs".into())),
        )
    }

    #[test]
    fn references_are_read_and_shown_as_written() {
        let vcap = |service: &str, keys: &[&str]| SecretRef::Vcap {
            service: service.to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        for (text, reference) in [
            ("env:TOKEN", SecretRef::Env("TOKEN".to_owned())),
            ("file:a/b.pem", SecretRef::File(PathBuf::from("a/b.pem"))),
            ("vcap:weather/token", vcap("weather", &["token"])),
            ("vcap:my service/a/b", vcap("my service", &["a", "b"])),
        ] {
            assert_eq!(parse(text), Some(Ok(reference.clone())), "{text}");
            assert_eq!(reference.to_string(), text);
        }
        assert_eq!(
            parse("file:$DIR/a"),
            Some(Ok(SecretRef::File(PathBuf::from("certs/a"))))
        );
    }

    #[test]
    fn what_only_looks_like_a_reference_is_an_error_without_the_text() {
        for (text, error) in [
            ("env:", ReferenceError::Env),
            ("env:sk-live-0123", ReferenceError::Env),
            ("env: TOKEN", ReferenceError::Env),
            ("file:", ReferenceError::File(ExpandError::Empty)),
            (
                "file:$NONE/a",
                ReferenceError::File(ExpandError::Unset("NONE".to_owned())),
            ),
            ("vcap:", ReferenceError::Vcap),
            ("vcap:service", ReferenceError::Vcap),
            ("vcap:service/", ReferenceError::Vcap),
            ("vcap:/key", ReferenceError::Vcap),
            ("vcap:service//key", ReferenceError::Vcap),
        ] {
            assert_eq!(parse(text), Some(Err(error)), "{text}");
        }
        for text in ["", "token", "ENV:TOKEN", "https://a.test", "Bearer abc"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
