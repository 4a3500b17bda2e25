//! JSON Web Tokens at the route service, made by PyJWT and by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::programs::python;
use crate::support::router::BoundRoute;
use crate::support::{Origin, Pki, eventually, ok, run};

/// Prints the keys of an issuer, those of later, and tokens, each with the status that it deserves and a word of the reason.
const TOKENS: &str = r#"
import base64, hashlib, hmac, json, time
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

r1, r2 = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
e1, d1 = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
def jwk(algorithm, key, **more):
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **more}
shown = jwk(RSAAlgorithm, r1, kid="r1", use="sig")
later = jwk(RSAAlgorithm, r2, kid="r2")
keys = [
    shown,
    jwk(ECAlgorithm, e1, kid="e1", alg="ES256"),
    jwk(OKPAlgorithm, d1, kid="d1"),
    {"kty": "oct", "kid": "o1", "k": base64.urlsafe_b64encode(b"sesame" * 8).decode()},
    {"kty": "later", "kid": "x1"},
    {**later, "kid": "enc", "use": "enc"},
]
now = int(time.time())
good = {"iss": "https://issuer.test", "aud": "app", "exp": now + 300, "sub": "a"}
def token(key=r1, algorithm="RS256", kid="r1", header=None, drop=(), **claims):
    said = {name: value for name, value in {**good, **claims}.items() if name not in drop}
    return jwt.encode(said, key, algorithm, headers={**({"kid": kid} if kid else {}), **(header or {})})
def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()
def by_hand(header, secret=None):
    message = b64(header) + "." + b64(good)
    return message + "." + (b64(hmac.new(secret, message.encode(), hashlib.sha256).digest()) if secret is not None else "")
pem = r1.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
der = r1.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
n = base64.urlsafe_b64decode(shown["n"] + "==")
own = jwk(RSAAlgorithm, r2, kid="r1")
head, body, signature = token().split(".")
other_body = token(sub="b").split(".")[1]
flipped = signature[:8] + ("A" if signature[8] != "A" else "B") + signature[9:]
tokens = [
    (token(), 200, ""),
    (token(algorithm="PS512"), 200, ""),
    (token(e1, "ES256", "e1"), 200, ""),
    (token(d1, "EdDSA", "d1"), 200, ""),
    (token(kid=None), 200, ""),
    (token(e1, "ES256", None), 200, ""),
    (token(aud=["x", "other-app"]), 200, ""),
    (token(exp=now - 10, nbf=now + 10), 200, ""),
    (token(exp=now - 120), 401, "exp"),
    (token(nbf=now + 120), 401, "nbf"),
    (token(aud="x"), 401, "aud"),
    (token(aud=["x"]), 401, "aud"),
    (token(aud=[]), 401, "aud"),
    (token(iss="https://issuer.test/"), 401, "iss"),
    (token(drop=["exp"]), 401, "lacks"),
    (token(drop=["aud"]), 401, "lacks"),
    (token(drop=["iss"]), 401, "lacks"),
    (by_hand({"alg": "none", "kid": "r1"}), 401, "no JSON Web Token"),
    (by_hand({"alg": "NONE"}), 401, "no JSON Web Token"),
    (by_hand({"kid": "r1"}), 401, "no JSON Web Token"),
    *((by_hand({"alg": "HS256", "kid": kid}, secret), 401, "algorithm")
      for kid in ["r1", "o1"] for secret in [pem, der, n, b"", b"sesame" * 8]),
    (".".join([head, body, flipped]), 401, "signature"),
    (".".join([head, other_body, signature]), 401, "signature"),
    (".".join([head, body, ""]), 401, "signature"),
    (token(r2), 401, "signature"),
    (token(r2, kid=None), 401, "signature"),
    (token(r2, header={"jwk": own, "jku": "https://other.test/keys", "x5u": "https://other.test/keys"}), 401, "signature"),
    (token(r2, kid="enc"), 401, "kid"),
    (token(e1, "ES256", "r1"), 401, "kid"),
    (token(e1, "ES256", "d1"), 401, "kid"),
    (token(header={"crit": ["exp"]}), 401, "no JSON Web Token"),
    (by_hand({"alg": "RS256", "kid": "r1", "crit": []}), 401, "no JSON Web Token"),
    (head + "." + body, 401, "no JSON Web Token"),
    (token() + ".x", 401, "no JSON Web Token"),
    ("..", 401, "no JSON Web Token"),
    ("a.b.c", 401, "no JSON Web Token"),
    (token() + "=", 401, ""),
]
print(json.dumps({"keys": {"keys": keys}, "later": {"keys": [*keys, later]}, "tokens": tokens,
                  "new": [token(r2, kid="r2")], "unknown": [token(r2, kid=f"r{i}") for i in range(3, 20)]}))
