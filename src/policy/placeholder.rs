//! Why a request with the placeholder of a secret is refused.

use std::sync::Arc;

use crate::config::SecretRef;

/// A request that carries the placeholder of a secret to where the secret cannot take its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request carries the placeholder of {reference} in {place}, {}", fault.sentence(destination, reference))]
pub(crate) struct PlaceholderDenial {
    pub(crate) destination: Arc<str>,
    pub(crate) fault: PlaceholderFault,
    /// Where it stands, as in `a field`.
    pub(crate) place: &'static str,
    pub(crate) reference: SecretRef,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaceholderFault {
    /// It would leave without TLS.
    Clear,
    /// The app states a digest or a signature of the body.
    Digest,
    /// The destination does not use the secret.
    Foreign,
    /// The length of the body is stated, and would change.
    Length,
    /// The destination uses the secret, but never sends it.
    NeverSent,
    /// No secret may stand there.
    Place,
    /// It is written in a way that is not understood.
    Spelling,
    /// The body is of a type in which no length may change.
    Type,
    /// The secret has characters that are not valid there.
    Unfit,
}

impl PlaceholderFault {
    fn sentence(self, destination: &str, reference: &SecretRef) -> String {
        match self {
            Self::Clear => "which would leave in clear; ask for https://".to_owned(),
            Self::Digest => {
                "and a digest or a signature that the app has made of it would not fit the secret; let the \
                             app send none, or send the secret in a field"
                    .to_owned()
            }
            Self::Foreign => format!(
                "and destination {destination} does not use that secret; where it should, name {reference} in the auth \
                 of that destination"
            ),
            Self::Length => format!(
                "and the secret has another length, while a body of this size is not kept to state a new one; send 1 MiB \
                 at most, or send it in chunks, or give the placeholder the length of the secret: placeholders.shapes, \
                 {reference}: {{ length: N }}"
            ),
            Self::NeverSent => {
                "which only signs, opens a file or fetches a token elsewhere, and is never sent there; outrider uses it \
                 itself, so leave it out"
                    .to_owned()
            }
            Self::Place => {
                "where no secret is put in; send it in a field, in the query or in the body".to_owned()
            }
            Self::Spelling => {
                "written in a way in which it is not replaced; send it as it is in the variable".to_owned()
            }
            Self::Type => format!(
                "and a body of this type may fall apart if its length changes; give the placeholder the length of the \
                 secret (placeholders.shapes, {reference}: {{ length: N }}), or send the secret in a field"
            ),
            Self::Unfit => {
                "and the secret has characters that are not valid there; write it again as visible ASCII"
                    .to_owned()
            }
        }
    }
}
