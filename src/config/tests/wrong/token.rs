//! What is wrong in `oauth2` and `jwt`.

use super::{assert_told_of, told_of};
use crate::config::tests::destination;
use crate::config::{Auth, Claim, ClientAuth, Grant, OAuth2, Text};

const URL: &str = "token_url: 'https://login.test/token'";

fn oauth2(keys: &str) -> OAuth2 {
    let mut rules = destination(&format!("auth: {{ oauth2: {{ {keys} }} }}")).auth;
    match rules.remove(0).credentials.remove(0).auth {
        Auth::OAuth2(oauth2) => *oauth2,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read() {
    let client = oauth2(
        "token_url: 'https://login.test:8443/token?x=1', client_id: vcap:search/client_id, client_secret: env:S, \
         scopes: [read, write], audience: api, resource: ['https://a.test', 'urn:b'], params: { tenant: 7 }",
    );
    assert_eq!(client.grant, Grant::ClientCredentials);
    assert!(matches!(client.client_auth, ClientAuth::Basic(_)));
    assert!(matches!(client.client_id, Some(Text::Reference(_))));
    assert_eq!(client.token_url.target.to_string(), "login.test:8443");
    assert_eq!(client.token_url.path_and_query, "/token?x=1");
    assert_eq!(client.audience, ["api"]);
    assert_eq!(client.resource, ["https://a.test", "urn:b"]);
    assert_eq!(
        client.params,
        [("tenant".to_owned(), Text::Plain("7".to_owned()))]
    );
    let named: Vec<_> = client.references().iter().map(|(key, _)| *key).collect();
    assert_eq!(named, ["oauth2.client_id", "oauth2.client_secret"]);

    let signed = oauth2(&format!(
        "{URL}, client_id: app, client_assertion: {{ key: file:k.pem, key_id: env:KID }}"
    ));
    assert!(matches!(signed.client_auth, ClientAuth::PrivateKeyJwt(_)));
    let named: Vec<_> = signed.references().iter().map(|(key, _)| *key).collect();
    assert_eq!(
        named,
        ["oauth2.client_assertion.key", "oauth2.client_assertion.key_id"]
    );

    let google = oauth2(&format!(
        "{URL}, grant: jwt_bearer, assertion: {{ key: file:k.pem, claims: {{ iss: app, n: 3, text: '3', ok: true, \
         aud: [a, 7], who: env:WHO, rate: 1.5, large: 18446744073709551615, version: 1.2.3, minus: -x, \
             realm: {{ roles: [env:ROLE, {{ of: app }}] }} }} }}"
    ));
    assert_eq!((google.client_auth, google.client_id), (ClientAuth::None, None));
    let Grant::JwtBearer(assertion) = google.grant else {
        panic!("{:?}", google.grant);
    };
    let claims: Vec<_> = (assertion.claims.iter())
        .map(|(name, claim)| match claim {
            Claim::Plain(value) => format!("{name}={value}"),
            Claim::Reference(reference) => format!("{name}={reference}"),
            Claim::List(items) => format!("{name}={items:?}"),
            Claim::Map(entries) => format!("{name}={entries:?}"),
        })
        .collect();
    let expected = [
        "iss=\"app\"",
        "n=3",
        "text=\"3\"",
        "ok=true",
        "aud=[Plain(String(\"a\")), Plain(Number(7))]",
        "who=env:WHO",
        "rate=1.5",
        "large=18446744073709551615",
        "version=\"1.2.3\"",
        "minus=\"-x\"",
        "realm=[(\"roles\", List([Reference(Env(\"ROLE\")), Map([(\"of\", Plain(String(\"app\")))])]))]",
    ];
    assert_eq!(claims, expected);
    let named: Vec<_> = (assertion.references().iter())
        .map(|(key, reference)| format!("{key} {reference}"))
        .collect();
    assert_eq!(
        named,
        ["jwt.key file:k.pem", "jwt.claims env:WHO", "jwt.claims env:ROLE"]
    );

    let exchange = oauth2(&format!(
        "{URL}, grant: token_exchange, subject_token: file:t, client_auth: tls, client_id: a"
    ));
    let Grant::TokenExchange { subject, .. } = exchange.grant else {
        panic!("{:?}", exchange.grant);
    };
    assert_eq!(
        subject.token_type,
        "urn:ietf:params:oauth:token-type:access_token"
    );
}

#[test]
fn what_the_grant_and_the_client_need_is_told() {
    let told = |keys: &str, expected: &str| {
        let keys = format!("auth: {{ oauth2: {{ {URL}, {keys} }} }}");
        assert_eq!(told_of(&keys).replace("auth.oauth2", "…"), expected, "{keys}");
    };
    told(
        "client_id: a",
        "…: client_credentials needs a client that shows who it is; write client_secret: REFERENCE, or client_auth: private_key_jwt or tls",
    );
    told(
        "client_secret: env:S",
        "…: `client_id` is missing; write a name or a reference",
    );
    told(
        "client_id: a, client_auth: post",
        "…: `client_secret` is missing; write env:NAME, file:PATH or vcap:SERVICE/KEY",
    );
    told(
        "client_id: a, client_auth: private_key_jwt",
        "…: `client_assertion` is missing; write { key: REFERENCE }",
    );
    told(
        "client_auth: tls",
        "…: `client_id` is missing; write a name or a reference",
    );
    told(
        "grant: refresh_token, client_id: a",
        "…: `refresh_token` is missing; write env:NAME, file:PATH or vcap:SERVICE/KEY",
    );
    told(
        "grant: token_exchange, client_id: a",
        "…: `subject_token` is missing; write env:NAME, file:PATH or vcap:SERVICE/KEY",
    );
    told(
        "grant: jwt_bearer",
        "…: `assertion` is missing; write { key: REFERENCE, claims: { … } }",
    );
    told(
        "grant: jwt_bearer, assertion: { key: env:K }",
        "…: nothing says who issues the assertion; write assertion.claims.iss, or client_id",
    );
    told(
        "grant: password",
        "….grant: `password` is not one of the choices; write client_credentials, refresh_token, jwt_bearer or token_exchange",
    );
    told(
        "client_id: a, client_secret: env:S, refresh_token: env:R",
        "….refresh_token: belongs to grant: refresh_token, and this one is client_credentials; remove it, or write grant: refresh_token",
    );
    told(
        "client_id: a, client_auth: tls, client_secret: env:S",
        "….client_secret: is not read where client_auth is tls; remove it, or write client_auth: basic or post",
    );
    told(
        "client_id: a, client_secret: env:S, client_assertion: { key: env:K }",
        "….client_assertion: is not read where client_auth is basic; remove it, or write client_auth: private_key_jwt",
    );
    told(
        "grant: token_exchange, client_id: a, subject_token: env:T, actor_token_type: x",
        "….actor_token_type: there is no actor_token that it could be the type of; write actor_token: REFERENCE, or remove it",
    );
}

#[test]
fn values_that_no_server_takes_are_told() {
    let told = |keys: &str, expected: &str| {
        let keys = format!("auth: {{ oauth2: {{ client_id: a, client_secret: env:S, {keys} }} }}");
        assert_eq!(told_of(&keys).replace("auth.oauth2.", ""), expected, "{keys}");
    };
    let right = "write an address, as in https://login.example.com/token";
    for url in [
        "/token",
        "login.test/token",
        "ftp://login.test/",
        "https://",
        "https://a:0/",
        "env:URL",
    ] {
        told(
            &format!("token_url: '{url}'"),
            &format!("token_url: not the address of a token endpoint; {right}"),
        );
    }
    for url in ["https://hunter2@login.test/", "https://login.test/token#x"] {
        told(
            &format!("token_url: '{url}'"),
            &format!("token_url: has a user name or a fragment, which no token endpoint has; {right}"),
        );
    }
    told(
        &format!("{URL}, scopes: [a b]"),
        "scopes[0]: `a b` is not a scope; write each on its own, as in [read, write], without blanks and quotes in it",
    );
    told(
        &format!("{URL}, resource: api"),
        "resource: `api` is not an absolute URI; write one, as in https://api.example.com, without a fragment",
    );
    told(
        &format!("{URL}, params: {{ scope: read }}"),
        "params.scope: `scope` is a parameter that outrider sets itself; write scopes beside params, as in scopes: [read]",
    );
    told(
        &format!("{URL}, audience: a, params: {{ audience: b }}"),
        "audience: stands in params as well; keep one of them",
    );
}

#[test]
fn a_signed_token_has_a_key_and_claims_of_its_own() {
    assert_told_of(&[
        (
            "auth: { jwt: {} }",
            "auth.jwt: `key` is missing; write env:NAME, file:PATH or vcap:SERVICE/KEY",
        ),
        (
            "auth: { jwt: { key: env:K, algorithm: HS256 } }",
            "auth.jwt.algorithm: `HS256` is not one of the choices; write RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA",
        ),
        (
            "auth: { jwt: { key: env:K, claims: { exp: 5 } } }",
            "auth.jwt.claims.exp: `exp` differs from token to token; remove it; outrider sets what is needed: lifetime says how long a token is valid, and jti: true gives it an id",
        ),
        (
            "auth: { jwt: { key: env:K, x5c: true } }",
            "auth.jwt: x5c without a certificate; write certificate: REFERENCE",
        ),
        (
            "auth: { jwt: { key: env:K, certificate: app.pem } }",
            "auth.jwt.certificate: a plain value where a reference belongs; write env:NAME, file:PATH or vcap:SERVICE/KEY",
        ),
        (
            "auth: { jwt: { key: env:K, typ: '' } }",
            "auth.jwt.typ: empty, or with a control character in it; write a text on one line",
        ),
        (
            "auth: { jwt: { key: env:K, jti: once } }",
            "auth.jwt.jti: has to be true or false; write true or false, without quotes",
        ),
        (
            "auth: { jwt: { key: env:K, claims: { a: { b: [null] } } } }",
            "auth.jwt.claims.a.b[0]: has to be a text, but is nothing; write a text, a number, true or false, a reference, or a list or mapping of these",
        ),
        (
            "auth: { jwt: { key: env:K, lifetime: 2d } }",
            "auth.jwt.lifetime: out of range; write a time from 30s to 1d; most services take at most 5m or 1h",
        ),
        (
            "auth: { jwt: { key: hunter2 } }",
            "auth.jwt.key: a plain value where a reference belongs; write env:NAME, file:PATH or vcap:SERVICE/KEY",
        ),
    ]);
}
