//! The credentials and header fields that are attached to the requests of a destination.
//!
//! [`Credentials`] holds all credentials of one destination. `policy` chooses a rule by method and path, and the
//! [`pool`] chooses among several credentials of a rule. [`LiveCredential::apply`] attaches one to a request. Each
//! has separate upstream connections, so that a request with one never uses a connection that was authenticated by
//! another.
//!
//! `policy` and `proxy` decide before whether a request may carry a credential at all (cleartext, CONNECT, TRACE).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::{self, Auth, HeaderText, SecretRef, TokenUrl};
use crate::fields::FieldNames;
use crate::host::Target;
use crate::http1::RawTarget;
use crate::limit::Limiter;
use crate::message::RequestHead;
use crate::policy::Destination;
use crate::secret::{self, Snapshot};
use crate::upstream::Endpoint;
use crate::upstream::connect::authority_of;

pub(crate) use self::attachment::Attachment;
use self::jwt::JwtCredential;
use self::matcher::MatcherCache;
pub(crate) use self::matcher::{SecretMatcher, without_padding};
use self::oauth::TokenReadiness;
use self::oauth::Tokens;
pub(crate) use self::oauth::{Error as TokenError, NoToken, TokenEndpoint};
use self::pool::CredentialPool;
pub(crate) use self::query::RESERVED;
pub(crate) use self::sign::Payload;
use self::sign::{RequestToSign, Signer};

mod attachment;
mod jwt;
pub(crate) mod key;
mod matcher;
mod oauth;
pub(crate) mod placeholder;
mod pool;
mod query;
pub(crate) mod sign;

/// All that is attached to the requests of one destination.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// Only header fields, for requests that no rule matches.
    no_rule: Arc<LiveCredential>,
    /// One for each rule of the destination.
    rules: Vec<RuleCredentials>,
}

#[derive(Debug)]
enum RuleCredentials {
    One(Arc<LiveCredential>),
    Pool(CredentialPool),
}

/// One credential with its connections and limits.
#[derive(Debug)]
pub(crate) struct LiveCredential {
    attachment: Attachment,
    /// Finds the secret that changes from time to time, besides those of the attachment.
    changing: MatcherCache,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Whether a request with it is authenticated, so that a 401 or 403 is about this credential.
    pub(crate) identifies: bool,
    per_request: PerRequest,
    /// Limits that the upstream reported for this credential. Only for members of a pool.
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// Its place in the configuration, as in `auth[1].pool[0]`.
    place: Box<str>,
}

/// The part of a credential that differs from request to request, in addition to its [`Attachment`].
#[derive(Debug)]
enum PerRequest {
    Jwt(Box<JwtCredential>),
    Nothing,
    Signed(Box<Signer>),
    Token(Tokens),
}

