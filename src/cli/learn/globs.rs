//! Patterns for observed paths.
//!
//! A pattern is the path itself, in which `*` stands for a segment that is an identifier: a UUID, a hash, a date, a long
//! number or token; a short number only if several were seen in its place. So a secret in a path, such as that of a
//! webhook, does not get into the file.

use std::collections::{BTreeMap, BTreeSet};

use crate::path::{self, PathGlob};

/// Hexadecimal digits that are a hash or an identifier.
const LONG_HEX: usize = 16;

/// Decimal digits that are an identifier.
const LONG_NUMBER: usize = 5;

/// Characters of a token without a dot, and of one with dots.
const LONG_TOKEN: usize = 20;
const LONG_DOTTED: usize = 60;

/// Returns the patterns for these paths, and the paths that no pattern can allow.
pub(super) fn globs<'p>(paths: impl IntoIterator<Item = &'p str>) -> (Vec<String>, Vec<&'p str>) {
    let paths: BTreeSet<&str> = paths.into_iter().collect();
    // Each with its form, in which all numbers are the same.
    let shapes = paths.iter().map(|path| {
        let shape = parts(path);
        let form = shape.iter().map(Part::without_number).collect();
        (*path, shape, form)
    });
    let shapes: Vec<(&str, Vec<Part<'p>>, Vec<Part<'p>>)> = shapes.collect();
    // The numbers that were seen in each place of paths that are otherwise alike.
    let mut numbers: BTreeMap<(&[Part<'p>], usize), BTreeSet<&str>> = BTreeMap::new();
    for (_, shape, form) in &shapes {
        for (place, part) in shape.iter().enumerate() {
            if let Part::Number(digits) = part {
                numbers.entry((form, place)).or_default().insert(digits);
            }
        }
    }
    let mut written = BTreeSet::new();
    let mut refused = Vec::new();
    for (path, shape, form) in &shapes {
        let is_varied = |place| (numbers.get(&(form.as_slice(), place))).is_some_and(|seen| seen.len() > 1);
        let segments: Vec<_> = shape
            .iter()
            .enumerate()
            .map(|(place, part)| match part {
                Part::Identifier => "*".to_owned(),
                Part::Number(_) if is_varied(place) => "*".to_owned(),
                Part::Number(text) | Part::Word(text) => text.replace('*', "%2A"),
            })
            .collect();
        let text = format!("/{}", segments.join("/"));
        let allows = |glob: PathGlob| path::allow(&[glob], path).is_ok();
        // The configuration has no blanks in paths.
        let is_text = !text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
        if is_text && PathGlob::parse(&text).is_ok_and(allows) {
            written.insert(text);
        } else {
            refused.push(*path);
        }
    }
    (written.into_iter().collect(), refused)
}

/// A segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'p> {
    Identifier,
    /// A short one.
    Number(&'p str),
    Word(&'p str),
}

impl Part<'_> {
    /// Returns the same for each number.
    fn without_number(&self) -> Self {
        match self {
            Self::Number(_) => Self::Number(""),
            other => other.clone(),
        }
    }
}

fn parts(path: &str) -> Vec<Part<'_>> {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    segments
        .map(|segment| {
            // The record writes * for a segment that it does not keep.
            if segment == "*" || is_identifier(segment) {
                Part::Identifier
            } else if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
                Part::Number(segment)
            } else {
                Part::Word(segment)
            }
        })
        .collect()
}

fn is_identifier(segment: &str) -> bool {
    let count = |of: fn(&u8) -> bool| segment.bytes().filter(of).count();
    let (digits, letters) = (count(u8::is_ascii_digit), count(u8::is_ascii_alphabetic));
    let is_made_of = |others: &[u8]| {
        segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    let is_number = digits == segment.len() && digits >= LONG_NUMBER;
    let is_hex = segment.len() >= LONG_HEX
        && digits > 0
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let is_token = segment.len() >= LONG_TOKEN && is_made_of(b"_-=~:") && digits >= 3 && letters >= 3;
    let is_dotted = segment.len() >= LONG_DOTTED && is_made_of(b"_-=~:.") && digits >= 3 && letters >= 3;
    is_number || is_hex || is_token || is_dotted || is_date(segment)
}

/// 2026-11-30, and what may follow of a time.
fn is_date(segment: &str) -> bool {
    let form = segment
        .bytes()
        .take(10)
        .map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    form.eq(*b"0000-00-00")
        && segment
            .as_bytes()
            .get(10)
            .is_none_or(|byte| matches!(byte, b'T' | b't' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_become_stars_and_words_stay() {
        for (paths, expected) in [
            (&["/"][..], &["/"][..]),
            (&["/simple/requests/"], &["/simple/requests/"]),
            (&["/v1/users/7"], &["/v1/users/7"]),
            (&["/v1/users/7", "/v1/users/8"], &["/v1/users/*"]),
            (
                &["/v1/users/7/a", "/v1/users/8/b"],
                &["/v1/users/7/a", "/v1/users/8/b"],
            ),
            (&["/users/1234567"], &["/users/*"]),
            (&["/o/6ba7b810-9dad-11d1-80b4-00c04fd430c8/x"], &["/o/*/x"]),
            (&["/c/2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"], &["/c/*"]),
            (
                &["/day/2026-11-30", "/at/2026-11-30T00:00:00"],
                &["/at/*", "/day/*"],
            ),
            (
                &["/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/send"],
                &["/*/send"],
            ),
            (
                &["/services/T0/B0/XXXXXXXXXXXX1234567890abcd"],
                &["/services/T0/B0/*"],
            ),
            (
                &["/packages/numpy-1.26.4-cp311-manylinux_2_17_x86_64.whl"],
                &["/packages/numpy-1.26.4-cp311-manylinux_2_17_x86_64.whl"],
            ),
            (
                &["/a*b", "/**", "/x/*", "/x/%2A"],
                &["/%2A%2A", "/a%2Ab", "/x/%2A", "/x/*"],
            ),
            (&["/deadbeefdeadbeef"], &["/deadbeefdeadbeef"]),
            (&["/caf%C3%A9"], &["/caf%C3%A9"]),
        ] {
            let (globs, refused) = globs(paths.iter().copied());
            assert_eq!(globs, expected, "{paths:?}");
            assert!(refused.is_empty(), "{refused:?}");
        }
    }

    /// What servers read in several ways gets no pattern, because one would allow more than was seen.
    #[test]
    fn a_path_with_two_readings_is_refused() {
        for path in [
            "/a/../b",
            "/a//b",
            "/a%2Fb",
            "/a\\b",
            "/%252e",
            "/a/.",
            "/%zz",
            "/a;b/../c",
        ] {
            let (globs, refused) = globs([path]);
            assert_eq!(refused.len() + globs.len(), 1, "{path}");
            for glob in &globs {
                let glob = PathGlob::parse(glob).unwrap();
                path::allow(&[glob], path).unwrap();
            }
        }
        assert_eq!(
            globs(["/a/../b", "/ok"]),
            (vec!["/ok".to_owned()], vec!["/a/../b"])
        );
    }
}
