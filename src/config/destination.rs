//! From the tree to [`Destination`].

use std::collections::HashSet;

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, Method};

use super::auth::auth;
use super::decode::timeouts;
use super::keys;
use super::limits;
use super::node::shown;
use super::reader::{Field, Reader};
use super::{
    ClientCertificate, Destination, Group, HeaderText, Headers, HttpVersion, Mode, Pin, SecretRef, Timeouts,
    Tls, TlsVersion,
};
use crate::host::{Host, HostPattern};

/// All destinations; what one does not say about time limits is as in `fallback`.
pub(super) fn destinations(field: Option<Field<'_>>, fallback: Timeouts) -> Vec<Destination> {
    let named = field.map(Field::named).unwrap_or_default();
    let destination = |(entry, field): (&super::node::Entry, Field<'_>)| {
        name(&entry.key, &field);
        let reader = field.reader(keys::DESTINATION)?;
        Some(destination(&entry.key, &reader, fallback))
    };
    named.into_iter().filter_map(destination).collect()
}

/// Complains about a name that cannot be a label.
fn name(name: &str, field: &Field<'_>) {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.len() > LONGEST_NAME || !name.bytes().all(sound) {
        field.problem(
            "not a name for a destination",
            "use at most 63 of a to z, 0 to 9, - and _",
        );
    } else if matches!(name, "none" | "unlisted") {
        field.problem(
            "the name is taken: metrics use it for requests without a destination",
            "choose another",
        );
    }
}

fn destination(name: &str, reader: &Reader<'_>, fallback: Timeouts) -> Destination {
    let http = [
        ("auto", HttpVersion::Auto),
        ("1", HttpVersion::H1),
        ("2", HttpVersion::H2),
    ];
    let mode = [
        ("auto", Mode::Auto),
        ("intercept", Mode::Intercept),
        ("tunnel", Mode::Tunnel),
    ];
    let auth = reader.take("auth").map(auth).unwrap_or_default();
    let cache = limits::cache(reader);
    if cache.is_some() && auth.iter().any(|rule| rule.credentials.len() > 1) {
        reader.problem(
            "a cache beside a pool: what is answered to one credential would be given for another",
            "remove cache, or keep one credential",
        );
    }
    let boolean = |name| reader.take(name).and_then(Field::boolean).unwrap_or(false);
    Destination {
        name: name.to_owned(),
        auth,
        cache,
        circuit_breaker: limits::circuit_breaker(reader),
        concurrency: limits::concurrency(reader),
        headers: headers(&reader.section("headers", keys::HEADERS)),
        hosts: hosts(reader),
        http: reader
            .take("http")
            .and_then(|field| field.choice(&http))
            .unwrap_or(HttpVersion::Auto),
        insecure_attach_over_http: boolean("insecure_attach_over_http"),
        limits_apply_to: limits::apply_to(reader),
        methods: filled(
            reader.take("methods"),
            "remove the key to allow every method",
            method,
        ),
        mode: reader
            .take("mode")
            .and_then(|field| field.choice(&mode))
            .unwrap_or(Mode::Auto),
        on_limit: limits::on_limit(reader),
        paths: filled(reader.take("paths"), "remove the key to allow every path", path),
        preserve_header_case: boolean("preserve_header_case"),
        priorities: limits::priorities(reader),
        queue: limits::queue(reader),
        rate_limits: limits::rate_limits(reader.take("rate_limit")),
        rehearse: limits::rehearse(reader),
        respect_upstream: reader.take("respect_upstream").and_then(Field::boolean),
        retry: limits::retry(reader),
        scrub: boolean("scrub"),
        timeouts: timeouts(&reader.section("timeouts", keys::DESTINATION_TIMEOUTS), fallback),
        tls: reader.take("tls").and_then(tls),
        upgrade: reader.take("upgrade").and_then(Field::boolean),
        via: boolean("via"),
    }
}

fn hosts(reader: &Reader<'_>) -> Vec<HostPattern> {
    let Some(field) = reader.need("hosts", "write hosts: [api.example.com]") else {
        return Vec::new();
    };
    let host = |field: &Field<'_>| {
        let text = field.text("write a host, as in api.example.com")?;
        match HostPattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let right = "write host, host:port, \"host:*\", \"*.suffix\", an address or a CIDR block; no scheme, no path";
                field.problem(format_args!("`{}`: {error}", shown(text)), right);
                None
            }
        }
    };
    filled(Some(field), "write at least one, as in [api.example.com]", host)
}

/// The items of a list that must have some; what is not written has none.
fn filled<'a, T>(field: Option<Field<'a>>, right: &str, item: impl Fn(&Field<'a>) -> Option<T>) -> Vec<T> {
    let fields = field
        .and_then(|field| field.filled_list(right))
        .unwrap_or_default();
    fields.iter().filter_map(item).collect()
}

