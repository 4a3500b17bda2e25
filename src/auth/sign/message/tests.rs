use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use http::HeaderValue;

use super::*;
use crate::auth::key::tests::openssl;
use crate::config::{KeyEncoding, SecretRef, Text};
use crate::message::Request;

/// The keys of RFC 9421, appendix B.1.
const ECC_P256: &str = include_str!("rfc9421/ecc-p256.key");
const ED25519: &str = include_str!("rfc9421/ed25519.key");
const RSA: &str = include_str!("rfc9421/rsa.key");
const RSA_PSS: &str = include_str!("rfc9421/rsa-pss.key");
const SHARED: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

const BODY: &[u8] = b"{\"hello\": \"world\"}";

fn settings(algorithm: Algorithm, key_id: &str, components: &[&str]) -> HttpSignature {
    HttpSignature {
        algorithm,
        components: components
            .iter()
            .map(|text| Component::parse(text).unwrap())
            .collect(),
        created: true,
        expires: None,
        key: SecretRef::Env("KEY".to_owned()),
        key_encoding: match algorithm {
            Algorithm::HmacSha256 => KeyEncoding::Base64,
            _ => KeyEncoding::Text,
        },
        key_id: Text::Plain(key_id.to_owned()),
        label: "sig1".to_owned(),
        max_body: 64,
        names_algorithm: false,
        nonce: false,
        tag: None,
    }
}

fn build(settings: &HttpSignature, key: &str) -> Result<MessageSigner, Error> {
    MessageSigner::build(settings, &Snapshot::of_variables([("KEY", key)]))
}

