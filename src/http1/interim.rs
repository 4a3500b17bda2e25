//! Answers before the final one (RFC 9110 section 15.2), on their way to the app.

use http::Response;

/// Who takes the interim answers to the request at hand: the app's side of it.
pub(crate) trait Interim: Send + Sync {
    /// Sends an interim answer to the app, in time or not at all. A 100 is sent where the app waits for it.
    fn interim(&self, response: Response<()>);
}
