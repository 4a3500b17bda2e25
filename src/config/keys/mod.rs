//! Every key of the language, in one place.
//!
//! The tables say what a key is called, what it means, what may be written, what holds where it is not written, and
//! whether it works yet. Three things are made from them and so cannot disagree: which keys are unknown (and what
//! was probably meant), which do not work yet, and the JSON schema. The decoder in `decode` takes every
//! key that works; a test writes nonsense at each and expects the decoder to notice.

pub(in crate::config) use destination::{
    AUTH_HEADER, AUTH_QUERY, AUTH_RULE, BASIC, CLIENT_CERTIFICATE, CREDENTIAL, DESTINATION,
    DESTINATION_TIMEOUTS, HEADERS, TLS,
};
pub(in crate::config) use limits::{
    CACHE, CIRCUIT_BREAKER, MATCH, MOST_ATTEMPTS, MOST_FAILURES, PRIORITY, RATE_LIMIT, REHEARSE, REHEARSED,
    RETRIED, RETRY,
};

pub(in crate::config) use oauth::{JWT, OAUTH2};
pub(in crate::config) use signatures::{AWS_SIGV4, HMAC, HTTP_SIGNATURE};

mod destination;
mod limits;
mod oauth;
mod signatures;

/// The keys of one mapping.
pub(in crate::config) type Table = &'static [Key];

/// One key.
#[derive(Debug)]
pub(in crate::config) struct Key {
    pub(in crate::config) name: &'static str,
    /// One line, for the schema.
    pub(in crate::config) doc: &'static str,
    pub(in crate::config) kind: Kind,
    /// What holds where the key is not written, as YAML; empty where nothing does.
    pub(in crate::config) default: &'static str,
    /// Has to be written where its mapping is.
    pub(in crate::config) required: bool,
    pub(in crate::config) status: Status,
    /// The proxy must see the requests for it to work, so `mode: auto` ends TLS where it is written.
    pub(in crate::config) ends_tls: bool,
}

impl Key {
    const fn ends_tls(mut self) -> Self {
        self.ends_tls = true;
        self
    }
}

