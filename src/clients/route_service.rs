//! Who may come through the route service.
//!
//! A [`RouteGuard`] is made once for a configuration and its secrets, and judges each request by itself: first the address of
//! its client, then how often that address has come, so that guessing passwords has its limit too, then the credential. Where
//! a request may go is decided in `proxy`.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use tokio::time::Instant;

use super::forwarded::{ForwardedFault, TrustedProxies};
use super::jwks::{IssuerKeys, KeyFetcher};
use super::token::{KeySet, TokenFault};
use super::{BuildError, LONGEST_SHOWN, Password};
use crate::config::{
    Config, JwksPlace, ROUTE_SERVICE, RouteAuth, RouteServiceKeys, SecretRef, TokenRules, TokenUrl,
};
use crate::limit::{self, ClientRates};
use crate::message::Fields;
use crate::secret::{Secret, Snapshot};
use crate::telemetry::{ClientCounters, Telemetry};
use crate::upstream::service::ServiceEndpoint;

/// The rules of the route service, ready to be asked.
#[derive(Debug)]
pub(crate) struct RouteGuard {
    /// Of its secrets.
    fingerprint: u64,
    /// Every part of it can be used.
    is_whole: bool,
    proxies: TrustedProxies,
    rates: Option<Arc<ClientRates>>,
    /// `None`: no credential is asked for.
    users: Option<RouteUsers>,
    written: RouteServiceKeys,
}

/// What was built, and what could not be.
#[derive(Debug)]
pub(crate) struct BuiltGuard {
    /// `None`: there is no route service.
    pub(crate) guard: Option<Arc<RouteGuard>>,
    pub(crate) failed: Vec<BuildError>,
}

/// Who is known by a credential. One whose secret cannot be read is nobody.
struct RouteUsers {
    basic: Vec<(Arc<ClientCounters>, Password)>,
    bearer: Vec<Secret>,
    /// The rules for tokens of an issuer, and its keys.
    issuer: Option<(TokenRules, IssuerKeys)>,
    schemes: Schemes,
}

/// The schemes of Authorization that are asked for (RFC 7617, RFC 6750).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schemes {
    basic: bool,
    bearer: bool,
}

/// Why a request may not pass through the route service. `Display` is a sentence for its sender, who is not told which
/// address was found: that of a proxy inside the platform is not for everybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GuardRefusal {
    #[error("the address of the client is not one of those that route_service.allow names")]
    Address { found: IpAddr },

    #[error(transparent)]
    Limited(limit::Refusal),

    #[error("this route asks for a credential, and no Authorization came{}", .0.remedy())]
    NoCredential(Schemes),

    /// The reason is in the log.
    #[error("the keys of the issuer of tokens are not known at the moment; try again in a minute")]
    NoKeys,

    #[error("the token in Authorization is not taken: {fault}{}", .asked.remedy())]
    Token { asked: Schemes, fault: TokenFault },

    #[error(
        "the address of the client is not known, because X-Forwarded-For does not say it as route_service expects"
    )]
    Unknown(ForwardedFault),

    #[error("the credential in Authorization is not one that this route takes{}", .asked.remedy())]
    WrongCredential { asked: Schemes, is_bearer: bool },
}

impl GuardRefusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Address { .. } | Self::Unknown(_) => StatusCode::FORBIDDEN,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoCredential(_) | Self::Token { .. } | Self::WrongCredential { .. } => {
                StatusCode::UNAUTHORIZED
            }
            Self::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the word for a refusal by policy: the `reason` label. `None` for a request that may come again with a
    /// credential, or later.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Address { .. } | Self::Unknown(_) => Some("client_address"),
            Self::Limited(_)
            | Self::NoCredential(_)
            | Self::NoKeys
            | Self::Token { .. }
            | Self::WrongCredential { .. } => None,
        }
    }

    /// Returns what the log says besides the sentence.
    pub(crate) fn log_note(&self) -> Option<String> {
        match self {
            Self::Address { found } => Some(format!("X-Forwarded-For says {found}")),
            Self::Unknown(fault) => Some(fault.to_string()),
            Self::Limited(_)
            | Self::NoCredential(_)
            | Self::NoKeys
            | Self::Token { .. }
            | Self::WrongCredential { .. } => None,
        }
    }

    /// Returns the values of WWW-Authenticate.
    pub(crate) fn challenges(&self) -> impl Iterator<Item = HeaderValue> {
        let (schemes, is_token_wrong) = match self {
            Self::NoCredential(schemes) => (*schemes, false),
            Self::Token { asked, .. } => (*asked, true),
            Self::WrongCredential { asked, is_bearer } => (*asked, *is_bearer),
            Self::Address { .. } | Self::Limited(_) | Self::NoKeys | Self::Unknown(_) => Default::default(),
        };
        let basic = "Basic realm=\"outrider\", charset=\"UTF-8\"";
        let bearer = if is_token_wrong {
            "Bearer realm=\"outrider\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"outrider\""
        };
        let asked = [(schemes.bearer, bearer), (schemes.basic, basic)];
        let asked = asked.into_iter().filter(|(is_asked, _)| *is_asked);
        asked.map(|(_, challenge)| HeaderValue::from_static(challenge))
    }
}

