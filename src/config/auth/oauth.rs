//! From the tree to [`OAuth2`]: tokens that are asked for.
//!
//! Keys are called as the parameters and claims of the standards are: RFC 6749, 7519, 7521, 8693 and 8707. A key that
//! the grant or the client's authentication does not read is a problem: it would be taken for one that counts.

use http::Uri;

use super::jwt::{self, Jwt};
use crate::config::keys;
use crate::config::node::shown;
use crate::config::reader::{Field, REFERENCE, Reader};
use crate::config::{SecretRef, Text};
use crate::host::Target;

/// How a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OAuth2 {
    pub(crate) audience: Vec<String>,
    pub(crate) client_auth: ClientAuth,
    /// `None`: the grant alone says who asks.
    pub(crate) client_id: Option<Text>,
    pub(crate) grant: Grant,
    /// Further parameters of the token request.
    pub(crate) params: Vec<(String, Text)>,
    /// RFC 8707.
    pub(crate) resource: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) token_url: TokenUrl,
}

/// Where tokens are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenUrl {
    /// As written: servers compare it with the audience of an assertion.
    pub(crate) text: String,
    pub(crate) target: Target,
    pub(crate) path_and_query: String,
}

/// What a token is given for.
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

/// A token that another one is given for, and what kind it is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExchangedToken {
    pub(crate) token: SecretRef,
    pub(crate) token_type: String,
}

/// How the client shows who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientAuth {
    /// A public client, or none.
    None,
    Basic(SecretRef),
    Post(SecretRef),
    /// RFC 7523, section 2.2.
    PrivateKeyJwt(Jwt),
    /// By the client certificate of the connection (RFC 8705).
    Tls,
}

impl OAuth2 {
    /// As the configuration calls it.
    pub(crate) fn grant(&self) -> &'static str {
        word(
            &GRANTS,
            match &self.grant {
                Grant::ClientCredentials => Kind::ClientCredentials,
                Grant::JwtBearer(_) => Kind::JwtBearer,
                Grant::RefreshToken(_) => Kind::RefreshToken,
                Grant::TokenExchange { .. } => Kind::TokenExchange,
            },
        )
    }

    /// As the configuration calls it.
    pub(crate) fn client_auth(&self) -> &'static str {
        word(
            &METHODS,
            match &self.client_auth {
                ClientAuth::None => Method::None,
                ClientAuth::Basic(_) => Method::Basic,
                ClientAuth::Post(_) => Method::Post,
                ClientAuth::PrivateKeyJwt(_) => Method::PrivateKeyJwt,
                ClientAuth::Tls => Method::Tls,
            },
        )
    }

    /// Every secret that it names, with its key.
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

/// What `client_auth` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    None,
    Basic,
    Post,
    PrivateKeyJwt,
    Tls,
}

/// What `grant` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClientCredentials,
    JwtBearer,
    RefreshToken,
    TokenExchange,
}

/// The value of `oauth2`.
pub(super) fn oauth2(field: Field<'_>) -> Option<OAuth2> {
    let reader = field.reader(keys::OAUTH2)?;
    let kind = (reader.take("grant")).map_or(Some(Kind::ClientCredentials), |field| field.choice(&GRANTS));
    let client_id = reader.take("client_id").map(|field| text(&field));
    let client_secret = reader.take("client_secret").map(Field::secret);
    let client_assertion = reader.take("client_assertion").map(jwt::jwt);
    let assertion = reader.take("assertion").map(jwt::jwt);
    let method = match reader.take("client_auth") {
        Some(field) => field.choice(&METHODS),
        None if client_secret.is_some() => Some(Method::Basic),
        None if client_assertion.is_some() => Some(Method::PrivateKeyJwt),
        None => Some(Method::None),
    };
    let refresh_token = reader.take("refresh_token").map(Field::secret);
    let subject = exchanged(&reader, "subject_token", "subject_token_type");
    let actor = exchanged(&reader, "actor_token", "actor_token_type");
    let requested_token_type = reader.take("requested_token_type").map(|field| plain(&field));
    let audience = list(reader.take("audience"));
    let resource = resources(reader.take("resource"));
    let scopes = scopes(reader.take("scopes"));
    let params = params(&reader);
    let token_url = (reader.need("token_url", "write token_url: https://login.example.com/token"))
        .and_then(|field| token_url(&field));

    // Below, only where everything above can be believed.
    let (kind, method) = (kind?, method?);
    unread(&reader, kind, method);
    let grant = match kind {
        Kind::ClientCredentials if method == Method::None => {
            reader.problem(
                "client_credentials needs a client that shows who it is",
                "write client_secret: REFERENCE, or client_auth: private_key_jwt or tls",
            );
            None
        }
        Kind::ClientCredentials => Some(Grant::ClientCredentials),
        Kind::JwtBearer => (needed(
            &reader,
            "assertion",
            "write { key: REFERENCE, claims: { … } }",
            assertion,
        ))
        .map(Grant::JwtBearer),
        Kind::RefreshToken => {
            needed(&reader, "refresh_token", REFERENCE, refresh_token).map(Grant::RefreshToken)
        }
        Kind::TokenExchange => {
            (needed(&reader, "subject_token", REFERENCE, subject)).map(|subject| Grant::TokenExchange {
                actor: actor.flatten(),
                requested_token_type: requested_token_type.flatten(),
                subject,
            })
        }
    };
    let client_auth = match method {
        Method::None => Some(ClientAuth::None),
        Method::Basic => needed(&reader, "client_secret", REFERENCE, client_secret).map(ClientAuth::Basic),
        Method::Post => needed(&reader, "client_secret", REFERENCE, client_secret).map(ClientAuth::Post),
        Method::PrivateKeyJwt => {
            let right = "write { key: REFERENCE }";
            needed(&reader, "client_assertion", right, client_assertion).map(ClientAuth::PrivateKeyJwt)
        }
        Method::Tls => Some(ClientAuth::Tls),
    };
    let client_id = match (client_id, method) {
        (None, Method::None) => None,
        (id, _) => Some(needed(&reader, "client_id", "write a name or a reference", id)?),
    };
    let grant = grant?;
    if let Grant::JwtBearer(assertion) = &grant
        && client_id.is_none()
        && !assertion.has_claim("iss")
    {
        reader.problem(
            "nothing says who issues the assertion",
            "write assertion.claims.iss, or client_id",
        );
    }
    Some(OAuth2 {
        audience,
        client_auth: client_auth?,
        client_id,
        grant,
        params,
        resource,
        scopes,
        token_url: token_url?,
    })
}

