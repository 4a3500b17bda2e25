//! Tokens that are signed here (RFC 7519).

use std::time::Duration;

use serde_json::Value as Json;

use super::text::{OneLine, OneLineOrReference};
use crate::config::declare::{Syntax, ValueKind};
use crate::config::node::MapEntry;
use crate::config::reader::{Located, REFERENCE, SectionReader};
use crate::config::{Algorithm, SecretRef, Text};

/// A token that ends before it arrives is of no use, and one that lives for days is a password.
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(86_400);

/// Claims that differ from token to token.
const TIMES: &[&str] = &["exp", "iat", "jti"];

const NAMES: KeyNames = KeyNames {
    certificate: "jwt.certificate",
    claims: "jwt.claims",
    key: "jwt.key",
    key_id: "jwt.key_id",
};

section! {
    /// A token that is signed here (RFC 7519).
    #[derive(Hash)]
    pub(crate) struct Jwt, check {
        /// A private key in PEM or DER: PKCS#8, PKCS#1 or SEC1.
        key: SecretRef = required REFERENCE;
        /// As RFC 7518 and 8037 call it.
        algorithm: Algorithm as JwtAlgorithm = "RS256";
        /// The kid of the token's header: a plain value or a reference.
        key_id: Option<Text> as OneLineOrReference;
        /// The certificate of the key: PEM, DER or PKCS#7; those of its issuers may follow. Its hashes (x5t, x5t#S256) go into
        /// the token's header.
        certificate: Option<SecretRef>;
        /// true: the certificate itself, and those of its issuers, go into the header as well.
        has_chain("x5c"): bool = "false";
        /// The typ of the header, as in at+jwt.
        typ: String as OneLine = "JWT";
        /// What the token says: plain values, references, lists and mappings of these. iat and exp are added.
        claims: Vec<(String, Claim)> as Claims = "{}";
        /// true: each token has an id, for services that take each token once; default: true in an assertion. With jwt each
        /// request then has a token that is signed for it alone.
        has_id("jti"): Option<bool>;
        /// How long a token is valid, from 30s to 1d.
        lifetime: Duration as TokenLifetime = "5m";
    }
}

words! {
    JwtAlgorithm: Algorithm {
        "RS256" = Algorithm::RsaPkcs1Sha256,
        "RS384" = Algorithm::RsaPkcs1Sha384,
        "RS512" = Algorithm::RsaPkcs1Sha512,
        "PS256" = Algorithm::RsaPssSha256,
        "PS384" = Algorithm::RsaPssSha384,
        "PS512" = Algorithm::RsaPssSha512,
        "ES256" = Algorithm::EcdsaP256Sha256,
        "ES384" = Algorithm::EcdsaP384Sha384,
        "ES512" = Algorithm::EcdsaP521Sha512,
        "EdDSA" = Algorithm::Ed25519,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    Plain(Json),
    Reference(SecretRef),
}

/// The keys of a token that name secrets, with the path of the token before them.
pub(super) struct KeyNames {
    pub(super) certificate: &'static str,
    pub(super) claims: &'static str,
    pub(super) key: &'static str,
    pub(super) key_id: &'static str,
}

impl Jwt {
    fn check(&self, reader: &SectionReader<'_>) {
        if self.has_chain && self.certificate.is_none() {
            reader.problem("x5c without a certificate", "write certificate: REFERENCE");
        }
    }

    /// Returns every reference to a secret, with its key.
    pub(crate) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        self.named(&NAMES)
    }

    /// Returns every reference to a secret, with its key under one of `names`.
    pub(super) fn named(&self, names: &KeyNames) -> Vec<(&'static str, &SecretRef)> {
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

/// The claims of a token, by their names.
struct Claims;

impl Syntax for Claims {
    type Value = Vec<(String, Claim)>;

    const KIND: ValueKind = ValueKind::Named("", &ValueKind::Json);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let named = written.named()?;
        for (entry, written) in &named {
            if TIMES.contains(&entry.key.as_str()) {
                written.problem(
                    format_args!("`{}` differs from token to token", entry.key),
                    "remove it; outrider sets what is needed: lifetime says how long a token is valid, and jti: true gives \
                     it an id",
                );
            }
        }
        claims(&named)
    }
}

/// Reads claims, or the members of a claim that is a mapping. All problems are reported.
fn claims(named: &[(&MapEntry, Located<'_>)]) -> Option<Vec<(String, Claim)>> {
    let claims: Vec<_> = named
        .iter()
        .map(|(entry, written)| Some((entry.key.clone(), claim(written)?)))
        .collect();
    claims.into_iter().collect()
}

/// Reads a text, number or boolean, a reference, or a list or mapping of these.
fn claim(written: &Located<'_>) -> Option<Claim> {
    if written.is_list() {
        let items = written.clone().list().unwrap_or_default();
        let items: Vec<_> = items.iter().map(claim).collect();
        return items.into_iter().collect::<Option<_>>().map(Claim::List);
    }
    if written.is_mapping() {
        return claims(&written.clone().named()?).map(Claim::Map);
    }
    match written.scalar().and_then(|text| written.reference(text)) {
        Some(reference) => reference.map(Claim::Reference),
        None => scalar(written).map(Claim::Plain),
    }
}

/// Reads a scalar: without quotes it may be a number or a boolean, as in YAML.
fn scalar(written: &Located<'_>) -> Option<Json> {
    let right = "write a text, a number, true or false, a reference, or a list or mapping of these";
    let text = written.text(right)?;
    let other = match written.plain() {
        Some("true") => Some(Json::Bool(true)),
        Some("false") => Some(Json::Bool(false)),
        Some(plain) if plain.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            let whole = plain.parse::<i64>().map(Json::from);
            let whole = whole.or_else(|_| plain.parse::<u64>().map(Json::from)).ok();
            // Neither a version, as in 1.2.3, nor infinity is a number.
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

/// How long a token is valid.
struct TokenLifetime;

impl Syntax for TokenLifetime {
    type Value = Duration;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Duration> {
        let lifetime = written.clone().duration()?;
        if !(SHORTEST..=LONGEST).contains(&lifetime) {
            written.problem(
                "out of range",
                "write a time from 30s to 1d; most services take at most 5m or 1h",
            );
            return None;
        }
        Some(lifetime)
    }
}
