//! The configuration file as a typed tree, and everything that is wrong with it.
//!
//! A text is read into a tree whose every value knows its place ([`node`]), and decoded into a [`Config`]. Each section
//! of the language is declared once ([`declare`]): its struct, its decoder, the JSON schema and the reference page come
//! from the declaration. Decoding goes on after a problem, so that all are reported at once, each with its place. A key
//! is never ignored: one that is unknown is a problem that names the nearest real one, and so is one that does not work
//! yet. A `Config` holds no secret: a [`SecretRef`] says where one is.
//!
//! What a configuration means is decided in `policy`; which file it is, in [`mod@locate`].

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

pub(crate) use algorithm::Algorithm;
pub(crate) use auth::component::{Component, form_encoded};
pub(crate) use auth::jwt::{Claim, Jwt};
#[cfg(test)]
pub(crate) use auth::oauth::ExchangedToken;
pub(crate) use auth::oauth::{ClientAuth, Grant, OAuth2, TokenUrl};
pub(crate) use auth::signatures::{
    AwsSigV4, Hmac, HttpSignature, KeyEncoding, SESSION_TOKEN, SignatureEncoding,
};
pub(crate) use auth::template::{BodyHash, Template, TemplatePiece};
pub(crate) use changed::{ChangedKey, WrittenConfig};
pub(crate) use client::{CertificateName, ClientKeys, Identity, ServerCertificate};
pub(crate) use declare::{Mark, Word};
pub(crate) use destination::{DestinationKeys, HttpVersion, Mode, is_destination_name};
pub(crate) use environment::{Environment, entries_of};
pub(crate) use headers::{HeaderText, Headers};
#[cfg(test)]
pub(crate) use limits::RetryOn;
pub(crate) use limits::{
    AppliesTo, Cache, CircuitBreaker, Class, OnLimit, Priority, RateLimit, RateLimitStore, Rehearse, Retry,
    StoreForm, store_url,
};
pub(crate) use lines::MergeError;
pub(crate) use locate::{ConfigSource, DEFAULT_FILE, load_located, locate};
pub(crate) use manifest::{Manifest, ManifestValue, needed_services};
pub(crate) use merge::{NewDestination, add_destinations, destination_lines};
pub(crate) use network::{Dns, Egress, EgressDefault, Listen, Network, NetworkClass};
pub(crate) use no_proxy::{NoProxyHost, TakenPast};
pub(crate) use parent::{ParentChoice, ParentKeys, ParentScheme, ParentUrlParts};
pub(crate) use placeholders::{PlaceholderCharacters, PlaceholderMode, PlaceholderShape, Placeholders};
pub(crate) use problems::{Locations, Problem, Problems};
pub(crate) use process::{
    Access, Ca, Constraints, DrainUntil, Limits, Log, LogFormat, Push, TimeoutOverrides, Timeouts,
};
pub(crate) use reader::nearest;
pub(crate) use route_service::{JwksPlace, ROUTE_SERVICE, RouteAuth, RouteServiceKeys, TokenRules};
pub(crate) use rule::Matcher;
pub(crate) use schema::schema;
pub(crate) use sidecar::{NewSidecar, add_sidecar, sidecar_lines};
pub(crate) use syntax::LONGEST_NAME;
pub(crate) use tcp::{StartTls, TcpKeys};
pub(crate) use tls::{ClientCertificate, Group, Pin, Tls, TlsVersion};

use declare::{Syntax, ValueKind};
use limits::OptionalStore;
use network::{AdminAddress, Listeners};
use node::Node;
use process::TelemetryKeys;
use reader::{Decoding, Located, SectionReader};
use syntax::{AutoOrNumber, ByName, ListOf, Switched};

#[macro_use]
mod declare;

mod algorithm;
mod auth;
mod changed;
mod client;
mod destination;
mod environment;
mod headers;
mod limits;
mod lines;
mod locate;
mod manifest;
mod merge;
mod network;
mod no_proxy;
mod node;
mod parent;
mod placeholders;
mod problems;
mod process;
mod reader;
#[cfg(test)]
mod reference;
mod route_service;
mod rule;
mod schema;
mod secret_ref;
mod sidecar;
mod syntax;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

/// The name that stands for the hosts that no destination names.
pub(crate) const UNLISTED: &str = "unlisted";

/// At most, of each.
const MOST_INSTANCES: u64 = 1_000_000;
const MOST_WORKERS: u64 = 1_024;

