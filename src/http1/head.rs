//! Reads heads into `http`'s types, and writes them. Names are written in lower case, as in HTTP/2, or as [`spelling`] says.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::framing::{BodyEncoding, Facts};
use super::{Error, Excess, Fault, ProxyForm, RawTarget, ReasonPhrase, Spelling, names, spelling, target};
use crate::message::{Fields, Request, RequestHead, Response, ResponseHead};
use crate::stream::TLS_HANDSHAKE;

/// Room for fields that are added later.
const MORE_FIELDS: usize = 4;
/// The most fields for which room is made at once.
const TYPICAL_COUNT: usize = 100;
/// Bytes of a field, estimated so that most heads need no second allocation.
const TYPICAL_FIELD: usize = 32;
/// Bytes of a field that is written, likewise.
const TYPICAL_LINE: usize = 48;
const VERSION: &[u8] = b"HTTP/1.";

/// Reads the head of a request, its empty line included. It may have at most `most` fields.
pub(super) fn request(head: &Bytes, most: usize) -> Result<(Request<()>, Facts), Error> {
    let (line, fields) = first_line(head);
    let Some((method, target, version)) = words(line) else {
        return Err(no_words(line));
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        version if version.starts_with(b"HTTP/") => return Err(Error::Version),
        _ => return Err(Error::Malformed(Fault::RequestLine)),
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).map_err(|_| no_request(head))?;
    target::check_fragment(target).map_err(Error::Malformed)?;
    *request.uri_mut() = match Uri::from_maybe_shared(head.slice_ref(target)) {
        Ok(uri) => uri,
        Err(_) => {
            let (uri, raw) = RawTarget::read(target).map_err(Error::Malformed)?;
            request.extensions_mut().insert(raw);
            uri
        }
    };
    if *request.method() == Method::OPTIONS {
        target::mean_the_server(request.uri_mut(), target);
    }
    *request.version_mut() = version;
    let facts = read_fields(head, fields, request.headers_mut(), most)?;
    Ok((request, facts))
}

/// Reads the head of a response, its empty line included. It may have at most `most` fields.
pub(super) fn response(head: &Bytes, most: usize) -> Result<(Response<()>, Facts), Error> {
    let (line, fields) = first_line(head);
    let (version, status) = match line.split_at_checked(VERSION.len() + 2) {
        Some((b"HTTP/1.1 ", status)) => (Version::HTTP_11, status),
        Some((b"HTTP/1.0 ", status)) => (Version::HTTP_10, status),
        // A higher minor version is read as the highest that we know (RFC 9110 section 2.5).
        Some(([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b' '], status)) => {
            (Version::HTTP_11, status)
        }
        Some((version, _)) if version.starts_with(b"HTTP/") => return Err(Error::Version),
        _ => return Err(Error::Malformed(Fault::NoStatusLine)),
    };
    let (code, reason) = match status.split_at_checked(3) {
        Some((code, [])) => (code, &[][..]),
        Some((code, [b' ', reason @ ..])) => (code, reason),
        _ => return Err(Error::Malformed(Fault::Status)),
    };
    let mut response = Response::new(());
    *response.received_mut() = Some(head.clone());
    *response.status_mut() = StatusCode::from_bytes(code).map_err(|_| Error::Malformed(Fault::Status))?;
    *response.version_mut() = version;
    if response.status().canonical_reason().map(str::as_bytes) != Some(reason) {
        // It may have the same characters as a field value.
        let reason = HeaderValue::from_bytes(reason).map_err(|_| Error::Malformed(Fault::Reason))?;
        response.extensions_mut().insert(ReasonPhrase(reason));
    }
    let facts = read_fields(head, fields, response.headers_mut(), most)?;
    Ok((response, facts))
}

/// Reads a trailer section, its empty line included. It may have at most `most` fields.
pub(super) fn trailers(section: &Bytes, most: usize) -> Result<Fields, Error> {
    let mut trailers = Fields::new();
    match read_fields(section, section, &mut trailers, most) {
        Err(Error::TooLarge(_)) => Err(Error::TooLarge(Excess::TrailerCount)),
        read => read.map(|_| trailers),
    }
}

/// Returns what is wrong with a message that does not begin as a request does.
fn no_request(start: &[u8]) -> Error {
    Error::Malformed(if start.first() == Some(&TLS_HANDSHAKE) {
        Fault::Tls
    } else {
        Fault::RequestLine
    })
}

/// Returns the three words of a request line; `None` if it has more or fewer.
fn words(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = line.iter().position(|byte| *byte == b' ')?;
    let (method, rest) = (&line[..first], &line[first + 1..]);
    // The target is long enough that a search by blocks pays.
    let end = memchr::memchr(b' ', rest)?;
    let (target, version) = (&rest[..end], &rest[end + 1..]);
    (!version.contains(&b' ')).then_some((method, target, version))
}

