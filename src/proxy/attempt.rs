//! One try at the upstream: leave to make it, a credential that is ready, the sending.
//!
//! The steps are the same for every try, the first one included: admission by circuit and limits, the body where it has
//! to be at hand, a credential, the request itself, and what its answer teaches. Whether another try follows is decided
//! in [`tries`](super::tries); how the tries of a request follow each other is in [`fetch`](super::fetch).

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Response, StatusCode, header, request};
use tokio::time::Instant;

use super::{Error, Proxy, Route, Way, caller, headers, scrub};
use crate::auth::{Credential, Needles, Payload};
use crate::host::Target;
use crate::http1::{self, Interim};
use crate::limit::{self, Caller, Limiter, Permit, RequestAttributes};
use crate::telemetry::Exchange;
use crate::upstream::body::{MOST_KEPT, TrailerFilter};
use crate::upstream::breaker::{CircuitPermit, HostHealth};
use crate::upstream::{self, Outbound, Protocol, RequestFailed, RequestObserver, ResponseBody};

/// Where a request goes, and by what means.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    /// Where interim answers go; `None`: nobody hears them.
    pub(super) interim: Option<&'a Weak<dyn Interim>>,
    pub(super) target: &'a Target,
    pub(super) mirror: Protocol,
    pub(super) way: &'a Way,
    pub(super) proxy: &'a Arc<Proxy>,
}

/// What is particular to one try.
#[derive(Debug)]
pub(super) struct Terms<'r> {
    /// The credential that is tried first, where its token has been replaced since it was refused.
    pub(super) credential: Option<&'r Arc<Credential>>,
    /// What earlier tries have attached: the upstream may still answer with it.
    pub(super) earlier: Option<Arc<Needles>>,
    /// A small body is read whole, so that the request can be sent again with it.
    pub(super) keeps_body: bool,
    /// For how long it may wait for the limits; `None`: as the destination has it.
    pub(super) patience: Option<Duration>,
    /// `None`: it is the first one.
    pub(super) reason: Option<Reason>,
}

/// Why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No connection could be made.
    Connect,
    /// The upstream refused the credential, and another one is at hand.
    Renewal,
    /// The answer has a status that the configuration names.
    Status(StatusCode),
}

/// What a try has come to: the request went out, or no connection could be made for it.
pub(super) struct Tried<'r> {
    /// With which it was made.
    pub(super) credential: &'r Arc<Credential>,
    /// Whether the request has no body, or one that is at hand whole.
    pub(super) has_whole_body: bool,
    /// Whether the token was refused, and another one of the same credential is going to take its place.
    pub(super) is_token_replaced: bool,
    /// Whether the credential was refused and another one, or another token of it, may do.
    pub(super) may_be_renewed: bool,
    /// What to look for in the answer.
    pub(super) needles: Arc<Needles>,
    pub(super) permit: Option<Permit>,
    pub(super) result: Result<Response<ResponseBody>, RequestFailed>,
}

/// Leave to make one try. Dropped unused, it gives everything back.
struct Leave {
    passage: Option<CircuitPermit>,
    permit: Option<Permit>,
    /// Of what the upstream says of one credential alone. Boxed: few destinations have a pool.
    member: Option<Box<Permit>>,
}

impl Reason {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Connect => "connect",
            Self::Renewal => "401",
            Self::Status(status) => status.as_str(),
        }
    }
}

/// Hears what becomes of one try before its answer.
struct Observer<'a> {
    leave: &'a Leave,
    /// What to look for in the answers.
    needles: Arc<Needles>,
    course: &'a Course<'a>,
}

impl RequestObserver for Observer<'_> {
    fn begins(&self) {
        self.leave.used();
    }

    /// The app gets no more of it than it would of a final answer.
    fn interim(&self, mut response: Response<()>) {
        let Some(app) = self.course.interim.and_then(Weak::upgrade) else {
            return;
        };
        scrub::head(&mut response, &self.needles, &self.course.way.route);
        headers::strip_response(&mut response);
        if self.course.way.route.destination.via {
            self.course.proxy.marks.mark_response(response.headers_mut());
        }
        app.interim(response);
    }
}

