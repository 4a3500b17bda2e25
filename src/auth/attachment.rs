//! Fields that are the same on every request: made ready once, applied to each.
//!
//! [`Attachment::build`] reads the secrets and does all formatting; [`Attachment::apply`] only clones what is ready.
//! Values are marked sensitive, so that neither `Debug` nor the HTTP/2 header table shows or keeps them. Whether a
//! request may carry them at all (a clear wire, CONNECT, TRACE) is decided before, in `policy` and `proxy`.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::Error;
use super::hidden;
use super::needles::Needles;
use super::query::Parameter;
use crate::config::{Auth, HeaderText, Headers, SecretRef, Text};
use crate::secret::{Secret, Sources};

#[cfg(test)]
mod tests;

/// What is put on, or struck from, requests with one credential. Values are marked sensitive.
#[derive(Debug)]
pub(crate) struct Attachment {
    needles: Arc<Needles>,
    parameter: Option<Parameter>,
    remove: Vec<Removal>,
    /// Each name once.
    set: Vec<(HeaderName, HeaderValue)>,
}

/// A field, or all fields whose names begin alike.
#[derive(Debug)]
enum Removal {
    Name(HeaderName),
    /// In lower case, without the `*`.
    Prefix(Box<str>),
}

impl Attachment {
    /// Reads the secrets of `headers`, and of `auth` where it is of a kind that is the same on every request, and builds
    /// the field values. Where both set a field, the credential stands.
    pub(crate) fn build(auth: Option<&Auth>, headers: &Headers, sources: &Sources) -> Result<Self, Error> {
        let mut needles = Needles::default();
        let mut attachment = Self {
            needles: Arc::default(),
            parameter: None,
            remove: Vec::new(),
            set: Vec::new(),
        };
        attachment.remove = headers
            .remove
            .iter()
            .filter_map(|name| Removal::parse(name))
            .collect();
        for (name, value) in &headers.set {
            let value = match value {
                HeaderText::Plain(value) => value.clone(),
                HeaderText::Reference(reference) => field(b"", reference, sources, "an HTTP field")?,
            };
            attachment.put(name.clone(), value);
        }
        match auth {
            // Those come to this, and are another on each request.
            None
            | Some(
                Auth::AwsSigV4(_) | Auth::Hmac(_) | Auth::HttpSignature(_) | Auth::Jwt(_) | Auth::OAuth2(_),
            ) => {}
            Some(Auth::Basic { username, password }) => {
                attachment.put(AUTHORIZATION, basic(username, password, sources)?);
            }
            Some(Auth::Bearer(reference)) => {
                attachment.put(AUTHORIZATION, field(b"Bearer ", reference, sources, BEARER)?);
            }
            Some(Auth::Header { name, value }) => {
                attachment.put(name.clone(), field(b"", value, sources, "an HTTP field")?);
            }
            Some(Auth::Query { name, value }) => {
                let secret = sources.read(value)?;
                check(secret.expose(), value, "a URL")?;
                needles.add(secret.expose());
                attachment.parameter = Some(Parameter::new(name, &secret));
            }
        }
        for (_, value) in attachment.set.iter().filter(|(_, value)| value.is_sensitive()) {
            needles.add_field(value.as_bytes());
        }
        attachment.needles = Arc::new(needles);
        Ok(attachment)
    }

    /// What an echo of a request with this on it would show.
    pub(crate) fn needles(&self) -> &Arc<Needles> {
        &self.needles
    }

    /// The fields that `apply` sets: the app's `Connection` field must not get a say in them.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.set.iter().map(|(name, _)| name)
    }

    /// Whether it is decided here, and not by the app, what stands in this field of a request.
    pub(crate) fn decides(&self, name: &HeaderName) -> bool {
        self.fields().any(|own| own == name) || self.remove.iter().any(|removal| removal.means(name))
    }

    /// Strikes what is to be removed and sets what is to be attached; the app's own values of an attached
    /// field (all spellings, all duplicates) or query parameter are replaced.
    ///
    /// To be called after hop-by-hop fields are struck, and never for CONNECT or TRACE: the one has no place for a
    /// credential, the other sends it back. After an error the request must not be sent. Afterwards the URI may hold a
    /// secret: it must not be logged.
    pub(crate) fn apply(&self, head: &mut Parts) -> Result<(), Error> {
        for removal in &self.remove {
            removal.apply(&mut head.headers);
        }
        self.strike_underscored(&mut head.headers);
        for (name, value) in &self.set {
            head.headers
                .try_insert(name.clone(), value.clone())
                .map_err(|_| Error::NoRoom)?;
        }
        if let Some(parameter) = &self.parameter {
            head.uri = parameter
                .apply(std::mem::take(&mut head.uri))
                .ok_or(Error::NoRoom)?;
        }
        Ok(())
    }

    fn put(&mut self, name: HeaderName, value: HeaderValue) {
        self.set.retain(|(other, _)| *other != name);
        self.set.push((name, value));
    }

    /// Strikes `X_Api_Key` where `X-Api-Key` is attached: behind CGI and WSGI both are `HTTP_X_API_KEY`, and the app's
    /// might win.
    fn strike_underscored(&self, headers: &mut HeaderMap) {
        let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
        let alike = |name: &HeaderName, ours: &HeaderName| {
            let (name, ours) = (name.as_str(), ours.as_str());
            // Lengths settle nearly every pair.
            name.len() == ours.len() && name != ours && name.bytes().map(fold).eq(ours.bytes().map(fold))
        };
        let struck = |name: &&HeaderName| self.fields().any(|ours| alike(name, ours));
        // Hardly ever there, so it is looked for without a list.
        if headers.keys().find(struck).is_none() {
            return;
        }
        let struck: Vec<_> = headers.keys().filter(struck).cloned().collect();
        for name in struck {
            headers.remove(name);
        }
    }
}