section! {
    /// The whole file. Defaults are filled in; a field below this is optional only where it says what `None` means.
    pub(crate) struct Config, check {
        /// Where apps reach the proxy, by HTTP and SOCKS5: an address with its port, unix:PATH, or a list. An address that is not
        /// loopback needs `clients`.
        listen: Vec<Listen> as Listeners = "127.0.0.1:3128";
        /// The certificate with which the listener speaks TLS, beside cleartext: cert and key, pkcs12, or instance_identity; auto:
        /// the instance identity where clients are known by certificates; false: none.
        listen_tls: ServerCertificate = "auto";
        /// Who may use the listener, by name; without it, everybody on this machine.
        clients: Vec<Arc<ClientKeys>> as ByName<ClientKeys> = "{}";
        /// Where /metrics, /healthz, /observed, /readyz and /status are served; false turns it off.
        admin: Option<SocketAddr> as AdminAddress = "127.0.0.1:9901";
        /// Threads; auto: the container's CPU share, at least 1.
        workers: Option<usize> as AutoOrNumber<usize, 1, MOST_WORKERS> = "auto";
        /// After SIGTERM: keep serving until `drain_until` holds, or this long.
        drain: Duration = "8s";
        /// quiet: nothing is under way for half a second. app_gone: and the app's connections and processes have ended (other
        /// processes of outrider's user). auto: app_gone on Cloud Foundry, else quiet.
        drain_until: DrainUntil = "auto";
        /// How many instances share each rate limit: each takes its part, with a store only while that is away. auto: 1, or as
        /// the store has seen.
        instances: Option<NonZeroU32> as Instances = "auto";
        /// What is logged, and how.
        log: Log = "{}";
        /// Where metrics and traces are sent.
        telemetry: TelemetryKeys = "{}";
        /// The local authority under which intercepted destinations are served to the app.
        ca: Ca = "{}";
        /// What may be reached at all.
        egress: Egress = "{}";
        /// Hosts that apps call without the proxy: what env, exec and the profile script set as NO_PROXY, beside what is in
        /// that variable. Nothing is attached there.
        no_proxy: Vec<NoProxyHost> as ListOf<NoProxyHost>
            = "[localhost, 127.0.0.1, \"::1\", apps.internal, .apps.internal]";
        /// Which resolver answers, and for how long.
        dns: Dns = "{}";
        /// How long anything may take; a destination can override each.
        timeouts: Timeouts = "{}";
        /// How much the app may use; past it new work is refused with a reason.
        limits: Limits = "{}";
        /// By name: the hosts that get a credential, rules or limits. The name is the label in metrics and logs.
        destinations: Vec<Arc<DestinationKeys>> as ByName<DestinationKeys> = "{}";
        /// What the app gets in the place of the secrets that destinations use.
        placeholders: Placeholders = "{}";
        /// One quota for all instances, in Redis or Valkey: a reference, as in vcap:redis/uri, or redis://HOST:PORT; for a
        /// cluster redis+cluster://HOST,HOST, for Sentinels redis+sentinel://HOST,HOST/PRIMARY.
        rate_limit_store: Option<RateLimitStore> as OptionalStore = "null";
        /// By name: local ports for other protocols than HTTP, whose connections leave as TLS or mutual TLS. The name is the
        /// label in metrics and logs, and no destination has it.
        tcp: Vec<Arc<TcpKeys>> as ByName<TcpKeys> = "{}";
        /// The inbound half: outrider as a separate app, to which routes of Cloud Foundry are bound; off: none.
        route_service: Option<Box<RouteServiceKeys>> as Switched<Box<RouteServiceKeys>> = "off";
    }
    later {
        /// What doctor tries.
        "doctor" = ["null", "{}"];
    }
    also {
        /// Where each value is in the file, for a problem that is found later.
        locations: Locations;
    }
}

/// Reads the text of a configuration file.
pub(crate) fn read_text(path: &Path) -> Result<String, Problems> {
    locate::read(path).map_err(|problem| Problems {
        file: path.display().to_string(),
        all: vec![problem],
    })
}

/// `auto`, which reads as `None`, or how many instances share a rate limit.
struct Instances;

impl Syntax for Instances {
    type Value = Option<NonZeroU32>;

    const KIND: ValueKind = AutoOrNumber::<u32, 1, MOST_INSTANCES>::KIND;

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let number = AutoOrNumber::<u32, 1, MOST_INSTANCES>::read(written)?;
        Some(number.and_then(NonZeroU32::new))
    }
}

/// The credentials for some of a destination's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthRule {
    /// Empty: nothing is attached. Several: any of them will do.
    pub(crate) credentials: Vec<Credential>,
    pub(crate) matcher: Matcher,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) auth: Auth,
    /// Its path in the destination, as in `auth[1].pool[0]`.
    pub(crate) place: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Auth {
    AwsSigV4(Box<AwsSigV4>),
    Basic { username: Text, password: SecretRef },
    Bearer(SecretRef),
    Header { name: HeaderName, value: SecretRef },
    Jwt(Box<Jwt>),
    OAuth2(Box<OAuth2>),
    Hmac(Box<Hmac>),
    HttpSignature(Box<HttpSignature>),
    Query { name: String, value: SecretRef },
}

/// A plain value or a reference, for keys that take both (`headers.set`, `username`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    Plain(String),
    Reference(SecretRef),
}

/// The place of a secret; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SecretRef {
    Env(String),
    /// `$VARS` and `~` expanded.
    File(PathBuf),
    Vcap {
        service: String,
        keys: Vec<String>,
    },
}