/// Files a problem for each key that is written and not read.
fn unread(reader: &Reader<'_>, kind: Kind, method: Method) {
    let of_grant = |key: &str| match key {
        "assertion" => Some(Kind::JwtBearer),
        "refresh_token" => Some(Kind::RefreshToken),
        "subject_token"
        | "subject_token_type"
        | "actor_token"
        | "actor_token_type"
        | "requested_token_type" => Some(Kind::TokenExchange),
        _ => None,
    };
    for key in reader.written() {
        let Some(field) = reader.take(key) else { continue };
        if let Some(wanted) = of_grant(key).filter(|wanted| *wanted != kind) {
            field.problem(
                format_args!(
                    "belongs to grant: {}, and this one is {}",
                    word(&GRANTS, wanted),
                    word(&GRANTS, kind)
                ),
                format_args!("remove it, or write grant: {}", word(&GRANTS, wanted)),
            );
        }
        let (fits, wanted) = match key {
            "client_secret" => (matches!(method, Method::Basic | Method::Post), "basic or post"),
            "client_assertion" => (method == Method::PrivateKeyJwt, "private_key_jwt"),
            _ => continue,
        };
        if !fits {
            field.problem(
                format_args!("is not read where client_auth is {}", word(&METHODS, method)),
                format_args!("remove it, or write client_auth: {wanted}"),
            );
        }
    }
}

/// A value that has to be written, given what became of it where it is.
fn needed<T>(reader: &Reader<'_>, name: &str, right: &str, written: Option<Option<T>>) -> Option<T> {
    if written.is_none() {
        reader.problem(&format!("`{name}` is missing"), right);
    }
    written.flatten()
}

/// A token and its type, which is that of an access token where it is not written.
fn exchanged(reader: &Reader<'_>, token: &str, kind: &str) -> Option<Option<ExchangedToken>> {
    let written = reader.take(kind);
    let token_type = written.clone().map(|field| plain(&field));
    let Some(token) = reader.take(token).map(Field::secret) else {
        if let Some(field) = written {
            field.problem(
                format_args!("there is no {token} that it could be the type of"),
                format_args!("write {token}: REFERENCE, or remove it"),
            );
        }
        return None;
    };
    let token_type = token_type.unwrap_or_else(|| Some(ACCESS_TOKEN.to_owned()));
    Some(
        token
            .zip(token_type)
            .map(|(token, token_type)| ExchangedToken { token, token_type }),
    )
}

fn token_url(field: &Field<'_>) -> Option<TokenUrl> {
    let right = "write an address, as in https://login.example.com/token";
    let text = field.text(right)?;
    let uri = Uri::try_from(text).ok();
    let target = uri.as_ref().and_then(|uri| Target::of_absolute(uri).ok());
    let (Some(uri), Some(target)) = (uri, target) else {
        // Not shown: a reference that went wrong, or a password, may stand there.
        field.problem("not the address of a token endpoint", right);
        return None;
    };
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
        || text.contains('#')
    {
        field.problem(
            "has a user name or a fragment, which no token endpoint has",
            right,
        );
        return None;
    }
    Some(TokenUrl {
        text: text.to_owned(),
        target,
        path_and_query: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    })
}

