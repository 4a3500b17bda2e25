//! One request to a destination with a cache: answered from the cache, or from the upstream and then stored.
//!
//! A fresh response is served at once, without limiter or upstream. Otherwise one of all equal requests goes to the
//! upstream, with a condition if a stale response is stored, and the others wait for its result. If the upstream
//! fails or must not be asked, a stale response may replace the error (stale-if-error).
//!
//! Cache-Status (RFC 9211) says in each response what the cache did. The rules are in `cache`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Method, StatusCode, Uri};
use http_body::Body as _;
use tokio::time::Instant;

use super::Error;
use super::attempt::RequestContext;
use super::cache_status::{self, CacheNote};
use super::fetch::{Fetched, fetch};
use super::reply_body::ReplyBody;
use super::scrub::RedactedBody;
use crate::auth::LiveCredential;
use crate::cache::{
    self, AnswerHead, CacheEntry, CacheHit, CacheLookup, CacheQuery, FetchOutcome, FetchRole, ForwardReason,
    Leader, ResponseCache, ResponseCopy, Sender, Times,
};
use crate::host::Target;
use crate::limit::Permit;
use crate::message::{Fields, RequestHead, Response};
use crate::telemetry::{CacheStatus, Exchange};
use crate::upstream::body::Progress;
use crate::upstream::{BoundConnections, Incoming, ResponseBody};

/// The longest refresh in the background.
const LONGEST_REFRESH: Duration = Duration::from_secs(120);

/// A response whose body is not read yet, with what must live as long as the body.
pub(super) struct PendingResponse {
    pub(super) response: Response<ReplyBody>,
    pub(super) permit: Option<Permit>,
    pub(super) upload: Option<Arc<Progress>>,
}

impl From<Fetched<'_>> for PendingResponse {
    fn from(fetched: Fetched<'_>) -> Self {
        Self {
            response: fetched.response.map(ReplyBody::Plain),
            permit: fetched.permit,
            upload: fetched.upload,
        }
    }
}

/// A request to a destination with a cache.
#[derive(Clone, Copy)]
pub(super) struct CachedRequest<'a> {
    pub(super) cache: &'a Arc<ResponseCache>,
    pub(super) context: RequestContext<'a>,
}

/// The result of the first lookup.
pub(super) enum FirstLookup {
    Found(PendingResponse),
    Miss(Miss),
}

/// A request without a fresh response. `None`: the request bypasses the cache.
type Miss = Option<(CacheQuery, CacheLookup)>;

/// A request to the upstream whose response may be stored, or may confirm a stored one.
struct CacheFill {
    ask: CacheQuery,
    why: ForwardReason,
    stale: Option<Arc<CacheEntry>>,
    lead: Option<Leader>,
}

