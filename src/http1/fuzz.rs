//! Heads and bodies as [`crate::fuzz`] reads them, with the checks that hold for any bytes.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Frame;
use tokio::io::{AsyncRead, ReadBuf};

use super::decoder::{Decoder, chunk_size};
use super::framing::{BodyEncoding, Facts, Framing};
use super::wire::Wire;
use super::{Error, HeadRules, RawTarget, head};

use crate::message::{Fields, Request, Response};

/// Fields that concern one connection, or that the writer sets.
const HOP: [&str; 5] = ["connection", "content-length", "host", "te", "transfer-encoding"];

const RULES: HeadRules = HeadRules {
    count: 100,
    keeps_spelling: false,
    size: 16 * 1024,
};

/// A head as we read it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Method and target as they are sent on; or the status and an empty text.
    pub start: (String, String),
    /// The target of a request as `http` reads it.
    pub uri: http::Uri,
    /// Whether the target has characters that a URI cannot hold; `uri` has them percent-encoded.
    pub is_raw: bool,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// How the end of the body is known.
    pub ends: Ends,
    /// Whether the connection may carry another message after this one.
    pub keeps_alive: bool,
    /// How many bytes come after the head.
    pub rest: usize,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// There is no body.
    Nothing,
    /// In bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Reads the head of a request, and checks what must hold for any.
pub(crate) fn request(bytes: &[u8]) -> Option<Head> {
    let read = |bytes: &[u8], step, most| {
        let (head, rest) = read_head(bytes, step, head::probe_request)?;
        let (request, facts) = head::request(&head, most)?;
        let framing = Framing::of_request(request.version(), &facts).map_err(Error::Malformed)?;
        Ok((request, facts, framing, rest))
    };
    let (request, facts, framing, rest) = read_both_ways(read, bytes)?;
    let head = of_request(&request, &facts, framing, rest);
    // What we write from it must be read in the same way.
    let authority = HeaderValue::from_static("a.test");
    let encoding = encoding(framing);
    let (parts, ()) = request.into_parts();
    let written = head::write_request(&parts, &authority, None, &encoding, false);
    let (again, facts, framing, rest) =
        read(&written, usize::MAX, usize::MAX).expect("our own head is well-formed");
    assert_eq!(rest, 0, "nothing comes after our own head");
    let again = of_request(&again, &facts, framing, rest);
    assert_eq!((&again.start, again.ends), (&head.start, head.ends));
    let is_kept = |(name, _): &&(String, Vec<u8>)| !HOP.contains(&name.as_str());
    assert!(
        again
            .fields
            .iter()
            .filter(is_kept)
            .eq(head.fields.iter().filter(is_kept))
    );
    Some(head)
}

/// Reads the head of an answer to a request with `method`, and checks what must hold for any.
pub(crate) fn response(method: &Method, bytes: &[u8]) -> Option<Head> {
    let read = |bytes: &[u8], step, most| {
        let (head, rest) = read_head(bytes, step, head::probe_response)?;
        let (response, facts) = head::response(&head, most)?;
        let framing = Framing::of_response(method, response.status(), response.version(), &facts)
            .map_err(Error::Malformed)?;
        Ok((response, facts, framing, rest))
    };
    let (response, facts, framing, rest) = read_both_ways(read, bytes)?;
    let head = of_response(&response, &facts, framing, rest);
    let (parts, ()) = response.into_parts();
    let written = head::write_response(&parts, &encoding(framing), None);
    let (again, facts, framing, rest) =
        read(&written, usize::MAX, usize::MAX).expect("our own head is well-formed");
    assert_eq!(rest, 0, "nothing comes after our own head");
    let again = of_response(&again, &facts, framing, rest);
    assert_eq!(again.start, head.start);
    // An answer without a body may keep the length that its body would have.
    if !matches!(head.ends, Ends::Nothing) {
        assert_eq!(again.ends, head.ends);
    }
    let is_kept = |(name, _): &&(String, Vec<u8>)| !HOP.contains(&name.as_str()) && name != "date";
    assert!(
        again
            .fields
            .iter()
            .filter(is_kept)
            .eq(head.fields.iter().filter(is_kept))
    );
    Some(head)
}

