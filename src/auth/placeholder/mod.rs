//! What the app has in its environment in the place of the secrets that destinations use.
//!
//! A placeholder is random, so that nothing can be found out from it, and is worth nothing by itself. Where the app
//! sends one to a destination that uses the secret, `proxy` puts the secret in its place; on its way anywhere else
//! the request is refused. [`PlaceholderSet`] holds all placeholders of this process, [`RoutePlaceholders`] what each
//! of them means to one destination.
//!
//! [`environment`] changes the variables of the app; [`shared`] is the file in which `outrider run` and `outrider env`
//! agree on the placeholders.

use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::rand;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use zeroize::Zeroizing;

use super::matcher::{MOST_LAYERS, SecretMatcher};
use crate::config::{
    Auth, ClientCertificate, Config, DestinationKeys, HeaderText, ParentChoice, ParentKeys,
    PlaceholderCharacters, PlaceholderShape, Placeholders, SecretRef, Text, Tls,
};
use crate::secret::{Secret, Snapshot};

pub(crate) mod environment;
pub(crate) mod shared;
#[cfg(test)]
mod tests;

/// Of the random part, where no length is written: 130 bits.
const RANDOM: usize = 26;

/// Every placeholder begins so, after its prefix, if there is room.
const MARK: &str = "outrider";

/// Variables that the app always gets from us, whatever they held before.
const OVERWRITTEN: [&str; 4] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"];

/// The most of a name that stands in a placeholder.
const LONGEST_NAME: usize = 64;

/// One placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    pub(crate) reference: SecretRef,
    pub(crate) text: String,
}

/// All placeholders of this process. None is the same as another one.
#[derive(Debug, Default)]
pub(crate) struct PlaceholderSet {
    all: Vec<Placeholder>,
    matcher: SecretMatcher,
    /// For names of hosts and fields, where upper and lower case are one.
    folded: SecretMatcher,
}

/// The system has no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system has no random bytes for placeholders; look into its log")]
pub(crate) struct NoRandom;

/// What a destination does with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SecretRole {
    /// It signs, opens a file, or fetches a token elsewhere.
    Stays,
    /// A public name: it is sent, and may be shown.
    Name,
    /// It is sent, but not with each request.
    Sent,
    /// It is sent with requests as it is.
    Shown,
}

/// What a placeholder means to one destination.
#[derive(Debug)]
pub(crate) enum PlaceholderUse {
    /// The destination does not use the secret.
    Foreign,
    /// The destination uses it and never sends it.
    NeverSent,
    Replaced(Secret),
}

/// What each placeholder means to one destination.
#[derive(Debug)]
pub(crate) struct RoutePlaceholders {
    pub(crate) set: Arc<PlaceholderSet>,
    /// Whether bodies of answers are searched for the secrets unless the configuration says no.
    pub(crate) is_shown: bool,
    /// Finds the secrets in answers.
    matcher: Arc<SecretMatcher>,
    /// In the order of the set.
    uses: Vec<PlaceholderUse>,
}

/// A placeholder in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundPlaceholder {
    pub(crate) number: usize,
    pub(crate) place: Range<usize>,
}

impl PlaceholderSet {
    /// Makes a placeholder for every secret that a destination uses and this environment has. `known` returns those
    /// that an app has already.
    pub(crate) fn of(
        config: &Config,
        snapshot: &Snapshot,
        known: impl Fn(&SecretRef) -> Option<String>,
    ) -> Result<Self, NoRandom> {
        let named = |reference: SecretRef| {
            let shape = config.placeholders.shape(&reference);
            let text = match known(&reference).filter(|text| fits(text, &shape)) {
                Some(text) => text,
                None => make(&reference, &shape)?,
            };
            Ok(Placeholder { reference, text })
        };
        held(config, snapshot)
            .map(named)
            .collect::<Result<_, _>>()
            .map(Self::new)
    }

