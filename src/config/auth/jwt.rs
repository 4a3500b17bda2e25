//! From the tree to [`Jwt`]: tokens that are signed here.

use std::time::Duration;

use serde_json::Value as Json;

use super::oauth;
use crate::config::keys;
use crate::config::reader::{Field, REFERENCE};
use crate::config::{Algorithm, SecretRef, Text};

/// A token that is signed here (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Jwt {
    pub(crate) algorithm: Algorithm,
    pub(crate) claims: Vec<(String, Claim)>,
    pub(crate) key: SecretRef,
    pub(crate) key_id: Option<Text>,
    pub(crate) lifetime: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    Plain(Json),
    Reference(SecretRef),
}

impl Jwt {
    /// Every secret that it names, with its key.
    pub(crate) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        self.named(&JWT_KEYS)
    }

    pub(super) fn named(&self, names: &[&'static str; 3]) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![(names[0], &self.key)];
        if let Some(Text::Reference(id)) = &self.key_id {
            all.push((names[1], id));
        }
        for (_, claim) in &self.claims {
            if let Claim::Reference(reference) = claim {
                all.push((names[2], reference));
            }
        }
        all
    }

    pub(crate) fn has_claim(&self, name: &str) -> bool {
        self.claims.iter().any(|(own, _)| own == name)
    }
}

/// The value of `jwt`, and of the assertions.
pub(super) fn jwt(field: Field<'_>) -> Option<Jwt> {
    let reader = field.reader(keys::JWT)?;
    let key = reader.need("key", REFERENCE).and_then(Field::secret);
    let algorithm =
        (reader.take("algorithm")).map_or(Some(Algorithm::RsaPkcs1Sha256), |field| field.choice(&ALGORITHMS));
    let key_id = reader.take("key_id").map(|field| oauth::text(&field));
    let lifetime = reader.take("lifetime").map_or(Some(LIFETIME), lifetime);
    let named = reader.take("claims").map(Field::named).unwrap_or_default();
    let claims = named
        .iter()
        .filter_map(|(entry, field)| Some((entry.key.clone(), claim(&entry.key, field)?)));
    let claims = claims.collect();
    Some(Jwt {
        algorithm: algorithm?,
        claims,
        key: key?,
        key_id: key_id.map_or(Some(None), |id| id.map(Some))?,
        lifetime: lifetime?,
    })
}

/// A claim of a token: a text, number or boolean, a list of these, or a reference.
fn claim(name: &str, field: &Field<'_>) -> Option<Claim> {
    let right = "write a text, a number, true or false, a list of these, or a reference";
    if TIMES.contains(&name) {
        field.problem(
            format_args!("`{name}` differs from token to token"),
            "remove it; outrider sets what is needed, and lifetime says how long a token is valid",
        );
        return None;
    }
    if field.is_list() {
        let items = field.clone().list().unwrap_or_default();
        let items = items.iter().map(|item| scalar(item, right)).collect::<Vec<_>>();
        return items
            .into_iter()
            .collect::<Option<_>>()
            .map(|items| Claim::Plain(Json::Array(items)));
    }
    let reference = field
        .scalar()
        .and_then(|text| SecretRef::parse(text, field.decoding.environment));
    match reference {
        Some(Ok(reference)) => Some(Claim::Reference(reference)),
        Some(Err(error)) => {
            field.problem(&error, error.right());
            None
        }
        None => scalar(field, right).map(Claim::Plain),
    }
}

/// What is not quoted may be a number or a boolean, as YAML has it.
fn scalar(field: &Field<'_>, right: &str) -> Option<Json> {
    let text = field.text(right)?;
    let other = match field.plain() {
        Some("true") => Some(Json::Bool(true)),
        Some("false") => Some(Json::Bool(false)),
        Some(plain) => plain.parse::<i64>().ok().map(Json::from),
        None => None,
    };
    Some(other.unwrap_or_else(|| Json::from(text)))
}

/// A token that is over before it arrives is of no use, and one that lives for days is a password.
fn lifetime(field: Field<'_>) -> Option<Duration> {
    let lifetime = field.clone().duration()?;
    if !(SHORTEST..=LONGEST).contains(&lifetime) {
        field.problem(
            "out of range",
            "write a time from 30s to 1d; most services take at most 5m or 1h",
        );
        return None;
    }
    Some(lifetime)
}

const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("RS256", Algorithm::RsaPkcs1Sha256),
    ("PS256", Algorithm::RsaPssSha256),
    ("ES256", Algorithm::EcdsaP256Sha256),
    ("ES384", Algorithm::EcdsaP384Sha384),
    ("EdDSA", Algorithm::Ed25519),
];

const JWT_KEYS: [&str; 3] = ["jwt.key", "jwt.key_id", "jwt.claims"];
const TIMES: &[&str] = &["exp", "iat", "jti"];

const LIFETIME: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(86_400);