/// Reads a body. The result must not depend on the pieces in which the bytes arrive. Returns whether it is whole.
pub(crate) fn body(ends: Ends, bytes: &[u8]) -> bool {
    let [whole, halves, single] =
        [usize::MAX, bytes.len() / 2 + 1, 1].map(|step| read_body(ends, bytes, step));
    assert_eq!(whole, halves, "in two pieces");
    assert_eq!(whole, single, "one byte at a time");
    assert!(whole.data.len() + whole.rest <= bytes.len(), "bytes from nowhere");
    match ends {
        Ends::Length(length) if !whole.has_fault => assert_eq!(whole.data.len() as u64, length),
        Ends::Nothing => assert_eq!((whole.data.len(), whole.rest), (0, 0)),
        Ends::UntilClose => assert_eq!(whole.data, bytes),
        Ends::Chunked | Ends::Length(_) => {}
    }
    !whole.has_fault
}

/// Reads the line of a chunk's size, and compares it with the grammar of RFC 9112 section 7.1. `line` has a line feed at
/// its end only.
pub(crate) fn size(line: &[u8]) -> bool {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let Ok(size) = chunk_size(line) else {
        let text = str::from_utf8(line).unwrap_or_default();
        let plain = text
            .strip_suffix("\r\n")
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        assert!(
            plain.is_none() || digits == 0 || digits > 16,
            "a plain size is refused"
        );
        return false;
    };
    let text = str::from_utf8(&line[..digits]).expect("digits are ASCII");
    assert_eq!(u64::from_str_radix(text, 16), Ok(size));
    let rest = line[digits..]
        .strip_suffix(b"\r\n")
        .expect("it ends as a line does");
    let extension = rest.trim_ascii_start();
    assert!(
        extension.is_empty() || extension.starts_with(b";"),
        "what follows is an extension"
    );
    assert!(!rest.iter().any(|byte| b"\r\n".contains(byte)), "one line");
    true
}

/// The result of reading a body.
#[derive(Debug, PartialEq, Eq)]
struct ReadBody {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    has_fault: bool,
    /// How many bytes come after the body.
    rest: usize,
}

fn read_body(ends: Ends, bytes: &[u8], step: usize) -> ReadBody {
    let framing = match ends {
        Ends::Chunked => Framing::Chunked,
        Ends::Length(0) | Ends::Nothing => Framing::None,
        Ends::Length(length) => Framing::Length(length),
        Ends::UntilClose => Framing::UntilClose,
    };
    let mut wire = Wire::new(Pieces { rest: bytes, step });
    let mut decoder = Decoder::new(framing, RULES);
    let mut context = Context::from_waker(Waker::noop());
    let mut body = ReadBody {
        data: Vec::new(),
        trailers: None,
        has_fault: false,
        rest: 0,
    };
    loop {
        match decoder.poll_frame(&mut wire, &mut context) {
            Poll::Pending => panic!("it waits for a stream that is always ready"),
            Poll::Ready(None) => break,
            Poll::Ready(Some(Err(_))) => {
                body.has_fault = true;
                let after = decoder.poll_frame(&mut wire, &mut context);
                assert!(
                    matches!(after, Poll::Ready(Some(Err(_)))),
                    "after a fault there are only faults"
                );
                break;
            }
            Poll::Ready(Some(Ok(frame))) => keep(frame, &mut body),
        }
    }
    if !body.has_fault && !matches!(ends, Ends::Nothing | Ends::Length(0)) {
        body.rest = wire.ahead.len() + wire.stream.rest.len();
    }
    body
}

fn keep(frame: Frame<Bytes>, body: &mut ReadBody) {
    match frame.into_data() {
        Ok(data) => {
            assert!(!data.is_empty(), "an empty piece");
            body.data.extend_from_slice(&data);
        }
        Err(frame) => {
            let before = body
                .trailers
                .replace(frame.into_trailers().expect("it is no data"));
            assert_eq!(before, None, "trailers come once");
        }
    }
}