/// Why a credential cannot be made ready or attached. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Jwt(#[from] jwt::Error),

    #[error(
        "{reference}: byte {position} is {what}, which is not valid in {place}; \
         write the secret again as one line of visible ASCII"
    )]
    NotFieldText {
        reference: SecretRef,
        place: &'static str,
        position: usize,
        what: &'static str,
    },

    #[error("the user name holds {what}, which is not valid in Basic authentication")]
    NotUserName { what: &'static str },

    #[error("no room for the credential: the request's target is at its limit")]
    NoRoom,

    #[error(transparent)]
    OAuth(#[from] oauth::Error),

    #[error("auth: a key made the program panic, which is a fault of outrider; export it again")]
    Panicked,

    #[error(transparent)]
    Secret(#[from] secret::Error),

    #[error(transparent)]
    Sign(#[from] sign::Error),
}

impl Credentials {
    /// Reads the secrets and builds all credentials.
    ///
    /// The first credential uses the connections of `endpoint`, the others get separate ones. `limits` returns the
    /// limiter for a place in the configuration, `token_endpoints` how a token endpoint is reached. `old` may only
    /// be given if `destination` names the same credentials with the same secrets: its connections and pool states
    /// are kept. Tokens of `running` are kept if they would be requested in the same way.
    pub(crate) fn build(
        destination: &Destination,
        snapshot: &Snapshot,
        endpoint: &Arc<Endpoint>,
        limits: impl Fn(&str) -> Arc<Limiter>,
        token_endpoints: impl Fn(&TokenUrl) -> TokenEndpoint,
        running: Option<&Self>,
        old: Option<&Self>,
    ) -> Result<Self, Error> {
        let kept = old.map(Self::endpoints).unwrap_or_default();
        let mut kept = kept.into_iter().skip(1);
        let (shared, mut first) = (endpoint, Some(Arc::clone(endpoint)));
        let mut endpoint = || {
            first
                .take()
                .or_else(|| kept.next())
                .unwrap_or_else(|| Arc::new(shared.sibling()))
        };
        let has_identity = destination.tls.client_certificate.is_some()
            || destination
                .headers
                .set
                .iter()
                .any(|(_, text)| matches!(text, HeaderText::Reference(_)));
        let mut credential = |written: Option<&config::Credential>, is_one_of_several: bool| {
            let auth = written.map(|written| &written.auth);
            let place = written.map_or("auth", |written| written.place.as_str());
            let per_request = match auth {
                Some(Auth::Jwt(jwt)) => PerRequest::Jwt(Box::new(JwtCredential::build(jwt, snapshot)?)),
                Some(Auth::OAuth2(oauth2)) => {
                    let running = running.into_iter().flat_map(Self::tokens);
                    let token_endpoint = token_endpoints(&oauth2.token_url);
                    let counters = Arc::clone(&shared.counters);
                    PerRequest::Token(Tokens::build(
                        oauth2,
                        snapshot,
                        token_endpoint,
                        counters,
                        running,
                    )?)
                }
                Some(auth) => (Signer::build(auth, snapshot)?)
                    .map_or(PerRequest::Nothing, |signer| PerRequest::Signed(Box::new(signer))),
                None => PerRequest::Nothing,
            };
            let mut attachment =
                Attachment::build_with(per_request.fields(), auth, &destination.headers, snapshot)?;
            // A parent may echo what it got.
            let parents = shared.parents().ok().flatten();
            attachment.find(parents.into_iter().flat_map(|parents| parents.credentials()));
            Ok::<_, Error>(Arc::new(LiveCredential {
                attachment,
                changing: MatcherCache::default(),
                endpoint: endpoint(),
                identifies: written.is_some() || has_identity,
                per_request,
                limiter: is_one_of_several.then(|| limits(place)),
                place: place.into(),
            }))
        };
        let mut rules = Vec::with_capacity(destination.auth.len());
        for (index, rule) in destination.auth.iter().enumerate() {
            rules.push(match rule.credentials.as_slice() {
                [] => RuleCredentials::One(credential(None, false)?),
                [one] => RuleCredentials::One(credential(Some(one), false)?),
                several => {
                    let members = several.iter().map(|one| credential(Some(one), true));
                    let old = match old.and_then(|old| old.rules.get(index)) {
                        Some(RuleCredentials::Pool(old)) => Some(old),
                        Some(RuleCredentials::One(_)) | None => None,
                    };
                    RuleCredentials::Pool(CredentialPool::new(members.collect::<Result<_, _>>()?, old))
                }
            });
        }
        Ok(Self {
            no_rule: credential(None, false)?,
            rules,
        })
    }

    /// Checks that all credentials can be built.
    pub(crate) fn check(destination: &Destination, snapshot: &Snapshot) -> Result<(), Error> {
        let credentials = destination.auth.iter().flat_map(|rule| &rule.credentials);
        for auth in credentials.map(|one| Some(&one.auth)).chain([None]) {
            Attachment::build(auth, &destination.headers, snapshot)?;
            match auth {
                Some(Auth::Jwt(jwt)) => drop(JwtCredential::build(jwt, snapshot)?),
                Some(Auth::OAuth2(oauth2)) => Tokens::check(oauth2, snapshot)?,
                Some(auth) => drop(Signer::build(auth, snapshot)?),
                None => {}
            }
        }
        Ok(())
    }

    /// Waits until a credential of this rule is ready. Adds the time to `waited`.
    pub(crate) async fn ready(&self, rule: Option<usize>, waited: &mut Duration) -> Result<(), Error> {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(RuleCredentials::One(credential)) => credential.ready(waited).await,
            Some(RuleCredentials::Pool(pool)) if pool.has_one_ready(Instant::now()) => Ok(()),
            // Boxed: most requests have no pool, or a ready one.
            Some(RuleCredentials::Pool(pool)) => Box::pin(pool.ready(waited)).await,
            None => Ok(()),
        }
    }

    /// Chooses the credential for a request of this rule.
    pub(crate) fn choose(&self, rule: Option<usize>) -> &Arc<LiveCredential> {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(RuleCredentials::One(credential)) => credential,
            Some(RuleCredentials::Pool(pool)) => pool.pick(Instant::now()),
            None => &self.no_rule,
        }
    }

    /// Returns any credential of this rule. All of them set the same fields.
    pub(crate) fn any_of(&self, rule: Option<usize>) -> &Arc<LiveCredential> {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(RuleCredentials::One(credential)) => credential,
            Some(RuleCredentials::Pool(pool)) => pool.members().next().unwrap_or(&self.no_rule),
            None => &self.no_rule,
        }
    }

    /// Updates the pool after a response to a request with this credential.
    pub(crate) fn record_status(
        &self,
        credential: &Arc<LiveCredential>,
        status: StatusCode,
        destination: &str,
    ) {
        if credential.limiter.is_some() {
            let pools = self.rules.iter().filter_map(RuleCredentials::pool);
            pools.for_each(|pool| pool.record_status(credential, status, destination, Instant::now()));
        }
    }

    /// Returns whether its pool has another usable credential.
    pub(crate) fn has_alternative_to(&self, credential: &Arc<LiveCredential>) -> bool {
        let mut pools = self.rules.iter().filter_map(RuleCredentials::pool);
        pools.any(|pool| pool.has_alternative_to(credential, Instant::now()))
    }

    /// Returns whether this endpoint belongs to one of the credentials, or to one of their token endpoints.
    pub(crate) fn has_endpoint(&self, id: u64) -> bool {
        self.all().any(|one| one.endpoint.id() == id)
            || self.tokens().any(|tokens| tokens.endpoint().id() == id)
    }

    /// The limiters of those that are several for one rule.
    pub(crate) fn limiters(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        self.all().filter_map(|credential| credential.limiter.as_ref())
    }

    /// In the order in which they were made.
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.all().map(|one| Arc::clone(&one.endpoint)).collect()
    }

    /// In the order in which they were made.
    fn all(&self) -> impl Iterator<Item = &Arc<LiveCredential>> {
        let of_rules = self.rules.iter().flat_map(|rule| {
            let (one, pool) = match rule {
                RuleCredentials::One(one) => (Some(one), None),
                RuleCredentials::Pool(pool) => (None, Some(pool)),
            };
            one.into_iter()
                .chain(pool.into_iter().flat_map(CredentialPool::members))
        });
        of_rules.chain([&self.no_rule])
    }

    fn tokens(&self) -> impl Iterator<Item = &Tokens> {
        self.all().filter_map(|credential| credential.tokens())
    }
}