pub(super) fn method(field: &Field<'_>) -> Option<Method> {
    let text = field.text("write a method, as in GET")?;
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT) => {
            field.problem(
                "`CONNECT` is how a tunnel is asked for, not a request to a destination",
                "remove it",
            );
            None
        }
        Ok(_) if text != upper => {
            field.problem(
                format_args!("`{}`: methods are case-sensitive", shown(text)),
                format_args!("write {upper}"),
            );
            None
        }
        Ok(method) => Some(method),
        Err(_) => {
            field.problem(
                format_args!("`{}` is not a method", shown(text)),
                "write a method, as in GET",
            );
            None
        }
    }
}

pub(super) fn path(field: &Field<'_>) -> Option<String> {
    let right = "write /api, /api/* (one segment) or /api/** (everything below)";
    let text = field.text(right)?;
    let what = if !text.starts_with('/') {
        "does not begin with /"
    } else if text.contains(['?', '#']) {
        "is more than a path: a query or fragment is not looked at"
    } else if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        "contains a blank or control character"
    } else if text
        .split('/')
        .any(|segment| segment.contains("**") && segment != "**")
    {
        "has ** beside other characters; it stands for whole segments"
    } else {
        return Some(text.to_owned());
    };
    field.problem(format_args!("`{}` {what}", shown(text)), right);
    None
}

fn headers(reader: &Reader<'_>) -> Headers {
    let mut seen = HashSet::new();
    let mut set = Vec::new();
    for (entry, field) in reader.take("set").map(Field::named).unwrap_or_default() {
        let Some(name) = header_name(&field, &entry.key) else {
            continue;
        };
        if !seen.insert(name.clone()) {
            field.problem(
                "the same header stands twice; upper and lower case are one",
                "keep one of them",
            );
        }
        set.extend(header_text(&field).map(|value| (name, value)));
    }
    let remove = reader.take("remove").and_then(Field::list).unwrap_or_default();
    Headers {
        remove: remove.iter().filter_map(removed).collect(),
        set,
    }
}

