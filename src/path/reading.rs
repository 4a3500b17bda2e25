//! How servers may read a path: decoded again, with dot segments resolved, without characters that they drop.
//!
//! Each of these is an independent habit, and a chain of servers has them in any order and several times. So all texts
//! that follow from one path by any of them are collected. What a glob means depends on some habits, too: to a server
//! that leaves `;v=1` out, `/a;v=1` is `/a` in the glob as well. So a reading says which of these [`Habits`] it took.
//!
//! Other readings (links, short names of files, rewrites) cannot be known here, nor can the reading of bytes that are not
//! text: such a path is not [sound](Readings::is_sound).

use std::borrow::Cow;

/// An encoded slash: for some servers a part of a name. No other character of a text is decoded to it.
pub(super) const ENCODED_SLASH: char = '\u{1}';
/// Any characters, in a glob.
pub(super) const WILDCARD: char = '\u{2}';

/// All habits but decoding again, each with its flag; no flag where it changes no glob.
const HABITS: [(Habit, Habits); 12] = [
    (wide_escapes, Habits(0)),
    (overlong, Habits(0)),
    (slashes, Habits(1)),
    (narrow, Habits(1 << 1)),
    (before_query, Habits(1 << 2)),
    (before_nul, Habits(0)),
    (backslashes, Habits(0)),
    (without_parameters, Habits(1 << 3)),
    (file_names, Habits(1 << 4)),
    (unseen, Habits(1 << 5)),
    (merged, Habits(0)),
    (resolved, Habits(0)),
];
/// How many of them change what a glob means.
const OF_GLOBS: u8 = 6;

/// File systems leave these out of names.
const IGNORED: [std::ops::RangeInclusive<char>; 5] = [
    '\u{ad}'..='\u{ad}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{206a}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
];

const MOST_READINGS: usize = 64;
/// The bytes of all readings together: the bound of what a path may cost.
const MOST_BYTES: usize = 512 * 1024;

/// All ways in which servers may read one path.
#[derive(Debug)]
pub(crate) enum Readings<'a> {
    /// As it is written, up to case and a slash at its end.
    One(Cow<'a, str>),
    Several(Vec<ReadPath>),
    /// Too many to list.
    TooMany,
}

/// One way to read a path: decoded, without a slash at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'r> {
    /// `None`: the path as it is written.
    pub(crate) exact: Option<&'r str>,
    /// In the form in which servers compare that ignore case.
    pub(super) folded: &'r str,
    pub(super) habits: Habits,
}

/// A path as it is read with some habits.
#[derive(Debug)]
pub(crate) struct ReadPath {
    exact: String,
    folded: String,
    habits: Habits,
    /// Every byte of it was a visible character.
    is_text: bool,
    is_decoded: bool,
}

/// Habits of a server that can change what a glob means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Habits(u8);

impl<'a> Readings<'a> {
    /// Returns the readings of a path without its query.
    pub(crate) fn of(path: &'a str) -> Self {
        if is_common(path) {
            let path = without_end(path);
            return Self::One(if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
                path.to_ascii_lowercase().into()
            } else {
                path.into()
            });
        }
        let mut all = vec![ReadPath {
            exact: path.to_owned(),
            folded: String::new(),
            habits: Habits::default(),
            is_text: is_well_formed(path),
            is_decoded: !path.contains('%'),
        }];
        let mut at = 0;
        while let Some(text) = all.get(at) {
            for next in text.next() {
                if !all.iter().any(|known| known.is_like(&next)) {
                    all.push(next);
                }
            }
            if all.len() > MOST_READINGS || all.len() * path.len() > MOST_BYTES {
                return Self::TooMany;
            }
            at += 1;
        }
        all.retain(|text| text.is_decoded);
        for text in &mut all {
            text.exact.truncate(without_end(&text.exact).len());
            text.folded = fold(&text.exact);
        }
        Self::Several(all)
    }

    /// `None`: there are too many.
    pub(crate) fn all(&self) -> Option<impl Iterator<Item = Reading<'_>>> {
        let (one, several) = match self {
            Self::One(path) => (Some(path), [].iter()),
            Self::Several(all) => (None, all.iter()),
            Self::TooMany => return None,
        };
        let one = one.map(|path| Reading {
            exact: None,
            folded: path,
            habits: Habits::default(),
        });
        Some(one.into_iter().chain(several.map(|text| Reading {
            exact: Some(&text.exact),
            folded: &text.folded,
            habits: text.habits,
        })))
    }

    /// Whether these are all readings: there are no control characters, no bytes outside UTF-8, and no names of dots alone
    /// but `.` and `..`. Servers disagree about these.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Several(all) => all.iter().all(|text| text.is_text && !has_dots(&text.exact)),
            Self::TooMany => false,
        }
    }
}