"#;

const RULES: &str = "issuer: \"https://issuer.test\", audience: [app, other-app]";

fn made() -> Value {
    let made = run(&mut python(TOKENS));
    serde_json::from_str(&made.succeeded().stdout).unwrap()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap())
}

/// An app that greets once.
fn app() -> Origin {
    Origin::http(|wire| {
        if wire.request().is_ok() {
            wire.send(ok("Connection: close\r\n", ""));
        }
    })
}

fn shown(route: &BoundRoute, token: &str) -> crate::support::Response {
    route.get(&format!("Authorization: Bearer {token}\r\n"))
}

/// An issuer whose keys can be replaced, and how often it was asked.
struct Issuer {
    asked: Arc<AtomicUsize>,
    keys: Arc<Mutex<String>>,
    more: String,
    origin: Origin,
    _pki: Pki,
}

impl Issuer {
    fn with(keys: &str) -> Self {
        let (pki, asked) = (Pki::new(), Arc::<AtomicUsize>::default());
        let keys = Arc::new(Mutex::new(keys.to_owned()));
        let (said, counted) = (Arc::clone(&keys), Arc::clone(&asked));
        let origin = Origin::https(pki.accepting(&pki.server("other.test")), move |wire| {
            while let Ok(request) = wire.request() {
                assert_eq!(request.line, "GET /keys?v=1 HTTP/1.1");
                counted.fetch_add(1, Ordering::SeqCst);
                wire.send(said.lock().unwrap().clone());
            }
        });
        let more = format!(
            "destinations: {{ idp: {{ hosts: [\"other.test:{}\"], tls: {{ ca: \"file:{}\" }} }} }}",
            origin.port(),
            pki.ca().display()
        );
        Self {
            asked,
            keys,
            more,
            origin,
            _pki: pki,
        }
    }

    fn route(&self) -> BoundRoute {
        let url = format!("https://other.test:{}/keys?v=1", self.origin.port());
        let auth = format!("auth: {{ jwt: {{ jwks: \"{url}\", {RULES} }} }}");
        BoundRoute::beside(&self.more, app(), &auth, &[])
    }

