//! What was written: the configuration file as a typed tree, and everything that is wrong with it.
//!
//! A text is read into a tree whose every value knows its place ([`node`]), and decoded into a [`Config`] with the
//! help of one table of all keys ([`keys`]). Decoding goes on after a problem, so that all of them are told at once,
//! each with its place, and a key is never ignored: an unknown one is a problem that names the nearest real one,
//! and so is one that does not work yet. Secrets never stand in a `Config`: a [`SecretRef`] says where one lives.
//!
//! What a configuration means is decided in `policy`; which file it is, in [`mod@locate`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

pub(crate) use algorithm::Algorithm;
pub(crate) use auth::component::{Component, form_encoded};
pub(crate) use auth::jwt::{Claim, Jwt};
#[cfg(test)]
pub(crate) use auth::oauth::ExchangedToken;
pub(crate) use auth::oauth::{ClientAuth, Grant, OAuth2, TokenUrl};
pub(crate) use auth::signatures::{AwsSigV4, Encoding, Hmac, HttpSignature, KeyEncoding, SESSION_TOKEN};
pub(crate) use auth::template::{BodyHash, Piece, Template};
pub(crate) use environment::Environment;
pub(crate) use limits::{StoreForm, store_url};
pub(crate) use locate::{DEFAULT_FILE, Source, load_located};
pub(crate) use problems::{Locations, Problem, Problems};
#[cfg(test)]
pub(crate) use reference::keys_that_end_tls;
pub(crate) use schema::schema;

use crate::host::{Host, HostPattern};
use crate::http1::HeadRules;
use crate::units::Rate;

use node::Node;
use reader::{Decoding, Field};

mod algorithm;
mod auth;
mod decode;
mod destination;
mod environment;
mod keys;
mod limits;
mod locate;
mod node;
mod problems;
mod reader;
#[cfg(test)]
mod reference;
mod schema;
mod secret_ref;
#[cfg(test)]
mod tests;

/// The whole file. Defaults are filled in; below this nothing means "not written" unless it says so.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Listen>,
    /// `None`: `admin: false`.
    pub(crate) admin: Option<SocketAddr>,
    /// `None`: the container's CPU share.
    pub(crate) workers: Option<usize>,
    pub(crate) drain: Duration,
    pub(crate) log: Log,
    pub(crate) ca: Ca,
    pub(crate) egress: Egress,
    pub(crate) dns: Dns,
    /// How many instances share each quota. `None`: `auto`, one unless a store knows better.
    pub(crate) instances: Option<NonZeroU32>,
    pub(crate) limits: Limits,
    /// The store that holds the quotas of all instances.
    pub(crate) rate_limit_store: Option<RateLimitStore>,
    /// In the order of the file.
    pub(crate) destinations: Vec<Destination>,
    /// Where everything stands in the file, for whoever finds a problem later.
    pub(crate) locations: Locations,
    /// Of hosts that no destination names.
    pub(crate) timeouts: Timeouts,
}

/// How the store of the quotas is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RateLimitStore {
    /// Plain only without a password.
    pub(crate) url: Text,
    /// What Sentinels ask for.
    pub(crate) sentinel_password: Option<SecretRef>,
    pub(crate) tls: Tls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: tracing::Level,
    pub(crate) access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Auto,
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    All,
    Errors,
    None,
}

/// Paths with `$VARS` and `~` expanded.
#[derive(Clone, Debug)]
pub(crate) struct Ca {
    pub(crate) bundle: PathBuf,
    pub(crate) truststore: PathBuf,
    pub(crate) lifetime: Duration,
    pub(crate) constraints: Constraints,
}

/// What the name constraints of the local authority are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Constraints {
    #[default]
    NamesAndAddresses,
    Names,
    None,
}

#[derive(Clone, Debug)]
pub(crate) struct Egress {
    pub(crate) default: EgressDefault,
    pub(crate) ports: Vec<u16>,
    /// As written. All classes are denied, also those that it leaves out.
    pub(crate) deny_networks: Vec<Network>,
    pub(crate) allow_networks: Vec<Network>,
}

