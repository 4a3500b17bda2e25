//! What to look for where an attached secret might come back, and where it stands in a text.
//!
//! An upstream that echoes a request (a debug endpoint, an error page, a redirect) may write a secret differently from
//! how it came: queries are percent-encoded, JSON and HTML have escapes, and each encoder has its own idea of what needs
//! one. So a text is not compared with a list of spellings, it is decoded as it is compared, in each [`Spelling`]. Where
//! to compare at all tells a fast search for the *core*: the longest part of the secret that no encoder changes.
//!
//! What becomes of what is found is decided in `proxy::scrub`.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use memchr::{memchr_iter, memmem};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The secrets of one credential. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needles {
    all: Vec<Arc<Needle>>,
}

/// What is looked for where a credential is another one after a while: made once for each, not for each request.
#[derive(Debug, Default)]
pub(super) struct Changing(ArcSwapOption<(HeaderValue, Arc<Needles>)>);

/// One secret that is looked for.
#[derive(Debug)]
struct Needle {
    secret: Secret,
    /// A part of it that looks the same however it is spelled. Empty: there is none that is worth a search.
    core: Range<usize>,
    /// The most bytes that what stands before the core takes.
    before: usize,
    /// The most bytes that all of it takes.
    longest: usize,
    spellings: &'static [Spelling],
}

/// How a text writes the characters that mean something else in it.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    /// As they are.
    Plain,
    /// URLs and forms.
    Percent,
    Json,
    /// And XML.
    Html,
    /// One within the other, as a URL in JSON: Werkzeug decodes `%3C` of a URL and leaves `%3D`, and then writes JSON.
    Mixed,
}

/// Whether a text begins with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Differs,
    /// It might, with more text.
    EndsEarly,
    /// In so many bytes.
    Same(usize),
}

/// One character of a text.
enum Piece {
    /// No escape: the byte means itself.
    Literal,
    /// Its bytes, how many they are, and how many the escape takes.
    Escaped([u8; 4], usize, usize),
    /// The text ends within an escape.
    Unfinished,
}

impl Needles {
    /// Looks for `secret` as well. `false`: it is so short that other words would be taken for it, and is not looked for.
    pub(crate) fn add(&mut self, secret: &[u8]) -> bool {
        if !Self::finds(secret) {
            return false;
        }
        if !self.all.iter().any(|own| own.secret.expose() == secret) {
            self.all.push(Arc::new(Needle::new(secret)));
        }
        true
    }

    /// Looks for the value of a field: all of it; where it begins with a scheme, as that of Authorization does, what
    /// follows the scheme; and the password in what follows `Basic`. `false`: what counts of it is too short to be looked
    /// for alone.
    pub(crate) fn add_field(&mut self, value: &[u8]) -> bool {
        let is_found = self.add(value);
        let Some(blank) = value.iter().position(|byte| *byte == b' ') else {
            return is_found;
        };
        let (scheme, rest) = (&value[..blank], value[blank..].trim_ascii_start());
        if scheme.eq_ignore_ascii_case(b"Basic") {
            self.add_basic(rest)
        } else {
            self.add(rest)
        }
    }

    /// Looks for `pair`, user name and password in base64 (RFC 7617), and for the password, which may be too short.
    fn add_basic(&mut self, pair: &[u8]) -> bool {
        // Some decoders want no padding, so that others write none.
        let end = pair
            .iter()
            .rposition(|byte| *byte != b'=')
            .map_or(0, |last| last + 1);
        self.add(&pair[..end]);
        let decoded = data_encoding::BASE64_NOPAD
            .decode(&pair[..end])
            .map(Zeroizing::new);
        let password = decoded.as_ref().ok().and_then(|decoded| {
            let colon = decoded.iter().position(|byte| *byte == b':')?;
            decoded.get(colon + 1..)
        });
        password.is_some_and(|password| self.add(password))
    }

    /// Whether a secret is looked for: it is long enough not to be taken for another word.
    pub(crate) fn finds(secret: &[u8]) -> bool {
        secret.len() >= SHORTEST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Tells where secrets stand in `text`; places may overlap, and come in no order.
    pub(crate) fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        for needle in &self.all {
            needle.find(text, &mut found);
        }
    }