/// Returns what is wrong with a request line that has not three words.
fn no_words(line: &[u8]) -> Error {
    let (first, last) = (
        line.split(|byte| *byte == b' ').next(),
        line.rsplit(|byte| *byte == b' ').next(),
    );
    let is_method = first.is_some_and(|method| Method::from_bytes(method).is_ok());
    // `GET  / HTTP/1.1` is another matter: there the target would be empty.
    let is_target = line.get(first.map_or(0, <[u8]>::len) + 1) != Some(&b' ');
    if is_method
        && is_target
        && last.is_some_and(|version| version.starts_with(VERSION))
        && line.len() > VERSION.len()
    {
        Error::Malformed(Fault::Target(Some(b' ')))
    } else {
        no_request(line)
    }
}

/// Whether `start` can be the beginning of a request.
pub(super) fn probe_request(start: &[u8]) -> Result<(), Error> {
    let method = start.split(|byte| *byte == b' ').next().unwrap_or_default();
    match Method::from_bytes(method) {
        Ok(_) => Ok(()),
        Err(_) => Err(no_request(start)),
    }
}

/// Whether `start` can be the beginning of a response.
pub(super) fn probe_response(start: &[u8]) -> Result<(), Error> {
    let length = start.len().min(VERSION.len());
    if start[..length] == VERSION[..length] {
        Ok(())
    } else {
        Err(Error::Malformed(Fault::NoStatusLine))
    }
}

/// Returns the head of a request, as it is written, for the host that `authority` names: in origin-form, or as `proxy` wants
/// it. `is_spelled`: field names get the app's spelling, or the usual one; else lower case.
pub(super) fn write_request(
    request: &RequestHead,
    authority: &HeaderValue,
    proxy: Option<&ProxyForm>,
    encoding: &BodyEncoding,
    is_spelled: bool,
) -> BytesMut {
    let spelling = is_spelled.then(|| request.extensions.get().unwrap_or(&Spelling::Usual));
    let raw = request
        .extensions
        .get::<RawTarget>()
        .and_then(|raw| raw.of(&request.uri));
    let target = raw.unwrap_or_else(|| {
        let target = request.uri.path_and_query();
        target.map_or("/", |target| target.as_str()).as_bytes()
    });
    let mut out =
        BytesMut::with_capacity(request.headers.len() * TYPICAL_LINE + target.len() + 128 + encoding.room());
    out.put_slice(request.method.as_str().as_bytes());
    out.put_slice(b" ");
    let target = proxy.map_or(target, |proxy| proxy.begin(&mut out, authority, target));
    // `http://host?query` has an empty path, which origin-form cannot have.
    if target.first() == Some(&b'?') {
        out.put_slice(b"/");
    }
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    write_spelled(&mut out, &header::HOST, authority, spelling);
    if let Some(credentials) = proxy.and_then(|proxy| proxy.authorization.as_ref()) {
        // pproxy finds it in no other spelling.
        write_spelled(
            &mut out,
            &header::PROXY_AUTHORIZATION,
            credentials,
            Some(&Spelling::Usual),
        );
    }
    let (mut has_length, mut has_te) = (false, false);
    for (name, value) in &request.headers {
        if *name == header::CONTENT_LENGTH {
            has_length = true;
        } else if *name == header::TE {
            has_te = true;
            write_spelled(&mut out, name, value, spelling);
        } else if *name != header::HOST && *name != header::TRANSFER_ENCODING {
            write_spelled(&mut out, name, value, spelling);
        }
    }
    if has_te {
        // RFC 9110 section 10.1.4: it goes one hop, and has to say so.
        write_line(&mut out, "connection", b"TE", spelling);
    }
    // RFC 9110 section 8.6: some servers refuse a POST that does not say how long it is.
    let may_have_body = matches!(request.method, Method::PATCH | Method::POST | Method::PUT);
    if may_have_body || has_length || !matches!(encoding, BodyEncoding::None) {
        write_framing(&mut out, encoding, spelling);
    }
    out.put_slice(b"\r\n");
    out
}

impl ProxyForm {
    /// Writes the target of a request up to its path, and returns what follows (RFC 9112 section 3.2).
    fn begin<'t>(&self, out: &mut BytesMut, authority: &HeaderValue, path: &'t [u8]) -> &'t [u8] {
        match &self.scheme {
            Some(scheme) => {
                out.put_slice(scheme.as_bytes());
                out.put_slice(b"://");
                out.put_slice(authority.as_bytes());
                // OPTIONS of the whole server has no path there (RFC 9112 section 3.2.4).
                if path == b"*" { b"" } else { path }
            }
            None => {
                out.put_slice(authority.as_bytes());
                b""
            }
        }
    }
}

