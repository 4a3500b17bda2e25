//! Builds the token request for each grant and each way to authenticate the client (RFC 6749, 7521, 7523, 8693,
//! 8705, 8707).

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Method, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::Error;
use crate::auth::jwt::{self, JwtSigner};
use crate::config::{ClientAuth, Grant, OAuth2, Text};
use crate::message::{Request, RequestHead};
use crate::secret::{Secret, Snapshot};

/// All characters except the unreserved ones of RFC 3986, section 2.3. These are read alike by servers that decode
/// forms and by servers that should and do not.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The initial capacity of the body. A text that grows leaves copies behind.
const ROOM: usize = 8 * 1024;

/// The constant part of a token request.
pub(super) struct TokenRequestPlan {
    assertion: Option<JwtSigner>,
    /// Only for client_secret_basic.
    authorization: Option<Basic>,
    client_assertion: Option<JwtSigner>,
    /// The constant part of the body.
    form: Zeroizing<String>,
    pub(super) is_exchange: bool,
    /// The refresh token of the configuration. The server may have issued another one since.
    refresh_token: Option<Secret>,
    /// Secrets that are sent to the server and that it might repeat.
    secrets: Vec<Secret>,
    uri: Uri,
}

/// How client id and secret are encoded in Authorization. RFC 6749, section 2.3.1 wants both form-encoded; many
/// servers read them without this encoding, as in RFC 7617.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BasicEncoding {
    #[default]
    Encoded,
    Plain,
}

impl BasicEncoding {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Encoded => Self::Plain,
            Self::Plain => Self::Encoded,
        }
    }
}

/// The values of Authorization, marked sensitive.
struct Basic {
    encoded: HeaderValue,
    /// Only if it differs from the form-encoded one.
    plain: Option<HeaderValue>,
}

impl TokenRequestPlan {
    /// Reads the secrets and builds the constant part.
    pub(super) fn build(settings: &OAuth2, snapshot: &Snapshot) -> Result<Self, Error> {
        let mut plan = Self {
            assertion: None,
            authorization: None,
            client_assertion: None,
            form: Zeroizing::new(String::with_capacity(ROOM)),
            is_exchange: false,
            refresh_token: None,
            secrets: Vec::new(),
            uri: settings
                .token_url
                .path_and_query
                .parse()
                .map_err(|_| Error::Url(settings.token_url.path_and_query.clone()))?,
        };
        let id = settings
            .client_id
            .as_ref()
            .map(|id| text(id, snapshot))
            .transpose()?;
        let id = id.as_ref().map(|id| id.as_str());
        let url = settings.token_url.text.as_str();
        let defaults: Vec<_> = [("iss", id), ("sub", id), ("aud", Some(url))]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        plan.grant(settings, &defaults, snapshot)?;
        plan.client(settings, id.unwrap_or_default(), &defaults, snapshot)?;
        if !settings.scopes.is_empty() {
            plan.add("scope", settings.scopes.join(" ").as_bytes());
        }
        for audience in &settings.audience {
            plan.add("audience", audience.as_bytes());
        }
        for resource in &settings.resource {
            plan.add("resource", resource.as_bytes());
        }
        for (name, value) in &settings.params {
            let secret = read(value, snapshot)?;
            plan.add(name, secret.expose());
            if let Text::Reference(_) = value {
                plan.secrets.push(secret);
            }
        }
        Ok(plan)
    }

    fn grant(
        &mut self,
        settings: &OAuth2,
        defaults: &[(&str, &str)],
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        match &settings.grant {
            Grant::ClientCredentials => self.add("grant_type", b"client_credentials"),
            Grant::JwtBearer(assertion) => {
                self.add("grant_type", b"urn:ietf:params:oauth:grant-type:jwt-bearer");
                self.assertion = Some(JwtSigner::build(assertion, defaults, snapshot)?);
            }
            Grant::RefreshToken(token) => {
                self.add("grant_type", b"refresh_token");
                self.refresh_token = Some(snapshot.read(token)?);
            }
            Grant::TokenExchange {
                actor,
                requested_token_type,
                subject,
            } => {
                self.is_exchange = true;
                self.add("grant_type", b"urn:ietf:params:oauth:grant-type:token-exchange");
                let exchanged = [("subject_token", Some(subject)), ("actor_token", actor.as_ref())];
                for (name, exchanged) in exchanged {
                    let Some(exchanged) = exchanged else { continue };
                    let token = snapshot.read(&exchanged.token)?;
                    self.add(name, token.expose());
                    self.add(&format!("{name}_type"), exchanged.token_type.as_bytes());
                    self.secrets.push(token);
                }
                if let Some(wanted) = requested_token_type {
                    self.add("requested_token_type", wanted.as_bytes());
                }
            }
        }
        Ok(())
    }

    fn client(
        &mut self,
        settings: &OAuth2,
        id: &str,
        defaults: &[(&str, &str)],
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        match &settings.client_auth {
            ClientAuth::Basic(secret) => {
                let secret = snapshot.read_password(secret)?;
                self.basic(id, secret);
                // A client_id in the body would be a second way to authenticate.
                return Ok(());
            }
            ClientAuth::Post(secret) => {
                let secret = snapshot.read_password(secret)?;
                self.add("client_secret", secret.expose());
                self.secrets.push(secret);
            }
            ClientAuth::PrivateKeyJwt(assertion) => {
                self.client_assertion = Some(JwtSigner::build(assertion, defaults, snapshot)?);
                self.add(
                    "client_assertion_type",
                    b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                );
            }
            ClientAuth::None | ClientAuth::Tls => {}
        }
        if !id.is_empty() {
            self.add("client_id", id.as_bytes());
        }
        Ok(())
    }