    /// How many bytes at the end of `text` may be the beginning of a secret.
    pub(crate) fn begun(&self, text: &[u8]) -> usize {
        let begun = self.all.iter().map(|needle| needle.begun(text));
        begun.max().unwrap_or(0)
    }
}

impl Changing {
    /// What is looked for while a field has this value, and what is `fixed` beside it.
    pub(super) fn with(&self, value: &HeaderValue, fixed: &Needles) -> Arc<Needles> {
        if let Some(last) = &*self.0.load()
            && last.0 == *value
        {
            return Arc::clone(&last.1);
        }
        let mut needles = fixed.clone();
        needles.add_field(value.as_bytes());
        let needles = Arc::new(needles);
        self.0
            .store(Some(Arc::new((value.clone(), Arc::clone(&needles)))));
        needles
    }
}

impl Needle {
    fn new(secret: &[u8]) -> Self {
        let core = core(secret);
        let widest = |part: &[u8]| -> usize {
            let width = |byte: &u8| if is_plain(*byte) { 1 } else { LONGEST_ESCAPE };
            part.iter().map(width).sum()
        };
        Self {
            before: widest(&secret[..core.start]),
            longest: widest(secret),
            core,
            secret: Secret::new(Zeroizing::new(secret.to_vec())),
            spellings: if secret.iter().all(|byte| is_plain(*byte)) {
                &[Spelling::Plain]
            } else {
                &SPELLINGS
            },
        }
    }

    fn find(&self, text: &[u8], found: &mut impl FnMut(Range<usize>)) {
        let secret = self.secret.expose();
        // No escape is shorter than what it stands for.
        if text.len() < secret.len() {
            return;
        }
        if self.core.is_empty() {
            (0..text.len()).for_each(|start| self.find_at(start, text, found));
            return;
        }
        let core = &secret[self.core.clone()];
        let mut from = 0;
        while let Some(at) = memmem::find(&text[from..], core) {
            let at = from + at;
            // What stands before the core takes a byte for each of its bytes, or more.
            let last = at.checked_sub(self.core.start);
            let starts = at.saturating_sub(self.before)..last.map_or(0, |last| last + 1);
            starts.for_each(|start| self.find_at(start, text, found));
            from = at + 1;
        }
    }

    fn find_at(&self, start: usize, text: &[u8], found: &mut impl FnMut(Range<usize>)) {
        for spelling in self.spellings {
            if let Comparison::Same(length) = self.compare(&text[start..], *spelling) {
                found(start..start + length);
            }
        }
    }

    fn begun(&self, text: &[u8]) -> usize {
        let tail = &text[text.len().saturating_sub(self.longest - 1)..];
        let is_begun = |start: &usize| {
            let compare = |spelling: &Spelling| self.compare(&tail[*start..], *spelling);
            self.spellings
                .iter()
                .map(compare)
                .any(|it| it == Comparison::EndsEarly)
        };
        let first = self.secret.expose()[0];
        let start = if is_plain(first) {
            memchr_iter(first, tail).find(is_begun)
        } else {
            (0..tail.len()).find(is_begun)
        };
        start.map_or(0, |start| tail.len() - start)
    }

    fn compare(&self, text: &[u8], spelling: Spelling) -> Comparison {
        let (mut wanted, mut rest) = (self.secret.expose(), text);
        while let Some(byte) = wanted.first() {
            let Some(next) = rest.first() else {
                return Comparison::EndsEarly;
            };
            let piece = if is_plain(*byte) {
                Piece::Literal
            } else {
                spelling.read(rest)
            };
            match piece {
                Piece::Literal if byte == next => (wanted, rest) = (&wanted[1..], &rest[1..]),
                Piece::Literal if spelling.is_blank(*next) && *byte == b' ' => {
                    (wanted, rest) = (&wanted[1..], &rest[1..]);
                }
                Piece::Escaped(bytes, length, taken) if wanted.starts_with(&bytes[..length]) => {
                    (wanted, rest) = (&wanted[length..], &rest[taken..]);
                }
                Piece::Unfinished => return Comparison::EndsEarly,
                Piece::Literal | Piece::Escaped(..) => return Comparison::Differs,
            }
        }
        Comparison::Same(text.len() - rest.len())
    }
}

