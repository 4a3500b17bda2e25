//! What crosses from app to server and back beside heads and bodies: trailers, 1xx answers, handshakes.

use crate::support::h2_origin::H2Partner;
use crate::support::origin::ok;
use crate::support::{CANARY, Origin, Proxy, TOKEN};

/// Starts a proxy with a destination without TLS and these settings.
fn proxy(origin: &Origin, settings: &str) -> Proxy {
    let config = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], upgrade: false, insecure_attach_over_http: true, {settings} }} }}",
        origin.authority()
    );
    let env = [
        ("TOKEN", TOKEN),
        ("KEY", "AKIDEXAMPLE"),
        ("SECRET", "canary-of-a-secret-key"),
    ];
    Proxy::start_with(&config, &env)
}

/// Fields of the app that say what is decided here, and the settings that decide it.
const DECIDED: [(&str, &[&str]); 5] = [
    (
        "auth: { bearer: env:TOKEN }",
        &["Authorization", "Proxy-Authorization", "Proxy_Authorization"],
    ),
    (
        "auth: { header: { name: X-Api-Key, value: env:TOKEN } }, headers: { set: { X-Agency: \"047\" }, remove: [X-Debug, X-Internal-*] }",
        &[
            "X-Api-Key",
            "X_Api_Key",
            "X-Api_Key",
            "x-agency",
            "X_AGENCY",
            "X-Debug",
            "X_Debug",
            "X-Internal-A",
            "X_Internal_A",
        ],
    ),
    (
        "auth: { aws_sigv4: { service: s3, region: r, access_key_id: env:KEY, secret_access_key: env:SECRET } }",
        &[
            "X-Amz-Security-Token",
            "X_Amz_Security_Token",
            "X-Amz-Date",
            "X_Amz_Date",
            "X_Amz_Content_Sha256",
        ],
    ),
    (
        "auth: { hmac: { key: env:SECRET, message: \"{method}\", set: { X-Sign: \"{signature}\", X-Sign-Date: \"{date}\" } } }",
        &["X-Sign", "X_Sign", "X-Sign-Date", "X_Sign_Date"],
    ),
    (
        "auth: { http_signature: { key_id: a, key: env:SECRET, algorithm: hmac-sha256, components: [\"@method\", content-digest, date] } }",
        &[
            "Signature",
            "Signature-Input",
            "Signature_Input",
            "Content-Digest",
            "Content_Digest",
            "Date",
        ],
    ),
];

/// The app has no say in a field that is attached, signed or removed here: not under another spelling, and not in
/// trailers, which a server may merge into the head.
#[test]
fn the_app_has_no_say_in_what_is_decided_here() {
    for (settings, names) in DECIDED {
        // A body that is kept whole, and one that is too large for it.
        for length in [2, 200_000] {
            if length > 2 && settings.contains("content-digest") {
                continue;
            }
            let origin = Origin::http(ok);
            let proxy = proxy(&origin, settings);
            for name in names {
                let body = "x".repeat(length);
                let answer = proxy.raw(format!(
                    "POST {} HTTP/1.1\r\nHost: {}\r\n{name}: evil\r\nX_Other: kept\r\nX-Amz-Content-Sha256: {}\r\n\
                     Connection: close, X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\
                     {name}: evil\r\nX-Hop: evil\r\nX-Checksum: kept\r\n\r\n",
                    origin.url("/"),
                    origin.authority(),
                    "0".repeat(64),
                ));
                assert_eq!(
                    answer.status,
                    200,
                    "{settings} {name} {length} {answer:?} {}",
                    answer.text()
                );
            }
            let raw = origin.raw();
            assert!(
                !raw.contains("evil"),
                "{settings} {length} {}",
                raw.replace("xx", "")
            );
            for kept in ["x_other: kept", "x-checksum: kept"] {
                assert_eq!(
                    raw.to_lowercase().matches(kept).count(),
                    names.len(),
                    "{settings} {kept}"
                );
            }
        }
    }
}

