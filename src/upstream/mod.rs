//! How we get there.

pub(crate) mod dial;
pub(crate) mod resolve;
pub(crate) mod tls;
