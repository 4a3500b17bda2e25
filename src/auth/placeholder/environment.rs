//! The environment of the app, without the secrets that destinations use.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use percent_encoding::percent_decode_str;
use serde_json::Value;
use zeroize::Zeroizing;

use super::PlaceholderSet;
use crate::auth::matcher::{MOST_LAYERS, SecretMatcher};
use crate::config::{Placeholders, SecretRef};
use crate::secret::{Secret, Snapshot};

const SERVICES: &str = "VCAP_SERVICES";

/// A variable that the app gets changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangedVariable {
    pub(crate) name: OsString,
    /// `None`: the app does not get it.
    pub(crate) value: Option<OsString>,
    /// It is named by no reference, and holds a secret all the same.
    pub(crate) is_copy: bool,
}

/// Returns what an app must see of the variables: placeholders where a secret is, in whatever variable it is.
///
/// A secret that is shorter than eight bytes is not looked for in other variables, because it would be found in
/// ordinary words.
pub(crate) fn changes(
    set: &PlaceholderSet,
    placeholders: &Placeholders,
    snapshot: &Snapshot,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<ChangedVariable> {
    let secrets = Secrets::read(set, snapshot);
    let mut changed = Vec::new();
    for (name, value) in variables {
        let reference = name.to_str().map(|name| SecretRef::Env(name.to_owned()));
        if (reference.as_ref()).is_some_and(|reference| placeholders.keep.contains(reference)) {
            continue;
        }
        let is_removed = (reference.as_ref()).is_some_and(|own| placeholders.remove.contains(own));
        let own = set
            .all()
            .iter()
            .find(|own| Some(&own.reference) == reference.as_ref());
        let after = match own {
            Some(_) if is_removed => None,
            Some(own) => Some(OsString::from(&own.text)),
            None => Some(secrets.replaced(&name, &value)),
        };
        if after.as_ref() != Some(&value) {
            changed.push(ChangedVariable {
                is_copy: own.is_none() && name != SERVICES,
                name,
                value: after,
            });
        }
    }
    changed
}

/// The secrets of the placeholders, as they are now.
struct Secrets<'s> {
    set: &'s PlaceholderSet,
    matcher: SecretMatcher,
    /// For each secret of the matcher, the number of its placeholder.
    numbers: Vec<usize>,
    /// With the number of the placeholder. Those of bound services only.
    of_services: Vec<(usize, Secret)>,
}

impl<'s> Secrets<'s> {
    fn read(set: &'s PlaceholderSet, snapshot: &Snapshot) -> Self {
        let mut secrets = Self {
            set,
            matcher: SecretMatcher::default(),
            numbers: Vec::new(),
            of_services: Vec::new(),
        };
        let mut seen: Vec<Secret> = Vec::new();
        for (number, placeholder) in set.all().iter().enumerate() {
            let Ok(secret) = snapshot.read_password(&placeholder.reference) else {
                continue;
            };
            // Its placeholder, where an environment that was changed before is changed again.
            if secret.expose() == placeholder.text.as_bytes() {
                continue;
            }
            let is_known = seen.iter().any(|other| other.expose() == secret.expose());
            if !is_known {
                secrets.add(number, secret.expose());
                // Bound services often have the parts of a URL beside it.
                if let Some(password) = password_of_url(secret.expose()) {
                    secrets.add(number, &password);
                }
            }
            if matches!(placeholder.reference, SecretRef::Vcap { .. }) {
                secrets.of_services.push((number, secret));
            } else {
                seen.push(secret);
            }
        }
        secrets
    }

    /// Looks for a secret, also as it stands in JSON: a private key has line ends.
    fn add(&mut self, number: usize, secret: &[u8]) {
        if self.matcher.add(secret) {
            self.numbers.push(number);
        }
        let text = str::from_utf8(secret)
            .ok()
            .filter(|text| text.contains(char::is_control));
        let Some(text) = text
            .and_then(|text| serde_json::to_string(text).ok())
            .map(Zeroizing::new)
        else {
            return;
        };
        if self.matcher.add(&text.as_bytes()[1..text.len() - 1]) {
            self.numbers.push(number);
        }
    }

    /// Returns the value with placeholders for the secrets in it.
    fn replaced(&self, name: &OsStr, value: &OsStr) -> OsString {
        let mut text = Zeroizing::new(value.as_bytes().to_vec());
        if name == SERVICES
            && let Some(services) = self.services(&text)
        {
            text = services;
        }
        let mut found = Vec::new();
        self.matcher
            .search_layers(MOST_LAYERS, &text, true, |number, place| {
                found.push((number, place))
            });
        found.sort_by_key(|(_, place)| (place.start, std::cmp::Reverse(place.end)));
        let (mut after, mut from) = (Vec::with_capacity(text.len()), 0);
        for (number, place) in found {
            // One within another, or a second one over the end of the first, which leaves with it.
            let start = place.start.max(from);
            if start >= place.end {
                continue;
            }
            after.extend_from_slice(&text[from..start]);
            if place.start >= from {
                let placeholder = &self.set.all()[self.numbers[number]];
                after.extend_from_slice(placeholder.text.as_bytes());
            }
            from = place.end;
        }
        after.extend_from_slice(&text[from..]);
        OsString::from_vec(after)
    }

    /// Returns the bound services with placeholders for the values that references name, however short they are.
    /// `None`: nothing is to be changed, or it is not JSON.
    fn services(&self, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let short = |(_, secret): &&(usize, Secret)| !SecretMatcher::finds(secret.expose());
        let short: Vec<_> = self.of_services.iter().filter(short).collect();
        if short.is_empty() {
            return None;
        }
        let mut document: Value = serde_json::from_slice(text).ok()?;
        for (number, secret) in short {
            let placeholder = &self.set.all()[*number];
            let SecretRef::Vcap { keys, .. } = &placeholder.reference else {
                continue;
            };
            let entries = document
                .as_object_mut()?
                .values_mut()
                .filter_map(Value::as_array_mut)
                .flatten();
            for entry in entries {
                let Some(value) = entry.get_mut("credentials").and_then(|value| below(value, keys)) else {
                    continue;
                };
                // By its value, too: another service may have the same key.
                if value
                    .as_str()
                    .is_some_and(|value| value.as_bytes() == secret.expose())
                {
                    *value = Value::String(placeholder.text.clone());
                }
            }
        }
        serde_json::to_vec(&document).ok().map(Zeroizing::new)
    }
}

/// Returns the password in a URL, such as that of a parent.
fn password_of_url(secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = str::from_utf8(secret).ok()?.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (userinfo, _) = authority.rsplit_once('@')?;
    let (_, password) = userinfo.split_once(':')?;
    Some(Zeroizing::new(percent_decode_str(password).collect()))
}

/// Follows `keys` as a reference does.
fn below<'v>(value: &'v mut Value, keys: &[String]) -> Option<&'v mut Value> {
    keys.iter().try_fold(value, |value, key| match value {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        Value::Object(entries) => entries.get_mut(key),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => None,
    })
}
