//! The tries of one request, one after the other: the first one, and another as long as there is a reason for it.
//!
//! What a try consists of is in [`attempt`](super::attempt), whether another one follows in [`tries`](super::tries). While
//! it is made, what the last one has come to is set [`aside`](super::aside): where the next one is not let through, its
//! credential cannot be made ready, or no connection can be made for it, the app gets the answer that there was.
//!
//! What may be asked at all is checked before, in [`forward`](super::forward); what the app gets of the answer is shaped
//! there as well.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Response, Version, header, request};
use http_body::Body as _;
use tokio::time::{Instant, sleep};

use super::aside::Aside;
use super::attempt::{Course, Reason, Tried, attempt};
use super::scrub::{self, Clean};
use super::tries::{Moment, Next, Tries};
use super::{Error, headers};
use crate::auth::Credential;
use crate::limit::Permit;
use crate::telemetry::Exchange;
use crate::upstream::body::Progress;
use crate::upstream::{Incoming, Outbound};

/// An upstream's answer, and what has to last as long as its body does.
pub(super) struct Fetched<'r> {
    /// With which the request was sent.
    pub(super) credential: &'r Credential,
    /// Whether the end of the body can be told from its being cut.
    pub(super) is_framed: bool,
    /// Without what went one hop only.
    pub(super) response: Response<Clean>,
    /// A slow download still occupies its slot.
    pub(super) permit: Option<Permit>,
    /// `None` where the request has no body.
    pub(super) upload: Option<Arc<Progress>>,
}

/// Sends one request, without the fields of the app's hop, to its target and returns once the head of its answer is in.
/// Afterwards `head` holds the credential.
pub(super) async fn fetch<'r>(
    head: &mut request::Parts,
    incoming: Option<Incoming>,
    course: Course<'r>,
    exchange: &mut Exchange,
) -> Result<Fetched<'r>, Error> {
    let route = &course.way.route;
    let tries = Tries::new(route.retrying.as_deref(), head);
    let (mut body, upload) = Outbound::new(incoming, route.destination.timeouts.idle);
    let mut tried = attempt(head, &mut body, &tries.first(), &course, exchange).await;
    if let Ok(first) = &tried
        && let Some(reason) = tries.reason(first)
        && let Ok(first) = tried
    {
        // Boxed: few requests are sent twice, and every connection holds this future.
        tried = Box::pin(again(reason, first, tries, head, body, course, exchange)).await;
    }
    let is_empty = head.method == Method::HEAD;
    let cleaned = tried.and_then(|tried| {
        let response = tried.result.map_err(|failed| failed.error)?;
        let mut response = scrub::body(response, is_empty, tried.needles, route)?;
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

/// Sends a request again as long as there is a reason for it.
async fn again<'r>(
    mut reason: Reason,
    mut tried: Tried<'r>,
    mut tries: Tries<'r>,
    head: &mut request::Parts,
    mut body: Outbound,
    course: Course<'r>,
    exchange: &mut Exchange,
) -> Result<Tried<'r>, Error> {
    let waited_before = exchange.total_wait();
    let mut aside: Option<Aside<'r>> = None;
    loop {
        let moment = Moment {
            chance: rand::random(),
            clock: SystemTime::now(),
            now: Instant::now(),
            waited: exchange.total_wait().saturating_sub(waited_before),
        };
        let next = tries.next(reason, tried.result.as_ref(), head, moment);
        let Some(Next { mut terms, wait }) = next else {
            return newest(aside, tried, exchange);
        };
        tracing::debug!(
            destination = %course.way.route.destination.name,
            reason = reason.as_str(),
            ?wait,
            "to be sent again",
        );
        let is_token_replaced = reason == Reason::Renewal && tried.is_token_replaced;
        terms.credential = is_token_replaced.then_some(tried.credential);
        terms.earlier = Some(Arc::clone(&tried.needles));
        let since = Instant::now();
        let kept = match aside.take() {
            Some(aside) if aside.is_answer() && tried.is_unsent() => {
                exchange.upstream_failed();
                aside
            }
            _ => Aside::of(tried, exchange).await,
        };
        let mut slept = Duration::ZERO;
        if let Some(patience) = &mut terms.patience {
            sleep(wait).await;
            slept = since.elapsed();
            exchange.waited(slept);
            *patience = patience.saturating_sub(slept);
        }
        tried = match attempt(head, &mut body, &terms, &course, exchange).await {
            Ok(tried) => tried,
            Err(refusal) => {
                if matches!(refusal, Error::Limited(_)) {
                    exchange.waited(since.elapsed() - slept);
                }
                return kept.stand(refusal, exchange);
            }
        };
        reason = match tries.reason(&tried) {
            Some(reason) => reason,
            None => return newest(Some(kept), tried, exchange),
        };
        aside = Some(kept);
    }
}

/// What the app gets where no other try is made: an answer that was set aside stands where the last one did not reach the
/// upstream.
fn newest<'r>(
    aside: Option<Aside<'r>>,
    tried: Tried<'r>,
    exchange: &mut Exchange,
) -> Result<Tried<'r>, Error> {
    match (aside, tried) {
        (
            Some(aside),
            Tried {
                result: Err(failed), ..
            },
        ) if failed.is_unsent && aside.is_answer() => aside.stand(failed.error.into(), exchange),
        (_, tried) => Ok(tried),
    }
}

/// Whether the end of the body can be told from its being cut.
fn is_framed(response: &Response<Clean>) -> bool {
    response.version() == Version::HTTP_2
        || response.body().is_end_stream()
        || (response.headers()).contains_key(header::CONTENT_LENGTH)
        || (response.headers()).contains_key(header::TRANSFER_ENCODING)
}