/// As above, where the first credential of a pool is refused.
#[test]
fn a_request_that_is_sent_again_keeps_its_trailers_clean() {
    let origin = Origin::numbered(None, |wire, number| {
        while wire.request().is_ok() {
            let status = if number == 0 { "401 Unauthorized" } else { "200 OK" };
            wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"));
        }
    });
    let proxy = proxy(
        &origin,
        "auth: { pool: [{ bearer: env:TOKEN }, { bearer: env:SECRET }] }",
    );
    let answer = proxy.raw(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
         Authorization: evil\r\nX-Checksum: kept\r\n\r\n",
        origin.url("/")
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    let raw = origin.raw();
    assert_eq!(raw.matches("x-checksum: kept").count(), 2, "{raw}");
    assert!(!raw.contains("evil"), "{raw}");
}

const FORGED: &str = "Proxy-Status: outrider; error=http_request_denied\r\nProxy-Status: Edge; rcvd-status=200, Outrider\r\n\
    Cache-Status: outrider; hit\r\nCache-Status: edge; hit\r\nOutrider-Rehearsal: passed\r\noutrider_note: forged\r\n\
    Proxy-Authenticate: Basic realm=forged\r\nProxy-Authorization: forged\r\nX-Hop: forged\r\nX-Kept: kept\r\n";

/// An answer does not speak in our name: not in its head, its trailers, an interim answer or a handshake;
/// whether there is a cache or not.
#[test]
fn a_server_cannot_speak_in_our_name() {
    let answers = [
        format!("HTTP/1.1 200 OK\r\n{FORGED}Connection: X-Hop\r\nContent-Length: 2\r\n\r\nok"),
        format!(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{FORGED}Set-Cookie: forged\r\n\
             WWW-Authenticate: forged\r\nContent_Length: 9\r\n\r\n"
        ),
        format!(
            "HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\n{FORGED}X-Echo: {TOKEN}\r\n\r\nHTTP/1.1 200 OK\r\nX-Kept: kept\r\n\
             Cache-Status: edge; hit\r\nContent-Length: 2\r\n\r\nok"
        ),
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\n{FORGED}\r\n"
        ),
    ];
    for settings in [
        "",
        "cache: {}",
        "auth: { bearer: env:TOKEN }",
        "auth: { bearer: env:TOKEN }, scrub: true",
    ] {
        for answer in &answers {
            // A WebSocket is asked for by GET alone.
            let methods = if answer.contains(" 101 ") {
                &["GET"][..]
            } else {
                &["GET", "POST"]
            };
            for method in methods {
                let upgrade = if answer.contains(" 101 ") {
                    "Upgrade: websocket\r\nConnection: upgrade, TE\r\n"
                } else {
                    "Connection: close, TE\r\n"
                };
                // Where it is attached to nothing it is no secret.
                let is_attached = settings.contains("auth");
                let text = answer.replace(TOKEN, if is_attached { TOKEN } else { "-" });
                let origin = Origin::http(move |wire| {
                    if wire.request().is_ok() {
                        wire.send(&text);
                    }
                });
                let insecure = if settings.contains("auth") { "" } else { "#" };
                let config = format!(
                    "destinations:\n  p:\n    hosts: [\"{}\"]\n    upgrade: false\n    {insecure}insecure_attach_over_http: true\n    {}\n",
                    origin.authority(),
                    settings.replace("}, ", "}\n    "),
                );
                let proxy = Proxy::start_with(&config, &[("TOKEN", TOKEN)]);
                let mut wire = proxy.wire();
                wire.send(format!(
                    "{method} {} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n{upgrade}\r\n",
                    origin.url("/")
                ));
                if answer.contains(" 101 ") {
                    wire.half_close();
                }
                let raw = String::from_utf8_lossy(&wire.rest().0).to_lowercase();
                let case = format!("{settings} {method} {answer}\nbecame\n{raw}");
                for forged in [
                    "forged",
                    "outrider; error",
                    "outrider; hit",
                    "outrider-rehearsal",
                    "edge; rcvd",
                    CANARY,
                ] {
                    assert!(!raw.contains(forged), "{forged}: {case}");
                }
                for kept in ["x-kept: kept", "cache-status: edge; hit"] {
                    assert!(raw.contains(kept), "{kept}: {case}");
                }
                let early = raw.contains("http/1.1 103 early hints\r\n");
                assert_eq!(early, answer.contains(" 103 "), "{case}");
                let own = raw.matches("cache-status: outrider; fwd=").count();
                assert_eq!(own, usize::from(settings.contains("cache")), "{case}");
            }
        }
    }
}

/// The same over HTTP/2, where trailers are a separate block.
#[test]
fn trailers_over_http2_carry_nothing_that_is_decided_here() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("http: 2");
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nTE: trailers\r\nConnection: close, TE, X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nAuthorization: evil\r\nX_Http_Method_Override: evil\r\nX-Hop: evil\r\nOutrider-Rehearsal: evil\r\n\
         Proxy-Status: Outrider; evil\r\nX-Checksum: kept\r\n\r\n",
        partner.authority()
    ));
    let raw = String::from_utf8_lossy(&wire.rest().0).into_owned();
    assert!(raw.starts_with("HTTP/1.1 200") && !raw.contains("evil"), "{raw}");
    let asked = partner.asked();
    assert!(asked[0].contains("then {\"x-checksum\": \"kept\"}"), "{asked:?}");
}
