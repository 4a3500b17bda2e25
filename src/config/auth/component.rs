//! Components of a message, as RFC 9421 names them: what a signature covers.

use std::fmt;

use http::HeaderName;
use http::header::{COOKIE, SET_COOKIE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

const DERIVED: &str =
    "@method, @target-uri, @authority, @scheme, @request-target, @path, @query or '@query-param;name=\"id\"'";

/// A part of a request that a signature can cover. Displayed as the identifier that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Component {
    Authority,
    Field {
        name: HeaderName,
        /// Each line is wrapped as a byte sequence: for values with commas or odd bytes in them.
        is_binary: bool,
    },
    Method,
    Path,
    Query,
    /// Its name, encoded.
    QueryParam(String),
    RequestTarget,
    Scheme,
    TargetUri,
}

/// Why a text is not a component, with the remedy after the semicolon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ComponentError {
    #[error("not a component that a proxy signs; write the name of a field, or one of {DERIVED}")]
    Name,
    #[error("a query parameter without its name; write '@query-param;name=\"id\"'")]
    NoName,
    #[error(
        "a component with a parameter that does not work; only ;bs of a field and ;name of @query-param do"
    )]
    Parameter,
    #[error("a field that is another one after the next hop; leave it out")]
    Unstable,
}

impl Component {
    /// Reads `@method`, `content-type`, `x-odd;bs` or `@query-param;name="id"`, the name in quotes or not.
    pub(crate) fn parse(text: &str) -> Result<Self, ComponentError> {
        let (name, parameter) = match text.split_once(';') {
            None => (text, None),
            Some((name, parameter)) => (name, Some(parameter)),
        };
        let name = unquoted(name).unwrap_or(name);
        let derived = match name {
            "@query-param" => return query_param(parameter),
            "@authority" => Self::Authority,
            "@method" => Self::Method,
            "@path" => Self::Path,
            "@query" => Self::Query,
            "@request-target" => Self::RequestTarget,
            "@scheme" => Self::Scheme,
            "@target-uri" => Self::TargetUri,
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ComponentError::Name)?;
                return field(name, parameter);
            }
        };
        match parameter {
            None => Ok(derived),
            Some(_) => Err(ComponentError::Parameter),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "\"@authority\"",
            Self::Field { name, is_binary } => {
                let bs = if *is_binary { ";bs" } else { "" };
                return write!(f, "\"{name}\"{bs}");
            }
            Self::Method => "\"@method\"",
            Self::Path => "\"@path\"",
            Self::Query => "\"@query\"",
            // Encoded, so nothing in it needs a backslash.
            Self::QueryParam(name) => return write!(f, "\"@query-param\";name=\"{name}\""),
            Self::RequestTarget => "\"@request-target\"",
            Self::Scheme => "\"@scheme\"",
            Self::TargetUri => "\"@target-uri\"",
        })
    }
}

fn field(name: HeaderName, parameter: Option<&str>) -> Result<Component, ComponentError> {
    if ONE_HOP.contains(&name.as_str()) || name == COOKIE || name == SET_COOKIE {
        return Err(ComponentError::Unstable);
    }
    let is_binary = match parameter {
        None => false,
        Some("bs") => true,
        Some(_) => return Err(ComponentError::Parameter),
    };
    Ok(Component::Field { name, is_binary })
}

fn query_param(parameter: Option<&str>) -> Result<Component, ComponentError> {
    let name = parameter.and_then(|parameter| parameter.strip_prefix("name="));
    let name = name.ok_or(ComponentError::NoName)?;
    let name = unquoted(name).unwrap_or(name);
    match name {
        "" => Err(ComponentError::NoName),
        name => Ok(Component::QueryParam(form_encoded(name))),
    }
}

/// Decodes a name or a value of a query like a field of a form, and encodes it again (RFC 9421, section 2.2.8).
pub(crate) fn form_encoded(text: &str) -> String {
    let octets: Vec<u8> = percent_decode_str(&text.replace('+', " ")).collect();
    percent_encode(&octets, FORM).to_string()
}

fn unquoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// The application/x-www-form-urlencoded percent-encode set of the URL standard, a blank as `%20`.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');

/// Fields that go one hop only, and fields that frame a message.
const ONE_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "signature",
    "signature-input",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_shown_as_they_are_signed() {
        for (written, shown) in [
            ("@method", "\"@method\""),
            ("\"@target-uri\"", "\"@target-uri\""),
            ("Content-Type", "\"content-type\""),
            ("x-odd;bs", "\"x-odd\";bs"),
            ("@query-param;name=\"Pet\"", "\"@query-param\";name=\"Pet\""),
            ("\"@query-param\";name=id", "\"@query-param\";name=\"id\""),
            (
                "@query-param;name=\"fa\u{e7}ade\": \"",
                "\"@query-param\";name=\"fa%C3%A7ade%22%3A%20\"",
            ),
        ] {
            let component = Component::parse(written).unwrap();
            assert_eq!(component.to_string(), shown, "{written}");
        }
    }

    #[test]
    fn what_is_no_component_is_told_why() {
        for (written, error) in [
            ("", ComponentError::Name),
            ("@status", ComponentError::Name),
            ("@signature-params", ComponentError::Name),
            ("content type", ComponentError::Name),
            ("@query-param", ComponentError::NoName),
            ("@query-param;name=\"\"", ComponentError::NoName),
            ("@method;req", ComponentError::Parameter),
            ("x-dictionary;key=\"a\"", ComponentError::Parameter),
            ("x-list;sf", ComponentError::Parameter),
            ("Connection", ComponentError::Unstable),
            ("signature", ComponentError::Unstable),
        ] {
            assert_eq!(Component::parse(written), Err(error), "{written}");
        }
    }
}
