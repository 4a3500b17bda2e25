//! What a text says under its escapes, layer by layer.
//!
//! One pass takes off what was written last, of each kind: percent-encoding as in URLs, JSON and JavaScript, HTML and XML,
//! and the zeros that UTF-16 and UTF-32 put between ASCII. It never makes a text longer, and remembers of each byte where it
//! came from.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr3};
use zeroize::{Zeroize, Zeroizing};

/// A text, or what it says under so many layers of escapes.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) text: Text<'a>,
    /// Of each byte where it stands in the text; `None`: they are the text.
    from: Option<Vec<u32>>,
    /// Up to where the text is decoded. What follows may be an escape, with more text.
    end: usize,
}

/// The bytes of a layer, wiped when they are not the text itself.
#[derive(Debug)]
pub(super) struct Text<'a>(Cow<'a, [u8]>);

/// What a text begins with.
enum Piece {
    /// No escape: the byte means itself.
    Literal,
    /// Its bytes, how many they are, and how many the escape takes.
    Escaped([u8; 4], usize, usize),
    /// The text ends within an escape.
    Unfinished,
}

impl<'a> Layer<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self {
            text: Text(Cow::Borrowed(text)),
            from: None,
            end: text.len(),
        }
    }

    /// The next layer; `None` where there is none. An escape that the text ends in is one only where more can follow.
    pub(super) fn decoded(&self, is_last: bool) -> Option<Layer<'static>> {
        let text = &*self.text;
        if memchr3(b'%', b'\\', b'&', text).is_none() && memchr(0, text).is_none() {
            return None;
        }
        count(text.len());
        let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut from = Vec::with_capacity(text.len());
        let (mut at, mut end) = (0, self.end);
        while at < text.len() {
            let (bytes, length, taken) = match piece(&text[at..]) {
                Piece::Escaped(bytes, length, taken) => (bytes, length, taken),
                Piece::Unfinished if !is_last => {
                    end = self.start(at);
                    break;
                }
                Piece::Literal | Piece::Unfinished => {
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
        // Each escape is longer than what it says.
        let is_changed = decoded.len() < text.len() || end < self.end;
        is_changed.then(|| Layer {
            text: Text(Cow::Owned(std::mem::take(&mut *decoded))),
            from: Some(from),
            end,
        })
    }

    /// Where in the text the byte at this place of the layer begins.
    pub(super) fn start(&self, at: usize) -> usize {
        match &self.from {
            _ if at >= self.text.len() => self.end,
            None => at,
            Some(from) => from[at] as usize,
        }
    }

    /// What stands in the text for a piece of the layer.
    pub(super) fn place(&self, piece: Range<usize>) -> Range<usize> {
        let last = self.start(piece.end - 1);
        // An escape may say several bytes.
        let next = (piece.end..).find(|at| self.start(*at) != last || *at >= self.text.len());
        self.start(piece.start)..self.start(next.unwrap_or(piece.end))
    }

    /// The last place of the text up to `place` that is within no escape.
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

impl std::ops::Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Text<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

fn begins_escape(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&' | 0)
}

/// The first character of `text`, which is not empty.
fn piece(text: &[u8]) -> Piece {
    match text[0] {
        b'%' if text.get(1) == Some(&b'u') => unit(text),
        b'%' => byte(text, 1),
        b'\\' => backslash(text),
        b'&' => html(text),
        0 => Piece::Escaped([0; 4], 0, 1),
        _ => Piece::Literal,
    }
}

struct NotHexadecimal;

/// The number that `text` begins with, of so many digits; `None`: it ends before.
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

/// Two digits after a mark of so many bytes.
fn byte(text: &[u8], mark: usize) -> Piece {
    match hexadecimal(&text[mark..], 2) {
        Ok(Some(byte)) => Piece::Escaped([byte.to_be_bytes()[3], 0, 0, 0], 1, mark + 2),
        Ok(None) => Piece::Unfinished,
        Err(NotHexadecimal) => Piece::Literal,
    }
}

/// RFC 8259 section 7, and `\'` and `\x27` as in JavaScript. What is a control character is in no secret.
fn backslash(text: &[u8]) -> Piece {
    match text.get(1) {
        None => Piece::Unfinished,
        Some(b'u') => unit(text),
        Some(b'x') => byte(text, 2),
        Some(kind @ (b'"' | b'\'' | b'/' | b'\\')) => Piece::Escaped([*kind, 0, 0, 0], 1, 2),
        Some(_) => Piece::Literal,
    }
}

/// Four digits after a mark of two bytes, twice for a surrogate pair.
fn unit(text: &[u8]) -> Piece {
    let high = match hexadecimal(&text[2..], 4) {
        Ok(Some(high)) => high,
        Ok(None) => return Piece::Unfinished,
        Err(NotHexadecimal) => return Piece::Literal,
    };
    if !(0xd800..0xdc00).contains(&high) {
        return character(high, 6);
    }
    match text.get(6..8) {
        Some(mark) if *mark == text[..2] => {}
        Some(_) => return Piece::Literal,
        None => return Piece::Unfinished,
    }
    match hexadecimal(&text[8..], 4) {
        Ok(Some(low @ 0xdc00..=0xdfff)) => character(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
        Ok(None) => Piece::Unfinished,
        Ok(Some(_)) | Err(NotHexadecimal) => Piece::Literal,
    }
}

/// Numbers, and the names of what stands in ASCII.
fn html(text: &[u8]) -> Piece {
    let within = &text[1..text.len().min(LONGEST_ENTITY)];
    let may_go_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'#';
    let Some(end) = within.iter().position(|byte| !may_go_on(byte)) else {
        return if text.len() < LONGEST_ENTITY {
            Piece::Unfinished
        } else {
            Piece::Literal
        };
    };
    if within[end] != b';' {
        return Piece::Literal;
    }
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    let code = match &within[..end] {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        name => (ENTITIES.iter())
            .find(|(own, _)| own.as_bytes() == name)
            .map(|(_, byte)| u32::from(*byte)),
    };
    code.map_or(Piece::Literal, |code| character(code, end + 2))
}

/// An escape of so many bytes, in UTF-8.
fn character(code: u32, taken: usize) -> Piece {
    let Some(character) = char::from_u32(code) else {
        return Piece::Literal;
    };
    let mut bytes = [0; 4];
    let length = character.encode_utf8(&mut bytes).len();
    Piece::Escaped(bytes, length, taken)
}

/// From `&` to `;`, zeros before a number included.
const LONGEST_ENTITY: usize = 14;

/// As XML and HTML name what stands in ASCII.
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

/// Counts steps, for the tests: time says nothing on a busy machine.
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
