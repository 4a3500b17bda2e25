//! One request to the upstream: leave to send it, the credential, the sending.
//!
//! What may be asked at all is checked before, in [`forward`](super::forward); what the app gets of the answer is
//! shaped there as well. When a request is sent more than once is decided in [`retry`](super::retry), and after a
//! refused credential in [`renew`].

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode, request};
use tokio::time::Instant;

use super::renew;
use super::retry::{First, MOST_KEPT};
use super::scrub::{self, Clean};
use super::{Error, Proxy, Route, Way};
use crate::auth::Credential;
use crate::auth::Payload;
use crate::host::Target;
use crate::limit::{self, Limiter, Permit};
use crate::telemetry::Exchange;
use crate::upstream::body::Progress;
use crate::upstream::breaker::{Outcome, Passage};
use crate::upstream::{self, Failed, Incoming, Mirror, Outbound, ResponseBody};

/// An upstream's answer, and what has to last as long as its body does.
pub(super) struct Fetched<'r> {
    /// With which the request was sent.
    pub(super) credential: &'r Credential,
    pub(super) response: Response<Clean>,
    /// A slow download still occupies its slot.
    pub(super) permit: Option<Permit>,
    /// `None` where the request has no body.
    pub(super) upload: Option<Arc<Progress>>,
}

/// An upstream's answer to one try.
pub(super) struct Answered<'r> {
    /// With which it was made.
    pub(super) credential: &'r Arc<Credential>,
    pub(super) permit: Option<Permit>,
    pub(super) response: Response<ResponseBody>,
}

/// Where a request goes, and by what means.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) target: &'a Target,
    pub(super) mirror: Mirror,
    pub(super) way: &'a Way,
    pub(super) proxy: &'a Arc<Proxy>,
}

/// Leave to ask the upstream once, with one credential. Dropped unused, it gives everything back but what a rate has
/// counted.
pub(super) struct Leave<'r> {
    pub(super) credential: &'r Arc<Credential>,
    /// Whatever comes of it, the credential is not renewed for it.
    pub(super) is_last: bool,
    /// Of what the upstream says of this credential alone. Boxed: few destinations have a pool.
    member: Option<Box<Permit>>,
    passage: Option<Passage>,
    permit: Option<Permit>,
}

