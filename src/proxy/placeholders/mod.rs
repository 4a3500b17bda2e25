//! Puts secrets in the place of their placeholders, in requests to destinations that use them.
//!
//! [`admit`] searches a request before anything is sent, or answered from the cache. A placeholder of a secret that
//! the destination does not use ends the request, and so does one in a place where no secret may stand: somebody
//! carries a key away, or means it differently than we would. [`substitute`] writes the secrets into the head, after
//! the cache, so that no key of the cache holds one; the [`body`] is changed as it passes.
//!
//! Fields that the credential of the destination sets or removes are left to it. Nothing here runs where no app has
//! placeholders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use data_encoding::{BASE64, BASE64_NOPAD};
use http::HeaderMap;
use http::Uri;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use zeroize::Zeroizing;

use super::attempt::carries;
use super::{Error, Live, Route};
use crate::auth::placeholder::{FoundPlaceholder, PlaceholderSet, PlaceholderUse, RoutePlaceholders};
use crate::auth::{LiveCredential, without_padding};
use crate::config::SecretRef;
use crate::host::{Scheme, Target};
use crate::http1::RawTarget;
use crate::message::{Request, RequestHead};
use crate::policy::{Denial, PlaceholderDenial, PlaceholderFault};
use crate::upstream::Incoming;

use place::Place;

mod body;
mod place;

/// Whether a refusal has been logged as a warning. Later ones are in the access log, which has one line for each.
static HAS_WARNED: AtomicBool = AtomicBool::new(false);

/// What is searched: the placeholders, and the route that they are on.
#[derive(Clone, Debug)]
struct Search {
    /// Whether the request carries a credential. If not, nothing is put in, and foreign placeholders are refused.
    is_carried: bool,
    /// Whether a secret would leave readable.
    is_clear: bool,
    placeholders: Arc<RoutePlaceholders>,
    route: Arc<Route>,
}

/// Searches a request to `target`, the one that it leaves for. Returns its body, which is searched on its way.
pub(super) fn admit(
    head: &mut RequestHead,
    incoming: Option<Incoming>,
    target: &Target,
    placeholders: &Arc<RoutePlaceholders>,
    route: &Arc<Route>,
) -> Result<Option<Incoming>, Error> {
    let credential = credential(head, route)?;
    let search = Search {
        is_carried: credential.is_some(),
        is_clear: target.scheme == Scheme::Http && !route.destination.insecure_attach_over_http,
        placeholders: Arc::clone(placeholders),
        route: Arc::clone(route),
    };
    search.check_head(head, credential)?;
    match incoming {
        Some(incoming) if body::is_readable(&head.headers) => {
            Ok(Some(body::searched(head, incoming, search, credential)))
        }
        other => Ok(other),
    }
}

/// Puts the secrets into the head of a request that was admitted.
pub(super) fn substitute(
    head: &mut RequestHead,
    placeholders: &RoutePlaceholders,
    route: &Arc<Route>,
) -> Result<(), Error> {
    let Some(credential) = credential(head, route)? else {
        // It carries no credential.
        return Ok(());
    };
    let is_left = |name: &HeaderName| credential.names().decide(name);
    let writer = Writer {
        placeholders,
        destination: &route.destination.name,
    };
    for (name, value) in head.headers.iter_mut().filter(|(name, _)| !is_left(name)) {
        if let Some(changed) = writer.field(name, value)? {
            *value = changed;
        }
    }
    if let Some(changed) = writer.uri(&head.uri)? {
        head.uri = changed;
        // It holds the target as it was.
        head.extensions.remove::<RawTarget>();
    }
    Ok(())
}

/// Returns the credential that is attached to a request, if it carries one.
fn credential<'r>(head: &RequestHead, route: &'r Route) -> Result<Option<&'r LiveCredential>, Error> {
    let credentials = route.credentials()?;
    if !carries(head, route) {
        return Ok(None);
    }
    let rule = route.destination.auth_rule(&head.method, head.uri.path())?;
    Ok(Some(&**credentials.any_of(rule)))
}

/// Refuses a CONNECT whose head has a placeholder: what is in a tunnel cannot be seen, but its head can.
pub(super) fn check_connect<B>(
    request: &Request<B>,
    set: &PlaceholderSet,
    destination: &Arc<str>,
) -> Result<(), Denial> {
    match anywhere(request, set) {
        None => Ok(()),
        Some((number, place)) => Err(refuse(set, number, destination, place, PlaceholderFault::Foreign)),
    }
}

/// Returns the reason for a refusal of the policy: the placeholder, if the request has one in its head.
pub(super) fn explained<B>(error: Error, request: &Request<B>, live: &Live) -> Error {
    if let Error::Denied(_) = &error
        && let Some(placeholders) = &live.routes[0].placeholders
        && let Err(denial) = check_connect(request, &placeholders.set, &live.routes[0].destination.name)
    {
        return denial.into();
    }
    error
}