impl RuleCredentials {
    fn pool(&self) -> Option<&CredentialPool> {
        match self {
            Self::One(_) => None,
            Self::Pool(pool) => Some(pool),
        }
    }
}

impl PerRequest {
    /// Returns the fields that it sets.
    fn fields(&self) -> Vec<HeaderName> {
        match self {
            Self::Jwt(_) | Self::Token(_) => vec![AUTHORIZATION],
            Self::Nothing => Vec::new(),
            Self::Signed(signer) => signer.fields(),
        }
    }
}

impl LiveCredential {
    /// Returns the fields that outrider sets or removes, whatever the app sends.
    pub(crate) fn names(&self) -> &Arc<FieldNames> {
        self.attachment.names()
    }

    /// Returns whether this part of a query is replaced by the credential.
    pub(crate) fn decides_parameter(&self, part: &str) -> bool {
        self.attachment.decides_parameter(part)
    }

    fn tokens(&self) -> Option<&Tokens> {
        match &self.per_request {
            PerRequest::Token(tokens) => Some(tokens),
            PerRequest::Jwt(_) | PerRequest::Nothing | PerRequest::Signed(_) => None,
        }
    }

    /// Returns how many bytes of a body it signs at most. `None`: it does not sign the body.
    pub(crate) fn hashes(&self) -> Option<usize> {
        match &self.per_request {
            PerRequest::Jwt(_) | PerRequest::Nothing | PerRequest::Token(_) => None,
            PerRequest::Signed(signer) => signer.hashes(),
        }
    }