impl Spelling {
    /// Whether this byte stands for a blank as well as for itself.
    fn is_blank(self, byte: u8) -> bool {
        matches!(self, Self::Percent | Self::Mixed) && byte == b'+'
    }

    /// The first character of `text`, which is not empty.
    fn read(self, text: &[u8]) -> Piece {
        match (self, text[0]) {
            (Self::Percent | Self::Mixed, b'%') => match hexadecimal(&text[1..], 2) {
                Ok(Some(byte)) => Piece::Escaped([byte.to_be_bytes()[3], 0, 0, 0], 1, 3),
                Ok(None) => Piece::Unfinished,
                Err(NotHexadecimal) => Piece::Literal,
            },
            (Self::Json | Self::Mixed, b'\\') => json_escape(text),
            (Self::Html | Self::Mixed, b'&') => html_escape(text),
            (Self::Plain | Self::Percent | Self::Json | Self::Html | Self::Mixed, _) => Piece::Literal,
        }
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

/// RFC 8259 section 7, and `\'` as in JavaScript. What is a control character is in no secret.
fn json_escape(text: &[u8]) -> Piece {
    let Some(kind) = text.get(1) else {
        return Piece::Unfinished;
    };
    if matches!(kind, b'"' | b'\'' | b'/' | b'\\') {
        return Piece::Escaped([*kind, 0, 0, 0], 1, 2);
    }
    if *kind != b'u' {
        return Piece::Literal;
    }
    let high = match hexadecimal(&text[2..], 4) {
        Ok(Some(high)) => high,
        Ok(None) => return Piece::Unfinished,
        Err(NotHexadecimal) => return Piece::Literal,
    };
    if !(0xd800..0xdc00).contains(&high) {
        return character(high, 6);
    }
    match text.get(6..8) {
        Some(b"\\u") => {}
        Some(_) => return Piece::Literal,
        None => return Piece::Unfinished,
    }
    match hexadecimal(&text[8..], 4) {
        Ok(Some(low @ 0xdc00..=0xdfff)) => character(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
        Ok(None) => Piece::Unfinished,
        Ok(Some(_)) | Err(NotHexadecimal) => Piece::Literal,
    }
}

/// Numbers, and the names that XML has too.
fn html_escape(text: &[u8]) -> Piece {
    let within = &text[1..text.len().min(LONGEST_ESCAPE)];
    let Some(end) = within.iter().position(|byte| *byte == b';') else {
        let may_go_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'#';
        return if text.len() < LONGEST_ESCAPE && within.iter().all(may_go_on) {
            Piece::Unfinished
        } else {
            Piece::Literal
        };
    };
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    let code = match &within[..end] {
        b"amp" => Some(u32::from(b'&')),
        b"apos" => Some(u32::from(b'\'')),
        b"gt" => Some(u32::from(b'>')),
        b"lt" => Some(u32::from(b'<')),
        b"quot" => Some(u32::from(b'"')),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
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

/// Of the parts that no encoder changes the longest; empty where that is too short to be searched for.
fn core(secret: &[u8]) -> Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (at, byte) in secret.iter().enumerate() {
        if !is_plain(*byte) {
            start = at + 1;
        } else if at + 1 - start > longest.len() {
            longest = start..at + 1;
        }
    }
    if longest.len() < SHORTEST_CORE {
        0..0
    } else {
        longest
    }
}

/// Whether each encoder writes this byte as it is. `~` is none: encoders older than RFC 3986 escape it.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

const SPELLINGS: [Spelling; 5] = [
    Spelling::Plain,
    Spelling::Percent,
    Spelling::Json,
    Spelling::Html,
    Spelling::Mixed,
];

/// From `&` to `;`, which JSON's `\ud83d\ude00`, of four bytes, does not exceed.
const LONGEST_ESCAPE: usize = 10;

/// Words of a language are shorter, most of them, and secrets that are any good longer.
const SHORTEST: usize = 8;

/// What is shorter is found too often.
const SHORTEST_CORE: usize = 3;

#[cfg(test)]
mod tests;