    /// Takes these placeholders.
    pub(crate) fn new(all: Vec<Placeholder>) -> Self {
        let (mut matcher, mut folded) = (SecretMatcher::default(), SecretMatcher::default());
        for placeholder in &all {
            matcher.add(placeholder.text.as_bytes());
            folded.add(placeholder.text.to_ascii_lowercase().as_bytes());
        }
        Self { all, matcher, folded }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn all(&self) -> &[Placeholder] {
        &self.all
    }

    /// Returns these, and those of `before` with another text: an app may have either.
    pub(crate) fn joined_with(self, before: &Self) -> Self {
        let is_other = |own: &&Placeholder| self.all.iter().all(|one| one.text != own.text);
        let others: Vec<_> = before.all.iter().filter(is_other).cloned().collect();
        Self::new(self.all.into_iter().chain(others).collect())
    }

    /// Returns the references of `config` that would have a placeholder and have none.
    pub(crate) fn missing(&self, config: &Config, snapshot: &Snapshot) -> Vec<SecretRef> {
        let is_new = |reference: &SecretRef| self.all.iter().all(|own| own.reference != *reference);
        held(config, snapshot).filter(is_new).collect()
    }

    /// Finds placeholders in a text, the longest of several that begin at one place, in order and without overlap.
    /// `is_encoded`: also under the escapes of URLs, JSON and markup, several layers of them.
    ///
    /// Also returns how many bytes at the end may be the beginning of a placeholder that continues in the next text: 0
    /// if `is_last`.
    pub(crate) fn find(
        &self,
        text: &[u8],
        is_last: bool,
        is_encoded: bool,
    ) -> (Vec<FoundPlaceholder>, usize) {
        let layers = if is_encoded { MOST_LAYERS } else { 1 };
        let mut found = Vec::new();
        let held = self
            .matcher
            .search_layers(layers, text, is_last, |number, place| {
                found.push(FoundPlaceholder { number, place });
            });
        (in_order(found), held)
    }

    /// Returns a placeholder in a text in which upper and lower case are one.
    pub(crate) fn find_folded(&self, text: &[u8]) -> Option<usize> {
        // Most names are shorter, and are not copied.
        let mut texts = self.all.iter().map(|own| own.text.len());
        if texts.all(|length| text.len() < length) {
            return None;
        }
        let mut first = None;
        let text = text.to_ascii_lowercase();
        self.folded.search_layers(MOST_LAYERS, &text, true, |number, _| {
            first = first.or(Some(number));
        });
        first
    }
}

/// Sorts, and keeps of several that overlap the first one, and of these the longest.
fn in_order(mut found: Vec<FoundPlaceholder>) -> Vec<FoundPlaceholder> {
    found.sort_by_key(|one| (one.place.start, std::cmp::Reverse(one.place.end)));
    let mut end = 0;
    found.retain(|one| {
        let is_next = one.place.start >= end;
        if is_next {
            end = one.place.end;
        }
        is_next
    });
    found
}

impl RoutePlaceholders {
    /// Reads the secrets that `destination` uses.
    pub(crate) fn of(set: &Arc<PlaceholderSet>, destination: &DestinationKeys, snapshot: &Snapshot) -> Self {
        let roles = roles(destination);
        let mut matcher = SecretMatcher::default();
        let mut is_shown = false;
        let uses = set.all().iter().map(|placeholder| {
            let of_this = roles
                .iter()
                .filter(|(reference, _)| **reference == placeholder.reference);
            let Some(role) = of_this.map(|(_, role)| *role).max() else {
                return PlaceholderUse::Foreign;
            };
            // One that cannot be read keeps the destination from having credentials at all.
            let secret = snapshot.read_password(&placeholder.reference).ok();
            let Some(secret) = secret.filter(|_| role != SecretRole::Stays) else {
                return PlaceholderUse::NeverSent;
            };
            if role > SecretRole::Name {
                matcher.add(secret.expose());
                add_base64(secret.expose(), &mut matcher);
            }
            is_shown |= role == SecretRole::Shown;
            PlaceholderUse::Replaced(secret)
        });
        let uses = uses.collect();
        Self {
            set: Arc::clone(set),
            is_shown,
            matcher: Arc::new(matcher),
            uses,
        }
    }

    pub(crate) fn use_of(&self, number: usize) -> &PlaceholderUse {
        self.uses.get(number).unwrap_or(&PlaceholderUse::Foreign)
    }

