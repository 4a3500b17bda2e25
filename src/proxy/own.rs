//! Requests of outrider itself that go the way of the app's requests: by destination, with its credential, under the
//! rules for egress, through parents. The listener's clients do not matter here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{AppResponse, Proxy, finish, forward};
use crate::host::Target;
use crate::message::Request;
use crate::stream::Io;
use crate::telemetry::Exchange;
use crate::upstream::body::{BodyError, SearchedBody};
use crate::upstream::{BoundConnections, Incoming, Protocol};

/// How much of an answer is read, so that its connection can be used again.
const LARGEST: usize = 64 * 1024;

/// What became of a request of ours.
#[derive(Debug)]
pub(crate) struct OwnAnswer {
    pub(crate) status: StatusCode,
    /// Why outrider did not send it, or got no answer.
    pub(crate) refusal: Option<String>,
}

impl Proxy {
    /// Sends a request in absolute form to `target`, and waits for the end of its answer.
    pub(crate) async fn send_own(self: &Arc<Self>, request: Request<Bytes>, target: &Target) -> OwnAnswer {
        let mut exchange = Exchange::begin(&self.telemetry, request.method(), request.uri());
        let mut request = request.map(|body| Some(Incoming::Searched(Box::new(OwnBody(body)))));
        let authority = request.uri().authority().map(|authority| authority.as_str());
        if let Some(Ok(host)) = authority.map(HeaderValue::from_str) {
            request.headers_mut().insert(header::HOST, host);
        }
        let live = self.live.load_full();
        let bond: Arc<BoundConnections> = Arc::default();
        let result = match self.route_to(live, target, None, &request, &mut exchange) {
            Ok(routed) => {
                let bond = &bond;
                forward::run(request, target, Protocol::H1, &routed, bond, &mut exchange, self).await
            }
            Err(error) => Err(error),
        };
        let refusal = result.as_ref().err().map(ToString::to_string);
        let answer: AppResponse<Io> = finish(result, exchange, |_| false);
        let (status, mut body) = match answer {
            AppResponse::Response(response) => (response.status(), Some(response.into_body())),
            // It has not asked for another protocol.
            AppResponse::Switch(response, _) => (response.status(), None),
            AppResponse::Foreign(_) => (StatusCode::BAD_GATEWAY, None),
        };
        let mut read = 0;
        while let Some(body) = &mut body
            && read < LARGEST
            && let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        OwnAnswer { status, refusal }
    }
}

/// The body of a request of ours.
#[derive(Debug)]
struct OwnBody(Bytes);

impl HttpBody for OwnBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = std::mem::take(&mut self.0);
        Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

impl SearchedBody for OwnBody {
    fn ask(&self) {}

    fn is_read_whole(&self) -> bool {
        true
    }
}