impl Schemes {
    /// Returns what to send, as the end of a sentence.
    fn remedy(self) -> &'static str {
        match (self.basic, self.bearer) {
            (true, true) => {
                "; send the user name and password of one of its users (Basic), or a token (Bearer)"
            }
            (true, false) => "; send the user name and password of one of its users (Basic)",
            (false, true) => "; send a token of it (Bearer)",
            (false, false) => "",
        }
    }
}

impl RouteGuard {
    /// Makes the guard of a configuration; `previous` where nothing has changed.
    pub(crate) fn build(
        config: &Config,
        secrets: &Snapshot,
        telemetry: &Telemetry,
        issuer: impl FnOnce(&TokenUrl) -> ServiceEndpoint,
        previous: Option<&Arc<Self>>,
    ) -> BuiltGuard {
        let mut failed = Vec::new();
        let Some(written) = &config.route_service else {
            let guard = None;
            return BuiltGuard { guard, failed };
        };
        let fingerprint = secrets.fingerprint(&Self::references(config));
        let rates = written.rate_limit.as_ref().map(|rate| {
            let running = previous.and_then(|old| old.rates.as_ref());
            let same = running.filter(|running| running.is_of(rate, config.instances));
            same.cloned().unwrap_or_else(|| {
                let counters = telemetry.counters(ROUTE_SERVICE);
                Arc::new(ClientRates::new(rate, config.instances, &counters))
            })
        });
        let users = written.auth.as_ref();
        let mut users = users.map(|auth| RouteUsers::build(auth, secrets, telemetry, &mut failed));
        let rules = written.auth.as_ref().and_then(|auth| auth.jwt.as_deref());
        if let (Some(users), Some(rules)) = (&mut users, rules) {
            let running = previous.and_then(|old| old.users.as_ref()?.issuer.as_ref());
            match issuer_keys(rules, secrets, issuer, running.map(|(_, keys)| keys)) {
                Ok(keys) => users.issuer = Some((rules.clone(), keys)),
                Err(source) => failed.push(BuildError::RouteService {
                    place: "jwt.jwks".to_owned(),
                    source: Box::new(source),
                }),
            }
        }
        let guard = Self {
            fingerprint,
            is_whole: failed.is_empty(),
            proxies: TrustedProxies::of(written),
            rates,
            users,
            written: RouteServiceKeys::clone(written),
        };
        let guard = Some(Arc::new(guard));
        BuiltGuard { guard, failed }
    }

    /// Returns every secret that it is made of.
    pub(crate) fn references(config: &Config) -> Vec<SecretRef> {
        let auth = config.route_service.as_ref().and_then(|own| own.auth.as_ref());
        auth.map_or_else(Vec::new, |auth| {
            let all = auth.references().into_iter();
            all.map(|(_, reference)| reference.clone()).collect()
        })
    }

    pub(crate) fn written(&self) -> &RouteServiceKeys {
        &self.written
    }

    /// Whether everybody who is written can be known.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it was made of other secrets than `old`.
    pub(crate) fn is_rotated(&self, old: &Self) -> bool {
        self.fingerprint != old.fingerprint
    }

