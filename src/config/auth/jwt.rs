//! From the tree to [`Jwt`]: tokens that are signed here.

use std::time::Duration;

use serde_json::Value as Json;

use super::oauth;
use crate::config::keys;
use crate::config::node::Entry;
use crate::config::reader::{Field, REFERENCE};
use crate::config::{Algorithm, SecretRef, Text};

/// A token that is signed here (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Jwt {
    pub(crate) algorithm: Algorithm,
    /// Which the header names.
    pub(crate) certificate: Option<SecretRef>,
    pub(crate) claims: Vec<(String, Claim)>,
    /// Whether the header holds the certificate and what issued it.
    pub(crate) has_chain: bool,
    /// Whether each token has an id. `None`: as its use wants it.
    pub(crate) has_id: Option<bool>,
    pub(crate) key: SecretRef,
    pub(crate) key_id: Option<Text>,
    pub(crate) lifetime: Duration,
    pub(crate) typ: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    Plain(Json),
    Reference(SecretRef),
}

/// What the keys of a token are called that name secrets.
pub(super) struct Names {
    pub(super) certificate: &'static str,
    pub(super) claims: &'static str,
    pub(super) key: &'static str,
    pub(super) key_id: &'static str,
}

impl Jwt {
    /// Every secret that it names, with its key.
    pub(crate) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        self.named(&NAMES)
    }

    pub(super) fn named(&self, names: &Names) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![(names.key, &self.key)];
        if let Some(Text::Reference(id)) = &self.key_id {
            all.push((names.key_id, id));
        }
        if let Some(certificate) = &self.certificate {
            all.push((names.certificate, certificate));
        }
        let mut of_claims = Vec::new();
        for (_, claim) in &self.claims {
            claim.references(&mut of_claims);
        }
        all.extend(of_claims.into_iter().map(|reference| (names.claims, reference)));
        all
    }

    pub(crate) fn has_claim(&self, name: &str) -> bool {
        self.claims.iter().any(|(own, _)| own == name)
    }
}

impl Claim {
    fn references<'c>(&'c self, found: &mut Vec<&'c SecretRef>) {
        match self {
            Self::List(items) => items.iter().for_each(|item| item.references(found)),
            Self::Map(entries) => entries.iter().for_each(|(_, value)| value.references(found)),
            Self::Plain(_) => {}
            Self::Reference(reference) => found.push(reference),
        }
    }
}

/// The value of `jwt`, and of the assertions.
pub(super) fn jwt(field: Field<'_>) -> Option<Jwt> {
    let reader = field.reader(keys::JWT)?;
    let key = reader.need("key", REFERENCE).and_then(Field::secret);
    let algorithm =
        (reader.take("algorithm")).map_or(Some(Algorithm::RsaPkcs1Sha256), |field| field.choice(&ALGORITHMS));
    let key_id = reader.take("key_id").map(|field| oauth::text(&field));
    let certificate = reader.take("certificate").map(Field::secret);
    let has_chain = reader.take("x5c").map_or(Some(false), Field::boolean);
    if has_chain == Some(true) && certificate.is_none() {
        reader.problem("x5c without a certificate", "write certificate: REFERENCE");
    }
    let typ = (reader.take("typ")).map_or_else(|| Some("JWT".to_owned()), |field| oauth::plain(&field));
    let has_id = reader.take("jti").map(Field::boolean);
    let lifetime = reader.take("lifetime").map_or(Some(LIFETIME), lifetime);
    let named = reader.take("claims").map(Field::named).unwrap_or_default();
    for (entry, field) in &named {
        if TIMES.contains(&entry.key.as_str()) {
            field.problem(
                format_args!("`{}` differs from token to token", entry.key),
                "remove it; outrider sets what is needed: lifetime says how long a token is valid, and jti: true gives \
                 it an id",
            );
        }
    }
    let claims = claims(&named)?;
    Some(Jwt {
        algorithm: algorithm?,
        certificate: certificate.map_or(Some(None), |certificate| certificate.map(Some))?,
        claims,
        has_chain: has_chain?,
        has_id: has_id.map_or(Some(None), |has| has.map(Some))?,
        key: key?,
        key_id: key_id.map_or(Some(None), |id| id.map(Some))?,
        lifetime: lifetime?,
        typ: typ?,
    })
}

/// Claims, or what a claim that is a mapping holds. Every problem in them is told.
fn claims(named: &[(&Entry, Field<'_>)]) -> Option<Vec<(String, Claim)>> {
    let claims: Vec<_> = (named.iter())
        .map(|(entry, field)| Some((entry.key.clone(), claim(field)?)))
        .collect();
    claims.into_iter().collect()
}

/// A text, number or boolean, a reference, or a list or mapping of these.
fn claim(field: &Field<'_>) -> Option<Claim> {
    if field.is_list() {
        let items = field.clone().list().unwrap_or_default();
        let items: Vec<_> = items.iter().map(claim).collect();
        return items.into_iter().collect::<Option<_>>().map(Claim::List);
    }
    if field.is_mapping() {
        return claims(&field.clone().named()).map(Claim::Map);
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
        None => scalar(field).map(Claim::Plain),
    }
}

/// What is not quoted may be a number or a boolean, as YAML has it.
fn scalar(field: &Field<'_>) -> Option<Json> {
    let right = "write a text, a number, true or false, a reference, or a list or mapping of these";
    let text = field.text(right)?;
    let other = match field.plain() {
        Some("true") => Some(Json::Bool(true)),
        Some("false") => Some(Json::Bool(false)),
        Some(plain) if plain.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            let whole = plain.parse::<i64>().map(Json::from);
            let whole = whole.or_else(|_| plain.parse::<u64>().map(Json::from)).ok();
            // A version, as in 1.2.3, is none; nor is what has no end.
            whole.or_else(|| {
                plain
                    .parse::<f64>()
                    .ok()
                    .filter(|n| n.is_finite())
                    .map(Json::from)
            })
        }
        Some(_) | None => None,
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

const ALGORITHMS: [(&str, Algorithm); 10] = [
    ("RS256", Algorithm::RsaPkcs1Sha256),
    ("RS384", Algorithm::RsaPkcs1Sha384),
    ("RS512", Algorithm::RsaPkcs1Sha512),
    ("PS256", Algorithm::RsaPssSha256),
    ("PS384", Algorithm::RsaPssSha384),
    ("PS512", Algorithm::RsaPssSha512),
    ("ES256", Algorithm::EcdsaP256Sha256),
    ("ES384", Algorithm::EcdsaP384Sha384),
    ("ES512", Algorithm::EcdsaP521Sha512),
    ("EdDSA", Algorithm::Ed25519),
];

const NAMES: Names = Names {
    certificate: "jwt.certificate",
    claims: "jwt.claims",
    key: "jwt.key",
    key_id: "jwt.key_id",
};
const TIMES: &[&str] = &["exp", "iat", "jti"];

const LIFETIME: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(86_400);
