//! One request to a destination that has a cache: from there, or from the upstream and into it.
//!
//! An answer that is good is given at once: it asks neither the limiter nor the upstream. Otherwise one of all equal
//! requests asks, with a condition where something is stored, and the others wait for what comes. Where the upstream
//! fails, or may not be asked, what is stored stands in as far as it is allowed to.
//!
//! Each answer says what became of it in Cache-Status (RFC 9211), without the key. The rules are in `cache`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Response, StatusCode, Uri, request};
use http_body::Body as _;
use tokio::time::Instant;

use super::Error;
use super::attempt::Course;
use super::cache_status::{self, Note};
use super::fetch::{Fetched, fetch};
use super::scrub::Clean;
use super::source::Source;
use crate::auth::Credential;
use crate::cache::{
    self, CacheEntry, CacheHit, CacheLookup, CacheQuery, FetchOutcome, FetchRole, ForwardReason, Leader,
    ResponseCache, ResponseCopy, ResponseHead, Sender, Times,
};
use crate::host::Target;
use crate::limit::Permit;
use crate::telemetry::{CacheStatus, Exchange};
use crate::upstream::body::Progress;
use crate::upstream::{BoundConnections, Incoming, ResponseBody};

/// An answer, and what has to last as long as its body does.
pub(super) struct Carried {
    pub(super) response: Response<Source>,
    pub(super) permit: Option<Permit>,
    pub(super) upload: Option<Arc<Progress>>,
}

impl From<Fetched<'_>> for Carried {
    fn from(fetched: Fetched<'_>) -> Self {
        Self {
            response: fetched.response.map(Source::Plain),
            permit: fetched.permit,
            upload: fetched.upload,
        }
    }
}

/// A request to a destination with a cache: everything about it that stays as it is, whoever carries it.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) cache: &'a Arc<ResponseCache>,
    pub(super) course: Course<'a>,
}

/// What the first look into the cache has come to.
pub(super) enum Begun {
    Answered(Carried),
    Open(Open),
}

/// What there is to do where nothing is good as it is; `None`: the cache has no part in it.
type Open = Option<(CacheQuery, CacheLookup)>;

/// A request for which the upstream is asked.
struct Quest {
    ask: CacheQuery,
    why: ForwardReason,
    stale: Option<Arc<CacheEntry>>,
    lead: Option<Leader>,
}

