//! Decodes a text, one layer of escapes after the other.
//!
//! One pass decodes the outermost escapes of every kind: percent-encoding, JSON and JavaScript, HTML and XML, and
//! the zero bytes of UTF-16 and UTF-32. A decoded text is never longer, and each byte remembers where it came from.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr3};
use zeroize::{Zeroize, Zeroizing};

/// The longest reference, from `&` to `;`, with leading zeros.
const LONGEST_ENTITY: usize = 14;

/// A text, or the result of decoding it one or more times.
#[derive(Debug)]
pub(super) struct DecodedLayer<'a> {
    pub(super) text: WipedText<'a>,
    /// The position of each byte in the original text. `None`: this is the original text.
    from: Option<Vec<u32>>,
    /// The end of the decoded part in the original text. An unfinished escape may follow.
    end: usize,
}

/// The bytes of a layer. Decoded bytes are wiped.
#[derive(Debug)]
pub(super) struct WipedText<'a>(Cow<'a, [u8]>);

/// The first character of a text.
enum DecodedCharacter {
    /// A byte that is not an escape.
    Literal,
    /// An escape: its bytes, their number, and the length of the escape.
    Escaped([u8; 4], usize, usize),
    /// The text ends within an escape.
    Unfinished,
}

impl<'a> DecodedLayer<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self {
            text: WipedText(Cow::Borrowed(text)),
            from: None,
            end: text.len(),
        }
    }

    /// Decodes the next layer. `None`: nothing to decode. Unless `is_last`, an escape at the end may continue in
    /// the next text.
    pub(super) fn decoded(&self, is_last: bool) -> Option<DecodedLayer<'static>> {
        let text = &*self.text;
        if !may_be_encoded(text) {
            return None;
        }
        count(text.len());
        let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut from = Vec::with_capacity(text.len());
        let (mut at, mut end) = (0, self.end);
        while at < text.len() {
            let (bytes, length, taken) = match piece(&text[at..]) {
                DecodedCharacter::Escaped(bytes, length, taken) => (bytes, length, taken),
                DecodedCharacter::Unfinished if !is_last => {
                    end = self.start(at);
                    break;
                }
                DecodedCharacter::Literal | DecodedCharacter::Unfinished => {
                    let run = text[at + 1..].iter().position(|byte| begins_escape(*byte));
                    let next = run.map_or(text.len(), |run| at + 1 + run);
                    decoded.extend_from_slice(&text[at..next]);
                    from.extend((at..next).map(|at| self.start(at) as u32));
                    at = next;
                    continue;
                }
            };
            decoded.extend_from_slice(&bytes[..length]);
            from.extend(std::iter::repeat_n(self.start(at) as u32, length));
            at += taken;
        }
        // Every escape is longer than its character.
        let is_changed = decoded.len() < text.len() || end < self.end;
        is_changed.then(|| DecodedLayer {
            text: WipedText(Cow::Owned(std::mem::take(&mut *decoded))),
            from: Some(from),
            end,
        })
    }

    /// Returns the position in the original text of a byte of this layer.
    pub(super) fn start(&self, at: usize) -> usize {
        match &self.from {
            _ if at >= self.text.len() => self.end,
            None => at,
            Some(from) => from[at] as usize,
        }
    }

    /// Returns the range of the original text for a range of this layer.
    pub(super) fn place(&self, piece: Range<usize>) -> Range<usize> {
        let last = self.start(piece.end - 1);
        // One escape may decode to several bytes.
        let next = (piece.end..).find(|at| self.start(*at) != last || *at >= self.text.len());
        self.start(piece.start)..self.start(next.unwrap_or(piece.end))
    }

    /// Returns the last position up to `place` in the original text that is not inside an escape.
    pub(super) fn border(&self, place: usize) -> usize {
        match &self.from {
            Some(from) if place < self.end => {
                let after = from.partition_point(|from| *from as usize <= place);
                after.checked_sub(1).map_or(0, |at| from[at] as usize)
            }
            Some(_) | None => place.min(self.end),
        }
    }
}

impl std::ops::Deref for WipedText<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for WipedText<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// Whether a text has a byte with which an escape begins.
pub(super) fn may_be_encoded(text: &[u8]) -> bool {
    memchr3(b'%', b'\\', b'&', text).is_some() || memchr(0, text).is_some()
}

fn begins_escape(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&' | 0)
}

/// Decodes the first character of `text`, which is not empty.
fn piece(text: &[u8]) -> DecodedCharacter {
    match text[0] {
        b'%' if text.get(1) == Some(&b'u') => unit(text),
        b'%' => byte(text, 1),
        b'\\' => backslash(text),
        b'&' => html(text),
        0 => DecodedCharacter::Escaped([0; 4], 0, 1),
        _ => DecodedCharacter::Literal,
    }
}

struct NotHexadecimal;

