//! Explains an error of webpki: which certificate is wrong, and what is wrong with it.
//!
//! webpki says what is wrong but not with which certificate; that is found by looking at the certificates that the server
//! presented. Nothing is decided here: the certificate is refused already.

use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::public_key::PublicKey;

use super::certificate::{self, system_time};
use super::fault::CertificateFault;
use super::revocation::Revocation;
use super::usage;

/// The critical extensions that are known here: key usage, alternative names, basic and name constraints, distribution
/// points, policies and their mappings and constraints, extended key usage, inhibited anyPolicy.
const KNOWN: &[&str] = &[
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.33",
    "2.5.29.36",
    "2.5.29.37",
    "2.5.29.54",
];

/// The certificate that a server presented, and its issuers as far as they were sent, in order.
pub(super) struct Presented<'c> {
    chain: Vec<X509Certificate<'c>>,
    has_intermediates: bool,
}

impl<'c> Presented<'c> {
    pub(super) fn new(leaf: &'c CertificateDer<'_>, intermediates: &'c [CertificateDer<'_>]) -> Self {
        let mut others: Vec<_> = intermediates
            .iter()
            .filter_map(|der| certificate::parse(der))
            .collect();
        let mut chain: Vec<_> = certificate::parse(leaf).into_iter().collect();
        while let Some(last) = chain.last()
            && let Some(next) = others.iter().position(|other| other.subject() == last.issuer())
        {
            chain.push(others.swap_remove(next));
        }
        Self {
            chain,
            has_intermediates: !intermediates.is_empty(),
        }
    }

    /// Returns the name of the server's certificate.
    pub(super) fn title(&self) -> String {
        self.chain.first().map(certificate::title).unwrap_or_default()
    }

    /// Checks that the server's certificate is valid `now`, and returns until when.
    pub(super) fn own_validity(&self, now: UnixTime) -> Result<SystemTime, CertificateFault> {
        let now = system_time(now);
        let Some(leaf) = self.chain.first() else {
            return Err(CertificateFault::Unusable("it cannot be read".to_owned()));
        };
        let (from, until) = certificate::validity(leaf);
        let whose = String::new();
        if now < from {
            return Err(CertificateFault::NotYetValid { whose, from, now });
        }
        if until < now {
            let since = until;
            return Err(CertificateFault::Expired { whose, since, now });
        }
        usage::is_of_server(leaf).map(|()| until)
    }

    /// Explains `error`.
    pub(super) fn fault(
        &self,
        error: webpki::Error,
        revocation: &Revocation,
        now: SystemTime,
    ) -> CertificateFault {
        use webpki::Error;

        let found = match &error {
            Error::CaUsedAsEndEntity => Some(CertificateFault::Authority),
            Error::CertExpired { not_after, .. } => {
                let since = system_time(*not_after);
                let whose = self.whose(|one| certificate::validity(one).1 == since);
                Some(CertificateFault::Expired { whose, since, now })
            }
            Error::CertNotValidYet { not_before, .. } => {
                let from = system_time(*not_before);
                let whose = self.whose(|one| certificate::validity(one).0 == from);
                Some(CertificateFault::NotYetValid { whose, from, now })
            }
            Error::CertNotValidForName(context) => Some(CertificateFault::Foreign {
                names: certificate::names(&context.presented),
                wanted: certificate::plain(&context.expected.to_str()),
            }),
            Error::EndEntityUsedAsCa => {
                let is_authority = |one: &X509Certificate<'_>| {
                    let constraints = one.basic_constraints().ok().flatten();
                    constraints.is_some_and(|constraints| constraints.value.ca)
                };
                let culprit = self.chain.iter().skip(1).find(|one| !is_authority(one));
                culprit.map(|one| CertificateFault::NotAuthority {
                    name: certificate::title(one),
                })
            }
            Error::InvalidSignatureForPublicKey => Some(self.signature()),
            Error::NameConstraintViolation => self.constraint(),
            Error::PathLenConstraintViolated => Some(CertificateFault::PathLength {
                authority: self.shortest(),
            }),
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
                Some(CertificateFault::Purpose {
                    whose: self.whose(|one| {
                        let purposes = one.extended_key_usage().ok().flatten();
                        purposes.is_some_and(|purposes| !purposes.value.server_auth)
                    }),
                })
            }
            Error::UnknownIssuer => self.unknown_issuer(),
            Error::UnsupportedCriticalExtension => self.extension(),
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Some(self.algorithm()),
            Error::CertRevoked
            | Error::CrlExpired { .. }
            | Error::InvalidCrlSignatureForPublicKey
            | Error::IssuerNotCrlSigner
            | Error::UnknownRevocationStatus
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                revocation.fault(&error, &self.chain, now)
            }
            // The rest is rare and explains itself; webpki may add more.
            _ => None,
        };
        found.unwrap_or_else(|| CertificateFault::Unusable(error.to_string()))
    }

    /// Returns " of NAME" if a certificate above the server's is meant.
    fn whose(&self, is_meant: impl Fn(&X509Certificate<'_>) -> bool) -> String {
        match self.chain.iter().position(is_meant) {
            None | Some(0) => String::new(),
            Some(place) => format!(" of {}", certificate::title(&self.chain[place])),
        }
    }

    /// Returns which authority is missing: the issuer of the last certificate in the presented chain.
    fn unknown_issuer(&self) -> Option<CertificateFault> {
        let (leaf, last) = (self.chain.first()?, self.chain.last()?);
        if leaf.subject() == leaf.issuer() {
            return Some(CertificateFault::SelfSigned {
                name: certificate::title(leaf),
            });
        }
        let or = if self.has_intermediates {
            ""
        } else {
            ", or have its server send the intermediate certificate as well"
        };
        Some(CertificateFault::UnknownIssuer {
            issuer: certificate::name(last.issuer()),
            or,
        })
    }

    /// Explains a wrong signature, or one by a key that is too weak.
    fn signature(&self) -> CertificateFault {
        let weak = |(i, one)| {
            let key = weakness(one)?;
            let whose = match i {
                0 => String::new(),
                _ => format!(" of {}", certificate::title(one)),
            };
            Some(CertificateFault::Key { whose, key })
        };
        // The server's key has signed none of them.
        let found = self.chain.iter().enumerate().skip(1).find_map(weak);
        found.unwrap_or_else(|| {
            let wrong = self
                .chain
                .windows(2)
                .position(|pair| pair[0].verify_signature(Some(pair[1].public_key())).is_err());
            // The issuer of the last one is a root, whose certificate we do not have.
            let wrong = wrong.unwrap_or_else(|| self.chain.len().saturating_sub(1));
            let whose = match wrong {
                0 => String::new(),
                _ => format!(" of {}", certificate::title(&self.chain[wrong])),
            };
            let issuer = self.chain.get(wrong).map(|one| certificate::name(one.issuer()));
            CertificateFault::Signature {
                whose,
                issuer: issuer.unwrap_or_default(),
            }
        })
    }

    /// Finds the signature whose algorithm is not accepted.
    fn algorithm(&self) -> CertificateFault {
        let is_old = |one: &X509Certificate<'_>| old_algorithm(&one.signature_algorithm.algorithm).is_some();
        let whose = self.whose(is_old);
        let culprit = self
            .chain
            .iter()
            .find(|one| is_old(one))
            .or_else(|| self.chain.first());
        let algorithm = culprit.map(|one| {
            let oid = &one.signature_algorithm.algorithm;
            old_algorithm(oid).map_or_else(|| certificate::plain(&oid.to_id_string()), str::to_owned)
        });
        CertificateFault::SignatureAlgorithm {
            whose,
            algorithm: algorithm.unwrap_or_default(),
        }
    }

    fn constraint(&self) -> Option<CertificateFault> {
        let leaf = self.chain.first()?;
        let constrained = |one: &&X509Certificate<'_>| one.name_constraints().ok().flatten().is_some();
        let authority = match self.chain.iter().skip(1).find(constrained) {
            Some(one) => certificate::title(one),
            None => certificate::name(self.chain.last()?.issuer()),
        };
        let alternatives = leaf.subject_alternative_name().ok().flatten();
        let names = alternatives.map(|names| {
            let names = names.value.general_names.iter();
            names
                .take(5)
                .map(certificate::general_name)
                .collect::<Vec<_>>()
                .join(", ")
        });
        Some(CertificateFault::Constraint {
            names: names.unwrap_or_else(|| certificate::title(leaf)),
            authority,
        })
    }

    /// Finds the authority that allows fewer certificates below it than there are.
    fn shortest(&self) -> String {
        let too_long = |(below, one): &(usize, &X509Certificate<'_>)| {
            let constraints = one.basic_constraints().ok().flatten();
            let limit = constraints.and_then(|constraints| constraints.value.path_len_constraint);
            limit.is_some_and(|limit| usize::try_from(limit).is_ok_and(|limit| limit < *below))
        };
        match self.chain.iter().skip(1).enumerate().find(too_long) {
            Some((_, one)) => certificate::title(one),
            None => self
                .chain
                .last()
                .map(|last| certificate::name(last.issuer()))
                .unwrap_or_default(),
        }
    }

    fn extension(&self) -> Option<CertificateFault> {
        let unknown = |one: &X509Certificate<'_>| {
            let mut extensions = one.extensions().iter();
            let found = extensions.find(|extension| {
                extension.critical && !KNOWN.contains(&extension.oid.to_id_string().as_str())
            });
            found.map(|extension| certificate::plain(&extension.oid.to_id_string()))
        };
        let oid = self.chain.iter().find_map(unknown)?;
        let whose = self.whose(|one| unknown(one).is_some());
        Some(CertificateFault::Extension { whose, oid })
    }
}

