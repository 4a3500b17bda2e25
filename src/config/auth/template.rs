//! Texts with `{placeholders}`: the message of an HMAC, and the fields that carry it.

use http::HeaderName;

const NAMES: &str = "{method}, {method_lower}, {scheme}, {authority}, {target}, {path}, {query}, {url}, \
                     {header.NAME}, {body}, {body_sha256}, {body_sha256_base64}, {body_sha512}, \
                     {body_sha512_base64}, {body_sha1}, {timestamp}, {timestamp_ms}, {date}, {rfc3339}, {nonce}, \
                     {key_id} and {signature}";

/// A text whose placeholders are filled in anew for each request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Template(pub(crate) Vec<TemplatePiece>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TemplatePiece {
    Authority,
    Body,
    BodyHash(BodyHash),
    /// As in `Sun, 06 Nov 1994 08:49:37 GMT`.
    Date,
    Field(HeaderName),
    KeyId,
    Method,
    MethodInLowerCase,
    Nonce,
    Path,
    /// Without the question mark.
    Query,
    /// As in `1994-11-06T08:49:37Z`.
    Rfc3339,
    Scheme,
    Signature,
    /// The path and, if there is one, the query.
    Target,
    Text(String),
    /// Seconds since 1970.
    Timestamp,
    /// The same in milliseconds.
    TimestampMillis,
    Url,
}

/// A hash of the body, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BodyHash {
    Sha1Hex,
    Sha256Base64,
    Sha256Hex,
    Sha512Base64,
    Sha512Hex,
}

/// Why a text is not a template, with the remedy after the semicolon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("a text with a brace that stands alone; write {{{{ or }}}} for a brace that is meant as one")]
    Brace,
    #[error("a text with a placeholder that there is not; there are {NAMES}")]
    Unknown,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..];
            if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
                plain.push_str(&brace[..1]);
                rest = after;
                continue;
            }
            let (name, after) = brace
                .strip_prefix('{')
                .and_then(|open| open.split_once('}'))
                .ok_or(TemplateError::Brace)?;
            if !plain.is_empty() {
                pieces.push(TemplatePiece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(TemplatePiece::parse(name).ok_or(TemplateError::Unknown)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(TemplatePiece::Text(plain));
        }
        Ok(Self(pieces))
    }

    pub(crate) fn has(&self, piece: &TemplatePiece) -> bool {
        self.0.contains(piece)
    }

    /// Whether the template needs the body.
    pub(crate) fn has_body(&self) -> bool {
        (self.0.iter()).any(|piece| matches!(piece, TemplatePiece::Body | TemplatePiece::BodyHash(_)))
    }
}

impl TemplatePiece {
    fn parse(name: &str) -> Option<Self> {
        if let Some(field) = name.strip_prefix("header.") {
            return HeaderName::from_bytes(field.as_bytes()).ok().map(Self::Field);
        }
        Some(match name {
            "authority" => Self::Authority,
            "body" => Self::Body,
            "body_sha1" => Self::BodyHash(BodyHash::Sha1Hex),
            "body_sha256" => Self::BodyHash(BodyHash::Sha256Hex),
            "body_sha256_base64" => Self::BodyHash(BodyHash::Sha256Base64),
            "body_sha512" => Self::BodyHash(BodyHash::Sha512Hex),
            "body_sha512_base64" => Self::BodyHash(BodyHash::Sha512Base64),
            "date" => Self::Date,
            "key_id" => Self::KeyId,
            "method" => Self::Method,
            "method_lower" => Self::MethodInLowerCase,
            "nonce" => Self::Nonce,
            "path" => Self::Path,
            "query" => Self::Query,
            "rfc3339" => Self::Rfc3339,
            "scheme" => Self::Scheme,
            "signature" => Self::Signature,
            "target" => Self::Target,
            "timestamp" => Self::Timestamp,
            "timestamp_ms" => Self::TimestampMillis,
            "url" => Self::Url,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_between_texts() {
        let text = |text: &str| TemplatePiece::Text(text.to_owned());
        for (written, pieces) in [
            ("", vec![]),
            ("a", vec![text("a")]),
            ("{body}", vec![TemplatePiece::Body]),
            (
                "{method}\n{target} {header.X-Date}.",
                vec![
                    TemplatePiece::Method,
                    text("\n"),
                    TemplatePiece::Target,
                    text(" "),
                    TemplatePiece::Field(HeaderName::from_static("x-date")),
                    text("."),
                ],
            ),
            (
                "{{\"id\": \"{key_id}\"}}",
                vec![text("{\"id\": \""), TemplatePiece::KeyId, text("\"}")],
            ),
        ] {
            assert_eq!(Template::parse(written), Ok(Template(pieces)), "{written}");
        }
    }

    #[test]
    fn a_placeholder_that_there_is_not_is_told() {
        for (written, error) in [
            ("{", TemplateError::Brace),
            ("a}", TemplateError::Brace),
            ("{method", TemplateError::Brace),
            ("{}", TemplateError::Unknown),
            ("{Method}", TemplateError::Unknown),
            ("{header.}", TemplateError::Unknown),
            ("{header.a b}", TemplateError::Unknown),
            ("{body_md5}", TemplateError::Unknown),
        ] {
            assert_eq!(Template::parse(written), Err(error), "{written}");
        }
    }
}