    fn says(&self, answer: String) {
        *self.keys.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[test]
fn only_what_the_issuer_signed_for_this_route_passes() {
    let made = made();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, made["keys"].to_string()).unwrap();
    let auth = format!(
        "auth: {{ jwt: {{ jwks: \"file:{}\", {RULES} }} }}",
        file.display()
    );
    let route = BoundRoute::to(app(), &auth, &[]);
    let mut passed = 0;
    for (number, case) in made["tokens"].as_array().unwrap().iter().enumerate() {
        let (token, status, reason) = (case[0].as_str().unwrap(), &case[1], case[2].as_str().unwrap());
        let answer = shown(&route, token);
        assert_eq!(answer.status, *status, "{number}: {token} {}", answer.text());
        if answer.status == 401 {
            let detail = answer.assert_ours(401, "http_request_denied");
            assert!(detail.contains(reason), "{number}: {reason}: {detail}");
            let challenge = answer.header("www-authenticate");
            assert_eq!(
                challenge,
                Some("Bearer realm=\"outrider\", error=\"invalid_token\"")
            );
        } else {
            passed += 1;
        }
    }
    assert_eq!(passed, 8);
    assert_eq!(
        route.get("").header("www-authenticate"),
        Some("Bearer realm=\"outrider\"")
    );
    assert_eq!(route.app.raw().matches("GET /a?b=1").count(), passed);
    assert!(
        !route.app.raw().contains("eyJ") && !route.proxy.log().contains("eyJ"),
        "a token got further"
    );

    // Another set in the file is taken over.
    assert_eq!(shown(&route, texts(&made["new"]).next().unwrap()).status, 401);
    let fresh = folder.path().join("fresh");
    std::fs::write(&fresh, made["later"].to_string()).unwrap();
    std::fs::rename(fresh, &file).unwrap();
    eventually("the new key is known", || {
        shown(&route, texts(&made["new"]).next().unwrap()).status == 200
    });
}

/// With clocks that are exact, a token that has ended is refused at once.
#[test]
fn the_skew_of_clocks_can_be_set() {
    let made = made();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, made["keys"].to_string()).unwrap();
    // A token that ended ten seconds ago and holds from in ten seconds on, and one that ended two minutes ago.
    let [lately, before] = [7, 8].map(|place| made["tokens"][place][0].as_str().unwrap());
    for (skew, expected) in [("1s", [401, 401]), ("4m", [200, 200])] {
        let auth = format!(
            "auth: {{ jwt: {{ jwks: \"file:{}\", skew: {skew}, {RULES} }} }}",
            file.display()
        );
        let route = BoundRoute::to(app(), &auth, &[]);
        let statuses = [lately, before].map(|token| shown(&route, token).status);
        assert_eq!(statuses, expected, "{skew}");
    }
}

#[test]
fn keys_are_fetched_when_they_are_needed_and_no_flood_asks_for_more() {
    let made = made();
    let issuer = Issuer::with(&ok("", &made["keys"].to_string()));
    let route = issuer.route();
    assert_eq!(issuer.asked(), 0);
    // What cannot be a token of the issuer makes nobody ask.
    assert_eq!(shown(&route, "a.b.c").status, 401);
    assert_eq!(issuer.asked(), 0);
    let good = made["tokens"][0][0].as_str().unwrap();
    for _ in 0..3 {
        assert_eq!(shown(&route, good).status, 200);
    }
    assert_eq!(issuer.asked(), 1);

    issuer.says(ok("", &made["later"].to_string()));
    for token in texts(&made["new"]) {
        assert_eq!(shown(&route, token).status, 200);
    }
    assert_eq!(issuer.asked(), 2);
    for token in texts(&made["unknown"]) {
        shown(&route, token).assert_ours(401, "http_request_denied");
    }
    assert_eq!(issuer.asked(), 2);
    assert_eq!(shown(&route, good).status, 200);

    // A reload forgets neither the keys nor that they were asked for.
    route.proxy.signal(rustix::process::Signal::HUP);
    eventually("the reload is done", || {
        route.proxy.log().contains("configuration reloaded")
    });
    assert_eq!(shown(&route, good).status, 200);
    assert_eq!(issuer.asked(), 2);
}

/// An issuer that says nothing, or nonsense, lets nobody in, and is not asked for ever.
#[test]
fn without_keys_nobody_comes_in() {
    let made = made();
    let good = made["tokens"][0][0].as_str().unwrap();
    for answer in [
        "HTTP/1.1 302 Found\r\nLocation: https://partner.test/\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ok("", "{}"),
        ok(
            "",
            "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"r1\",\"k\":\"c2VzYW1l\"}]}",
        ),
        ok(
            "",
            &format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024)),
        ),
    ] {
        let issuer = Issuer::with(&answer);
        let route = issuer.route();
        for _ in 0..4 {
            shown(&route, good).assert_ours(503, "destination_unavailable");
        }
        assert!(issuer.asked() <= 2, "{}: {answer:.40}", issuer.asked());
        eventually("the log says why", || {
            route
                .proxy
                .log()
                .contains("the keys of the issuer of tokens cannot be read")
        });
        assert_eq!(route.app.raw(), "");
    }
}
