//! Revoked certificates: the lists of `tls.crl`.
//!
//! If lists are configured, each certificate of a chain except the root needs a current list of its issuer, and must not be
//! on it. OpenSSL's clients do the same (curl's `--crlfile`, nginx's `proxy_ssl_crl`); browsers accept what they cannot
//! check. webpki decides; this module adds what it does not say.

use std::cmp::Reverse;
use std::fmt;
use std::time::SystemTime;

use rustls::pki_types::CertificateRevocationListDer;
use webpki::{CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationOptionsBuilder};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate;
use super::fault::CertificateFault;
use super::usage;
use crate::units::rfc3339;

/// The lists of one destination, the newest first: of several lists of one issuer the newest counts.
#[derive(Default)]
pub(super) struct Revocation {
    lists: Vec<List>,
    plain: Vec<CertRevocationList<'static>>,
}

/// One list.
struct List {
    /// In DER.
    issuer: Vec<u8>,
    name: String,
    from: SystemTime,
    until: SystemTime,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is no list of revoked certificates, or damaged")]
    Damaged,

    #[error("it only adds to another list (delta CRL); name the whole one")]
    Delta,

    #[error("it speaks for other authorities, too (indirect CRL); name the list of each authority")]
    Indirect,

    #[error("it says no time of its next update")]
    NoNextUpdate,

    #[error("it uses what is not known here ({0})")]
    Unknown(webpki::Error),
}