/// Finds a placeholder in a head, wherever it is.
fn anywhere<B>(request: &Request<B>, set: &PlaceholderSet) -> Option<(usize, &'static str)> {
    let uri = request.uri().to_string();
    if let Some(number) = set.find_folded(uri.as_bytes()) {
        return Some((number, "its target"));
    }
    request.headers().iter().find_map(|(name, value)| {
        let in_name = set.find_folded(name.as_str().as_bytes());
        let in_value = || set.find_folded(value.as_bytes()).or_else(|| in_basic(set, value));
        in_name.or_else(in_value).map(|number| (number, "a field"))
    })
}

fn in_basic(set: &PlaceholderSet, value: &HeaderValue) -> Option<usize> {
    let pair = decoded_pair(value)?;
    set.find(&pair, true, false).0.first().map(|found| found.number)
}

/// Makes the refusal, and logs the first one.
fn refuse(
    set: &PlaceholderSet,
    number: usize,
    destination: &Arc<str>,
    place: &'static str,
    fault: PlaceholderFault,
) -> Denial {
    let reference = set.all()[number].reference.clone();
    if fault == PlaceholderFault::Foreign {
        warn(&reference, destination, place);
    }
    Denial::Placeholder(Box::new(PlaceholderDenial {
        destination: Arc::clone(destination),
        fault,
        place,
        reference,
    }))
}

fn warn(reference: &SecretRef, destination: &str, place: &str) {
    let message = "the placeholder of a secret was on its way to where the secret is not used: the request was refused; \
                   find out what sends it";
    if HAS_WARNED.swap(true, Ordering::Relaxed) {
        tracing::debug!(%reference, destination, place, "{message}");
    } else {
        tracing::warn!(%reference, destination, place, "{message}");
    }
}

impl Search {
    fn set(&self) -> &PlaceholderSet {
        &self.placeholders.set
    }

    fn denial(&self, number: usize, place: &'static str, fault: PlaceholderFault) -> Denial {
        refuse(self.set(), number, &self.route.destination.name, place, fault)
    }

    fn check_head(&self, head: &RequestHead, credential: Option<&LiveCredential>) -> Result<(), Denial> {
        let nowhere = |text: &[u8], place| match self.set().find_folded(text) {
            None => Ok(()),
            Some(number) => Err(self.misplaced(number, place)),
        };
        nowhere(head.method.as_str().as_bytes(), "the method")?;
        if let Some(authority) = head.uri.authority() {
            nowhere(authority.as_str().as_bytes(), "the host")?;
        }
        nowhere(head.uri.path().as_bytes(), "the path")?;
        for (name, value) in &head.headers {
            nowhere(name.as_str().as_bytes(), "the name of a field")?;
            if *name == header::HOST {
                nowhere(value.as_bytes(), "the host")?;
                continue;
            }
            let is_left = credential.is_some_and(|credential| credential.names().decide(name));
            let pair = decoded_pair(value).unwrap_or_default();
            for text in [value.as_bytes(), &pair] {
                self.check_all(&self.set().find(text, true, true).0, "a field", is_left)?;
            }
        }
        for part in head.uri.query().unwrap_or_default().split('&') {
            let is_left = credential.is_some_and(|credential| credential.decides_parameter(part));
            self.check_all(
                &self.set().find(part.as_bytes(), true, true).0,
                "the query",
                is_left,
            )?;
        }
        Ok(())
    }

    /// Checks placeholders that were found. `is_left`: the credential replaces them all.
    fn check_all(
        &self,
        found: &[FoundPlaceholder],
        place: &'static str,
        is_left: bool,
    ) -> Result<(), Denial> {
        for FoundPlaceholder { number, .. } in found {
            let fault = match self.placeholders.use_of(*number) {
                PlaceholderUse::Foreign => PlaceholderFault::Foreign,
                _ if is_left => continue,
                PlaceholderUse::NeverSent => PlaceholderFault::NeverSent,
                PlaceholderUse::Replaced(_) if self.is_clear => PlaceholderFault::Clear,
                PlaceholderUse::Replaced(_) => continue,
            };
            return Err(self.denial(*number, place, fault));
        }
        Ok(())
    }

    /// Makes the refusal of a placeholder where no secret may stand.
    fn misplaced(&self, number: usize, place: &'static str) -> Denial {
        let fault = match self.placeholders.use_of(number) {
            PlaceholderUse::Foreign => PlaceholderFault::Foreign,
            PlaceholderUse::NeverSent | PlaceholderUse::Replaced(_) => PlaceholderFault::Place,
        };
        self.denial(number, place, fault)
    }