impl Egress {
    /// The classes that `deny_networks` leaves out although it looks as if it named all that is to be denied.
    pub(crate) fn unnamed_classes(&self) -> Option<String> {
        let denied = &self.deny_networks;
        let is_meant = denied.is_empty() || denied.iter().any(|network| matches!(network, Network::Class(_)));
        let is_unnamed = |class: &NetworkClass| {
            let class = Network::Class(*class);
            is_meant && !denied.contains(&class) && !self.allow_networks.contains(&class)
        };
        let unnamed = NetworkClass::ALL.into_iter().filter(is_unnamed);
        let names: Vec<_> = unnamed.map(NetworkClass::name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EgressDefault {
    Deny,
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Class(NetworkClass),
    Block(IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkClass {
    LinkLocal,
    Loopback,
    Metadata,
    Multicast,
    Private,
    Reserved,
}

impl NetworkClass {
    pub(crate) const ALL: [Self; 6] = [
        Self::Private,
        Self::LinkLocal,
        Self::Loopback,
        Self::Multicast,
        Self::Metadata,
        Self::Reserved,
    ];

    /// The word of a class, as the configuration writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::LinkLocal => "link-local",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Private => "private",
            Self::Reserved => "reserved",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dns {
    pub(crate) hosts: BTreeMap<Arc<str>, Vec<IpAddr>>,
    pub(crate) max_ttl: Duration,
    pub(crate) min_ttl: Duration,
    /// Empty: the system's.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) stale: Duration,
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    /// Of a request: `header_size` and `header_count`.
    pub(crate) request_fields: HeadRules,
    /// Of a response: `response_header_size` and `response_header_count`.
    pub(crate) response_fields: HeadRules,
    /// `None`: `auto`, the sidecar's MEMORY_LIMIT, else none.
    pub(crate) memory: Option<u64>,
    pub(crate) tunnels: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
    pub(crate) response: Duration,
    pub(crate) tls: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) name: String,
    /// The first that matches a request counts. Empty: nothing is attached.
    pub(crate) auth: Vec<AuthRule>,
    pub(crate) cache: Option<Cache>,
    pub(crate) circuit_breaker: Option<CircuitBreaker>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) headers: Headers,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) http: HttpVersion,
    pub(crate) insecure_attach_over_http: bool,
    pub(crate) limits_apply_to: AppliesTo,
    /// Empty: all.
    pub(crate) methods: Vec<Method>,
    pub(crate) mode: Mode,
    pub(crate) on_limit: OnLimit,
    /// Path globs (`*` within a segment, `**` any number of segments). Empty: all.
    pub(crate) paths: Vec<String>,
    pub(crate) priorities: Vec<Priority>,
    /// How many requests may wait.
    /// The names of fields leave HTTP/1.1 as their sender spelled them.
    pub(crate) preserve_header_case: bool,
    pub(crate) queue: usize,
    pub(crate) rate_limits: Vec<RateLimit>,
    pub(crate) rehearse: Option<Rehearse>,
    /// `None`: not written; it holds where requests are seen anyway.
    pub(crate) respect_upstream: Option<bool>,
    pub(crate) retry: Option<Retry>,
    pub(crate) scrub: bool,
    pub(crate) timeouts: Timeouts,
    /// `None`: not written.
    pub(crate) tls: Option<Tls>,
    /// Via is added to requests and responses.
    pub(crate) via: bool,
    /// `None`: not written; the default is true where tls or auth stands.
    pub(crate) upgrade: Option<bool>,
}

/// What is attached to some of a destination's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthRule {
    /// None: nothing is attached. Several: any of them will do.
    pub(crate) credentials: Vec<Credential>,
    /// `None`: any.
    pub(crate) method: Option<Method>,
    /// A path glob. `None`: any.
    pub(crate) path: Option<String>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) auth: Auth,
    /// Where it stands in its destination, as in `auth[1].pool[0]`.
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

/// A plain value or a reference: where both may stand (`headers.set`, `username`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    Plain(String),
    Reference(SecretRef),
}

/// Where a secret lives. Never the secret itself.
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    /// Names as written; a trailing `*` matches any rest.
    pub(crate) remove: Vec<String>,
    pub(crate) set: Vec<(HeaderName, HeaderText)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderText {
    Plain(HeaderValue),
    Reference(SecretRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Auto,
    H1,
    H2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Auto,
    Intercept,
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLimit {
    Reject,
    Wait(Duration),
}

/// Whom and what a limit is taken to be about that the upstream tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AppliesTo {
    /// What its answers show.
    #[default]
    Auto,
    Credential,
    Destination,
    Host,
    Route,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RateLimit {
    pub(crate) rate: Rate,
    /// `None`: any.
    pub(crate) method: Option<Method>,
    /// A path glob. `None`: any.
    pub(crate) path: Option<String>,
}

/// Which requests go first where several wait. The first match counts; none: [`Class::Normal`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Priority {
    pub(crate) class: Class,
    /// `None`: any.
    pub(crate) method: Option<Method>,
    /// A path glob. `None`: any.
    pub(crate) path: Option<String>,
}

/// In the order in which they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    High,
    #[default]
    Normal,
    Low,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// How often a request is sent at most, the first time included.
    pub(crate) attempts: u32,
    /// How many requests of a hundred may be repeats.
    pub(crate) budget: u8,
    /// Where no connection could be made.
    pub(crate) on_connect: bool,
    /// Answers after which it is sent again.
    pub(crate) on_status: Vec<StatusCode>,
    /// How long an answer may ask to wait for another one to be tried.
    pub(crate) max_wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CircuitBreaker {
    pub(crate) failures: u32,
    pub(crate) open_for: Duration,
    pub(crate) within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cache {
    pub(crate) min_fresh: Duration,
    /// Bytes, of everything together.
    pub(crate) size: u64,
    pub(crate) stale_if_error: Duration,
    pub(crate) stale_while_revalidate: Duration,
}

/// What is simulated of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rehearse {
    /// How many requests pass before the limit is said to be reached. `None`: it never is.
    pub(crate) after: Option<u32>,
    pub(crate) answer: StatusCode,
    /// How many requests of a hundred fail.
    pub(crate) fail: u8,
    pub(crate) latency: Duration,
    pub(crate) retry_after: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    pub(crate) ca: Option<SecretRef>,
    pub(crate) ca_extra: Option<SecretRef>,
    pub(crate) client_certificate: Option<ClientCertificate>,
    /// Lists of revoked certificates.
    pub(crate) crl: Vec<SecretRef>,
    /// For the key exchange, the first choice first; empty: what is usual.
    pub(crate) groups: Vec<Group>,
    pub(crate) min_version: TlsVersion,
    pub(crate) pins: Vec<Pin>,
    pub(crate) server_name: Option<Host>,
}

/// The SHA-256 of a public key with its algorithm (the SubjectPublicKeyInfo of RFC 5280, in DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

/// A group of the key exchange: `supported_groups` of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    Secp256r1,
    Secp384r1,
    X25519,
    X25519MlKem768,
}

/// As the TLS registry of IANA has it.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
            Self::X25519 => "x25519",
            Self::X25519MlKem768 => "X25519MLKEM768",
        })
    }
}

