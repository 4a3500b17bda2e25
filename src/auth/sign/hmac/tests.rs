use std::time::{Duration, SystemTime};

use super::*;
use crate::config::{Algorithm, KeyEncoding, SecretRef, SignatureEncoding, Text};
use crate::message::{Request, RequestHead};

/// 2014-01-05T21:31:40Z.
const NOW: u64 = 1_388_957_500;

/// The scheme of a service, and the expected signature.
struct Form {
    name: &'static str,
    key: &'static str,
    key_encoding: KeyEncoding,
    algorithm: Algorithm,
    encoding: SignatureEncoding,
    message: &'static str,
    set: &'static [(&'static str, &'static str)],
    uri: &'static str,
    body: &'static str,
    wanted: &'static [(&'static str, &'static str)],
}

impl Default for Form {
    fn default() -> Self {
        Self {
            name: "",
            key: "secret",
            key_encoding: KeyEncoding::Text,
            algorithm: Algorithm::HmacSha256,
            encoding: SignatureEncoding::Hex,
            message: "{body}",
            set: &[("X-Signature", "{signature}")],
            uri: "/",
            body: "",
            wanted: &[],
        }
    }
}

impl Form {
    fn build(&self) -> HmacSigner {
        let template = |text: &str| Template::parse(text).unwrap();
        let settings = config::Hmac {
            algorithm: self.algorithm,
            encoding: self.encoding,
            key: SecretRef::Env("KEY".to_owned()),
            key_encoding: self.key_encoding,
            key_id: Some(Text::Reference(SecretRef::Env("ID".to_owned()))),
            max_body: 64,
            message: template(self.message),
            set: self
                .set
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), template(value)))
                .collect(),
        };
        let snapshot = Snapshot::of_variables([("KEY", self.key), ("ID", "app-1")]);
        HmacSigner::build(&settings, &snapshot).unwrap()
    }

    fn head(&self) -> Box<RequestHead> {
        let request = http::Request::post(self.uri).header("Content-Type", "application/json");
        Request::from(request.body(()).unwrap()).into_parts().0
    }
}

