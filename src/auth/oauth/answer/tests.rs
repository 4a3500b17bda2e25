use http::header;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::*;

fn answered(status: u16, body: &[u8], is_exchange: bool) -> Result<IssuedToken, TokenDenial> {
    let status = StatusCode::from_u16(status).unwrap();
    let secrets = [&b"hunter2"[..]].into_iter();
    IssuedToken::read(
        status,
        &Fields::new(),
        body,
        is_exchange,
        secrets,
        SystemTime::now(),
    )
}

fn read(body: &str) -> Result<IssuedToken, String> {
    answered(200, body.as_bytes(), false).map_err(|denial| denial.reason.to_string())
}

/// RFC 6749, section 4.4.3, and the deviations of servers.
#[test]
fn a_token_is_read_as_servers_write_it() {
    let hour = Some(Duration::from_secs(3600));
    let cases = [
        (
            r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"example","expires_in":3600}"#,
            None,
        ),
        (
            r#"{"access_token":"a","token_type":"Bearer","expires_in":3600}"#,
            Some(hour),
        ),
        (
            r#"{"access_token":"a","token_type":"bearer","expires_in":"3600"}"#,
            Some(hour),
        ),
        (
            r#"{"access_token":"a","token_type":"BEARER","expires_in":3600.0,"x":{}}"#,
            Some(hour),
        ),
        (r#"{"access_token":"a","expires_in":null}"#, Some(None)),
        (r#"{"access_token":"a"}"#, Some(None)),
        (
            r#"{"access_token":"a","expires_in":1e300}"#,
            Some(Some(Duration::from_secs(31_536_000))),
        ),
        (
            r#"{"access_token":"a","expires_in":0.5}"#,
            Some(Some(Duration::from_millis(500))),
        ),
        (r#"{"access_token":"a","expires_in":" 3600 "}"#, Some(hour)),
        (
            r#"{"access_token":"a","expires_in":"3600.5"}"#,
            Some(Some(Duration::from_millis(3_600_500))),
        ),
        // A token that does not expire, as servers write it, or an unknown lifetime.
        (r#"{"access_token":"a","expires_in":0}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":-1}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":-0.0}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":"0"}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":"-1"}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":""}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":"NaN"}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":"inf"}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":"soon"}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":[3600]}"#, Some(None)),
        (r#"{"access_token":"a","expires_in":true}"#, Some(None)),
        (
            r#"{"access_token":"a","expires_in":99999999999999999999999}"#,
            Some(Some(Duration::from_secs(31_536_000))),
        ),
        (
            r#"{"access_token":"a","refresh_token":7,"error":"","scope":["b"]}"#,
            Some(None),
        ),
        ("\u{feff}{\"access_token\":\"a\"}\r\n", Some(None)),
        // As it was before the standard.
        ("access_token=a&token_type=bearer", Some(None)),
        ("access_token=%61&expires_in=3600&scope=b+c\n", Some(hour)),
        ("access_token=a&access_token=b", None),
        ("access_token=a%20b", None),
        ("access_token=%ff", None),
        ("expires_in=3600", None),
        ("access_token", None),
        ("<html>access_token=a</html>", None),
        (r#"<a href="/?x=1&access_token=a&y=2">"#, None),
        (r#"{"access_token":"a b"}"#, None),
        (r#"{"access_token":"a\r\nX: y"}"#, None),
        (r#"{"access_token":"ä"}"#, None),
        (r#"{"access_token":""}"#, None),
        (r#"{"access_token":7}"#, None),
        (r#"{"access_token":"a","access_token":"b"}"#, None),
        (r#"{"token_type":"Bearer"}"#, None),
        (r#"["a"]"#, None),
        ("", None),
        ("null", None),
    ];
    for (body, expected) in cases {
        match (read(body), expected) {
            (Ok(grant), Some(lifetime)) => {
                assert_eq!(grant.lifetime, lifetime, "{body}");
                assert_eq!(grant.value, "Bearer a", "{body}");
                assert!(grant.value.is_sensitive());
            }
            (Err(_), None) => {}
            (other, _) => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn bearer_has_many_names() {
    for kind in [
        json!(null),
        json!(""),
        json!(" "),
        json!("Bearer "),
        json!(" bearer\n"),
        json!("BearerToken"),
        json!("Bearer Token"),
        json!("bearer_token"),
        json!("bearer-token"),
        json!("JWT"),
        json!("jwt-bearer"),
        json!("access_token"),
        json!("urn:ietf:params:oauth:token-type:access_token"),
    ] {
        let grant = read(&json!({ "access_token": "a", "token_type": kind }).to_string()).unwrap();
        assert_eq!(grant.value, "Bearer a", "{kind}");
    }
}

#[test]
fn other_types_of_token_are_told() {
    for (kind, shown) in [
        (json!("DPoP"), "a DPoP token"),
        (json!("mac"), "a MAC token"),
        (json!("pop"), "a PoP token"),
        (json!("N_A"), "an N_A token"),
        (json!("secret-echo"), "another kind of token"),
        (json!(7), "another kind of token"),
    ] {
        let error = read(&json!({ "access_token": "a", "token_type": kind }).to_string()).unwrap_err();
        assert!(error.contains(shown), "{error}");
    }
    let exchanged = br#"{"access_token":"a","token_type":"N_A","issued_token_type":"urn:x"}"#;
    assert!(answered(200, exchanged, true).is_ok());
    // For the log, like the description of an error.
    let denial = answered(200, br#"{"access_token":"a","token_type":"hunter2 Hawk"}"#, false).unwrap_err();
    assert_eq!(denial.description.as_deref(), Some("… Hawk"));
}

/// GitHub, Slack, and gateways that know no other status.
#[test]
fn an_error_with_a_status_of_success_is_told() {
    for (status, body, reason, description) in [
        (
            200,
            r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#,
            "it answered 200 OK with an error: invalid_client: check client_id",
            "… is wrong",
        ),
        (
            200,
            r#"{"error":"incorrect_client_credentials","error_description":"The client_id is incorrect."}"#,
            "it answered 200 OK with an error, which the log has",
            "incorrect_client_credentials The client_id is incorrect.",
        ),
        (
            201,
            "error=bad_verification_code&error_description=The+code+is+incorrect",
            "it answered 201 Created with an error, which the log has",
            "bad_verification_code The code is incorrect",
        ),
        (
            200,
            r#"{"error":{"code":190,"message":"Invalid client secret hunter2"}}"#,
            "it answered 200 OK with an error, which the log has",
            "Invalid client secret …",
        ),
        (
            200,
            r#"{"error":"hunter2","access_token":null}"#,
            "which the log has",
            "…",
        ),
    ] {
        let denial = answered(status, body.as_bytes(), false).unwrap_err();
        assert!(denial.reason.to_string().contains(reason), "{}", denial.reason);
        assert_eq!(denial.description.as_deref(), Some(description), "{body}");
    }
    // A token is a token.
    assert!(answered(203, br#"{"error":"","access_token":"a"}"#, false).is_ok());
}

#[test]
fn a_new_refresh_token_is_kept() {
    let grant = read(r#"{"access_token":"a","refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA"}"#).unwrap();
    assert_eq!(
        grant.refresh_token.as_ref().unwrap().as_str(),
        "tGzv3JOkF0XG5Qx2TlKWIA"
    );
    let shown = format!("{grant:?}");
    assert!(!shown.contains("tGzv") && !shown.contains("Bearer"), "{shown}");
}

fn denied(body: &str, secrets: &[&[u8]]) -> TokenDenial {
    let mut fields = Fields::new();
    fields.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
    TokenDenial::read(
        StatusCode::UNAUTHORIZED,
        &fields,
        body.as_bytes(),
        secrets.iter().copied(),
        SystemTime::now(),
    )
}

/// Read as for every destination.
#[test]
fn a_wait_is_read_in_every_form_that_servers_write() {
    for (status, name, value, expected) in [
        (400, "retry-after", "7", Some(7_000)),
        (429, "retry-after", "0.5", Some(500)),
        (503, "retry-after", "Wed, 15 Jul 2026 10:36:27 GMT", Some(10_000)),
        (429, "x-retry-after", "10", Some(10_000)),
        (429, "x-rate-limit-retry-after-seconds", "9", Some(9_000)),
        (429, "x-ratelimit-reset", "6", Some(6_000)),
        (429, "retry-after", "soon", None),
    ] {
        let mut fields = Fields::new();
        fields.insert(
            header::DATE,
            HeaderValue::from_static("Wed, 15 Jul 2026 10:36:17 GMT"),
        );
        fields.insert(name, HeaderValue::from_static(value));
        let status = StatusCode::from_u16(status).unwrap();
        let denial = TokenDenial::read(status, &fields, b"", std::iter::empty(), SystemTime::now());
        let TokenFailureReason::Refused { retry_after, .. } = denial.reason else {
            panic!("{denial:?}");
        };
        let millis = retry_after.map(|wait| wait.as_millis());
        assert_eq!(millis, expected, "{status} {name}: {value}");
    }
}

/// RFC 6749, section 5.2.
#[test]
fn an_error_is_told_in_words_that_are_known() {
    let denial = denied(
        r#"{"error":"invalid_client","error_description":"Unknown client."}"#,
        &[],
    );
    assert_eq!(
        denial.reason.to_string(),
        "it answered 401 Unauthorized invalid_client: check client_id, its secret or key, and which client_auth the \
         server wants"
    );
    assert_eq!(denial.description.as_deref(), Some("Unknown client."));
    let TokenFailureReason::Refused { retry_after, .. } = denial.reason else {
        panic!("{denial:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));

    for body in [r#"{"error":"hunter2"}"#, "<html>", "", "[]", r#"{"error":7}"#] {
        let denial = denied(body, &[b"hunter2"]);
        assert_eq!(
            denial.reason.to_string(),
            "it answered 401 Unauthorized",
            "{body}"
        );
        let description = denial.description.unwrap_or_default();
        assert!(matches!(description.as_str(), "" | "…"), "{description}");
    }
}

#[test]
fn a_description_repeats_no_secret() {
    let secrets: [&[u8]; 4] = [b"hunter2", b"two words", b"", b"pa+s/w=rd"];
    for (description, shown) in [
        ("bad secret hunter2", "bad secret …"),
        ("xhunter2x and two words too", "x…x and … too"),
        (
            "assertion eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOi.x is wrong",
            "assertion … is wrong",
        ),
        ("line\r\nforged=\u{1b}[31m", "line forged= [31m"),
        // In other encodings, and decoded once more.
        ("no pa%2bs%2fw%3drd", "no …"),
        ("no pa s/w=rd here", "no … here"),
        ("no pa&#43;s/w&#61;rd", "no …"),
        ("", ""),
        ("\n", ""),
    ] {
        let body = json!({ "error": "invalid_client", "error_description": description }).to_string();
        let denial = denied(&body, &secrets);
        assert_eq!(denial.description.unwrap_or_default(), shown, "{description}");
    }
    let long = json!({ "error_description": "word ".repeat(10_000) }).to_string();
    assert!(denied(&long, &[]).description.unwrap().len() <= LONGEST_SHOWN + 1);
}

/// Any bytes lead to a token or a reason.
#[test]
fn random_bytes_never_panic() {
    let mut random = StdRng::seed_from_u64(7);
    let sound = br#"{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"b"}"#;
    for _ in 0..20_000 {
        let mut body = sound.to_vec();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..body.len());
            match random.random_range(0..3) {
                0 => body[at] = random.random(),
                1 => body.truncate(at.max(1)),
                _ => body.insert(at, random.random()),
            }
        }
        if let Ok(grant) = answered(200, &body, random.random()) {
            assert!(
                grant
                    .lifetime
                    .is_none_or(|lifetime| !lifetime.is_zero() && lifetime <= LONGEST)
            );
        }
        let denial = TokenDenial::read(
            StatusCode::BAD_REQUEST,
            &Fields::new(),
            &body,
            std::iter::empty(),
            SystemTime::now(),
        );
        assert_eq!(denial.description, None);
    }
}