impl Config {
    /// Reads a configuration text; `name` is the file's name as problems print it.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, Problems> {
        Self::parse_in(text, name, Environment::of_process())
    }

    /// The same for another machine: variables in its paths that are not set here stand for themselves.
    pub(crate) fn parse_elsewhere(text: &str, name: &str) -> Result<Self, Problems> {
        Self::parse_in(text, name, Environment::elsewhere())
    }

    /// The same with the variables of a given environment.
    pub(crate) fn parse_in(text: &str, name: &str, environment: Environment<'_>) -> Result<Self, Problems> {
        let fail = |all| Problems {
            file: name.to_owned(),
            all,
        };
        let mut root = Node::parse(text).map_err(|problem| fail(vec![problem]))?;
        let mut locations = Locations {
            file: name.to_owned(),
            ..Locations::default()
        };
        let mut duplicates = Vec::new();
        root.index("", &mut locations, &mut duplicates);

        let decoding = Decoding {
            environment,
            problems: RefCell::new(duplicates),
        };
        let config = Self::read(Located {
            decoding: &decoding,
            node: &root,
            path: String::new(),
        });
        match (config, decoding.problems.into_inner()) {
            (Some(config), problems) if problems.is_empty() => Ok(config.complete(locations)),
            (_, problems) => {
                let full = problems.len() == problems::MOST;
                let mut problems = fail(problems).located(&locations);
                if full {
                    problems.add("", "there may be more", "correct these first");
                }
                Err(problems)
            }
        }
    }

    /// Forgets where everything is written, once no problem can be found any more.
    pub(crate) fn forget_locations(&mut self) {
        self.locations = Locations::default();
    }

    /// Adds what follows from all of the file.
    fn complete(mut self, locations: Locations) -> Self {
        self.limits.keeps_spelling = self.destinations.iter().any(|own| own.preserve_header_case);
        self.locations = locations;
        self
    }

    fn check(&self, reader: &SectionReader<'_>) {
        self.check_tcp(reader);
        self.check_route_service(reader);
        if let Some(admin) = self.admin.filter(|admin| admin.port() != 0)
            && self.listen.contains(&Listen::Tcp(admin))
            && let Some(written) = reader.take("admin")
        {
            written.problem("the same address as `listen`", "write another port");
        }
        if self.clients.is_empty()
            && let Some(written) = reader.take("listen")
        {
            let public = self
                .listen
                .iter()
                .enumerate()
                .filter_map(|(i, listen)| listen.public().map(|own| (i, own)));
            for (i, address) in public {
                written.problem_at(
                    i,
                    "everybody who reaches this address could use the proxy and its credentials",
                    format_args!(
                        "say under `clients` who may, or write 127.0.0.1:{}",
                        address.port()
                    ),
                );
            }
        }
        if let Some(clients) = reader.take("clients") {
            self.check_clients(&clients);
        }
    }

    /// Finds destinations that do not exist, and clients that cannot be told apart.
    fn check_clients(&self, written: &Located<'_>) {
        let entries = written.clone().named().unwrap_or_default();
        for (i, client) in self.clients.iter().enumerate() {
            let Some((_, entry)) = entries.iter().find(|(entry, _)| *entry.key == *client.name) else {
                continue;
            };
            let keys = entry.clone().named().unwrap_or_default();
            let listed = keys.into_iter().find(|(key, _)| key.key == "destinations");
            let listed = listed.map_or_else(|| entry.clone(), |(_, listed)| listed);
            for (position, destination) in client.destinations.iter().enumerate() {
                let is_known = &**destination == UNLISTED
                    || self.destinations.iter().any(|own| own.name == *destination);
                if !is_known {
                    let names = self.destinations.iter().map(|own| &*own.name);
                    let meant = nearest(destination, names).map_or_else(
                        || {
                            "write the name of one, or unlisted for hosts that no destination names"
                                .to_owned()
                        },
                        |name| format!("did you mean `{name}`?"),
                    );
                    listed.problem_at(
                        position,
                        format_args!("there is no destination `{}`", node::shown(destination)),
                        meant,
                    );
                }
            }
            let identities = client.identities();
            let is_same = |other: &&Arc<ClientKeys>| {
                client.basic.is_none()
                    && other.basic.is_none()
                    && other.identities() == identities
                    && other.ca == client.ca
            };
            if let Some(other) = self.clients[..i].iter().find(is_same) {
                entry.problem(
                    format_args!("known by the same certificates as client {}", other.name),
                    "keep one of the two",
                );
            }
        }
    }

    /// Reads a configuration file.
    pub(crate) fn load(path: &Path) -> Result<Self, Problems> {
        Self::parse(&read_text(path)?, &path.display().to_string())
    }

    /// Returns the configuration without a file: tunnel everything except private and metadata networks.
    pub(crate) fn embedded() -> Self {
        // The text is ours and a test parses it, so it cannot fail.
        Self::parse("egress: { default: tunnel }", "the built-in default")
            .expect("the built-in text is sound")
    }
}
