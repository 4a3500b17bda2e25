//! Path globs, matched so that no spelling of a path slips past them.
//!
//! `*` stands for any characters within one segment, `**` for any number of segments. Both sides are compared
//! percent-decoded, because `/%61dmin` and `/admin` are one resource. Servers disagree about dot segments, encoded
//! slashes, backslashes and double encoding, so a path with one of these is allowed by no glob, nor is one of which a
//! reading falls under another ([`PathGlob::allows`]); it is counted by every glob that one of its [`Readings`] falls
//! under ([`PathGlob::reaches`]).
//!
//! What a matching path means (allowed, counted) is decided by whoever holds the glob.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::reading::{Readings, file_name, fold, is_common};

#[cfg(test)]
mod tests;

/// A compiled path glob: `/api/**`, `/v1/*/items`, `/files/*.json`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathGlob {
    segments: Box<[Segment]>,
    /// As [`Readings`] are written.
    folded: Box<[Segment]>,
    /// All servers read the glob itself alike. One that names what some of them leave out means that.
    is_clear: bool,
}

/// Why a text is no path glob; `Display` says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GlobError {
    #[error(
        "a path glob holds no dot segments, empty segments, backslashes, encoded slashes or broken % escapes"
    )]
    Ambiguous,
    #[error("** stands for whole segments, as in /api/** or /a/**/b; within a segment write *")]
    DoubleStar,
    #[error("a path glob is about the path alone; leave out ? and # and what follows them")]
    NotPath,
    #[error("a path glob begins with /, as in /api/**")]
    Relative,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    /// `**`
    Any,
    /// The decoded literals around each `*`: one more than there are stars.
    One(Box<[Box<[u8]>]>),
}

impl PathGlob {
    pub(crate) fn parse(text: &str) -> Result<Self, GlobError> {
        let relative = text.strip_prefix('/').ok_or(GlobError::Relative)?;
        if text.contains(['?', '#']) {
            return Err(GlobError::NotPath);
        }
        // A path can end in a slash, so the last segment may be empty.
        let empty_inside = relative
            .strip_suffix('/')
            .unwrap_or(relative)
            .split('/')
            .any(str::is_empty);
        if is_ambiguous(text) || (empty_inside && !relative.is_empty()) {
            return Err(GlobError::Ambiguous);
        }
        let segments = relative
            .split('/')
            .map(Segment::parse)
            .collect::<Result<Box<[_]>, _>>()?;
        let whole = match &*segments {
            [first @ .., Segment::One(last)]
                if !first.is_empty() && last.iter().all(|part| part.is_empty()) && last.len() == 1 =>
            {
                first
            }
            all => all,
        };
        let folded = whole.iter().map(Segment::folded).collect();
        let is_clear = Readings::of(text).all().is_some_and(|all| all.count() == 1);
        Ok(Self {
            segments,
            folded,
            is_clear,
        })
    }

    /// Whether this glob vouches for `path` (no query), however a server reads it.
    pub(crate) fn allows(&self, path: &str) -> bool {
        let means_all =
            || (Readings::of(path).all()).is_some_and(|mut all| all.all(|reading| self.means(reading)));
        !is_ambiguous(path) && self.matches(path) && (!self.is_clear || is_common(path) || means_all())
    }

    /// Whether some server could read `path` (no query) as something that this glob means.
    pub(crate) fn reaches(&self, path: &str) -> bool {
        self.matches(path)
            || (Readings::of(path).all()).is_none_or(|mut all| all.any(|reading| self.means(reading)))
    }

    /// Whether this glob matches a path as it is written.
    pub(super) fn matches(&self, path: &str) -> bool {
        matches(&self.segments, path, fits)
    }

    /// Whether this glob matches one of the [`Readings`] of a path.
    pub(super) fn means(&self, reading: &str) -> bool {
        matches(&self.folded, reading, |segment, parts| {
            fits_text(segment.as_bytes(), parts)
        })
    }
}

