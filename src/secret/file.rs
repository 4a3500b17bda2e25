//! How the file of a secret is written in a command that a person may copy into a shell.

use std::fmt;
use std::path::PathBuf;

use super::{Secret, form};
use crate::config::SecretRef;

/// The file of a secret; `FILE` where it comes from somewhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileName(Option<PathBuf>);

impl FileName {
    pub(crate) fn of(reference: &SecretRef) -> Self {
        match reference {
            SecretRef::File(path) => Self(Some(path.clone())),
            SecretRef::Env(_) | SecretRef::Vcap { .. } => Self(None),
        }
    }
}

/// In quotes where a character means something to the shell.
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = &self.0 else {
            return f.write_str("FILE");
        };
        let text = path.to_string_lossy();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
        // What begins with a dash would be an option.
        let text = if text.starts_with('-') {
            format!("./{text}")
        } else {
            text.into_owned()
        };
        if text.chars().all(is_plain) {
            f.write_str(&text)
        } else {
            write!(f, "'{}'", text.replace('\'', r"'\''"))
        }
    }
}

/// The beginning of a command that opens a PKCS#12 file. OpenSSL does not read base64, with or without markers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenCommand {
    file: FileName,
    written: StoreEncoding,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StoreEncoding {
    #[default]
    Binary,
    BetweenMarkers,
    InBase64,
}

impl OpenCommand {
    pub(super) fn of(store: &Secret) -> Self {
        let written = match store.expose() {
            bytes if form::is_binary(bytes) => StoreEncoding::Binary,
            bytes if memchr::memmem::find(bytes, b"-----BEGIN ").is_some() => StoreEncoding::BetweenMarkers,
            _ => StoreEncoding::InBase64,
        };
        Self {
            file: store.file(),
            written,
        }
    }
}

impl fmt::Display for OpenCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, written } = self;
        let file = match written {
            StoreEncoding::Binary => return write!(f, "openssl pkcs12 -legacy -in {file}"),
            StoreEncoding::BetweenMarkers => {
                write!(f, "sed -n '/^-----BEGIN/,/^-----END/{{//!p}}' {file} | base64 -d")
            }
            StoreEncoding::InBase64 => write!(f, "base64 -d {file}"),
        };
        file?;
        f.write_str(" > NEW.p12 && openssl pkcs12 -legacy -in NEW.p12")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_to_copy_into_a_shell() {
        for (path, wanted) in [
            ("certs/partner.p12", "certs/partner.p12"),
            ("-rf", "./-rf"),
            ("my key.pem", "'my key.pem'"),
            ("it's;rm", r"'it'\''s;rm'"),
            ("$(id)", "'$(id)'"),
        ] {
            let reference = SecretRef::File(path.into());
            assert_eq!(FileName::of(&reference).to_string(), wanted);
        }
        assert_eq!(FileName::default().to_string(), "FILE");
    }
}