impl CachedRequest<'_> {
    /// Looks for a fresh response. The request has no hop-by-hop fields.
    pub(super) fn look_up(
        &self,
        head: &RequestHead,
        has_body: bool,
        exchange: &mut Exchange,
    ) -> Result<FirstLookup, Error> {
        // The response to a request with a body or an upgrade depends on more than the key. A response on an
        // authenticated connection is for nobody else.
        let is_bound = head.extensions.get::<Arc<BoundConnections>>().is_some();
        if has_body || is_bound || head.headers.contains_key(header::UPGRADE) {
            return Ok(FirstLookup::Miss(None));
        }
        let route = &self.context.routed.route;
        let (rule, credential) = self.credential(head)?;
        let sender = Sender {
            fingerprint: route.fingerprint,
            rule,
        };
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let (fields, target) = (&head.headers, self.context.target);
        let attached = |name: &HeaderName| credential.names().decide(name);
        let Some(mut ask) = ResponseCache::query(&head.method, target, path, fields, attached, sender) else {
            return Ok(FirstLookup::Miss(None));
        };
        let now = Instant::now();
        Ok(match self.cache.find(&mut ask, fields, attached, false, now) {
            CacheLookup::Fresh(kept) => {
                route.counters.cached(CacheStatus::Hit);
                let note = CacheNote::Hit { ttl: kept.ttl };
                FirstLookup::Found(serve(&kept, &ask, fields, exchange, &note))
            }
            found => FirstLookup::Miss(Some((ask, found))),
        })
    }

    /// Gets the response after a miss. Afterwards `head` may hold the credential.
    pub(super) async fn complete(
        &self,
        miss: Miss,
        head: &mut RequestHead,
        incoming: Option<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<PendingResponse, Error> {
        let (result, status) = match miss {
            Some((ask, found)) => self.wait_or_fetch(ask, found, head, exchange).await,
            None => (self.bypass(head, incoming, exchange).await, CacheStatus::Bypass),
        };
        self.context.routed.route.counters.cached(status);
        result
    }

    /// Returns the rule and the credential of a request. A destination with a cache cannot have a pool.
    fn credential(&self, head: &RequestHead) -> Result<(Option<usize>, &LiveCredential), Error> {
        let route = &self.context.routed.route;
        let rule = route.destination.auth_rule(&head.method, head.uri.path())?;
        Ok((rule, route.credentials()?.choose(rule)))
    }

    /// Sends a request past the cache. An unsafe one invalidates what is stored.
    async fn bypass(
        &self,
        head: &mut RequestHead,
        incoming: Option<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<PendingResponse, Error> {
        let (why, status) = match head.method {
            Method::GET | Method::HEAD => ("bypass", "outrider; fwd=bypass"),
            _ => ("method", "outrider; fwd=method"),
        };
        exchange.set_cache_status(status);
        // Copied before: afterwards it may hold a credential.
        let uri = head.uri.clone();
        let result = fetch(head, incoming, self.context, exchange).await;
        // The upstream may have carried it out all the same.
        if !head.method.is_safe() && matches!(&result, Err(Error::Upstream(_))) {
            self.invalidate(&uri, &Fields::new());
        }
        let mut pending = PendingResponse::from(result?);
        let status = pending.response.status();
        let fields = pending.response.headers_mut();
        if !head.method.is_safe() && (status.is_success() || status.is_redirection()) {
            self.invalidate(&uri, fields);
        }
        CacheNote::Bypassed { why }.append_to(fields);
        Ok(pending)
    }

    /// Invalidates what is stored for the URI, Location and Content-Location (RFC 9111 section 4.4).
    fn invalidate(&self, uri: &Uri, fields: &Fields) {
        let own = uri.path_and_query().map_or("/", |path| path.as_str());
        self.cache.invalidate(self.context.target, own);
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let place = fields.get(name).and_then(|place| place.to_str().ok());
            if let Some(path) = place.and_then(|place| self.same_origin_path(uri.path(), place)) {
                self.cache.invalidate(self.context.target, &path);
            }
        }
    }

    /// Returns path and query of a reference, if it refers to the same origin.
    fn same_origin_path(&self, base: &str, place: &str) -> Option<String> {
        let place = place.split('#').next().unwrap_or_default();
        let has_scheme = place
            .split(['/', '?'])
            .next()
            .is_some_and(|first| first.contains(':'));
        if has_scheme || place.starts_with("//") {
            let scheme = format!("{}:", self.context.target.scheme);
            let whole = if has_scheme {
                place.to_owned()
            } else {
                scheme + place
            };
            let uri: Uri = whole.parse().ok()?;
            let target = Target::of_absolute(&uri).ok()?;
            let target = self.context.routed.route.destination.leaves(&target).ok()?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            return (target == *self.context.target).then(|| path.to_owned());
        }
        if place.starts_with('/') {
            return Some(place.to_owned());
        }
        let folder = base.rfind('/').map_or("/", |end| &base[..=end]);
        Some(format!("{folder}{place}"))
    }

    /// Answers a request without a fresh response. Also returns the result for the metric.
    async fn wait_or_fetch(
        &self,
        mut ask: CacheQuery,
        mut found: CacheLookup,
        head: &mut RequestHead,
        exchange: &mut Exchange,
    ) -> (Result<PendingResponse, Error>, CacheStatus) {
        let credential = match self.credential(head) {
            Ok((_, credential)) => credential,
            Err(error) => return (Err(error), CacheStatus::Miss),
        };
        let attached = |name: &HeaderName| credential.names().decide(name);
        let deadline = Instant::now() + self.context.routed.route.destination.timeouts.response;
        let mut reason = ForwardReason::Stale;
        loop {
            let (why, stale, turn) = match found {
                CacheLookup::Fresh(kept) => {
                    let note = CacheNote::Collapsed { why: reason };
                    return (
                        Ok(serve(&kept, &ask, &head.headers, exchange, &note)),
                        CacheStatus::Hit,
                    );
                }
                CacheLookup::Refresh(kept, lead) => {
                    let note = CacheNote::Hit { ttl: kept.ttl };
                    let pending = serve(&kept, &ask, &head.headers, exchange, &note);
                    if lead.is_some() {
                        let fill = CacheFill {
                            ask,
                            why: ForwardReason::Stale,
                            stale: Some(kept.entry),
                            lead,
                        };
                        self.refresh(fill, head);
                    }
                    return (Ok(pending), CacheStatus::Stale);
                }
                CacheLookup::Miss { why, stale, turn } => (why, stale, turn),
            };
            if ask.only_if_stored() {
                exchange.set_cache_status("outrider; detail=only-if-cached");
                return (Err(Error::NotStored), CacheStatus::Miss);
            }
            reason = why;
            let lead = match turn {
                FetchRole::Alone => None,
                FetchRole::Lead(lead) => Some(lead),
                FetchRole::Follow(follow) => {
                    exchange.asked_upstream();
                    let patience = deadline.saturating_duration_since(Instant::now());
                    let outcome = follow.wait(patience).await;
                    exchange.upstream_failed();
                    let now = Instant::now();
                    if outcome == FetchOutcome::Failed
                        && let Some(entry) = &stale
                        && let Some(kept) = ResponseCache::may_replace_error(&ask, entry, now)
                    {
                        let note = CacheNote::StaleIfError {
                            status: None,
                            ttl: kept.ttl,
                        };
                        let pending = serve(&kept, &ask, &head.headers, exchange, &note);
                        return (Ok(pending), CacheStatus::Stale);
                    }
                    // If the leading request is gone, the first one that looks again leads. But a request does not
                    // wait for ever for others that leave.
                    let has_waited = outcome != FetchOutcome::Gone || now >= deadline;
                    found = self
                        .cache
                        .find(&mut ask, &head.headers, attached, has_waited, now);
                    continue;
                }
            };
            let fill = CacheFill {
                ask,
                why,
                stale,
                lead,
            };
            return self.forward(fill, head, exchange).await;
        }
    }

    /// Asks the upstream, with a condition if a stale response is stored.
    async fn forward(
        &self,
        mut fill: CacheFill,
        head: &mut RequestHead,
        exchange: &mut Exchange,
    ) -> (Result<PendingResponse, Error>, CacheStatus) {
        exchange.set_cache_status(cache_status::of_refused(fill.why));
        let request = head.headers.clone();
        let asks_whether = !fill.ask.is_head()
            && fill
                .stale
                .as_ref()
                .is_some_and(|entry| entry.validate(&mut head.headers));
        let begun = Instant::now();
        let result = fetch(head, None, self.context, exchange).await;
        let times = Times {
            // A wait for a limit does not make a response older.
            asked: exchange.asked_at().unwrap_or(begun),
            answered: Instant::now(),
            clock: SystemTime::now(),
        };
        let status = result.as_ref().ok().map(|fetched| fetched.response.status());
        let has_failed = match (&result, status) {
            (Err(error), _) => may_be_replaced_by_stale(error),
            (Ok(_), status) => status.is_some_and(is_failure),
        };
        if has_failed
            && let Some(entry) = &fill.stale
            && let Some(kept) = ResponseCache::may_replace_error(&fill.ask, entry, times.answered)
        {
            fill.ends(FetchOutcome::Failed);
            let destination = &*self.context.routed.route.destination.name;
            let error = result.as_ref().err().map(tracing::field::display);
            let code = status.map(|status| status.as_u16());
            tracing::debug!(destination, code, error, "a stale response replaces a failed one");
            let note = CacheNote::StaleIfError {
                status,
                ttl: kept.ttl,
            };
            let pending = serve(&kept, &fill.ask, &request, exchange, &note);
            return (Ok(pending), CacheStatus::Stale);
        }
        let fetched = match result {
            Ok(fetched) => fetched,
            Err(error) => {
                fill.ends(if has_failed {
                    FetchOutcome::Failed
                } else {
                    FetchOutcome::Alone
                });
                let must_revalidate_stale = fill
                    .stale
                    .as_ref()
                    .is_some_and(|entry| fill.why == ForwardReason::Stale && entry.must_revalidate_stale());
                let error = match error {
                    Error::Upstream(error) if has_failed && must_revalidate_stale => {
                        Error::Unconfirmed(error)
                    }
                    error => error,
                };
                return (Err(error), CacheStatus::Miss);
            }
        };
        if asks_whether && status == Some(StatusCode::NOT_MODIFIED) {
            let pending = self.revalidated(fill, &request, fetched.response.headers(), &times, exchange);
            return (Ok(pending), CacheStatus::Revalidated);
        }
        self.remove_outdated(&fill, &fetched.response);
        let kept = self.store(fill, &request, fetched, &times);
        (Ok(kept), CacheStatus::Miss)
    }

    /// Serves the stored response after a 304, with the fields that belong to the 304 itself.
    fn revalidated(
        &self,
        mut fill: CacheFill,
        request: &Fields,
        fields: &Fields,
        times: &Times,
        exchange: &mut Exchange,
    ) -> PendingResponse {
        let Some(entry) = fill.stale.take() else {
            // Never: only a stored response adds a condition.
            return answer(Response::default(), exchange);
        };
        let (kept, is_stored) = self.cache.confirm(&fill.ask, &entry, fields, times);
        fill.ends(if is_stored {
            FetchOutcome::Stored
        } else {
            FetchOutcome::Alone
        });
        let note = CacheNote::Revalidated { ttl: kept.ttl };
        let mut pending = serve(&kept, &fill.ask, request, exchange, &note);
        for (name, value) in fields.iter().filter(|(name, _)| cache::is_momentary(name)) {
            pending.response.headers_mut().append(name.clone(), value.clone());
        }
        // It has taken a request to the upstream.
        exchange.upstream_answered(pending.response.status());
        pending
    }

    /// Removes the stored response if the upstream now answers differently.
    fn remove_outdated(&self, fill: &CacheFill, response: &Response<RedactedBody>) {
        let Some(entry) = &fill.stale else { return };
        let (status, fields) = (response.status(), response.headers());
        if fill.ask.is_head() {
            if !is_failure(status) {
                self.cache.check_head(&fill.ask, entry, status, fields);
            }
        } else if status.is_success() || status.is_redirection() || matches!(status.as_u16(), 404 | 410) {
            self.cache.drop_entry(&fill.ask, entry);
        }
    }

    /// Copies a response into the cache on its way to the app, if it may be stored.
    fn store(
        &self,
        mut fill: CacheFill,
        request: &Fields,
        fetched: Fetched<'_>,
        times: &Times,
    ) -> PendingResponse {
        let Fetched {
            credential,
            is_framed,
            response,
            permit,
            upload,
        } = fetched;
        let (mut parts, body) = response.into_parts();
        let answered = AnswerHead {
            status: parts.status,
            fields: &parts.headers,
            length: body.size_hint().exact(),
        };
        let attached = |name: &HeaderName| credential.names().decide(name);
        let draft = if is_framed {
            self.cache.draft(&fill.ask, request, attached, &answered, times)
        } else {
            None
        };
        let is_stored = draft.is_some();
        let body = match draft {
            Some(draft) => ReplyBody::copied(body, ResponseCopy::new(draft, fill.lead.take(), self.cache)),
            None => {
                // An error will pass, and a 304 says nothing about other responses.
                let is_lasting = parts.status.is_success() || parts.status.is_redirection();
                if is_lasting && parts.status != StatusCode::NOT_MODIFIED && !fill.ask.is_head() {
                    self.cache.mark_uncacheable(&fill.ask);
                }
                fill.ends(FetchOutcome::Alone);
                ReplyBody::Plain(body)
            }
        };
        let note = CacheNote::Forwarded {
            why: fill.why,
            is_stored,
        };
        note.append_to(&mut parts.headers);
        PendingResponse {
            response: Response::from_parts(parts, body),
            permit,
            upload,
        }
    }

    /// Refreshes a stored response in the background: once, for a limited time, and delaying the end of the
    /// process.
    fn refresh(&self, fill: CacheFill, head: &RequestHead) {
        let mut head = head.clone();
        let RequestContext {
            target,
            mirror,
            routed,
            proxy,
            ..
        } = self.context;
        let (cache, target, routed) = (Arc::clone(self.cache), target.clone(), routed.clone());
        let proxy = Arc::clone(proxy);
        let busy = proxy.drain.busy();
        tokio::spawn(async move {
            let _busy = busy;
            let cached = CachedRequest {
                cache: &cache,
                context: RequestContext {
                    interim: None,
                    target: &target,
                    mirror,
                    routed: &routed,
                    proxy: &proxy,
                },
            };
            let mut exchange = Exchange::unrecorded(&proxy.telemetry, &head.method, &head.uri);
            let refreshed = async {
                match cached.forward(fill, &mut head, &mut exchange).await {
                    (Ok(pending), _) => pending.response.into_body().store().await,
                    (Err(error), _) => {
                        let destination = &*routed.route.destination.name;
                        tracing::debug!(destination, %error, "not refreshed");
                    }
                }
            };
            // A response that is late is dropped, and the lead with it.
            let _ = tokio::time::timeout(LONGEST_REFRESH, refreshed).await;
        });
    }
}

