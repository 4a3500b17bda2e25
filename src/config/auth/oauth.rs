//! Tokens that are requested (OAuth 2.0).
//!
//! Keys have the names of the parameters and claims of the standards: RFC 6749, 7519, 7521, 8693 and 8707. A key that the
//! grant or the client's authentication does not read is a problem: the user would think that it counts.

use http::Uri;

use super::jwt::{Jwt, KeyNames};
use super::text::{OneLine, OneLineOrReference};
use crate::config::declare::{Section, Syntax, ValueKind, Word};
use crate::config::node::shown;
use crate::config::reader::{Located, REFERENCE, SectionReader};
use crate::config::syntax::ListOf;
use crate::config::{SecretRef, Text};
use crate::host::Target;

/// Parameters of a token request that have a key beside `params`, and what to write.
const OWN: &[(&str, &str)] = &[
    ("actor_token", "actor_token beside params"),
    ("actor_token_type", "actor_token_type beside params"),
    ("assertion", "assertion: { key: REFERENCE } beside params"),
    (
        "client_assertion",
        "client_assertion: { key: REFERENCE } beside params",
    ),
    (
        "client_assertion_type",
        "client_auth: private_key_jwt beside params",
    ),
    ("client_id", "client_id beside params"),
    (
        "client_secret",
        "client_secret beside params, with client_auth: post",
    ),
    ("grant_type", "grant beside params"),
    ("refresh_token", "refresh_token beside params"),
    ("requested_token_type", "requested_token_type beside params"),
    ("scope", "scopes beside params, as in scopes: [read]"),
    ("subject_token", "subject_token beside params"),
    ("subject_token_type", "subject_token_type beside params"),
];

const ASSERTION_KEYS: KeyNames = KeyNames {
    certificate: "oauth2.assertion.certificate",
    claims: "oauth2.assertion.claims",
    key: "oauth2.assertion.key",
    key_id: "oauth2.assertion.key_id",
};
const CLIENT_ASSERTION_KEYS: KeyNames = KeyNames {
    certificate: "oauth2.client_assertion.certificate",
    claims: "oauth2.client_assertion.claims",
    key: "oauth2.client_assertion.key",
    key_id: "oauth2.client_assertion.key_id",
};

/// How a token is requested.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OAuth2 {
    pub(crate) audience: Vec<String>,
    pub(crate) client_auth: ClientAuth,
    /// `None`: the grant alone identifies the client.
    pub(crate) client_id: Option<Text>,
    pub(crate) grant: Grant,
    /// Further parameters of the token request.
    pub(crate) params: Vec<(String, Text)>,
    /// RFC 8707.
    pub(crate) resource: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) token_url: TokenUrl,
}

/// The token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenUrl {
    /// As written: servers compare it with the audience of an assertion.
    pub(crate) text: String,
    pub(crate) target: Target,
    pub(crate) path_and_query: String,
}

/// What the client presents to get a token (RFC 6749, section 1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Grant {
    /// RFC 6749, section 4.4.
    ClientCredentials,
    /// RFC 7523, section 2.1.
    JwtBearer(Jwt),
    /// RFC 6749, section 6.
    RefreshToken(SecretRef),
    /// RFC 8693.
    TokenExchange {
        actor: Option<ExchangedToken>,
        requested_token_type: Option<String>,
        subject: ExchangedToken,
    },
}

/// A token that is exchanged, and its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExchangedToken {
    pub(crate) token: SecretRef,
    pub(crate) token_type: String,
}

/// How the client authenticates (RFC 6749, section 2.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientAuth {
    /// A public client, or no client.
    None,
    Basic(SecretRef),
    Post(SecretRef),
    /// RFC 7523, section 2.2.
    PrivateKeyJwt(Jwt),
    /// With the client certificate of the connection (RFC 8705).
    Tls,
}