    /// Returns what finds the secrets of this request in a response. A signature is not a secret: it is valid for
    /// this request only.
    pub(crate) fn matcher(&self, head: &RequestHead) -> Arc<SecretMatcher> {
        let value = match &self.per_request {
            PerRequest::Nothing => None,
            PerRequest::Jwt(_) | PerRequest::Token(_) => head.headers.get(AUTHORIZATION),
            PerRequest::Signed(_) => head.headers.get(sign::aws::SECURITY_TOKEN),
        };
        let fixed = self.attachment.matcher();
        value.map_or_else(|| Arc::clone(fixed), |value| self.changing.with(value, fixed))
    }

    /// Returns whether a request that gets a 401 may succeed with another credential or token.
    pub(crate) fn can_be_renewed(&self) -> bool {
        self.limiter.is_some() || matches!(self.per_request, PerRequest::Token(_))
    }

    /// Waits until it can be attached. Adds the time to `waited`.
    pub(crate) async fn ready(&self, waited: &mut Duration) -> Result<(), Error> {
        match &self.per_request {
            PerRequest::Token(tokens) => Ok(tokens.ready(waited).await?),
            PerRequest::Jwt(_) | PerRequest::Nothing | PerRequest::Signed(_) => Ok(()),
        }
    }

    /// Returns whether it can be attached `now`. Requests a missing token if the token endpoint may be asked.
    fn readiness(&self, now: Instant) -> TokenReadiness {
        match &self.per_request {
            PerRequest::Token(tokens) => tokens.readiness(now),
            PerRequest::Jwt(_) | PerRequest::Nothing | PerRequest::Signed(_) => TokenReadiness::Ready,
        }
    }

    /// Reports that the upstream refused the credential of this request. Returns true if another try with the same
    /// credential may succeed: the token is not used again, and [`ready`](Self::ready) waits for another one.
    pub(crate) fn refuse(&self, head: &RequestHead) -> bool {
        match (&self.per_request, head.headers.get(AUTHORIZATION)) {
            (PerRequest::Token(tokens), Some(value)) => tokens.refuse(value),
            (PerRequest::Token(_), None)
            | (PerRequest::Jwt(_) | PerRequest::Nothing | PerRequest::Signed(_), _) => false,
        }
    }

    /// Attaches the credential, replacing any value already there, including our own from an earlier try.
    ///
    /// Call it after the hop-by-hop fields are removed, and never for CONNECT, which has no place for a credential,
    /// or TRACE, which sends it back. After an error the request must not be sent. Afterwards the URI may hold a
    /// secret and must not be logged.
    pub(crate) fn apply(
        &self,
        head: &mut RequestHead,
        target: &Target,
        payload: Payload<'_>,
    ) -> Result<(), Error> {
        self.attachment.apply(head)?;
        let value = match &self.per_request {
            PerRequest::Jwt(jwt) => jwt.value(SystemTime::now())?,
            PerRequest::Nothing => return Ok(()),
            // Last, because it covers the other attached fields.
            PerRequest::Signed(signer) => {
                // The target is signed in its normalised form, so it must be sent in that form.
                head.extensions.remove::<RawTarget>();
                let authority = authority_of(target);
                let mut subject = RequestToSign {
                    head,
                    // A parsed host is always visible ASCII.
                    authority: authority.to_str().unwrap_or_default(),
                    scheme: target.scheme,
                    payload,
                    now: SystemTime::now(),
                };
                return Ok(signer.sign(&mut subject)?);
            }
            PerRequest::Token(tokens) => tokens.value()?,
        };
        head.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// Makes a field value that `Debug` does not show and whose bytes are wiped after the last use. `None`: the bytes
/// are not a valid field value.
fn hidden(bytes: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
