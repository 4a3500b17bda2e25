//! One try to send a request to the upstream.
//!
//! Every try has the same steps: admission by circuit and limits, reading the body if it is needed whole, a
//! credential, sending, and learning from the response. [`tries`](super::tries) decides whether another try
//! follows, [`fetch`](super::fetch) runs one after the other.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, StatusCode, header};
use tokio::time::Instant;

use super::{Error, Proxy, Route, Routed, caller, headers, scrub};
use crate::auth::{LiveCredential, Payload, SecretMatcher};
use crate::host::Target;
use crate::http1::{self, Interim};
use crate::limit::{self, Caller, Limiter, Permit, RequestAttributes};
use crate::message::{RequestHead, Response};
use crate::telemetry::Exchange;
use crate::upstream::body::{MOST_KEPT, TrailerFilter};
use crate::upstream::breaker::{CircuitPermit, HostHealth};
use crate::upstream::{self, Outbound, Protocol, RequestFailed, RequestObserver, ResponseBody};

/// In bytes, as [`upstream::Error::LengthUnknown`] says it.
const MOST_MEASURED: usize = 1024 * 1024;

/// What the tries of a request have in common.
#[derive(Clone, Copy)]
pub(super) struct RequestContext<'a> {
    /// Receives interim responses (1xx). `None`: they are dropped.
    pub(super) interim: Option<&'a Weak<dyn Interim>>,
    pub(super) target: &'a Target,
    pub(super) mirror: Protocol,
    pub(super) routed: &'a Routed,
    pub(super) proxy: &'a Arc<Proxy>,
}

/// What may differ from try to try.
#[derive(Debug)]
pub(super) struct TryOptions<'r> {
    /// The credential to take first: the upstream refused its token, and the token has been replaced.
    pub(super) credential: Option<&'r Arc<LiveCredential>>,
    /// Finds the secrets of earlier tries. The upstream may still echo them.
    pub(super) earlier: Option<Arc<SecretMatcher>>,
    /// Whether a small body is read whole, so that the request can be sent again.
    pub(super) keeps_body: bool,
    /// How long this try may wait for the limits. `None`: as long as the destination allows.
    pub(super) patience: Option<Duration>,
    /// `None`: the first try.
    pub(super) reason: Option<RetryReason>,
}

/// Why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryReason {
    /// No connection could be made.
    Connect,
    /// The upstream refused the credential, and there is another one.
    Renewal,
    /// The configuration (`retry`) names the status of the response.
    Status(StatusCode),
}

/// The end of one try: a response, or a failure to connect or to send.
pub(super) struct TryOutcome<'r> {
    /// The credential of this try.
    pub(super) credential: &'r Arc<LiveCredential>,
    /// Whether the request has no body, or its whole body is in memory.
    pub(super) has_whole_body: bool,
    /// Whether the upstream refused the token, and the same credential gets another one.
    pub(super) is_token_replaced: bool,
    /// Whether the upstream refused the credential, and another credential or token may be accepted.
    pub(super) may_be_renewed: bool,
    /// Finds the attached secrets in the response.
    pub(super) matcher: Arc<SecretMatcher>,
    pub(super) permit: Option<Permit>,
    pub(super) result: Result<Response<ResponseBody>, RequestFailed>,
}

/// The admission of one try. Dropping it unused returns the permits.
struct TryAdmission {
    passage: Option<CircuitPermit>,
    permit: Option<Permit>,
    /// From the limiter of one credential in a pool. Boxed: few destinations have a pool.
    member: Option<Box<Permit>>,
}

impl RetryReason {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Connect => "connect",
            Self::Renewal => "401",
            Self::Status(status) => status.as_str(),
        }
    }
}

/// Is informed by `upstream` what happens before the final response.
struct Observer<'a> {
    admission: &'a TryAdmission,
    /// Finds the attached secrets in interim responses.
    matcher: Arc<SecretMatcher>,
    context: &'a RequestContext<'a>,
}

