use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

use super::*;
use crate::secret::tests::damaged::broken_at;

/// The identifier of RSASSA-PSS (RFC 8017, appendix C) in DER.
const RSASSA_PSS_DER: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

const MESSAGE: &[u8] = b"what do ya want for nothing?";

/// Runs `openssl ARGUMENTS` with `input`. It must succeed.
pub(in crate::auth) fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = (Command::new("openssl").args(arguments))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {shown}");
    output.stdout
}

fn generate(arguments: &[&str]) -> Vec<u8> {
    openssl(&[&["genpkey"], arguments].concat(), b"")
}

fn rsa() -> Vec<u8> {
    generate(&["-algorithm", "RSA"])
}

fn curve(name: &str) -> Vec<u8> {
    generate(&[
        "-algorithm",
        "EC",
        "-pkeyopt",
        &format!("ec_paramgen_curve:{name}"),
    ])
}

fn load(key: impl AsRef<[u8]>, algorithm: Algorithm) -> Result<SigningKey, Error> {
    let text = String::from_utf8(key.as_ref().to_vec()).unwrap();
    let snapshot = Snapshot::of_variables([("KEY", text)]);
    SigningKey::load(&SecretRef::Env("KEY".to_owned()), algorithm, &snapshot)
}

#[test]
fn signatures_verify_whatever_form_the_key_came_in() {
    let kinds: [(Algorithm, Vec<u8>, &dyn VerificationAlgorithm); 7] = [
        (
            Algorithm::EcdsaP256Sha256,
            curve("P-256"),
            &ECDSA_P256_SHA256_FIXED,
        ),
        (
            Algorithm::EcdsaP384Sha384,
            curve("P-384"),
            &ECDSA_P384_SHA384_FIXED,
        ),
        (Algorithm::Ed25519, generate(&["-algorithm", "ED25519"]), &ED25519),
        (Algorithm::RsaPkcs1Sha256, rsa(), &RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::RsaPssSha256, rsa(), &RSA_PSS_2048_8192_SHA256),
        (Algorithm::RsaPssSha512, rsa(), &RSA_PSS_2048_8192_SHA512),
        (
            Algorithm::RsaPssSha512,
            generate(&["-algorithm", "RSA-PSS"]),
            &RSA_PSS_2048_8192_SHA512,
        ),
    ];
    for (algorithm, pkcs8, verifier) in kinds {
        let public = openssl(&["pkey", "-pubout", "-outform", "DER"], &pkcs8);
        // OpenSSL has older formats only for RSA and elliptic curves.
        let is_pss = public.windows(11).any(|part| part == RSASSA_PSS_DER);
        let older = match algorithm {
            Algorithm::Ed25519 => pkcs8.clone(),
            _ if is_pss => pkcs8.clone(),
            _ => openssl(&["pkey", "-traditional"], &pkcs8),
        };
        // The crypto library does not read the public key of an RSA-PSS key either.
        let public = if is_pss {
            openssl(&["rsa", "-RSAPublicKey_out", "-outform", "DER"], &pkcs8)
        } else {
            public
        };
        let public = UnparsedPublicKey::new(verifier, public);
        for pem in [&pkcs8, &older] {
            let key = load(pem, algorithm).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let signature = key.sign(MESSAGE).unwrap();
            public.verify(MESSAGE, &signature).unwrap();
            assert!(public.verify(b"another", &signature).is_err(), "{algorithm}");
        }
    }
}

/// The salt of RSA-PSS is as long as the hash (RFC 7518 and RFC 9421).
#[test]
fn openssl_verifies_the_signatures() {
    let folder = tempfile::TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pss: &[&str] = &[
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    for (algorithm, key, digest, options) in [
        (Algorithm::RsaPkcs1Sha256, rsa(), "-sha256", &[][..]),
        (Algorithm::RsaPssSha256, rsa(), "-sha256", pss),
        (Algorithm::RsaPssSha512, rsa(), "-sha512", pss),
        (Algorithm::EcdsaP256Sha256, curve("P-256"), "-sha256", &[]),
        (Algorithm::EcdsaP384Sha384, curve("P-384"), "-sha384", &[]),
    ] {
        let mut signature = load(&key, algorithm).unwrap().sign(MESSAGE).unwrap();
        if matches!(algorithm, Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384) {
            // OpenSSL encodes r and s in DER.
            signature = yasna::construct_der(|writer| {
                writer.write_sequence(|writer| {
                    for half in signature.chunks(signature.len() / 2) {
                        writer.next().write_bigint_bytes(half, true);
                    }
                });
            });
        }
        std::fs::write(place("public.pem"), openssl(&["pkey", "-pubout"], &key)).unwrap();
        std::fs::write(place("signature"), signature).unwrap();
        let (public, signature) = (place("public.pem"), place("signature"));
        let arguments = ["dgst", digest, "-verify", &public, "-signature", &signature];
        openssl(&[&arguments, options].concat(), MESSAGE);
    }
}

/// RFC 7515, appendix A.2.
#[test]
fn the_published_rs256_example_comes_out_the_same() {
    let key = load(include_str!("rfc7515_a2.pem"), Algorithm::RsaPkcs1Sha256).unwrap();
    let input = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                 cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let wanted = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt\
                  _O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArL\
                  IARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7no\
                  OPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQ\
                  Ge77Rw";
    let signature = key.sign(input.as_bytes()).unwrap();
    assert_eq!(BASE64URL_NOPAD.encode(&signature), wanted);
}

/// RFC 8032, section 7.1, test 2.
#[test]
fn the_published_ed25519_example_comes_out_the_same() {
    let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
    let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let der = hex(&format!("302e020100300506032b657004220420{seed}"));
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64.encode(&der)
    );
    let key = load(pem, Algorithm::Ed25519).unwrap();
    let wanted = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                  085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(HEXLOWER.encode(&key.sign(&[0x72]).unwrap()), wanted);
}

