//! What is attached: the credentials and the headers of a destination.
//!
//! [`Credentials`] are all of one destination: which of them goes on a request is decided by its method and path, in
//! `policy`, and by the [`pool`] where several will do. A [`Credential`] puts itself on a request: [`Attachment`]s are
//! made ready once and cloned. Each has upstream connections of its own, so that one never speaks in another's name.
//!
//! Whether a request may carry a credential at all (a clear wire, CONNECT, TRACE) is decided before, in `policy` and
//! `proxy`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::{self, Auth, HeaderText, SecretRef, TokenUrl};
use crate::fields::FieldNames;
use crate::host::Target;
use crate::http1::RawTarget;
use crate::limit::Limiter;
use crate::policy::Destination;
use crate::secret::{self, Sources};
use crate::upstream::Endpoint;
use crate::upstream::connect::authority_of;

pub(crate) use self::attachment::Attachment;
use self::jwt::Jwt;
use self::needles::Changing;
pub(crate) use self::needles::Needles;
use self::oauth::Readiness;
use self::oauth::Tokens;
pub(crate) use self::oauth::{Door, Error as TokenError, NoToken};
use self::pool::Pool;
pub(crate) use self::sign::Payload;
use self::sign::{Signer, Subject};

mod attachment;
mod jwt;
pub(crate) mod key;
mod needles;
mod oauth;
mod pool;
mod query;
pub(crate) mod sign;

/// Everything that is attached to the requests of one destination.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// Where no rule matches.
    bare: Arc<Credential>,
    /// One for each of the destination's.
    rules: Vec<Rule>,
}

#[derive(Debug)]
enum Rule {
    One(Arc<Credential>),
    Pool(Pool),
}

/// One credential, and what goes with it.
#[derive(Debug)]
pub(crate) struct Credential {
    attachment: Attachment,
    /// What is looked for beside what the attachment holds.
    changing: Changing,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Whether the upstream can tell a request with it from one of a stranger.
    pub(crate) identifies: bool,
    kind: Kind,
    /// What the upstream says of this one alone, where it is one of a pool.
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// As in `auth[1].pool[0]`.
    place: Box<str>,
}

/// What comes to an [`Attachment`] that is not the same on every request.
#[derive(Debug)]
enum Kind {
    Jwt(Box<Jwt>),
    Nothing,
    Signed(Box<Signer>),
    Token(Tokens),
}