impl RequestObserver for Observer<'_> {
    fn begins(&self) {
        self.admission.used();
    }

    /// Removes the same fields and secrets as from a final response.
    fn interim(&self, mut response: Response<()>) {
        let Some(app) = self.context.interim.and_then(Weak::upgrade) else {
            return;
        };
        scrub::head(&mut response, &self.matcher, &self.context.routed.route);
        headers::strip_response(&mut response);
        if self.context.routed.route.destination.via {
            self.context
                .proxy
                .loop_marker
                .mark_response(response.headers_mut());
        }
        app.interim(response);
    }
}

impl TryOutcome<'_> {
    /// Returns whether no connection could be made, so that the upstream has seen nothing of the request.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(&self.result, Err(failed) if failed.is_unsent)
    }
}

/// Sends a request once, as soon as it is admitted.
///
/// An error means that it was not sent: it was not admitted, its body did not arrive, or its credential could not
/// be made ready. Afterwards `head` may hold the credential. `body` is unchanged if it is in memory or nothing was
/// sent.
pub(super) async fn attempt<'r>(
    head: &mut RequestHead,
    body: &mut Outbound,
    options: &TryOptions<'r>,
    context: &RequestContext<'r>,
    exchange: &mut Exchange,
) -> Result<TryOutcome<'r>, Error> {
    let Routed { live, route } = context.routed;
    // First, because it may fail: then no permit is spent.
    let credentials = route.credentials()?;
    let rule = route.destination.auth_rule(&head.method, head.uri.path())?;
    let mut admission = admit(head, rule, options.patience, context, exchange).await?;
    let mut wanted = options.credential;
    let credential = loop {
        // After the wait, during which another member of the pool may have become the better one.
        let credential = wanted.take().unwrap_or_else(|| credentials.choose(rule));
        admit_member(
            &mut admission,
            head,
            credential,
            options.patience,
            context,
            exchange,
        )
        .await?;
        gather(body, options.keeps_body, credential, context.target, exchange).await?;
        match ready(head, credential, route, exchange).await {
            Ok(()) => break credential,
            // Another member of the pool is ready.
            Err(_) if credentials.has_alternative_to(credential) => {}
            Err(error) => return Err(error),
        }
    };
    settle_expectation(head, body, credential, context);
    let is_carried = carries(head, route);
    // Trailers must not contradict the head.
    body.confine(TrailerFilter {
        decided: is_carried.then(|| Arc::clone(credential.names())),
        listed: head.extensions.get().cloned(),
    });
    // Before signing, which may cover it.
    state_length(head, body);
    if is_carried {
        let payload = body.data().map_or(Payload::Streamed, Payload::Whole);
        credential.apply(head, context.target, payload)?;
    }
    if let Some(reason) = options.reason {
        route.counters.retry(reason.as_str());
    }
    // Asked now: sending consumes a body that is not in memory.
    let has_whole_body = body.is_whole();
    exchange.asked_upstream();
    let observer = Observer {
        admission: &admission,
        matcher: match &options.earlier {
            None => credential.matcher(head),
            Some(earlier) => credential.matcher(head).joined_with(earlier),
        },
        context,
    };
    let result = if let Some(rehearsal) = &route.rehearsal
        && let Some(response) = {
            // The upstream would count it.
            admission.used();
            Box::pin(rehearsal.simulate(head.method == Method::HEAD)).await
        } {
        exchange.answered_here(response.status());
        Ok(response)
    } else {
        let network = context.proxy.network(live);
        let (target, endpoint) = (context.target, &credential.endpoint);
        upstream::send(head, body, target, context.mirror, endpoint, network, &observer)
            .await
            .inspect(|response| exchange.upstream_answered(response.status()))
    };
    let matcher = observer.matcher;
    Ok(admission.learn(result, head, has_whole_body, credential, matcher, context))
}

