use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value as Json, json};

use super::*;
use crate::config::{Algorithm, Claim, ExchangedToken, Jwt, SecretRef, TokenUrl};
use crate::host::Target;
use crate::message::RequestHead;

const TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

fn settings(grant: Grant, client_id: Option<&str>, client_auth: ClientAuth) -> OAuth2 {
    let text = "https://server.example.com/token?tenant=1";
    OAuth2 {
        audience: Vec::new(),
        client_auth,
        client_id: client_id.map(|id| Text::Plain(id.to_owned())),
        grant,
        params: Vec::new(),
        resource: Vec::new(),
        scopes: Vec::new(),
        token_url: TokenUrl {
            text: text.to_owned(),
            target: Target::of_absolute(&text.parse().unwrap()).unwrap(),
            path_and_query: "/token?tenant=1".to_owned(),
        },
    }
}

fn env(name: &str) -> SecretRef {
    SecretRef::Env(name.to_owned())
}

fn snapshot() -> Snapshot {
    let output = Command::new("openssl")
        .args(["genpkey", "-algorithm", "ED25519"])
        .output()
        .unwrap();
    let key = String::from_utf8(output.stdout).unwrap();
    Snapshot::of_variables([
        ("SECRET", "gX1fBat3bV"),
        ("ODD", "a:b&c=d e/é%"),
        ("REFRESH", "tGzv3JOkF0XG5Qx2TlKWIA"),
        ("SUBJECT", "accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC"),
        ("EMPTY", ""),
        ("KEY", &key),
    ])
}

fn assertion(claims: &[(&str, Json)]) -> Jwt {
    Jwt {
        algorithm: Algorithm::Ed25519,
        certificate: None,
        claims: claims
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Claim::Plain(value.clone())))
            .collect(),
        has_chain: false,
        has_id: None,
        key: env("KEY"),
        key_id: None,
        lifetime: Duration::from_secs(60),
        typ: "JWT".to_owned(),
    }
}

/// Returns the head and the parameters of the request.
fn ask(settings: &OAuth2, rotated: Option<&str>) -> (Box<RequestHead>, BTreeMap<String, String>) {
    ask_in(settings, BasicEncoding::Encoded, rotated)
}

fn ask_in(
    settings: &OAuth2,
    form: BasicEncoding,
    rotated: Option<&str>,
) -> (Box<RequestHead>, BTreeMap<String, String>) {
    let plan = TokenRequestPlan::build(settings, &snapshot()).unwrap();
    let rotated = rotated.map(|token| Zeroizing::new(token.to_owned()));
    let (head, body) = plan
        .request(
            rotated.as_ref(),
            form,
            UNIX_EPOCH + Duration::from_secs(1_000_005),
        )
        .unwrap();
    let decode = |text: &str| {
        let text = percent_encoding::percent_decode_str(text).decode_utf8().unwrap();
        text.into_owned()
    };
    let body = str::from_utf8(&body).unwrap();
    let pairs: Vec<_> = body
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .collect();
    let parameters: BTreeMap<_, _> = pairs
        .iter()
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    assert_eq!(parameters.len(), pairs.len(), "a parameter stands twice: {body}");
    (head, parameters)
}

