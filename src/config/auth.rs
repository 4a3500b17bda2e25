//! From the tree to [`Auth`]: the credential of a destination.

use super::destination::header_name;
use super::keys;
use super::reader::{Field, REFERENCE, Reader, one_of};
use super::{Auth, SecretRef, Text};

pub(super) mod signatures;

/// One credential of one kind. Nothing that stands here is shown: it may be the secret.
pub(super) fn auth(field: Field<'_>) -> Option<Auth> {
    if field.is_list() {
        field.problem(
            "a list of credentials does not work yet in this version",
            "write one, as in { bearer: env:TOKEN }",
        );
        return None;
    }
    if !field.is_mapping() {
        field.problem(
            "has to be a mapping",
            "write a kind and its reference, as in { bearer: env:TOKEN }",
        );
        return None;
    }
    let reader = field.clone().reader(keys::AUTH)?;
    let kinds: Vec<_> = reader.written().collect();
    match *kinds.as_slice() {
        ["basic"] => reader
            .take("basic")?
            .reader(keys::BASIC)
            .and_then(|reader| basic(&reader)),
        ["bearer"] => reader.take("bearer")?.secret().map(Auth::Bearer),
        ["header"] => reader
            .take("header")?
            .reader(keys::AUTH_HEADER)
            .and_then(|reader| header(&reader)),
        ["query"] => reader
            .take("query")?
            .reader(keys::AUTH_QUERY)
            .and_then(|reader| query(&reader)),
        // An unknown kind, or one that does not work yet, has already been told.
        [] if !field.is_empty() => None,
        [] => {
            field.problem("no credential", "write bearer, basic, header or query below it");
            None
        }
        ref several => {
            field.problem(
                format_args!("{} credentials at once", several.len()),
                format_args!("keep {}", one_of(several)),
            );
            None
        }
    }
}

fn basic(reader: &Reader<'_>) -> Option<Auth> {
    let username = reader
        .need("username", "write username: NAME")
        .and_then(|field| username(&field));
    let password = secret(reader, "password");
    Some(Auth::Basic {
        username: username?,
        password: password?,
    })
}

fn header(reader: &Reader<'_>) -> Option<Auth> {
    let name = reader.need("name", "write name: X-Api-Key").and_then(|field| {
        let text = field.text("write the name of a header, as in X-Api-Key")?;
        header_name(&field, text)
    });
    let value = secret(reader, "value");
    Some(Auth::Header {
        name: name?,
        value: value?,
    })
}

fn query(reader: &Reader<'_>) -> Option<Auth> {
    let name = reader.need("name", "write name: api_key").and_then(|field| {
        let text = field.text("write the name of a parameter, as in api_key")?;
        if text.is_empty() || text.contains(char::is_control) {
            field.problem("not the name of a parameter", "write one, as in api_key");
            return None;
        }
        Some(text.to_owned())
    });
    let value = secret(reader, "value");
    Some(Auth::Query {
        name: name?,
        value: value?,
    })
}

fn secret(reader: &Reader<'_>, name: &str) -> Option<SecretRef> {
    reader.need(name, REFERENCE).and_then(Field::secret)
}

fn username(field: &Field<'_>) -> Option<Text> {
    let text = field.text("write a name or a reference")?;
    if let Some(reference) = SecretRef::parse(text, field.decoding.environment) {
        return reference
            .map(Text::Reference)
            .map_err(|error| field.problem(&error, error.right()))
            .ok();
    }
    if text.contains(|c: char| c == ':' || c.is_control()) {
        // RFC 7617 ends the name at the first colon.
        field.problem(
            "a user name cannot contain a colon or a control character",
            "write it without",
        );
        return None;
    }
    Some(Text::Plain(text.to_owned()))
}