/// Waits until circuit and limits admit one request.
///
/// No permit is spent if the circuit is open or no credential can be made ready.
async fn admit(
    head: &RequestHead,
    rule: Option<usize>,
    patience: Option<Duration>,
    context: &RequestContext<'_>,
    exchange: &mut Exchange,
) -> Result<TryAdmission, Error> {
    let route = &context.routed.route;
    if carries(head, route) {
        let mut waited = Duration::ZERO;
        let ready = route.credentials()?.ready(rule, &mut waited).await;
        exchange.waited(waited);
        ready?;
    }
    let passage = route
        .breaker
        .as_ref()
        .map(|breaker| breaker.pass(context.target, Instant::now()))
        .transpose()?;
    let permit = match route.limiter.if_limited() {
        Some(limiter) => Some(wait_for_permit(limiter, head, patience, context).await?),
        None => None,
    };
    let admission = TryAdmission {
        passage,
        permit,
        member: None,
    };
    if let Some(permit) = &admission.permit {
        admission.record_wait(permit.waited(), exchange)?;
    }
    Ok(admission)
}

/// Waits for the limiter of this credential, if it is one of a pool.
async fn admit_member(
    admission: &mut TryAdmission,
    head: &RequestHead,
    credential: &LiveCredential,
    patience: Option<Duration>,
    context: &RequestContext<'_>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let Some(limiter) = &credential.limiter else {
        return Ok(());
    };
    // Returns a permit that was taken for another credential.
    admission.member = None;
    let waited = admission.permit.as_ref().map_or(Duration::ZERO, Permit::waited);
    let left = patience.map(|patience| patience.saturating_sub(waited));
    if !limiter.is_unlimited() {
        let permit = Box::pin(wait_for_permit(limiter, head, left, context)).await?;
        admission.member = Some(Box::new(permit));
    }
    if let Some(permit) = &admission.member {
        admission.record_wait(permit.waited(), exchange)?;
    }
    Ok(())
}

impl TryAdmission {
    /// Marks the permits as spent.
    fn used(&self) {
        self.permits().for_each(Permit::used);
    }

    fn permits(&self) -> impl Iterator<Item = &Permit> {
        self.permit.iter().chain(self.member.as_deref())
    }

    /// Records a wait, and fails if the circuit opened during it.
    fn record_wait(&self, waited: Duration, exchange: &mut Exchange) -> Result<(), Error> {
        exchange.waited(waited);
        match &self.passage {
            Some(passage) if !waited.is_zero() => Ok(passage.check(Instant::now())?),
            Some(_) | None => Ok(()),
        }
    }

    /// Reports the result of the request to circuit, limits and credentials.
    fn learn<'r>(
        self,
        mut result: Result<Response<ResponseBody>, RequestFailed>,
        head: &RequestHead,
        has_whole_body: bool,
        credential: &'r Arc<LiveCredential>,
        matcher: Arc<SecretMatcher>,
        context: &RequestContext<'_>,
    ) -> TryOutcome<'r> {
        let route = &context.routed.route;
        // A failed try counts too. Otherwise an unreachable upstream would be tried more often than a reachable
        // one.
        self.used();
        let (mut is_token_replaced, mut may_be_renewed) = (false, false);
        if let Ok(response) = &mut result {
            // Before anything else reads or logs it.
            scrub::head(response, &matcher, route);
            let status = response.status();
            let is_refused = status == StatusCode::UNAUTHORIZED && carries(head, route);
            // Even if this request cannot be sent again: the next request then gets another token.
            is_token_replaced = is_refused && credential.refuse(head);
            if credential.identifies
                && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && carries(head, route)
            {
                route.counters.credential_refused(status);
            }
            if let Some(credentials) = &route.credentials {
                if !is_token_replaced {
                    credentials.record_status(credential, status, &route.destination.name);
                }
                // A WebSocket handshake opens a tunnel, in which nothing can be repeated.
                may_be_renewed = is_refused
                    && has_whole_body
                    && !head.headers.contains_key(header::UPGRADE)
                    && (is_token_replaced || credentials.has_alternative_to(credential));
            }
            let caller = || caller(head, route);
            for permit in self.permits() {
                permit.learn(status, response.headers(), asked(head, context, &caller));
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
        TryOutcome {
            credential,
            has_whole_body,
            is_token_replaced,
            may_be_renewed,
            matcher,
            permit: self.permit,
            result,
        }
    }
}

