//! Headers that the configuration sets and removes.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue};

use super::SecretRef;
use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::Located;
use super::syntax::ListOf;

/// Fields of a connection rather than of a message (RFC 9110, section 7.6), those that frame a message, and those that
/// name its target: an app that could set or remove one could smuggle a request or send it elsewhere.
const OF_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "proxy-status",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

section! {
    /// Headers that are set and removed.
    #[derive(Default)]
    pub(crate) struct Headers {
        /// Plain values or references; what the app sent is replaced.
        set: Vec<(HeaderName, HeaderText)> as SetHeaders = "{}";
        /// Names; a trailing * matches any rest, as in X-Internal-*.
        remove: Vec<String> as ListOf<RemovedHeader> = "[]";
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderText {
    Plain(HeaderValue),
    Reference(SecretRef),
}

/// A plain value is not shown in a problem either: it may be a secret in the wrong place.
impl Syntax for HeaderText {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Value;

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write a value or a reference")?;
        if let Some(reference) = written.reference(text) {
            return reference.map(Self::Reference);
        }
        match HeaderValue::from_str(text) {
            // HTTP/2 servers refuse values with blanks around them, and servers disagree about other bytes.
            Ok(value) if text.is_ascii() && text.trim() == text => Some(Self::Plain(value)),
            Ok(_) | Err(_) => {
                let what = "the value has a control or non-ASCII character, or a blank at an end";
                written.problem(what, "write printable ASCII on one line");
                None
            }
        }
    }
}

/// Headers by their names, each once.
pub(super) struct SetHeaders;

impl Syntax for SetHeaders {
    type Value = Vec<(HeaderName, HeaderText)>;

    const KIND: ValueKind = ValueKind::Named("", &HeaderText::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let mut seen = HashSet::new();
        let mut set = Vec::new();
        for (entry, written) in written.named()? {
            let Some(name) = header_name(&written, &entry.key) else {
                continue;
            };
            if !seen.insert(name.clone()) {
                written.problem(
                    "the same header stands twice; upper and lower case are one",
                    "keep one of them",
                );
            }
            set.extend(HeaderText::read(written).map(|value| (name, value)));
        }
        Some(set)
    }
}

/// The name of a header, or the beginning of one with a `*` after it.
pub(super) struct RemovedHeader;

impl Syntax for RemovedHeader {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text("write the name of a header, as in X-Internal-*")?;
        let prefix = text.strip_suffix('*');
        let name = prefix.unwrap_or(text);
        if name.is_empty() || HeaderName::from_bytes(name.as_bytes()).is_err() || name.contains('*') {
            let right = "write one as in X-Agency, or X-Internal-* for all that begin so";
            written.problem(
                format_args!("`{}` is not the name of a header", shown(text)),
                right,
            );
            return None;
        }
        let lower = name.to_ascii_lowercase();
        let hit = OF_CONNECTION.iter().find(|own| {
            if prefix.is_some() {
                own.starts_with(&lower)
            } else {
                **own == lower
            }
        });
        if let Some(own) = hit {
            let what = format!(
                "`{}` would remove {own}, which belongs to the connection",
                shown(text)
            );
            written.problem(what, "remove it, or write a longer name");
            return None;
        }
        Some(text.to_owned())
    }
}

/// Reads a name that the configuration may attach.
pub(super) fn header_name(written: &Located<'_>, text: &str) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        written.problem(
            format_args!("`{}` is not the name of a header", shown(text)),
            "write one as in X-Agency",
        );
        return None;
    };
    if OF_CONNECTION.contains(&name.as_str()) {
        written.problem(
            format_args!(
                "`{}` belongs to the connection and is set by the proxy",
                shown(text)
            ),
            "remove it",
        );
        return None;
    }
    Some(name)
}