    /// Returns what finds the secrets in answers: also in those to requests without a placeholder, because a service
    /// may keep what it got. `None`: no secret is looked for.
    pub(crate) fn matcher(&self) -> Option<&Arc<SecretMatcher>> {
        Some(&self.matcher).filter(|matcher| !matcher.is_empty())
    }
}

/// Adds a secret as it is within base64, wherever it begins there: a service may echo `Basic` credentials that the app has
/// put together. Characters that depend on the bytes around it are left out.
fn add_base64(secret: &[u8], matcher: &mut SecretMatcher) {
    for before in 0..3 {
        let padded = Zeroizing::new([&b"xxx"[..before], secret].concat());
        let range = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            let text = Zeroizing::new(encoding.encode(&padded));
            matcher.add(&text.as_bytes()[range.clone()]);
        }
    }
}

/// Returns the references whose secrets a destination uses.
pub(crate) fn used(destination: &DestinationKeys) -> Vec<&SecretRef> {
    roles(destination)
        .into_iter()
        .map(|(reference, _)| reference)
        .collect()
}

/// Returns the references whose secrets a destination, a local port or a parent uses.
pub(crate) fn used_anywhere(config: &Config) -> impl Iterator<Item = &SecretRef> {
    let of_destinations = config
        .destinations
        .iter()
        .flat_map(|destination| used(destination));
    let of_ports = config.tcp.iter().flat_map(|entry| kept_parts(entry.tls.as_ref()));
    let of_parents = config.egress.parent.iter().flat_map(of_parent);
    of_destinations.chain(of_ports).chain(of_parents)
}

/// Returns the secrets for a parent. The variables that name our own address to the app are left out.
fn of_parent(parent: &ParentKeys) -> impl Iterator<Item = &SecretRef> {
    let url = match &parent.url {
        Text::Reference(SecretRef::Env(name)) if OVERWRITTEN.contains(&name.as_str()) => None,
        Text::Reference(reference) => Some(reference),
        Text::Plain(_) => None,
    };
    url.into_iter()
        .chain(&parent.password)
        .chain(kept_parts(Some(&parent.tls)))
}

/// Returns the references whose secrets get a placeholder, each once.
pub(crate) fn replaced(config: &Config) -> Vec<SecretRef> {
    let mut all: Vec<SecretRef> = Vec::new();
    for reference in used_anywhere(config) {
        let is_of_environment = matches!(reference, SecretRef::Env(_) | SecretRef::Vcap { .. });
        if is_of_environment && !config.placeholders.keep.contains(reference) && !all.contains(reference) {
            all.push(reference.clone());
        }
    }
    all
}

/// Returns those of them that this environment has a secret for. One that is set to nothing holds none.
fn held(config: &Config, snapshot: &Snapshot) -> impl Iterator<Item = SecretRef> {
    let all = replaced(config).into_iter();
    all.filter(|reference| snapshot.read(reference).is_ok())
}

/// Returns the references of a destination to what is secret, with what the destination does with it. Certificates of
/// authorities and lists of revoked ones are public.
fn roles(destination: &DestinationKeys) -> Vec<(&SecretRef, SecretRole)> {
    let mut all = Vec::new();
    for credential in destination.auth.iter().flat_map(|rule| &rule.credentials) {
        let is_token_host = match &credential.auth {
            Auth::OAuth2(oauth2) => {
                (destination.hosts.iter()).any(|own| own.covers(&oauth2.token_url.target))
            }
            _ => true,
        };
        let role = |key| match role(key) {
            // It goes to the token endpoint, which is another host: this one must not see it.
            SecretRole::Sent if !is_token_host => SecretRole::Stays,
            role => role,
        };
        let references = credential.auth.references().into_iter();
        all.extend(references.map(|(key, reference)| (reference, role(key))));
    }
    for (_, value) in &destination.headers.set {
        if let HeaderText::Reference(reference) = value {
            all.push((reference, SecretRole::Shown));
        }
    }
    let parents = match &destination.parent {
        ParentChoice::Inherit | ParentChoice::None => &[][..],
        ParentChoice::Own(parents) => parents,
    };
    let kept = kept_parts(destination.tls.as_deref()).chain(parents.iter().flat_map(of_parent));
    all.extend(kept.map(|reference| (reference, SecretRole::Stays)));
    all
}