/// Where the certificate that we show comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientCertificate {
    /// What Cloud Foundry gives each app instance.
    InstanceIdentity,
    /// The chain, and its key in PKCS#1, PKCS#8 or SEC1.
    Pem {
        cert: SecretRef,
        key: SecretRef,
        passphrase: Option<SecretRef>,
    },
    /// Both in one file.
    Pkcs12 {
        file: SecretRef,
        password: Option<SecretRef>,
    },
}

/// Where it comes from, for a person.
impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opener = match self {
            Self::InstanceIdentity => {
                f.write_str("the instance identity (CF_INSTANCE_CERT with key CF_INSTANCE_KEY)")?;
                None
            }
            Self::Pem {
                cert,
                key,
                passphrase,
            } => {
                write!(f, "{cert} with key {key}")?;
                passphrase.as_ref()
            }
            Self::Pkcs12 { file, password } => {
                write!(f, "{file}")?;
                password.as_ref()
            }
        };
        opener.map_or(Ok(()), |secret| write!(f, ", opened by {secret}"))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

impl Config {
    /// Reads a configuration text; `name` is the file's name as problems print it.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, Problems> {
        Self::parse_in(text, name, Environment::of_process())
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
        let config = decode::config(Field {
            decoding: &decoding,
            node: &root,
            path: String::new(),
        });
        match (config, decoding.problems.into_inner()) {
            (Some(config), problems) if problems.is_empty() => Ok(Self { locations, ..config }),
            (_, problems) => {
                let full = problems.len() == problems::MOST;
                let mut problems = fail(problems).located(&locations);
                if full {
                    problems.add("", "there may be more", "mend these first");
                }
                Err(problems)
            }
        }
    }

    /// Reads a configuration file.
    pub(crate) fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let text = locate::read(path).map_err(|problem| Problems {
            file: name.clone(),
            all: vec![problem],
        })?;
        Self::parse(&text, &name)
    }

    /// What holds where there is no file: tunnel everything except private and metadata networks.
    pub(crate) fn embedded() -> Self {
        // The text is ours and a test parses it: there is nothing in it that could fail.
        Self::parse("egress: { default: tunnel }", "the built-in default")
            .expect("the built-in text is sound")
    }
}