/// Returns the head of a response, as it is written. `encoding` decides the framing fields. An answer without a body keeps the
/// Content-Length that it came with, except with 1xx and 204.
pub(super) fn write_response(
    response: &ResponseHead,
    encoding: &BodyEncoding,
    connection: Option<&'static [u8]>,
) -> BytesMut {
    let (status, fields) = (response.status, &response.headers);
    let spelling = response.extensions.get::<Spelling>();
    let mut out = BytesMut::with_capacity(fields.len() * TYPICAL_LINE + 160 + encoding.room());
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    match response.extensions.get::<ReasonPhrase>() {
        Some(ReasonPhrase(reason)) => out.put_slice(reason.as_bytes()),
        None => out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.put_slice(b"\r\n");
    let is_lengthless = status.is_informational() || status == StatusCode::NO_CONTENT;
    let (mut has_length, mut has_date) = (false, false);
    for (name, value) in fields {
        if *name == header::CONTENT_LENGTH {
            let is_right = match encoding {
                BodyEncoding::None => !is_lengthless,
                BodyEncoding::Length(_) => true,
                BodyEncoding::Chunked | BodyEncoding::UntilClose => false,
            };
            if !is_right || has_length {
                continue;
            }
            has_length = true;
        } else if *name == header::TRANSFER_ENCODING || connection.is_some() && *name == header::CONNECTION {
            continue;
        } else if *name == header::DATE {
            has_date = true;
        }
        write_spelled(&mut out, name, value, spelling);
    }
    if !has_length && !matches!(encoding, BodyEncoding::None) {
        write_framing(&mut out, encoding, spelling);
    }
    if !has_date && !status.is_informational() {
        write_date(&mut out, spelling);
    }
    if let Some(connection) = connection {
        write_line(&mut out, "connection", connection, spelling);
    }
    out.put_slice(b"\r\n");
    out
}

pub(super) fn write_field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn write_spelled(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue, spelling: Option<&Spelling>) {
    match spelling {
        None => write_field(out, name, value),
        Some(spelling) => spelling.write(out, name, value),
    }
}

/// Writes a field of our own.
fn write_line(out: &mut BytesMut, name: &str, value: &[u8], spelling: Option<&Spelling>) {
    write_name(out, name, spelling);
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn write_name(out: &mut BytesMut, name: &str, spelling: Option<&Spelling>) {
    match spelling {
        None => out.put_slice(name.as_bytes()),
        Some(_) => spelling::write_usual(out, name),
    }
    out.put_slice(b": ");
}

fn write_framing(out: &mut BytesMut, encoding: &BodyEncoding, spelling: Option<&Spelling>) {
    let length = match encoding {
        BodyEncoding::Chunked => return write_line(out, "transfer-encoding", b"chunked", spelling),
        BodyEncoding::UntilClose => return,
        BodyEncoding::Length(length) => *length,
        BodyEncoding::None => 0,
    };
    write_name(out, "content-length", spelling);
    // Writing to a buffer that grows cannot fail.
    let _ = write!(out, "{length}\r\n");
}

/// Writes Date, which an intermediary adds to a response without it (RFC 9110 section 6.6.1).
fn write_date(out: &mut BytesMut, spelling: Option<&Spelling>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() || text.is_empty() {
            *second = now.as_secs();
            *text = crate::units::http_date(UNIX_EPOCH + Duration::from_secs(*second));
        }
        write_line(out, "date", text.as_bytes(), spelling);
    });
}

/// Splits off the first line, without its end.
fn first_line(head: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match memchr::memchr(b'\n', head) {
        Some(end) => (&head[..end], &head[end + 1..]),
        None => (head, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// Reads `lines`, a part of `head`, up to the empty line; at most `most` fields. The values are views into `head`.
///
/// `http`'s types decide which characters a name or a value may have. They refuse all that could be taken for another line,
/// folded lines included.
fn read_fields(head: &Bytes, lines: &[u8], fields: &mut Fields, most: usize) -> Result<Facts, Error> {
    // Not room for `most`: with more fields the list grows.
    *fields = Fields::with_capacity((lines.len() / TYPICAL_FIELD).min(TYPICAL_COUNT) + MORE_FIELDS);
    let mut facts = Facts::default();
    let (mut count, mut from) = (0, 0);
    let mut ends = memchr::memchr_iter(b'\n', lines);
    loop {
        let end = ends.next().unwrap_or(lines.len());
        let line = &lines[from..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        from = (end + 1).min(lines.len());
        if line.is_empty() {
            return if from == lines.len() {
                Ok(facts)
            } else {
                Err(Error::Malformed(Fault::BareCr))
            };
        }
        count += 1;
        if count > most {
            return Err(Error::TooLarge(Excess::HeadCount));
        }
        // Looked for only if the line is refused.
        let fault = || Error::Malformed(Fault::of_line(line));
        // Names are so short that a plain loop beats a search by blocks.
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(fault)?;
        let (name, value) = (&line[..colon], trim_blanks(&line[colon + 1..]));
        let name = names::read(name).map_err(|_| fault())?;
        facts.add(&name, value);
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value)).map_err(|_| fault())?;
        fields.append(name, value);
    }
}

/// Removes blanks and tabs at both ends. Not carriage returns: a value that has one is refused.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