/// Why a credential cannot be made ready, or not be put on a request. Never shows one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Jwt(#[from] jwt::Error),

    #[error(
        "{reference}: byte {position} is {what}, which cannot stand in {place}; \
         write the secret again as one line of visible ASCII"
    )]
    NotFieldText {
        reference: SecretRef,
        place: &'static str,
        position: usize,
        what: &'static str,
    },

    #[error("the user name holds {what}, which cannot stand in Basic authentication")]
    NotUserName { what: &'static str },

    #[error("no room for the credential: the request's target or its header fields are at their limit")]
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
    /// Reads the secrets. The first credential has the connections of `endpoint`, the others have their own. What `old`
    /// has of all this is kept: it is to be given only where `destination` names the same credentials and the secrets
    /// are the same. `limits`: what the upstream says of the credential at a place. `doors`: how a token endpoint is
    /// reached. The tokens of `running` stay where they would be asked for in the same way.
    pub(crate) fn build(
        destination: &Destination,
        sources: &Sources,
        endpoint: &Arc<Endpoint>,
        limits: impl Fn(&str) -> Arc<Limiter>,
        doors: impl Fn(&TokenUrl) -> Door,
        running: Option<&Self>,
        old: Option<&Self>,
    ) -> Result<Self, Error> {
        let kept = old.map(Self::endpoints).unwrap_or_default();
        let mut kept = kept.into_iter().skip(1);
        let (shared, mut first) = (endpoint, Some(Arc::clone(endpoint)));
        let mut endpoint = || {
            (first.take())
                .or_else(|| kept.next())
                .unwrap_or_else(|| Arc::new(shared.sibling()))
        };
        let has_identity = destination.tls.client_certificate.is_some()
            || (destination.headers.set.iter()).any(|(_, text)| matches!(text, HeaderText::Reference(_)));
        let mut credential = |written: Option<&config::Credential>, is_one_of_several: bool| {
            let auth = written.map(|written| &written.auth);
            let place = written.map_or("auth", |written| written.place.as_str());
            let kind = match auth {
                Some(Auth::Jwt(jwt)) => Kind::Jwt(Box::new(Jwt::build(jwt, sources)?)),
                Some(Auth::OAuth2(oauth2)) => {
                    let running = running.into_iter().flat_map(Self::tokens);
                    let door = doors(&oauth2.token_url);
                    let counters = Arc::clone(&shared.counters);
                    Kind::Token(Tokens::build(oauth2, sources, door, counters, running)?)
                }
                Some(auth) => (Signer::build(auth, sources)?)
                    .map_or(Kind::Nothing, |signer| Kind::Signed(Box::new(signer))),
                None => Kind::Nothing,
            };
            let attachment = Attachment::build_with(kind.fields(), auth, &destination.headers, sources)?;
            Ok::<_, Error>(Arc::new(Credential {
                attachment,
                changing: Changing::default(),
                endpoint: endpoint(),
                identifies: written.is_some() || has_identity,
                kind,
                limiter: is_one_of_several.then(|| limits(place)),
                place: place.into(),
            }))
        };
        let mut rules = Vec::with_capacity(destination.auth.len());
        for (index, rule) in destination.auth.iter().enumerate() {
            rules.push(match rule.credentials.as_slice() {
                [] => Rule::One(credential(None, false)?),
                [one] => Rule::One(credential(Some(one), false)?),
                several => {
                    let members = several.iter().map(|one| credential(Some(one), true));
                    let old = match old.and_then(|old| old.rules.get(index)) {
                        Some(Rule::Pool(old)) => Some(old),
                        Some(Rule::One(_)) | None => None,
                    };
                    Rule::Pool(Pool::new(members.collect::<Result<_, _>>()?, old))
                }
            });
        }
        Ok(Self {
            bare: credential(None, false)?,
            rules,
        })
    }

    /// Whether everything can be made ready.
    pub(crate) fn check(destination: &Destination, sources: &Sources) -> Result<(), Error> {
        let credentials = destination.auth.iter().flat_map(|rule| &rule.credentials);
        for auth in credentials.map(|one| Some(&one.auth)).chain([None]) {
            Attachment::build(auth, &destination.headers, sources)?;
            match auth {
                Some(Auth::Jwt(jwt)) => drop(Jwt::build(jwt, sources)?),
                Some(Auth::OAuth2(oauth2)) => Tokens::check(oauth2, sources)?,
                Some(auth) => drop(Signer::build(auth, sources)?),
                None => {}
            }
        }
        Ok(())
    }

    /// Waits for what a request needs for which this rule of the destination's counts; of a pool, until one credential
    /// is ready. The time that it took is added to `waited`.
    pub(crate) async fn ready(&self, rule: Option<usize>, waited: &mut Duration) -> Result<(), Error> {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(Rule::One(credential)) => credential.ready(waited).await,
            Some(Rule::Pool(pool)) if pool.has_one_ready(Instant::now()) => Ok(()),
            // Boxed: most requests have no pool, or one that is ready.
            Some(Rule::Pool(pool)) => Box::pin(pool.ready(waited)).await,
            None => Ok(()),
        }
    }

    /// What a request carries for which this rule of the destination's counts.
    pub(crate) fn choose(&self, rule: Option<usize>) -> &Arc<Credential> {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(Rule::One(credential)) => credential,
            Some(Rule::Pool(pool)) => pool.pick(Instant::now()),
            None => &self.bare,
        }
    }

    /// One of those that a request may carry for which this rule of the destination's counts. All of them stand in the
    /// same place.
    pub(crate) fn one_of(&self, rule: Option<usize>) -> &Arc<Credential> {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(Rule::One(credential)) => credential,
            Some(Rule::Pool(pool)) => pool.members().next().unwrap_or(&self.bare),
            None => &self.bare,
        }
    }

    /// An answer came to a request with this credential.
    pub(crate) fn hear(&self, credential: &Arc<Credential>, status: StatusCode, destination: &str) {
        if credential.limiter.is_some() {
            let pools = self.rules.iter().filter_map(Rule::pool);
            pools.for_each(|pool| pool.hear(credential, status, destination, Instant::now()));
        }
    }

    /// Whether there is another one to try after the upstream has refused this one.
    pub(crate) fn has_instead_of(&self, credential: &Arc<Credential>) -> bool {
        let mut pools = self.rules.iter().filter_map(Rule::pool);
        pools.any(|pool| pool.has_instead_of(credential, Instant::now()))
    }

    /// Whether the connections of this endpoint are one of theirs, or lead to where one of them asks for its tokens.
    pub(crate) fn has_endpoint(&self, id: u64) -> bool {
        self.all().any(|one| one.endpoint.id() == id)
            || self.tokens().any(|tokens| tokens.endpoint().id() == id)
    }

    /// In the order in which they were made.
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.all().map(|one| Arc::clone(&one.endpoint)).collect()
    }

    /// In the order in which they were made.
    fn all(&self) -> impl Iterator<Item = &Arc<Credential>> {
        let of_rules = self.rules.iter().flat_map(|rule| {
            let (one, pool) = match rule {
                Rule::One(one) => (Some(one), None),
                Rule::Pool(pool) => (None, Some(pool)),
            };
            one.into_iter().chain(pool.into_iter().flat_map(Pool::members))
        });
        of_rules.chain([&self.bare])
    }

    fn tokens(&self) -> impl Iterator<Item = &Tokens> {
        self.all().filter_map(|credential| credential.tokens())
    }
}

impl Rule {
    fn pool(&self) -> Option<&Pool> {
        match self {
            Self::One(_) => None,
            Self::Pool(pool) => Some(pool),
        }
    }
}

