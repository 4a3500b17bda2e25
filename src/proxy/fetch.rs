//! One request to the upstream: leave to send it, the credential, the sending.
//!
//! What may be asked at all is checked before, in [`forward`](super::forward); what the app gets of the answer is
//! shaped there as well. When a request is sent more than once is decided in [`retry`](super::retry).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, request};
use tokio::time::Instant;

use super::retry::First;
use super::{Error, Proxy, Route, Way};
use crate::host::Target;
use crate::limit::{self, Permit};
use crate::telemetry::Exchange;
use crate::upstream::body::Progress;
use crate::upstream::breaker::{Outcome, Passage};
use crate::upstream::{self, Failed, Incoming, Mirror, Outbound, ResponseBody};

/// An upstream's answer, and what has to last as long as its body does.
pub(super) struct Fetched {
    pub(super) response: Response<ResponseBody>,
    /// A slow download still occupies its slot.
    pub(super) permit: Option<Permit>,
    /// `None` where the request has no body.
    pub(super) upload: Option<Arc<Progress>>,
}

/// Where a request goes, and by what means.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) target: &'a Target,
    pub(super) mirror: Mirror,
    pub(super) way: &'a Way,
    pub(super) proxy: &'a Proxy,
}

/// Leave to ask the upstream once. Dropped unused, it gives everything back but what a rate has counted.
pub(super) struct Leave {
    permit: Option<Permit>,
    passage: Option<Passage>,
}

/// Sends one request, without the fields of the app's hop, to `target` and returns once the head of its answer is in.
/// Afterwards `head` holds the credential.
pub(super) async fn fetch(
    head: &mut request::Parts,
    incoming: Option<Incoming>,
    target: &Target,
    mirror: Mirror,
    way: &Way,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Fetched, Error> {
    let route = &way.route;
    let course = Course {
        target,
        mirror,
        way,
        proxy,
    };
    let mut first = route.retrying.as_ref().map(|retrying| First::new(retrying, head));
    let leave = admit(head, route, None, exchange).await?;
    attach(head, route)?;
    let (mut body, upload) = Outbound::new(incoming, route.destination.timeouts.idle);
    let gathered = match &mut first {
        None => Ok(()),
        Some(first) => first.gather(&mut body, exchange).await,
    };
    let result = match gathered {
        Ok(()) => {
            let sent = send(head, &mut body, leave, course, exchange).await;
            match First::judge(first, sent) {
                Ok(result) => result,
                // Boxed: few requests come here.
                Err(again) => Box::pin(again.run(head, body, course, exchange)).await,
            }
        }
        Err(error) => Err(error),
    };
    match result {
        Ok((response, permit)) => Ok(Fetched {
            response,
            permit,
            upload,
        }),
        Err(error) => {
            exchange.sent(upload.as_ref().map_or(0, |upload| upload.bytes()));
            Err(error)
        }
    }
}

/// Waits for leave to ask the upstream once, as long as `patience` says, else as the destination has it. Where its
/// circuit is open, no limit is spent.
pub(super) async fn admit(
    head: &request::Parts,
    route: &Route,
    patience: Option<Duration>,
    exchange: &mut Exchange,
) -> Result<Leave, Error> {
    route.attachment.as_ref().map_err(|_| Error::Credential)?;
    let passage = (route.breaker.as_ref())
        .map(|breaker| breaker.pass(Instant::now()))
        .transpose()?;
    if route.limiter.is_unlimited() {
        return Ok(Leave {
            permit: None,
            passage,
        });
    }
    let (limiter, method, path) = (&route.limiter, &head.method, head.uri.path());
    let permit = match patience {
        None => {
            let deadline = || limit::deadline(&head.headers);
            limiter.admit(method, path, deadline).await?
        }
        Some(patience) => limiter.admit_within(method, path, || patience).await?,
    };
    exchange.waited(permit.waited());
    if let Some(passage) = &passage
        && !permit.waited().is_zero()
    {
        passage.check(Instant::now())?;
    }
    Ok(Leave {
        permit: Some(permit),
        passage,
    })
}

/// Puts the credential on a request.
pub(super) fn attach(head: &mut request::Parts, route: &Route) -> Result<(), Error> {
    let attachment = route.attachment.as_ref().map_err(|_| Error::Credential)?;
    // OPTIONS asks what a server can do, often without a person behind it: it carries a credential only where named.
    if head.method != Method::OPTIONS || route.destination.names(&Method::OPTIONS) {
        attachment.apply(head).map_err(|_| Error::Credential)?;
    }
    Ok(())
}

/// Asks the upstream, or what stands for it in a rehearsal, and lets the circuit hear what became of it. Afterwards
/// `body` is what it was where it is whole or nothing was sent.
pub(super) async fn send(
    head: &request::Parts,
    body: &mut Outbound,
    leave: Leave,
    course: Course<'_>,
    exchange: &mut Exchange,
) -> Result<(Response<ResponseBody>, Option<Permit>), Failed> {
    let Leave { permit, passage } = leave;
    let Way { live, route } = course.way;
    exchange.asked_upstream();
    let result = if let Some(rehearsal) = &route.rehearsal
        && let Some(response) = Box::pin(rehearsal.ask(head.method == Method::HEAD)).await
    {
        exchange.answered_here(response.status());
        Ok(response)
    } else {
        let ways = course.proxy.ways(live);
        upstream::send(head, body, course.target, course.mirror, &route.endpoint, ways)
            .await
            .inspect(|response| exchange.upstream_answered(response.status()))
    };
    if let (Some(permit), Ok(response)) = (&permit, &result) {
        permit.learn(response.status(), response.headers());
    }
    if let Some(passage) = passage {
        passage.tell(match &result {
            Ok(response) => Outcome::of_answer(response.status(), response.headers()),
            Err(failed) => Outcome::of_error(&failed.error),
        });
    }
    Ok((result?, permit))
}
