use http::Method;

use super::*;
use crate::config::Config;
use crate::limit::Limiters;
use crate::message::Request;
use crate::policy::Policy;
use crate::secret::roots::SystemRoots;
use crate::telemetry::Telemetry;
use crate::upstream::tls;

const CANARY: &str = "canary-5d1e";

/// Every kind of credential that needs no token endpoint, by path.
const ALL: &str = r#"destinations:
  d:
    hosts: [a.test]
    headers: { set: { X-Second: env:SECRET } }
    auth:
      - { match: { path: /1 }, bearer: env:SECRET }
      - { match: { path: /2 }, basic: { username: env:SECRET, password: env:SECRET } }
      - { match: { path: /3 }, header: { name: X-Key, value: env:SECRET } }
      - { match: { path: /4 }, query: { name: key, value: env:SECRET } }
      - { match: { path: /5 }, aws_sigv4: { service: s3, region: r, access_key_id: app, secret_access_key: env:SECRET, session_token: env:SECRET } }
      - { match: { path: /6 }, jwt: { key: env:KEY, algorithm: EdDSA, claims: { iss: env:SECRET } } }
      - { match: { path: /7 }, http_signature: { key_id: app, key: env:KEY, algorithm: ed25519, components: ["@method"] } }
      - { match: { path: /8 }, hmac: { key: env:SECRET, message: "{method}", set: { X-Signature: "{signature}" } } }
      - { pool: [{ bearer: env:SECRET }, { bearer: env:SECRET }] }
"#;

/// Builds the credentials of [`ALL`] with `secret`.
fn credentials(secret: &str) -> (Arc<Destination>, Credentials) {
    let config = Config::parse(ALL, "a.yml").unwrap_or_else(|problems| panic!("{problems}"));
    let destination = Arc::clone(&Policy::compile(&config).unwrap().destinations[1]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let snapshot = Snapshot::of_variables([("SECRET", secret.to_owned()), ("KEY", key.serialize_pem())]);
    let roots = SystemRoots::new(&snapshot, std::path::Path::new("/nowhere"));
    let tls = tls::Settings::build(&destination, &snapshot, &roots).map_err(Arc::new);
    let telemetry = Telemetry::new();
    let endpoint = Endpoint::new(Arc::clone(&destination), telemetry.counters("d"), tls);
    let limits = Limiters::default();
    let credentials = Credentials::build(
        &destination,
        &snapshot,
        &Arc::new(endpoint),
        |place| limits.of_member(&destination, place, &telemetry),
        |_| unreachable!("no token is asked for"),
        None,
        None,
    );
    (Arc::clone(&destination), credentials.unwrap())
}

/// No type that holds a secret prints it.
#[tokio::test]
async fn nothing_that_holds_a_secret_shows_it() {
    let (destination, credentials) = credentials(CANARY);
    let forms = [
        CANARY.to_owned(),
        data_encoding::BASE64.encode(format!("{CANARY}:{CANARY}").as_bytes()),
        // As `Debug` prints the bytes of a Vec.
        format!("{:?}", &CANARY.as_bytes()[..6]).replace(['[', ']'], ""),
    ];
    let assert_hidden = |shown: String| {
        for form in &forms {
            assert!(!shown.contains(form.as_str()), "{form} in {shown}");
        }
    };
    assert_hidden(format!("{credentials:?}"));
    assert_hidden(format!("{credentials:#?}"));
    let target = Target::of_absolute(&"https://a.test/".parse().unwrap()).unwrap();
    for path in ["/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/other"] {
        let rule = destination.auth_rule(&Method::GET, path).unwrap();
        let credential = credentials.choose(rule);
        let request = http::Request::get(format!("https://a.test{path}"))
            .body(())
            .unwrap();
        let mut head = Request::from(request).into_parts().0;
        credential.apply(&mut head, &target, Payload::Whole(b"")).unwrap();
        assert!(head.headers.contains_key("x-second"), "{path}");
        // Only the fields: the target of a request may hold a secret, and is printed nowhere.
        assert_hidden(format!("{:?}", head.headers));
        assert_hidden(format!("{credential:?} {:?}", credential.matcher(&head)));
    }
}

/// The error for an invalid secret does not contain the secret.
#[test]
fn no_error_shows_a_secret() {
    let config = Config::parse(ALL, "a.yml").unwrap();
    let destination = &Policy::compile(&config).unwrap().destinations[1];
    for secret in [
        format!("{CANARY}\n{CANARY}"),
        format!("{CANARY}\u{1}"),
        format!("{CANARY}é"),
        format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"),
    ] {
        let snapshot = Snapshot::of_variables([("SECRET", secret.as_str()), ("KEY", secret.as_str())]);
        let error = Credentials::check(destination, &snapshot).unwrap_err();
        let mut shown = format!("{error} {error:?}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            shown = format!("{shown} {error} {error:?}");
            cause = error.source();
        }
        assert!(!shown.contains(CANARY), "{shown}");
    }
}
