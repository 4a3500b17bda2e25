//! What gRPC says about limits.
//!
//! A response that ends with its head ("Trailers-Only" in gRPC's protocol over HTTP/2) has the status 200 and
//! reports the result of the call in `grpc-status`. The time to wait is in `grpc-status-details-bin`: a message
//! `google.rpc.Status` in Base64, which may contain a `google.rpc.RetryInfo`. The three fields needed are found
//! by their numbers.

use std::time::Duration;

use data_encoding::BASE64_NOPAD;
use http::StatusCode;

use super::FieldError;

use crate::message::Fields;

/// The result of a call, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcCode {
    /// RESOURCE_EXHAUSTED: sent by limits. The gRPC libraries also send it for a message that is too large; that
    /// case is left out.
    Exhausted,
    /// UNAVAILABLE: sent by Envoy's limits, and for many failures.
    Unavailable,
}

impl GrpcCode {
    /// `None` where it is not gRPC, or the call succeeded, has not ended, or failed for another reason.
    pub(super) fn of(status: StatusCode, headers: &Fields) -> Option<Self> {
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

/// The texts of grpc-go and C ("received message larger than max"), Java ("gRPC message exceeds maximum size")
/// and .NET ("Received message exceeds the maximum configured message size").
fn is_too_large(headers: &Fields) -> bool {
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

/// Returns how long RetryInfo asks to wait; `None` where there is no RetryInfo.
pub(super) fn retry_delay(details: &str) -> Result<Option<Duration>, FieldError> {
    let status = BASE64_NOPAD
        .decode(details.trim_end_matches('=').as_bytes())
        .map_err(|_| "not Base64")?;
    let infos = ProtoFields(&status).filter_map(|(number, value)| match (number, value) {
        (3, ProtoValue::Bytes(any)) => retry_info(any),
        _ => None,
    });
    Ok(infos.max())
}

/// Reads RetryInfo from a `google.protobuf.Any`.
fn retry_info(any: &[u8]) -> Option<Duration> {
    let part = |wanted| {
        ProtoFields(any).find_map(|(number, value)| match value {
            ProtoValue::Bytes(bytes) if number == wanted => Some(bytes),
            _ => None,
        })
    };
    if !part(1)?.ends_with(b"/google.rpc.RetryInfo") {
        return None;
    }
    let (_, delay) = ProtoFields(part(2)?).find(|(number, _)| *number == 1)?;
    let ProtoValue::Bytes(delay) = delay else {
        return None;
    };
    let (mut seconds, mut nanos) = (0, 0);
    for (number, value) in ProtoFields(delay) {
        match (number, value) {
            (1, ProtoValue::Number(number)) => seconds = number,
            (2, ProtoValue::Number(number)) => nanos = number,
            _ => {}
        }
    }
    // Negative numbers arrive as the largest ones.
    i64::try_from(seconds).ok()?;
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// The fields of a Protocol Buffers message, up to the first malformed one.
struct ProtoFields<'b>(&'b [u8]);

enum ProtoValue<'b> {
    Bytes(&'b [u8]),
    Number(u64),
}

impl<'b> Iterator for ProtoFields<'b> {
    type Item = (u64, ProtoValue<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.varint()?;
            let value = match tag & 7 {
                0 => ProtoValue::Number(self.varint()?),
                1 => ProtoValue::Bytes(self.bytes(8)?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    ProtoValue::Bytes(self.bytes(length)?)
                }
                5 => ProtoValue::Bytes(self.bytes(4)?),
                _ => return None,
            };
            // Fixed-width fields are skipped: none of them is needed.
            if tag & 7 == 0 || tag & 7 == 2 {
                return Some((tag >> 3, value));
            }
        }
    }
}

impl<'b> ProtoFields<'b> {
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