section! {
    /// How a token is requested, as it is written.
    pub(crate) struct OAuth2Keys {
        /// The token endpoint: https://, unless insecure_attach_over_http says otherwise.
        token_url: TokenUrl = required "write token_url: https://login.example.com/token";
        /// What a token is given for (RFC 6749, 7523, 8693).
        grant: GrantKind = "client_credentials";
        /// A plain value or a reference.
        client_id: Option<Text> as OneLineOrReference;
        /// With client_auth: basic or post. A variable that is set to nothing means an empty one.
        client_secret: Option<SecretRef>;
        /// How the client authenticates; default: basic with client_secret, private_key_jwt with client_assertion, else none.
        /// tls: by the client certificate that the token endpoint gets (RFC 8705).
        client_auth: Option<ClientAuthKind>;
        /// With client_auth: private_key_jwt. iss and sub are client_id, aud is token_url, unless claims say otherwise.
        client_assertion: Option<Jwt>;
        /// With grant: jwt_bearer. iss and sub are client_id where it is written, aud is token_url, unless claims say otherwise.
        assertion: Option<Jwt>;
        /// With grant: refresh_token. A new one that the server returns is kept in memory.
        refresh_token: Option<SecretRef>;
        /// With grant: token_exchange: the token that is exchanged.
        subject_token: Option<SecretRef>;
        /// What kind of token that is.
        subject_token_type: String as OneLine = "urn:ietf:params:oauth:token-type:access_token";
        /// With grant: token_exchange: the token of the party that acts for the subject.
        actor_token: Option<SecretRef>;
        /// What kind of token that is.
        actor_token_type: String as OneLine = "urn:ietf:params:oauth:token-type:access_token";
        /// With grant: token_exchange: the kind of token that is wanted.
        requested_token_type: Option<String> as OneLine;
        /// What the token is to allow.
        scopes: Vec<String> as ListOf<Scopes> = "[]";
        /// Whom the token is for, by name; one or several.
        audience: Vec<String> as OneOrList<OneLine> = "[]";
        /// Whom the token is for, by absolute URI (RFC 8707); one or several.
        resource: Vec<String> as OneOrList<Resource> = "[]";
        /// Further parameters of the token request: plain values or references.
        params: Vec<(String, Text)> as Params = "{}";
    }
}

choice! {
    /// What `grant` may be.
    pub(crate) enum GrantKind {
        ClientCredentials = "client_credentials",
        RefreshToken = "refresh_token",
        JwtBearer = "jwt_bearer",
        TokenExchange = "token_exchange",
    }
}

choice! {
    /// What `client_auth` may be.
    pub(crate) enum ClientAuthKind {
        Basic = "basic",
        Post = "post",
        PrivateKeyJwt = "private_key_jwt",
        Tls = "tls",
        None = "none",
    }
}

impl OAuth2 {
    /// Returns the grant, as the configuration writes it.
    pub(crate) fn grant(&self) -> &'static str {
        let kind = match &self.grant {
            Grant::ClientCredentials => GrantKind::ClientCredentials,
            Grant::JwtBearer(_) => GrantKind::JwtBearer,
            Grant::RefreshToken(_) => GrantKind::RefreshToken,
            Grant::TokenExchange { .. } => GrantKind::TokenExchange,
        };
        kind.word()
    }

    /// Returns the way in which the client authenticates, as the configuration writes it.
    pub(crate) fn client_auth(&self) -> &'static str {
        let kind = match &self.client_auth {
            ClientAuth::None => ClientAuthKind::None,
            ClientAuth::Basic(_) => ClientAuthKind::Basic,
            ClientAuth::Post(_) => ClientAuthKind::Post,
            ClientAuth::PrivateKeyJwt(_) => ClientAuthKind::PrivateKeyJwt,
            ClientAuth::Tls => ClientAuthKind::Tls,
        };
        kind.word()
    }

    /// Returns every reference to a secret, with its key.
    pub(crate) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = Vec::new();
        if let Some(Text::Reference(id)) = &self.client_id {
            all.push(("oauth2.client_id", id));
        }
        match &self.client_auth {
            ClientAuth::None | ClientAuth::Tls => {}
            ClientAuth::Basic(secret) | ClientAuth::Post(secret) => {
                all.push(("oauth2.client_secret", secret));
            }
            ClientAuth::PrivateKeyJwt(assertion) => {
                all.extend(assertion.named(&CLIENT_ASSERTION_KEYS));
            }
        }
        match &self.grant {
            Grant::ClientCredentials => {}
            Grant::JwtBearer(assertion) => all.extend(assertion.named(&ASSERTION_KEYS)),
            Grant::RefreshToken(token) => all.push(("oauth2.refresh_token", token)),
            Grant::TokenExchange { actor, subject, .. } => {
                all.push(("oauth2.subject_token", &subject.token));
                all.extend(actor.iter().map(|actor| ("oauth2.actor_token", &actor.token)));
            }
        }
        for (_, value) in &self.params {
            if let Text::Reference(value) = value {
                all.push(("oauth2.params", value));
            }
        }
        all
    }
}