/// Sends one request, without the fields of the app's hop, to `target` and returns once the head of its answer is in.
/// Afterwards `head` holds the credential.
pub(super) async fn fetch<'r>(
    head: &mut request::Parts,
    incoming: Option<Incoming>,
    course: Course<'r>,
    exchange: &mut Exchange,
) -> Result<Fetched<'r>, Error> {
    let route = &course.way.route;
    let mut first = route.retrying.as_ref().map(|retrying| First::new(retrying, head));
    let leave = admit(head, route, None, None, exchange).await?;
    let (mut body, upload) = Outbound::new(incoming, route.destination.timeouts.idle);
    let gathered = gather(&mut body, &mut first, leave.credential, exchange).await;
    let is_ready = match gathered {
        Ok(()) => ready(head, leave.credential, course, exchange).await,
        Err(error) => Err(error),
    };
    let attached = is_ready.and_then(|()| attach(head, &body, leave.credential, course));
    let result = match attached {
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
    let result = result.and_then(|answered| {
        let Answered {
            credential,
            permit,
            response,
        } = answered;
        let is_empty = head.method == Method::HEAD;
        let response = scrub::body(response, is_empty, credential.needles(head), route)?;
        Ok((credential, permit, response))
    });
    match result {
        Ok((credential, permit, response)) => Ok(Fetched {
            credential,
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

/// Reads a small body whole where the request may have to be sent again with it, or the credential has to see it.
async fn gather(
    body: &mut Outbound,
    first: &mut Option<First<'_>>,
    credential: &Credential,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let wanted = [
        first.as_ref().and_then(First::keeps),
        credential.can_be_renewed().then_some(MOST_KEPT),
        credential.hashes(),
    ];
    if let Some(most) = wanted.into_iter().flatten().max()
        && !body.is_whole()
    {
        // It is the app that takes its time.
        exchange.asked_upstream();
        let whole = std::mem::replace(body, Outbound::Empty);
        // Boxed: most requests have none.
        *body = Box::pin(whole.gather(most)).await?;
    }
    if let Some(first) = first {
        first.has_gathered(body);
    }
    Ok(())
}

/// Waits for leave to ask the upstream once, as long as `patience` says, else as the destination has it; `with` this
/// credential, or with the one that fits best. Where its circuit is open, no limit is spent.
pub(super) async fn admit<'r>(
    head: &request::Parts,
    route: &'r Route,
    with: Option<&'r Arc<Credential>>,
    patience: Option<Duration>,
    exchange: &mut Exchange,
) -> Result<Leave<'r>, Error> {
    let (method, path) = (&head.method, head.uri.path());
    // Before anything is spent: there may be none.
    let credentials = route.credentials()?;
    let rule = route.destination.auth_rule(method, path)?;
    if carries(head, route) {
        let mut waited = Duration::ZERO;
        let ready = credentials.ready(rule, &mut waited).await;
        exchange.waited(waited);
        ready?;
    }
    let passage = (route.breaker.as_ref())
        .map(|breaker| breaker.pass(Instant::now()))
        .transpose()?;
    let permit = pass(&route.limiter, head, patience).await?;
    let mut waited = permit.as_ref().map_or(Duration::ZERO, Permit::waited);
    // After the wait: which of a pool has the most left may have changed.
    let credential = with.unwrap_or_else(|| credentials.choose(rule));
    let member = match &credential.limiter {
        None => None,
        Some(limiter) => {
            let left = patience.map(|patience| patience.saturating_sub(waited));
            Box::pin(pass(limiter, head, left)).await?.map(Box::new)
        }
    };
    waited += member.as_ref().map_or(Duration::ZERO, |permit| permit.waited());
    exchange.waited(waited);
    if let Some(passage) = &passage
        && !waited.is_zero()
    {
        passage.check(Instant::now())?;
    }
    Ok(Leave {
        credential,
        is_last: false,
        member,
        passage,
        permit,
    })
}

/// A permit of one limiter; `None` where nothing is limited.
async fn pass(
    limiter: &Arc<Limiter>,
    head: &request::Parts,
    patience: Option<Duration>,
) -> Result<Option<Permit>, Error> {
    if limiter.is_unlimited() {
        return Ok(None);
    }
    let (method, path) = (&head.method, head.uri.path());
    Ok(Some(match patience {
        None => {
            let deadline = || limit::deadline(&head.headers);
            limiter.admit(method, path, deadline).await?
        }
        Some(patience) => limiter.admit_within(method, path, || patience).await?,
    }))
}

/// Waits until the credential can be put on a request.
pub(super) async fn ready(
    head: &request::Parts,
    credential: &Credential,
    course: Course<'_>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    if carries(head, &course.way.route) {
        // Again: of a pool nobody knew which one, and the request may have waited for long.
        let mut waited = Duration::ZERO;
        let ready = credential.ready(&mut waited).await;
        exchange.waited(waited);
        ready?;
    }
    Ok(())
}

/// Puts the credential on a request, in the place of what an earlier try has put there.
pub(super) fn attach(
    head: &mut request::Parts,
    body: &Outbound,
    credential: &Credential,
    course: Course<'_>,
) -> Result<(), Error> {
    if carries(head, &course.way.route) {
        let payload = body.data().map_or(Payload::Streamed, Payload::Whole);
        credential.apply(head, course.target, payload)?;
    }
    Ok(())
}

/// OPTIONS asks what a server can do, often without a person behind it: it carries a credential only where named.
fn carries(head: &request::Parts, route: &Route) -> bool {
    head.method != Method::OPTIONS || route.destination.names(&Method::OPTIONS)
}

/// Asks the upstream, or what stands for it in a rehearsal, and lets circuit, limits and credentials hear what became
/// of it; asks once more where the credential is refused and there is another. Afterwards `body` is what it was where it
/// is whole or nothing was sent.
pub(super) async fn send<'r>(
    head: &mut request::Parts,
    body: &mut Outbound,
    leave: Leave<'r>,
    course: Course<'r>,
    exchange: &mut Exchange,
) -> Result<Answered<'r>, Failed> {
    let Leave {
        credential,
        is_last,
        member,
        passage,
        permit,
    } = leave;
    let Way { live, route } = course.way;
    // Now: of one that is not, nothing is left afterwards.
    let is_last = is_last || !body.is_whole();
    exchange.asked_upstream();
    let mut result = if let Some(rehearsal) = &route.rehearsal
        && let Some(response) = Box::pin(rehearsal.ask(head.method == Method::HEAD)).await
    {
        exchange.answered_here(response.status());
        Ok(response)
    } else {
        let ways = course.proxy.ways(live);
        upstream::send(
            head,
            body,
            course.target,
            course.mirror,
            &credential.endpoint,
            ways,
        )
        .await
        .inspect(|response| exchange.upstream_answered(response.status()))
    };
    let mut is_renewed = false;
    if let Ok(response) = &mut result {
        // Before anything is read of it, or told.
        scrub::head(response, &credential.needles(head), route);
        let status = response.status();
        // Also where this request cannot be sent again: the next one gets another token.
        is_renewed = status == StatusCode::UNAUTHORIZED && carries(head, route) && credential.refuse(head);
        if let Ok(credentials) = &route.credentials
            && !is_renewed
        {
            credentials.hear(credential, status, &route.destination.name);
        }
        for permit in permit.as_ref().into_iter().chain(member.as_deref()) {
            permit.learn(response.status(), response.headers());
        }
    }
    if let Some(passage) = passage {
        passage.tell(match &result {
            Ok(response) => Outcome::of_answer(response.status(), response.headers()),
            Err(failed) => Outcome::of_error(&failed.error),
        });
    }
    let answered = Answered {
        credential,
        permit,
        response: result?,
    };
    if is_last || !carries(head, route) || !renew::may_help(&answered, head) {
        return Ok(answered);
    }
    // Boxed: few requests come here.
    Box::pin(renew::run(answered, is_renewed, head, body, course, exchange)).await
}
