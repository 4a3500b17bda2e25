//! Where a placeholder stands, and how a secret is written there.

use http::header::{self};
use percent_encoding::{percent_decode, percent_encode};
use zeroize::Zeroizing;

use crate::auth::RESERVED;
use crate::message::Fields;
use crate::policy::PlaceholderFault;

/// Where a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The value of a field.
    Field,
    Form,
    Json,
    /// HTML or XML.
    Markup,
    /// A body of another type, whose lengths may be written in it.
    Opaque,
    /// A user name and a password.
    Pair,
    Query,
    /// A text without escapes.
    Text,
}

impl Place {
    /// Returns the place that a body is, by its type.
    pub(super) fn of_body(fields: &Fields) -> Self {
        let Some(value) = fields.get(header::CONTENT_TYPE) else {
            return Self::Text;
        };
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let essence = text.split([';', ',']).next().unwrap_or_default().trim();
        let Some((kind, subtype)) = essence.split_once('/') else {
            return Self::Text;
        };
        // The base format of types such as `vnd.api+json`.
        let base = subtype.rsplit('+').next().unwrap_or_default();
        match (kind, base.strip_prefix("x-").unwrap_or(base)) {
            (_, "json" | "ndjson" | "jsonl" | "jsonlines" | "json-seq" | "csp-report") => Self::Json,
            ("application", "www-form-urlencoded") => Self::Form,
            (_, "xml" | "html" | "xml-dtd") => Self::Markup,
            ("text" | "multipart" | "message", _)
            | (_, "graphql" | "yaml" | "toml" | "sql" | "javascript") => Self::Text,
            _ => Self::Opaque,
        }
    }

    /// Names the place in a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Field => "a field",
            Self::Form | Self::Json | Self::Markup | Self::Opaque | Self::Text => "the body",
            Self::Pair => "the Basic credentials",
            Self::Query => "the query",
        }
    }

    /// Whether placeholders under escapes are looked for.
    pub(super) fn is_encoded(self) -> bool {
        self != Self::Opaque
    }

    /// Returns how `secret` is written in the place of `found`, which is the placeholder or decodes to it.
    pub(super) fn write(
        self,
        found: &[u8],
        placeholder: &[u8],
        secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, PlaceholderFault> {
        let is_plain = found == placeholder;
        let is_percent = || percent_decode(found).eq(placeholder.iter().copied());
        let text = || str::from_utf8(secret).map_err(|_| PlaceholderFault::Unfit);
        let percent = || percent_encode(secret, RESERVED).to_string().into_bytes();
        let written = match self {
            Self::Field if is_plain => {
                if !secret.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
                    return Err(PlaceholderFault::Unfit);
                }
                secret.to_vec()
            }
            Self::Field if is_percent() => percent(),
            Self::Form | Self::Query if is_plain || is_percent() => percent(),
            Self::Json if is_plain || is_escaped(found, placeholder) => {
                let quoted = serde_json::to_string(text()?).map_err(|_| PlaceholderFault::Unfit)?;
                let quoted = Zeroizing::new(quoted.into_bytes());
                quoted[1..quoted.len() - 1].to_vec()
            }
            Self::Markup if is_plain => marked_up(text()?).into_bytes(),
            Self::Opaque if is_plain && secret.len() != found.len() => return Err(PlaceholderFault::Type),
            // A colon would end the user name.
            Self::Pair if is_plain && secret.iter().any(u8::is_ascii_control) => {
                return Err(PlaceholderFault::Unfit);
            }
            Self::Opaque | Self::Pair | Self::Text if is_plain => secret.to_vec(),
            _ => return Err(PlaceholderFault::Spelling),
        };
        Ok(Zeroizing::new(written))
    }
}

/// Whether a part of a text of JSON means the placeholder.
fn is_escaped(found: &[u8], placeholder: &[u8]) -> bool {
    let quoted = [b"\"", found, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).is_ok_and(|text| text.as_bytes() == placeholder)
}

fn marked_up(secret: &str) -> String {
    let mut text = String::with_capacity(secret.len() + 16);
    for c in secret.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            c => text.push(c),
        }
    }
    text
}
