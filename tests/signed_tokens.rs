//! JSON Web Tokens that are signed here, read by libraries of others: PyJWT, Authlib and jose.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::programs::{node, outrider, python, run};
use crate::support::{Origin, Proxy};

/// Prints the content of a token whose signature verifies, as each library reads it.
const PYTHON: &str = r#"
import base64, json, sys
import jwt
from authlib.jose import JsonWebToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import load_pem_x509_certificate

def read(given):
    certificate = load_pem_x509_certificate(open(given["certificate"], "rb").read())
    public = certificate.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(given["token"], public, algorithms=[given["alg"]], audience="api.test")
    again = JsonWebToken([given["alg"]]).decode(given["token"], pem)
    again.validate()
    assert dict(again) == claims, (again, claims)
    header = jwt.get_unverified_header(given["token"])
    told = lambda name: base64.urlsafe_b64decode(header[name] + "==") if name in header else None
    der = certificate.public_bytes(serialization.Encoding.DER)
    return {
        "claims": claims,
        "typ": header["typ"],
        "x5t": told("x5t") == certificate.fingerprint(hashes.SHA1()),
        "x5t#S256": told("x5t#S256") == certificate.fingerprint(hashes.SHA256()),
        "x5c": [base64.b64decode(one) == der for one in header.get("x5c", [])],
    }

print(json.dumps([read(given) for given in json.loads(sys.argv[1])]))
"#;

/// A service that trusts the certificate in the token, once its hash is the one that it knows.
const NODE: &str = r#"
const { createHash, X509Certificate } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { decodeProtectedHeader, importX509, jwtVerify } = require('jose');
const read = async (given) => {
  const { alg, x5c, typ } = decodeProtectedHeader(given.token);
  const shown = new X509Certificate(Buffer.from(x5c[0], 'base64'));
  const known = new X509Certificate(readFileSync(given.certificate));
  if (shown.fingerprint256 !== known.fingerprint256) throw new Error('another certificate');
  const key = await importX509(shown.toString(), alg);
  const { payload } = await jwtVerify(given.token, key, { typ, audience: 'api.test', requiredClaims: ['jti'] });
  return payload;
};
Promise.all(JSON.parse(process.argv[1]).map(read)).then((all) => console.log(JSON.stringify(all)));
"#;

/// And the key for it, as openssl makes it.
const ALGORITHMS: [(&str, &[&str]); 8] = [
    ("RS384", &["rsa:2048"]),
    ("RS512", &["rsa:2048"]),
    ("PS256", &["rsa:2048"]),
    ("PS384", &["rsa:2048"]),
    ("PS512", &["rsa:2048"]),
    ("ES256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("ES512", &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"]),
    ("EdDSA", &["ed25519"]),
];

/// Makes a key and a certificate of it, in `folder`.
fn generate(folder: &Path, name: &str, how: &[&str]) {
    let file = |kind: &str| folder.join(format!("{name}.{kind}"));
    let made = run(Command::new("openssl")
        .args([
            "req", "-x509", "-nodes", "-subj", "/CN=app", "-days", "30", "-newkey",
        ])
        .args(how)
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("crt")));
    made.succeeded();
}

fn jwt(folder: &Path, name: &str, more: &str) -> String {
    let folder = folder.display();
    format!(
        "{{ jwt: {{ key: 'file:{folder}/{name}.key', certificate: 'file:{folder}/{name}.crt', {more} }} }}"
    )
}

fn yaml(origin: &Origin, auth: &str) -> String {
    format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], upgrade: false, insecure_attach_over_http: true, auth: {auth} }} }}",
        origin.authority()
    )
}

#[track_caller]
fn tokens(origin: &Origin) -> Vec<String> {
    let seen = origin.raw();
    let tokens = seen
        .lines()
        .filter_map(|line| line.strip_prefix("authorization: Bearer "));
    tokens.map(str::to_owned).collect()
}

#[track_caller]
fn read_by(command: &mut Command, given: &Value) -> Value {
    let read = run(command.arg(given.to_string()));
    read.succeeded();
    serde_json::from_str(&read.stdout).unwrap()
}

#[test]
fn every_algorithm_with_a_certificate_is_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut given = Vec::new();
    for (algorithm, how) in ALGORITHMS {
        generate(folder, algorithm, how);
        let origin = Origin::plain();
        let claims = "iss: app, aud: api.test, https://hasura.io/jwt/claims: { roles: [env:ROLE, user], level: 2, \
                      ratio: 0.5, deep: { on: true, list: [[1, 'two'], {}] } }";
        let auth = jwt(
            folder,
            algorithm,
            &format!("algorithm: {algorithm}, x5c: true, typ: at+jwt, jti: true, claims: {{ {claims} }}"),
        );
        let proxy = Proxy::start_with(&yaml(&origin, &auth), &[("ROLE", "admin")]);
        for _ in 0..2 {
            assert_eq!(proxy.get(&origin.url("/")).status, 200);
        }
        let tokens = tokens(&origin);
        assert_eq!(tokens.len(), 2);
        let certificate = folder.join(format!("{algorithm}.crt"));
        for token in tokens {
            given.push(json!({ "token": token, "alg": algorithm, "certificate": certificate }));
        }
        assert!(!proxy.log().contains("eyJ"), "{}", proxy.log());
    }
    let given = json!(given);
    let told = read_by(&mut python(PYTHON), &given);
    let by_jose = read_by(&mut node(NODE), &given);
    let expected = json!({
        "roles": ["admin", "user"], "level": 2, "ratio": 0.5, "deep": { "on": true, "list": [[1, "two"], {}] },
    });
    let mut ids = HashSet::new();
    for (told, by_jose) in told.as_array().unwrap().iter().zip(by_jose.as_array().unwrap()) {
        assert_eq!(told["claims"]["https://hasura.io/jwt/claims"], expected, "{told}");
        for (name, value) in [
            ("typ", json!("at+jwt")),
            ("x5t", json!(true)),
            ("x5t#S256", json!(true)),
            ("x5c", json!([true])),
        ] {
            assert_eq!(told[name], value, "{name}: {told}");
        }
        assert_eq!(*by_jose, told["claims"]);
        ids.insert(told["claims"]["jti"].as_str().unwrap().to_owned());
    }
    // Each request has a different one.
    assert_eq!(ids.len(), 2 * ALGORITHMS.len());
}

#[test]
fn check_says_that_a_certificate_is_not_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let curve = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    generate(folder, "one", &curve);
    generate(folder, "other", &curve);
    std::fs::copy(folder.join("other.crt"), folder.join("one.crt")).unwrap();
    let origin = Origin::plain();
    let file = folder.join("outrider.yml");
    std::fs::write(&file, yaml(&origin, &jwt(folder, "one", "algorithm: ES256"))).unwrap();
    let check = run(outrider(["check", "--config"]).arg(&file));
    assert_ne!(check.code(), 0);
    let told = check.stdout + &check.stderr;
    assert!(
        told.contains("one.crt: no certificate of the key file:"),
        "{told}"
    );
    assert!(
        told.contains("name the one that was issued for this key"),
        "{told}"
    );
}