impl Removal {
    /// `None` for what no field can be named, which nothing needs to remove.
    fn parse(written: &str) -> Option<Self> {
        match written.strip_suffix('*') {
            Some(prefix) => Some(Self::Prefix(prefix.to_ascii_lowercase().into())),
            None => HeaderName::from_bytes(written.as_bytes()).ok().map(Self::Name),
        }
    }

    fn means(&self, name: &HeaderName) -> bool {
        let is_meant = match self {
            Self::Name(own) => own == name,
            Self::Prefix(prefix) => name.as_str().starts_with(&**prefix),
        };
        is_meant && !FRAMING.contains(name)
    }

    fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Name(name) if FRAMING.contains(name) => {}
            Self::Name(name) => {
                headers.remove(name);
            }
            Self::Prefix(_) => {
                let struck: Vec<_> = headers.keys().filter(|name| self.means(name)).cloned().collect();
                for name in struck {
                    headers.remove(name);
                }
            }
        }
    }
}

/// `prefix` and the secret, as a field value.
fn field(
    prefix: &[u8],
    reference: &SecretRef,
    sources: &Sources,
    place: &'static str,
) -> Result<HeaderValue, Error> {
    let secret = sources.read(reference)?;
    check(secret.expose(), reference, place)?;
    let mut text = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.expose().len()));
    text.extend_from_slice(prefix);
    text.extend_from_slice(secret.expose());
    sensitive(text, reference)
}

/// RFC 7617. The password may be any UTF-8 text without control characters, since it leaves as base64.
fn basic(username: &Text, password: &SecretRef, sources: &Sources) -> Result<HeaderValue, Error> {
    let username = match username {
        Text::Plain(username) => Secret::new(Zeroizing::new(username.clone().into_bytes())),
        Text::Reference(reference) => sources.read(reference)?,
    };
    if let Some((_, what)) = unfit(username.expose(), |byte| byte == b':' || byte.is_ascii_control()) {
        return Err(Error::NotUserName { what });
    }
    let secret = sources.read(password)?;
    if let Some((position, what)) = unfit(secret.expose(), |byte| byte.is_ascii_control()) {
        let place = "a password";
        return Err(Error::NotFieldText {
            reference: password.clone(),
            place,
            position,
            what,
        });
    }

    let mut pair = Zeroizing::new(Vec::with_capacity(
        username.expose().len() + 1 + secret.expose().len(),
    ));
    pair.extend_from_slice(username.expose());
    pair.push(b':');
    pair.extend_from_slice(secret.expose());
    let mut text = Zeroizing::new(String::with_capacity(6 + pair.len().div_ceil(3) * 4));
    text.push_str("Basic ");
    data_encoding::BASE64.encode_append(&pair, &mut text);
    let text = Zeroizing::new(std::mem::take(&mut *text).into_bytes());
    sensitive(text, password)
}

fn sensitive(text: Zeroizing<Vec<u8>>, reference: &SecretRef) -> Result<HeaderValue, Error> {
    // Every caller has checked the bytes; should one not have, it is an error, not a panic.
    hidden(text).ok_or_else(|| Error::NotFieldText {
        reference: reference.clone(),
        place: "an HTTP field",
        position: 0,
        what: "not visible",
    })
}

/// Refuses all that is not visible ASCII: it would be a second header field, or something else to each server.
fn check(bytes: &[u8], reference: &SecretRef, place: &'static str) -> Result<(), Error> {
    let wrong = |byte: u8| !matches!(byte, 0x20..=0x7e) || (place == BEARER && byte == b' ');
    match unfit(bytes, wrong) {
        None => Ok(()),
        Some((position, what)) => Err(Error::NotFieldText {
            reference: reference.clone(),
            place,
            position,
            what,
        }),
    }
}

/// The first byte that is `wrong`, counted from 1, and what it is.
fn unfit(bytes: &[u8], wrong: impl Fn(u8) -> bool) -> Option<(usize, &'static str)> {
    let position = bytes.iter().position(|byte| wrong(*byte))?;
    let what = match bytes[position] {
        b'\n' | b'\r' => "a line end",
        0 => "NUL",
        b' ' => "a blank",
        b':' => "a colon",
        0x80.. => "not ASCII",
        _ => "a control character",
    };
    Some((position + 1, what))
}

/// These frame the message or say where it goes; a removal that happens to match does not mean them.
const FRAMING: [HeaderName; 3] = [CONTENT_LENGTH, HOST, TRANSFER_ENCODING];

const BEARER: &str = "a bearer token (which stands without the word Bearer)";