impl Reading<'_> {
    /// Returns the reading as a sentence can show it.
    pub(crate) fn shown(&self) -> String {
        shown(self.exact.unwrap_or(self.folded))
    }
}

impl ReadPath {
    /// Returns the readings with one more habit.
    fn next(&self) -> Vec<Self> {
        let again = (self.exact.contains('%')).then(|| decoded(&self.exact));
        let is_changed = |decoded: &str| !self.is_decoded || decoded != self.exact;
        let again = again.filter(|(decoded, _)| is_changed(decoded));
        let again = again.map(|(exact, is_text)| Self {
            exact,
            folded: String::new(),
            habits: self.habits,
            is_text: self.is_text && is_text,
            is_decoded: true,
        });
        let others = HABITS.iter().filter_map(|(habit, own)| {
            Some(Self {
                exact: habit(&self.exact)?,
                folded: String::new(),
                habits: self.habits.with(*own),
                ..*self
            })
        });
        again.into_iter().chain(others).collect()
    }

    fn is_like(&self, other: &Self) -> bool {
        self.exact == other.exact && self.habits == other.habits && self.is_decoded == other.is_decoded
    }
}

impl Habits {
    /// Returns every combination of habits.
    pub(super) fn choices() -> impl Iterator<Item = Self> {
        (0..1 << OF_GLOBS).map(Self)
    }

    pub(super) fn each() -> impl Iterator<Item = Self> {
        (0..OF_GLOBS).map(|at| Self(1 << at))
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn has(self, other: Self) -> bool {
        self.and(other) == other
    }

    /// Returns the reading of a decoded glob with these habits; `None` where it depends on other habits as well.
    pub(super) fn read(self, glob: &str) -> Option<String> {
        let mut text = glob.to_owned();
        for (habit, own) in HABITS {
            if let Some(other) = habit(&text) {
                match own {
                    Self(0) => return None,
                    own if self.has(own) => text = other,
                    _ => {}
                }
            }
        }
        (decoded(&text).0 == text && !has_dots(&text)).then_some(text)
    }
}

/// Whether all servers read a path alike, up to its case.
pub(super) fn is_common(path: &str) -> bool {
    // The characters of RFC 3986 for paths, without escapes and parameters.
    let is_common = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~,@=+:!$&'()*".contains(&byte);
    let odd = ["//", "/.", "./", "::", ":$"];
    path.bytes().all(is_common) && !path.ends_with('.') && !odd.iter().any(|odd| path.contains(odd))
}

pub(super) fn without_end(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(path) => path,
    }
}

/// Returns a text in the form in which servers compare that ignore case.
pub(super) fn fold(text: &str) -> String {
    let upper = text.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

/// Whether a path has no control character and no `%` without two hexadecimal digits.
pub(super) fn is_well_formed(path: &str) -> bool {
    let is_escape = |after: &str| matches!(after.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    !path.contains(|c: char| c.is_ascii_control()) && path.split('%').skip(1).all(is_escape)
}

/// Decodes a text once; returns also whether the result is text. An encoded slash becomes [`ENCODED_SLASH`].
pub(super) fn decoded(text: &str) -> (String, bool) {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut is_text = true;
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| hexadecimal(after.get(..2)?)).flatten();
        rest = code.map_or(after, |_| &after[2..]);
        match code.map_or(*first, |code| code as u8) {
            b'/' if code.is_some() => bytes.push(ENCODED_SLASH as u8),
            byte => {
                is_text &= code.is_none() || !byte.is_ascii_control();
                bytes.push(byte);
            }
        }
    }
    is_text &= str::from_utf8(&bytes).is_ok();
    (lenient(&bytes), is_text)
}

/// `%u002f`, as IIS reads it.
fn wide_escapes(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let digits = part.strip_prefix(['u', 'U']).and_then(|digits| digits.get(..4));
        match digits.and_then(|digits| hexadecimal(digits.as_bytes())) {
            Some(0x2f) => text.push(ENCODED_SLASH),
            Some(code) => text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
            None => {
                text.push('%');
                text.push_str(part);
                continue;
            }
        }
        text.push_str(&part[5..]);
    }
    (text != path).then_some(text)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(digits).ok()?;
    let is_sound = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| is_sound)
}

/// UTF-8, else Latin-1.
fn lenient(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let valid = match str::from_utf8(rest) {
            Ok(all) => all,
            Err(error) => str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        text.push_str(valid);
        let [byte, more @ ..] = &rest[valid.len()..] else {
            return text;
        };
        text.push(char::from(*byte));
        rest = more;
    }
}