impl Errand<'_> {
    /// The answer to a request, without the fields of the app's hop, where it is stored and good as it is.
    pub(super) fn begin(
        &self,
        head: &request::Parts,
        has_body: bool,
        exchange: &mut Exchange,
    ) -> Result<Begun, Error> {
        // A body would have a say in the answer, and an upgrade is the beginning of something else.
        // What a connection is authenticated for is nobody else's.
        let is_bound = head.extensions.get::<Arc<BoundConnections>>().is_some();
        if has_body || is_bound || head.headers.contains_key(header::UPGRADE) {
            return Ok(Begun::Open(None));
        }
        let route = &self.course.way.route;
        let (rule, credential) = self.credential(head)?;
        let sender = Sender {
            fingerprint: route.fingerprint,
            rule,
        };
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let (fields, target) = (&head.headers, self.course.target);
        let attached = |name: &HeaderName| credential.names().decide(name);
        let Some(mut ask) = ResponseCache::query(&head.method, target, path, fields, attached, sender) else {
            return Ok(Begun::Open(None));
        };
        let now = Instant::now();
        Ok(match self.cache.find(&mut ask, fields, attached, false, now) {
            CacheLookup::Fresh(kept) => {
                route.counters.cached(CacheStatus::Hit);
                let note = Note::Hit { ttl: kept.ttl };
                Begun::Answered(serve(&kept, &ask, fields, exchange, &note))
            }
            found => Begun::Open(Some((ask, found))),
        })
    }

    /// Gets the answer from wherever it has to come. Afterwards `head` may hold the credential.
    pub(super) async fn carry(
        &self,
        open: Open,
        head: &mut request::Parts,
        incoming: Option<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Carried, Error> {
        let (result, status) = match open {
            Some((ask, found)) => self.answer(ask, found, head, exchange).await,
            None => (self.pass(head, incoming, exchange).await, CacheStatus::Bypass),
        };
        self.course.way.route.counters.cached(status);
        result
    }

    /// Which of the destination's credentials a request is sent with. Beside a cache there is no pool to choose from.
    fn credential(&self, head: &request::Parts) -> Result<(Option<usize>, &Credential), Error> {
        let route = &self.course.way.route;
        let rule = route.destination.auth_rule(&head.method, head.uri.path())?;
        Ok((rule, route.credentials()?.choose(rule)))
    }

    /// Past the cache. What changes something there makes what is stored of it wrong.
    async fn pass(
        &self,
        head: &mut request::Parts,
        incoming: Option<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Carried, Error> {
        let (why, status) = match head.method {
            Method::GET | Method::HEAD => ("bypass", "outrider; fwd=bypass"),
            _ => ("method", "outrider; fwd=method"),
        };
        exchange.set_cache_status(status);
        // Afterwards it may hold a credential.
        let uri = head.uri.clone();
        let result = fetch(head, incoming, self.course, exchange).await;
        // It may have been done all the same.
        if !head.method.is_safe() && matches!(&result, Err(Error::Upstream(_))) {
            self.invalidate(&uri, &HeaderMap::new());
        }
        let mut carried = Carried::from(result?);
        let status = carried.response.status();
        let fields = carried.response.headers_mut();
        if !head.method.is_safe() && (status.is_success() || status.is_redirection()) {
            self.invalidate(&uri, fields);
        }
        Note::Passed { why }.put(fields);
        Ok(carried)
    }

    /// RFC 9111 section 4.4.
    fn invalidate(&self, uri: &Uri, fields: &HeaderMap) {
        let own = uri.path_and_query().map_or("/", |path| path.as_str());
        self.cache.invalidate(self.course.target, own);
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let place = fields.get(name).and_then(|place| place.to_str().ok());
            if let Some(path) = place.and_then(|place| self.here(uri.path(), place)) {
                self.cache.invalidate(self.course.target, &path);
            }
        }
    }

    /// The path and the query of a reference, where it is one to the same origin.
    fn here(&self, base: &str, place: &str) -> Option<String> {
        let place = place.split('#').next().unwrap_or_default();
        let has_scheme = place
            .split(['/', '?'])
            .next()
            .is_some_and(|first| first.contains(':'));
        if has_scheme || place.starts_with("//") {
            let scheme = format!("{}:", self.course.target.scheme);
            let whole = if has_scheme {
                place.to_owned()
            } else {
                scheme + place
            };
            let uri: Uri = whole.parse().ok()?;
            let target = Target::of_absolute(&uri).ok()?;
            let target = self.course.way.route.destination.leaves(&target).ok()?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            return (target == *self.course.target).then(|| path.to_owned());
        }
        if place.starts_with('/') {
            return Some(place.to_owned());
        }
        let folder = base.rfind('/').map_or("/", |end| &base[..=end]);
        Some(format!("{folder}{place}"))
    }

    /// A request for which nothing is good as it is, and what the metric calls what became of it.
    async fn answer(
        &self,
        mut ask: CacheQuery,
        mut found: CacheLookup,
        head: &mut request::Parts,
        exchange: &mut Exchange,
    ) -> (Result<Carried, Error>, CacheStatus) {
        let credential = match self.credential(head) {
            Ok((_, credential)) => credential,
            Err(error) => return (Err(error), CacheStatus::Miss),
        };
        let attached = |name: &HeaderName| credential.names().decide(name);
        let deadline = Instant::now() + self.course.way.route.destination.timeouts.response;
        let mut reason = ForwardReason::Stale;
        loop {
            let (why, stale, turn) = match found {
                CacheLookup::Fresh(kept) => {
                    let note = Note::Collapsed { why: reason };
                    return (
                        Ok(serve(&kept, &ask, &head.headers, exchange, &note)),
                        CacheStatus::Hit,
                    );
                }
                CacheLookup::Refresh(kept, lead) => {
                    let note = Note::Hit { ttl: kept.ttl };
                    let carried = serve(&kept, &ask, &head.headers, exchange, &note);
                    if lead.is_some() {
                        let quest = Quest {
                            ask,
                            why: ForwardReason::Stale,
                            stale: Some(kept.entry),
                            lead,
                        };
                        self.refresh(quest, head);
                    }
                    return (Ok(carried), CacheStatus::Stale);
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
                        let note = Note::StoodIn {
                            status: None,
                            ttl: kept.ttl,
                        };
                        let carried = serve(&kept, &ask, &head.headers, exchange, &note);
                        return (Ok(carried), CacheStatus::Stale);
                    }
                    // Where the lead is gone whoever comes first leads; but nobody waits for ever for those that leave.
                    let has_waited = outcome != FetchOutcome::Gone || now >= deadline;
                    found = self
                        .cache
                        .find(&mut ask, &head.headers, attached, has_waited, now);
                    continue;
                }
            };
            let quest = Quest {
                ask,
                why,
                stale,
                lead,
            };
            return self.forward(quest, head, exchange).await;
        }
    }

    /// Asks the upstream, if need be only whether what is stored is still right.
    async fn forward(
        &self,
        mut quest: Quest,
        head: &mut request::Parts,
        exchange: &mut Exchange,
    ) -> (Result<Carried, Error>, CacheStatus) {
        exchange.set_cache_status(cache_status::of_refused(quest.why));
        let request = head.headers.clone();
        let asks_whether = !quest.ask.is_head()
            && (quest.stale.as_ref()).is_some_and(|entry| entry.validate(&mut head.headers));
        let begun = Instant::now();
        let result = fetch(head, None, self.course, exchange).await;
        let times = Times {
            // Waiting for a limit makes no answer old.
            asked: exchange.asked_at().unwrap_or(begun),
            answered: Instant::now(),
            clock: SystemTime::now(),
        };
        let status = (result.as_ref().ok()).map(|fetched| fetched.response.status());
        let has_failed = match (&result, status) {
            (Err(error), _) => may_be_stood_in_for(error),
            (Ok(_), status) => status.is_some_and(is_failure),
        };
        if has_failed
            && let Some(entry) = &quest.stale
            && let Some(kept) = ResponseCache::may_replace_error(&quest.ask, entry, times.answered)
        {
            quest.ends(FetchOutcome::Failed);
            let destination = &*self.course.way.route.destination.name;
            let error = result.as_ref().err().map(tracing::field::display);
            let code = status.map(|status| status.as_u16());
            tracing::debug!(destination, code, error, "what is stored stands in");
            let note = Note::StoodIn {
                status,
                ttl: kept.ttl,
            };
            let carried = serve(&kept, &quest.ask, &request, exchange, &note);
            return (Ok(carried), CacheStatus::Stale);
        }
        let fetched = match result {
            Ok(fetched) => fetched,
            Err(error) => {
                quest.ends(if has_failed {
                    FetchOutcome::Failed
                } else {
                    FetchOutcome::Alone
                });
                let must_revalidate_stale = (quest.stale.as_ref())
                    .is_some_and(|entry| quest.why == ForwardReason::Stale && entry.must_revalidate_stale());
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
            let carried = self.confirmed(quest, &request, fetched.response.headers(), &times, exchange);
            return (Ok(carried), CacheStatus::Revalidated);
        }
        self.forget(&quest, &fetched.response);
        let kept = self.keep(quest, &request, fetched, &times);
        (Ok(kept), CacheStatus::Miss)
    }

    /// A 304 came: what is stored answers, with what the 304 says of itself.
    fn confirmed(
        &self,
        mut quest: Quest,
        request: &HeaderMap,
        fields: &HeaderMap,
        times: &Times,
        exchange: &mut Exchange,
    ) -> Carried {
        let Some(entry) = quest.stale.take() else {
            // Nobody asks whether something is right that is not there.
            return answer(Response::default(), exchange);
        };
        let (kept, is_stored) = self.cache.confirm(&quest.ask, &entry, fields, times);
        quest.ends(if is_stored {
            FetchOutcome::Stored
        } else {
            FetchOutcome::Alone
        });
        let note = Note::Confirmed { ttl: kept.ttl };
        let mut carried = serve(&kept, &quest.ask, request, exchange, &note);
        for (name, value) in fields.iter().filter(|(name, _)| cache::is_momentary(name)) {
            carried.response.headers_mut().append(name.clone(), value.clone());
        }
        // It has cost a request.
        exchange.upstream_answered(carried.response.status());
        carried
    }

    /// What is stored is let go where the upstream now answers something else.
    fn forget(&self, quest: &Quest, response: &Response<Clean>) {
        let Some(entry) = &quest.stale else { return };
        let (status, fields) = (response.status(), response.headers());
        if quest.ask.is_head() {
            if !is_failure(status) {
                self.cache.check_head(&quest.ask, entry, status, fields);
            }
        } else if status.is_success() || status.is_redirection() || matches!(status.as_u16(), 404 | 410) {
            self.cache.drop_entry(&quest.ask, entry);
        }
    }

    /// Copies the answer on its way to the app, where it may be stored.
    fn keep(&self, mut quest: Quest, request: &HeaderMap, fetched: Fetched<'_>, times: &Times) -> Carried {
        let Fetched {
            credential,
            is_framed,
            response,
            permit,
            upload,
        } = fetched;
        let (mut parts, body) = response.into_parts();
        let answered = ResponseHead {
            status: parts.status,
            fields: &parts.headers,
            length: body.size_hint().exact(),
        };
        let attached = |name: &HeaderName| credential.names().decide(name);
        let draft = match is_framed {
            true => self.cache.draft(&quest.ask, request, attached, &answered, times),
            false => None,
        };
        let is_stored = draft.is_some();
        let body = match draft {
            Some(draft) => Source::copied(body, ResponseCopy::new(draft, quest.lead.take(), self.cache)),
            None => {
                // An error passes, and 304 says nothing of what else there is.
                let is_lasting = parts.status.is_success() || parts.status.is_redirection();
                if is_lasting && parts.status != StatusCode::NOT_MODIFIED && !quest.ask.is_head() {
                    self.cache.mark_uncacheable(&quest.ask);
                }
                quest.ends(FetchOutcome::Alone);
                Source::Plain(body)
            }
        };
        let note = Note::Forwarded {
            why: quest.why,
            is_stored,
        };
        note.put(&mut parts.headers);
        Carried {
            response: Response::from_parts(parts, body),
            permit,
            upload,
        }
    }

    /// Refreshes what is stored while it is served: once, holding the end back, and not for ever.
    fn refresh(&self, quest: Quest, head: &request::Parts) {
        let mut head = head.clone();
        let Course {
            target,
            mirror,
            way,
            proxy,
            ..
        } = self.course;
        let (cache, target, way) = (Arc::clone(self.cache), target.clone(), way.clone());
        let proxy = Arc::clone(proxy);
        let busy = proxy.drain.busy();
        tokio::spawn(async move {
            let _busy = busy;
            let errand = Errand {
                cache: &cache,
                course: Course {
                    interim: None,
                    target: &target,
                    mirror,
                    way: &way,
                    proxy: &proxy,
                },
            };
            let mut exchange = Exchange::unrecorded(&proxy.telemetry, &head.method, &head.uri);
            let refreshed = async {
                match errand.forward(quest, &mut head, &mut exchange).await {
                    (Ok(carried), _) => carried.response.into_body().store().await,
                    (Err(error), _) => {
                        let destination = &*way.route.destination.name;
                        tracing::debug!(destination, %error, "not refreshed");
                    }
                }
            };
            // What has not come by then is dropped, and with it the lead.
            let _ = tokio::time::timeout(LONGEST_REFRESH, refreshed).await;
        });
    }
}

