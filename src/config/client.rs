//! Who may use the listener, and the listener's own certificate.

use std::fmt;
use std::sync::Arc;

use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::{Located, SectionReader};
use super::syntax::{Filled, NamedSection, OneOrMore};
use super::{ClientCertificate, SecretRef};
use crate::host::Host;

/// How many hexadecimal digits the parts of a GUID have (RFC 9562).
const GUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];
const WHO: &str = "write basic: env:NAME, app_guid: GUID, space_guid: GUID or certificate: CN=NAME below it";

section! {
    /// Somebody who may use the listener. All that is written has to hold.
    pub(crate) struct ClientKeys, check {
        /// The password; the user name is the name of the client.
        basic: Option<SecretRef>;
        /// The app, by the GUID in its Cloud Foundry instance identity.
        app_guid: Option<String> as Guid;
        /// All apps of a space, likewise.
        space_guid: Option<String> as Guid;
        /// All apps of an organization, likewise.
        organization_guid: Option<String> as Guid;
        /// What its certificate says: CN=, O= or OU= of the subject, DNS= or URI= of the alternative names. Of several, all.
        certificate: Vec<CertificateName> as OneOrMore<CertificateName>;
        /// The authority of its certificate: PEM, DER or PKCS#7. Default for the GUIDs: that of our own instance identity.
        ca: Option<SecretRef>;
        /// The destinations that it may use; unlisted: hosts that no destination names. Default: all.
        destinations: Vec<Arc<str>> as Filled<DestinationName>;
    }
    also {
        name: Arc<str>;
    }
}

/// One thing that a certificate has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    App(String),
    Name(CertificateName),
    Organization(String),
    Space(String),
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateName {
    CommonName(String),
    Dns(String),
    Organization(String),
    Unit(String),
    Uri(String),
}

/// The certificate that the listener shows, with its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ServerCertificate {
    /// The instance identity where clients are known by certificates; else none.
    #[default]
    Auto,
    Off,
    Pair(ClientCertificate),
}

/// The GUID of an app, a space or an organization.
pub(super) struct Guid;

/// The name of a destination.
pub(super) struct DestinationName;

impl Identity {
    /// Orders identities: the most specific is the least.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Name(_) => 0,
            Self::App(_) => 1,
            Self::Space(_) => 2,
            Self::Organization(_) => 3,
        }
    }
}

impl ClientKeys {
    /// Returns what its certificate has to say; nothing for a client without one.
    pub(crate) fn identities(&self) -> Vec<Identity> {
        let names = self.certificate.iter().cloned().map(Identity::Name);
        names
            .chain(self.app_guid.clone().map(Identity::App))
            .chain(self.space_guid.clone().map(Identity::Space))
            .chain(self.organization_guid.clone().map(Identity::Organization))
            .collect()
    }

    pub(crate) fn needs_certificate(&self) -> bool {
        self.is_of_platform() || !self.certificate.is_empty()
    }

    fn is_of_platform(&self) -> bool {
        self.app_guid.is_some() || self.space_guid.is_some() || self.organization_guid.is_some()
    }

    fn check(&self, reader: &SectionReader<'_>) {
        if self.basic.is_none() && !self.needs_certificate() {
            reader.problem("nothing says how it is known", WHO);
        }
        if !self.certificate.is_empty() && self.ca.is_none() {
            reader.problem(
                "`certificate` without the authority that vouches for it",
                "write ca: file:PATH beside it",
            );
        }
        if self.ca.is_some() && !self.needs_certificate() {
            reader.problem(
                "`ca` does nothing for a client that is known by its password",
                "remove it, or write certificate: CN=NAME",
            );
        }
    }
}

impl Syntax for Guid {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let right =
            "write the GUID that `cf app NAME --guid`, `cf space NAME --guid` or `cf org NAME --guid` prints";
        let text = written.text(right)?;
        let parts = text.split('-').map(str::len);
        let is_guid =
            parts.eq(GUID_PARTS) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        if !is_guid {
            written.problem(format_args!("`{}` is not a GUID", shown(text)), right);
        }
        // Certificates have them in lower case.
        is_guid.then(|| text.to_ascii_lowercase())
    }
}

impl Syntax for CertificateName {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write a name, as in CN=partner";

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write one name, as in CN=partner, OU=batch, O=Agency, DNS=app.example.com or URI=spiffe://agency/app";
        let text = written.text(right)?;
        let name = match text.split_once('=') {
            Some((_, "")) | None => None,
            Some(("CN", name)) => Some(Self::CommonName(name.to_owned())),
            Some(("DNS", name)) => match Host::parse(name) {
                Ok(Host::Name(name)) => Some(Self::Dns(name.to_string())),
                Ok(Host::V4(_) | Host::V6(_)) | Err(_) => None,
            },
            Some(("O", name)) => Some(Self::Organization(name.to_owned())),
            Some(("OU", name)) => Some(Self::Unit(name.to_owned())),
            Some(("URI", name)) => Some(Self::Uri(name.to_owned())),
            Some(_) => None,
        };
        if name.is_none() {
            written.problem(
                format_args!("`{}` is not a name in a certificate", shown(text)),
                right,
            );
        }
        name
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(name) => write!(f, "CN={name}"),
            Self::Dns(name) => write!(f, "DNS={name}"),
            Self::Organization(name) => write!(f, "O={name}"),
            Self::Unit(name) => write!(f, "OU={name}"),
            Self::Uri(name) => write!(f, "URI={name}"),
        }
    }
}

impl Syntax for DestinationName {
    type Value = Arc<str>;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "remove the key to allow all, or the client to allow none";

    fn read(written: Located<'_>) -> Option<Arc<str>> {
        written.text("write the name of a destination").map(Arc::from)
    }
}

impl Syntax for ServerCertificate {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Any(&[
        ClientCertificate::KIND,
        ValueKind::Choice(&["auto"]),
        ValueKind::Literal("false"),
    ]);

    fn read(written: Located<'_>) -> Option<Self> {
        match written.plain() {
            Some("auto") => Some(Self::Auto),
            Some("false") => Some(Self::Off),
            _ => ClientCertificate::read(written).map(Self::Pair),
        }
    }
}

impl NamedSection for ClientKeys {
    const WHAT: &'static str = "a client";

    fn taken(name: &str) -> Option<&'static str> {
        (name == "outrider").then_some("it is that of the command of `outrider exec`")
    }

    fn set_name(&mut self, name: Arc<str>) {
        self.name = name;
    }
}
