//! Requests that are signed here, and verified by programs that know nothing of us.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::h2_origin::H2Partner;
use crate::support::origin::ok;
use crate::support::programs::{curl, outrider, python, run};
use crate::support::verifier::Verifier;
use crate::support::{Origin, Pki, Proxy, Request};

const KEY: (&str, &str) = ("AWS_KEY", "canary-2f6b-secret-key");
const HMAC: (&str, &str) = ("HMAC_KEY", "canary-2f6b-hmac-key");

/// A destination over TLS that verifies, and a proxy that signs.
struct SignedService {
    _pki: Pki,
    origin: Origin,
    proxy: Proxy,
}

impl SignedService {
    #[track_caller]
    fn new(told: Value, auth: &str, variables: &[(&str, &str)]) -> Self {
        let verifier = Verifier::new(told);
        Self::with(auth, variables, "", move |wire| verifier.serve(wire))
    }

    /// Starts origin and proxy; `more` are further keys of the destination.
    #[track_caller]
    fn with(
        auth: &str,
        variables: &[(&str, &str)],
        more: &str,
        script: impl Fn(&mut crate::support::Wire) + Send + Sync + 'static,
    ) -> Self {
        let pki = Pki::new();
        let origin = Origin::https(pki.accepting(&pki.server("partner.test")), script);
        let ca = pki.ca().display().to_string();
        let yaml = format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], auth: {auth}, tls: {{ ca: \"file:{ca}\" }}{more} }} }}",
            origin.authority()
        );
        let proxy = Proxy::start_with(&yaml, variables);
        Self {
            _pki: pki,
            origin,
            proxy,
        }
    }