/// A name that the configuration may attach.
pub(super) fn header_name(field: &Field<'_>, text: &str) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        field.problem(
            format_args!("`{}` is not the name of a header", shown(text)),
            "write one as in X-Agency",
        );
        return None;
    };
    if OURS.contains(&name.as_str()) {
        field.problem(
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

/// A plain value is shown to nobody either: it may be a secret that stands in the wrong place.
fn header_text(field: &Field<'_>) -> Option<HeaderText> {
    let text = field.text("write a value or a reference")?;
    if let Some(reference) = SecretRef::parse(text, field.decoding.environment) {
        let reference = reference
            .map_err(|error| field.problem(&error, error.right()))
            .ok();
        return reference.map(HeaderText::Reference);
    }
    match HeaderValue::from_str(text) {
        // HTTP/2 servers refuse values with blanks around them, and nobody agrees on what other bytes mean.
        Ok(value) if text.is_ascii() && text.trim() == text => Some(HeaderText::Plain(value)),
        Ok(_) | Err(_) => {
            let what = "the value has a control or non-ASCII character, or a blank at an end";
            field.problem(what, "write printable ASCII on one line");
            None
        }
    }
}

fn removed(field: &Field<'_>) -> Option<String> {
    let text = field.text("write the name of a header, as in X-Internal-*")?;
    let prefix = text.strip_suffix('*');
    let name = prefix.unwrap_or(text);
    if name.is_empty() || HeaderName::from_bytes(name.as_bytes()).is_err() || name.contains('*') {
        let right = "write one as in X-Agency, or X-Internal-* for all that begin so";
        field.problem(
            format_args!("`{}` is not the name of a header", shown(text)),
            right,
        );
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let hit = OURS.iter().find(|ours| {
        if prefix.is_some() {
            ours.starts_with(&lower)
        } else {
            **ours == lower
        }
    });
    if let Some(ours) = hit {
        let what = format!(
            "`{}` would remove {ours}, which belongs to the connection",
            shown(text)
        );
        field.problem(what, "remove it, or write a longer name");
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn tls(field: Field<'_>) -> Option<Tls> {
    let reader = field.reader(keys::TLS)?;
    let versions = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
    let server_name = |field: Field<'_>| {
        let text = field.text("write a host, as in api.example.com")?;
        let host = Host::parse(text).ok();
        if host.is_none() {
            let right = "write a name or an address, without a port";
            field.problem(format_args!("`{}` is not a host", shown(text)), right);
        }
        host
    };
    Some(Tls {
        ca: reader.take("ca").and_then(Field::secret),
        ca_extra: reader.take("ca_extra").and_then(Field::secret),
        client_certificate: reader.take("client_certificate").and_then(client_certificate),
        crl: reader.take("crl").map(crl).unwrap_or_default(),
        groups: reader.take("groups").map(groups).unwrap_or_default(),
        min_version: reader
            .take("min_version")
            .and_then(|field| field.choice(&versions))
            .unwrap_or_default(),
        pins: reader.take("pins").map(pins).unwrap_or_default(),
        server_name: reader.take("server_name").and_then(server_name),
    })
}

/// One reference or several; `null` is none.
fn crl(field: Field<'_>) -> Vec<SecretRef> {
    if field.is_null() {
        return Vec::new();
    }
    if field.is_list() {
        let references = field.filled_list("remove the key to ask for no list");
        let references = references.unwrap_or_default().into_iter();
        return references.filter_map(Field::secret).collect();
    }
    field.secret().into_iter().collect()
}

/// Groups of the key exchange, each once.
fn groups(field: Field<'_>) -> Vec<Group> {
    let known = [
        Group::X25519MlKem768,
        Group::X25519,
        Group::Secp256r1,
        Group::Secp384r1,
    ];
    let names = known.map(|group| group.to_string());
    let choices: Vec<_> = names.iter().map(String::as_str).zip(known).collect();
    let mut found = Vec::new();
    for field in field
        .filled_list("remove the key to offer what is usual")
        .unwrap_or_default()
    {
        match field.clone().choice(&choices) {
            Some(group) if found.contains(&group) => {
                field.problem(format_args!("`{group}` stands here twice"), "remove it");
            }
            group => found.extend(group),
        }
    }
    found
}

/// A list of hashes; `null` is none.
fn pins(field: Field<'_>) -> Vec<Pin> {
    if field.is_null() {
        return Vec::new();
    }
    let pin = |field: &Field<'_>| {
        let right =
            "write sha256/ and the 44 characters of base64 that the command in docs/destinations.md prints";
        let text = field.text(right)?;
        // curl writes two slashes.
        let hash = text.strip_prefix("sha256/").map(|rest| match rest.len() {
            45 => rest.strip_prefix('/').unwrap_or(rest),
            _ => rest,
        });
        let bytes = hash.and_then(|hash| BASE64.decode(hash.as_bytes()).ok());
        let pin = bytes.and_then(|bytes| bytes.try_into().ok()).map(Pin);
        if pin.is_none() {
            let what = format_args!("`{}` is not the SHA-256 of a public key", shown(text));
            field.problem(what, right);
        }
        pin
    };
    let fields = field.list().unwrap_or_default();
    fields.iter().filter_map(pin).collect()
}

fn client_certificate(field: Field<'_>) -> Option<ClientCertificate> {
    let right = "write { cert: file:PATH, key: file:PATH }, { pkcs12: file:PATH, password: env:NAME } or instance_identity";
    if let Some(word) = field.scalar() {
        if word == "instance_identity" {
            return Some(ClientCertificate::InstanceIdentity);
        }
        field.problem("has to be a mapping or instance_identity", right);
        return None;
    }
    let reader = field.reader(keys::CLIENT_CERTIFICATE)?;
    let secret = |name| reader.take(name).map(Field::secret);
    let (cert, key, passphrase) = (secret("cert"), secret("key"), secret("passphrase"));
    let (file, password) = (secret("pkcs12"), secret("password"));
    let problem = |what: &str, right: &str| {
        reader.problem(what, right);
        None
    };
    match (cert, key, file) {
        (None, None, None) => problem("nothing says where it is", right),
        (_, None, None) => problem("`key` is missing", PEM),
        (None, _, None) => problem("`cert` is missing", PEM),
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => problem(
            "`pkcs12` stands beside `cert` or `key`, and holds both",
            "keep one or the other",
        ),
        (_, _, None) if password.is_some() => problem(
            "`password` is of a PKCS#12 file",
            "write `passphrase`, which is of a key in PEM",
        ),
        (None, None, Some(_)) if passphrase.is_some() => problem(
            "`passphrase` is of a key in PEM",
            "write `password`, which is of a PKCS#12 file",
        ),
        (None, None, Some(file)) => Some(ClientCertificate::Pkcs12 {
            file: file?,
            password: optional(password)?,
        }),
        (Some(cert), Some(key), None) => Some(ClientCertificate::Pem {
            cert: cert?,
            key: key?,
            passphrase: optional(passphrase)?,
        }),
    }
}

/// A value that may be left out; `None` where it is written and wrong.
fn optional<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

/// Names of a connection rather than of a message (RFC 9110, section 7.6), what frames a message, and what names
/// its target: whoever could set or remove one could smuggle a request or send it elsewhere.
const OURS: &[&str] = &[
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

const LONGEST_NAME: usize = 63;

const PEM: &str = "write { cert: file:PATH, key: file:PATH }";
