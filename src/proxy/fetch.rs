//! The tries of one request: the first one, and further ones as long as there is a reason.
//!
//! [`attempt`](super::attempt) makes one try, [`tries`](super::tries) decides about another one. During the next
//! try the result of the last one is kept as an [`EarlierOutcome`]. The app gets it if the next try is not
//! admitted, its credential cannot be made ready, or it finds no connection.
//!
//! [`forward`](super::forward) has checked the request before, and shapes the response afterwards.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Version, header};
use http_body::Body as _;
use tokio::time::{Instant, sleep};

use super::attempt::{RequestContext, RetryReason, TryOutcome, attempt};
use super::earlier::EarlierOutcome;
use super::scrub::{self, RedactedBody};
use super::tries::{NextTry, RetryConditions, Tries};
use super::{Error, headers, placeholders};
use crate::auth::LiveCredential;
use crate::limit::Permit;
use crate::message::{RequestHead, Response};
use crate::telemetry::Exchange;
use crate::upstream::body::Progress;
use crate::upstream::{Incoming, Outbound};

/// The upstream's response, with what must live as long as its body.
pub(super) struct Fetched<'r> {
    /// The credential that the request was sent with.
    pub(super) credential: &'r LiveCredential,
    /// Whether a complete body can be distinguished from one that was cut off.
    pub(super) is_framed: bool,
    /// Without the hop-by-hop fields.
    pub(super) response: Response<RedactedBody>,
    /// A download keeps its permit to its end.
    pub(super) permit: Option<Permit>,
    /// `None` where the request has no body.
    pub(super) upload: Option<Arc<Progress>>,
}

/// Sends a request until no further try follows. Returns as soon as the head of the response is in.
///
/// `head` has no hop-by-hop fields. Afterwards it holds the credential.
pub(super) async fn fetch<'r>(
    head: &mut RequestHead,
    incoming: Option<Incoming>,
    context: RequestContext<'r>,
    exchange: &mut Exchange,
) -> Result<Fetched<'r>, Error> {
    let route = &context.routed.route;
    let tries = Tries::new(route.retry_policy.as_deref(), head);
    let mut first = tries.first();
    if let Some(own) = &route.placeholders {
        placeholders::substitute(head, own, route)?;
        first.earlier = own.matcher().cloned();
    }
    let (mut body, upload) = Outbound::new(incoming, route.destination.timeouts.idle);
    let mut tried = attempt(head, &mut body, &first, &context, exchange).await;
    if let Ok(first) = &tried
        && let Some(reason) = tries.reason(first)
        && let Ok(first) = tried
    {
        // Boxed: few requests are sent twice, and each connection holds this future.
        tried = Box::pin(again(reason, first, tries, head, body, context, exchange)).await;
    }
    let is_empty = head.method == Method::HEAD;
    let cleaned = tried.and_then(|tried| {
        let response = tried.result.map_err(|failed| failed.error)?;
        let mut response = scrub::body(response, is_empty, tried.matcher, route)?;
        let is_framed = is_framed(&response);
        headers::strip_response(&mut response);
        Ok((tried.credential, is_framed, tried.permit, response))
    });
    match cleaned {
        Ok((credential, is_framed, permit, response)) => Ok(Fetched {
            credential,
            is_framed,
            response,
            permit,
            upload,
        }),
        Err(error) => {
            exchange.sent(upload.map_or(0, |upload| upload.bytes()));
            Err(error)
        }
    }
}

/// Sends a request again as long as there is a reason.
async fn again<'r>(
    mut reason: RetryReason,
    mut tried: TryOutcome<'r>,
    mut tries: Tries<'r>,
    head: &mut RequestHead,
    mut body: Outbound,
    context: RequestContext<'r>,
    exchange: &mut Exchange,
) -> Result<TryOutcome<'r>, Error> {
    let waited_before = exchange.total_wait();
    let mut earlier: Option<EarlierOutcome<'r>> = None;
    loop {
        let conditions = RetryConditions {
            chance: rand::random(),
            clock: SystemTime::now(),
            now: Instant::now(),
            waited: exchange.total_wait().saturating_sub(waited_before),
        };
        let next = tries.next(reason, tried.result.as_ref(), head, conditions);
        let Some(NextTry { mut options, wait }) = next else {
            return newest(earlier, tried, exchange);
        };
        tracing::debug!(
            destination = %context.routed.route.destination.name,
            reason = reason.as_str(),
            ?wait,
            "to be sent again",
        );
        let is_token_replaced = reason == RetryReason::Renewal && tried.is_token_replaced;
        options.credential = is_token_replaced.then_some(tried.credential);
        options.earlier = Some(Arc::clone(&tried.matcher));
        let since = Instant::now();
        let kept = match earlier.take() {
            Some(earlier) if earlier.is_answer() && tried.is_unsent() => {
                exchange.upstream_failed();
                earlier
            }
            _ => EarlierOutcome::of(tried, exchange).await,
        };
        let mut slept = Duration::ZERO;
        if let Some(patience) = &mut options.patience {
            sleep(wait).await;
            slept = since.elapsed();
            exchange.waited(slept);
            *patience = patience.saturating_sub(slept);
        }
        tried = match attempt(head, &mut body, &options, &context, exchange).await {
            Ok(tried) => tried,
            Err(refusal) => {
                if matches!(refusal, Error::Limited(_)) {
                    exchange.waited(since.elapsed() - slept);
                }
                return kept.or(refusal, exchange);
            }
        };
        reason = match tries.reason(&tried) {
            Some(reason) => reason,
            None => return newest(Some(kept), tried, exchange),
        };
        earlier = Some(kept);
    }
}

/// Returns what the app gets after the last try: an earlier answer if that try did not reach the upstream.
fn newest<'r>(
    earlier: Option<EarlierOutcome<'r>>,
    tried: TryOutcome<'r>,
    exchange: &mut Exchange,
) -> Result<TryOutcome<'r>, Error> {
    match (earlier, tried) {
        (
            Some(earlier),
            TryOutcome {
                result: Err(failed), ..
            },
        ) if failed.is_unsent && earlier.is_answer() => earlier.or(failed.error.into(), exchange),
        (_, tried) => Ok(tried),
    }
}

/// Whether a complete body can be distinguished from one that was cut off.
fn is_framed(response: &Response<RedactedBody>) -> bool {
    response.version() == Version::HTTP_2
        || response.body().is_end_stream()
        || response.headers().contains_key(header::CONTENT_LENGTH)
        || response.headers().contains_key(header::TRANSFER_ENCODING)
}
