//! The keys of the credentials that sign.

use super::{Kind, Table, needed, works};

pub(in crate::config) static AWS_SIGV4: Table = &[
    needed("service", Kind::Text, "As in s3 or execute-api."),
    needed("region", Kind::Text, "As in us-gov-west-1."),
    needed("access_key_id", Kind::Value, "A plain value or a reference."),
    needed("secret_access_key", Kind::Secret, "A reference."),
    works(
        "session_token",
        Kind::Secret,
        "",
        "Of temporary keys; where it is an environment variable that is not set, there is none.",
    ),
    MAX_BODY,
];

pub(in crate::config) static HTTP_SIGNATURE: Table = &[
    needed("key_id", Kind::Value, "By which the server knows the key."),
    needed(
        "key",
        Kind::Secret,
        "A private key in PEM or DER, or the secret of an HMAC.",
    ),
    works(
        "key_encoding",
        KEY_ENCODING,
        "text",
        "How the secret of an HMAC is written.",
    ),
    needed(
        "algorithm",
        Kind::Choice(HTTP_ALGORITHMS),
        "As RFC 9421 names it.",
    ),
    needed(
        "components",
        Kind::Filled(&Kind::Text),
        "What is signed: fields, @method, @target-uri, @authority, @scheme, @request-target, @path, @query, '@query-param;name=\"id\"'. content-digest is computed.",
    ),
    works(
        "label",
        Kind::Text,
        "sig1",
        "The name of the signature in its fields.",
    ),
    works("created", Kind::Boolean, "true", "Say when it was made."),
    works(
        "expires",
        Kind::Duration,
        "",
        "Say that it is void after this long.",
    ),
    works("nonce", Kind::Boolean, "false", "Put a random value in each."),
    works(
        "tag",
        Kind::Text,
        "",
        "What it is for, as the application that reads it calls it.",
    ),
    works("alg", Kind::Boolean, "false", "Name the algorithm in it."),
    MAX_BODY,
];

pub(in crate::config) static HMAC: Table = &[
    needed("key", Kind::Secret, "The shared secret."),
    works("key_encoding", KEY_ENCODING, "text", "How the secret is written."),
    works(
        "key_id",
        Kind::Value,
        "",
        "A plain value or a reference, for {key_id}.",
    ),
    works(
        "algorithm",
        Kind::Choice(HMAC_ALGORITHMS),
        "sha256",
        "The hash; sha1 only where a service knows nothing better.",
    ),
    works(
        "encoding",
        Kind::Choice(&["hex", "base64", "base64url"]),
        "hex",
        "How {signature} is written.",
    ),
    needed(
        "message",
        Kind::Text,
        "What is signed, as in \"{method}\\n{target}\\n{timestamp}\\n{body_sha256}\".",
    ),
    needed(
        "set",
        Kind::Named("", &Kind::Text),
        "The fields that say it, as in { Authorization: 'HMAC {key_id}:{signature}', X-Timestamp: '{timestamp}' }.",
    ),
    MAX_BODY,
];

const KEY_ENCODING: Kind = Kind::Choice(&["text", "base64", "hex"]);

const MAX_BODY: super::Key = works(
    "max_body",
    Kind::Size,
    "1MiB",
    "The largest body that is read whole to be signed.",
);

pub(in crate::config) const HTTP_ALGORITHMS: &[&str] = &[
    "ecdsa-p256-sha256",
    "ecdsa-p384-sha384",
    "ed25519",
    "hmac-sha256",
    "rsa-pss-sha512",
    "rsa-v1_5-sha256",
];

pub(in crate::config) const HMAC_ALGORITHMS: &[&str] = &["sha1", "sha256", "sha384", "sha512"];