impl Syntax for OAuth2 {
    type Value = Self;

    const KIND: ValueKind = OAuth2Keys::KIND;

    fn read(written: Located<'_>) -> Option<Self> {
        let reader = written.reader(OAuth2Keys::KEYS)?;
        let keys = OAuth2Keys::decode(&reader)?;
        let client_auth = keys.client_auth.unwrap_or_else(|| {
            if keys.client_secret.is_some() {
                ClientAuthKind::Basic
            } else if keys.client_assertion.is_some() {
                ClientAuthKind::PrivateKeyJwt
            } else {
                ClientAuthKind::None
            }
        });
        check_unread(&reader, keys.grant, client_auth);
        let client_id = keys.client_id;
        if client_id.is_none() && client_auth != ClientAuthKind::None {
            missing(&reader, "client_id", "write a name or a reference");
        }
        let grant = match keys.grant {
            GrantKind::ClientCredentials => {
                if client_auth == ClientAuthKind::None {
                    reader.problem(
                        "client_credentials needs a client that shows who it is",
                        "write client_secret: REFERENCE, or client_auth: private_key_jwt or tls",
                    );
                }
                Some(Grant::ClientCredentials)
            }
            GrantKind::JwtBearer => {
                let right = "write { key: REFERENCE, claims: { … } }";
                needed(&reader, "assertion", right, keys.assertion).map(Grant::JwtBearer)
            }
            GrantKind::RefreshToken => {
                needed(&reader, "refresh_token", REFERENCE, keys.refresh_token).map(Grant::RefreshToken)
            }
            GrantKind::TokenExchange => {
                let actor = keys.actor_token.map(|token| ExchangedToken {
                    token,
                    token_type: keys.actor_token_type,
                });
                let subject = needed(&reader, "subject_token", REFERENCE, keys.subject_token);
                subject.map(|token| Grant::TokenExchange {
                    actor,
                    requested_token_type: keys.requested_token_type,
                    subject: ExchangedToken {
                        token,
                        token_type: keys.subject_token_type,
                    },
                })
            }
        };
        let secret = |secret| needed(&reader, "client_secret", REFERENCE, secret);
        let client_auth = match client_auth {
            ClientAuthKind::None => Some(ClientAuth::None),
            ClientAuthKind::Basic => secret(keys.client_secret).map(ClientAuth::Basic),
            ClientAuthKind::Post => secret(keys.client_secret).map(ClientAuth::Post),
            ClientAuthKind::PrivateKeyJwt => {
                let right = "write { key: REFERENCE }";
                needed(&reader, "client_assertion", right, keys.client_assertion)
                    .map(ClientAuth::PrivateKeyJwt)
            }
            ClientAuthKind::Tls => Some(ClientAuth::Tls),
        };
        if let Some(Grant::JwtBearer(assertion)) = &grant
            && client_id.is_none()
            && !assertion.has_claim("iss")
        {
            reader.problem(
                "nothing says who issues the assertion",
                "write assertion.claims.iss, or client_id",
            );
        }
        for key in ["audience", "resource"] {
            if keys.params.iter().any(|(name, _)| name == key)
                && let Some(written) = reader.take(key)
            {
                written.problem("stands in params as well", "keep one of them");
            }
        }
        Some(Self {
            audience: keys.audience,
            client_auth: client_auth?,
            client_id,
            grant: grant?,
            params: keys.params,
            resource: keys.resource,
            scopes: keys.scopes,
            token_url: keys.token_url,
        })
    }
}

