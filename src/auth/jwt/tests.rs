use std::process::Command;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::*;

/// Returns a key in PEM and its public key.
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
    let (_, spki) = <x509_parser::x509::SubjectPublicKeyInfo<'_> as FromDer<_>>::from_der(&spki).unwrap();
    let public = spki.subject_public_key.data.to_vec();
    (std::fs::read_to_string(path).unwrap(), public)
}

fn ed25519() -> String {
    generate(&["-algorithm", "ED25519"]).0
}

fn settings(algorithm: Algorithm, claims: &[(&str, Claim)]) -> config::Jwt {
    config::Jwt {
        algorithm,
        certificate: None,
        claims: claims
            .iter()
            .map(|(name, claim)| ((*name).to_owned(), claim.clone()))
            .collect(),
        has_chain: false,
        has_id: None,
        key: SecretRef::Env("KEY".to_owned()),
        key_id: Some(Text::Plain("k1".to_owned())),
        lifetime: Duration::from_secs(300),
        typ: "JWT".to_owned(),
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
    let key = ::pem::encode(&::pem::Pem::new("PRIVATE KEY", der));
    let snapshot = Snapshot::of_variables([("KEY", key)]);
    let key = SigningKey::load(&SecretRef::Env("KEY".to_owned()), Algorithm::Ed25519, &snapshot).unwrap();
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
    let cases: [Case<'_>; 10] = [
        (
            Algorithm::RsaPkcs1Sha256,
            "RS256",
            rsa.clone(),
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            Algorithm::RsaPkcs1Sha384,
            "RS384",
            rsa.clone(),
            &RSA_PKCS1_2048_8192_SHA384,
        ),
        (
            Algorithm::RsaPkcs1Sha512,
            "RS512",
            rsa.clone(),
            &RSA_PKCS1_2048_8192_SHA512,
        ),
        (
            Algorithm::RsaPssSha256,
            "PS256",
            rsa.clone(),
            &RSA_PSS_2048_8192_SHA256,
        ),
        (
            Algorithm::RsaPssSha384,
            "PS384",
            rsa.clone(),
            &RSA_PSS_2048_8192_SHA384,
        ),
        (Algorithm::RsaPssSha512, "PS512", rsa, &RSA_PSS_2048_8192_SHA512),
        (
            Algorithm::EcdsaP521Sha512,
            "ES512",
            curve("P-521"),
            &ECDSA_P521_SHA512_FIXED,
        ),
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
        let snapshot = Snapshot::of_variables([("KEY", key)]);
        let signer = JwtSigner::build(&settings(algorithm, &[]), &[], &snapshot).unwrap();
        let token = signer.token(at(1_000)).unwrap();
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
    let snapshot = Snapshot::of_variables([("KEY", ed25519()), ("ISSUER", "app \"1\"".to_owned())]);
    let defaults = [("iss", "other"), ("sub", "client")];
    let signer = JwtSigner::build(&settings(Algorithm::Ed25519, &claims), &defaults, &snapshot).unwrap();
    let (_, claims, _) = read(&signer.token(at(1_000_005)).unwrap());
    let expected = json!({
        "admin": true, "aud": ["a", "b"], "iss": "app \"1\"", "level": 3, "sub": "client",
        "iat": 1_000_000, "exp": 1_000_300,
    });
    assert_eq!(claims, expected);

    let (_, first, _) = read(&signer.single_use_token(at(1_000_005)).unwrap());
    let (_, second, _) = read(&signer.single_use_token(at(1_000_005)).unwrap());
    assert_eq!(first["jti"].as_str().unwrap().len(), 22);
    assert_ne!(first["jti"], second["jti"]);
}

#[test]
fn a_token_serves_for_half_of_its_life() {
    let snapshot = Snapshot::of_variables([("KEY", ed25519())]);
    let jwt = JwtCredential::build(&settings(Algorithm::Ed25519, &[]), &snapshot).unwrap();
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
    let snapshot = Snapshot::of_variables([("KEY", ed25519().into()), ("ISSUER", no_text)]);
    let claims = [("iss", Claim::Reference(SecretRef::Env("ISSUER".to_owned())))];
    let shown = |settings: &config::Jwt| {
        JwtSigner::build(settings, &[], &snapshot)
            .unwrap_err()
            .to_string()
    };
    let error = shown(&settings(Algorithm::Ed25519, &claims));
    assert!(error.starts_with("env:ISSUER: not UTF-8"), "{error}");
    let error = shown(&settings(Algorithm::RsaPkcs1Sha256, &[]));
    assert!(
        error.contains("(RS256) needs an RSA key, and this is an Ed25519 key"),
        "{error}"
    );
}

#[test]
fn an_id_is_given_where_it_is_wanted() {
    let snapshot = Snapshot::of_variables([("KEY", ed25519())]);
    for (written, alone, in_assertion) in [
        (None, false, true),
        (Some(true), true, true),
        (Some(false), false, false),
    ] {
        let settings = config::Jwt {
            has_id: written,
            ..settings(Algorithm::Ed25519, &[])
        };
        let signer = JwtSigner::build(&settings, &[], &snapshot).unwrap();
        let has_id = |token: &str| read(token).1["jti"].is_string();
        assert_eq!(has_id(&signer.token(at(1_000)).unwrap()), alone, "{written:?}");
        assert_eq!(
            has_id(&signer.single_use_token(at(1_000)).unwrap()),
            in_assertion,
            "{written:?}"
        );
        // With an id it is valid for one request.
        let jwt = JwtCredential::build(&settings, &snapshot).unwrap();
        let is_kept = jwt.value(at(1_000)).unwrap() == jwt.value(at(1_000)).unwrap();
        assert_eq!(is_kept, !alone, "{written:?}");
    }
}

#[test]
fn claims_may_lie_within_each_other() {
    let snapshot = Snapshot::of_variables([("KEY", ed25519()), ("ROLE", "admin".to_owned())]);
    let role = || Claim::Reference(SecretRef::Env("ROLE".to_owned()));
    let plain = |value: Json| Claim::Plain(value);
    let claims = [(
        "realm",
        Claim::Map(vec![
            (
                "roles".to_owned(),
                Claim::List(vec![role(), plain(json!("user")), plain(json!(1.5))]),
            ),
            ("of".to_owned(), Claim::Map(vec![("app".to_owned(), role())])),
        ]),
    )];
    let signer = JwtSigner::build(&settings(Algorithm::Ed25519, &claims), &[], &snapshot).unwrap();
    let (_, shown, _) = read(&signer.token(at(1_000)).unwrap());
    let expected = json!({ "roles": ["admin", "user", 1.5], "of": { "app": "admin" } });
    assert_eq!(shown["realm"], expected);

    let missing = [(
        "a",
        Claim::List(vec![Claim::Reference(SecretRef::Env("NONE".to_owned()))]),
    )];
    let error = JwtSigner::build(&settings(Algorithm::Ed25519, &missing), &[], &snapshot).unwrap_err();
    assert!(error.to_string().starts_with("env:NONE: "), "{error}");
}

/// RFC 7515, sections 4.1.6 to 4.1.8: the certificate of the key comes first, wherever it is in the file.
#[test]
fn the_header_names_the_certificate_of_the_key() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = |name: &str, year, pair: &rcgen::KeyPair| {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(pair).unwrap()
    };
    let other = certificate("other.test", 2050, &rcgen::KeyPair::generate().unwrap());
    let old = certificate("app.test", 2030, &pair);
    let new = certificate("app.test", 2040, &pair);
    let snapshot = Snapshot::of_variables([
        ("KEY", pair.serialize_pem()),
        ("CERTIFICATE", [other.pem(), old.pem(), new.pem()].concat()),
        ("OTHER", other.pem()),
    ]);
    let with = |certificate: &str, has_chain| config::Jwt {
        certificate: Some(SecretRef::Env(certificate.to_owned())),
        has_chain,
        typ: "at+jwt".to_owned(),
        ..settings(Algorithm::EcdsaP256Sha256, &[])
    };
    let header = |has_chain| {
        let signer = JwtSigner::build(&with("CERTIFICATE", has_chain), &[], &snapshot).unwrap();
        read(&signer.token(at(1_000)).unwrap()).0
    };
    let hash = |algorithm| BASE64URL_NOPAD.encode(digest(algorithm, new.der()).as_ref());
    let mut expected = json!({
        "alg": "ES256", "kid": "k1", "typ": "at+jwt",
        "x5t": hash(&SHA1_FOR_LEGACY_USE_ONLY), "x5t#S256": hash(&SHA256),
    });
    assert_eq!(header(false), expected);
    // Each certifies the one before it, so another certificate is left out.
    expected["x5c"] = json!([BASE64.encode(new.der())]);
    assert_eq!(header(true), expected);

    let error = JwtSigner::build(&with("OTHER", false), &[], &snapshot).unwrap_err();
    assert_eq!(
        error.to_string(),
        "env:OTHER: no certificate of the key env:KEY in it; name the one that was issued for this key"
    );
    assert!(JwtSigner::build(&with("KEY", false), &[], &snapshot).is_err());
}

/// RFC 7515, section 4.1.6: each certificate is followed by the one that certifies it, wherever they are in the
/// file.
#[test]
fn the_chain_of_a_header_is_in_order() {
    let (pair, root_pair, middle_pair) = (
        rcgen::KeyPair::generate().unwrap(),
        rcgen::KeyPair::generate().unwrap(),
        rcgen::KeyPair::generate().unwrap(),
    );
    let params = |name: &str, [from, until]: [i32; 2]| {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params
    };
    let now = [2000, 2090];
    let root_params = params("root", now);
    let authority = rcgen::Issuer::from_params(&root_params, &root_pair);
    let root = root_params.self_signed(&root_pair).unwrap();
    let middle = params("middle", now).signed_by(&middle_pair, &authority).unwrap();
    let middle_params = params("middle", now);
    let issuer = rcgen::Issuer::from_params(&middle_params, &middle_pair);
    let leaf = |years| params("app", years).signed_by(&pair, &issuer).unwrap();
    let (own, next) = (leaf([2000, 2080]), leaf([2080, 2090]));
    let all = [root.pem(), next.pem(), middle.pem(), own.pem()].concat();
    let snapshot = Snapshot::of_variables([("KEY", pair.serialize_pem()), ("CERTIFICATE", all)]);
    let settings = config::Jwt {
        certificate: Some(SecretRef::Env("CERTIFICATE".to_owned())),
        has_chain: true,
        ..settings(Algorithm::EcdsaP256Sha256, &[])
    };
    let signer = JwtSigner::build(&settings, &[], &snapshot).unwrap();
    let shown = read(&signer.token(at(1_000)).unwrap()).0;
    let chain = [own.der(), middle.der(), root.der()].map(|one| BASE64.encode(one));
    assert_eq!(shown["x5c"], json!(chain));
}

/// A line end is trimmed from a text, but must not be trimmed from DER.
#[test]
fn a_certificate_in_der_may_end_like_a_line() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = (0..10_000)
        .map(|_| rcgen::CertificateParams::default().self_signed(&pair).unwrap())
        .find(|certificate| certificate.der().last() == Some(&b'\n'));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.unwrap().der()).unwrap();
    let snapshot = Snapshot::of_variables([("KEY", pair.serialize_pem())]);
    let settings = config::Jwt {
        certificate: Some(SecretRef::File(file.path().to_owned())),
        ..settings(Algorithm::EcdsaP256Sha256, &[])
    };
    JwtSigner::build(&settings, &[], &snapshot).unwrap();
}