/// Returns what is wrong with the server's key, if it is too weak or of an unknown kind.
pub(super) fn weak_key(leaf: &CertificateDer<'_>) -> Option<CertificateFault> {
    let key = weakness(&certificate::parse(leaf)?)?;
    let whose = String::new();
    Some(CertificateFault::Key { whose, key })
}

fn weakness(certificate: &X509Certificate<'_>) -> Option<String> {
    let spki = certificate.public_key();
    match spki.parsed().ok()? {
        PublicKey::RSA(key) => {
            let bits = key.key_size();
            (bits < SHORTEST_RSA).then(|| format!("RSA of {bits} bits"))
        }
        PublicKey::EC(_) => {
            let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let curve = curve.to_id_string();
            (!CURVES.contains(&curve.as_str()))
                .then(|| format!("ECDSA on the curve {}", certificate::plain(&curve)))
        }
        _ => None,
    }
}

/// Returns the name of a signature algorithm that is no longer accepted because it can be forged.
fn old_algorithm(oid: &Oid<'_>) -> Option<&'static str> {
    let known = OLD.iter().find(|(known, _)| *known == oid.to_id_string());
    known.map(|(_, name)| *name)
}

const SHORTEST_RSA: usize = 2048;

/// P-256, P-384, P-521.
const CURVES: &[&str] = &["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];

const OLD: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10040.4.3", "DSA"),
];
