//! CONNECT: asks an HTTP parent for a tunnel to the target.
//!
//! Any 2xx opens it, whatever the fields of its head say, and what came behind the head belongs to the target. After any
//! other answer the connection is closed: some parents keep it open and do not serve it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::Parent;
use super::answer::{self, ParentRefusal};
use super::error::ParentFault;
use crate::host::Target;
use crate::http1::client::{ClientConnection, SendError};
use crate::http1::{self, HeadRules};
use crate::message::Request;
use crate::upstream::Outbound;

/// How the head of a parent's answer is read.
const HEAD: HeadRules = HeadRules {
    count: 100,
    keeps_spelling: false,
    size: 32 * 1024,
};

/// So much of a refusal is read to find the reason in it.
const MOST_REASON: usize = 2 * 1024;

/// How long the reason may take to follow its head.
const REASON: Duration = Duration::from_millis(300);

/// RFC 8586. The same name is in our requests, where it shows a loop.
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Opens a tunnel to `target`. Returns the stream, and the bytes of the target that came with the answer.
pub(super) async fn open<S>(
    hop: S,
    target: &Target,
    parent: &Parent,
    marker: &str,
    limit: Duration,
) -> Result<(S, Bytes), ParentFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    if let Ok(marker) = HeaderValue::from_str(marker) {
        request.headers_mut().insert(CDN_LOOP, marker);
    }
    let head = request.into_parts().0;
    // A parsed host is visible ASCII.
    let authority = HeaderValue::from_str(&target.to_string()).map_err(|_| ParentFault::Closed)?;
    let mut connection = ClientConnection::new(hop, HEAD).for_proxy(parent.tunnel_form.clone());
    let sent = connection.send(&head, &authority, Outbound::Empty, limit, |_| ());
    // The limit of `send` begins again with each interim answer.
    let response = match timeout(limit, sent).await {
        Err(_) => return Err(ParentFault::Silent(limit)),
        Ok(Err(error)) => return Err(of_failure(error, parent, limit)),
        Ok(Ok(response)) => response,
    };
    if response.status().is_success() {
        return Ok(connection.into_parts());
    }
    let mut refusal = ParentRefusal::of(&response);
    if refusal.wants_reason() {
        let reason = timeout(REASON, reason(&mut connection)).await;
        refusal.reason = reason.unwrap_or_default();
    }
    Err(answer::of_connect(
        &refusal,
        parent.tunnel_form.authorization.is_some(),
    ))
}

/// Reads the beginning of the body.
async fn reason<S>(connection: &mut ClientConnection<S, Outbound>) -> Vec<u8>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    poll_fn(|cx| {
        while read.len() < MOST_REASON {
            match connection.poll_frame(cx, REASON) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    read.extend_from_slice(&data[..data.len().min(MOST_REASON - read.len())]);
                }
                Poll::Ready(Some(Err(_)) | None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
    read
}

fn of_failure<E>(error: SendError<E>, parent: &Parent, limit: Duration) -> ParentFault {
    let error = match error {
        SendError::TimedOut => return ParentFault::Silent(limit),
        SendError::Body(_) => return ParentFault::Closed,
        SendError::Answer(error) | SendError::Lost(error) => error,
    };
    if let Some(fault) = parent.tls_fault(&error) {
        return fault;
    }
    match error {
        http1::Error::Incomplete | http1::Error::Io(_) | http1::Error::Slow => ParentFault::Closed,
        error => ParentFault::Malformed(error.to_string()),
    }
}
