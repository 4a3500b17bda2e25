//! The keys of a destination.

use super::limits::{CACHE, CIRCUIT_BREAKER, MATCH, PRIORITY, RATE_LIMIT, REHEARSE, RETRY};
use super::{Key, Kind, MOST_CONCURRENT, MOST_WAITING, Table, later, needed, oauth, signatures, works};

pub(in crate::config) static DESTINATION: Table = &[
    needed(
        "hosts",
        Kind::Filled(&Kind::Text),
        "host, host:port, host:* (any port), *.suffix, address or CIDR; the most specific wins. Without a port: 80 and 443.",
    ),
    works(
        "paths",
        Kind::Filled(&Kind::Text),
        "",
        "Only these paths, as in /api/**; default: all.",
    )
    .ends_tls(),
    works(
        "methods",
        Kind::Filled(&Kind::Text),
        "",
        "Only these methods; default: all.",
    )
    .ends_tls(),
    works(
        "auth",
        Kind::Any(&[
            Kind::OneOf(AUTH),
            Kind::Filled(&Kind::Table(AUTH_RULE)),
            Kind::Choice(&["none"]),
        ]),
        "",
        "The credential that is attached; or a list by path and method, of which the first match counts.",
    )
    .ends_tls(),
    works(
        "headers",
        Kind::Table(HEADERS),
        "{}",
        "Headers that are set and removed.",
    )
    .ends_tls(),
    works(
        "tls",
        Kind::Table(TLS),
        "",
        "How TLS is spoken to the destination.",
    )
    .ends_tls(),
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
        "http:// from the app leaves as https://, and cookies of that host alone lose Secure on their way back; default: true where tls or auth stands.",
    ),
    works(
        "http",
        Kind::Choice(&["auto", "1", "2"]),
        "auto",
        "The version spoken to the destination; auto: by ALPN, mirrored to the app, in clear as the app.",
    ),
    later("parent", &["inherit"], "Another proxy behind this one."),
    later("probe", &["null"], "The one request that doctor may send."),
    works(
        "rate_limit",
        Kind::Any(&[
            Kind::Rate,
            Kind::Filled(&Kind::Any(&[Kind::Rate, Kind::Table(RATE_LIMIT)])),
        ]),
        "",
        "5/s, 30/m, 1000/h or 10000/d; one or several. `5/s burst 10` lets ten pass at once after a quiet time; without burst, as many as the number.",
    )
    .ends_tls(),
    works(
        "priority",
        Kind::List(&Kind::Table(PRIORITY)),
        "[]",
        "Who goes first where several wait; the first match counts.",
    ),
    works(
        "concurrency",
        Kind::Number(1, MOST_CONCURRENT),
        "",
        "Requests at once.",
    )
    .ends_tls(),
    works(
        "on_limit",
        Kind::Any(&[Kind::Choice(&["reject"]), Kind::Text]),
        "reject",
        "reject, or `wait D`: queue in order, and 429 at once if it would take longer.",
    ),
    works(
        "queue",
        Kind::Number(1, MOST_WAITING),
        "1000",
        "How many requests may wait; past it they are refused.",
    ),
    works(
        "respect_upstream",
        Kind::Boolean,
        "",
        "Learn from 429, 503, Retry-After, RateLimit and X-RateLimit-*; default: true where requests are seen.",
    )
    .ends_tls(),
    works(
        "limits_apply_to",
        Kind::Choice(&["auto", "destination", "host", "credential", "route"]),
        "auto",
        "Whom a learned limit concerns: all of the destination, a host, a credential at a host, or a route of these; auto: what the answers show.",
    )
    .ends_tls(),
    works(
        "retry",
        Kind::Any(&[
            Kind::Table(RETRY),
            Kind::Choice(&["off"]),
            Kind::Literal("false"),
            Kind::Literal("null"),
        ]),
        "",
        "What is sent again, of what is safe to send again; default: only what a stale connection lost.",
    )
    .ends_tls(),
    works(
        "circuit_breaker",
        Kind::Any(&[
            Kind::Table(CIRCUIT_BREAKER),
            Kind::Choice(&["off"]),
            Kind::Literal("false"),
            Kind::Literal("null"),
        ]),
        "",
        "Leave a failing host alone for a while; default: off.",
    )
    .ends_tls(),
    works(
        "cache",
        Kind::Any(&[
            Kind::Table(CACHE),
            Kind::Choice(&["off"]),
            Kind::Literal("false"),
            Kind::Literal("null"),
        ]),
        "",
        "Keep what need not be asked again (RFC 9111); default: off.",
    )
    .ends_tls(),
    works(
        "rehearse",
        Kind::Any(&[
            Kind::Table(REHEARSE),
            Kind::Choice(&["off"]),
            Kind::Literal("false"),
            Kind::Literal("null"),
        ]),
        "",
        "Simulate the destination's limits and faults, to see the app under them; default: off.",
    )
    .ends_tls(),
    works(
        "scrub",
        Kind::Boolean,
        "false",
        "true: strike attached secrets out of the text of answers too; out of their fields they are struck always.",
    )
    .ends_tls(),
    works(
        "preserve_header_case",
        Kind::Boolean,
        "false",
        "true: over HTTP/1.1 field names leave as the sender spelled them (SOAPAction, ETag), both ways; else in lower case.",
    ),
    works(
        "via",
        Kind::Boolean,
        "false",
        "true: add Via to requests and responses. Some servers send answers to such requests uncompressed (nginx as shipped).",
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

/// As [`super::TIMEOUTS`], but what is not written here falls back to what is written there.
pub(in crate::config) static DESTINATION_TIMEOUTS: Table = &[
    works("connect", Kind::Duration, "", "To a connection."),
    works("tls", Kind::Duration, "", "To a finished handshake."),
    works(
        "response",
        Kind::Duration,
        "",
        "To the head of the response; each interim one (1xx) extends it.",
    ),
    works("idle", Kind::Duration, "", "Without a byte in either direction."),
];

/// The kinds of credentials, between what else may stand beside them.
macro_rules! kinds {
    ([$($before:expr)?], [$($after:expr),*]) => {
        &[
            $($before,)?
            BEARER,
            BASIC_KEY,
            HEADER,
            QUERY,
            OAUTH2,
            JWT,
            AWS_SIGV4,
            HTTP_SIGNATURE,
            HMAC,
            $($after,)*
        ]
    };
}

/// Of a destination.
pub(in crate::config) static AUTH: Table = kinds!([], [POOL, NONE]);

/// In a list of a destination.
pub(in crate::config) static AUTH_RULE: Table = kinds!([MATCHED], [POOL, NONE]);

/// Of a pool.
pub(in crate::config) static CREDENTIAL: Table = kinds!([], []);

const MATCHED: Key = works(
    "match",
    Kind::Table(MATCH),
    "{}",
    "To which requests it is attached; default: to all that no match before it takes.",
);
const BEARER: Key = works(
    "bearer",
    Kind::Secret,
    "",
    "Authorization: Bearer, with this token.",
);
const BASIC_KEY: Key = works("basic", Kind::Table(BASIC), "", "Authorization: Basic.");
const HEADER: Key = works("header", Kind::Table(AUTH_HEADER), "", "A header of any name.");
const QUERY: Key = works("query", Kind::Table(AUTH_QUERY), "", "A parameter of the query.");
const OAUTH2: Key = works(
    "oauth2",
    Kind::Table(oauth::OAUTH2),
    "",
    "Authorization: Bearer, with a token that is asked for and kept fresh (OAuth 2.0).",
);
const JWT: Key = works(
    "jwt",
    Kind::Table(oauth::JWT),
    "",
    "Authorization: Bearer, with a JSON Web Token that is signed here.",
);
const AWS_SIGV4: Key = works(
    "aws_sigv4",
    Kind::Table(signatures::AWS_SIGV4),
    "",
    "AWS Signature Version 4.",
);
const HTTP_SIGNATURE: Key = works(
    "http_signature",
    Kind::Table(signatures::HTTP_SIGNATURE),
    "",
    "HTTP Message Signatures (RFC 9421), with Content-Digest (RFC 9530).",
);
const HMAC: Key = works(
    "hmac",
    Kind::Table(signatures::HMAC),
    "",
    "A plain HMAC over what a service wants, said where it wants it.",
);
const POOL: Key = works(
    "pool",
    Kind::Filled(&ONE_CREDENTIAL),
    "",
    "Several credentials of one kind: the one with the most left of its quota is attached, and one that is refused is left out for a while.",
);
static ONE_CREDENTIAL: Kind = Kind::OneOf(CREDENTIAL);
const NONE: Key = works("none", Kind::Literal("true"), "", "true: nothing is attached.");

pub(in crate::config) static BASIC: Table = &[
    needed("username", Kind::Value, "A plain value or a reference."),
    needed(
        "password",
        Kind::Secret,
        "A reference. A variable that is set to nothing means an empty password.",
    ),
];

pub(in crate::config) static AUTH_HEADER: Table = &[
    needed("name", Kind::Text, "As in X-Api-Key."),
    needed("value", Kind::Secret, "A reference."),
];

pub(in crate::config) static AUTH_QUERY: Table = &[
    needed("name", Kind::Text, "As in api_key."),
    needed("value", Kind::Secret, "A reference."),
];

pub(in crate::config) static HEADERS: Table = &[
    works(
        "set",
        Kind::Named("", &Kind::Value),
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

pub(in crate::config) static TLS: Table = &[
    works(
        "client_certificate",
        Kind::Any(&[
            Kind::Table(CLIENT_CERTIFICATE),
            Kind::Literal("instance_identity"),
        ]),
        "",
        "What we show to a destination that demands a certificate: cert and key, or pkcs12; or the platform's.",
    ),
    works(
        "ca",
        Kind::Secret,
        "",
        "Roots instead of the system's: PEM, DER or PKCS#7.",
    ),
    works(
        "ca_extra",
        Kind::Secret,
        "",
        "Roots beside the system's: PEM, DER or PKCS#7.",
    ),
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
    works(
        "groups",
        Kind::Filled(&Kind::Choice(GROUPS)),
        "[X25519MLKEM768, x25519, secp256r1, secp384r1]",
        "Groups of the key exchange that are offered, the first choice first. Without X25519MLKEM768 the ClientHello fits into one TCP segment.",
    ),
    works(
        "pins",
        Kind::Any(&[Kind::List(&Kind::Text), Kind::Literal("null")]),
        "[]",
        "sha256/BASE64 of public keys, one of which the verified chain must have. Verification stays as it is.",
    ),
    works(
        "crl",
        Kind::Any(&[Kind::Secret, Kind::Filled(&Kind::Secret), Kind::Literal("null")]),
        "null",
        "Lists of revoked certificates (CRLs), PEM, DER or PKCS#7; one reference or several.",
    ),
];

/// As the TLS registry of IANA has them.
const GROUPS: &[&str] = &["X25519MLKEM768", "x25519", "secp256r1", "secp384r1"];

pub(in crate::config) static CLIENT_CERTIFICATE: Table = &[
    works("cert", Kind::Secret, "", "The chain: PEM, DER or PKCS#7."),
    works(
        "key",
        Kind::Secret,
        "",
        "Its key: PEM or DER of PKCS#8, PKCS#1 or SEC1.",
    ),
    works("passphrase", Kind::Secret, "", "Of an encrypted key."),
    works(
        "pkcs12",
        Kind::Secret,
        "",
        "Both in one file (.p12, .pfx), or base64 of it, with PEM's markers or without.",
    ),
    works("password", Kind::Secret, "", "Of a PKCS#12 file."),
];
