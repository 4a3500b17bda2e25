//! How the names of fields are spelled on the wire (`preserve_header_case`).
//!
//! `http` keeps names in lower case, and without that key they are sent so, which costs nothing. With the key a message keeps
//! the head that it came in. A value is a view into that head, so its name is found in front of it.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

/// The spelling of names in one message.
#[derive(Clone, Debug)]
pub(crate) enum Spelling {
    /// As in this head. Names that it does not have get their usual spelling.
    Sent(Bytes),
    /// The message came over HTTP/2, or was made here.
    Usual,
}

impl Spelling {
    /// Writes a field line.
    pub(super) fn write(&self, out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
        match self.sent(name, value) {
            Some(spelled) => out.put_slice(spelled),
            None => write_usual(out, name.as_str()),
        }
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }

    /// Returns the name in front of its value; `None` if the value is empty, or not a view into the head.
    fn sent(&self, name: &HeaderName, value: &HeaderValue) -> Option<&[u8]> {
        let Self::Sent(head) = self else { return None };
        let at = (value.as_bytes().as_ptr().addr()).checked_sub(head.as_ptr().addr())?;
        let line = head.get(..at)?.rsplit(|byte| *byte == b'\n').next()?;
        let spelled = line.trim_ascii_end().strip_suffix(b":")?;
        spelled
            .eq_ignore_ascii_case(name.as_str().as_bytes())
            .then_some(spelled)
    }
}

/// Writes a name as most programs write it: `Content-Type`, `ETag`.
pub(super) fn write_usual(out: &mut BytesMut, name: &str) {
    let is_odd = |usual: &&&str| usual.eq_ignore_ascii_case(name);
    if let Some(usual) = ODD.iter().find(is_odd) {
        return out.put_slice(usual.as_bytes());
    }
    let mut begins = true;
    for byte in name.bytes() {
        out.put_u8(if begins { byte.to_ascii_uppercase() } else { byte });
        begins = byte == b'-';
    }
}

/// Names with another usual spelling than a capital for each word.
const ODD: &[&str] = &[
    "CDN-Loop",
    "Content-MD5",
    "DNT",
    "ETag",
    "NEL",
    "Sec-GPC",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "SOAPAction",
    "TE",
    "WWW-Authenticate",
    "X-UA-Compatible",
    "X-XSS-Protection",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_front_of_its_value() {
        let head = Bytes::from_static(b"GET / HTTP/1.1\r\nSOAPaction:\t x\r\nX-ID:2\r\nEmpty:\r\n\r\n");
        let value = |text: &str| {
            let at = head
                .windows(text.len())
                .position(|word| word == text.as_bytes())
                .unwrap();
            HeaderValue::from_maybe_shared(head.slice(at..at + text.len())).unwrap()
        };
        let (sent, usual) = (Spelling::Sent(head.clone()), Spelling::Usual);
        for (spelling, name, value, expected) in [
            (&sent, "soapaction", value("x"), "SOAPaction: x\r\n"),
            (&sent, "x-id", value("2"), "X-ID: 2\r\n"),
            (&usual, "soapaction", value("x"), "SOAPAction: x\r\n"),
            (&sent, "empty", HeaderValue::from_static(""), "Empty: \r\n"),
            // A value that was taken over by another field.
            (&sent, "etag", value("x"), "ETag: x\r\n"),
            (
                &sent,
                "x-made-here",
                HeaderValue::from_static("x"),
                "X-Made-Here: x\r\n",
            ),
        ] {
            let mut out = BytesMut::new();
            spelling.write(&mut out, &HeaderName::from_static(name), &value);
            assert_eq!(out, expected);
        }
    }
}
