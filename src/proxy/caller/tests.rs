use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::auth::Payload;
use crate::config::Config;
use crate::host::Target;
use crate::limit::Limiters;
use crate::message::{Request, RequestHead};
use crate::policy::Policy;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::Telemetry;
use crate::upstream::{Endpoint, tls};

/// Parses a request: the target, then a field in each line.
fn head(text: &str) -> Box<RequestHead> {
    let mut lines = text.split('\n').map(str::trim);
    let mut request = http::Request::get(lines.next().unwrap());
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    Request::from(request.body(()).unwrap()).into_parts().0
}

fn destination(auth: &str) -> Arc<Destination> {
    let config = Config::parse(
        &format!("destinations: {{ d: {{ hosts: [a.test]{auth} }} }}"),
        "a.yml",
    );
    let policy = Policy::compile(&config.unwrap_or_else(|problems| panic!("{problems}"))).unwrap();
    Arc::clone(&policy.destinations[1])
}

/// The caller of a request to a destination that attaches nothing.
fn caller(text: &str) -> Caller {
    of(&head(text), &destination(""), None)
}

/// An unsigned token with these claims.
fn jwt(claims: &str) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    format!("{}.{}.c2ln", part(r#"{"alg":"ES256"}"#), part(claims))
}

#[track_caller]
fn assert_told_apart(one: &str, other: &str) {
    assert_ne!(caller(one), caller(other), "{one}\n{other}");
    assert_ne!(caller(one), Caller::default(), "{one}");
}

#[track_caller]
fn assert_same(one: &str, other: &str) {
    assert_eq!(caller(one), caller(other), "{one}\n{other}");
}

#[test]
fn each_credential_of_the_app_is_a_caller() {
    for field in [
        "Authorization: Bearer $",
        "Authorization: Basic $",
        "Authorization: Token $",
        "Authorization: GoogleLogin auth=$",
        "Authorization: $",
        "X-Authorization: Bearer $",
        "X-Api-Key: $",
        "api-key: $",
        "apikey: $",
        "X_API_KEY: $",
        "DD-API-KEY: $",
        "X-Goog-Api-Key: $",
        "X-RapidAPI-Key: $",
        "Ocp-Apim-Subscription-Key: $",
        "X-Auth-Token: $",
        "X-Access-Token: $",
        "Private-Token: $",
        "X-Shopify-Access-Token: $",
        "Circle-Token: $",
        "X-Vault-Token: $",
        "X-Figma-Token: $",
        "Client-Id: $",
        "X-Goog-User-Project: $",
        "Stripe-Account: $",
        "Cookie: theme=dark; JSESSIONID=$",
        "Cookie: access_token=$",
    ] {
        let request = |user: &str| format!("/\n{}", field.replace('$', user));
        assert_told_apart(&request("anna"), &request("bert"));
        assert_same(
            &request("anna"),
            &format!("{}\nAccept: text/html", request("anna")),
        );
    }
    for parameter in [
        "api_key",
        "apikey",
        "apiKey",
        "key",
        "access_token",
        "token",
        "subscription-key",
        "appid",
        "client_id",
    ] {
        let request = |user: &str| format!("/items?q=a&{parameter}={user}&page=2");
        assert_told_apart(&request("anna"), &request("bert"));
        assert_same(&request("anna"), &format!("/other?{parameter}=anna"));
    }
    // A request with two of them is identified by both, in any order.
    let both = [
        "/\nX-Api-Key: a\nAuthorization: Bearer b",
        "/\nAuthorization: Bearer b\nX-Api-Key: a",
    ];
    assert_same(both[0], both[1]);
    assert_told_apart(both[0], "/\nX-Api-Key: a");
    assert_told_apart("/\nX-Api-Key: a\nX-Api-Key: a", "/\nX-Api-Key: a");
}

/// A value that changes with each message must not make each message another caller.
#[test]
fn what_changes_from_request_to_request_is_left_out() {
    let aws = "Authorization: AWS4-HMAC-SHA256 Credential=AKIDA/2026$/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=$";
    let hawk = "Authorization: Hawk id=\"AKIDA\", ts=\"$\", nonce=\"$\", mac=\"$=\"";
    let akamai =
        "Authorization: EG1-HMAC-SHA256 client_token=AKIDA;access_token=b;timestamp=$;nonce=$;signature=$=";
    for field in [
        aws,
        hawk,
        akamai,
        "Authorization: Digest username=\"AKIDA\", realm=\"a, b\", nonce=\"$\", nc=$, uri=\"/$\", response=\"$\"",
        "Authorization: OAuth oauth_consumer_key=\"AKIDA\", oauth_token=\"t\", oauth_nonce=\"$\", oauth_signature=\"$\"",
        "Authorization: Signature keyId=\"AKIDA\",algorithm=\"rsa-sha256\",headers=\"date id=1\",signature=\"$\"",
        "Authorization: MAC id=\"AKIDA\",nonce=\"$\",mac=\"$\"",
        "Authorization: AWS AKIDA:$=",
        "Authorization: SharedKey AKIDA:$=",
        "Authorization: HMAC-SHA256 Credential=AKIDA&SignedHeaders=host&Signature=$",
        "Authorization: q-sign-algorithm=sha1&q-ak=AKIDA&q-sign-time=$&q-signature=$",
        "Signature-Input: sig1=(\"@method\" \"@path\");created=$;keyid=\"AKIDA\"\nSignature: sig1=:$:",
        "X-Amz-Date: $\nX-Api-Key: AKIDA\nX-Amz-Security-Token: $\nIdempotency-Key: $",
        "X-Api-Key: AKIDA\nX-CSRF-Token: $\nCookie: AWSALB=$; csrftoken=$; _session=$",
        "X-Api-Key: AKIDA\nSec-WebSocket-Key: $\nX-Request-Id: $",
    ] {
        let request = |moment: &str| format!("/\n{}", field.replace('$', moment));
        assert_same(&request("1"), &request("2"));
        assert_told_apart(&request("1"), &request("1").replace("AKIDA", "AKIDB"));
    }
    let signed = |moment: &str, user: &str| {
        format!("/o?X-Amz-Credential={user}%2F{moment}%2Fs3&X-Amz-Date={moment}&X-Amz-Signature={moment}")
    };
    assert_same(&signed("1", "a"), &signed("2", "a"));
    assert_told_apart(&signed("1", "a"), &signed("1", "b"));
    assert_same("/\nAuthorization: Negotiate a", "/\nAuthorization: Negotiate b");
    assert_eq!(
        caller("/items?page_token=a&q=b\nCookie: _ga=1"),
        Caller::default()
    );
}

/// Some apps make a token for each request, and all get another one after some time.
#[test]
fn a_json_web_token_tells_its_user() {
    let bearer = |claims: &str| format!("/\nAuthorization: Bearer {}", jwt(claims));
    for (one, other, is_same) in [
        (
            r#"{"iss":"app","iat":1,"exp":2}"#,
            r#"{"iss":"app","iat":3,"exp":4}"#,
            true,
        ),
        (r#"{"iss":"app","iat":1}"#, r#"{"iss":"ape","iat":1}"#, false),
        (
            r#"{"iss":"i","user_id":1,"jti":"a"}"#,
            r#"{"iss":"i","user_id":2,"jti":"a"}"#,
            false,
        ),
        (
            r#"{"iss":"i","sub":"a","aio":"x"}"#,
            r#"{"iss":"i","sub":"a","aio":"y"}"#,
            true,
        ),
        (r#"{"iss":"i","sub":"a"}"#, r#"{"iss":"i","sub":"b"}"#, false),
        (r#"{"iss":"i","sub":"a"}"#, r#"{"iss":"j","sub":"a"}"#, false),
        // Without a user: the whole token identifies the caller.
        (r#"{"iat":1}"#, r#"{"iat":2}"#, false),
        (r#"["iss"]"#, r#"["sub"]"#, false),
    ] {
        let (one, other) = (bearer(one), bearer(other));
        assert_eq!(caller(&one) == caller(&other), is_same, "{one}\n{other}");
    }
    for odd in [
        "eyJ",
        "eyJ.eyJ.",
        "eyJh.e30.c2ln",
        "eyJh.!!.c2ln",
        "eyJh.bm8.c2ln.e.e",
    ] {
        assert_told_apart(&format!("/\nX-Api-Key: {odd}"), &format!("/\nX-Api-Key: {odd}a"));
    }
}

#[test]
fn nothing_of_a_credential_is_shown() {
    let shown = format!(
        "{:?}",
        caller("/?key=canary-5d1e\nAuthorization: Bearer canary-5d1e")
    );
    assert!(!shown.contains("canary"), "{shown}");
    let digits = shown.trim_start_matches("Caller(").trim_end_matches(')');
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{shown}");
}

/// The caller is the same before and after a credential is attached.
#[tokio::test]
async fn what_outrider_attaches_is_one_caller_for_each_rule() {
    let destination = destination(
        r#", headers: { set: { X-App-Id: env:SECRET }, remove: [X-Internal-*] }, auth: [
          { match: { path: /1 }, bearer: env:SECRET },
          { match: { path: /2 }, query: { name: api_key, value: env:SECRET } },
          { match: { path: /3 }, header: { name: X-Api-Key, value: env:SECRET } },
          { match: { path: /4 }, aws_sigv4: { service: s3, region: r, access_key_id: app, secret_access_key: env:SECRET } },
          { match: { path: /5 }, pool: [{ bearer: env:SECRET }, { bearer: env:OTHER }] },
          { match: { path: /6 }, bearer: env:SECRET },
          { match: { path: /7 }, none: true }]"#,
    );
    let target = Target::of_absolute(&"https://a.test/".parse().unwrap()).unwrap();
    let credentials = |secret: &str| {
        let snapshot = Snapshot::of_variables([("SECRET", secret), ("OTHER", "other")]);
        let roots = SystemRoots::new(&snapshot, Path::new("/nowhere"));
        let tls = tls::Settings::build(&destination, &snapshot, &roots).map_err(Arc::new);
        let (telemetry, limits) = (Telemetry::new(), Limiters::default());
        let endpoint = Endpoint::new(Arc::clone(&destination), telemetry.counters("d"), tls);
        Credentials::build(
            &destination,
            &snapshot,
            &Arc::new(endpoint),
            |place| limits.of_member(&destination, place, &telemetry),
            |_| unreachable!("no token is asked for"),
            None,
            None,
        )
        .unwrap()
    };
    let (before, rotated) = (credentials("before"), credentials("rotated"));
    let of_rule = |path: &str, user: &str| {
        let mut callers = Vec::new();
        for credentials in [&before, &rotated] {
            let mut head = head(&format!(
                "https://a.test{path}?api_key={user}\nAuthorization: Bearer {user}\nX-Api-Key: {user}\nX-App-Id: {user}\nX_App_Id: {user}\nX-Internal-Token: {user}"
            ));
            let rule = destination.auth_rule(&head.method, head.uri.path()).unwrap();
            callers.push(of(&head, &destination, Some(credentials)));
            let credential = credentials.choose(rule);
            credential.apply(&mut head, &target, Payload::Whole(b"")).unwrap();
            callers.push(of(&head, &destination, Some(credentials)));
        }
        assert!(
            callers.iter().all(|caller| *caller == callers[0]),
            "{path}: {callers:?}"
        );
        callers[0]
    };
    for path in ["/1", "/2", "/3", "/4", "/5", "/7"] {
        // Fields that it does not replace still distinguish the app's users.
        assert_ne!(of_rule(path, "anna"), of_rule(path, "bert"), "{path}");
    }
    assert_ne!(of_rule("/1", "anna"), of_rule("/5", "anna"));
    assert_eq!(
        of_rule("/1", "anna"),
        of_rule("/6", "anna"),
        "the same credential by another rule"
    );
    // OPTIONS carries no credential.
    let options = |user: &str| {
        of(
            &head(&format!("/1\nAuthorization: Bearer {user}")),
            &destination,
            None,
        )
    };
    assert_ne!(options("anna"), options("bert"));
}
