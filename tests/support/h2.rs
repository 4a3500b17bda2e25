//! HTTP/2 frames as a client that does not behave would write them.

use std::io;

use super::Wire;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Returns the status of a HEADERS frame that begins with it, as usual HPACK encoders write it.
    pub(crate) fn status(&self) -> Option<u16> {
        match self.payload.as_slice() {
            [0x88, ..] => Some(200),
            [0x89, ..] => Some(204),
            [0x8a, ..] => Some(206),
            [0x8b, ..] => Some(304),
            [0x8c, ..] => Some(400),
            [0x8d, ..] => Some(404),
            [0x8e, ..] => Some(500),
            [0x08 | 0x18 | 0x48, 0x03, digits @ ..] => {
                std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok()
            }
            [0x08 | 0x18 | 0x48, length, coded @ ..] if length & 0x80 != 0 => {
                digits(coded.get(..usize::from(length & 0x7f))?)
            }
            _ => None,
        }
    }

    /// Returns the error code of an RST_STREAM or a GOAWAY.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// Says the preface and empty settings.
pub(crate) fn greet(wire: &mut Wire) {
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .send(frame(SETTINGS, 0, 0, &[]));
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads the next frame.
pub(crate) fn read(wire: &mut Wire) -> io::Result<Frame> {
    let head = wire.read_exact(9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Ok(Frame {
        kind: head[3],
        flags: head[4],
        stream,
        payload: wire.read_exact(length as usize)?,
    })
}

/// Reads on until `wanted` or the connection's end.
pub(crate) fn read_until(wire: &mut Wire, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
    while let Ok(frame) = read(wire) {
        if wanted(&frame) {
            return Some(frame);
        }
    }
    None
}

/// Waits for the end of a stream. Returns the status of its answer, or `None` if the stream or the connection
/// was ended.
pub(crate) fn outcome(wire: &mut Wire, stream: u32) -> Option<u16> {
    let mine = |frame: &Frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM);
    read_until(wire, |frame| mine(frame) || frame.kind == GOAWAY).and_then(|frame| {
        if frame.kind == HEADERS {
            frame.status()
        } else {
            None
        }
    })
}

/// Builds a header block, each field literal and never indexed, so that it can contain any bytes.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text);
        }
    }
    bytes
}

/// Builds the header block of a GET.
pub(crate) fn get(authority: &str, path: &str) -> Vec<u8> {
    get_by("https", authority, path)
}

/// Builds the header block of a GET with another scheme.
pub(crate) fn get_by(scheme: &str, authority: &str, path: &str) -> Vec<u8> {
    block(&[
        (b":method", b"GET"),
        (b":scheme", scheme.as_bytes()),
        (b":authority", authority.as_bytes()),
        (b":path", path.as_bytes()),
    ])
}

/// Asks with `head` and resets, 5000 times, and demands that the connection ends as one that costs too much
/// (RFC 9113 section 7: ENHANCE_YOUR_CALM), or is closed.
#[track_caller]
pub(crate) fn assert_resets_are_bounded(wire: &mut Wire, head: &[u8]) {
    let mut flood = Vec::new();
    for stream in (1..10_001).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, head));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    wire.send(&flood);
    let end = read_until(wire, |frame| frame.kind == GOAWAY);
    assert!(
        end.as_ref().is_none_or(|frame| frame.error() == Some(11)),
        "{end:?}"
    );
}

/// Writes an HPACK integer with a prefix of seven bits.
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// Decodes decimal digits in HPACK's Huffman code: five bits for 0 to 2, six for the others.
fn digits(coded: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let value = |bits: &[u8]| bits.iter().fold(0, |value, bit| value << 1 | u16::from(*bit));
    let mut number = 0;
    let mut at = 0;
    for _ in 0..3 {
        let five = value(bits.get(at..at + 5)?);
        let (digit, width) = if five <= 2 {
            (five, 5)
        } else {
            (value(bits.get(at..at + 6)?) - 22, 6)
        };
        number = number * 10 + digit;
        at += width;
    }
    Some(number)
}

#[test]
fn statuses_are_read_whichever_way_they_are_coded() {
    let status = |payload: &[u8]| {
        Frame {
            kind: HEADERS,
            flags: 0,
            stream: 1,
            payload: payload.to_vec(),
        }
        .status()
    };
    assert_eq!(status(&[0x88]), Some(200));
    assert_eq!(status(b"\x48\x03421"), Some(421));
    // RFC 7541 appendix C.6.1: 302 in Huffman code.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
}
