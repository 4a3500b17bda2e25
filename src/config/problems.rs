//! Everything that is wrong with a configuration, at once.

use std::fmt;

/// One thing that is wrong: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `destinations.partner.hosts[2]`; empty for the file as a whole.
    pub(crate) path: String,
    /// 1-based line and column, where known.
    pub(crate) at: Option<(usize, usize)>,
    pub(crate) what: String,
    /// Empty where `what` says it all.
    pub(crate) right: String,
}

/// All problems of one file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    /// The file's name as given.
    pub(crate) file: String,
    pub(crate) all: Vec<Problem>,
}

/// A line each: `file:line:column: path: what is wrong; what would be right`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        {
            let _ = f;
            todo!()
        }
    }
}

impl std::error::Error for Problems {}