impl Kind {
    /// The fields that it sets.
    fn fields(&self) -> Vec<HeaderName> {
        match self {
            Self::Jwt(_) | Self::Token(_) => vec![AUTHORIZATION],
            Self::Nothing => Vec::new(),
            Self::Signed(signer) => signer.fields(),
        }
    }
}

impl Credential {
    /// The fields of a request that are decided here, and not by the app.
    pub(crate) fn names(&self) -> &Arc<FieldNames> {
        self.attachment.names()
    }

    /// Whether it is decided here, and not by the app, what stands in this piece of a query.
    pub(crate) fn decides_parameter(&self, part: &str) -> bool {
        self.attachment.decides_parameter(part)
    }

    fn tokens(&self) -> Option<&Tokens> {
        match &self.kind {
            Kind::Token(tokens) => Some(tokens),
            Kind::Jwt(_) | Kind::Nothing | Kind::Signed(_) => None,
        }
    }

    /// How much of a body it has to see, in bytes; `None`: nothing of it.
    pub(crate) fn hashes(&self) -> Option<usize> {
        match &self.kind {
            Kind::Jwt(_) | Kind::Nothing | Kind::Token(_) => None,
            Kind::Signed(signer) => signer.hashes(),
        }
    }

    /// What an echo of a request with this credential on it would show. A signature is no secret: it is good for this
    /// request and no other.
    pub(crate) fn needles(&self, head: &Parts) -> Arc<Needles> {
        let value = match &self.kind {
            Kind::Nothing => None,
            Kind::Jwt(_) | Kind::Token(_) => head.headers.get(AUTHORIZATION),
            Kind::Signed(_) => head.headers.get(sign::aws::SECURITY_TOKEN),
        };
        let fixed = self.attachment.needles();
        value.map_or_else(|| Arc::clone(fixed), |value| self.changing.with(value, fixed))
    }

    /// Whether a request that the upstream refuses with 401 may be answered otherwise with another credential.
    pub(crate) fn can_be_renewed(&self) -> bool {
        self.limiter.is_some() || matches!(self.kind, Kind::Token(_))
    }

    /// Waits until it can be put on a request. The time that it took is added to `waited`.
    pub(crate) async fn ready(&self, waited: &mut Duration) -> Result<(), Error> {
        match &self.kind {
            Kind::Token(tokens) => Ok(tokens.ready(waited).await?),
            Kind::Jwt(_) | Kind::Nothing | Kind::Signed(_) => Ok(()),
        }
    }

    /// Whether it can be put on a request `now`. Where it cannot, what it lacks is asked for if that may help.
    fn readiness(&self, now: Instant) -> Readiness {
        match &self.kind {
            Kind::Token(tokens) => tokens.readiness(now),
            Kind::Jwt(_) | Kind::Nothing | Kind::Signed(_) => Readiness::Ready,
        }
    }

    /// The upstream has refused it as it stands on a request. Whether another try may end otherwise with the same
    /// credential: a token is not used again, and [`ready`](Self::ready) waits for another one.
    pub(crate) fn refuse(&self, head: &Parts) -> bool {
        match (&self.kind, head.headers.get(AUTHORIZATION)) {
            (Kind::Token(tokens), Some(value)) => tokens.refuse(value),
            (Kind::Token(_), None) | (Kind::Jwt(_) | Kind::Nothing | Kind::Signed(_), _) => false,
        }
    }

    /// Puts it on a request, in the place of what stands there: also of itself, where the request is sent again.
    ///
    /// To be called after hop-by-hop fields are struck, and never for CONNECT or TRACE: the one has no place for a
    /// credential, the other sends it back. After an error the request must not be sent. Afterwards the URI may hold a
    /// secret: it must not be logged.
    pub(crate) fn apply(&self, head: &mut Parts, target: &Target, payload: Payload<'_>) -> Result<(), Error> {
        self.attachment.apply(head)?;
        let value = match &self.kind {
            Kind::Jwt(jwt) => jwt.value(SystemTime::now())?,
            Kind::Nothing => return Ok(()),
            // Last: it covers what else is attached.
            Kind::Signed(signer) => {
                // What is signed is what is sent.
                head.extensions.remove::<RawTarget>();
                let authority = authority_of(target);
                let mut subject = Subject {
                    head,
                    // A parsed host is visible ASCII.
                    authority: authority.to_str().unwrap_or_default(),
                    scheme: target.scheme,
                    payload,
                    now: SystemTime::now(),
                };
                return Ok(signer.sign(&mut subject)?);
            }
            Kind::Token(tokens) => tokens.value()?,
        };
        authorize(head, value)
    }
}

/// A field value that is not shown, and whose bytes are wiped when nobody has it any more. `None` where they cannot stand
/// in a field.
fn hidden(bytes: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Instead of whatever stands there.
fn authorize(head: &mut Parts, value: HeaderValue) -> Result<(), Error> {
    let placed = head.headers.try_insert(AUTHORIZATION, value);
    placed.map(drop).map_err(|_| Error::NoRoom)
}

#[cfg(test)]
mod tests;
