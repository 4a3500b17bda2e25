//! From the tree to [`AuthRule`]: the credentials of a destination.

use super::destination::header_name;
use super::keys::{self, Status};
use super::limits::matched;
use super::reader::{Field, REFERENCE, Reader, one_of};
use super::{Auth, AuthRule, Credential, SecretRef, Text};

pub(super) mod component;
pub(crate) mod jwt;
pub(crate) mod oauth;
pub(super) mod signatures;
pub(super) mod template;

impl Auth {
    /// As the configuration calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::AwsSigV4(_) => "aws_sigv4",
            Self::Basic { .. } => "basic",
            Self::Bearer(_) => "bearer",
            Self::Header { .. } => "header",
            Self::Jwt(_) => "jwt",
            Self::OAuth2(_) => "oauth2",
            Self::Hmac(_) => "hmac",
            Self::HttpSignature(_) => "http_signature",
            Self::Query { .. } => "query",
        }
    }

    /// Every secret that it names, with its key.
    pub(crate) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::AwsSigV4(aws) => aws.references(),
            Self::Basic { username, password } => {
                let username = match username {
                    Text::Plain(_) => None,
                    Text::Reference(username) => Some(("basic.username", username)),
                };
                username
                    .into_iter()
                    .chain([("basic.password", password)])
                    .collect()
            }
            Self::Bearer(value) => vec![("bearer", value)],
            Self::Header { value, .. } => vec![("header.value", value)],
            Self::Jwt(token) => token.references(),
            Self::OAuth2(oauth2) => oauth2.references(),
            Self::Hmac(hmac) => hmac.references(),
            Self::HttpSignature(signature) => signature.references(),
            Self::Query { value, .. } => vec![("query.value", value)],
        }
    }

    /// Whether each of the two takes the other's place on a request.
    fn stands_where(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { name: one, .. }, Self::Header { name: other, .. }) => one == other,
            (Self::Hmac(one), Self::Hmac(other)) => one.sets_what(other),
            (Self::Query { name: one, .. }, Self::Query { name: other, .. }) => one == other,
            (one, other) => one.kind() == other.kind(),
        }
    }
}

/// What is attached to which requests, in the order in which it is looked for.
pub(super) fn auth(field: Field<'_>) -> Vec<AuthRule> {
    if field.plain() == Some("none") {
        return Vec::new();
    }
    if !field.is_list() {
        return rule(&field).into_iter().collect();
    }
    let right = "write at least one credential, or remove the key";
    let items = field.filled_list(right).unwrap_or_default();
    let mut takes_all = false;
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        if takes_all {
            item.problem(
                "never comes to its turn: the one before it has no match, and takes every request",
                "put that one last",
            );
        }
        let Some(rule) = rule(&item) else { continue };
        takes_all = rule.method.is_none() && rule.path.is_none();
        rules.push(rule);
    }
    rules
}

/// One item of a list, or what stands there alone. Nothing of it is shown: it may be the secret.
fn rule(field: &Field<'_>) -> Option<AuthRule> {
    if !field.is_mapping() {
        field.problem(
            "has to be a mapping",
            "write a kind and its reference, as in { bearer: env:TOKEN }",
        );
        return None;
    }
    let reader = field.clone().reader(keys::AUTH_RULE)?;
    let (method, path) = matched(&reader);
    if !field.path.ends_with(']') && reader.take("match").is_some() {
        field.problem(
            "a credential with a match stands in a list",
            "write [{ match: { path: /api/** }, bearer: env:TOKEN }]",
        );
    }
    let credentials = match kind(field, &reader)? {
        "none" => none(&reader),
        "pool" => pool(&reader),
        kind => credential(field, kind, &reader).into_iter().collect(),
    };
    Some(AuthRule {
        credentials,
        method,
        path,
    })
}

/// The one kind of credential that stands in a mapping.
fn kind<'r>(field: &Field<'_>, reader: &Reader<'r>) -> Option<&'r str> {
    let kinds: Vec<_> = reader.written().filter(|key| *key != "match").collect();
    match *kinds.as_slice() {
        [kind] => return Some(kind),
        // An unknown kind, or one that does not work yet, has already been told.
        [] if reader.has_told() => {}
        [] => field.problem(
            "no credential",
            format_args!("write {} below it", one_of(&kinds_that_work())),
        ),
        ref several => field.problem(
            format_args!("{} credentials at once", several.len()),
            format_args!("keep {}", one_of(several)),
        ),
    }
    None
}

fn kinds_that_work() -> Vec<&'static str> {
    let works = keys::CREDENTIAL
        .iter()
        .filter(|key| matches!(key.status, Status::Works));
    works.map(|key| key.name).collect()
}

/// Nothing is attached.
fn none(reader: &Reader<'_>) -> Vec<Credential> {
    if let Some(field) = reader.take("none")
        && field.clone().boolean() == Some(false)
    {
        field.problem(
            "a credential of no kind",
            "write none: true, or a kind of credential",
        );
    }
    Vec::new()
}

/// Several credentials of one kind, of which any will do.
fn pool(reader: &Reader<'_>) -> Vec<Credential> {
    let right =
        "write several credentials of one kind, as in [{ bearer: env:TOKEN_1 }, { bearer: env:TOKEN_2 }]";
    let Some(field) = reader.take("pool") else {
        return Vec::new();
    };
    let items = field.clone().filled_list(right).unwrap_or_default();
    let member = |item: &Field<'_>| {
        if !item.is_mapping() {
            item.problem("has to be a mapping", right);
            return None;
        }
        let reader = item.clone().reader(keys::CREDENTIAL)?;
        credential(item, kind(item, &reader)?, &reader)
    };
    let members: Vec<_> = items.iter().filter_map(member).collect();
    // One takes the place of the other on a request that is sent again.
    if members
        .windows(2)
        .any(|two| !two[0].auth.stands_where(&two[1].auth))
    {
        field.problem("credentials of several kinds", right);
    }
    members
}

fn credential(field: &Field<'_>, kind: &str, reader: &Reader<'_>) -> Option<Credential> {
    let below = |table| reader.take(kind)?.reader(table);
    let auth = match kind {
        "aws_sigv4" => Auth::AwsSigV4(Box::new(signatures::aws_sigv4(&below(keys::AWS_SIGV4)?)?)),
        "basic" => basic(&below(keys::BASIC)?)?,
        "bearer" => Auth::Bearer(reader.take(kind)?.secret()?),
        "header" => header(&below(keys::AUTH_HEADER)?)?,
        "jwt" => Auth::Jwt(Box::new(jwt::jwt(reader.take(kind)?)?)),
        "oauth2" => Auth::OAuth2(Box::new(oauth::oauth2(reader.take(kind)?)?)),
        "hmac" => Auth::Hmac(Box::new(signatures::hmac(&below(keys::HMAC)?)?)),
        "http_signature" => {
            let signature = signatures::http_signature(&below(keys::HTTP_SIGNATURE)?)?;
            Auth::HttpSignature(Box::new(signature))
        }
        "query" => query(&below(keys::AUTH_QUERY)?)?,
        // Of the tables, and so one of those above.
        _ => return None,
    };
    Some(Credential {
        auth,
        place: below_destination(&field.path),
    })
}

/// `auth[1]` of `destinations.NAME.auth[1]`.
fn below_destination(path: &str) -> String {
    path.splitn(3, '.').last().unwrap_or_default().to_owned()
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
