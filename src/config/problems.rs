//! Everything that is wrong with a configuration, at once.
//!
//! A problem is filed under its path; the line and the column are looked up in [`Locations`] once the text has been read.
//! So `policy`, which never sees the text, reports places in the file too.

use std::collections::HashMap;
use std::fmt::{self, Write};

/// One problem: its place, what is wrong, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `destinations.partner.hosts[2]`; empty for the file as a whole.
    pub(crate) path: String,
    /// 1-based line and column, where known.
    pub(crate) at: Option<(usize, usize)>,
    pub(crate) what: String,
    /// The remedy; empty where `what` contains it.
    pub(crate) right: String,
}

/// All problems of one file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    /// The file's name as given.
    pub(crate) file: String,
    pub(crate) all: Vec<Problem>,
}

/// So many are reported at once; a file with more is probably not a configuration.
pub(super) const MOST: usize = 100;

/// The place of every value in the file: from a path to its line and column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locations {
    /// The file's name as problems print it.
    pub(super) file: String,
    pub(super) places: HashMap<String, (usize, usize)>,
}

impl Problems {
    /// Files a problem under `path`.
    pub(crate) fn add(&mut self, path: impl Into<String>, what: impl Into<String>, right: impl Into<String>) {
        self.all.push(Problem {
            path: path.into(),
            at: None,
            what: what.into(),
            right: right.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds the file's name, and line and column where they are missing, and sorts the problems in the order of the file.
    pub(crate) fn located(mut self, locations: &Locations) -> Self {
        self.file.clone_from(&locations.file);
        for problem in &mut self.all {
            problem.at = problem.at.or_else(|| locations.of(&problem.path));
        }
        self.all.sort_by_key(|problem| problem.at);
        self
    }
}

/// A line each: `file:line:column: path: what is wrong; what would be right`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.all.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some((line, column)) = problem.at {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `path: what is wrong; what would be right`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write_visible(&self.what, f)?;
        if self.right.is_empty() {
            return Ok(());
        }
        f.write_str("; ")?;
        write_visible(&self.right, f)
    }
}

/// Writes a text that may repeat values of a file, which may be a stranger's: nothing of it ends the line or steers a
/// terminal.
fn write_visible(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // What turns the direction of the text makes it look like another one.
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().try_for_each(|c| {
        if is_hidden(c) {
            write!(f, "{}", c.escape_unicode())
        } else {
            f.write_char(c)
        }
    })
}

impl Locations {
    /// Returns the line of a path; `None` where it is not written.
    pub(crate) fn line_of(&self, path: &str) -> Option<usize> {
        self.places.get(path).map(|(line, _)| *line)
    }

    /// Returns line and column of a path, or of the nearest value above it that is written.
    pub(crate) fn of(&self, path: &str) -> Option<(usize, usize)> {
        let mut path = path;
        while !path.is_empty() {
            if let Some(place) = self.places.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest or a configuration in a pull request is a stranger's, and a log or a terminal shows what is wrong with it.
    #[test]
    fn no_value_of_a_file_steers_a_terminal() {
        let problem = Problem {
            path: "p".to_owned(),
            at: None,
            what: "no type `w\u{1b}[2J\r\nb.yml: \u{202e}x`".to_owned(),
            right: "write \u{9b}ü\u{2028}".to_owned(),
        };
        assert_eq!(
            problem.to_string(),
            "p: no type `w\\u{1b}[2J\\u{d}\\u{a}b.yml: \\u{202e}x`; write \\u{9b}ü\\u{2028}"
        );
    }

    #[test]
    fn a_problem_is_one_line_with_place_path_fault_and_remedy() {
        let place = Some((3, 7));
        for (path, at, right, shown) in [
            (
                "drain",
                place,
                "write 8s",
                "a.yml:3:7: drain: not a duration; write 8s",
            ),
            ("drain", place, "", "a.yml:3:7: drain: not a duration"),
            ("", place, "", "a.yml:3:7: not a duration"),
            ("drain", None, "", "a.yml: drain: not a duration"),
            ("", None, "", "a.yml: not a duration"),
        ] {
            let problem = Problem {
                path: path.to_owned(),
                at,
                what: "not a duration".to_owned(),
                right: right.to_owned(),
            };
            let problems = Problems {
                file: "a.yml".to_owned(),
                all: vec![problem],
            };
            assert_eq!(problems.to_string(), shown);
        }
    }

    #[test]
    fn a_path_that_is_not_written_is_placed_at_what_holds_it() {
        let places = [
            ("egress", (1, 1)),
            ("egress.ports", (2, 3)),
            ("egress.ports[0]", (2, 10)),
        ];
        let places = places
            .into_iter()
            .map(|(path, at)| (path.to_owned(), at))
            .collect();
        let locations = Locations {
            file: "a.yml".to_owned(),
            places,
        };
        for (path, at) in [
            ("egress.ports[0]", Some((2, 10))),
            ("egress.ports[7]", Some((2, 3))),
            ("egress.default", Some((1, 1))),
            ("drain", None),
            ("", None),
        ] {
            assert_eq!(locations.of(path), at, "{path}");
        }
    }

    #[test]
    fn problems_are_told_in_the_order_of_the_file() {
        let places = [("drain", (9, 1)), ("log", (2, 1))].map(|(path, at)| (path.to_owned(), at));
        let locations = Locations {
            file: "a.yml".to_owned(),
            places: places.into(),
        };
        let mut problems = Problems::default();
        problems.add("drain", "late", "");
        problems.add("log.level", "early", "");
        let problems = problems.located(&locations).to_string();
        assert_eq!(problems, "a.yml:2:1: log.level: early\na.yml:9:1: drain: late");
    }
}
