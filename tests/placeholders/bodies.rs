//! Bodies: cut anywhere, of any type and size.

use super::{BEARER, KEY, KEY_IN_JSON, Scene, assert_refused, assigned};
use crate::support::{Origin, Pki, Proxy, eventually};

#[test]
fn bodies_are_searched_in_any_pieces_and_keep_their_length_right() {
    let scene = Scene::new(BEARER);
    let own = scene.own();
    let (one, two) = own.split_at(own.len() / 2);
    let escaped = own.replacen('o', "\\u006f", 1);
    let in_form = "canary-2f6b-own%2Bkey%2F%221%22";
    let json = "Content-Type: application/json\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let multipart = "Content-Type: multipart/form-data; boundary=B\r\n";
    let part =
        |text: &str| format!("--B\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\n{text}\r\n--B--\r\n");
    for (fields, body, expected) in [
        (
            json,
            format!("{{\"key\":\"{own}\"}}"),
            format!("{{\"key\":\"{KEY_IN_JSON}\"}}"),
        ),
        (
            json,
            format!("{{\"key\":\"{escaped}\"}}"),
            format!("{{\"key\":\"{KEY_IN_JSON}\"}}"),
        ),
        (
            form,
            format!("a=1&key={own}&b=2"),
            format!("a=1&key={in_form}&b=2"),
        ),
        (multipart, part(own), part(KEY)),
        (
            "Content-Type: text/plain\r\n",
            format!("{own}{own}"),
            format!("{KEY}{KEY}"),
        ),
        (
            "Content-Type: text/xml\r\n",
            format!("<k>{own}</k>"),
            "<k>canary-2f6b-own+key/&quot;1&quot;</k>".to_owned(),
        ),
    ] {
        let before = scene.partner.raw().len();
        let answer = scene.post(fields, &body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let seen = scene.partner.raw()[before..].to_owned();
        let (head, seen) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!(seen, expected, "{head}");
        assert!(
            head.contains(&format!("content-length: {}", expected.len())),
            "{head}"
        );
    }
    // In chunks, cut anywhere.
    for chunks in [
        vec!["{\"key\":\"", own, "\"}"],
        vec!["{\"key\":\"", one, two, "\"}"],
        own.split("")
            .collect::<Vec<_>>()
            .into_iter()
            .filter(|one| !one.is_empty())
            .collect(),
    ] {
        let answer = scene.chunked(json, &chunks, "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        eventually("the body arrives", || scene.partner.raw().contains("0\r\n\r\n"));
    }
    assert!(!scene.partner.raw().contains(own), "{}", scene.partner.raw());
    // In base64 nothing is seen: it passes as it is, and is worth nothing.
    let hidden = data_encoding::BASE64.encode(own.as_bytes());
    assert_eq!(scene.post(json, format!("{{\"k\":\"{hidden}\"}}")).status, 200);
    assert!(scene.partner.raw().contains(&hidden));
}

#[test]
fn a_foreign_placeholder_in_a_body_never_arrives_whole() {
    let scene = Scene::new(BEARER);
    let foreign = scene.foreign();
    let json = "Content-Type: application/json\r\n";
    let escaped: String = foreign.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for (fields, body) in [
        (json, format!("{{\"key\":\"{foreign}\"}}")),
        (json, format!("{{\"key\":\"{escaped}\"}}")),
        (
            "Content-Type: application/octet-stream\r\n",
            format!("\0\0{foreign}\0"),
        ),
        (
            "Content-Type: multipart/form-data; boundary=B\r\n",
            format!("--B\r\n\r\n{foreign}\r\n--B--\r\n"),
        ),
    ] {
        assert_refused(&scene.post(fields, &body), &scene, "env:OTHER");
    }
    assert!(
        scene.partner.raw().is_empty(),
        "a small body is read before anything is sent"
    );
    let (one, two) = foreign.split_at(7);
    assert_refused(
        &scene.chunked(json, &["{", one, two, "}"], ""),
        &scene,
        "env:OTHER",
    );
    assert!(!scene.partner.raw().contains(two), "{}", scene.partner.raw());
    assert!(
        !scene.partner.raw().contains("0\r\n\r\n"),
        "it must not look complete"
    );
}

#[test]
fn a_body_that_would_not_fit_what_is_said_of_it_is_refused() {
    let scene = Scene::new(BEARER);
    let own = scene.own();
    let body = format!("{{\"key\":\"{own}\"}}");
    for field in [
        "Content-Digest: sha-256=:x:",
        "Content-MD5: eA==",
        "X-Amz-Content-Sha256: 00",
        "Signature-Input: a=()",
    ] {
        let fields = format!("Content-Type: application/json\r\n{field}\r\n");
        assert_refused(&scene.post(&fields, &body), &scene, "digest");
    }
    assert_refused(
        &scene.post("Content-Type: application/grpc\r\n", &body),
        &scene,
        "a body of this type",
    );
    // Without a placeholder a digest is not our business.
    let fields = "Content-Type: application/json\r\nContent-MD5: eA==\r\n";
    assert_eq!(scene.post(fields, "{}").status, 200);
}

/// A large upload passes in flat memory, and what would change its length is cut off before its end.
#[test]
fn large_bodies_pass_in_flat_memory() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 48;
    let received = std::sync::Arc::new(std::sync::Mutex::new((0_usize, String::new())));
    let log = std::sync::Arc::clone(&received);
    let pki = Pki::new();
    // Reads and forgets: the test has the same bytes.
    let partner = Origin::https(pki.accepting(&pki.server("partner.test")), move |wire| {
        while let Ok(head) = wire.request_head() {
            let length: usize = head
                .headers
                .get("content-length")
                .map_or(0, |length| length.parse().unwrap());
            let mut left = length;
            while left > 0 {
                let Ok(bytes) = wire.read_exact(left.min(PIECE)) else {
                    return;
                };
                left -= bytes.len();
                *log.lock().unwrap() = (length - left, String::from_utf8_lossy(&bytes).into_owned());
            }
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let length = KEY.len();
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ pool: [{{ bearer: env:OWN }}, {{ bearer: env:LONG }}] }} }} }}\n\
         placeholders: {{ mode: always, shapes: {{ env:OWN: {{ length: {length} }} }} }}\n",
        partner.authority(),
        pki.ca().display()
    );
    let proxy = Proxy::start_with(&yaml, &[("OWN", KEY), ("LONG", "canary-2f6b-long")]);
    let texts = assigned(&proxy);
    let send = |text: &str| {
        let mut wire = proxy.wire();
        let whole = PIECE * PIECES;
        let (url, authority) = (partner.url("/"), partner.authority());
        wire.send(format!(
            "POST {url} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/octet-stream\r\nContent-Length: {whole}\r\n\r\n"
        ));
        let piece = vec![b'x'; PIECE];
        for _ in 1..PIECES {
            wire.send(&piece);
        }
        let mut last = piece;
        last[PIECE - text.len() - 1..PIECE - 1].copy_from_slice(text.as_bytes());
        let _ = wire.try_send(&last);
        wire.response()
    };
    let before = proxy.anonymous();
    let answer = send(&texts["env:OWN"]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (count, last) = received.lock().unwrap().clone();
    assert_eq!(count, PIECE * PIECES);
    assert!(
        last.ends_with(&format!("{KEY}x")),
        "{}",
        &last[last.len() - 100..]
    );
    let grown = proxy.anonymous().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");

    let answer = send(&texts["env:LONG"]);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(
        answer.text().contains("another length") || answer.text().contains("of this type"),
        "{}",
        answer.text()
    );
    assert!(
        received.lock().unwrap().0 < PIECE * PIECES,
        "it must not look complete"
    );
}