impl Tried<'_> {
    /// Whether no connection could be made: the upstream knows nothing of the request.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(&self.result, Err(failed) if failed.is_unsent)
    }
}

/// Sends a request once, as soon as it may be sent. An error says that it was not: it was not let through, its body did
/// not come, or its credential could not be made ready. Afterwards `head` may hold the credential, and `body` is what it
/// was where it is whole or nothing was sent.
pub(super) async fn attempt<'r>(
    head: &mut request::Parts,
    body: &mut Outbound,
    terms: &Terms<'r>,
    course: &Course<'r>,
    exchange: &mut Exchange,
) -> Result<Tried<'r>, Error> {
    let Way { live, route } = course.way;
    // Before anything is spent: there may be none.
    let credentials = route.credentials()?;
    let rule = route.destination.auth_rule(&head.method, head.uri.path())?;
    let mut leave = admit(head, rule, terms.patience, course, exchange).await?;
    let mut wanted = terms.credential;
    let credential = loop {
        // After the wait: which of a pool has the most left may have changed.
        let credential = wanted.take().unwrap_or_else(|| credentials.choose(rule));
        admit_member(&mut leave, head, credential, terms.patience, course, exchange).await?;
        gather(body, terms.keeps_body, credential, course.target, exchange).await?;
        match ready(head, credential, route, exchange).await {
            Ok(()) => break credential,
            // Another one of the pool can go.
            Err(_) if credentials.has_instead_of(credential) => {}
            Err(error) => return Err(error),
        }
    };
    settle_expectation(head, body, credential, course);
    let is_carried = carries(head, route);
    // Trailers must not say otherwise than the head does.
    body.confine(TrailerFilter {
        decided: is_carried.then(|| Arc::clone(credential.names())),
        listed: head.extensions.get().cloned(),
    });
    // Before it is signed.
    state_length(head, body);
    if is_carried {
        let payload = body.data().map_or(Payload::Streamed, Payload::Whole);
        credential.apply(head, course.target, payload)?;
    }
    if let Some(reason) = terms.reason {
        route.counters.retry(reason.as_str());
    }
    // Now: of one that is not, nothing is left afterwards.
    let has_whole_body = body.is_whole();
    exchange.asked_upstream();
    let observer = Observer {
        leave: &leave,
        needles: match &terms.earlier {
            None => credential.needles(head),
            Some(earlier) => credential.needles(head).beside(earlier),
        },
        course,
    };
    let result = if let Some(rehearsal) = &route.rehearsal
        && let Some(response) = {
            // As the upstream would count it.
            leave.used();
            Box::pin(rehearsal.ask(head.method == Method::HEAD)).await
        } {
        exchange.answered_here(response.status());
        Ok(response)
    } else {
        let ways = course.proxy.ways(live);
        let (target, endpoint) = (course.target, &credential.endpoint);
        upstream::send(head, body, target, course.mirror, endpoint, ways, &observer)
            .await
            .inspect(|response| exchange.upstream_answered(response.status()))
    };
    let needles = observer.needles;
    Ok(leave.learn(result, head, has_whole_body, credential, needles, course))
}

/// Waits until circuit and limits let one request through. Where the circuit is open, or no credential can be made
/// ready, no limit is spent.
async fn admit(
    head: &request::Parts,
    rule: Option<usize>,
    patience: Option<Duration>,
    course: &Course<'_>,
    exchange: &mut Exchange,
) -> Result<Leave, Error> {
    let route = &course.way.route;
    if carries(head, route) {
        let mut waited = Duration::ZERO;
        let ready = route.credentials()?.ready(rule, &mut waited).await;
        exchange.waited(waited);
        ready?;
    }
    let passage = (route.breaker.as_ref())
        .map(|breaker| breaker.pass(course.target, Instant::now()))
        .transpose()?;
    let permit = pass(&route.limiter, head, patience, course).await?;
    let leave = Leave {
        passage,
        permit,
        member: None,
    };
    if let Some(permit) = &leave.permit {
        leave.has_waited(permit.waited(), exchange)?;
    }
    Ok(leave)
}