/// UTF-8 in which ASCII takes more bytes than it needs.
fn overlong(path: &str) -> Option<String> {
    if path.is_ascii() {
        return None;
    }
    let all: Vec<char> = path.chars().collect();
    let mut rest = &all[..];
    let mut text = String::with_capacity(path.len());
    while let [first, after @ ..] = rest {
        let (high, low, more) = match rest {
            [high @ '\u{c0}'..='\u{c1}', low @ '\u{80}'..='\u{bf}', more @ ..]
            | [
                '\u{e0}',
                high @ '\u{80}'..='\u{81}',
                low @ '\u{80}'..='\u{bf}',
                more @ ..,
            ]
            | [
                '\u{f0}',
                '\u{80}',
                high @ '\u{80}'..='\u{81}',
                low @ '\u{80}'..='\u{bf}',
                more @ ..,
            ] => (*high as u8, *low as u8, more),
            _ => {
                text.push(*first);
                rest = after;
                continue;
            }
        };
        match (high & 1) << 6 | (low & 0x3f) {
            b'/' => text.push(ENCODED_SLASH),
            code => text.push(code.into()),
        }
        rest = more;
    }
    (text != path).then_some(text)
}

/// Characters that look like those of ASCII are taken for them (best fit).
fn narrow(path: &str) -> Option<String> {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{2024}' => '.',
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2216}' => '\\',
        _ => c,
    };
    let is_wide = |c| narrow(c) != c;
    path.contains(is_wide).then(|| path.chars().map(narrow).collect())
}

/// Ends the path at an encoded delimiter too.
fn before_query(path: &str) -> Option<String> {
    path.find(['?', '#']).map(|end| path[..end].to_owned())
}

fn before_nul(path: &str) -> Option<String> {
    path.find('\0').map(|end| path[..end].to_owned())
}

/// Separates segments at an encoded slash too.
fn slashes(path: &str) -> Option<String> {
    path.contains(ENCODED_SLASH)
        .then(|| path.replace(ENCODED_SLASH, "/"))
}

fn backslashes(path: &str) -> Option<String> {
    path.contains('\\').then(|| path.replace('\\', "/"))
}

fn without_parameters(path: &str) -> Option<String> {
    each(path, |segment| segment.split(';').next().unwrap_or(segment))
}

fn file_names(path: &str) -> Option<String> {
    each(path, file_name)
}

/// Drops invisible characters.
fn unseen(path: &str) -> Option<String> {
    let is_unseen = |c: char| {
        (c.is_control() && !matches!(c, ENCODED_SLASH | WILDCARD))
            || IGNORED.iter().any(|ignored| ignored.contains(&c))
    };
    path.contains(is_unseen).then(|| path.replace(is_unseen, ""))
}

fn merged(path: &str) -> Option<String> {
    path.contains("//").then(|| {
        let mut last = None;
        path.chars()
            .filter(|c| last.replace(*c) != Some('/') || *c != '/')
            .collect()
    })
}

fn resolved(path: &str) -> Option<String> {
    let relative = path.strip_prefix('/').unwrap_or(path);
    if !relative.split('/').any(|segment| matches!(segment, "." | "..")) {
        return None;
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in relative.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

fn each<'a>(path: &'a str, change: impl Fn(&'a str) -> &'a str) -> Option<String> {
    let is_changed = path.split('/').any(|segment| change(segment) != segment);
    let segments = || path.split('/').map(change).collect::<Vec<_>>();
    is_changed.then(|| segments().join("/"))
}

/// Returns a segment as Windows names a file: without dots and blanks at its end, and without the name of a stream.
fn file_name(segment: &str) -> &str {
    let stream = [":$", "::"].iter().filter_map(|mark| segment.find(mark)).min();
    let name = &segment[..stream.unwrap_or(segment.len())];
    match name.trim_end_matches(['.', ' ']) {
        "" if name.contains("..") => "..",
        "" if name.contains('.') => ".",
        name => name,
    }
}

/// Whether a name has only dots and blanks, other than `.` and `..`: to Windows it may be nothing, or more than one folder
/// up.
fn has_dots(path: &str) -> bool {
    path.split('/').any(|name| {
        name.contains('.')
            && !matches!(name, "." | "..")
            && name.bytes().all(|byte| matches!(byte, b'.' | b' '))
    })
}

/// Returns a path as a sentence can show it: short, and in visible ASCII.
fn shown(path: &str) -> String {
    let is_shown = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let shown = path.chars().take(LONGEST_SHOWN);
    let shown = shown.map(|c| if is_shown(c) || c == ENCODED_SLASH { c } else { '?' });
    shown.collect::<String>().replace(ENCODED_SLASH, "%2F")
}

/// Returns the reading of a path with one habit; `None` where the habit changes nothing.
type Habit = fn(&str) -> Option<String>;

const LONGEST_SHOWN: usize = 80;
