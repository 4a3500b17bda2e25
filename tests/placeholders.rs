//! An app that never holds the secret: what it has instead, where that becomes the secret, and where it is refused.

use std::collections::HashMap;

use crate::support::origin::ok;
use crate::support::{Origin, Pki, Proxy, Response, Wire, eventually, leak};

mod answers;
mod bodies;
mod sdks;

/// With a character that URLs, JSON and forms write in another way.
const KEY: &str = "canary-2f6b-own+key/\"1\"";
/// [`KEY`] as it stands in JSON.
const KEY_IN_JSON: &str = "canary-2f6b-own+key/\\\"1\\\"";
const OTHER_KEY: &str = "canary-2f6b-other-key";

/// A proxy with two destinations, `partner.test` and `other.test`, that use one secret each; and the placeholders.
struct Scene {
    other: Origin,
    partner: Origin,
    proxy: Proxy,
    texts: HashMap<String, String>,
    _pki: Pki,
}

impl Scene {
    fn new(own: &str) -> Self {
        Self::with(own, "placeholders: { mode: always }", ok)
    }

    /// `own` are more keys of the first destination, `more` more of the file.
    fn with(own: &str, more: &str, script: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        let pki = Pki::new();
        let partner = Origin::https(pki.accepting(&pki.server("partner.test")), script);
        let other = Origin::https(pki.accepting(&pki.server("other.test")), ok);
        let yaml = format!(
            "destinations:\n  p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{ca}\" }}, {own} }}\n  \
             o: {{ hosts: [\"other.test:{}\"], tls: {{ ca: \"file:{ca}\" }}, auth: {{ bearer: env:OTHER }} }}\n{more}\n",
            partner.authority(),
            other.port(),
            ca = pki.ca().display(),
        );
        let proxy = Proxy::start_with(&yaml, &[("OWN", KEY), ("OTHER", OTHER_KEY)]);
        let texts = assigned(&proxy);
        Self {
            other,
            partner,
            proxy,
            texts,
            _pki: pki,
        }
    }

    fn own(&self) -> &str {
        &self.texts["env:OWN"]
    }

    fn foreign(&self) -> &str {
        &self.texts["env:OTHER"]
    }

    fn ask(&self, method: &str, target: &str, fields: &str) -> Response {
        self.proxy.ask(method, &self.partner.url(target), fields)
    }