    /// Sets Authorization in both encodings. The server might repeat the secret in either.
    fn basic(&mut self, id: &str, secret: Secret) {
        let mut encoded = Zeroizing::new(String::with_capacity(3 * secret.expose().len()));
        encoded.extend(percent_encode(secret.expose(), FORM));
        let encoded_id = percent_encode(id.as_bytes(), FORM).to_string();
        let is_other = encoded_id != id || encoded.as_bytes() != secret.expose();
        self.authorization = basic(&encoded_id, encoded.as_bytes(), &mut self.secrets).map(|value| Basic {
            encoded: value,
            plain: is_other
                .then(|| basic(id, secret.expose(), &mut self.secrets))
                .flatten(),
        });
        self.secrets
            .push(Secret::new(Zeroizing::new(encoded.as_bytes().to_vec())));
        self.secrets.push(secret);
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        append(&mut self.form, name, value);
    }

    /// Builds the next request. `refresh_token`: the one that the server issued last.
    pub(super) fn request(
        &self,
        refresh_token: Option<&Zeroizing<String>>,
        form: BasicEncoding,
        now: SystemTime,
    ) -> Result<(Box<RequestHead>, Bytes), jwt::Error> {
        let assertion = self
            .assertion
            .as_ref()
            .map(|signer| signer.single_use_token(now))
            .transpose()?;
        let client = self
            .client_assertion
            .as_ref()
            .map(|signer| signer.single_use_token(now))
            .transpose()?;
        let refresh = refresh_token.map(|token| token.as_bytes());
        let refresh = refresh.or_else(|| self.refresh_token.as_ref().map(Secret::expose));
        let fresh = [
            ("assertion", assertion.as_ref().map(|text| text.as_bytes())),
            ("client_assertion", client.as_ref().map(|text| text.as_bytes())),
            ("refresh_token", refresh.filter(|_| self.refresh_token.is_some())),
        ];
        // Allocated at once: a text that grows leaves copies behind.
        let values = fresh
            .iter()
            .map(|(name, value)| name.len() + 2 + 3 * value.map_or(0, <[u8]>::len));
        let mut body = Zeroizing::new(String::with_capacity(self.form.len() + values.sum::<usize>()));
        body.push_str(&self.form);
        for (name, value) in fresh {
            if let Some(value) = value {
                append(&mut body, name, value);
            }
        }
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::POST;
        head.uri = self.uri.clone();
        for (name, value) in [
            (header::ACCEPT, "application/json"),
            (header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
            (
                header::USER_AGENT,
                concat!("outrider/", env!("CARGO_PKG_VERSION")),
            ),
        ] {
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(Basic { encoded, plain }) = &self.authorization {
            let value = match (form, plain) {
                (BasicEncoding::Plain, Some(plain)) => plain,
                (BasicEncoding::Plain, None) | (BasicEncoding::Encoded, _) => encoded,
            };
            head.headers.insert(header::AUTHORIZATION, value.clone());
        }
        Ok((head, Bytes::from_owner(Wiped(body))))
    }

    /// Returns whether the two encodings of the client differ.
    pub(super) fn has_other_form(&self) -> bool {
        self.authorization
            .as_ref()
            .is_some_and(|basic| basic.plain.is_some())
    }

    /// Returns whether a request may be sent twice. A refresh token may be valid only once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.refresh_token.is_none()
    }

    /// Returns the secrets that the server might repeat.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        self.secrets.iter().chain(&self.refresh_token).map(Secret::expose)
    }
}

impl fmt::Debug for TokenRequestPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequestPlan")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// A body that is wiped when its last owner drops it.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn read(written: &Text, snapshot: &Snapshot) -> Result<Secret, Error> {
    Ok(match written {
        Text::Plain(text) => Secret::new(Zeroizing::new(text.clone().into_bytes())),
        Text::Reference(reference) => snapshot.read(reference)?,
    })
}

/// Reads a text for the claims of an assertion.
fn text(written: &Text, snapshot: &Snapshot) -> Result<Zeroizing<String>, Error> {
    Ok(match written {
        Text::Plain(text) => Zeroizing::new(text.clone()),
        Text::Reference(reference) => jwt::text(&snapshot.read(reference)?, reference)?,
    })
}

/// Builds the value of Authorization, and adds its encoded part to `secrets`.
fn basic(id: &str, secret: &[u8], secrets: &mut Vec<Secret>) -> Option<HeaderValue> {
    let mut pair = Zeroizing::new(Vec::with_capacity(id.len() + 1 + secret.len()));
    pair.extend_from_slice(id.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(secret);
    let mut text = Zeroizing::new(String::with_capacity(6 + pair.len().div_ceil(3) * 4));
    text.push_str("Basic ");
    BASE64.encode_append(&pair, &mut text);
    // Base64 is always a valid field value.
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    let encoded = text["Basic ".len()..].as_bytes().to_vec();
    secrets.push(Secret::new(Zeroizing::new(encoded)));
    Some(value)
}

fn append(form: &mut String, name: &str, value: &[u8]) {
    if !form.is_empty() {
        form.push('&');
    }
    form.extend(percent_encode(name.as_bytes(), FORM));
    form.push('=');
    form.extend(percent_encode(value, FORM));
}

#[cfg(test)]
mod tests;
