//! Capsules with UDP payloads (RFC 9297 section 3, RFC 9298 section 5).
//!
//! ```text
//! type (0: DATAGRAM) │ length │ context ID (0: a UDP payload) │ payload
//! ```
//!
//! Numbers have 1, 2, 4 or 8 bytes (RFC 9000 section 16). Other types and other contexts are skipped, as the RFCs want.

use bytes::{Buf, Bytes, BytesMut};

/// The most that a UDP packet carries.
const MOST_PAYLOAD: u64 = 65_527;
const DATAGRAM: u64 = 0;
const UDP_PAYLOAD: u64 = 0;
/// The longest number.
const LONGEST: u64 = 8;

/// Reads capsules from what came so far.
#[derive(Debug, Default)]
pub(crate) struct CapsuleReader {
    /// Bytes of a skipped capsule that are still to come.
    skipped: u64,
}

/// A capsule that breaks the RFCs: its stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CapsuleError {
    #[error("a DATAGRAM capsule without a context ID")]
    NoContext,
    #[error("a DATAGRAM capsule larger than a UDP packet")]
    TooLarge,
}

impl CapsuleReader {
    /// Takes the next UDP payload out of `buffer`. `None`: more bytes have to come first.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, CapsuleError> {
        loop {
            let skipped = self.skipped.min(buffer.len() as u64);
            buffer.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
            self.skipped -= skipped;
            let mut rest = &buffer[..];
            let (Some(kind), Some(length)) = (number(&mut rest), number(&mut rest)) else {
                return Ok(None);
            };
            let head = buffer.len() - rest.len();
            if kind != DATAGRAM {
                buffer.advance(head);
                self.skipped = length;
                continue;
            }
            if length > MOST_PAYLOAD + LONGEST {
                return Err(CapsuleError::TooLarge);
            }
            let length = usize::try_from(length).map_err(|_| CapsuleError::TooLarge)?;
            if rest.len() < length {
                buffer.reserve(head + length - buffer.len());
                return Ok(None);
            }
            let mut rest = &rest[..length];
            let context = number(&mut rest).ok_or(CapsuleError::NoContext)?;
            let payload = rest.len();
            if payload as u64 > MOST_PAYLOAD {
                return Err(CapsuleError::TooLarge);
            }
            let mut capsule = buffer.split_to(head + length);
            if context == UDP_PAYLOAD {
                return Ok(Some(capsule.split_off(capsule.len() - payload).freeze()));
            }
        }
    }
}

/// Writes the capsule of a UDP payload.
pub(crate) fn capsule(payload: &[u8]) -> Vec<u8> {
    let mut capsule = Vec::with_capacity(1 + 4 + 1 + payload.len());
    capsule.push(0);
    let length = u32::try_from(payload.len() + 1).unwrap_or(u32::MAX);
    match length {
        0..0x40 => capsule.extend(&length.to_be_bytes()[3..]),
        0x40..0x4000 => capsule.extend(&(length | 0x4000).to_be_bytes()[2..]),
        _ => capsule.extend(&(length | 0x8000_0000).to_be_bytes()),
    }
    capsule.push(0);
    capsule.extend_from_slice(payload);
    capsule
}

/// Reads a number of 1, 2, 4 or 8 bytes.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let first = u64::from(first & 0x3f);
    Some(
        number[1..]
            .iter()
            .fold(first, |number, byte| number << 8 | u64::from(*byte)),
    )
}

/// Reads capsules that arrive in pieces of `size` bytes: the pieces make no difference, and what is read is written
/// alike. Returns whether there is no fault.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8], size: usize) -> bool {
    let read = payloads(bytes, size);
    assert_eq!(read, payloads(bytes, bytes.len().max(1)), "pieces of {size}");
    let Ok(read) = read else { return false };
    let written = read
        .iter()
        .flat_map(|payload| capsule(payload))
        .collect::<Vec<_>>();
    assert_eq!(payloads(&written, size), Ok(read));
    true
}

/// Reads all payloads of `bytes`, which come in pieces of `size`.
#[cfg(any(test, fuzzing))]
fn payloads(bytes: &[u8], size: usize) -> Result<Vec<Bytes>, CapsuleError> {
    let (mut reader, mut buffer, mut payloads) = (CapsuleReader::default(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        while let Some(payload) = reader.next(&mut buffer)? {
            payloads.push(payload);
        }
    }
    Ok(payloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 61, 62, 63, 64, 1200, 16_382, 16_383, 16_384, 65_527] {
            let sent: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
            let written = [capsule(&sent), capsule(b"next")].concat();
            for size in [1, 7, 4096, written.len()] {
                let read = payloads(&written, size).unwrap();
                assert_eq!(read, [&sent[..], b"next"], "{length} bytes in pieces of {size}");
            }
        }
    }

    #[test]
    fn numbers_have_four_lengths() {
        // RFC 9000 appendix A.1.
        let cases: [(&[u8], u64); 5] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, expected) in cases {
            let mut rest = bytes;
            assert_eq!((number(&mut rest), rest.len()), (Some(expected), 0));
            for cut in 0..bytes.len() {
                assert_eq!(number(&mut &bytes[..cut]), None, "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn other_capsules_and_other_contexts_are_skipped() {
        let mut bytes = vec![0x17, 5, 1, 2, 3, 4, 5];
        bytes.extend([0, 3, 2, 9, 9]);
        bytes.extend([0x7f, 0xff, 0]);
        // The type and the length may have more bytes than they need.
        bytes.extend([0x40, 0, 0x80, 0, 0, 3, 0x40, 0, b'a']);
        bytes.extend(capsule(b"b"));
        for size in 1..bytes.len() {
            assert_eq!(
                payloads(&bytes, size).unwrap(),
                [&b"a"[..], b"b"],
                "pieces of {size}"
            );
        }
        // A capsule of two exabytes: it is skipped as it comes, and never stored.
        let mut endless = vec![0x17, 0xdf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        endless.resize(1 << 20, b'x');
        assert_eq!(payloads(&endless, 4096), Ok(Vec::new()));
    }

    #[test]
    fn what_no_packet_can_carry_is_an_error() {
        assert_eq!(payloads(&[0, 0], 2), Err(CapsuleError::NoContext));
        assert_eq!(payloads(&[0, 1, 0x40], 3), Err(CapsuleError::NoContext));
        // One byte more than a packet has, then more than a capsule may have; that one is refused by its length alone.
        assert_eq!(
            payloads(&capsule(&vec![0; 65_528]), 70_000),
            Err(CapsuleError::TooLarge)
        );
        assert_eq!(payloads(&[0, 0x80, 1, 0, 0], 5), Err(CapsuleError::TooLarge));
        assert_eq!(
            payloads(&[0, 0xff, 255, 255, 255, 255, 255, 255, 255], 9),
            Err(CapsuleError::TooLarge)
        );
    }
}
