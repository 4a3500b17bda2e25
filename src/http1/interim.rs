//! Interim answers (1xx, RFC 9110 section 15.2) for the app.

use crate::message::Response;
/// Takes the interim answers to the current request, and sends them to the app.
pub(crate) trait Interim: Send + Sync {
    /// Sends an interim answer to the app, unless the final one has begun. A 100 is sent only if the app waits for it.
    fn interim(&self, response: Response<()>);
}