fn pairs(written: &[(&str, &str)]) -> BTreeMap<String, String> {
    written
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn claims(token: &str) -> Json {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

/// RFC 6749, section 4.4.2.
#[test]
fn client_credentials_with_a_secret_in_the_header() {
    let (head, parameters) = ask(
        &settings(
            Grant::ClientCredentials,
            Some("s6BhdRkqt3"),
            ClientAuth::Basic(env("SECRET")),
        ),
        None,
    );
    assert_eq!(head.method, Method::POST);
    assert_eq!(head.uri, "/token?tenant=1");
    let field = |name| head.headers.get(name).unwrap();
    assert_eq!(field("authorization"), "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW");
    assert!(field("authorization").is_sensitive());
    assert_eq!(field("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(field("accept"), "application/json");
    assert_eq!(parameters, pairs(&[("grant_type", "client_credentials")]));
}

/// RFC 6749, section 2.3.1 and appendix B.
#[test]
fn what_a_form_reserves_is_encoded() {
    let odd = settings(
        Grant::ClientCredentials,
        Some("a:b c"),
        ClientAuth::Basic(env("ODD")),
    );
    // And without form encoding, as in RFC 7617.
    for (form, shown) in [
        (BasicEncoding::Encoded, "a%3Ab%20c:a%3Ab%26c%3Dd%20e%2F%C3%A9%25"),
        (BasicEncoding::Plain, "a:b c:a:b&c=d e/é%"),
    ] {
        let (head, _) = ask_in(&odd, form, None);
        let value = head.headers.get("authorization").unwrap();
        assert!(value.is_sensitive());
        let pair = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        let pair = BASE64.decode(pair.as_bytes()).unwrap();
        assert_eq!(str::from_utf8(&pair).unwrap(), shown);
    }
    let plan = TokenRequestPlan::build(&odd, &snapshot()).unwrap();
    assert!(plan.has_other_form());
    // The server may repeat all that it was sent.
    let shown: Vec<_> = plan.secrets().collect();
    for spelling in [
        "a:b&c=d e/é%",
        "a%3Ab%26c%3Dd%20e%2F%C3%A9%25",
        &BASE64.encode("a:b c:a:b&c=d e/é%".as_bytes()),
        &BASE64.encode(b"a%3Ab%20c:a%3Ab%26c%3Dd%20e%2F%C3%A9%25"),
    ] {
        assert!(shown.contains(&spelling.as_bytes()), "{spelling}");
    }

    let odd = settings(
        Grant::ClientCredentials,
        Some("a:b c"),
        ClientAuth::Post(env("ODD")),
    );
    let (head, parameters) = ask(&odd, None);
    assert!(!head.headers.contains_key("authorization"));
    assert_eq!(parameters["client_secret"], "a:b&c=d e/é%");
    assert_eq!(parameters["client_id"], "a:b c");
    assert!(
        !TokenRequestPlan::build(&odd, &snapshot())
            .unwrap()
            .has_other_form()
    );
}

#[test]
fn a_secret_may_be_empty_where_that_is_said() {
    let client = |auth| settings(Grant::ClientCredentials, Some("s6BhdRkqt3"), auth);
    let (head, _) = ask(&client(ClientAuth::Basic(env("EMPTY"))), None);
    assert_eq!(head.headers["authorization"], "Basic czZCaGRSa3F0Mzo=");
    let (_, parameters) = ask(&client(ClientAuth::Post(env("EMPTY"))), None);
    assert_eq!(parameters["client_secret"], "");
    let plan = TokenRequestPlan::build(&client(ClientAuth::Basic(env("SECRET"))), &snapshot()).unwrap();
    assert!(!plan.has_other_form(), "both are the same");
}

#[test]
fn scopes_audience_resource_and_params_are_sent() {
    let mut all = settings(Grant::ClientCredentials, Some("app"), ClientAuth::Tls);
    all.scopes = vec!["read".to_owned(), "write".to_owned()];
    all.audience = vec!["api".to_owned()];
    all.resource = vec!["https://api.example.com/".to_owned()];
    all.params = vec![
        ("tenant".to_owned(), Text::Plain("7".to_owned())),
        ("extra".to_owned(), Text::Reference(env("SECRET"))),
    ];
    let (head, parameters) = ask(&all, None);
    assert!(!head.headers.contains_key("authorization"));
    let expected = pairs(&[
        ("audience", "api"),
        ("client_id", "app"),
        ("extra", "gX1fBat3bV"),
        ("grant_type", "client_credentials"),
        ("resource", "https://api.example.com/"),
        ("scope", "read write"),
        ("tenant", "7"),
    ]);
    assert_eq!(parameters, expected);
}

/// RFC 6749, section 6.
#[test]
fn the_refresh_token_that_the_server_gave_last_is_sent() {
    let refresh = settings(Grant::RefreshToken(env("REFRESH")), Some("app"), ClientAuth::None);
    let expected = |token| {
        pairs(&[
            ("client_id", "app"),
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
        ])
    };
    assert_eq!(ask(&refresh, None).1, expected("tGzv3JOkF0XG5Qx2TlKWIA"));
    assert_eq!(ask(&refresh, Some("new")).1, expected("new"));
    assert!(
        !TokenRequestPlan::build(&refresh, &snapshot())
            .unwrap()
            .is_repeatable()
    );
}

/// RFC 7523, section 2.1: with and without a client.
#[test]
fn an_assertion_is_a_grant() {
    let google = [
        ("iss", json!("app@project.test")),
        ("scope", json!("https://scope.test/a")),
    ];
    let bearer = settings(Grant::JwtBearer(assertion(&google)), None, ClientAuth::None);
    let (_, parameters) = ask(&bearer, None);
    assert_eq!(
        parameters["grant_type"],
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    assert_eq!(parameters.len(), 2, "{parameters:?}");
    let mut shown = claims(&parameters["assertion"]);
    assert!(shown["jti"].take().is_string());
    let expected = json!({
        "aud": "https://server.example.com/token?tenant=1", "exp": 1_000_060, "iat": 1_000_000,
        "iss": "app@project.test", "jti": null, "scope": "https://scope.test/a",
    });
    assert_eq!(shown, expected);

    let client = settings(
        Grant::JwtBearer(assertion(&[("sub", json!("ann"))])),
        Some("app"),
        ClientAuth::None,
    );
    let shown = claims(&ask(&client, None).1["assertion"]);
    assert_eq!((&shown["iss"], &shown["sub"]), (&json!("app"), &json!("ann")));
}

/// RFC 7523, section 2.2 and 3.
#[test]
fn an_assertion_is_the_client() {
    let audience = [("aud", json!("https://server.example.com/"))];
    let client = ClientAuth::PrivateKeyJwt(assertion(&audience));
    let (_, parameters) = ask(&settings(Grant::ClientCredentials, Some("app"), client), None);
    assert_eq!(
        parameters["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    assert_eq!(parameters["client_id"], "app");
    let shown = claims(&parameters["client_assertion"]);
    assert_eq!((&shown["iss"], &shown["sub"]), (&json!("app"), &json!("app")));
    assert_eq!(shown["aud"], "https://server.example.com/");
    assert!(shown["jti"].is_string());
}

/// RFC 8693, section 2.3.
#[test]
fn a_token_is_exchanged() {
    let exchanged = |name: &str| ExchangedToken {
        token: env(name),
        token_type: TYPE.to_owned(),
    };
    let grant = Grant::TokenExchange {
        actor: Some(exchanged("SECRET")),
        requested_token_type: Some("urn:ietf:params:oauth:token-type:jwt".to_owned()),
        subject: exchanged("SUBJECT"),
    };
    let mut exchange = settings(grant, Some("rs08"), ClientAuth::Basic(env("SECRET")));
    exchange.resource = vec!["https://backend.example.com/api".to_owned()];
    let (_, parameters) = ask(&exchange, None);
    let expected = pairs(&[
        ("actor_token", "gX1fBat3bV"),
        ("actor_token_type", TYPE),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("resource", "https://backend.example.com/api"),
        ("subject_token", "accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC"),
        ("subject_token_type", TYPE),
    ]);
    assert_eq!(parameters, expected);
}

#[test]
fn nothing_shows_a_secret() {
    let plan = settings(
        Grant::RefreshToken(env("REFRESH")),
        Some("app"),
        ClientAuth::Post(env("SECRET")),
    );
    let plan = TokenRequestPlan::build(&plan, &snapshot()).unwrap();
    let shown = format!("{plan:?}");
    assert!(!shown.contains("gX1f") && !shown.contains("tGzv"), "{shown}");
    let secrets: Vec<_> = plan.secrets().collect();
    assert_eq!(secrets, [&b"gX1fBat3bV"[..], b"tGzv3JOkF0XG5Qx2TlKWIA"]);

    let missing = settings(
        Grant::ClientCredentials,
        Some("app"),
        ClientAuth::Basic(env("NONE")),
    );
    let error = TokenRequestPlan::build(&missing, &snapshot())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("env:NONE: the environment variable is not set"),
        "{error}"
    );
}
