//! Who may use the listener, and for which destinations.
//!
//! A client is known by a password, by a certificate, or by both. [`Clients`] are made once for a configuration and its
//! secrets ([`mod@build`]). A request shows what it has ([`Shown`]), and [`Clients::admit`] says which client that is. The TLS of
//! the listener is in [`tls`]; what a certificate says about its owner, in [`peer`]; which authorities count, in [`trust`].
//!
//! Nothing is remembered of a request: each one is judged by the clients of that moment, also on a connection that was kept,
//! so a client that a reload removes is refused at its next request.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64;
use http::StatusCode;
use http::header::PROXY_AUTHORIZATION;
use rustls::ServerConfig;
use zeroize::Zeroizing;

pub(crate) use build::{BuildError, Built, build, references};
pub(crate) use peer::Peer;
pub(crate) use route_service::{BuiltGuard, GuardRefusal, RouteGuard};
pub(crate) use token::KeySet;

use crate::config::{ClientKeys, Identity, ServerCertificate};
use crate::message::Fields;
use crate::telemetry::{CLIENT_REFUSED, ClientCounters};
use crate::upstream::tls::Lifetime;
use trust::Trust;

mod build;
mod forwarded;
mod jwks;
mod peer;
mod route_service;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod token;
mod trust;

/// The longest Proxy-Authorization that is compared: RFC 1929 ends at 255 bytes for name and password each.
const LONGEST_SHOWN: usize = 2048;

/// The client that `outrider exec` serves: its command, which knows a random password.
#[derive(Clone, Default)]
pub(crate) struct CommandClient(Option<Password>);

/// User name and password, encoded as for `Basic` (RFC 7617).
#[derive(Clone)]
struct Password(Zeroizing<String>);

/// Everybody whom the listener serves, and its TLS.
pub(crate) struct Clients {
    /// Without clients the listener serves everybody who reaches it.
    asks: bool,
    /// The most specific first.
    clients: Vec<Arc<Client>>,
    /// Where the secrets differ it is another one.
    fingerprint: u64,
    /// Counts what is built, so that a result of one is never taken for that of another.
    generation: u64,
    /// Every part of it can be used.
    is_whole: bool,
    life: Option<Lifetime>,
    tls: Option<Arc<ServerConfig>>,
    trust: Arc<Trust>,
    written: Written,
}

/// What the configuration says about clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Written {
    clients: Vec<Arc<ClientKeys>>,
    listen_tls: ServerCertificate,
}

/// Somebody whom the listener serves.
pub(crate) struct Client {
    pub(crate) counters: Arc<ClientCounters>,
    /// All of them have to hold. Empty: it needs no certificate.
    identities: Vec<Identity>,
    /// The authorities that its certificate may come from, by their index in [`Trust`].
    authority: Option<usize>,
    is_command: bool,
    /// `None`: all that the policy allows.
    destinations: Option<Vec<Arc<str>>>,
    name: Arc<str>,
    password: Option<Password>,
}

/// What a request shows of its sender.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown<'s> {
    password: Option<&'s [u8]>,
    peer: Option<&'s Arc<Peer>>,
}

/// The same, kept for the requests inside a tunnel.
pub(crate) struct KeptShown {
    password: Option<Zeroizing<Vec<u8>>>,
    peer: Option<Arc<Peer>>,
}

/// Why somebody is not served. `Display` is a sentence with the remedy; it contains nothing that came without a verified
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientRefusal {
    #[error(
        "this proxy serves one command and asks for the password that http_proxy and https_proxy have there; where a client \
         cannot send it, `outrider exec --no-password` asks nobody"
    )]
    Command,

    #[error(
        "client {client} may not use destination {destination}; where it should, add it to clients.{client}.destinations"
    )]
    Destination { client: Arc<str>, destination: Arc<str> },

    #[error(
        "the client certificate of {title} has ended since the connection was opened; connect again with the new one"
    )]
    Ended { title: Arc<str> },

    #[error(
        "client {client} has to show its certificate beside its password; use https:// in the URL of the proxy"
    )]
    HalfShown { client: Arc<str> },

    #[error(
        "this proxy serves clients with a certificate only; use https:// in the URL of the proxy, and show a client \
         certificate"
    )]
    NoCertificate,

    #[error(
        "this proxy serves only its `clients`, and no user name and password came{}; write them into the URL of the proxy, as \
         in NAME:PASSWORD@HOST:PORT{}",
        if *or_certificate { ", and no client certificate" } else { "" },
        if *or_certificate { ", or use https:// there and show a client certificate" } else { "" }
    )]
    Nothing {
        /// Some clients need a certificate alone.
        or_certificate: bool,
    },

    #[error(
        "client {client} has to show its password beside its certificate; write it into the URL of the proxy, as in \
         {client}:PASSWORD@HOST:PORT"
    )]
    PasswordMissing { client: Arc<str> },

    /// Who guesses is not told whether there is a client of that name.
    #[error(
        "the user name and password that came are those of none of `clients`; look at NAME:PASSWORD@ in the URL of the proxy: \
         @, : and / have to be percent-encoded there"
    )]
    WrongPassword {
        /// The client whose name came as that of the user, for the log alone.
        named: Option<Arc<str>>,
    },

    #[error(
        "the client that opened this tunnel is none of `clients` any more, or has another password; open a new one"
    )]
    Removed,

    #[error(
        "the client certificate of {title} is that of no client; where it should be, add it to `clients` by app_guid, \
         space_guid or certificate"
    )]
    Unknown { title: Arc<str> },

    #[error(
        "the client certificate of {title} is that of no client, and no user name and password came; add it to `clients` by \
         app_guid, space_guid or certificate, or write NAME:PASSWORD@ into the URL of the proxy"
    )]
    UnknownWithoutPassword { title: Arc<str> },
}