/// Reads a number of `digits` digits. `None`: the text ends before.
fn hexadecimal(text: &[u8], digits: usize) -> Result<Option<u32>, NotHexadecimal> {
    let mut number = 0;
    for at in 0..digits {
        let Some(byte) = text.get(at) else {
            return Ok(None);
        };
        let digit = char::from(*byte).to_digit(16).ok_or(NotHexadecimal)?;
        number = number * 16 + digit;
    }
    Ok(Some(number))
}

/// Decodes two digits after a prefix of `mark` bytes.
fn byte(text: &[u8], mark: usize) -> DecodedCharacter {
    match hexadecimal(&text[mark..], 2) {
        Ok(Some(byte)) => DecodedCharacter::Escaped([byte.to_be_bytes()[3], 0, 0, 0], 1, mark + 2),
        Ok(None) => DecodedCharacter::Unfinished,
        Err(NotHexadecimal) => DecodedCharacter::Literal,
    }
}

/// Decodes RFC 8259 section 7, and `\'` and `\x27` as in JavaScript. Escaped control characters are left: no secret
/// contains one.
fn backslash(text: &[u8]) -> DecodedCharacter {
    match text.get(1) {
        None => DecodedCharacter::Unfinished,
        Some(b'u') => unit(text),
        Some(b'x') => byte(text, 2),
        Some(kind @ (b'"' | b'\'' | b'/' | b'\\')) => DecodedCharacter::Escaped([*kind, 0, 0, 0], 1, 2),
        Some(_) => DecodedCharacter::Literal,
    }
}

/// Decodes four digits after a prefix of two bytes, and a second escape for a surrogate pair.
fn unit(text: &[u8]) -> DecodedCharacter {
    let high = match hexadecimal(&text[2..], 4) {
        Ok(Some(high)) => high,
        Ok(None) => return DecodedCharacter::Unfinished,
        Err(NotHexadecimal) => return DecodedCharacter::Literal,
    };
    if !(0xd800..0xdc00).contains(&high) {
        return character(high, 6);
    }
    match text.get(6..8) {
        Some(mark) if *mark == text[..2] => {}
        Some(_) => return DecodedCharacter::Literal,
        None => return DecodedCharacter::Unfinished,
    }
    match hexadecimal(&text[8..], 4) {
        Ok(Some(low @ 0xdc00..=0xdfff)) => character(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
        Ok(None) => DecodedCharacter::Unfinished,
        Ok(Some(_)) | Err(NotHexadecimal) => DecodedCharacter::Literal,
    }
}

/// Decodes a character reference of HTML or XML: a number, or the name of an ASCII character.
fn html(text: &[u8]) -> DecodedCharacter {
    let within = &text[1..text.len().min(LONGEST_ENTITY)];
    let may_go_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'#';
    let Some(end) = within.iter().position(|byte| !may_go_on(byte)) else {
        return if text.len() < LONGEST_ENTITY {
            DecodedCharacter::Unfinished
        } else {
            DecodedCharacter::Literal
        };
    };
    if within[end] != b';' {
        return DecodedCharacter::Literal;
    }
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    let code = match &within[..end] {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        name => (ENTITIES.iter())
            .find(|(own, _)| own.as_bytes() == name)
            .map(|(_, byte)| u32::from(*byte)),
    };
    code.map_or(DecodedCharacter::Literal, |code| character(code, end + 2))
}

/// Encodes the character of an escape of `taken` bytes in UTF-8.
fn character(code: u32, taken: usize) -> DecodedCharacter {
    let Some(character) = char::from_u32(code) else {
        return DecodedCharacter::Literal;
    };
    let mut bytes = [0; 4];
    let length = character.encode_utf8(&mut bytes).len();
    DecodedCharacter::Escaped(bytes, length, taken)
}

/// The names of ASCII characters in HTML and XML.
const ENTITIES: [(&str, u8); 36] = [
    ("amp", b'&'),
    ("apos", b'\''),
    ("ast", b'*'),
    ("bsol", b'\\'),
    ("colon", b':'),
    ("comma", b','),
    ("commat", b'@'),
    ("dollar", b'$'),
    ("equals", b'='),
    ("excl", b'!'),
    ("grave", b'`'),
    ("gt", b'>'),
    ("hat", b'^'),
    ("Hat", b'^'),
    ("lbrace", b'{'),
    ("lbrack", b'['),
    ("lcub", b'{'),
    ("lowbar", b'_'),
    ("lpar", b'('),
    ("lsqb", b'['),
    ("lt", b'<'),
    ("num", b'#'),
    ("percnt", b'%'),
    ("period", b'.'),
    ("plus", b'+'),
    ("quest", b'?'),
    ("quot", b'"'),
    ("rbrace", b'}'),
    ("rbrack", b']'),
    ("rcub", b'}'),
    ("rpar", b')'),
    ("rsqb", b']'),
    ("semi", b';'),
    ("sol", b'/'),
    ("verbar", b'|'),
    ("vert", b'|'),
];

/// Counts steps for the tests, because time says nothing on a busy machine.
pub(super) fn count(steps: usize) {
    #[cfg(test)]
    STEPS.set(STEPS.get() + steps);
    #[cfg(not(test))]
    let _ = steps;
}

#[cfg(test)]
thread_local! {
    pub(super) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