/// Waits for what the upstream has said of this credential alone, where it is one of several.
async fn admit_member(
    leave: &mut Leave,
    head: &request::Parts,
    credential: &Credential,
    patience: Option<Duration>,
    course: &Course<'_>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let Some(limiter) = &credential.limiter else {
        return Ok(());
    };
    // One that was taken for another credential is given back.
    leave.member = None;
    let waited = leave.permit.as_ref().map_or(Duration::ZERO, Permit::waited);
    let left = patience.map(|patience| patience.saturating_sub(waited));
    leave.member = Box::pin(pass(limiter, head, left, course)).await?.map(Box::new);
    if let Some(permit) = &leave.member {
        leave.has_waited(permit.waited(), exchange)?;
    }
    Ok(())
}

impl Leave {
    /// From now on the try counts.
    fn used(&self) {
        self.permits().for_each(Permit::used);
    }

    fn permits(&self) -> impl Iterator<Item = &Permit> {
        self.permit.iter().chain(self.member.as_deref())
    }

    /// Tells of a wait, in which the circuit may have opened.
    fn has_waited(&self, waited: Duration, exchange: &mut Exchange) -> Result<(), Error> {
        exchange.waited(waited);
        match &self.passage {
            Some(passage) if !waited.is_zero() => Ok(passage.check(Instant::now())?),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets circuit, limits and credentials hear what became of the request.
    fn learn<'r>(
        self,
        mut result: Result<Response<ResponseBody>, RequestFailed>,
        head: &request::Parts,
        has_whole_body: bool,
        credential: &'r Arc<Credential>,
        needles: Arc<Needles>,
        course: &Course<'_>,
    ) -> Tried<'r> {
        let route = &course.way.route;
        // One that failed counts as well: what cannot be reached is not tried more often than what can.
        self.used();
        let (mut is_token_replaced, mut may_be_renewed) = (false, false);
        if let Ok(response) = &mut result {
            // Before anything is read of it, or told.
            scrub::head(response, &needles, route);
            let status = response.status();
            let is_refused = status == StatusCode::UNAUTHORIZED && carries(head, route);
            // Also where this request cannot be sent again: the next one gets another token.
            is_token_replaced = is_refused && credential.refuse(head);
            if credential.identifies
                && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && carries(head, route)
            {
                route.counters.credential_refused(status);
            }
            if let Ok(credentials) = &route.credentials {
                if !is_token_replaced {
                    credentials.hear(credential, status, &route.destination.name);
                }
                // A WebSocket's handshake opens a tunnel: nothing in it can be repeated.
                may_be_renewed = is_refused
                    && has_whole_body
                    && !head.headers.contains_key(header::UPGRADE)
                    && (is_token_replaced || credentials.has_instead_of(credential));
            }
            let caller = || caller(head, route);
            for permit in self.permits() {
                permit.learn(status, response.headers(), asked(head, course, &caller));
            }
        }
        if let Some(passage) = self.passage {
            passage.report(match &result {
                Ok(response) => {
                    let (status, fields) = (response.status(), response.headers());
                    HostHealth::of_answer(status, || limit::is_refusal(status, fields))
                }
                Err(failed) => HostHealth::of_error(&failed.error),
            });
        }
        Tried {
            credential,
            has_whole_body,
            is_token_replaced,
            may_be_renewed,
            needles,
            permit: self.permit,
            result,
        }
    }
}

