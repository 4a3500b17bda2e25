//! The keys of tokens: those that are asked for, and those that are signed here.

use super::{Kind, Table, needed, works};

pub(in crate::config) static OAUTH2: Table = &[
    needed(
        "token_url",
        Kind::Text,
        "The token endpoint: https://, unless insecure_attach_over_http says otherwise.",
    ),
    works(
        "grant",
        Kind::Choice(&[
            "client_credentials",
            "refresh_token",
            "jwt_bearer",
            "token_exchange",
        ]),
        "client_credentials",
        "What a token is given for (RFC 6749, 7523, 8693).",
    ),
    works("client_id", Kind::Value, "", "A plain value or a reference."),
    works(
        "client_secret",
        Kind::Secret,
        "",
        "With client_auth: basic or post. A variable that is set to nothing means an empty one.",
    ),
    works(
        "client_auth",
        Kind::Choice(&["basic", "post", "private_key_jwt", "tls", "none"]),
        "",
        "How the client shows who it is; default: basic where client_secret stands, private_key_jwt where client_assertion does, else none. tls: by the client certificate that the token endpoint gets (RFC 8705).",
    ),
    works(
        "client_assertion",
        Kind::Table(JWT),
        "",
        "With client_auth: private_key_jwt. iss and sub are client_id, aud is token_url, unless claims say otherwise.",
    ),
    works(
        "assertion",
        Kind::Table(JWT),
        "",
        "With grant: jwt_bearer. iss and sub are client_id where it is written, aud is token_url, unless claims say otherwise.",
    ),
    works(
        "refresh_token",
        Kind::Secret,
        "",
        "With grant: refresh_token. A new one that the server gives in its place is kept in memory.",
    ),
    works(
        "subject_token",
        Kind::Secret,
        "",
        "With grant: token_exchange: the token that is exchanged.",
    ),
    works(
        "subject_token_type",
        Kind::Text,
        "urn:ietf:params:oauth:token-type:access_token",
        "What kind of token that is.",
    ),
    works(
        "actor_token",
        Kind::Secret,
        "",
        "With grant: token_exchange: the token of the party that acts for the subject.",
    ),
    works(
        "actor_token_type",
        Kind::Text,
        "urn:ietf:params:oauth:token-type:access_token",
        "What kind of token that is.",
    ),
    works(
        "requested_token_type",
        Kind::Text,
        "",
        "With grant: token_exchange: the kind of token that is wanted.",
    ),
    works(
        "scopes",
        Kind::List(&Kind::Text),
        "[]",
        "What the token is to allow.",
    ),
    works(
        "audience",
        Kind::Any(&[Kind::Text, Kind::List(&Kind::Text)]),
        "[]",
        "Whom the token is for, by name; one or several.",
    ),
    works(
        "resource",
        Kind::Any(&[Kind::Text, Kind::List(&Kind::Text)]),
        "[]",
        "Whom the token is for, by absolute URI (RFC 8707); one or several.",
    ),
    works(
        "params",
        Kind::Named("", &Kind::Value),
        "{}",
        "Further parameters of the token request: plain values or references.",
    ),
];

pub(in crate::config) static JWT: Table = &[
    needed(
        "key",
        Kind::Secret,
        "A private key in PEM or DER: PKCS#8, PKCS#1 or SEC1.",
    ),
    works(
        "algorithm",
        Kind::Choice(&[
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
        ]),
        "RS256",
        "As RFC 7518 and 8037 call it.",
    ),
    works(
        "key_id",
        Kind::Value,
        "",
        "The kid of the token's header: a plain value or a reference.",
    ),
    works(
        "certificate",
        Kind::Secret,
        "",
        "The certificate of the key: PEM, DER or PKCS#7; those of its issuers may follow. Its hashes (x5t, x5t#S256) go into the token's header.",
    ),
    works(
        "x5c",
        Kind::Boolean,
        "false",
        "true: the certificate itself, and those of its issuers, go into the header as well.",
    ),
    works("typ", Kind::Text, "JWT", "The typ of the header, as in at+jwt."),
    works(
        "claims",
        Kind::Named("", &Kind::Json),
        "{}",
        "What the token says: plain values, references, lists and mappings of these. iat and exp are added.",
    ),
    works(
        "jti",
        Kind::Boolean,
        "",
        "true: each token has an id, for services that take each token once; default: true in an assertion. With jwt each request then has a token that is signed for it alone.",
    ),
    works(
        "lifetime",
        Kind::Duration,
        "5m",
        "How long a token is valid, from 30s to 1d.",
    ),
];
