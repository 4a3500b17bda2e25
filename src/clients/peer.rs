//! What the certificate of a client says about it.
//!
//! The handshake has proved that the client has the key, and that some authority of the listener vouches for the
//! certificate. Which client that is depends on the clients of the moment: it is looked up for each new set of them, and the
//! path to the authority is verified again then.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::{ClientRefusal, Clients};
use crate::config::{CertificateName, Identity};
use crate::sync::lock;
use crate::upstream::tls;

/// The characters of a name that are shown: two GUIDs with their kinds have 84.
const LONGEST_TITLE: usize = 160;

/// The client at the other end of a TLS connection.
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    facts: CertificateFacts,
    /// The clients that it is, of the generation that was asked last.
    found: Mutex<(u64, Arc<[usize]>)>,
    title: Arc<str>,
    until: SystemTime,
}

/// What a certificate says about its owner.
#[derive(Debug, Default, PartialEq, Eq)]
struct CertificateFacts {
    common_names: Vec<String>,
    dns_names: Vec<String>,
    organizations: Vec<String>,
    units: Vec<String>,
    uris: Vec<String>,
}

impl Peer {
    /// Reads the certificates that a client has shown, its own first.
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let facts = CertificateFacts::of(&parsed);
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        Some(Self {
            title: facts.title(),
            facts,
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            found: Mutex::default(),
            until: SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))?,
        })
    }

    pub(super) fn has_ended(&self, now: SystemTime) -> bool {
        self.until < now
    }

    pub(super) fn ended(&self) -> ClientRefusal {
        let title = Arc::clone(&self.title);
        ClientRefusal::Ended { title }
    }

    /// `may_be_known`: a password would do instead.
    pub(super) fn unknown(&self, may_be_known: bool) -> ClientRefusal {
        let title = Arc::clone(&self.title);
        if may_be_known {
            ClientRefusal::UnknownWithoutPassword { title }
        } else {
            ClientRefusal::Unknown { title }
        }
    }

    /// Returns the clients that this certificate is enough for, by their index, the most specific first.
    pub(super) fn clients(&self, clients: &Clients, now: SystemTime) -> Arc<[usize]> {
        let mut found = lock(&self.found);
        if found.0 != clients.generation {
            let is_one = |(place, client): (usize, &Arc<super::Client>)| {
                let authority = client.authority?;
                let is_meant = client.identities.iter().all(|identity| self.facts.has(identity));
                (is_meant && clients.trust.vouches(authority, &self.chain, now)).then_some(place)
            };
            let places = clients.clients.iter().enumerate().filter_map(is_one);
            *found = (clients.generation, places.collect());
        }
        Arc::clone(&found.1)
    }
}

impl CertificateFacts {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let subject = certificate.subject();
        let mut facts = Self {
            common_names: texts(subject.iter_common_name()),
            organizations: texts(subject.iter_organization()),
            units: texts(subject.iter_organizational_unit()),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => facts.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        facts
    }

    fn has(&self, identity: &Identity) -> bool {
        let is_one_of = |names: &[String], wanted: &str| names.iter().any(|name| name == wanted);
        match identity {
            Identity::App(guid) => self.guid("app:") == Some(guid),
            Identity::Space(guid) => self.guid("space:") == Some(guid),
            Identity::Organization(guid) => self.guid("organization:") == Some(guid),
            Identity::Name(CertificateName::CommonName(name)) => is_one_of(&self.common_names, name),
            Identity::Name(CertificateName::Organization(name)) => is_one_of(&self.organizations, name),
            Identity::Name(CertificateName::Unit(name)) => is_one_of(&self.units, name),
            Identity::Name(CertificateName::Dns(name)) => {
                self.dns_names.iter().any(|own| own.eq_ignore_ascii_case(name))
            }
            Identity::Name(CertificateName::Uri(uri)) => is_one_of(&self.uris, uri),
        }
    }

    /// Returns the GUID of a kind. Cloud Foundry writes one of each kind; a certificate with two is of nobody.
    fn guid(&self, kind: &str) -> Option<&str> {
        let mut guids = self.units.iter().filter_map(|unit| unit.strip_prefix(kind));
        match (guids.next(), guids.next()) {
            (Some(guid), None) => Some(guid),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// Returns what a person knows the certificate by.
    fn title(&self) -> Arc<str> {
        let kinds = ["app:", "space:"];
        let guids: Vec<_> = kinds
            .iter()
            .filter_map(|kind| Some(format!("{kind}{}", self.guid(kind)?)))
            .collect();
        let names = [
            &self.common_names,
            &self.dns_names,
            &self.uris,
            &self.organizations,
        ];
        let mut names = names.into_iter().filter_map(|names| names.first());
        let title = if guids.is_empty() {
            names.next().cloned().unwrap_or_default()
        } else {
            guids.join(", ")
        };
        tls::name_shown(&title, LONGEST_TITLE).into()
    }
}

fn texts<'a>(attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Vec<String> {
    let texts = attributes.filter_map(|attribute| attribute.as_str().ok());
    texts.map(str::to_owned).collect()
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.title).finish()
    }
}