fn scopes(field: Option<Field<'_>>) -> Vec<String> {
    let items = field.and_then(Field::list).unwrap_or_default();
    let scope = |field: &Field<'_>| {
        let text = field.text("write a scope, as in read")?;
        // RFC 6749, section 3.3.
        let sound = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.is_empty() || !text.bytes().all(sound) {
            field.problem(
                format_args!("`{}` is not a scope", shown(text)),
                "write each on its own, as in [read, write], without blanks and quotes in it",
            );
            return None;
        }
        Some(text.to_owned())
    };
    items.iter().filter_map(scope).collect()
}

/// RFC 8707, section 2: absolute, without a fragment.
fn resources(field: Option<Field<'_>>) -> Vec<String> {
    let items = match field {
        Some(field) if field.is_list() => field.list().unwrap_or_default(),
        field => field.into_iter().collect(),
    };
    let resource = |field: &Field<'_>| {
        let text = plain(field)?;
        let is_absolute = text.split_once(':').is_some_and(|(scheme, rest)| {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
            is_scheme && !rest.is_empty()
        });
        if !is_absolute || text.contains('#') {
            field.problem(
                format_args!("`{}` is not an absolute URI", shown(&text)),
                "write one, as in https://api.example.com, without a fragment",
            );
            return None;
        }
        Some(text)
    };
    items.iter().filter_map(resource).collect()
}

/// One text or several.
fn list(field: Option<Field<'_>>) -> Vec<String> {
    let items = match field {
        Some(field) if field.is_list() => field.list().unwrap_or_default(),
        field => field.into_iter().collect(),
    };
    items.iter().filter_map(plain).collect()
}

fn params(reader: &Reader<'_>) -> Vec<(String, Text)> {
    let named = reader.take("params").map(Field::named).unwrap_or_default();
    let mut params = Vec::with_capacity(named.len());
    for (entry, field) in named {
        let name = entry.key.as_str();
        if let Some(key) = OWN.iter().find_map(|(own, key)| (*own == name).then_some(*key)) {
            field.problem(
                format_args!("`{name}` is a parameter that outrider sets itself"),
                format_args!("write {key}"),
            );
        } else if name.is_empty() {
            field.problem("not the name of a parameter", "write one, as in audience");
        }
        params.extend(text(&field).map(|value| (name.to_owned(), value)));
    }
    for key in ["audience", "resource"] {
        if params.iter().any(|(name, _)| name == key)
            && let Some(field) = reader.take(key)
        {
            field.problem("stands in params as well", "keep one of them");
        }
    }
    params
}

/// A plain text or a reference.
pub(super) fn text(field: &Field<'_>) -> Option<Text> {
    let text = field.text("write a plain value or a reference")?;
    match SecretRef::parse(text, field.decoding.environment) {
        Some(Ok(reference)) => Some(Text::Reference(reference)),
        Some(Err(error)) => {
            field.problem(&error, error.right());
            None
        }
        None => plain(field).map(Text::Plain),
    }
}

pub(super) fn plain(field: &Field<'_>) -> Option<String> {
    let text = field.text("write a text")?;
    if text.is_empty() || text.contains(char::is_control) {
        field.problem(
            "empty, or with a control character in it",
            "write a text on one line",
        );
        return None;
    }
    Some(text.to_owned())
}

fn word<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> &'static str {
    choices
        .iter()
        .find_map(|(word, own)| (*own == value).then_some(*word))
        .unwrap_or_default()
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

const GRANTS: [(&str, Kind); 4] = [
    ("client_credentials", Kind::ClientCredentials),
    ("refresh_token", Kind::RefreshToken),
    ("jwt_bearer", Kind::JwtBearer),
    ("token_exchange", Kind::TokenExchange),
];

const METHODS: [(&str, Method); 5] = [
    ("basic", Method::Basic),
    ("post", Method::Post),
    ("private_key_jwt", Method::PrivateKeyJwt),
    ("tls", Method::Tls),
    ("none", Method::None),
];

/// Parameters of a token request that have a key of their own.
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

const ASSERTION_KEYS: jwt::Names = jwt::Names {
    certificate: "oauth2.assertion.certificate",
    claims: "oauth2.assertion.claims",
    key: "oauth2.assertion.key",
    key_id: "oauth2.assertion.key_id",
};
const CLIENT_ASSERTION_KEYS: jwt::Names = jwt::Names {
    certificate: "oauth2.client_assertion.certificate",
    claims: "oauth2.client_assertion.claims",
    key: "oauth2.client_assertion.key",
    key_id: "oauth2.client_assertion.key_id",
};