/// Files a problem for each key that is written and not read.
fn check_unread(reader: &SectionReader<'_>, grant: GrantKind, client_auth: ClientAuthKind) {
    let of_grant = |key: &str| match key {
        "assertion" => Some(GrantKind::JwtBearer),
        "refresh_token" => Some(GrantKind::RefreshToken),
        "subject_token"
        | "subject_token_type"
        | "actor_token"
        | "actor_token_type"
        | "requested_token_type" => Some(GrantKind::TokenExchange),
        _ => None,
    };
    for key in reader.written() {
        let Some(written) = reader.take(key) else { continue };
        if let Some(wanted) = of_grant(key).filter(|wanted| *wanted != grant) {
            written.problem(
                format_args!(
                    "belongs to grant: {}, and this one is {}",
                    wanted.word(),
                    grant.word()
                ),
                format_args!("remove it, or write grant: {}", wanted.word()),
            );
        }
        if let Some(token) = key
            .strip_suffix("_type")
            .filter(|_| key != "requested_token_type")
            && reader.take(token).is_none()
        {
            written.problem(
                format_args!("there is no {token} that it could be the type of"),
                format_args!("write {token}: REFERENCE, or remove it"),
            );
        }
        let (is_read, wanted) = match key {
            "client_secret" => (
                matches!(client_auth, ClientAuthKind::Basic | ClientAuthKind::Post),
                "basic or post",
            ),
            "client_assertion" => (client_auth == ClientAuthKind::PrivateKeyJwt, "private_key_jwt"),
            _ => continue,
        };
        if !is_read {
            written.problem(
                format_args!("is not read where client_auth is {}", client_auth.word()),
                format_args!("remove it, or write client_auth: {wanted}"),
            );
        }
    }
}

/// Returns a value that this grant or client needs, or files a problem.
fn needed<T>(reader: &SectionReader<'_>, name: &str, right: &str, value: Option<T>) -> Option<T> {
    if value.is_none() {
        missing(reader, name, right);
    }
    value
}

fn missing(reader: &SectionReader<'_>, name: &str, right: &str) {
    reader.problem(&format!("`{name}` is missing"), right);
}

impl Syntax for TokenUrl {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write an address, as in https://login.example.com/token";
        let text = written.text(right)?;
        let uri = Uri::try_from(text).ok();
        let target = uri.as_ref().and_then(|uri| Target::of_absolute(uri).ok());
        let (Some(uri), Some(target)) = (uri, target) else {
            // Not shown: it may be a reference with a mistake in it, or a password.
            written.problem("not the address of a token endpoint", right);
            return None;
        };
        let has_user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        if has_user || text.contains('#') {
            written.problem(
                "has a user name or a fragment, which no token endpoint has",
                right,
            );
            return None;
        }
        Some(Self {
            text: text.to_owned(),
            target,
            path_and_query: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// A scope (RFC 6749, section 3.3).
struct Scopes;

impl Syntax for Scopes {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text("write a scope, as in read")?;
        let is_sound = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.is_empty() || !text.bytes().all(is_sound) {
            written.problem(
                format_args!("`{}` is not a scope", shown(text)),
                "write each on its own, as in [read, write], without blanks and quotes in it",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

/// An absolute URI without a fragment (RFC 8707, section 2).
struct Resource;

impl Syntax for Resource {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = OneLine::read(written.clone())?;
        let is_absolute = text.split_once(':').is_some_and(|(scheme, rest)| {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
            is_scheme && !rest.is_empty()
        });
        if !is_absolute || text.contains('#') {
            written.problem(
                format_args!("`{}` is not an absolute URI", shown(&text)),
                "write one, as in https://api.example.com, without a fragment",
            );
            return None;
        }
        Some(text)
    }
}

/// One value or a list of them.
struct OneOrList<S>(std::marker::PhantomData<S>);

impl<S: Syntax> Syntax for OneOrList<S> {
    type Value = Vec<S::Value>;

    const KIND: ValueKind = ValueKind::Any(&[S::KIND, ValueKind::List(&S::KIND)]);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        if written.is_list() {
            return ListOf::<S>::read(written);
        }
        S::read(written).map(|one| vec![one])
    }
}

/// Parameters by their names.
struct Params;

impl Syntax for Params {
    type Value = Vec<(String, Text)>;

    const KIND: ValueKind = ValueKind::Named("", &ValueKind::Value);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let mut params = Vec::new();
        for (entry, written) in written.named()? {
            let name = entry.key.as_str();
            if let Some((_, key)) = OWN.iter().find(|(own, _)| *own == name) {
                written.problem(
                    format_args!("`{name}` is a parameter that outrider sets itself"),
                    format_args!("write {key}"),
                );
            } else if name.is_empty() {
                written.problem("not the name of a parameter", "write one, as in audience");
            }
            params.extend(OneLineOrReference::read(written).map(|value| (name.to_owned(), value)));
        }
        Some(params)
    }
}