/// Returns what a client certificate is made of.
fn kept_parts(tls: Option<&Tls>) -> impl Iterator<Item = &SecretRef> {
    let parts = match tls.and_then(|tls| tls.client_certificate.as_ref()) {
        None | Some(ClientCertificate::InstanceIdentity) => [None, None, None],
        Some(ClientCertificate::Pem {
            cert,
            key,
            passphrase,
        }) => [Some(cert), Some(key), passphrase.as_ref()],
        Some(ClientCertificate::Pkcs12 { file, password }) => [Some(file), password.as_ref(), None],
    };
    parts.into_iter().flatten()
}

/// Returns what is done with the secret of this key of a credential.
fn role(key: &str) -> SecretRole {
    match key {
        "basic.password" | "bearer" | "header.value" | "query.value" => SecretRole::Shown,
        "aws_sigv4.session_token"
        | "oauth2.actor_token"
        | "oauth2.client_secret"
        | "oauth2.params"
        | "oauth2.refresh_token"
        | "oauth2.subject_token" => SecretRole::Sent,
        "aws_sigv4.access_key_id" | "basic.username" | "oauth2.client_id" => SecretRole::Name,
        key if key.ends_with(".key_id") => SecretRole::Name,
        _ => SecretRole::Stays,
    }
}

/// Makes a placeholder, random by itself.
fn make(reference: &SecretRef, shape: &PlaceholderShape) -> Result<String, NoRandom> {
    let mut text = shape.prefix.clone();
    let alphabet = alphabet(shape.characters);
    let Some(length) = shape.length else {
        if shape.characters == PlaceholderCharacters::Alphanumeric {
            text.push_str(MARK);
            text.push('-');
            text.push_str(&name(reference));
            text.push('-');
        }
        return filled(text, RANDOM, alphabet);
    };
    let room = length.saturating_sub(text.len());
    if shape.characters == PlaceholderCharacters::Alphanumeric && room >= MARK.len() + RANDOM {
        text.push_str(MARK);
    }
    let missing = length.saturating_sub(text.len());
    filled(text, missing, alphabet)
}

/// Whether a placeholder looks as it is written now.
fn fits(text: &str, shape: &PlaceholderShape) -> bool {
    let Some(rest) = text.strip_prefix(&*shape.prefix) else {
        return false;
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let has_length = match shape.length {
        Some(length) => {
            text.len() == length
                && rest
                    .bytes()
                    .all(|byte| alphabet(shape.characters).contains(&byte))
        }
        None => rest.len() >= RANDOM,
    };
    has_length && text.bytes().all(is_plain)
}

fn alphabet(characters: PlaceholderCharacters) -> &'static [u8] {
    match characters {
        PlaceholderCharacters::Alphanumeric => b"abcdefghijklmnopqrstuvwxyz0123456789",
        PlaceholderCharacters::Digits => b"0123456789",
        PlaceholderCharacters::Hex => b"0123456789abcdef",
        PlaceholderCharacters::Upper => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
    }
}

/// Returns the name of a secret, as it stands in a placeholder.
fn name(reference: &SecretRef) -> String {
    let name = match reference {
        SecretRef::Env(name) => name.clone(),
        SecretRef::File(_) => String::new(),
        SecretRef::Vcap { service, keys } => format!("{service}_{}", keys.join("_")),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().take(LONGEST_NAME).map(plain).collect()
}

/// Adds `count` random characters, each as likely as the others.
fn filled(mut text: String, count: usize, alphabet: &[u8]) -> Result<String, NoRandom> {
    let most = 256 / alphabet.len() * alphabet.len();
    let mut missing = count;
    while missing > 0 {
        let mut bytes = [0; 64];
        rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        for byte in bytes
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < most)
            .take(missing)
        {
            text.push(char::from(alphabet[byte % alphabet.len()]));
            missing -= 1;
        }
    }
    Ok(text)
}

/// Whether placeholders are on, for a proxy that is not the parent of the app.
pub(crate) fn are_shared(placeholders: &Placeholders, is_on_platform: bool) -> bool {
    use crate::config::PlaceholderMode::{Always, Auto, Never};
    match placeholders.mode {
        Always => true,
        Auto => is_on_platform,
        Never => false,
    }
}