impl CommandClient {
    pub(crate) fn basic(user: &str, password: &str) -> Self {
        Self(Some(Password::of(user, password.as_bytes())))
    }
}

impl Password {
    fn of(user: &str, password: &[u8]) -> Self {
        let mut shown = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
        shown.extend_from_slice(user.as_bytes());
        shown.push(b':');
        shown.extend_from_slice(password);
        Self(Zeroizing::new(BASE64.encode(&shown)))
    }

    /// Compares in constant time, so that the time does not reveal how much of a guess is right.
    fn is(&self, shown: &[u8]) -> bool {
        verify_slices_are_equal(shown, self.0.as_bytes()).is_ok()
    }
}

impl Clients {
    /// Returns the client that shows this; `None` where the listener serves everybody.
    pub(crate) fn admit(
        &self,
        shown: Shown<'_>,
        now: SystemTime,
    ) -> Result<Option<&Arc<Client>>, ClientRefusal> {
        if !self.asks {
            return Ok(None);
        }
        let certified = match shown.peer {
            Some(peer) if peer.has_ended(now) => return Err(peer.ended()),
            Some(peer) => Some(peer.clients(self, now)),
            None => None,
        };
        let is_certified = |place: usize| certified.as_ref().is_some_and(|places| places.contains(&place));
        let Some(password) = shown.password else {
            let mut places = certified.iter().flat_map(|places| places.iter());
            let found = places.find(|place| self.clients[**place].password.is_none());
            return match (found, shown.peer) {
                (Some(place), _) => Ok(Some(&self.clients[*place])),
                (None, Some(peer)) => Err(self.half_known(peer, certified.as_deref())),
                (None, None) => Err(self.without()),
            };
        };
        // All of them are compared, so that the time does not reveal which names there are.
        let mut found = None;
        for (place, client) in self.clients.iter().enumerate() {
            if client.password.as_ref().is_some_and(|own| own.is(password)) {
                found = Some((place, client));
            }
        }
        match found {
            None if self.is_of_command() => Err(ClientRefusal::Command),
            None => Err(ClientRefusal::WrongPassword {
                named: self.named_by(password),
            }),
            Some((place, client)) if client.identities.is_empty() || is_certified(place) => Ok(Some(client)),
            Some((_, client)) => Err(ClientRefusal::HalfShown {
                client: Arc::clone(&client.name),
            }),
        }
    }

    /// Whether the listener asks who comes.
    pub(crate) fn asks(&self) -> bool {
        self.asks
    }

    /// Whether all requests come from one app, as far as can be told.
    pub(crate) fn serve_one_app(&self) -> bool {
        !self.asks || self.clients.len() <= 1
    }

    /// Whether a client is known by a password, be it one that could not be read.
    pub(crate) fn asks_for_passwords(&self) -> bool {
        self.written.clients.iter().any(|keys| keys.basic.is_some())
            || self.clients.iter().any(|client| client.is_command)
    }