impl Quest {
    fn ends(&mut self, outcome: FetchOutcome) {
        if let Some(lead) = self.lead.take() {
            lead.finish(outcome);
        }
    }
}

/// What is stored, as an answer to this request.
fn serve(
    kept: &CacheHit,
    ask: &CacheQuery,
    request: &HeaderMap,
    exchange: &mut Exchange,
    note: &Note,
) -> Carried {
    let (entry, now) = (&kept.entry, Instant::now());
    let mut response = if entry.has_not_changed_for(request) {
        entry.not_modified(now)
    } else if ask.is_head() {
        entry.answer_to_head(now)
    } else {
        entry.answer(now)
    };
    note.put(response.headers_mut());
    answer(response, exchange)
}

fn answer(response: Response<Bytes>, exchange: &mut Exchange) -> Carried {
    exchange.answered_from_cache(response.status());
    Carried {
        response: response.map(|body| Source::Plain(ResponseBody::Whole(body).into())),
        permit: None,
        upload: None,
    }
}

/// For these RFC 5861 lets a stale answer stand in.
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The upstream could not be reached, or not be asked: neither what the app has done nor what has to be mended here.
fn may_be_stood_in_for(error: &Error) -> bool {
    let is_ours = matches!(
        error,
        Error::Credential | Error::Overloaded(_) | Error::Unasked(_)
    );
    !is_ours && (is_failure(error.status()) || error.status() == StatusCode::TOO_MANY_REQUESTS)
}

/// For the whole of a refresh that nobody waits for.
const LONGEST_REFRESH: Duration = Duration::from_secs(120);
