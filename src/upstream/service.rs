//! Servers that outrider itself asks: token endpoints, and issuers that publish their keys.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use http_body::Body as _;
use zeroize::Zeroizing;

use super::resolve::Resolver;
use super::{DialContext, Endpoint, Outbound, Protocol, RequestFailed, ResponseBody};
use crate::host::Target;
use crate::message::{RequestHead, Response};
use crate::policy::EgressRules;

/// How such a server is reached: under the same rules as any other upstream.
#[derive(Clone, Debug)]
pub(crate) struct ServiceEndpoint {
    pub(crate) egress: Arc<EgressRules>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) resolver: Arc<Resolver>,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WholeError {
    Incomplete,
    TooLarge,
}

impl ServiceEndpoint {
    /// Sends one request to `target`, and returns once the head of the answer is in.
    pub(crate) async fn send(
        &self,
        head: &RequestHead,
        mut body: Outbound,
        target: &Target,
    ) -> Result<Response<ResponseBody>, RequestFailed> {
        let network = DialContext {
            resolver: &self.resolver,
            egress: &self.egress,
        };
        super::send(
            head,
            &mut body,
            target,
            Protocol::H1,
            &self.endpoint,
            network,
            &(),
        )
        .await
    }
}

/// Reads a body of at most `most` bytes, into memory that is never moved and is wiped.
pub(crate) async fn whole(mut body: ResponseBody, most: usize) -> Result<Zeroizing<Vec<u8>>, WholeError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(|_| WholeError::Incomplete)?.into_data() {
            if bytes.len() + data.len() > most {
                return Err(WholeError::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}