    /// Returns how TLS is spoken on the listener; `None`: it is not.
    pub(crate) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref()
    }

    /// Returns how long the certificate of the listener is valid.
    pub(crate) fn life(&self) -> Option<&Lifetime> {
        self.life.as_ref()
    }

    /// Whether it was made of other secrets than `old`.
    pub(crate) fn is_rotated(&self, old: &Self) -> bool {
        self.fingerprint != old.fingerprint
    }

    /// Whether every client can be known.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns why somebody is refused who shows neither a password nor a certificate.
    pub(crate) fn without(&self) -> ClientRefusal {
        if !self.asks_for_passwords() {
            return ClientRefusal::NoCertificate;
        }
        if self.is_of_command() {
            return ClientRefusal::Command;
        }
        let is_enough = |client: &Arc<Client>| client.password.is_none() && !client.identities.is_empty();
        ClientRefusal::Nothing {
            or_certificate: self.clients.iter().any(is_enough),
        }
    }

    /// Returns why a certificate without a password is refused; `fits`: the clients that it is enough for, but for that.
    fn half_known(&self, peer: &Peer, fits: Option<&[usize]>) -> ClientRefusal {
        match fits.and_then(|fits| fits.first()) {
            Some(place) => ClientRefusal::PasswordMissing {
                client: Arc::clone(&self.clients[*place].name),
            },
            None => peer.unknown(self.asks_for_passwords()),
        }
    }

    /// Whether nobody is served but the command of `outrider exec`.
    fn is_of_command(&self) -> bool {
        self.written.clients.is_empty()
    }

    /// Returns the client whose name came as that of the user.
    fn named_by(&self, shown: &[u8]) -> Option<Arc<str>> {
        let shown = Zeroizing::new(BASE64.decode(shown).ok()?);
        let end = shown.iter().position(|byte| *byte == b':')?;
        let is_named = |client: &&Arc<Client>| client.name.as_bytes() == &shown[..end];
        let named = self.clients.iter().find(is_named)?;
        Some(Arc::clone(&named.name))
    }
}

impl Client {
    /// Refuses a destination that is not one of the client's.
    pub(crate) fn check(&self, destination: &Arc<str>) -> Result<(), ClientRefusal> {
        match &self.destinations {
            Some(own) if !own.contains(destination) => Err(ClientRefusal::Destination {
                client: Arc::clone(&self.name),
                destination: Arc::clone(destination),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl<'s> Shown<'s> {
    /// Reads the fields of a request. `None`: they show something that is no password.
    pub(crate) fn of(fields: &'s Fields, peer: Option<&'s Arc<Peer>>) -> Option<Self> {
        let mut shown = fields.get_all(PROXY_AUTHORIZATION);
        let password = match (shown.next(), shown.next()) {
            (None, _) => None,
            (Some(shown), None) => Some(token(shown.as_bytes())?),
            (Some(_), Some(_)) => return None,
        };
        Some(Self { password, peer })
    }

    /// Takes the token of `Basic`, without its scheme.
    pub(crate) fn with(password: Option<&'s [u8]>, peer: Option<&'s Arc<Peer>>) -> Self {
        Self { password, peer }
    }

    pub(crate) fn keep(self) -> KeptShown {
        KeptShown {
            password: self.password.map(|password| Zeroizing::new(password.to_vec())),
            peer: self.peer.cloned(),
        }
    }
}

impl KeptShown {
    pub(crate) fn shown(&self) -> Shown<'_> {
        Shown {
            password: self.password.as_ref().map(|password| password.as_slice()),
            peer: self.peer.as_ref(),
        }
    }
}

impl ClientRefusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Command
            | Self::Nothing { .. }
            | Self::PasswordMissing { .. }
            | Self::UnknownWithoutPassword { .. }
            | Self::WrongPassword { .. } => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Destination { .. }
            | Self::Ended { .. }
            | Self::HalfShown { .. }
            | Self::NoCertificate
            | Self::Removed
            | Self::Unknown { .. } => StatusCode::FORBIDDEN,
        }
    }

    /// Returns what the log says besides the sentence.
    pub(crate) fn log_note(&self) -> Option<String> {
        match self {
            Self::WrongPassword { named: Some(client) } => {
                Some(format!("the user name is that of client {client}"))
            }
            Self::WrongPassword { named: None } => Some("the user name is that of no client".to_owned()),
            _ => None,
        }
    }

    /// Returns the word for the metric: `None` for a request that may come again with a password.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        (self.status() == StatusCode::FORBIDDEN).then_some(CLIENT_REFUSED)
    }
}

/// Encodes user name and password as SOCKS5 has them; `None` for a name that no client can have.
pub(crate) fn basic_token(user: &[u8], password: &[u8]) -> Option<Zeroizing<String>> {
    // With a colon in it, name and password would be split elsewhere.
    let user = std::str::from_utf8(user)
        .ok()
        .filter(|user| !user.contains(':'))?;
    Some(Password::of(user, password).0)
}

/// Returns what follows `Basic`.
fn token(shown: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = shown.split_at_checked(b"Basic ".len())?;
    let is_basic = scheme.eq_ignore_ascii_case(b"Basic ") && shown.len() <= LONGEST_SHOWN;
    is_basic.then(|| rest.trim_ascii())
}

impl fmt::Debug for CommandClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "CommandClient"
        } else {
            "Nobody"
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("asks", &self.asks)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeptShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptShown(redacted)")
    }
}
