//! Fields and query parameters that are the same on every request: built once, applied to each.
//!
//! [`Attachment::build`] reads the secrets and formats the values. [`Attachment::apply`] only clones them. Values
//! are marked sensitive, so that `Debug` does not show them and HPACK does not keep them.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::Error;
use super::hidden;
use super::matcher::SecretMatcher;
use super::query::Parameter;
use crate::config::{Auth, HeaderText, Headers, SecretRef, Text};
use crate::fields::FieldNames;
use crate::message::RequestHead;
use crate::secret::{Secret, Snapshot};

#[cfg(test)]
mod tests;

const BEARER: &str = "a bearer token (which is written without the word Bearer)";

/// The constant fields of one credential, and the names of all fields that it sets or removes.
#[derive(Debug)]
pub(crate) struct Attachment {
    names: Arc<FieldNames>,
    matcher: Arc<SecretMatcher>,
    parameter: Option<Parameter>,
    /// Each name occurs once.
    set: Vec<(HeaderName, HeaderValue)>,
}

impl Attachment {
    /// Reads the secrets and builds the field values of `headers` and `auth`. If both set a field, `auth` wins.
    /// Kinds of `auth` that differ from request to request add nothing here.
    pub(crate) fn build(auth: Option<&Auth>, headers: &Headers, snapshot: &Snapshot) -> Result<Self, Error> {
        Self::build_with([], auth, headers, snapshot)
    }

    /// Does the same for a credential that sets `more` fields for each request.
    pub(super) fn build_with(
        more: impl IntoIterator<Item = HeaderName>,
        auth: Option<&Auth>,
        headers: &Headers,
        snapshot: &Snapshot,
    ) -> Result<Self, Error> {
        let mut names = FieldNames::new(&headers.remove);
        let mut matcher = SecretMatcher::default();
        let mut attachment = Self {
            names: Arc::default(),
            matcher: Arc::default(),
            parameter: None,
            set: Vec::new(),
        };
        for (name, value) in &headers.set {
            let value = match value {
                HeaderText::Plain(value) => value.clone(),
                HeaderText::Reference(reference) => field(b"", reference, snapshot, "an HTTP field")?,
            };
            attachment.put(name.clone(), value);
        }
        match auth {
            // They differ from request to request.
            None
            | Some(
                Auth::AwsSigV4(_) | Auth::Hmac(_) | Auth::HttpSignature(_) | Auth::Jwt(_) | Auth::OAuth2(_),
            ) => {}
            Some(Auth::Basic { username, password }) => {
                attachment.put(AUTHORIZATION, basic(username, password, snapshot)?);
            }
            Some(Auth::Bearer(reference)) => {
                attachment.put(AUTHORIZATION, field(b"Bearer ", reference, snapshot, BEARER)?);
            }
            Some(Auth::Header { name, value }) => {
                attachment.put(name.clone(), field(b"", value, snapshot, "an HTTP field")?);
            }
            Some(Auth::Query { name, value }) => {
                let secret = snapshot.read(value)?;
                check(secret.expose(), value, "a URL")?;
                matcher.add(secret.expose());
                attachment.parameter = Some(Parameter::new(name, &secret));
            }
        }
        for (_, value) in attachment.set.iter().filter(|(_, value)| value.is_sensitive()) {
            matcher.add_field(value.as_bytes());
        }
        attachment.matcher = Arc::new(matcher);
        let own = attachment.set.iter().map(|(name, _)| name.clone());
        own.chain(more).for_each(|name| names.add(name));
        attachment.names = Arc::new(names);
        Ok(attachment)
    }

    /// Finds these values of fields in responses, too.
    pub(super) fn find<'v>(&mut self, values: impl IntoIterator<Item = &'v HeaderValue>) {
        // Nobody else has it yet.
        let Some(matcher) = Arc::get_mut(&mut self.matcher) else {
            return;
        };
        for value in values {
            matcher.add_field(value.as_bytes());
        }
    }

    /// Returns what finds these secrets in a response.
    pub(crate) fn matcher(&self) -> &Arc<SecretMatcher> {
        &self.matcher
    }

    /// Returns the fields that outrider sets or removes, whatever the app sends.
    pub(crate) fn names(&self) -> &Arc<FieldNames> {
        &self.names
    }

    /// Returns whether this part of a query is replaced by the credential.
    pub(crate) fn decides_parameter(&self, part: &str) -> bool {
        self.parameter
            .as_ref()
            .is_some_and(|parameter| parameter.is_named_by(part))
    }

    /// Removes and sets fields. Replaces the app's values of an attached field (all spellings and duplicates) or
    /// query parameter. The rules of [`LiveCredential::apply`](super::LiveCredential::apply) hold here too.
    pub(crate) fn apply(&self, head: &mut RequestHead) -> Result<(), Error> {
        self.names.remove_from(&mut head.headers);
        for (name, value) in &self.set {
            head.headers.insert(name, value.clone());
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

/// Builds a field value of `prefix` and the secret.
fn field(
    prefix: &[u8],
    reference: &SecretRef,
    snapshot: &Snapshot,
    place: &'static str,
) -> Result<HeaderValue, Error> {
    let secret = snapshot.read(reference)?;
    check(secret.expose(), reference, place)?;
    let mut text = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.expose().len()));
    text.extend_from_slice(prefix);
    text.extend_from_slice(secret.expose());
    sensitive(text, reference)
}

/// Builds the value of Basic authentication (RFC 7617). The password may be any UTF-8 text without control
/// characters, because it is sent as base64. It may be empty: some services take a key as the user name.
fn basic(username: &Text, password: &SecretRef, snapshot: &Snapshot) -> Result<HeaderValue, Error> {
    let username = match username {
        Text::Plain(username) => Secret::new(Zeroizing::new(username.clone().into_bytes())),
        Text::Reference(reference) => snapshot.read(reference)?,
    };
    if let Some((_, what)) = unfit(username.expose(), |byte| byte == b':' || byte.is_ascii_control()) {
        return Err(Error::NotUserName { what });
    }
    let secret = snapshot.read_password(password)?;
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
    // Every caller has checked the bytes. If one has not, it is an error, not a panic.
    hidden(text).ok_or_else(|| Error::NotFieldText {
        reference: reference.clone(),
        place: "an HTTP field",
        position: 0,
        what: "not visible",
    })
}

/// Refuses bytes that are not visible ASCII. They could begin a second field, or mean something else to each
/// server.
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

/// Returns the position of the first `wrong` byte, counted from 1, and its name.
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
