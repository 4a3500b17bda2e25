//! Fields that are the same on every request: made ready once, applied to each.
//!
//! [`Attachment::build`] reads the secrets and does all formatting; [`Attachment::apply`] only clones what is ready.
//! Values are marked sensitive, so that neither `Debug` nor the HTTP/2 header table shows or keeps them. Whether a
//! request may carry them at all (a clear wire, CONNECT, TRACE) is decided before, in `policy` and `proxy`.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::Error;
use super::hidden;
use super::needles::Needles;
use super::query::Parameter;
use crate::config::{Auth, HeaderText, Headers, SecretRef, Text};
use crate::fields::FieldNames;
use crate::secret::{Secret, Sources};

#[cfg(test)]
mod tests;

/// What is put on, or struck from, requests with one credential. Values are marked sensitive.
#[derive(Debug)]
pub(crate) struct Attachment {
    names: Arc<FieldNames>,
    needles: Arc<Needles>,
    parameter: Option<Parameter>,
    /// Each name once.
    set: Vec<(HeaderName, HeaderValue)>,
}

impl Attachment {
    /// Reads the secrets of `headers`, and of `auth` where it is of a kind that is the same on every request, and builds
    /// the field values. Where both set a field, the credential stands.
    pub(crate) fn build(auth: Option<&Auth>, headers: &Headers, sources: &Sources) -> Result<Self, Error> {
        Self::build_with([], auth, headers, sources)
    }

    /// The same for a credential that sets `more` fields by itself.
    pub(super) fn build_with(
        more: impl IntoIterator<Item = HeaderName>,
        auth: Option<&Auth>,
        headers: &Headers,
        sources: &Sources,
    ) -> Result<Self, Error> {
        let mut names = FieldNames::new(&headers.remove);
        let mut needles = Needles::default();
        let mut attachment = Self {
            names: Arc::default(),
            needles: Arc::default(),
            parameter: None,
            set: Vec::new(),
        };
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
        let own = attachment.set.iter().map(|(name, _)| name.clone());
        own.chain(more).for_each(|name| names.add(name));
        attachment.names = Arc::new(names);
        Ok(attachment)
    }

    /// What an echo of a request with this on it would show.
    pub(crate) fn needles(&self) -> &Arc<Needles> {
        &self.needles
    }

    /// The fields of a request that are decided here, and not by the app.
    pub(crate) fn names(&self) -> &Arc<FieldNames> {
        &self.names
    }

    /// Whether it is decided here, and not by the app, what stands in this piece of a query.
    pub(crate) fn decides_parameter(&self, part: &str) -> bool {
        (self.parameter.as_ref()).is_some_and(|parameter| parameter.is_named_by(part))
    }

    /// Strikes what is to be removed and sets what is to be attached; the app's own values of an attached
    /// field (all spellings, all duplicates) or query parameter are replaced.
    ///
    /// To be called after hop-by-hop fields are struck, and never for CONNECT or TRACE: the one has no place for a
    /// credential, the other sends it back. After an error the request must not be sent. Afterwards the URI may hold a
    /// secret: it must not be logged.
    pub(crate) fn apply(&self, head: &mut Parts) -> Result<(), Error> {
        self.names.remove_from(&mut head.headers);
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

/// RFC 7617. The password may be any UTF-8 text without control characters, since it leaves as base64; some services take
/// a key as the user name, and want it empty.
fn basic(username: &Text, password: &SecretRef, sources: &Sources) -> Result<HeaderValue, Error> {
    let username = match username {
        Text::Plain(username) => Secret::new(Zeroizing::new(username.clone().into_bytes())),
        Text::Reference(reference) => sources.read(reference)?,
    };
    if let Some((_, what)) = unfit(username.expose(), |byte| byte == b':' || byte.is_ascii_control()) {
        return Err(Error::NotUserName { what });
    }
    let secret = sources.read_password(password)?;
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

const BEARER: &str = "a bearer token (which stands without the word Bearer)";
