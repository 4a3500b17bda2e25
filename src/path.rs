//! Path globs, matched so that no spelling of a path slips past them.
//!
//! `*` stands for any characters within one segment, `**` for any number of segments. Both sides are compared
//! percent-decoded, because `/%61dmin` and `/admin` are one resource. Servers disagree about dot segments, encoded
//! slashes, backslashes, double encoding and more: a path is allowed where each of its [`Readings`] falls under a glob
//! ([`allow`]), and counted by every glob that one of them falls under ([`PathGlob::reaches`]).
//!
//! Whether a matching path is allowed or counted is decided by the owner of the glob.

use reading::{Habits, Reading};

pub(crate) use reading::Readings;

mod reading;
#[cfg(test)]
mod tests;

/// A compiled path glob: `/api/**`, `/v1/*/items`, `/files/*.json`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathGlob {
    /// As it is written.
    text: Box<str>,
    /// The same, decoded.
    written: Box<[Segment]>,
    /// The habits that change the meaning of the glob.
    relevant: Habits,
    /// One for each combination of these.
    forms: Box<[GlobForm]>,
}

/// Why a text is not a path glob; `Display` contains the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GlobError {
    #[error(
        "a path glob holds no dot segments, empty segments, backslashes, control characters, double encoding or broken \
         % escapes; write the path that is meant, as in /api/v4/**"
    )]
    Ambiguous,
    #[error("** stands for whole segments, as in /api/** or /a/**/b; within a segment write *")]
    DoubleStar,
    #[error("a path glob is about the path alone; leave out ? and # and what follows them")]
    NotPath,
    #[error("a path glob begins with /, as in /api/**")]
    Relative,
}

/// Why a path is not allowed. `Display` continues a sentence that begins with the destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("does not allow this path; where it should, add it to the destination's paths")]
    Other,
    #[error(
        "allows this path as it is written, but some servers read it as {0}, which it does not allow; where that should \
         pass as well, add it to the destination's paths"
    )]
    Reading(String),
    #[error(
        "allows no path that servers read in ways that cannot be listed; ask for it without control characters, broken % \
         escapes, bytes that are no UTF-8, names of dots alone and repeated encoding"
    )]
    Unclear,
}

/// The meaning of a glob for servers with the same habits: decoded, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GlobForm {
    habits: Habits,
    exact: Box<[Segment]>,
    /// The same after [`reading::fold`].
    folded: Box<[Segment]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    /// `**`
    Any,
    /// The literals around each `*`: one more than there are stars.
    One(Box<[Box<str>]>),
}

/// Checks that `globs` allow `path` (no query) in every reading of a server.
pub(crate) fn allow(globs: &[PathGlob], path: &str) -> Result<(), Refused> {
    if !globs.iter().any(|glob| glob.matches(path)) {
        return Err(Refused::Other);
    }
    if reading::is_common(path) {
        return Ok(());
    }
    let readings = Readings::of(path);
    let Some(mut all) = readings.all().filter(|_| readings.is_sound()) else {
        return Err(Refused::Unclear);
    };
    let is_allowed = |reading: &Reading<'_>| {
        globs.iter().any(|glob| glob.means_exactly(*reading)) && globs.iter().any(|glob| glob.means(*reading))
    };
    match all.find(|reading| !is_allowed(reading)) {
        None => Ok(()),
        Some(other) => Err(Refused::Reading(other.shown())),
    }
}

impl PathGlob {
    pub(crate) fn parse(text: &str) -> Result<Self, GlobError> {
        let relative = text.strip_prefix('/').ok_or(GlobError::Relative)?;
        if text.contains(['?', '#']) {
            return Err(GlobError::NotPath);
        }
        let is_double = |segment: &str| segment.contains("**") && segment != "**";
        if relative.split('/').any(is_double) {
            return Err(GlobError::DoubleStar);
        }
        let wild = text.replace('*', reading::WILDCARD.encode_utf8(&mut [0; 4]));
        let (decoded, is_text) = reading::decoded(&wild);
        if !is_text || !reading::is_well_formed(text) {
            return Err(GlobError::Ambiguous);
        }
        let read = |habits: Habits| habits.read(&decoded).ok_or(GlobError::Ambiguous);
        let mut relevant = Habits::default();
        for (habits, own) in Habits::choices().flat_map(|habits| Habits::each().map(move |own| (habits, own)))
        {
            if read(habits)? != read(habits.with(own))? {
                relevant = relevant.with(own);
            }
        }
        let forms = Habits::choices().filter(|habits| habits.and(relevant) == *habits);
        let forms = forms.map(|habits| Ok(GlobForm::of(&read(habits)?, habits)));
        Ok(Self {
            text: text.into(),
            written: segments(&decoded),
            relevant,
            forms: forms.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the glob as it is written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether some server could read `path` (no query) as a path that this glob matches.
    pub(crate) fn reaches(&self, path: &str) -> bool {
        self.matches(path)
            || (Readings::of(path).all()).is_none_or(|mut all| all.any(|reading| self.means(reading)))
    }

    /// Whether this glob matches a path as it is written.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if path.contains('%') {
            matches(&self.written, &reading::decoded(path).0)
        } else {
            matches(&self.written, path)
        }
    }

    /// Whether this glob matches one of the [`Readings`] of a path, in any case.
    pub(crate) fn means(&self, reading: Reading<'_>) -> bool {
        (self.form(reading)).is_some_and(|form| matches(&form.folded, reading.folded))
    }

    /// Whether this glob matches the reading in the same case.
    pub(crate) fn means_exactly(&self, reading: Reading<'_>) -> bool {
        let exact = |exact| (self.form(reading)).is_some_and(|form| matches(&form.exact, exact));
        reading.exact.is_none_or(exact)
    }

    fn form(&self, reading: Reading<'_>) -> Option<&GlobForm> {
        let habits = reading.habits.and(self.relevant);
        self.forms.iter().find(|form| form.habits == habits)
    }
}

impl GlobForm {
    fn of(glob: &str, habits: Habits) -> Self {
        let glob = reading::without_end(glob);
        Self {
            habits,
            exact: segments(glob),
            folded: segments(&reading::fold(glob)),
        }
    }
}

fn segments(glob: &str) -> Box<[Segment]> {
    let segments = glob.strip_prefix('/').unwrap_or(glob).split('/');
    segments.map(Segment::of).collect()
}

impl Segment {
    fn of(text: &str) -> Self {
        if text.chars().eq([reading::WILDCARD; 2]) {
            return Self::Any;
        }
        Self::One(text.split(reading::WILDCARD).map(Into::into).collect())
    }
}

/// Wildcard matching with one point of return, the latest `**`: at most segments times segments steps.
fn matches(segments: &[Segment], path: &str) -> bool {
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

/// Whether one segment fits the literals around the stars.
fn fits(text: &str, parts: &[Box<str>]) -> bool {
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
        let Some(at) = rest.find(&**part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    // A lone * is a segment and so not empty: `//` cannot skip one.
    !text.is_empty()
}
