//! An error with all its causes, in one line.

use std::error::Error;
use std::fmt;

/// Shows an error with all its causes: the first level often says only what was attempted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorChain<'e>(pub(crate) &'e (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
