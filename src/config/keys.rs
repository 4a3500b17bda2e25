//! Every key of the language, in one place.
//!
//! The tables say what a key is called, what it means, what may be written, what holds where it is not written, and
//! whether it works yet. Three things are made from them and so cannot disagree: which keys are unknown (and what
//! was probably meant), which do not work yet, and the JSON schema. The decoder in [`super::decode`] takes every
//! key that works; a test writes nonsense at each and expects the decoder to notice.

/// The keys of one mapping.
pub(super) type Table = &'static [Key];

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// One line, for the schema.
    pub(super) doc: &'static str,
    pub(super) kind: Kind,
    /// What holds where the key is not written, as YAML; empty where nothing does.
    pub(super) default: &'static str,
    pub(super) status: Status,
}

/// What may stand after a key.
#[derive(Debug)]
pub(super) enum Kind {
    /// An address with its port, as in `127.0.0.1:3128`.
    Address,
    /// One of the alternatives.
    Any(&'static [Self]),
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// 500ms, 10s, 5m, 1h, 7d.
    Duration,
    List(&'static Self),
    /// A key that does not work yet, or exactly this value.
    Literal(&'static str),
    /// A mapping from names that the user chooses.
    Named(&'static Self),
    /// A whole number in a range.
    Number(u64, u64),
    /// 5/s burst 10.
    Rate,
    /// A reference: `env:`, `file:` or `vcap:`.
    Secret,
    /// 64KiB.
    Size,
    Table(Table),
    Text,
}

#[derive(Debug)]
pub(super) enum Status {
    Works,
    /// Refused, except these values, which say what holds anyway.
    Later(&'static [&'static str]),
}

/// The whole file.
pub(super) static ROOT: Table = &[
    works(
        "listen",
        Kind::Any(&[Kind::Text, Kind::List(&Kind::Text)]),
        "127.0.0.1:3128",
        "Where apps reach the proxy: a loopback address with its port, unix:PATH, or a list.",
    ),
    works(
        "admin",
        Kind::Any(&[Kind::Address, Kind::Literal("false")]),
        "127.0.0.1:9901",
        "Where /metrics, /healthz and /readyz are served; false turns it off.",
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
    later("instances", &["auto"], "How many instances share a quota."),
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
    later("rate_limit_store", &["null"], "One quota for all instances."),
    works(
        "destinations",
        Kind::Named(&Kind::Table(DESTINATION)),
        "{}",
        "By name: the hosts that get a credential, rules or limits. The name is the label in metrics and logs.",
    ),
    later("tcp", &["null", "{}"], "Other protocols through a local port."),
    later("route_service", &["null"], "The inbound half, bound to routes."),
    later("doctor", &["null", "{}"], "What doctor tries."),
];

pub(super) static LOG: Table = &[
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
    later("metrics", &["off"], "A line of the key counters every so often."),
];

pub(super) static TELEMETRY: Table = &[
    later("otlp", &["null"], "Traces over OTLP/HTTP."),
    later("push", &["null"], "Prometheus remote write."),
];

pub(super) static CA: Table = &[
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
];

pub(super) static EGRESS: Table = &[
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
        "Classes or CIDR blocks that resolved addresses must not be in.",
    ),
    works(
        "allow_networks",
        Kind::List(&Kind::Any(&[Kind::Choice(NETWORK_CLASSES), Kind::Text])),
        "[]",
        "Exceptions, for example 10.255.0.0/16 or loopback.",
    ),
    later("parent", &["null", "[]"], "Proxies behind this one."),
    later("parent_ca", &["null"], "Whom to trust as parent."),
    later(
        "parent_bypass",
        &["null", "[]", "[apps.internal]"],
        "Reached directly.",
    ),
];

pub(super) static DNS: Table = &[
    works(
        "servers",
        Kind::Any(&[Kind::Choice(&["system"]), Kind::List(&Kind::Address)]),
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
        Kind::Named(&Kind::Any(&[Kind::Text, Kind::List(&Kind::Text)])),
        "{}",
        "Names and their addresses, before any look-up.",
    ),
];

pub(super) static TIMEOUTS: Table = &[
    works("connect", Kind::Duration, "5s", "To a connection."),
    works("tls", Kind::Duration, "5s", "To a finished handshake."),
    works("response", Kind::Duration, "60s", "To the head of the response."),
    works(
        "idle",
        Kind::Duration,
        "5m",
        "Without a byte in either direction.",
    ),
];

pub(super) static LIMITS: Table = &[
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
        "The head of a request or response, from 8KiB to 1MiB.",
    ),
    works(
        "memory",
        Kind::Any(&[Kind::Choice(&["auto"]), Kind::Size]),
        "auto",
        "auto: the sidecar's MEMORY_LIMIT, else none.",
    ),
];

pub(super) static DESTINATION: Table = &[
    works(
        "hosts",
        Kind::List(&Kind::Text),
        "",
        "Required. host, host:port, *.suffix, address or CIDR; the most specific wins. Without a port: 80 and 443.",
    ),
    works(
        "paths",
        Kind::List(&Kind::Text),
        "",
        "Only these paths, as in /api/**; default: all.",
    ),
    works(
        "methods",
        Kind::List(&Kind::Text),
        "",
        "Only these methods; default: all.",
    ),
    works("auth", Kind::Table(AUTH), "", "The credential that is attached."),
    works(
        "headers",
        Kind::Table(HEADERS),
        "{}",
        "Headers that are set and removed.",
    ),
    works(
        "tls",
        Kind::Table(TLS),
        "",
        "How TLS is spoken to the destination.",
    ),
    works(
        "mode",
        Kind::Choice(&["auto", "tunnel", "intercept"]),
        "auto",
        "auto intercepts CONNECT where something here must see the request; under tunnel, limits count tunnels.",
    ),
    works(
        "upgrade",
        Kind::Boolean,
        "",
        "http:// from the app leaves as https://; default: true where tls or auth stands.",
    ),
    works(
        "http",
        Kind::Choice(&["auto", "1", "2"]),
        "auto",
        "The version spoken to the destination; auto: by ALPN, mirrored to the app.",
    ),
    later("parent", &["inherit"], "Another proxy behind this one."),
    later("probe", &["null"], "The one request that doctor may send."),
    works(
        "rate_limit",
        Kind::Any(&[
            Kind::Rate,
            Kind::List(&Kind::Any(&[Kind::Rate, Kind::Table(RATE_LIMIT)])),
        ]),
        "",
        "5/s, 30/m, 1000/h or 10000/d, with an optional burst; one or several.",
    ),
    later("priority", &["null", "[]"], "Who goes first."),
    works(
        "concurrency",
        Kind::Number(1, MOST_CONCURRENT),
        "",
        "Requests at once.",
    ),
    works(
        "on_limit",
        Kind::Any(&[Kind::Choice(&["reject"]), Kind::Text]),
        "reject",
        "reject, or `wait D`: queue in order, and 429 at once if it would take longer.",
    ),
    later("queue", &["null"], "How many may wait."),
    later(
        "respect_upstream",
        &["null", "false"],
        "Learn from what the destination says about its limits.",
    ),
    later("retry", &["null"], "What is sent again."),
    later(
        "circuit_breaker",
        &["null", "off"],
        "Leave a failing destination alone.",
    ),
    later("cache", &["null", "off"], "What need not be asked again."),
    later("rehearse", &["null", "off"], "Simulate the destination's limits."),
    later(
        "scrub",
        &["null", "false"],
        "Strike attached secrets out of responses.",
    ),
    works(
        "insecure_attach_over_http",
        Kind::Boolean,
        "false",
        "true: attach the credential even where the request leaves in clear.",
    ),
    works(
        "timeouts",
        Kind::Table(DESTINATION_TIMEOUTS),
        "{}",
        "Where they differ from the ones of the whole file.",
    ),
];

/// As [`TIMEOUTS`], but what is not written here falls back to what is written there.
pub(super) static DESTINATION_TIMEOUTS: Table = &[
    works("connect", Kind::Duration, "", "To a connection."),
    works("tls", Kind::Duration, "", "To a finished handshake."),
    works("response", Kind::Duration, "", "To the head of the response."),
    works("idle", Kind::Duration, "", "Without a byte in either direction."),
];

pub(super) static AUTH: Table = &[
    works(
        "bearer",
        Kind::Secret,
        "",
        "Authorization: Bearer, with this token.",
    ),
    works("basic", Kind::Table(BASIC), "", "Authorization: Basic."),
    works("header", Kind::Table(AUTH_HEADER), "", "A header of any name."),
    works("query", Kind::Table(AUTH_QUERY), "", "A parameter of the query."),
    later("aws_sigv4", &[], "AWS Signature Version 4."),
    later("http_signature", &[], "RFC 9421 signatures."),
    later("jwt", &[], "A signed token."),
    later("match", &[], "By path, in a list of credentials."),
    later("none", &[], "By path, in a list of credentials."),
    later("oauth2", &[], "OAuth 2.0."),
    later("pool", &[], "Several credentials in turn."),
];

pub(super) static BASIC: Table = &[
    works(
        "username",
        Kind::Text,
        "",
        "Required. A plain value or a reference.",
    ),
    works("password", Kind::Secret, "", "Required."),
];

pub(super) static AUTH_HEADER: Table = &[
    works("name", Kind::Text, "", "Required. As in X-Api-Key."),
    works("value", Kind::Secret, "", "Required."),
];

pub(super) static AUTH_QUERY: Table = &[
    works("name", Kind::Text, "", "Required. As in api_key."),
    works("value", Kind::Secret, "", "Required."),
];

pub(super) static HEADERS: Table = &[
    works(
        "set",
        Kind::Named(&Kind::Text),
        "{}",
        "Plain values or references; what the app sent is replaced.",
    ),
    works(
        "remove",
        Kind::List(&Kind::Text),
        "[]",
        "Names; a trailing * matches any rest, as in X-Internal-*.",
    ),
];

pub(super) static TLS: Table = &[
    works(
        "client_certificate",
        Kind::Table(CLIENT_CERTIFICATE),
        "",
        "What we show to a destination that demands a certificate.",
    ),
    works("ca", Kind::Secret, "", "PEM roots instead of the system's."),
    works("ca_extra", Kind::Secret, "", "PEM roots beside the system's."),
    works(
        "server_name",
        Kind::Text,
        "",
        "SNI, and the name that is verified; default: the host.",
    ),
    works(
        "min_version",
        Kind::Choice(&["1.2", "1.3"]),
        "\"1.2\"",
        "The oldest TLS version that is spoken.",
    ),
    later("pins", &["null", "[]"], "Hashes of public keys."),
    later("crl", &["null"], "Revoked certificates."),
];

pub(super) static CLIENT_CERTIFICATE: Table = &[
    works("cert", Kind::Secret, "", "Required. The PEM chain."),
    works(
        "key",
        Kind::Secret,
        "",
        "Required. Its PEM key in PKCS#1, PKCS#8 or SEC1.",
    ),
    later("passphrase", &["null"], "Of an encrypted key."),
    later("pkcs12", &["null"], "Both in one file."),
    later("password", &["null"], "Of a PKCS#12 file."),
];

pub(super) static RATE_LIMIT: Table = &[
    works("limit", Kind::Rate, "", "Required. As in 2/s burst 4."),
    works(
        "match",
        Kind::Table(MATCH),
        "{}",
        "Which requests it counts; default: all.",
    ),
];

pub(super) static MATCH: Table = &[
    works("method", Kind::Text, "", "As in POST; default: any."),
    works("path", Kind::Text, "", "As in /api/**; default: any."),
];

static PORT: Kind = Kind::Number(1, 65_535);

/// As `egress.deny_networks` names them.
pub(super) const NETWORK_CLASSES: &[&str] = &[
    "private",
    "link-local",
    "loopback",
    "multicast",
    "metadata",
    "reserved",
];

pub(super) const MOST_CONCURRENT: u64 = u32::MAX as u64;
pub(super) const MOST_CONNECTIONS: u64 = 1_000_000;
pub(super) const MOST_WORKERS: u64 = 1_024;

const fn works(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        kind,
        default,
        status: Status::Works,
    }
}

const fn later(name: &'static str, off: &'static [&'static str], doc: &'static str) -> Key {
    Key {
        name,
        doc,
        kind: Kind::Text,
        default: "",
        status: Status::Later(off),
    }
}