    /// Sends a POST to the first destination, with its length.
    fn post(&self, fields: &str, body: impl AsRef<[u8]>) -> Response {
        let body = body.as_ref();
        let (url, authority) = (self.partner.url("/"), self.partner.authority());
        let length = body.len();
        let head = format!(
            "POST {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        self.proxy.raw([head.as_bytes(), body].concat())
    }

    /// Sends a POST in these chunks.
    fn chunked(&self, fields: &str, chunks: &[&str], trailers: &str) -> Response {
        let (url, authority) = (self.partner.url("/"), self.partner.authority());
        let mut text = format!(
            "POST {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{fields}\r\n"
        );
        for chunk in chunks {
            text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        }
        self.proxy.raw(text + "0\r\n" + trailers + "\r\n")
    }

    fn refusals(&self) -> f64 {
        self.proxy
            .metric("outrider_denied_total", &[("reason", "placeholder")])
    }
}

/// Returns the placeholders that an app of this proxy has, by their references.
fn assigned(proxy: &Proxy) -> HashMap<String, String> {
    let file = proxy.bundle().with_file_name("placeholders.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// It came from us, has the reason, and holds neither a secret nor a placeholder.
#[track_caller]
fn assert_refused(answer: &Response, scene: &Scene, word: &str) {
    let text = answer.text();
    answer.assert_ours(403, "http_request_denied");
    assert!(text.contains("\"reason\":\"placeholder\""), "{text}");
    assert!(text.contains(word), "{word}: {text}");
    let told = format!("{:?} {text}", answer.headers);
    assert_eq!(leak(&told), None);
    for placeholder in scene.texts.values() {
        assert!(!told.contains(&**placeholder), "{told}");
    }
}

const BEARER: &str = "auth: [{ match: { path: /attached/** }, bearer: env:OWN }, { match: { path: /never }, bearer: env:OWN }]";

#[test]
fn the_secret_takes_the_place_of_its_placeholder_in_fields_and_in_the_query() {
    let scene = Scene::new(BEARER);
    let own = scene.own();
    let mixed: String = own
        .bytes()
        .enumerate()
        .map(|(i, byte)| match i % 3 {
            0 => format!("%{byte:02x}"),
            1 => format!("%{byte:02X}"),
            _ => char::from(byte).to_string(),
        })
        .collect();
    let pair = |password: &str| data_encoding::BASE64.encode(format!("app:{password}").as_bytes());
    for (target, fields, expected) in [
        (
            "/",
            format!("Authorization: Bearer {own}\r\n"),
            format!("authorization: Bearer {KEY}\r\n"),
        ),
        (
            "/",
            format!("X-API-KEY: {own}\r\n"),
            format!("x-api-key: {KEY}\r\n"),
        ),
        (
            "/",
            format!("Cookie: a=b; key={own}; c={own}\r\n"),
            format!("cookie: a=b; key={KEY}; c={KEY}\r\n"),
        ),
        (
            "/",
            format!("Authorization: Basic {}\r\n", pair(own)),
            format!("authorization: Basic {}\r\n", pair(KEY)),
        ),
        (
            &format!("/a?key={own}&b=1"),
            String::new(),
            "/a?key=canary-2f6b-own%2Bkey%2F%221%22&b=1 ".to_owned(),
        ),
        (
            &format!("/a?b=1&key={mixed}"),
            String::new(),
            "/a?b=1&key=canary-2f6b-own%2Bkey%2F%221%22 ".to_owned(),
        ),
    ] {
        for method in ["GET", "HEAD", "DELETE"] {
            let before = scene.partner.raw().len();
            let answer = scene.ask(method, target, &fields);
            assert_eq!(answer.status, 200, "{fields}: {}", answer.text());
            let seen = scene.partner.raw()[before..].to_owned();
            assert!(seen.contains(&expected), "{method} {fields}: {seen}");
            assert!(!seen.contains(own), "{seen}");
        }
    }
    // Where the credential sets the field, it wins.
    let before = scene.partner.raw().len();
    let answer = scene.ask(
        "GET",
        "/attached/x",
        &format!("Authorization: Basic {}\r\n", pair(own)),
    );
    assert_eq!(answer.status, 200);
    let seen = scene.partner.raw()[before..].to_owned();
    assert!(
        seen.contains(&format!("authorization: Bearer {KEY}\r\n")),
        "{seen}"
    );
    assert_eq!(scene.refusals(), 0.0);
}

#[test]
fn a_placeholder_elsewhere_is_refused_counted_and_told() {
    let scene = Scene::new(BEARER);
    let (own, foreign) = (scene.own(), scene.foreign());
    let other = |target: &str, fields: &str| {
        let url = format!("http://other.test:{}{target}", scene.other.port());
        scene.proxy.ask("GET", &url, fields)
    };
    let percent: String = own.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let json: String = own.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let pair = data_encoding::BASE64.encode(format!("{own}:").as_bytes());
    let answers = [
        other("/", &format!("Authorization: Bearer {own}\r\n")),
        other("/", &format!("X-Note: {{\"a\":\"{json}\"}}\r\n")),
        other("/", &format!("Authorization: Basic {pair}\r\n")),
        other("/", &format!("Cookie: {own}\r\n")),
        other("/", &format!("X-{own}: 1\r\n")),
        other(&format!("/?{percent}=1"), ""),
        other(&format!("/a/{own}/b"), ""),
        // One that belongs there does not help.
        other("/", &format!("X-A: {foreign}\r\nX-B: {own}\r\n")),
        // An unlisted host that would be refused anyway: what matters more is told.
        scene
            .proxy
            .ask("GET", "http://unlisted.test/", &format!("X: {own}\r\n")),
        scene
            .proxy
            .ask("GET", &format!("http://{own}@unlisted.test/"), ""),
    ];
    for answer in &answers {
        assert_refused(answer, &scene, "env:OWN");
    }
    let (connect, _) = scene
        .proxy
        .connect(&format!("{}.test:443", own.replace('_', "-")));
    assert_refused(&connect, &scene, "env:OWN");
    assert!(scene.other.raw().is_empty(), "{}", scene.other.raw());
    assert_eq!(scene.refusals(), answers.len() as f64 + 1.0);
    eventually("it is told", || {
        scene
            .proxy
            .log()
            .contains("on its way to where the secret is not used")
    });
    // The other one passes where it belongs.
    let answer = other("/", &format!("X-A: {foreign}\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(scene.other.raw().contains(&format!("x-a: {OTHER_KEY}\r\n")));
}

#[test]
fn no_secret_stands_in_a_name_a_path_or_a_trailer() {
    let scene = Scene::new(BEARER);
    let own = scene.own();
    for (answer, word) in [
        (scene.ask("GET", &format!("/bot{own}/send"), ""), "the path"),
        (
            scene.ask("GET", "/", &format!("X-{own}: 1\r\n")),
            "the name of a field",
        ),
        (
            scene.chunked("Trailer: X-T\r\n", &["abc"], &format!("X-T: {own}\r\n")),
            "a trailer",
        ),
        (
            scene
                .proxy
                .ask("GET", &format!("http://{own}@{}/", scene.partner.authority()), ""),
            "the host",
        ),
        // Twice encoded: what the server makes of it is not known.
        (
            scene.ask("GET", &format!("/?a={}", own.replace('-', "%252d")), ""),
            "written in a way",
        ),
    ] {
        assert_refused(&answer, &scene, word);
    }
    assert!(!scene.partner.raw().contains(own));
}