/// Wildcard matching with one point of return, the latest `**`: at most segments times segments steps.
fn matches(segments: &[Segment], path: &str, fits: impl Fn(&str, &[Box<[u8]>]) -> bool) -> bool {
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    let mut text = path.split('/');
    let mut globs = segments;
    let mut latest = None;
    loop {
        if let [Segment::Any, rest @ ..] = globs {
            globs = rest;
            latest = Some((rest, text.clone()));
            continue;
        }
        let mut ahead = text.clone();
        match (ahead.next(), globs) {
            (None, []) => return true,
            (Some(segment), [Segment::One(parts), rest @ ..]) if fits(segment, parts) => {
                text = ahead;
                globs = rest;
            }
            _ => {
                // The latest ** takes one segment more.
                let Some((rest, from)) = &mut latest else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                globs = rest;
                text = from.clone();
            }
        }
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, GlobError> {
        match text {
            "**" => Ok(Self::Any),
            _ if text.contains("**") => Err(GlobError::DoubleStar),
            _ => Ok(Self::One(
                text.split('*').map(|part| decode(part).into()).collect(),
            )),
        }
    }

    /// As it is compared with readings of a path.
    fn folded(&self) -> Self {
        let Self::One(parts) = self else {
            return self.clone();
        };
        let last = parts.len() - 1;
        let fold = |(at, part): (usize, &[u8])| {
            let text = fold(&String::from_utf8_lossy(part));
            let text = if at == last { file_name(&text) } else { &text };
            text.as_bytes().into()
        };
        Self::One(parts.iter().map(|part| &**part).enumerate().map(fold).collect())
    }
}

/// Whether servers differ in which resource `path` names: dot segments, encoded or turned slashes, control
/// characters, double encoding, broken escapes.
pub(crate) fn is_ambiguous(path: &str) -> bool {
    path.split('/').any(|segment| {
        let decoded = decode(segment);
        is_dots(without_parameters(&decoded))
            || decoded
                .iter()
                .any(|byte| matches!(byte, b'/' | b'\\') || byte.is_ascii_control())
            || (segment.contains('%')
                && (has_broken_escape(segment) || has_escape(&decoded) || str::from_utf8(&decoded).is_err()))
    })
}

/// Whether one segment fits the literals around the stars, with its `;parameters` and, because some servers route
/// without them, also without.
fn fits(segment: &str, parts: &[Box<[u8]>]) -> bool {
    let decoded = decode(segment);
    let bare = without_parameters(&decoded);
    let wants_parameters = parts.iter().any(|part| part.contains(&b';'));
    fits_text(&decoded, parts) && (wants_parameters || bare.len() == decoded.len() || fits_text(bare, parts))
}

fn fits_text(text: &[u8], parts: &[Box<[u8]>]) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts.first().is_some_and(|only| **only == *text);
    };
    let Some(mut rest) = text
        .strip_prefix(&**first)
        .and_then(|rest| rest.strip_suffix(&**last))
    else {
        return false;
    };
    for part in middle {
        let Some(at) = find(rest, part) else { return false };
        rest = &rest[at + part.len()..];
    }
    // A lone * is a segment, so it is not nothing: `//` is no way to skip one.
    !text.is_empty()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        Some(0)
    } else {
        text.windows(part.len()).position(|window| window == part)
    }
}

/// Percent-decoded once; borrowed where nothing is encoded.
fn decode(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

/// The segment before its first `;`.
fn without_parameters(segment: &[u8]) -> &[u8] {
    segment.split(|byte| *byte == b';').next().unwrap_or(segment)
}

/// Windows leaves dots and blanks out at the end of a name, so that `...` may be nothing, or more than one folder up.
fn is_dots(name: &[u8]) -> bool {
    name.contains(&b'.') && name.iter().all(|byte| matches!(byte, b'.' | b' '))
}

/// Whether a `%` stands there without two hexadecimal digits.
fn has_broken_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|after| !begins_hex(after.as_bytes()))
}

/// Whether an escape stands there: after one decoding, what was encoded twice.
fn has_escape(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'%').skip(1).any(begins_hex)
}

fn begins_hex(text: &[u8]) -> bool {
    matches!(text, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}