/// Reads the first head of a stream. Returns it, and how many bytes come after it.
fn read_head(
    bytes: &[u8],
    step: usize,
    probe: impl Fn(&[u8]) -> Result<(), Error>,
) -> Result<(Bytes, usize), Error> {
    let mut wire = Wire::new(Pieces { rest: bytes, step });
    let mut context = Context::from_waker(Waker::noop());
    match wire.poll_head(&mut context, RULES.size, probe) {
        Poll::Pending => panic!("it waits for a stream that is always ready"),
        Poll::Ready(Ok(None)) => Err(Error::Incomplete),
        Poll::Ready(Ok(Some(head))) => Ok((head, wire.ahead.len() + wire.stream.rest.len())),
        Poll::Ready(Err(error)) => Err(error),
    }
}

fn of_request(request: &Request<()>, facts: &Facts, framing: Framing, rest: usize) -> Head {
    let raw = request
        .extensions()
        .get::<RawTarget>()
        .and_then(|raw| raw.of(request.uri()));
    let origin = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let origin = raw.unwrap_or(origin.as_bytes());
    let slash = if origin.starts_with(b"?") { "/" } else { "" };
    let target = format!("{slash}{}", String::from_utf8_lossy(origin));
    Head {
        start: (request.method().to_string(), target),
        uri: request.uri().clone(),
        is_raw: raw.is_some(),
        ..of_fields(request.version(), request.headers(), facts, framing, rest)
    }
}

fn of_response(response: &Response<()>, facts: &Facts, framing: Framing, rest: usize) -> Head {
    Head {
        start: (response.status().as_str().to_owned(), String::new()),
        ..of_fields(response.version(), response.headers(), facts, framing, rest)
    }
}

fn of_fields(version: Version, fields: &Fields, facts: &Facts, framing: Framing, rest: usize) -> Head {
    let pair =
        |(name, value): (&http::HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    Head {
        start: Default::default(),
        uri: http::Uri::default(),
        is_raw: false,
        is_old: version == Version::HTTP_10,
        fields: fields.iter().map(pair).collect(),
        ends: match framing {
            Framing::None => Ends::Nothing,
            Framing::Length(length) => Ends::Length(length),
            Framing::Chunked => Ends::Chunked,
            Framing::UntilClose => Ends::UntilClose,
        },
        keeps_alive: facts.keeps_alive(version) && !facts.has_both_framings(),
        rest,
    }
}

fn encoding(framing: Framing) -> BodyEncoding {
    match framing {
        Framing::None => BodyEncoding::None,
        Framing::Length(length) => BodyEncoding::Length(length),
        Framing::Chunked => BodyEncoding::Chunked,
        Framing::UntilClose => BodyEncoding::UntilClose,
    }
}

/// A message, and how many bytes were left behind its head.
type HeadReading<T> = (T, Facts, Framing, usize);

/// Reads a head in one piece and byte by byte, which must come to the same.
fn read_both_ways<T: Debug>(
    read: impl Fn(&[u8], usize, usize) -> Result<HeadReading<T>, Error>,
    bytes: &[u8],
) -> Option<HeadReading<T>> {
    // Without the error, because the rule that a head breaks first may depend on how much of it has arrived.
    let shown = |read: &Result<HeadReading<T>, Error>| match read {
        Ok((message, facts, framing, rest)) => format!("{message:?} {facts:?} {framing:?} {rest}"),
        Err(_) => "refused".to_owned(),
    };
    let whole = read(bytes, usize::MAX, RULES.count);
    let piecewise = read(bytes, 1, RULES.count);
    assert_eq!(shown(&piecewise), shown(&whole), "one byte at a time");
    whole.ok()
}

/// A stream that is always ready and gives at most `step` bytes at once.
struct Pieces<'b> {
    rest: &'b [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.rest.len().min(self.step).min(buffer.remaining());
        let (piece, rest) = self.rest.split_at(count);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