    /// Refuses trailers with a placeholder: credentials do not stand there.
    fn check_trailers(&self, trailers: &HeaderMap) -> Result<(), Denial> {
        for (name, value) in trailers {
            let found = self.set().find_folded(name.as_str().as_bytes());
            let found =
                found.or_else(|| Some(self.set().find(value.as_bytes(), true, true).0.first()?.number));
            if let Some(number) = found {
                return Err(self.misplaced(number, "a trailer"));
            }
        }
        Ok(())
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            placeholders: &self.placeholders,
            destination: &self.route.destination.name,
        }
    }
}

/// Writes secrets in the place of placeholders.
struct Writer<'a> {
    placeholders: &'a RoutePlaceholders,
    destination: &'a Arc<str>,
}

impl Writer<'_> {
    /// Returns the text with the secrets in it.
    fn text(
        &self,
        text: &[u8],
        found: &[FoundPlaceholder],
        place: Place,
    ) -> Result<Zeroizing<Vec<u8>>, Denial> {
        let mut written = Zeroizing::new(Vec::with_capacity(text.len() + 256));
        let mut from = 0;
        for FoundPlaceholder { number, place: range } in found {
            let refuse = |fault| self.refuse(*number, place, fault);
            let secret = match self.placeholders.use_of(*number) {
                PlaceholderUse::Replaced(secret) => secret,
                PlaceholderUse::Foreign => return Err(refuse(PlaceholderFault::Foreign)),
                PlaceholderUse::NeverSent => return Err(refuse(PlaceholderFault::NeverSent)),
            };
            let placeholder = self.placeholders.set.all()[*number].text.as_bytes();
            written.extend_from_slice(&text[from..range.start]);
            let secret = place
                .write(&text[range.clone()], placeholder, secret.expose())
                .map_err(refuse)?;
            written.extend_from_slice(&secret);
            from = range.end;
        }
        written.extend_from_slice(&text[from..]);
        Ok(written)
    }

    /// Returns the value with the secrets in it. `None`: it has no placeholder.
    fn field(&self, name: &HeaderName, value: &HeaderValue) -> Result<Option<HeaderValue>, Denial> {
        let (found, _) = self.placeholders.set.find(value.as_bytes(), true, true);
        if let Some(first) = found.first() {
            let written = self.text(value.as_bytes(), &found, Place::Field)?;
            return self.sensitive(written, first.number).map(Some);
        }
        let Some(pair) = decoded_pair(value).filter(|_| *name == header::AUTHORIZATION) else {
            return Ok(None);
        };
        let (found, _) = self.placeholders.set.find(&pair, true, false);
        let Some(first) = found.first() else {
            return Ok(None);
        };
        let pair = self.text(&pair, &found, Place::Pair)?;
        let mut written = Zeroizing::new(String::from("Basic "));
        BASE64.encode_append(&pair, &mut written);
        let written = Zeroizing::new(std::mem::take(&mut *written).into_bytes());
        self.sensitive(written, first.number).map(Some)
    }

    fn sensitive(&self, written: Zeroizing<Vec<u8>>, number: usize) -> Result<HeaderValue, Denial> {
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(written));
        let mut value = value.map_err(|_| self.refuse(number, Place::Field, PlaceholderFault::Unfit))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns the URI with the secrets in its query. `None`: it has no placeholder.
    fn uri(&self, uri: &Uri) -> Result<Option<Uri>, Denial> {
        let Some(query) = uri.query() else { return Ok(None) };
        let (found, _) = self.placeholders.set.find(query.as_bytes(), true, true);
        let Some(first) = found.first() else {
            return Ok(None);
        };
        let query = self.text(query.as_bytes(), &found, Place::Query)?;
        let mut target = Zeroizing::new(Vec::with_capacity(uri.path().len() + 1 + query.len()));
        target.extend_from_slice(uri.path().as_bytes());
        target.push(b'?');
        target.extend_from_slice(&query);
        let target = PathAndQuery::from_maybe_shared(Bytes::from_owner(target)).ok();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = target;
        let has_target = parts.path_and_query.is_some();
        let changed = Uri::from_parts(parts).ok().filter(|_| has_target);
        changed
            .map(Some)
            .ok_or_else(|| self.refuse(first.number, Place::Query, PlaceholderFault::Unfit))
    }

    fn refuse(&self, number: usize, place: Place, fault: PlaceholderFault) -> Denial {
        refuse(
            &self.placeholders.set,
            number,
            self.destination,
            place.name(),
            fault,
        )
    }
}

/// Returns the pair of a user name and a password in `Basic` (RFC 7617).
fn decoded_pair(value: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, pair) = value.as_bytes().split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let pair = BASE64_NOPAD.decode(without_padding(pair.trim_ascii())).ok()?;
    Some(Zeroizing::new(pair))
}
