//! From what is written of parents, and their secrets, to parents that can be used.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use data_encoding::BASE64;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::error::refused;
use super::health::Health;
use super::{Parent, Parents, socks5};
use crate::config::{ParentKeys, ParentScheme, ParentUrlParts, SecretRef, Text, Tls};
use crate::host::{Host, Scheme, Target};
use crate::http1::ProxyForm;
use crate::policy::{Denial, EgressRules, ParentPlan};
use crate::secret::roots::SystemRoots;
use crate::secret::{self, Snapshot};
use crate::telemetry::Telemetry;
use crate::upstream::tls;

/// Why a parent cannot be used. Names the place, the cause and the remedy, never the URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParentSettingsError {
    #[error("{place}: its URL and `username` beside it both name a user; remove one of them")]
    BothUsers { place: String },

    #[error("{place}: {}", refused(denial))]
    Denied { place: String, denial: Denial },

    #[error("{place}: the user or the password {what}")]
    Login { place: String, what: &'static str },

    #[error(
        "egress.parent: a certificate or key made the program panic, which is a fault of outrider; export it again"
    )]
    Panicked,

    #[error("{place}: the secret cannot be read")]
    Secret { place: String, source: secret::Error },

    #[error(
        "{place}: TLS settings stand beside the URL of a parent that is reached without TLS; write https:// there"
    )]
    NoTls { place: String },

    #[error(transparent)]
    Tls(ParentTlsError),

    #[error(
        "{place}: what is there is not the URL of a proxy: {what}; it has to be http://[USER:PASSWORD@]HOST:PORT, or the same \
         with https:// or socks5://"
    )]
    Url { place: String, what: &'static str },
}

/// Why TLS to a parent cannot be spoken, under the key that is wrong.
#[derive(Debug)]
pub(crate) struct ParentTlsError {
    error: Arc<tls::SettingsError>,
    /// `tls.ca` is not written: `egress.parent_ca` stands for it.
    has_common_roots: bool,
    place: String,
}

impl fmt::Display for ParentTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.error.to_string();
        match text.strip_prefix("tls.ca: ") {
            Some(rest) if self.has_common_roots => write!(f, "egress.parent_ca: {rest}"),
            Some(_) | None => write!(f, "{}.{text}", self.place),
        }
    }
}

impl Error for ParentTlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl ParentSettingsError {
    /// Whether a certificate and a key are not of one pair, as while they are being replaced.
    pub(crate) fn is_mismatch(&self) -> bool {
        matches!(self, Self::Tls(error) if error.error.is_mismatch())
    }
}

/// Every secret that the parents of a plan are made with.
pub(crate) fn references(plan: &ParentPlan, secrets: &Snapshot) -> Vec<SecretRef> {
    let mut all = Vec::new();
    for parent in &plan.parents {
        if let Text::Reference(url) = &parent.url {
            all.push(url.clone());
        }
        if let Some(Text::Reference(username)) = &parent.username {
            all.push(username.clone());
        }
        all.extend(parent.password.clone());
        let tls = tls_of(parent, plan);
        let roots = tls.ca.iter().chain(&tls.ca_extra);
        all.extend(roots.flat_map(|roots| secrets.spread(roots)));
        all.extend(tls.crl);
        let certificate = tls.client_certificate.iter();
        all.extend(certificate.flat_map(|certificate| secrets.parts(certificate)));
    }
    all
}

/// Returns the TLS settings of a parent: as written, with the roots for all of them where it has no other.
fn tls_of(parent: &ParentKeys, plan: &ParentPlan) -> Tls {
    let mut tls = parent.tls.clone();
    if tls.ca.is_none() && tls.ca_extra.is_none() {
        tls.ca.clone_from(&plan.ca);
    }
    tls
}

impl Parents {
    /// Reads the secrets. `rules` judge the addresses of the parents.
    pub(crate) fn build(
        plan: &Arc<ParentPlan>,
        snapshot: &Snapshot,
        roots: &SystemRoots,
        rules: &EgressRules,
        marker: &Arc<str>,
        telemetry: &Telemetry,
    ) -> Result<Self, ParentSettingsError> {
        let list = plan.parents.iter().enumerate().map(|(i, written)| {
            let place = plan.place_of(i);
            let parent = Parent::build(written, plan, &place, snapshot, roots, telemetry)?;
            match known_address(&parent.target.host)
                .map(|address| rules.approve(&[address], parent.target.port))
            {
                Some(Err(denial)) => Err(ParentSettingsError::Denied { place, denial }),
                Some(Ok(_)) | None => Ok(Arc::new(parent)),
            }
        });
        Ok(Self {
            fingerprint: snapshot.fingerprint(&references(plan, snapshot)),
            list: list.collect::<Result<_, _>>()?,
            marker: Arc::clone(marker),
            plan: Arc::clone(plan),
            rules: rules.clone(),
        })
    }