impl Revocation {
    /// Reads the lists. The error is the position of a list that cannot be used, and why.
    pub(super) fn new(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, (usize, Unusable)> {
        let read = |(i, der)| read(der).map_err(|error| (i, error));
        let lists = lists.iter().enumerate().map(read);
        let mut lists: Vec<_> = lists.collect::<Result<_, _>>()?;
        lists.sort_by_key(|(list, _)| Reverse(list.from));
        let (lists, plain) = lists.into_iter().unzip();
        Ok(Self { lists, plain })
    }

    /// Returns what `judge` says with the lists.
    pub(super) fn with<T>(&self, judge: impl FnOnce(Option<webpki::RevocationOptions<'_>>) -> T) -> T {
        let lists: Vec<_> = self.plain.iter().collect();
        // It fails for an empty set of lists only: then there is nothing to check.
        let options = RevocationOptionsBuilder::new(&lists).ok();
        judge(options.map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build()))
    }

    /// Whether there are lists at all.
    pub(super) fn is_asked(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Returns until when the lists of `issuers` (names in DER) are valid as of `now`; `None` if they have no lists. The error
    /// is the place of an issuer whose list is not valid yet, and why: webpki does not check that.
    pub(super) fn until(
        &self,
        issuers: &[&[u8]],
        now: SystemTime,
    ) -> Result<Option<SystemTime>, (usize, String)> {
        let place = |list: &List| issuers.iter().position(|issuer| *issuer == list.issuer);
        let lists = || self.lists.iter().filter(|list| place(list).is_some());
        if let Some(list) = lists().find(|list| now < list.from) {
            let (name, from) = (&list.name, rfc3339(list.from));
            let why = format!("the list of {name} in tls.crl is not valid before {from}; is a clock wrong?");
            return Err((place(list).unwrap_or_default(), why));
        }
        // Only the newest list of an issuer was used.
        Ok(lists().map(|list| list.until).filter(|until| now < *until).min())
    }

    /// Returns the issuers whose lists should have been renewed before `now`, and since when.
    pub(super) fn ended(&self, now: SystemTime) -> impl Iterator<Item = (&str, SystemTime)> {
        let ended = self.lists.iter().filter(move |list| list.until < now);
        // An older list beside the current one does not matter.
        let is_newest = |list: &&List| {
            let newest = self.lists.iter().find(|other| other.issuer == list.issuer);
            newest.is_some_and(|newest| std::ptr::eq(newest, *list))
        };
        ended.filter(is_newest).map(|list| (&*list.name, list.until))
    }

    /// Returns which certificate of `chain` webpki refused because of a list, and why.
    pub(super) fn fault(
        &self,
        error: &webpki::Error,
        chain: &[X509Certificate<'_>],
        now: SystemTime,
    ) -> Option<CertificateFault> {
        let of = |certificate: &X509Certificate<'_>| {
            let issuer = certificate.issuer().as_raw();
            self.lists.iter().position(|list| list.issuer == issuer)
        };
        let named = |certificate| certificate::title(certificate);
        let issuer = |certificate: &X509Certificate<'_>| certificate::name(certificate.issuer());
        let unknown = |certificate, why| CertificateFault::RevocationUnknown {
            name: named(certificate),
            why,
        };
        let mut listed = chain.iter().filter_map(|one| Some((one, of(one)?)));
        match error {
            webpki::Error::CertRevoked => listed.find_map(|(one, list)| {
                Some(CertificateFault::Revoked {
                    name: named(one),
                    issuer: issuer(one),
                    details: self.entry(list, one)?,
                })
            }),
            webpki::Error::UnknownRevocationStatus => {
                let one = chain
                    .iter()
                    .find(|one| of(one).is_none())
                    .or_else(|| chain.first())?;
                let why = format!("tls.crl has no list of {} that covers it; add that", issuer(one));
                Some(unknown(one, why))
            }
            webpki::Error::CrlExpired { .. } => {
                let (one, list) = listed.find(|(_, list)| self.lists[*list].until <= now)?;
                let List { name, until, .. } = &self.lists[list];
                let until = rfc3339(*until);
                let why =
                    format!("the list of {name} in tls.crl was to be renewed by {until}; get the new one");
                Some(unknown(one, why))
            }
            webpki::Error::IssuerNotCrlSigner => {
                let lacks = |pair: &&[X509Certificate<'_>]| {
                    let usage = pair[1].key_usage().ok().flatten();
                    usage.is_some_and(|usage| !usage.value.crl_sign())
                };
                let one = chain.windows(2).find(lacks)?.first()?;
                Some(unknown(one, usage::no_list_signer(&issuer(one))))
            }
            // What remains is a wrong signature, or a wrong signer.
            _ => {
                let (one, list) = listed.next()?;
                let name = &self.lists[list].name;
                let why = format!("the list in tls.crl is not signed by {name} ({error})");
                Some(unknown(one, why))
            }
        }
    }

    /// Returns the entry of a certificate on the list; `None` if it is not on it.
    fn entry(&self, list: usize, certificate: &X509Certificate<'_>) -> Option<String> {
        let serial = certificate.raw_serial();
        let unsigned = serial.strip_prefix(&[0]).unwrap_or(serial);
        let find = |serial| self.plain[list].find_serial(serial).ok().flatten();
        let entry = find(serial).or_else(|| find(unsigned))?;
        let since = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(entry.revocation_date.as_secs());
        let since = rfc3339(since);
        let reason = entry.reason_code.map(|reason| format!(", {reason:?}"));
        Some(format!(
            "{since}{}, serial number {}",
            reason.unwrap_or_default(),
            certificate.raw_serial_as_string()
        ))
    }
}

/// Shows the issuers only: a list may name a hundred thousand certificates.
impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.lists.iter().map(|list| &list.name))
            .finish()
    }
}

fn read(der: &CertificateRevocationListDer<'_>) -> Result<(List, CertRevocationList<'static>), Unusable> {
    let (rest, parsed) = CertificateRevocationList::from_der(der).map_err(|_| Unusable::Damaged)?;
    if !rest.is_empty() {
        return Err(Unusable::Damaged);
    }
    let until = parsed.next_update().ok_or(Unusable::NoNextUpdate)?;
    let list = List {
        issuer: parsed.issuer().as_raw().to_vec(),
        name: certificate::name(parsed.issuer()),
        from: certificate::time(parsed.last_update()),
        until: certificate::time(until),
    };
    let plain = OwnedCertRevocationList::from_der(der).map_err(|error| match error {
        webpki::Error::UnsupportedDeltaCrl => Unusable::Delta,
        webpki::Error::UnsupportedIndirectCrl => Unusable::Indirect,
        other => Unusable::Unknown(other),
    })?;
    Ok((list, plain.into()))
}
