//! What gRPC says about limits: an answer that is over with its head ("Trailers-Only" of gRPC's protocol over HTTP/2) has
//! the status 200 and tells in `grpc-status` what became of the call.
//!
//! How long to wait stands in `grpc-status-details-bin`: a message `google.rpc.Status` in Base64, which may have a
//! `google.rpc.RetryInfo` among its details. Three fields of it are looked for here, by their numbers.

use std::time::Duration;

use data_encoding::BASE64_NOPAD;
use http::{HeaderMap, StatusCode};

use super::Why;

/// What became of a call, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// RESOURCE_EXHAUSTED: what a limit says, and what the libraries of gRPC say of a message that is too large, which is
    /// left out.
    Exhausted,
    /// UNAVAILABLE: what a limit says at Envoy, and what many failures say.
    Unavailable,
}

impl Code {
    /// `None`: it is no call, it went well, it is not over yet, or it failed otherwise.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if status != StatusCode::OK {
            return None;
        }
        match headers.get("grpc-status")?.as_bytes() {
            b"8" if is_too_large(headers) => None,
            b"8" => Some(Self::Exhausted),
            b"14" => Some(Self::Unavailable),
            _ => None,
        }
    }
}

/// In the words of grpc-go and C ("received message larger than max"), Java ("gRPC message exceeds maximum size") and .NET
/// ("Received message exceeds the maximum configured message size").
fn is_too_large(headers: &HeaderMap) -> bool {
    let message = headers
        .get("grpc-message")
        .and_then(|message| message.to_str().ok());
    message.is_some_and(|message| {
        let words = [
            "message larger than max",
            "message exceeds maximum",
            "message exceeds the maximum",
        ];
        words.iter().any(|words| message.contains(words))
    })
}

/// How long RetryInfo asks to wait; `None` where there is no RetryInfo.
pub(super) fn retry_delay(details: &str) -> Result<Option<Duration>, Why> {
    let status = BASE64_NOPAD
        .decode(details.trim_end_matches('=').as_bytes())
        .map_err(|_| "not Base64")?;
    let infos = Fields(&status).filter_map(|(number, value)| match (number, value) {
        (3, Value::Bytes(any)) => retry_info(any),
        _ => None,
    });
    Ok(infos.max())
}

/// Of a `google.protobuf.Any`.
fn retry_info(any: &[u8]) -> Option<Duration> {
    let part = |wanted| {
        Fields(any).find_map(|(number, value)| match value {
            Value::Bytes(bytes) if number == wanted => Some(bytes),
            _ => None,
        })
    };
    if !part(1)?.ends_with(b"/google.rpc.RetryInfo") {
        return None;
    }
    let (_, delay) = Fields(part(2)?).find(|(number, _)| *number == 1)?;
    let Value::Bytes(delay) = delay else { return None };
    let (mut seconds, mut nanos) = (0, 0);
    for (number, value) in Fields(delay) {
        match (number, value) {
            (1, Value::Number(number)) => seconds = number,
            (2, Value::Number(number)) => nanos = number,
            _ => {}
        }
    }
    // Negative numbers are the largest ones here.
    i64::try_from(seconds).ok()?;
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// The fields of a message of Protocol Buffers, up to one that is malformed.
struct Fields<'b>(&'b [u8]);

enum Value<'b> {
    Bytes(&'b [u8]),
    Number(u64),
}

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Value<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.varint()?;
            let value = match tag & 7 {
                0 => Value::Number(self.varint()?),
                1 => Value::Bytes(self.bytes(8)?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    Value::Bytes(self.bytes(length)?)
                }
                5 => Value::Bytes(self.bytes(4)?),
                _ => return None,
            };
            // Only a text, bytes or a message has a length that it tells.
            if tag & 7 == 0 || tag & 7 == 2 {
                return Some((tag >> 3, value));
            }
        }
    }
}

impl<'b> Fields<'b> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..10 {
            let [byte] = *self.bytes(1)? else { return None };
            number |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}