    /// Sends a request in both ways: with `http://`, which is upgraded, and inside an intercepted tunnel.
    #[track_caller]
    fn takes(&self, method: &str, target: &str, fields: &str, body: &[u8]) {
        let authority = self.origin.authority();
        let rest = format!(
            "Host: {authority}\r\nVia: 1.0 other\r\nUser-Agent: x\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let absolute = format!("{method} http://{authority}{target} HTTP/1.1\r\n{rest}");
        let mut inner = self.proxy.intercepted(&authority);
        let origin_form = format!("{method} {target} HTTP/1.1\r\n{rest}");
        for answer in [
            self.proxy.raw([absolute.as_bytes(), body].concat()),
            inner.ask([origin_form.as_bytes(), body].concat()),
        ] {
            assert_eq!(answer.text(), "ok", "{method} {target} {fields}");
            assert_eq!(answer.status, 200);
        }
    }
}

fn aws(service: &str, more: &str) -> String {
    format!(
        "{{ aws_sigv4: {{ service: {service}, region: us-east-1, access_key_id: AKIDEXAMPLE, \
         secret_access_key: env:AWS_KEY, max_body: 64KiB{more} }} }}"
    )
}

/// What an SDK with made-up keys puts on a request.
const DUMMY: &str = "Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature=00\r\n\
                     X-Amz-Date: 20200101T000000Z\r\nX-Amz-Security-Token: x\r\n";

#[test]
fn botocore_signs_as_we_do() {
    let token = ("AWS_SESSION_TOKEN", "canary-2f6b-session//token==");
    let service = SignedService::new(
        json!({ "kind": "aws", "service": "execute-api", "token": token.1 }),
        &aws("execute-api", ", session_token: env:AWS_SESSION_TOKEN"),
        &[KEY, token],
    );
    for (method, target, fields, body) in [
        ("GET", "/", "", &b""[..]),
        (
            "GET",
            "/prod/items?b=2&a=1&a=0&A=%20%2F&empty=&c=%E2%82%AC",
            "",
            b"",
        ),
        ("GET", "/a%20b/%E2%82%AC/@x/(y)/~z/;p=1/", DUMMY, b""),
        (
            "DELETE",
            "/a/./b/../c//d/",
            "X-Many: b,  a\r\nX-Many:   c\r\n",
            b"",
        ),
        (
            "POST",
            "/2015-03-31/functions/f/invocations",
            "Content-Type: application/json\r\nX-Amz-Target: A.B\r\nCookie: a=b\r\nTE: trailers\r\n",
            b"{\"hello\": \"world\"}",
        ),
        (
            "PUT",
            "/",
            "X-Forwarded-For: 10.0.0.1\r\nAccept-Encoding: gzip\r\n",
            &[0xff; 60_000],
        ),
    ] {
        service.takes(method, target, fields, body);
    }
    // And the other way round: another key is another signature.
    let verifier = Verifier::new(json!({ "kind": "aws", "service": "execute-api" }));
    let wrong = SignedService::with(
        &aws("execute-api", ", session_token: env:UNSET"),
        &[("AWS_KEY", "canary-2f6b-other-key")],
        "",
        move |wire| verifier.serve(wire),
    );
    let answer = wrong.proxy.get(&wrong.origin.url("/"));
    assert_eq!(answer.status, 403);
    assert!(
        answer.text().starts_with("authorization: botocore has"),
        "{}",
        answer.text()
    );
}

#[test]
fn botocore_signs_bodies_for_s3_as_we_do() {
    let service = SignedService::new(json!({ "kind": "aws", "service": "s3" }), &aws("s3", ""), &[KEY]);
    let large = vec![b'x'; 100_000];
    let hash = {
        let script = format!(
            "import hashlib; print(hashlib.sha256(b'x' * {}).hexdigest())",
            large.len()
        );
        run(&mut python(&script)).succeeded().stdout.trim().to_owned()
    };
    for (method, target, fields, body) in [
        (
            "GET",
            "/bucket/a%20b/%E2%82%AC//c/./d..?list-type=2&prefix=a%2Fb",
            "",
            &b""[..],
        ),
        ("PUT", "/bucket/small", DUMMY, b"small"),
        ("PUT", "/bucket/large", "", &large),
        (
            "PUT",
            "/bucket/large",
            "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\n",
            &large,
        ),
        (
            "PUT",
            "/bucket/large",
            &format!("X-Amz-Content-Sha256: {hash}\r\n"),
            &large,
        ),
        (
            "PUT",
            "/bucket/trailing",
            "X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nContent-Encoding: aws-chunked\r\n\
             X-Amz-Trailer: x-amz-checksum-crc32\r\nX-Amz-Decoded-Content-Length: 1\r\n",
            b"1\r\nx\r\n0\r\nx-amz-checksum-crc32:jNyyBQ==\r\n\r\n",
        ),
    ] {
        service.takes(method, target, fields, body);
    }
}

/// The SDK has dummy keys, and an endpoint without TLS or trust in our authority.
#[test]
fn an_sdk_needs_no_real_keys() {
    let verifier = Verifier::new(json!({ "kind": "aws", "service": "s3" }));
    let service = SignedService::with(&aws("s3", ""), &[KEY], "", move |wire| {
        verifier.serve_s3(wire);
    });
    for scheme in ["http", "https"] {
        let script = format!(
            "import botocore.session, botocore.config\n\
             proxy = 'http://{}'\n\
             client = botocore.session.get_session().create_client('s3', region_name='us-east-1',\n\
             \x20   endpoint_url='{scheme}://{}', verify='{}', aws_access_key_id='none', aws_secret_access_key='none',\n\
             \x20   config=botocore.config.Config(proxies={{'http': proxy, 'https': proxy}}, s3={{'addressing_style': 'path'}},\n\
             \x20       retries={{'max_attempts': 1}}))\n\
             for body in (b'small', b'x' * 100000):\n\
             \x20   answer = client.put_object(Bucket='bucket', Key='a b/\u{20ac}', Body=body, Metadata={{'a': 'b'}})\n\
             \x20   print(answer['ResponseMetadata']['HTTPStatusCode'])\n",
            service.proxy.address(),
            service.origin.authority(),
            service.proxy.bundle().display(),
        );
        let told = run(&mut python(&script));
        assert_eq!(told.succeeded().stdout, "200\n200\n", "{scheme}");
    }
}

/// What is too large to be hashed is refused before anything is sent; with the remedy.
#[test]
fn an_unsignable_request_is_refused_with_the_reason() {
    let service = SignedService::with(&aws("dynamodb", ""), &[KEY], "", |wire| {
        let _ = wire.request();
    });
    let authority = service.origin.authority();
    let put = |fields: &str, length: usize| {
        let head = format!(
            "PUT http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        service
            .proxy
            .raw([head.into_bytes(), vec![b'x'; length]].concat())
    };
    let answer = put("", 65 * 1024);
    answer.assert_ours(413, "http_request_error");
    assert!(answer.text().contains("raise max_body"), "{}", answer.text());
    let answer = put("X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n", 1);
    answer.assert_ours(400, "http_request_error");
    assert!(answer.text().contains("signs each chunk"), "{}", answer.text());
    assert_eq!(service.origin.raw(), "");
}

/// Makes a key of each algorithm, and the verifier's part of it.
fn keys(pki: &Pki) -> Vec<(&'static str, String, String)> {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pairs: [(&str, &[&str]); 4] = [
        ("ed25519", &["-algorithm", "ED25519"]),
        (
            "ecdsa-p256-sha256",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
        ("rsa-pss-sha512", &["-algorithm", "RSA"]),
        ("rsa-v1_5-sha256", &["-algorithm", "RSA"]),
    ];
    let mut keys = vec![("hmac-sha256", "env:HMAC_KEY".to_owned(), HMAC.1.to_owned())];
    for (name, arguments) in pairs {
        let path = pki.folder().join(format!("{name}.pem")).display().to_string();
        openssl(&[&["genpkey"], arguments, &["-out", &path]].concat());
        let public = openssl(&["pkey", "-pubout", "-in", &path]);
        keys.push((name, format!("\"file:{path}\""), public));
    }
    keys
}

const COVERED: [&str; 7] = [
    "@method",
    "@target-uri",
    "@authority",
    "@path",
    "@query",
    "content-type",
    "content-digest",
];

fn message(algorithm: &str, key: &str, more: &str) -> String {
    format!(
        "{{ http_signature: {{ key_id: app, key: {key}, algorithm: {algorithm}, components: {COVERED:?}{more} }} }}"
    )
}

#[test]
fn another_implementation_verifies_message_signatures() {
    let pki = Pki::new();
    for (algorithm, key, known) in keys(&pki) {
        let service = SignedService::new(
            json!({ "kind": "message", "algorithm": algorithm, "key": known, "covered": COVERED }),
            &message(
                algorithm,
                &key,
                ", expires: 5m, nonce: true, alg: true, tag: tests",
            ),
            &[HMAC],
        );
        let fields = "Content-Type: application/json\r\nSignature: old=:AA==:\r\nSignature-Input: old=()\r\n\
                      Content-Digest: sha-256=:AA==:\r\n";
        for target in ["/", "/a%20b/c?x=%20&y=1&y=2"] {
            service.takes("POST", target, fields, b"{\"hello\": \"world\"}");
            service.takes("GET", target, fields, b"");
        }
        let answer = service.proxy.get(&service.origin.url("/"));
        answer.assert_ours(400, "http_request_error");
        assert!(
            answer.text().contains("has no \\\"content-type\\\""),
            "{}",
            answer.text()
        );
    }
}

/// `:authority` is what is signed there, and the fields are in small letters.
#[test]
fn http_2_is_signed_as_well() {
    let partner = H2Partner::new();
    let covered = ["@method", "@target-uri", "@authority", "content-digest"];
    let kinds = [
        (aws("s3", ""), json!({ "kind": "aws", "service": "s3" })),
        (
            format!(
                "{{ http_signature: {{ key_id: app, key: env:HMAC_KEY, algorithm: hmac-sha256, components: {covered:?} }} }}"
            ),
            json!({ "kind": "message", "algorithm": "hmac-sha256", "key": HMAC.1, "covered": covered }),
        ),
    ];
    for (number, (auth, told)) in kinds.into_iter().enumerate() {
        let proxy = Proxy::start_with(&partner.yaml_with(&auth), &[KEY, HMAC]);
        let url = format!("https://{}/a%20b?x=1", partner.authority());
        let bundle = proxy.bundle().display().to_string();
        let address = format!("http://{}", proxy.address());
        let answer = run(&mut curl([
            "--http2", "--proxy", &address, "--cacert", &bundle, "--data", "a=b", &url,
        ]));
        answer.succeeded();
        let requests = partner.requests();
        assert_eq!(requests.len(), number + 1);
        assert_eq!(Verifier::new(told).judge(&requests[number]), "ok");
    }
}

/// Some services want the length of every body (s3s-fs answers 411 without it), and a signature may cover it.
#[test]
fn a_small_body_in_chunks_is_signed_and_leaves_with_its_length() {
    let covered = ["@method", "content-digest", "content-length"];
    let length = "{ hmac: { key: env:HMAC_KEY, message: '{header.content-length}{body_sha256}', set: { X-S: '{signature}' } } }";
    let message = format!(
        "{{ http_signature: {{ key_id: app, key: env:HMAC_KEY, algorithm: hmac-sha256, components: {covered:?} }} }}"
    );
    let told = json!({ "kind": "message", "algorithm": "hmac-sha256", "key": HMAC.1, "covered": covered });
    for (auth, verifier) in [
        (aws("s3", ""), Some(json!({ "kind": "aws", "service": "s3" }))),
        (
            aws("execute-api", ""),
            Some(json!({ "kind": "aws", "service": "execute-api" })),
        ),
        (message.clone(), Some(told.clone())),
        (length.to_owned(), None),
    ] {
        let service = match verifier {
            Some(told) => SignedService::new(told, &auth, &[KEY, HMAC]),
            None => SignedService::with(&auth, &[HMAC], "", ok),
        };
        let authority = service.origin.authority();
        let head = format!(
            "PUT http://{authority}/a HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        for (chunks, length) in [("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 5), ("0\r\n\r\n", 0)] {
            let before = service.origin.raw().len();
            let answer = service.proxy.raw(format!("{head}{chunks}"));
            assert_eq!(answer.text(), "ok", "{auth}");
            let sent = service.origin.raw()[before..].to_lowercase();
            assert!(
                sent.contains(&format!("content-length: {length}\r\n")),
                "{auth}: {sent}"
            );
            assert!(!sent.contains("transfer-encoding"), "{auth}: {sent}");
        }
    }
    // And over HTTP/2, where a length is not needed and may be signed as well.
    let partner = H2Partner::new();
    let proxy = Proxy::start_with(&partner.yaml_with(&format!("{message}, http: 2")), &[HMAC]);
    let authority = partner.authority();
    let answer = proxy.intercepted(&authority).ask(format!(
        "PUT /a HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    ));
    assert_eq!(answer.status, 200);
    let requests = partner.requests();
    assert_eq!(requests[0].headers.get("content-length"), Some("5"));
    assert_eq!(Verifier::new(told).judge(&requests[0]), "ok");
}

/// A repeat is signed for itself: another nonce, and as valid as the first.
#[test]
fn a_request_that_is_sent_again_is_signed_again() {
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (log, asked) = (Arc::clone(&seen), AtomicUsize::new(0));
    let auth = message("hmac-sha256", "env:HMAC_KEY", ", nonce: true");
    let service = SignedService::with(
        &auth,
        &[HMAC],
        ", retry: { attempts: 3, on: [503], max_wait: 10s }",
        move |wire| {
            while let Ok(request) = wire.request() {
                log.lock().unwrap().push(request);
                let status = match asked.fetch_add(1, Ordering::SeqCst) {
                    0 | 1 => "503 Service Unavailable",
                    _ => "200 OK",
                };
                wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"));
            }
        },
    );
    service
        .proxy
        .intercepted(&service.origin.authority())
        .ask(format!(
            "PUT /a HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
            service.origin.authority()
        ));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    let told = json!({ "kind": "message", "algorithm": "hmac-sha256", "key": HMAC.1, "covered": COVERED });
    let verifier = Verifier::new(told);
    let mut inputs = Vec::new();
    for request in seen.iter() {
        assert_eq!(verifier.judge(request), "ok");
        inputs.push(request.headers.get("signature-input").unwrap().to_owned());
    }
    inputs.dedup();
    assert_eq!(inputs.len(), 3, "{inputs:?}");
}

/// The draft's fields, put together by a program that reads which fields were signed.
#[test]
fn an_hmac_of_templates_verifies() {
    let auth = "{ hmac: { key: env:HMAC_KEY, key_id: app, encoding: base64, \
                message: \"(request-target): {method_lower} {target}\\nhost: {authority}\\ndate: {header.date}\\n\
                digest: {header.digest}\", set: { Date: '{date}', Digest: 'SHA-256={body_sha256_base64}', \
                Authorization: 'Signature keyId=\"{key_id}\",headers=\"(request-target) host date digest\",\
                signature=\"{signature}\"' } } }";
    let service = SignedService::new(json!({ "kind": "cavage", "key": HMAC.1 }), auth, &[HMAC]);
    service.takes("POST", "/a?b=c", "Date: old\r\nDigest: old\r\n", b"body");
    service.takes("GET", "/", "Authorization: Bearer of-the-app\r\n", b"");
}

#[test]
fn check_and_explain_describe_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(
        &file,
        "destinations:\n  p:\n    hosts: [a.test]\n    auth:\n      aws_sigv4: { service: s3, region: us-east-1, \
         access_key_id: AKID, secret_access_key: env:AWS_KEY, session_token: env:AWS_SESSION_TOKEN }\n",
    )
    .unwrap();
    let told = run(outrider(["check", "--config"]).arg(&file).env(KEY.0, KEY.1));
    assert_eq!(told.succeeded().stdout, "");
    assert!(
        told.stderr
            .contains("session_token: env:AWS_SESSION_TOKEN is not set, so there is no session token"),
        "{}",
        told.stderr
    );
    let told = run(outrider(["explain", "--config"])
        .arg(&file)
        .arg("https://a.test/"));
    assert!(
        told.stdout
            .contains("AWS Signature Version 4 for s3 in us-east-1, key from env:AWS_KEY"),
        "{}",
        told.stdout
    );
    let told = run(outrider(["check", "--config"]).arg(&file));
    assert_eq!(told.code(), 1);
    assert!(
        format!("{}{}", told.stdout, told.stderr)
            .contains("env:AWS_KEY: the environment variable is not set"),
        "{told:?}"
    );
}