/// The request of RFC 9421, appendix B.2.
fn request() -> Box<RequestHead> {
    let digest =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    let request = http::Request::post("/foo?param=Value&Pet=dog")
        .header("Host", "example.com")
        .header("Date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .header("Content-Type", "application/json")
        .header("Content-Digest", digest)
        .header("Content-Length", "18");
    Request::from(request.body(()).unwrap()).into_parts().0
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn to_sign<'a>(head: &'a mut RequestHead, payload: Payload<'a>) -> RequestToSign<'a> {
    RequestToSign {
        head,
        authority: "example.com",
        scheme: Scheme::Https,
        payload,
        now: at(1_618_884_473),
    }
}

/// Returns the base of the published request, which has a Date and a digest, and our signature of it. `parameters`:
/// the published order, if it is not ours.
fn base(message: &MessageSigner, parameters: Option<&str>) -> (String, Vec<u8>) {
    let mut head = request();
    let to_sign = to_sign(&mut head, Payload::Whole(BODY));
    let ours = message.parameters(None, to_sign.now);
    let base = message.base(&to_sign, parameters.unwrap_or(&ours)).unwrap();
    let signature = message.key.sign(base.as_bytes()).unwrap();
    (base, signature)
}

fn verifies(key: &str, algorithm: &'static dyn VerificationAlgorithm, base: &str, signature: &[u8]) -> bool {
    let arguments: &[&str] = match key {
        RSA | RSA_PSS => &["rsa", "-RSAPublicKey_out", "-outform", "DER"],
        _ => &["pkey", "-pubout", "-outform", "DER"],
    };
    let public = openssl(arguments, key.as_bytes());
    UnparsedPublicKey::new(algorithm, public)
        .verify(base.as_bytes(), signature)
        .is_ok()
}

/// RFC 9421, appendix B.2.5 to B.2.7.
#[test]
fn the_published_deterministic_examples_come_out_the_same() {
    let covered = [
        "date",
        "@method",
        "@path",
        "@authority",
        "content-type",
        "content-length",
    ];
    for (algorithm, key, key_id, components, tag, wanted) in [
        (
            Algorithm::HmacSha256,
            SHARED,
            "test-shared-secret",
            &["date", "@authority", "content-type"][..],
            None,
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        ),
        (
            Algorithm::Ed25519,
            ED25519,
            "test-key-ed25519",
            &covered,
            None,
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
        ),
        (
            Algorithm::Ed25519,
            ED25519,
            "test-key-ed25519",
            &covered,
            Some("tag-b27"),
            "pDPhW4vxi28JZfogrM4NLeYhZKW+TYDko8KtzCFoTOFeGCCSivD0iVcIuT9gqM6AtGfgzqQU/GaoLqh8sC6bCg==",
        ),
    ] {
        let mut settings = settings(algorithm, key_id, components);
        settings.tag = tag.map(str::to_owned);
        let (_, signature) = base(&build(&settings, key).unwrap(), None);
        assert_eq!(BASE64.encode(&signature), wanted, "{key_id}");
    }
}

/// RFC 9421, appendix B.2.1 to B.2.3: both the published signature and ours are valid for our base.
#[test]
fn the_published_pss_examples_verify() {
    let all = [
        "date",
        "@method",
        "@path",
        "@query",
        "@authority",
        "content-type",
        "content-digest",
        "content-length",
    ];
    for (components, parameters, tag, published) in [
        (
            &[][..],
            Some("();created=1618884473;keyid=\"test-key-rsa-pss\";nonce=\"b3k2pp5k7z-50gnwp.yemd\""),
            None,
            "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==",
        ),
        (
            &["@authority", "content-digest", "@query-param;name=\"Pet\""],
            None,
            Some("header-example"),
            "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==",
        ),
        (
            &all,
            None,
            None,
            "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==",
        ),
    ] {
        let mut settings = settings(Algorithm::RsaPssSha512, "test-key-rsa-pss", components);
        settings.tag = tag.map(str::to_owned);
        let (base, signature) = base(&build(&settings, RSA_PSS).unwrap(), parameters);
        let published = BASE64.decode(published.as_bytes()).unwrap();
        for signature in [published, signature] {
            assert!(
                verifies(RSA_PSS, &RSA_PSS_2048_8192_SHA512, &base, &signature),
                "{base}"
            );
        }
    }
}

/// RFC 9421, section 2.5: the base itself is published.
#[test]
fn the_published_base_comes_out_the_same() {
    let components = [
        "@method",
        "@authority",
        "@path",
        "content-digest",
        "content-length",
        "content-type",
    ];
    let settings = settings(Algorithm::EcdsaP256Sha256, "test-key-rsa-pss", &components);
    let (base, signature) = base(&build(&settings, ECC_P256).unwrap(), None);
    let wanted = "\"@method\": POST\n\
                  \"@authority\": example.com\n\
                  \"@path\": /foo\n\
                  \"content-digest\": sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\n\
                  \"content-length\": 18\n\
                  \"content-type\": application/json\n\
                  \"@signature-params\": (\"@method\" \"@authority\" \"@path\" \"content-digest\" \"content-length\" \"content-type\");created=1618884473;keyid=\"test-key-rsa-pss\"";
    assert_eq!(base, wanted);
    assert!(verifies(ECC_P256, &ECDSA_P256_SHA256_FIXED, &base, &signature));
    let settings = HttpSignature {
        algorithm: Algorithm::RsaPkcs1Sha256,
        ..settings
    };
    let (again, signature) = self::base(&build(&settings, RSA).unwrap(), None);
    assert!(verifies(RSA, &RSA_PKCS1_2048_8192_SHA256, &again, &signature));
}

/// The digests are RFC 9530's, appendix B and D.
#[test]
fn a_request_gets_digest_date_and_signature_anew_each_time() {
    let mut settings = settings(
        Algorithm::HmacSha256,
        "k\u{20}1",
        &["@target-uri", "date", "content-digest"],
    );
    settings.expires = Some(Duration::from_secs(60));
    settings.names_algorithm = true;
    settings.nonce = true;
    settings.tag = Some("t".to_owned());
    settings.label = "app".to_owned();
    let message = build(&settings, SHARED).unwrap();
    assert_eq!(message.hashes(), Some(64));
    let mut head = request();
    head.headers
        .append("signature-input", HeaderValue::from_static("old=()"));
    head.headers
        .append("signature", HeaderValue::from_static("old=::"));
    let mut before = String::new();
    for (body, digest) in [
        (BODY, "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"),
        (b"", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        (
            b"{\"hello\": \"world\"}\n",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        ),
    ] {
        message
            .sign(&mut to_sign(&mut head, Payload::Whole(body)))
            .unwrap();
        let field = |name: &str| {
            let mut all = head.headers.get_all(name);
            let one = all.next().unwrap().to_str().unwrap();
            assert!(all.next().is_none(), "{name}");
            one
        };
        assert_eq!(field("content-digest"), digest);
        assert_eq!(field("date"), "Tue, 20 Apr 2021 02:07:53 GMT");
        let input = field("signature-input");
        assert!(
            input.starts_with(
                "app=(\"@target-uri\" \"date\" \"content-digest\");created=1618884473;expires=1618884533\
                 ;nonce=\""
            ),
            "{input}"
        );
        assert!(
            input.ends_with("\";alg=\"hmac-sha256\";keyid=\"k 1\";tag=\"t\""),
            "{input}"
        );
        assert!(field("signature").starts_with("app=:"));
        assert_ne!(input, before, "the nonce is another");
        before = input.to_owned();
        assert!(head.headers["signature"].is_sensitive());
    }
}

#[test]
fn each_component_has_its_value() {
    let fields = [
        ("X-Many", " one "),
        ("X-Many", "two, \t"),
        ("X-Empty", ""),
        ("Host", "wrong.test"),
    ];
    let value_of = |component: &str, uri: &str, authority: &str, scheme| {
        let mut request = http::Request::get(uri);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let request = request.header("X-Odd", HeaderValue::from_bytes(b"a\xffb").unwrap());
        let mut head = Request::from(request.body(()).unwrap()).into_parts().0;
        let request = RequestToSign {
            head: &mut head,
            authority,
            scheme,
            payload: Payload::Streamed,
            now: at(0),
        };
        value(&Component::parse(component).unwrap(), &request).map_err(|error| error.to_string())
    };
    let uri = "https://ignored.test/a%20b/?x=1&y=a+b&x=2&fa%C3%A7ade%22%3A%20=%2B%2F%26%3D*~&empty";
    for (component, wanted) in [
        ("@method", "GET"),
        ("@scheme", "https"),
        ("@authority", "api.test"),
        ("host", "API.test:443"),
        ("@path", "/a%20b/"),
        (
            "@query",
            "?x=1&y=a+b&x=2&fa%C3%A7ade%22%3A%20=%2B%2F%26%3D*~&empty",
        ),
        ("@query-param;name=\"y\"", "a%20b"),
        ("@query-param;name=\"fa\u{e7}ade\": \"", "%2B%2F%26%3D*%7E"),
        ("@query-param;name=\"empty\"", ""),
        ("x-many", "one, two,"),
        ("x-many;bs", ":b25l:, :dHdvLA==:"),
        ("x-empty", ""),
        ("x-odd;bs", ":Yf9i:"),
    ] {
        assert_eq!(
            value_of(component, uri, "API.test:443", Scheme::Https).as_deref(),
            Ok(wanted),
            "{component}"
        );
    }
    for (component, uri, authority, scheme, wanted) in [
        ("@query", "/", "a.test", Scheme::Https, "?"),
        ("@query", "/?", "a.test", Scheme::Https, "?"),
        ("@request-target", "/?", "a.test", Scheme::Https, "/?"),
        ("@request-target", "/a?b", "a.test", Scheme::Https, "/a?b"),
        ("@request-target", "*", "a.test", Scheme::Https, "*"),
        ("@authority", "/", "a.test:80", Scheme::Http, "a.test"),
        ("@authority", "/", "a.test:80", Scheme::Https, "a.test:80"),
        ("@authority", "/", "[::1]:443", Scheme::Https, "[::1]"),
        (
            "@target-uri",
            "/a?b",
            "a.test:8443",
            Scheme::Https,
            "https://a.test:8443/a?b",
        ),
    ] {
        assert_eq!(
            value_of(component, uri, authority, scheme).as_deref(),
            Ok(wanted),
            "{component} {uri}"
        );
    }
    for (component, wanted) in [
        ("x-none", "no \"x-none\""),
        ("x-none;bs", "no \"x-none\";bs"),
        ("x-odd", "x-odd of the request is not ASCII"),
        ("@query-param;name=\"x\"", "or more than one"),
        ("@query-param;name=\"none\"", "no \"@query-param\";name=\"none\""),
    ] {
        let error = value_of(component, uri, "a.test", Scheme::Https).unwrap_err();
        assert!(error.contains(wanted), "{component}: {error}");
    }
}

#[test]
fn a_body_that_is_too_large_needs_the_apps_own_digest() {
    let settings = settings(Algorithm::HmacSha256, "k", &["content-digest"]);
    let message = build(&settings, SHARED).unwrap();
    let mut head = request();
    let its = head.headers["content-digest"].clone();
    message.sign(&mut to_sign(&mut head, Payload::Streamed)).unwrap();
    assert_eq!(head.headers["content-digest"], its);
    head.headers.remove("content-digest");
    let error = message.sign(&mut to_sign(&mut head, Payload::Streamed));
    assert!(matches!(error, Err(Error::TooLarge { most: 64, .. })));
}

#[test]
fn keys_that_do_not_do_are_told() {
    for (algorithm, key, encoding, wanted) in [
        (
            Algorithm::Ed25519,
            RSA,
            KeyEncoding::Text,
            "env:KEY: ed25519 (EdDSA) needs an Ed25519 key",
        ),
        (
            Algorithm::HmacSha256,
            "canary!",
            KeyEncoding::Base64,
            "env:KEY: this is not base64",
        ),
        (
            Algorithm::HmacSha256,
            "canary",
            KeyEncoding::Hex,
            "env:KEY: this is not hexadecimal",
        ),
    ] {
        let mut settings = settings(algorithm, "k", &["@method"]);
        settings.key_encoding = encoding;
        let error = build(&settings, key).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(wanted) && !shown.contains("canary"), "{shown}");
    }
}
