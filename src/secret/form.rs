//! The wrappers that editors, shells and platforms put around keys and certificates: a byte order mark, UTF-16,
//! base64.
//!
//! Windows PowerShell writes UTF-16 where somebody redirects into a file. Variables of build systems and of bound
//! services are often base64 of a whole PEM file, since their line ends did not survive otherwise.

use data_encoding::BASE64_NOPAD;
use zeroize::Zeroizing;

/// A PEM file in base64, in UTF-16, in base64 once more: nobody wraps more often on purpose.
const MOST_LAYERS: usize = 4;

/// How the keystores of Java before version 9 begin.
pub(super) const JKS: &[u8] = &[0xfe, 0xed, 0xfe, 0xed];
pub(super) const JCEKS: &[u8] = &[0xce; 4];

const BEGIN: &[u8] = b"-----BEGIN ";

/// Returns the content inside all wrappers; `None` where there is no wrapper.
pub(super) fn unwrapped(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut inner: Option<Zeroizing<Vec<u8>>> = None;
    for _ in 0..MOST_LAYERS {
        let outer = inner.as_ref().map_or(bytes, |inner| inner.as_slice());
        let next = without_mark(outer).or_else(|| from_base64(outer));
        match next {
            Some(next) => inner = Some(next),
            None => break,
        }
    }
    inner
}

/// Whether PEM, DER or a Java keystore begins here, or whether there is PEM anywhere in the text.
fn is_plain(bytes: &[u8]) -> bool {
    is_binary(bytes) || memchr::memmem::find(bytes, BEGIN).is_some()
}

/// Whether this begins as DER or a Java keystore does. Text does not: `0` is not followed by a byte above ASCII,
/// nor by one that happens to be the length of the rest, but in texts that are of no use here.
pub(super) fn is_binary(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x80..=0x84, ..] => true,
        [0x30, length, rest @ ..] => usize::from(*length) == rest.len(),
        _ => bytes.starts_with(JKS) || bytes.starts_with(JCEKS),
    }
}

/// UTF-8 of a text that has a byte order mark, or is UTF-16 without one.
fn without_mark(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        // A character of UTF-16 takes three bytes at most for its two.
        let mut text = Zeroizing::new(Vec::with_capacity(bytes.len() / 2 * 3));
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        for character in char::decode_utf16(units) {
            let mut room = [0; 4];
            let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
            text.extend_from_slice(character.encode_utf8(&mut room).as_bytes());
        }
        text
    };
    match bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => Some(Zeroizing::new(text.to_vec())),
        [0xff, 0xfe, text @ ..] => Some(wide(text, u16::from_le_bytes)),
        // A Java keystore begins with the same byte.
        [0xfe, 0xff, text @ ..] => Some(wide(text, u16::from_be_bytes)),
        [0x20..0x7f, 0, 0x20..0x7f, 0, ..] => Some(wide(bytes, u16::from_le_bytes)),
        [0, 0x20..0x7f, 0, 0x20..0x7f, ..] => Some(wide(bytes, u16::from_be_bytes)),
        _ => None,
    }
}

/// Decodes base64 of either alphabet, padded or not, with any line ends; `None` where the result is nothing that is
/// looked for here.
fn from_base64(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if is_plain(bytes) {
        return None;
    }
    let mut letters = letters(bytes);
    for letter in letters.iter_mut() {
        match letter {
            b'-' => *letter = b'+',
            b'_' => *letter = b'/',
            _ => {}
        }
    }
    let letters = match letters.iter().position(|byte| *byte == b'=') {
        Some(end) if letters[end..].iter().all(|byte| *byte == b'=') => &letters[..end],
        Some(_) => return None,
        None => &letters[..],
    };
    let inner = decoded(letters)?;
    let is_wrapped = without_mark(&inner).is_some() || inner.is_ascii();
    (is_plain(&inner) || is_wrapped).then_some(inner)
}

/// Decodes unpadded base64.
fn decoded(letters: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut inner = Zeroizing::new(vec![0; BASE64_NOPAD.decode_len(letters.len()).ok()?]);
    let length = BASE64_NOPAD.decode_mut(letters, &mut inner).ok()?;
    inner.truncate(length);
    Some(inner)
}

/// Decodes the content of a block of PEM, without headers; `None` where that is not base64.
pub(super) fn body(letters_and_ends: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let letters = letters(letters_and_ends);
    let unpadded = match letters.as_slice() {
        [rest @ .., b'=', b'='] | [rest @ .., b'='] => rest,
        all => all,
    };
    // Padding counts: where it lacks, something was cut off.
    match letters.len() % 4 {
        0 => decoded(unpadded),
        _ => None,
    }
}

/// The letters of base64, without whitespace and the two characters `\n`.
fn letters(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut letters = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match rest {
            [b'\\', b'n' | b'r' | b't', tail @ ..] => tail,
            _ => {
                letters.extend((!byte.is_ascii_whitespace()).then_some(byte));
                tail
            }
        };
    }
    letters
}
