//! How servers may read a path: in another case, decoded again, with dot segments resolved, without what they leave out.
//!
//! Each of these is an independent habit, so that all that follow from one path are collected: a server may have any of
//! them. A reading is written in the one form in which [`PathGlob::reaches`](super::path::PathGlob) compares: decoded,
//! in lower case, without a slash at its end. What a server does beyond that (links, short names of files, rewrites of its
//! own) nobody here can know.

use std::borrow::Cow;

/// All ways in which servers may read one path.
#[derive(Debug)]
pub(crate) enum Readings<'a> {
    /// As it is written, up to a slash at its end.
    Plain(&'a str),
    Several(Vec<String>),
    /// More than anybody means to write.
    TooMany,
}

impl<'a> Readings<'a> {
    /// Of a path without its query.
    pub(crate) fn of(path: &'a str) -> Self {
        if is_common(path) {
            let path = without_end(path);
            return if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
                Self::Several(vec![path.to_ascii_lowercase()])
            } else {
                Self::Plain(path)
            };
        }
        let mut all = vec![decoded(path)];
        for _ in 1..MOST_DECODINGS {
            let next = decoded(&all[all.len() - 1]);
            if all.contains(&next) {
                break;
            }
            all.push(next);
        }
        for habit in HABITS {
            for at in 0..all.len() {
                let other = habit(&all[at]);
                if !all.contains(&other) {
                    all.push(other);
                }
            }
            if all.len() > MOST_READINGS {
                return Self::TooMany;
            }
        }
        let mut folded: Vec<_> = all
            .iter()
            .map(|path| without_end(&fold(path)).to_owned())
            .collect();
        folded.sort_unstable();
        folded.dedup();
        Self::Several(folded)
    }

    /// `None`: there are too many.
    pub(crate) fn all(&self) -> Option<impl Iterator<Item = &str>> {
        let (plain, several) = match self {
            Self::Plain(path) => (Some(*path), [].iter()),
            Self::Several(all) => (None, all.iter()),
            Self::TooMany => return None,
        };
        Some(plain.into_iter().chain(several.map(String::as_str)))
    }
}

/// Whether all servers read a path alike, up to its case.
pub(super) fn is_common(path: &str) -> bool {
    // Of what RFC 3986 lets stand in a path all but escapes and parameters.
    let is_common = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~,@=+:!$&'()*".contains(&byte);
    let odd = ["//", "/.", "./", "::", ":$"];
    path.bytes().all(is_common) && !path.ends_with('.') && !odd.iter().any(|odd| path.contains(odd))
}

fn without_end(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(path) => path,
    }
}

/// A text as servers compare it that ignore case, and characters that cannot be seen.
pub(super) fn fold(text: &str) -> String {
    let is_seen = |c: &char| !c.is_control() && !IGNORED.iter().any(|ignored| ignored.contains(c));
    let upper = text.chars().filter(is_seen).flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

/// A segment as Windows names a file: without dots and blanks at its end, and without the stream that is meant.
pub(super) fn file_name(segment: &str) -> &str {
    let stream = [":$", "::"].iter().filter_map(|mark| segment.find(mark)).min();
    let name = &segment[..stream.unwrap_or(segment.len())];
    match name.trim_end_matches(['.', ' ']) {
        "" if name.contains("..") => "..",
        "" if name.contains('.') => ".",
        name => name,
    }
}

/// Decoded once, `%u002f` as by IIS included. What is no UTF-8 is read as lenient decoders do.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let number = |digits: &[u8]| u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, taken) = match after {
            [b'u' | b'U', digits @ ..] if digits.len() >= 4 => (&digits[..4], 5),
            digits if digits.len() >= 2 => (&digits[..2], 2),
            _ => (&after[..0], 0),
        };
        let is_hexadecimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
        match number(digits).filter(|_| is_hexadecimal) {
            Some(code) if taken == 2 => bytes.push(code as u8),
            Some(code) => {
                let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => {
                bytes.push(b'%');
                continue;
            }
        }
        rest = &after[taken..];
    }
    lenient(&bytes)
}

/// UTF-8, in which ASCII may take more bytes than it needs; else Latin-1.
fn lenient(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match str::from_utf8(rest) {
            Ok(all) => all,
            Err(error) => str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        text.push_str(valid);
        rest = match &rest[valid.len()..] {
            [high @ 0xc0..=0xc1, low @ 0x80..=0xbf, more @ ..]
            | [0xe0, high @ 0x80..=0x81, low @ 0x80..=0xbf, more @ ..] => {
                text.push(char::from((high & 1) << 6 | (low & 0x3f)));
                more
            }
            [byte, more @ ..] => {
                text.push(char::from(*byte));
                more
            }
            [] => &[],
        };
    }
    text
}

/// Characters that look like those of ASCII are taken for them (best fit).
fn narrow(path: &str) -> String {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{2024}' => '.',
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2216}' => '\\',
        _ => c,
    };
    path.chars().map(narrow).collect()
}

/// What was encoded ends the path all the same.
fn before_query(path: &str) -> String {
    path.split(['?', '#']).next().unwrap_or(path).to_owned()
}

fn before_nul(path: &str) -> String {
    path.split('\0').next().unwrap_or(path).to_owned()
}

fn slashes(path: &str) -> String {
    path.replace('\\', "/")
}

fn without_parameters(path: &str) -> String {
    each(path, |segment| segment.split(';').next().unwrap_or(segment))
}

fn file_names(path: &str) -> String {
    each(path, file_name)
}

fn merged(path: &str) -> String {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    format!("/{}", segments.join("/"))
}

fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    format!("/{}", segments.join("/"))
}

fn each<'a>(path: &'a str, change: impl Fn(&'a str) -> &'a str) -> String {
    let segments: Vec<_> = path.split('/').map(change).collect();
    segments.join("/")
}

/// A path as a sentence can show it: short, and in visible ASCII.
pub(super) fn shown(path: &str) -> Cow<'_, str> {
    let is_shown = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    if path.len() <= LONGEST_SHOWN && path.chars().all(is_shown) {
        return path.into();
    }
    let start = path.chars().take(LONGEST_SHOWN);
    start.map(|c| if is_shown(c) { c } else { '?' }).collect()
}

/// In the order in which a server would have them.
const HABITS: [fn(&str) -> String; 8] = [
    narrow,
    before_query,
    before_nul,
    slashes,
    without_parameters,
    file_names,
    merged,
    resolved,
];

/// File systems leave these out of names.
const IGNORED: [std::ops::RangeInclusive<char>; 5] = [
    '\u{ad}'..='\u{ad}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{206a}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
];

const LONGEST_SHOWN: usize = 80;
/// How often a chain of servers may decode one path.
const MOST_DECODINGS: usize = 4;
const MOST_READINGS: usize = 64;
