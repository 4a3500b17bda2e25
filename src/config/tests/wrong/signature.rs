//! Credentials that sign.

use super::*;

const AWS: &str = "service: s3, region: us-east-1, access_key_id: env:ID, secret_access_key: env:KEY";
const MESSAGE: &str = "key_id: k, key: file:sign.pem";
const HMAC: &str = "key: env:KEY, set: { X-Signature: '{signature}' }";

fn auth(kind: &str, common: &str, keys: &str) -> String {
    told_of(&format!("auth: {{ {kind}: {{ {common}, {keys} }} }}"))
}

#[test]
fn what_is_sound_is_fine() {
    for (kind, common, keys) in [
        ("aws_sigv4", AWS, "session_token: env:TOKEN, max_body: 8MiB"),
        (
            "http_signature",
            MESSAGE,
            "algorithm: ed25519, label: a*, components: ['@method', Content-Digest, '@query-param;name=\"a\"'], \
             expires: 5m, nonce: true, alg: true, tag: app",
        ),
        (
            "http_signature",
            "key_id: env:ID, key: env:KEY",
            "algorithm: hmac-sha256, key_encoding: base64, components: ['@path'], created: false",
        ),
        (
            "hmac",
            HMAC,
            "message: '{body}', key_encoding: hex, algorithm: sha1, encoding: base64url",
        ),
        (
            "hmac",
            HMAC,
            "message: \"{key_id}\\n{date}\", key_id: vcap:ledger/id",
        ),
    ] {
        assert_eq!(auth(kind, common, keys), "", "{kind}: {keys}");
    }
}

#[test]
fn what_contradicts_itself_is_told() {
    let components = "components: ['@method']";
    for (kind, common, keys, wanted) in [
        (
            "aws_sigv4",
            AWS,
            "max_body: 65MiB",
            "auth.aws_sigv4.max_body: `65MiB` is out of range; write a size from 0B to 64MiB",
        ),
        (
            "aws_sigv4",
            "service: \"s3/../x\", region: us-east-1, access_key_id: a",
            "secret_access_key: env:KEY",
            "auth.aws_sigv4.service: not the name of a service or a region; write it as AWS does, as in s3 or us-gov-west-1",
        ),
        (
            "aws_sigv4",
            "service: s3, region: us-east-1, access_key_id: a",
            "secret_access_key: hunter2",
            "auth.aws_sigv4.secret_access_key: a plain value where a reference belongs; write env:NAME, file:PATH or vcap:SERVICE/KEY",
        ),
        (
            "http_signature",
            MESSAGE,
            "algorithm: RS256, components: ['@method']",
            "auth.http_signature.algorithm: `RS256` is not one of the choices; write ecdsa-p256-sha256, \
             ecdsa-p384-sha384, ed25519, hmac-sha256, rsa-pss-sha512 or rsa-v1_5-sha256",
        ),
        (
            "http_signature",
            MESSAGE,
            "algorithm: ed25519, components: ['@method', '@method']",
            "auth.http_signature.components[1]: stands there already; remove it: each is signed once",
        ),
        (
            "http_signature",
            MESSAGE,
            "algorithm: ed25519, components: ['@status']",
            "auth.http_signature.components[0]: `@status` is not a component that a proxy signs; write the name of a \
             field, or one of @method, @target-uri, @authority, @scheme, @request-target, @path, @query or \
             '@query-param;name=\"id\"'",
        ),
        (
            "http_signature",
            MESSAGE,
            &format!("algorithm: ed25519, {components}, key_encoding: base64"),
            "auth.http_signature.key_encoding: only the secret of an HMAC has one; remove it: a private key is PEM",
        ),
        (
            "http_signature",
            MESSAGE,
            &format!("algorithm: ed25519, {components}, created: false, expires: 5m"),
            "auth.http_signature: expires without created; remove created: false",
        ),
        (
            "http_signature",
            MESSAGE,
            &format!("algorithm: ed25519, {components}, expires: 1500ms"),
            "auth.http_signature.expires: a fraction of a second; write whole seconds, as in 5m",
        ),
        (
            "http_signature",
            MESSAGE,
            &format!("algorithm: ed25519, {components}, label: Sig"),
            "auth.http_signature.label: not the name of a signature; write a name of small letters, digits, -, _, . \
             and *, as in sig1",
        ),
        (
            "http_signature",
            MESSAGE,
            &format!("algorithm: ed25519, {components}, tag: 'a\"b'"),
            "auth.http_signature.tag: has to be visible ASCII, without quotes and backslashes; write it without",
        ),
        (
            "hmac",
            HMAC,
            "message: 'static'",
            "auth.hmac.message: the same for every request; write what the service wants to be signed, as in \
             \"{method}\\n{target}\\n{body_sha256}\"",
        ),
        (
            "hmac",
            HMAC,
            "message: '{signature}'",
            "auth.hmac.message: {signature} cannot be part of what is signed; write it in `set`",
        ),
        (
            "hmac",
            HMAC,
            "message: '{key_id}{body}'",
            "auth.hmac: {key_id} without a key_id; write key_id: NAME",
        ),
        (
            "hmac",
            "key: env:KEY, set: { X-Date: '{date}' }",
            "message: '{body}'",
            "auth.hmac.set: no field says the signature; write one, as in X-Signature: '{signature}'",
        ),
        (
            "hmac",
            "key: env:KEY, set: { X-Signature: '{signature}{body}' }",
            "message: '{date}'",
            "auth.hmac.set.X-Signature: a body cannot stand in a header; write {body_sha256}",
        ),
        (
            "hmac",
            "key: env:KEY, set: { X-Signature: \"{signature}\\n\" }",
            "message: '{date}'",
            "auth.hmac.set.X-Signature: cannot stand in a header; write it in one line",
        ),
        (
            "hmac",
            "key: env:KEY, set: { Host: '{signature}' }",
            "message: '{date}'",
            "auth.hmac.set.Host: `Host` belongs to the connection and is set by the proxy; remove it",
        ),
        (
            "hmac",
            HMAC,
            "message: '{date'",
            "auth.hmac.message: `{date` is a text with a brace that stands alone; write {{ or }} for a brace that is \
             meant as one",
        ),
    ] {
        let told = auth(kind, common, keys);
        assert_eq!(told, wanted, "{kind}: {keys}");
        assert!(!told.contains("hunter2"));
    }
}

#[test]
fn hmacs_of_a_pool_set_the_same_fields() {
    let hmac = |name: &str| {
        format!("{{ hmac: {{ key: env:A, message: '{{body}}', set: {{ {name}: '{{signature}}' }} }} }}")
    };
    let pool =
        |one: &str, other: &str| told_of(&format!("auth: {{ pool: [{}, {}] }}", hmac(one), hmac(other)));
    assert_eq!(pool("X-A", "x-a"), "");
    assert!(pool("X-A", "X-B").contains("credentials of several kinds"));
}
