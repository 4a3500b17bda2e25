//! From the tree to the settings of the credentials that sign.

use crate::config::{SecretRef, Text};

/// AWS Signature Version 4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AwsSigV4 {
    pub(crate) access_key_id: Text,
    /// The largest body that is hashed, in bytes.
    pub(crate) max_body: usize,
    pub(crate) region: String,
    pub(crate) secret_access_key: SecretRef,
    pub(crate) service: String,
    pub(crate) session_token: Option<SecretRef>,
}