/// A permit of one limiter, held back until its request is sent; `None` where nothing is limited.
async fn pass(
    limiter: &Arc<Limiter>,
    head: &request::Parts,
    patience: Option<Duration>,
    course: &Course<'_>,
) -> Result<Option<Permit>, Error> {
    if limiter.is_unlimited() {
        return Ok(None);
    }
    let route = &course.way.route;
    let caller = || caller(head, route);
    let asked = asked(head, course, &caller);
    let permit = match patience {
        None => {
            let deadline = || limit::deadline(&head.headers);
            limiter.admit(asked, deadline).await?
        }
        Some(patience) => limiter.admit_within(asked, || patience).await?,
    };
    Ok(Some(permit.held()))
}

fn asked<'a>(
    head: &'a request::Parts,
    course: &Course<'a>,
    caller: &'a (dyn Fn() -> Caller + Sync),
) -> RequestAttributes<'a> {
    RequestAttributes {
        caller,
        method: &head.method,
        path: head.uri.path(),
        target: course.target,
    }
}

fn caller(head: &request::Parts, route: &Route) -> Caller {
    let credentials = route.credentials.as_ref().ok();
    caller::of(
        head,
        &route.destination,
        credentials.filter(|_| carries(head, route)),
    )
}

/// Reads a small body whole where the request may have to be sent again with it, the credential has to see it, or
/// `target` speaks HTTP/1.0 and has to know its length.
async fn gather(
    body: &mut Outbound,
    keeps: bool,
    credential: &Credential,
    target: &Target,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let keeps = keeps || credential.can_be_renewed();
    let mut wanted = credential.hashes().max(keeps.then_some(MOST_KEPT));
    let is_measured = body.lacks_length() && credential.endpoint.is_old(target);
    if is_measured {
        wanted = wanted.max(Some(MOST_MEASURED));
    }
    if let Some(most) = wanted
        && !body.is_whole()
    {
        // It is the app that takes its time.
        exchange.asked_upstream();
        let whole = std::mem::replace(body, Outbound::Empty);
        // Boxed: most requests have none.
        *body = Box::pin(whole.gather(most)).await?;
    }
    if is_measured && !body.state_length() {
        return Err(upstream::Error::LengthUnknown.into());
    }
    Ok(())
}

/// States the length of a body that came in chunks and is at hand whole.
fn state_length(head: &mut request::Parts, body: &Outbound) {
    if let Some(length) = body.stated_length()
        && let Ok(header::Entry::Vacant(place)) = head.headers.try_entry(header::CONTENT_LENGTH)
    {
        place.insert(length.into());
    }
}

/// Leaves `Expect: 100-continue` only where the body is still with the app, the upstream may be asked for leave to send it
/// (RFC 9110 section 10.1.1), and there is time to wait for that.
fn settle_expectation(
    head: &mut request::Parts,
    body: &Outbound,
    credential: &Credential,
    course: &Course<'_>,
) {
    let is_settled = || {
        let timeouts = &course.way.route.destination.timeouts;
        let is_short = timeouts.response.min(timeouts.idle) < 2 * http1::SILENCE;
        is_short || !body.is_untouched() || credential.endpoint.is_old(course.target)
    };
    if !matches!(body, Outbound::Empty) && head.headers.contains_key(header::EXPECT) && is_settled() {
        head.headers.remove(header::EXPECT);
        body.ask();
    }
}

/// Waits until the credential can be put on a request: of a pool nobody knew which one, and the request may have waited
/// for long.
async fn ready(
    head: &request::Parts,
    credential: &Credential,
    route: &Route,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    if carries(head, route) {
        let mut waited = Duration::ZERO;
        let ready = credential.ready(&mut waited).await;
        exchange.waited(waited);
        ready?;
    }
    Ok(())
}

/// OPTIONS asks what a server can do, often without a person behind it: it carries a credential only where named.
fn carries(head: &request::Parts, route: &Route) -> bool {
    head.method != Method::OPTIONS || route.destination.names(&Method::OPTIONS)
}

/// In bytes, as [`upstream::Error::LengthUnknown`] says it.
const MOST_MEASURED: usize = 1024 * 1024;