/// What may stand after a key. Finer rules are the decoder's.
#[derive(Debug)]
pub(in crate::config) enum Kind {
    /// An address with its port, as in `127.0.0.1:3128`.
    Address,
    /// One of the alternatives.
    Any(&'static [Self]),
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// 500ms, 10s, 5m, 1h, 7d.
    Duration,
    /// A list of at least one.
    Filled(&'static Self),
    /// Whatever JSON can say: texts, numbers, booleans, lists and mappings of these.
    Json,
    List(&'static Self),
    /// Exactly this value.
    Literal(&'static str),
    /// A mapping from names that the user chooses, which match the expression.
    Named(&'static str, &'static Self),
    /// A whole number in a range.
    Number(u64, u64),
    /// 5/s burst 10.
    Rate,
    /// A mapping of which exactly one key is written.
    OneOf(Table),
    /// A reference: `env:`, `file:` or `vcap:`.
    Secret,
    /// 64KiB.
    Size,
    Table(Table),
    Text,
    /// A text which may look like a number or a boolean.
    Value,
}

#[derive(Debug)]
pub(in crate::config) enum Status {
    Works,
    /// Refused, except these values, which say what holds anyway.
    Later(&'static [&'static str]),
}

/// The whole file.
pub(in crate::config) static ROOT: Table = &[
    works(
        "listen",
        Kind::Any(&[Kind::Text, Kind::Filled(&Kind::Text)]),
        "127.0.0.1:3128",
        "Where apps reach the proxy: a loopback address with its port, unix:PATH, or a list.",
    ),
    works(
        "admin",
        Kind::Any(&[Kind::Address, Kind::Literal("false")]),
        "127.0.0.1:9901",
        "Where /metrics, /healthz, /readyz and /status are served; false turns it off.",
    ),
    works(
        "workers",
        Kind::Any(&[Kind::Choice(&["auto"]), Kind::Number(1, MOST_WORKERS)]),
        "auto",
        "Threads; auto: the container's CPU share, at least 1.",
    ),
    works(
        "drain",
        Kind::Duration,
        "8s",
        "After SIGTERM: keep serving until quiet or this long.",
    ),
    works(
        "instances",
        Kind::Any(&[Kind::Choice(&["auto"]), Kind::Number(1, MOST_INSTANCES)]),
        "auto",
        "How many instances share each rate limit: each takes its part, with a store only while that is away. auto: 1, or as the store has seen.",
    ),
    works("log", Kind::Table(LOG), "{}", "What is logged, and how."),
    works(
        "telemetry",
        Kind::Table(TELEMETRY),
        "{}",
        "Traces and remote write.",
    ),
    later("clients", &["null", "{}"], "Who may use the listener."),
    works(
        "ca",
        Kind::Table(CA),
        "{}",
        "The local authority under which intercepted destinations are served to the app.",
    ),
    works("egress", Kind::Table(EGRESS), "{}", "What may be reached at all."),
    works(
        "dns",
        Kind::Table(DNS),
        "{}",
        "Which resolver answers, and for how long.",
    ),
    works(
        "timeouts",
        Kind::Table(TIMEOUTS),
        "{}",
        "How long anything may take; each can stand in a destination too.",
    ),
    works(
        "limits",
        Kind::Table(LIMITS),
        "{}",
        "What the app may cost us; past them new work is refused with a reason.",
    ),
    works(
        "destinations",
        Kind::Named("^[a-z0-9_-]{1,63}$", &Kind::Table(DESTINATION)),
        "{}",
        "By name: the hosts that get a credential, rules or limits. The name is the label in metrics and logs.",
    ),
    works(
        "rate_limit_store",
        Kind::Any(&[
            Kind::Secret,
            Kind::Text,
            Kind::Table(RATE_LIMIT_STORE),
            Kind::Literal("null"),
        ]),
        "",
        "One quota for all instances, in Redis or Valkey: a reference, as in vcap:redis/uri, or redis://HOST:PORT; for a \
         cluster redis+cluster://HOST,HOST, for Sentinels redis+sentinel://HOST,HOST/PRIMARY.",
    ),
    later("tcp", &["null", "{}"], "Other protocols through a local port."),
    later("route_service", &["null"], "The inbound half, bound to routes."),
    later("doctor", &["null", "{}"], "What doctor tries."),
];

pub(in crate::config) static RATE_LIMIT_STORE: Table = &[
    needed(
        "url",
        Kind::Any(&[Kind::Secret, Kind::Text]),
        "Where the store is, as after rate_limit_store itself.",
    ),
    works(
        "sentinel_password",
        Kind::Secret,
        "",
        "What Sentinels ask for; the password of the URL is for the servers that they watch.",
    ),
    works(
        "tls",
        Kind::Table(TLS),
        "{}",
        "The certificate that we show and whom we trust, as for a destination.",
    ),
];

pub(in crate::config) static LOG: Table = &[
    works(
        "format",
        Kind::Choice(&["auto", "json", "text"]),
        "auto",
        "auto: text on a terminal, else JSON.",
    ),
    works(
        "level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "The least that is told.",
    ),
    works(
        "access",
        Kind::Choice(&["all", "errors", "none"]),
        "errors",
        "One line a request; errors are 4xx, 5xx, refusals and waits.",
    ),
    later(
        "metrics",
        &["off", "false"],
        "A line of the key counters every so often.",
    ),
];

pub(in crate::config) static TELEMETRY: Table = &[
    later("otlp", &["null"], "Traces over OTLP/HTTP."),
    later("push", &["null"], "Prometheus remote write."),
];

pub(in crate::config) static CA: Table = &[
    works(
        "bundle",
        Kind::Text,
        "$TMPDIR/outrider/ca-bundle.pem",
        "The system's roots and ours as PEM; $VARS and ~ are expanded, $TMPDIR is /tmp where it is not set.",
    ),
    works(
        "truststore",
        Kind::Text,
        "$TMPDIR/outrider/truststore.p12",
        "The same for Java.",
    ),
    works(
        "lifetime",
        Kind::Duration,
        "7d",
        "How long a certificate of ours lives; the key is new at every start.",
    ),
    works(
        "constraints",
        Kind::Choice(&["names_and_addresses", "names", "none"]),
        "names_and_addresses",
        "What the local authority's certificate is confined to (name constraints). BoringSSL refuses an intercepted address \
         under `names_and_addresses`; with `names` a stolen key of the authority is good for any address. Mbed TLS takes \
         `none` only; with it such a key is good for every host.",
    ),
];

pub(in crate::config) static EGRESS: Table = &[
    works(
        "default",
        Kind::Choice(&["deny", "tunnel"]),
        "deny",
        "Hosts that no destination names.",
    ),
    works("ports", Kind::List(&PORT), "[80, 443]", "For those hosts."),
    works(
        "deny_networks",
        Kind::List(&Kind::Any(&[Kind::Choice(NETWORK_CLASSES), Kind::Text])),
        "[private, link-local, loopback, multicast, metadata, reserved]",
        "Blocks that resolved addresses must not be in. They add to the classes, which are always denied.",
    ),
    works(
        "allow_networks",
        Kind::List(&Kind::Any(&[Kind::Choice(NETWORK_CLASSES), Kind::Text])),
        "[]",
        "Exceptions, for example 10.255.0.0/16 or loopback: the only way to open a class. A smaller block of \
         deny_networks stays denied.",
    ),
    later("parent", &["null", "[]"], "Proxies behind this one."),
    later("parent_ca", &["null"], "Whom to trust as parent."),
    later(
        "parent_bypass",
        &["null", "[]", "[apps.internal]"],
        "Reached directly.",
    ),
];

pub(in crate::config) static DNS: Table = &[
    works(
        "servers",
        Kind::Any(&[Kind::Choice(&["system"]), Kind::Filled(&Kind::Address)]),
        "system",
        "The system's resolvers, or a list of ADDRESS:PORT.",
    ),
    works("timeout", Kind::Duration, "5s", "How long a look-up may take."),
    works(
        "min_ttl",
        Kind::Duration,
        "5s",
        "An answer is kept at least this long.",
    ),
    works("max_ttl", Kind::Duration, "5m", "And at most this long."),
    works(
        "stale",
        Kind::Duration,
        "1m",
        "How long an answer serves on when the resolver fails.",
    ),
    works(
        "hosts",
        Kind::Named("", &Kind::Any(&[Kind::Text, Kind::Filled(&Kind::Text)])),
        "{}",
        "Names and their addresses, before any look-up.",
    ),
];

pub(in crate::config) static TIMEOUTS: Table = &[
    works("connect", Kind::Duration, "5s", "To a connection."),
    works("tls", Kind::Duration, "5s", "To a finished handshake."),
    works(
        "response",
        Kind::Duration,
        "60s",
        "To the head of the response; each interim one (1xx) extends it.",
    ),
    works(
        "idle",
        Kind::Duration,
        "5m",
        "Without a byte in either direction.",
    ),
];

pub(in crate::config) static LIMITS: Table = &[
    works(
        "connections",
        Kind::Number(1, MOST_CONNECTIONS),
        "10000",
        "Of the app with us.",
    ),
    works(
        "tunnels",
        Kind::Number(1, MOST_CONNECTIONS),
        "5000",
        "Open at once.",
    ),
    works(
        "header_size",
        Kind::Size,
        "64KiB",
        "The head of a request, and its trailers; from 8KiB to 1MiB.",
    ),
    works(
        "header_count",
        Kind::Number(10, MOST_FIELDS),
        "200",
        "Fields in the head of a request, and in its trailers.",
    ),
    works(
        "response_header_size",
        Kind::Size,
        "256KiB",
        "The head of a response, and its trailers; from 8KiB to 4MiB.",
    ),
    works(
        "response_header_count",
        Kind::Number(10, MOST_FIELDS),
        "1000",
        "Fields in the head of a response, and in its trailers.",
    ),
    works(
        "memory",
        Kind::Any(&[Kind::Choice(&["auto"]), Kind::Size]),
        "auto",
        "auto: the sidecar's MEMORY_LIMIT, else none.",
    ),
];

static PORT: Kind = Kind::Number(1, 65_535);

/// As `egress.deny_networks` names them.
pub(in crate::config) const NETWORK_CLASSES: &[&str] = &[
    "private",
    "link-local",
    "loopback",
    "multicast",
    "metadata",
    "reserved",
];

pub(in crate::config) const MOST_CONCURRENT: u64 = u32::MAX as u64;
pub(in crate::config) const MOST_CONNECTIONS: u64 = 1_000_000;
/// In a head: a map of fields holds no more than some 24,000 names.
pub(in crate::config) const MOST_FIELDS: u64 = 10_000;
pub(in crate::config) const MOST_INSTANCES: u64 = 1_000_000;
pub(in crate::config) const MOST_WAITING: u64 = 1_000_000;
pub(in crate::config) const MOST_WORKERS: u64 = 1_024;

const fn needed(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        kind,
        default: "",
        required: true,
        status: Status::Works,
        ends_tls: false,
    }
}

const fn works(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        kind,
        default,
        required: false,
        status: Status::Works,
        ends_tls: false,
    }
}

const fn later(name: &'static str, off: &'static [&'static str], doc: &'static str) -> Key {
    Key {
        name,
        doc,
        kind: Kind::Text,
        default: "",
        required: false,
        status: Status::Later(off),
        ends_tls: false,
    }
}