    /// Whether it was made of the same configuration as `other`.
    pub(crate) fn is_of_same_configuration(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// Judges the sender of a request with these fields, and returns the user who has shown a password.
    pub(crate) async fn admit(
        &self,
        fields: &Fields,
        now: Instant,
    ) -> Result<Option<&Arc<ClientCounters>>, GuardRefusal> {
        if !self.written.allow.is_empty() || self.rates.is_some() {
            let found = self.proxies.client(fields).map_err(GuardRefusal::Unknown)?;
            let mut allowed = self.written.allow.iter();
            if !self.written.allow.is_empty() && !allowed.any(|range| range.contains(&found)) {
                return Err(GuardRefusal::Address { found });
            }
            if let Some(rates) = &self.rates {
                rates.take(found, now).map_err(GuardRefusal::Limited)?;
            }
        }
        match &self.users {
            None => Ok(None),
            Some(users) => users.find(fields).await,
        }
    }

    /// Removes what was meant for the route service alone.
    pub(crate) fn strip(&self, fields: &mut Fields) {
        if self.written.auth.as_ref().is_some_and(|auth| !auth.forward) {
            fields.remove(AUTHORIZATION);
        }
    }
}

impl RouteUsers {
    fn build(
        auth: &RouteAuth,
        secrets: &Snapshot,
        telemetry: &Telemetry,
        failed: &mut Vec<BuildError>,
    ) -> Self {
        let mut read = |place: String, reference: &SecretRef| {
            let secret = secrets.read(reference);
            secret
                .map_err(|source| {
                    let source = Box::new(BuildError::Secret(source));
                    failed.push(BuildError::RouteService { place, source });
                })
                .ok()
        };
        let mut users = Self {
            basic: Vec::new(),
            bearer: Vec::new(),
            issuer: None,
            schemes: Schemes {
                basic: !auth.basic.is_empty(),
                bearer: !auth.bearer.is_empty() || auth.jwt.is_some(),
            },
        };
        for (name, reference) in &auth.basic {
            if let Some(secret) = read(format!("basic.{name}"), reference) {
                let password = Password::of(name, secret.expose());
                users.basic.push((telemetry.client(name), password));
            }
        }
        for (place, reference) in auth.bearer_tokens() {
            users.bearer.extend(read(place, reference));
        }
        users
    }

    /// Returns the user whose password the request shows. A token says that somebody may pass, not who it is.
    async fn find(&self, fields: &Fields) -> Result<Option<&Arc<ClientCounters>>, GuardRefusal> {
        let asked = self.schemes;
        let mut shown = fields.get_all(AUTHORIZATION);
        let wrong = |is_bearer| GuardRefusal::WrongCredential { asked, is_bearer };
        let shown = match (shown.next(), shown.next()) {
            (None, _) => return Err(GuardRefusal::NoCredential(asked)),
            (Some(shown), None) => shown.as_bytes(),
            // Which of them counts is where programs differ.
            (Some(_), Some(_)) => return Err(wrong(false)),
        };
        let (scheme, rest) =
            shown.split_at(shown.iter().position(|byte| *byte == b' ').unwrap_or(shown.len()));
        let rest = rest.trim_ascii();
        // All of them are compared, so that the time does not reveal which there are.
        if scheme.eq_ignore_ascii_case(b"Basic") && shown.len() <= LONGEST_SHOWN {
            let mut found = None;
            for (counters, password) in &self.basic {
                if password.is(rest) {
                    found = Some(counters);
                }
            }
            return found.map(Some).ok_or_else(|| wrong(false));
        }
        let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer");
        let is_right = |token: &Secret| verify_slices_are_equal(token.expose(), rest).is_ok();
        if is_bearer && self.bearer.iter().filter(|token| is_right(token)).count() > 0 {
            return Ok(None);
        }
        match &self.issuer {
            Some((rules, keys)) if is_bearer => match keys.verify(rest, rules).await {
                None => Err(GuardRefusal::NoKeys),
                Some(Ok(())) => Ok(None),
                Some(Err(fault)) => Err(GuardRefusal::Token { asked, fault }),
            },
            Some(_) | None => Err(wrong(is_bearer)),
        }
    }
}

/// Reads the keys of an issuer, or makes ready to ask for them; `running`: those of before.
fn issuer_keys(
    rules: &TokenRules,
    secrets: &Snapshot,
    issuer: impl FnOnce(&TokenUrl) -> ServiceEndpoint,
    running: Option<&IssuerKeys>,
) -> Result<IssuerKeys, BuildError> {
    match &rules.jwks {
        JwksPlace::Issuer(url) => {
            let running = match running {
                Some(IssuerKeys::Fetched(running)) => Some(&**running),
                Some(IssuerKeys::Fixed(_)) | None => None,
            };
            let fetcher = KeyFetcher::new(url, issuer(url), running);
            Ok(IssuerKeys::Fetched(Arc::new(fetcher)))
        }
        JwksPlace::Reference(reference) => {
            let text = secrets.read_binary(reference).map_err(BuildError::Secret)?;
            let keys = KeySet::read(text.expose()).map_err(|source| BuildError::Keys {
                reference: reference.clone(),
                source,
            })?;
            Ok(IssuerKeys::Fixed(Arc::new(keys)))
        }
    }
}

impl std::fmt::Debug for RouteUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteUsers")
            .field("schemes", &self.schemes)
            .finish_non_exhaustive()
    }
}