/// RFC 2202 and RFC 4231, test 2 of each.
#[test]
fn the_published_hmac_examples_come_out_the_same() {
    for (algorithm, wanted) in [
        (Algorithm::HmacSha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (
            Algorithm::HmacSha256,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            Algorithm::HmacSha384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Algorithm::HmacSha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        let key = load("Jefe", algorithm).unwrap();
        assert_eq!(
            HEXLOWER.encode(&key.sign(MESSAGE).unwrap()),
            wanted,
            "{algorithm}"
        );
    }
}

#[test]
fn a_key_that_does_not_fit_is_told_what_it_is() {
    let small = generate(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let public = openssl(&["pkey", "-pubout"], &curve("P-256"));
    let damaged = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvg=\n-----END PRIVATE KEY-----\n";
    for (key, algorithm, wanted) in [
        (
            curve("P-384"),
            Algorithm::EcdsaP256Sha256,
            "ecdsa-p256-sha256 (ES256) needs an elliptic-curve key on P-256, and this is an elliptic-curve key on P-384",
        ),
        (curve("P-521"), Algorithm::EcdsaP384Sha384, "on P-521"),
        (curve("secp256k1"), Algorithm::EcdsaP256Sha256, "on secp256k1"),
        (rsa(), Algorithm::Ed25519, "this is an RSA key"),
        (
            generate(&["-algorithm", "ED25519"]),
            Algorithm::RsaPssSha256,
            "this is an Ed25519 key",
        ),
        (
            curve("P-256"),
            Algorithm::RsaPkcs1Sha256,
            "this is an elliptic-curve key on P-256",
        ),
        (
            generate(&["-algorithm", "RSA-PSS"]),
            Algorithm::RsaPkcs1Sha256,
            "for RSA-PSS alone",
        ),
        (
            generate(&["-algorithm", "X25519"]),
            Algorithm::Ed25519,
            "this is an X25519 key, with which nothing can be signed",
        ),
        (small.clone(), Algorithm::RsaPkcs1Sha256, "2048 bits or more"),
        (
            openssl(&["pkey", "-traditional"], &small),
            Algorithm::RsaPssSha512,
            "2048 bits or more",
        ),
        (public, Algorithm::EcdsaP256Sha256, "blocks found: PUBLIC KEY"),
        (
            b"hunter2".to_vec(),
            Algorithm::RsaPkcs1Sha256,
            "no private key in it",
        ),
        (damaged.into(), Algorithm::Ed25519, "the private key is damaged"),
    ] {
        let error = load(&key, algorithm).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(error.to_string().starts_with("env:KEY: "), "{error}");
        assert!(shown.contains(wanted), "{shown}");
        let second = String::from_utf8(key).unwrap();
        let second = second.lines().nth(1).unwrap_or("hunter2");
        assert!(!shown.contains(second), "{shown}");
    }
}

#[test]
fn debug_shows_no_key() {
    let key = load("Jefe", Algorithm::HmacSha256).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey { algorithm: HmacSha256, .. }");
}

/// A damaged key signs or is refused. It never causes a panic.
#[test]
fn broken_keys_never_panic() {
    for (algorithm, key) in [
        (Algorithm::EcdsaP256Sha256, curve("P-256")),
        (Algorithm::Ed25519, generate(&["-algorithm", "ED25519"])),
        (Algorithm::RsaPssSha256, generate(&["-algorithm", "RSA-PSS"])),
    ] {
        let der = openssl(&["pkey", "-outform", "DER"], &key);
        // The numbers of an RSA key take long to check; its structure is at the beginning.
        for position in 0..der.len().min(140) {
            for der in broken_at(&der, position) {
                let text = BASE64.encode(&der);
                let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
                drop(load(pem, algorithm).map(|key| key.sign(MESSAGE)));
            }
        }
    }
}
