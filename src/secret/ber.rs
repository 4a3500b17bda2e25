//! Reads BER (X.690) that may be damaged, or made to do harm.
//!
//! yasna adds the lengths that it finds to its position before it compares them with what is there: one that is
//! larger than the file makes it panic, or read the same bytes for ever. So every length is looked at before it
//! sees any.

use yasna::{ASN1Result, BERReader};

/// The end mark of a value of indefinite length.
const END: &[u8] = &[0, 0];

/// How deep values may lie in each other. A PKCS#12 store needs a dozen.
const DEEPEST: usize = 40;

/// A length reaches beyond what is there, there is something behind the end, or it is not what was to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Reads the one value that `bytes` are.
pub(super) fn parse<T>(
    bytes: &[u8],
    read: impl for<'b> FnOnce(BERReader<'_, 'b>) -> ASN1Result<T>,
) -> Result<T, Damaged> {
    match after_value(bytes, DEEPEST) {
        Some([]) => yasna::parse_ber(bytes, read).map_err(|_| Damaged),
        Some(_) | None => Err(Damaged),
    }
}

/// Returns the first value of `bytes`, and ignores the rest; `None` where it is not whole.
pub(super) fn first(bytes: &[u8]) -> Option<&[u8]> {
    let rest = after_value(bytes, DEEPEST)?;
    Some(&bytes[..bytes.len() - rest.len()])
}

/// Returns the parts of a sequence or other constructed value; `None` where `bytes` are something else.
pub(super) fn parts(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    if first(bytes)?.len() != bytes.len() {
        return None;
    }
    let (true, rest) = after_tag(bytes)? else {
        return None;
    };
    let (length, mut rest) = length(rest)?;
    let mut parts = Vec::new();
    let ends = |rest: &[u8]| rest.is_empty() || length.is_none() && rest.starts_with(END);
    while !ends(rest) {
        let part = first(rest)?;
        parts.push(part);
        rest = &rest[part.len()..];
    }
    Some(parts)
}

/// Returns the content of a value of definite length, without tag and length.
pub(super) fn content(value: &[u8]) -> Option<&[u8]> {
    let (length, rest) = length(after_tag(value)?.1)?;
    rest.get(..length?)
}

/// Returns the bytes behind the first value; `None` where that value is not whole, to its innermost part.
fn after_value(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    let depth = depth.checked_sub(1)?;
    let (is_constructed, bytes) = after_tag(bytes)?;
    let (length, mut bytes) = length(bytes)?;
    match (length, is_constructed) {
        (Some(length), false) => Some(bytes.split_at_checked(length)?.1),
        (Some(length), true) => {
            let (mut parts, bytes) = bytes.split_at_checked(length)?;
            while !parts.is_empty() {
                parts = after_value(parts, depth)?;
            }
            Some(bytes)
        }
        // Of indefinite length: its parts, up to the end mark.
        (None, true) => loop {
            if let Some(bytes) = bytes.strip_prefix(END) {
                return Some(bytes);
            }
            bytes = after_value(bytes, depth)?;
        },
        (None, false) => None,
    }
}

/// Returns whether the value is constructed, and the bytes behind its tag.
fn after_tag(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let (first, mut bytes) = bytes.split_first()?;
    if first & 0x1f == 0x1f {
        let last = bytes.iter().position(|byte| byte & 0x80 == 0)?;
        bytes = &bytes[last + 1..];
    }
    Some((first & 0x20 != 0, bytes))
}

/// Returns the length (`None`: indefinite) and the bytes behind it.
fn length(bytes: &[u8]) -> Option<(Option<usize>, &[u8])> {
    let (first, bytes) = bytes.split_first()?;
    match usize::from(*first) {
        short @ 0..0x80 => Some((Some(short), bytes)),
        0x80 => Some((None, bytes)),
        long => {
            let (digits, bytes) = bytes.split_at_checked(long & 0x7f)?;
            let add = |length: usize, digit: &u8| Some(length.checked_mul(256)? + usize::from(*digit));
            let length = digits.iter().try_fold(0, add)?;
            Some((Some(length), bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(bytes: &[u8]) -> bool {
        parse(bytes, |reader| reader.read_der()).is_ok()
    }

    #[test]
    fn a_length_is_bounded_by_what_is_there() {
        for whole in [
            &[0x30, 0][..],
            &[0x30, 3, 2, 1, 5],
            &[0x30, 0x81, 3, 2, 1, 5],
            &[0x30, 0x84, 0, 0, 0, 3, 2, 1, 5],
            &[0x30, 0x80, 2, 1, 5, 0, 0],
            &[0x24, 0x80, 4, 1, b'a', 4, 1, b'b', 0, 0],
            &[0x3f, 0x81, 0x10, 2, 5, 0],
        ] {
            assert!(is_whole(whole), "{whole:x?}");
            for end in 0..whole.len() {
                assert!(!is_whole(&whole[..end]), "{:x?}", &whole[..end]);
            }
            assert!(!is_whole(&[whole, &[0]].concat()), "{whole:x?} and a byte more");
        }
        for broken in [
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 5][..],
            &[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 5, 0],
            &[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0],
            &[0x30, 0xff, 0],
            // A part that is larger than the whole; a primitive value without a length.
            &[0x30, 3, 2, 2, 5],
            &[0x04, 0x80, 0, 0],
            &[
                0x30, 14, 4, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf6, 5, 0, 5, 0,
            ],
        ] {
            assert!(!is_whole(broken), "{broken:x?}");
        }
    }

    #[test]
    fn nesting_has_a_bottom() {
        let nested = |depth: usize| {
            let open = [0x30, 0x80].repeat(depth);
            [open, [0, 0].repeat(depth)].concat()
        };
        assert!(is_whole(&nested(DEEPEST)));
        assert!(!is_whole(&nested(DEEPEST + 1)));
        assert!(!is_whole(&nested(500_000)));
    }
}