impl CacheFill {
    fn ends(&mut self, outcome: FetchOutcome) {
        if let Some(lead) = self.lead.take() {
            lead.finish(outcome);
        }
    }
}

/// Builds the response to this request from a stored one.
fn serve(
    kept: &CacheHit,
    ask: &CacheQuery,
    request: &Fields,
    exchange: &mut Exchange,
    note: &CacheNote,
) -> PendingResponse {
    let (entry, now) = (&kept.entry, Instant::now());
    let mut response = if entry.has_not_changed_for(request) {
        entry.not_modified(now)
    } else if ask.is_head() {
        entry.answer_to_head(now)
    } else {
        entry.answer(now)
    };
    note.append_to(response.headers_mut());
    answer(response, exchange)
}

fn answer(response: Response<Bytes>, exchange: &mut Exchange) -> PendingResponse {
    exchange.answered_from_cache(response.status());
    PendingResponse {
        response: response.map(|body| ReplyBody::Plain(ResponseBody::Whole(body).into())),
        permit: None,
        upload: None,
    }
}

/// Returns whether a stale response may replace a response with this status (RFC 5861).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Returns whether a stale response may replace this error: the upstream could not be reached, or must not be
/// asked. Not an error of the app or of outrider's configuration.
fn may_be_replaced_by_stale(error: &Error) -> bool {
    let is_ours = matches!(
        error,
        Error::Credential | Error::Overloaded(_) | Error::Unasked(_)
    );
    !is_ours && (is_failure(error.status()) || error.status() == StatusCode::TOO_MANY_REQUESTS)
}
