use std::process::Command;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};

use super::*;

/// A key in PEM, and the bits of its public half.
fn generate(arguments: &[&str]) -> (String, Vec<u8>) {
    let openssl = |arguments: &[&str], path: &std::path::Path| {
        let output = Command::new("openssl")
            .args(arguments)
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?} {output:?}");
        output.stdout
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    openssl(&[&["genpkey"], arguments, &["-out"]].concat(), &path);
    let spki = openssl(&["pkey", "-pubout", "-outform", "DER", "-in"], &path);
    let (_, spki) =
        <x509_parser::x509::SubjectPublicKeyInfo<'_> as x509_parser::prelude::FromDer<_>>::from_der(&spki)
            .unwrap();
    let public = spki.subject_public_key.data.to_vec();
    (std::fs::read_to_string(path).unwrap(), public)
}

fn ed25519() -> String {
    generate(&["-algorithm", "ED25519"]).0
}

fn settings(algorithm: Algorithm, claims: &[(&str, Claim)]) -> config::Jwt {
    config::Jwt {
        algorithm,
        claims: claims
            .iter()
            .map(|(name, claim)| ((*name).to_owned(), claim.clone()))
            .collect(),
        key: SecretRef::Env("KEY".to_owned()),
        key_id: Some(Text::Plain("k1".to_owned())),
        lifetime: Duration::from_secs(300),
    }
}

fn read(token: &str) -> (Json, Json, Vec<u8>) {
    let parts: Vec<_> = token
        .split('.')
        .map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
        .collect();
    let [header, payload, signature] = &*parts else {
        panic!("{token}");
    };
    (
        serde_json::from_slice(header).unwrap(),
        serde_json::from_slice(payload).unwrap(),
        signature.clone(),
    )
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// RFC 8037, appendix A.4: the compact form, byte for byte.
#[test]
fn the_published_example_comes_out_the_same() {
    let private = BASE64URL_NOPAD
        .decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
        .unwrap();
    let prefix = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = [&prefix[..], &private].concat();
    let key = pem::encode(&pem::Pem::new("PRIVATE KEY", der));
    let sources = Sources::of_variables([("KEY", key)]);
    let key = SigningKey::load(&SecretRef::Env("KEY".to_owned()), Algorithm::Ed25519, &sources).unwrap();
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"EdDSA"}"#);
    assert_eq!(
        *compact(&header, b"Example of Ed25519 signing", &key).unwrap(),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
         hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn every_algorithm_verifies_and_is_named() {
    let rsa = generate(&["-algorithm", "RSA"]);
    let curve = |name: &str| {
        generate(&[
            "-algorithm",
            "EC",
            "-pkeyopt",
            &format!("ec_paramgen_curve:{name}"),
        ])
    };
    type Case<'c> = (
        Algorithm,
        &'c str,
        (String, Vec<u8>),
        &'c dyn VerificationAlgorithm,
    );
    let cases: [Case<'_>; 5] = [
        (
            Algorithm::RsaPkcs1Sha256,
            "RS256",
            rsa.clone(),
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (Algorithm::RsaPssSha256, "PS256", rsa, &RSA_PSS_2048_8192_SHA256),
        (
            Algorithm::EcdsaP256Sha256,
            "ES256",
            curve("P-256"),
            &ECDSA_P256_SHA256_FIXED,
        ),
        (
            Algorithm::EcdsaP384Sha384,
            "ES384",
            curve("P-384"),
            &ECDSA_P384_SHA384_FIXED,
        ),
        (
            Algorithm::Ed25519,
            "EdDSA",
            generate(&["-algorithm", "ED25519"]),
            &ED25519,
        ),
    ];
    for (algorithm, name, (key, public), verification) in cases {
        let sources = Sources::of_variables([("KEY", key)]);
        let maker = Maker::build(&settings(algorithm, &[]), &[], &sources).unwrap();
        let token = maker.make(at(1_000)).unwrap();
        let (header, _, signature) = read(&token);
        assert_eq!(header, json!({ "alg": name, "kid": "k1", "typ": "JWT" }));
        let (signed, _) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(verification, public)
            .verify(signed.as_bytes(), &signature)
            .unwrap_or_else(|_| panic!("{name}"));
    }
}

#[test]
fn claims_are_as_written_and_the_times_are_fresh() {
    let claims = [
        ("iss", Claim::Reference(SecretRef::Env("ISSUER".to_owned()))),
        ("aud", Claim::Plain(json!(["a", "b"]))),
        ("admin", Claim::Plain(json!(true))),
        ("level", Claim::Plain(json!(3))),
    ];
    let sources = Sources::of_variables([("KEY", ed25519()), ("ISSUER", "app \"1\"".to_owned())]);
    let defaults = [("iss", "other"), ("sub", "client")];
    let maker = Maker::build(&settings(Algorithm::Ed25519, &claims), &defaults, &sources).unwrap();
    let (_, claims, _) = read(&maker.make(at(1_000_005)).unwrap());
    let expected = json!({
        "admin": true, "aud": ["a", "b"], "iss": "app \"1\"", "level": 3, "sub": "client",
        "iat": 1_000_000, "exp": 1_000_300,
    });
    assert_eq!(claims, expected);

    let (_, first, _) = read(&maker.make_once(at(1_000_005)).unwrap());
    let (_, second, _) = read(&maker.make_once(at(1_000_005)).unwrap());
    assert_eq!(first["jti"].as_str().unwrap().len(), 22);
    assert_ne!(first["jti"], second["jti"]);
}

#[test]
fn a_token_serves_for_half_of_its_life() {
    let sources = Sources::of_variables([("KEY", ed25519())]);
    let jwt = Jwt::build(&settings(Algorithm::Ed25519, &[]), &sources).unwrap();
    let made = |seconds| {
        let value = jwt.value(at(seconds)).unwrap();
        assert!(value.is_sensitive());
        let (_, claims, _) = read(value.to_str().unwrap().strip_prefix("Bearer ").unwrap());
        claims["iat"].as_u64().unwrap() + SKEW
    };
    for (now, expected) in [
        (1_000, 1_000),
        (1_149, 1_000),
        (1_150, 1_150),
        (1_299, 1_150),
        (9_000, 9_000),
        // The clock was set back.
        (8_999, 8_999),
        (9_000, 8_999),
    ] {
        assert_eq!(made(now), expected, "{now}");
    }
    let shown = format!("{jwt:?}");
    assert!(shown.contains("Ed25519") && !shown.contains("Bearer"), "{shown}");
}

#[test]
fn what_is_no_text_and_what_does_not_fit_is_told() {
    use std::os::unix::ffi::OsStringExt;

    let no_text = std::ffi::OsString::from_vec(vec![0xff, 0xfe]);
    let sources = Sources::of_variables([("KEY", ed25519().into()), ("ISSUER", no_text)]);
    let claims = [("iss", Claim::Reference(SecretRef::Env("ISSUER".to_owned())))];
    let told = |settings: &config::Jwt| Maker::build(settings, &[], &sources).unwrap_err().to_string();
    let error = told(&settings(Algorithm::Ed25519, &claims));
    assert!(error.starts_with("env:ISSUER: not UTF-8"), "{error}");
    let error = told(&settings(Algorithm::RsaPkcs1Sha256, &[]));
    assert!(
        error.contains("(RS256) needs an RSA key, and this is an Ed25519 key"),
        "{error}"
    );
}