fn to_sign<'a>(head: &'a mut RequestHead, payload: Payload<'a>, now: SystemTime) -> RequestToSign<'a> {
    RequestToSign {
        head,
        authority: "example.com",
        scheme: Scheme::Https,
        payload,
        now,
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

#[test]
fn forms_that_services_have_come_out_as_they_say() {
    for form in forms() {
        let mut head = form.head();
        let hmac = form.build();
        for _ in 0..2 {
            hmac.sign(&mut to_sign(
                &mut head,
                Payload::Whole(form.body.as_bytes()),
                now(),
            ))
            .unwrap();
        }
        for (name, wanted) in form.wanted {
            let all: Vec<_> = head.headers.get_all(*name).collect();
            assert_eq!(all, [wanted], "{}", form.name);
            assert!(all[0].is_sensitive());
        }
    }
}

const DATE: &str = "Sun, 05 Jan 2014 21:31:40 GMT";
const BODY: &str = "{\"hello\": \"world\"}";

/// The codes are from Python, except the first, which is from GitHub's documentation.
fn forms() -> Vec<Form> {
    vec![
        Form {
            name: "a webhook of GitHub",
            key: "It's a Secret to Everybody",
            set: &[("X-Hub-Signature-256", "sha256={signature}")],
            body: "Hello, World!",
            wanted: &[(
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            )],
            ..Form::default()
        },
        Form {
            name: "a version, the time and the body, as Slack has it",
            key: "8f742231b10e8888abcd99yyyzzz85a5",
            message: "v0:{timestamp}:{body}",
            set: &[
                ("X-Slack-Signature", "v0={signature}"),
                ("X-Slack-Request-Timestamp", "{timestamp}"),
            ],
            body: "token=x&text=a+b",
            wanted: &[
                (
                    "x-slack-signature",
                    "v0=2abea68a6c843eeab427aa43c7f16bf1c62880397be178cbfee016ace52210e6",
                ),
                ("x-slack-request-timestamp", "1388957500"),
            ],
            ..Form::default()
        },
        Form {
            name: "Authorization: HMAC id:signature",
            encoding: SignatureEncoding::Base64,
            message: "{method}\n{path}\n{date}\n{body_sha256}",
            set: &[("Authorization", "HMAC {key_id}:{signature}"), ("Date", "{date}")],
            uri: "/foo?param=value",
            body: BODY,
            wanted: &[
                (
                    "authorization",
                    "HMAC app-1:NQrtqtqOym/4HWLzLrqjhQYRDfmKqW/+G3UNYg5BR/s=",
                ),
                ("date", DATE),
            ],
            ..Form::default()
        },
        Form {
            name: "draft-cavage-http-signatures",
            encoding: SignatureEncoding::Base64,
            message: "(request-target): {method_lower} {target}\nhost: {authority}\ndate: {header.date}\n\
                      digest: {header.digest}",
            set: &[
                (
                    "Authorization",
                    "Signature keyId=\"{key_id}\",algorithm=\"hmac-sha256\",\
                     headers=\"(request-target) host date digest\",signature=\"{signature}\"",
                ),
                ("Date", "{date}"),
                ("Digest", "SHA-256={body_sha256_base64}"),
            ],
            uri: "/foo?param=value&pet=dog",
            body: BODY,
            wanted: &[
                (
                    "authorization",
                    "Signature keyId=\"app-1\",algorithm=\"hmac-sha256\",\
                     headers=\"(request-target) host date digest\",\
                     signature=\"wQkvoAcAkM6CrpcA2gY4MET0zC2ixR6sgZF/d5HTvCA=\"",
                ),
                ("date", DATE),
                ("digest", "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="),
            ],
            ..Form::default()
        },
        Form {
            name: "HMAC-SHA256 with signed headers, as Azure App Configuration has it",
            key: "YSAzMiBieXRlIGtleSBmb3IgdGhlIHRlc3RzLi4uLi4=",
            key_encoding: KeyEncoding::Base64,
            encoding: SignatureEncoding::Base64,
            message: "{method}\n{target}\n{date};{authority};{body_sha256_base64}",
            set: &[
                ("X-Ms-Date", "{date}"),
                ("X-Ms-Content-Sha256", "{body_sha256_base64}"),
                (
                    "Authorization",
                    "HMAC-SHA256 Credential={key_id}&SignedHeaders=x-ms-date;host;x-ms-content-sha256\
                     &Signature={signature}",
                ),
            ],
            uri: "/kv?api-version=1.0",
            body: BODY,
            wanted: &[
                (
                    "authorization",
                    "HMAC-SHA256 Credential=app-1&SignedHeaders=x-ms-date;host;x-ms-content-sha256\
                     &Signature=FuNKU9E8QxxFY5OEo9G4SuUSoIf6LIfZ8qARHG20mck=",
                ),
                ("x-ms-date", DATE),
                (
                    "x-ms-content-sha256",
                    "X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
                ),
            ],
            ..Form::default()
        },
        Form {
            name: "all run together under a key in base64, as exchanges have it",
            // URL-safe and without padding: the bytes ff fe 00 and three letters.
            key: "__4Aa2V5",
            key_encoding: KeyEncoding::Base64,
            encoding: SignatureEncoding::Base64,
            message: "{timestamp}{method}{target}{body}",
            uri: "/orders?x=1",
            body: BODY,
            wanted: &[("x-signature", "9gu4a2HaJjWpmGzEkDqaT5ERgkIo3OV85s3BHBh4zCo=")],
            ..Form::default()
        },
        Form {
            name: "SHA-1, a URL and milliseconds",
            algorithm: Algorithm::HmacSha1,
            message: "{method}&{url}&{rfc3339}&{timestamp_ms}&{header.content-type}&{body_sha1}",
            uri: "/a?b=c",
            body: BODY,
            wanted: &[("x-signature", "a13f45c35f2421cba6f0bcc4f1678bb8cd393c64")],
            ..Form::default()
        },
        Form {
            name: "SHA-512 and the parts of a URL",
            key: "00FF10",
            key_encoding: KeyEncoding::Hex,
            algorithm: Algorithm::HmacSha512,
            encoding: SignatureEncoding::Base64Url,
            message: "{key_id}|{scheme}|{path}|{query}|{body_sha512_base64}|{body_sha512}",
            uri: "/a?b=c",
            body: BODY,
            wanted: &[(
                "x-signature",
                "ff1tCgzsstHddzDLh15chFq1J5I3PP_fowJq9wFtBUktoujXkdIWUuCke5v6AhoFdo80lMZe3o0V-nVwY1RifA",
            )],
            ..Form::default()
        },
    ]
}

#[test]
fn a_nonce_is_another_each_time_and_the_same_in_message_and_fields() {
    let form = Form {
        message: "{nonce}",
        set: &[("X-Nonce", "{nonce}"), ("X-Signature", "{signature}")],
        ..Form::default()
    };
    let hmac = form.build();
    let mut head = form.head();
    let mut signed = || {
        hmac.sign(&mut to_sign(&mut head, Payload::Streamed, now()))
            .unwrap();
        let field = |name| head.headers[name].to_str().unwrap().to_owned();
        let (nonce, signature) = (field("x-nonce"), field("x-signature"));
        assert_eq!(
            HEXLOWER.encode(&hmac.key.sign(nonce.as_bytes()).unwrap()),
            signature
        );
        nonce
    };
    assert_ne!(signed(), signed());
}

#[test]
fn a_body_is_asked_for_only_where_it_is_signed() {
    for (message, value, wanted) in [
        ("{method}", "{signature}", None),
        ("{body}", "{signature}", Some(64)),
        ("{method}", "{signature} {body_sha256}", Some(64)),
    ] {
        let set: &'static [(&str, &str)] = Box::leak(Box::new([("X-Signature", value)]));
        let form = Form {
            message,
            set,
            ..Form::default()
        };
        let hmac = form.build();
        assert_eq!(hmac.hashes(), wanted, "{message} {value}");
        let mut head = form.head();
        let result = hmac.sign(&mut to_sign(&mut head, Payload::Streamed, now()));
        match wanted {
            None => result.unwrap(),
            Some(_) => assert!(matches!(
                result,
                Err(Error::TooLarge {
                    kind: "hmac",
                    most: 64
                })
            )),
        }
    }
}

#[test]
fn what_a_field_cannot_hold_is_an_error_and_nothing_shows_the_key() {
    let form = Form {
        message: "{method}",
        set: &[("X-Signature", "{signature}"), ("X-Type", "{header.x-odd}")],
        ..Form::default()
    };
    let hmac = form.build();
    let mut head = form.head();
    head.headers
        .insert("x-odd", http::HeaderValue::from_bytes(b"a\xff").unwrap());
    hmac.sign(&mut to_sign(&mut head, Payload::Streamed, now()))
        .unwrap();
    assert_eq!(head.headers["x-type"].as_bytes(), b"a\xff");
    let shown = format!("{hmac:?} {:?}", head.headers);
    assert!(!shown.contains("secret"), "{shown}");
}