    /// Returns the parents to which credentials go in clear, beyond this machine.
    pub(crate) fn readable(&self) -> impl Iterator<Item = &str> {
        let is_local = |host: &Host| known_address(host).is_some_and(|address| address.is_loopback());
        let readable = self.list.iter().filter(move |parent| {
            let has_some = parent.form.authorization.is_some() || parent.login.is_some();
            has_some && parent.tls.is_none() && !is_local(&parent.target.host)
        });
        readable.map(|parent| &*parent.name)
    }

    /// Returns what the parents get in Proxy-Authorization.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &HeaderValue> {
        self.list
            .iter()
            .filter_map(|parent| parent.form.authorization.as_ref())
    }

    /// Whether one of the parents is reached with TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.list.iter().any(|parent| parent.tls.is_some())
    }
}

impl Parent {
    fn build(
        written: &ParentKeys,
        plan: &ParentPlan,
        place: &str,
        snapshot: &Snapshot,
        roots: &SystemRoots,
        telemetry: &Telemetry,
    ) -> Result<Self, ParentSettingsError> {
        let place = || place.to_owned();
        let unread = |key| {
            move |source| ParentSettingsError::Secret {
                place: format!("{}{key}", place()),
                source,
            }
        };
        let parts = match &written.url {
            Text::Plain(url) => ParentUrlParts::parse(url),
            Text::Reference(reference) => {
                let url = snapshot.read(reference).map_err(unread(""))?;
                let text = std::str::from_utf8(url.expose()).map_err(|_| "it is not a text");
                text.and_then(|text| ParentUrlParts::parse(text.trim()))
            }
        };
        let parts = parts.map_err(|what| ParentSettingsError::Url { place: place(), what })?;
        let username = match (&written.username, parts.username) {
            (Some(_), Some(_)) => return Err(ParentSettingsError::BothUsers { place: place() }),
            (Some(Text::Plain(name)), None) => Some(name.clone().into_bytes()),
            (Some(Text::Reference(name)), None) => Some(
                snapshot
                    .read(name)
                    .map_err(unread(".username"))?
                    .expose()
                    .to_vec(),
            ),
            (None, name) => name.map(String::into_bytes),
        };
        let password = match &written.password {
            Some(reference) => {
                let password = snapshot.read_password(reference).map_err(unread(".password"))?;
                Some(Zeroizing::new(password.expose().to_vec()))
            }
            None => parts.password,
        };
        let wrong = |what| ParentSettingsError::Login { place: place(), what };
        let is_socks = parts.scheme == ParentScheme::Socks5;
        let login = match (username, password) {
            (None, _) => None,
            (Some(username), password) => Some((username, password.unwrap_or_default())),
        };
        let (login, authorization) = match login {
            None => (None, None),
            Some((username, password)) if is_socks => {
                let login = socks5::SocksLogin::new(username, password).ok_or_else(|| {
                    wrong("is empty or has more than 255 bytes, which SOCKS5 does not allow; correct it")
                })?;
                (Some(login), None)
            }
            Some((username, password)) => (None, Some(basic(&username, &password).map_err(wrong)?)),
        };
        let tls = if parts.scheme == ParentScheme::Https {
            let settings = tls::Settings::of(&tls_of(written, plan), snapshot, roots);
            Some(settings.map_err(|error| {
                ParentSettingsError::Tls(ParentTlsError {
                    error: Arc::new(error),
                    has_common_roots: written.tls.ca.is_none(),
                    place: place(),
                })
            })?)
        } else if written.tls == Tls::default() {
            None
        } else {
            return Err(ParentSettingsError::NoTls { place: place() });
        };
        let target = Target {
            scheme: if tls.is_some() {
                Scheme::Https
            } else {
                Scheme::Http
            },
            host: parts.host,
            port: parts.port,
        };
        let name: Arc<str> = target.to_string().into();
        let form = |scheme| {
            Arc::new(ProxyForm {
                authorization: authorization.clone(),
                scheme,
            })
        };
        Ok(Self {
            counters: telemetry.parent(&name),
            form: form(Some(Scheme::Http.as_str())),
            health: Health::of(plan.parents.len()),
            login,
            name,
            scheme: parts.scheme,
            target,
            tls,
            tunnel_form: form(None),
        })
    }
}

/// Returns the address of a parent, if it is known without a query.
fn known_address(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Name(name) if &**name == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => host.ip(),
    }
}

/// Makes the value of Proxy-Authorization (RFC 7617). The error is what is wrong.
fn basic(username: &[u8], password: &[u8]) -> Result<HeaderValue, &'static str> {
    if username.contains(&b':') {
        return Err(
            "contains a colon in the user name, which Basic authentication does not allow; have another one",
        );
    }
    let pair = Zeroizing::new([username, b":", password].concat());
    if pair.iter().any(u8::is_ascii_control) {
        return Err("contains a control character; write it again on one line");
    }
    let text = Zeroizing::new(format!("Basic {}", BASE64.encode(&pair)));
    let mut value = HeaderValue::from_str(&text).map_err(|_| "cannot be written into a field")?;
    value.set_sensitive(true);
    Ok(value)
}
