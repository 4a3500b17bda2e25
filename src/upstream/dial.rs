//! TCP connections to approved addresses: happy eyeballs (RFC 8305), a limit on time, errors that name the cause.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::policy::Approved;

/// Why no connection was made, of all addresses tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the connection was not made in time")]
    Timeout,
    #[error("the connection was refused")]
    Refused(#[source] io::Error),
    #[error("TODO")]
    Unreachable(#[source] io::Error),
    #[error("TODO")]
    Local(#[source] io::Error),
}

/// Connects to the first of `approved` that answers within `limit`; TCP_NODELAY is set.
pub(crate) async fn dial(approved: &Approved, limit: Duration) -> Result<TcpStream, Error> {
    todo!("{approved:?} {limit:?}")
}
