//! What is attached: the credential and the headers of a destination, made ready once, applied to each request.

use http::request::Parts;

use crate::policy::Destination;
use crate::secret::{self, Sources};

/// Everything that is put on, or struck from, the requests of one destination. Values are marked sensitive.
#[derive(Debug)]
pub(crate) struct Attachment {
    // private
}

impl Attachment {
    /// Reads the secrets and builds the field values.
    pub(crate) fn build(destination: &Destination, sources: &Sources) -> Result<Self, secret::Error> {
        todo!("{destination:?} {sources:?}")
    }

    /// Whether `apply` would change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        todo!()
    }

    /// Strikes what is to be removed and sets what is to be attached; the app's own values of an attached
    /// field (all spellings, all duplicates) or query parameter are replaced.
    pub(crate) fn apply(&self, head: &mut Parts) {
        todo!("{head:?}")
    }
}