/// Waits for a permit that is spent once its request is sent.
async fn wait_for_permit(
    limiter: &Arc<Limiter>,
    head: &RequestHead,
    patience: Option<Duration>,
    context: &RequestContext<'_>,
) -> Result<Permit, Error> {
    let route = &context.routed.route;
    let caller = || caller(head, route);
    let asked = asked(head, context, &caller);
    let permit = match patience {
        None => {
            let deadline = || limit::deadline(&head.headers);
            limiter.admit(asked, deadline).await?
        }
        Some(patience) => limiter.admit_within(asked, || patience).await?,
    };
    Ok(permit.unsent())
}

fn asked<'a>(
    head: &'a RequestHead,
    context: &RequestContext<'a>,
    caller: &'a (dyn Fn() -> Caller + Sync),
) -> RequestAttributes<'a> {
    RequestAttributes {
        caller,
        method: &head.method,
        path: head.uri.path(),
        target: context.target,
    }
}

fn caller(head: &RequestHead, route: &Route) -> Caller {
    let credentials = route.credentials.as_ref();
    caller::of(
        head,
        &route.destination,
        credentials.filter(|_| carries(head, route)),
    )
}

/// Reads a small body into memory if the request may be sent again, the credential signs the body, its length changes on its
/// way, or `target` speaks HTTP/1.0 and needs its length.
async fn gather(
    body: &mut Outbound,
    keeps: bool,
    credential: &LiveCredential,
    target: &Target,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let keeps = keeps || credential.can_be_renewed();
    let mut wanted = credential.hashes().max(keeps.then_some(MOST_KEPT));
    let is_measured = body.lacks_length() && credential.endpoint.is_old(target);
    if is_measured || body.is_read_whole() {
        wanted = wanted.max(Some(MOST_MEASURED));
    }
    if let Some(most) = wanted
        && !body.is_whole()
    {
        // From here on the app's own slowness is not counted as ours.
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

/// Sets Content-Length for a body that came in chunks and is in memory.
fn state_length(head: &mut RequestHead, body: &Outbound) {
    if let Some(length) = body.stated_length()
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        head.headers.append(header::CONTENT_LENGTH, length.into());
    }
}

/// Keeps `Expect: 100-continue` (RFC 9110 section 10.1.1) only if the app has not sent the body yet, the upstream
/// knows the field, and the timeouts leave time to wait for its 100.
fn settle_expectation(
    head: &mut RequestHead,
    body: &Outbound,
    credential: &LiveCredential,
    context: &RequestContext<'_>,
) {
    let is_settled = || {
        let timeouts = &context.routed.route.destination.timeouts;
        let is_short = timeouts.response.min(timeouts.idle) < 2 * http1::SILENCE;
        is_short || !body.is_untouched() || credential.endpoint.is_old(context.target)
    };
    if !matches!(body, Outbound::Empty) && head.headers.contains_key(header::EXPECT) && is_settled() {
        head.headers.remove(header::EXPECT);
        body.ask();
    }
}

/// Waits until the credential can be attached. [`admit`] could not know which member of a pool it would be, and the
/// request may have waited for long since.
async fn ready(
    head: &RequestHead,
    credential: &LiveCredential,
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

/// Returns whether a request carries the credential. OPTIONS does only if the configuration names the method: it
/// asks what a server can do, often without a user behind it.
pub(super) fn carries(head: &RequestHead, route: &Route) -> bool {
    head.method != Method::OPTIONS || route.destination.names(&Method::OPTIONS)
}
