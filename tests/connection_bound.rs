//! NTLM and Negotiate: authentication that belongs to the connection, and must not reach another one's requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64;

use crate::support::partner::Partner;
use crate::support::programs::{curl, run};
use crate::support::{Origin, Proxy, Wire, eventually};

/// Serves like a Windows server: after a handshake of three messages the connection belongs to the user, for
/// all later requests.
fn windows(wire: &mut Wire) {
    let (mut is_begun, mut user) = (false, None);
    while let Ok(request) = wire.request() {
        let credentials = request.headers.get("authorization").unwrap_or_default();
        let (scheme, token) = credentials.split_once(' ').unwrap_or((credentials, ""));
        let token = BASE64.decode(token.as_bytes()).unwrap_or_default();
        let mut offer = "NTLM".to_owned();
        if scheme.eq_ignore_ascii_case("ntlm") {
            match token.get(8) {
                Some(1) => {
                    (is_begun, user) = (true, None);
                    offer = format!("NTLM {}", BASE64.encode(&challenge()));
                }
                // The third leg counts only behind the first.
                Some(3) if is_begun => user = Some(user_of(&token)),
                Some(_) | None => user = None,
            }
        }
        match &user {
            Some(user) => wire.send(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{user}",
                user.len()
            )),
            None => wire.send(format!(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {offer}\r\nContent-Length: 0\r\n\r\n"
            )),
        };
    }
}

/// Builds a CHALLENGE_MESSAGE without a target (MS-NLMP 2.2.1.2).
fn challenge() -> Vec<u8> {
    let mut message = b"NTLMSSP\0\x02\0\0\0".to_vec();
    message.extend_from_slice(&[0, 0, 0, 0, 48, 0, 0, 0]);
    message.extend_from_slice(&0x0000_0205_u32.to_le_bytes());
    message.extend_from_slice(b"\x01\x23\x45\x67\x89\xab\xcd\xef");
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[0, 0, 0, 0, 48, 0, 0, 0]);
    message
}

/// Reads the user of an AUTHENTICATE_MESSAGE (MS-NLMP 2.2.1.3).
fn user_of(message: &[u8]) -> String {
    let length = usize::from(u16::from_le_bytes(message[36..38].try_into().unwrap()));
    let at = u32::from_le_bytes(message[40..44].try_into().unwrap()) as usize;
    let name = &message[at..at + length];
    String::from_utf8(name.iter().copied().filter(|byte| *byte != 0).collect()).unwrap()
}

/// Builds a message as [`windows`] reads it, for clients other than curl.
fn message(kind: u8, user: &str) -> String {
    let mut message = b"NTLMSSP\0".to_vec();
    message.extend_from_slice(&[kind, 0, 0, 0]);
    message.resize(36, 0);
    message.extend_from_slice(&(user.len() as u16).to_le_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&44_u32.to_le_bytes());
    message.extend_from_slice(user.as_bytes());
    BASE64.encode(&message)
}

fn through(proxy: &Proxy, arguments: &[&str]) -> String {
    let proxy = format!("http://{}", proxy.address());
    let fixed = ["-s", "-S", "-m", "20", "--proxy", &proxy];
    run(&mut curl(fixed.iter().chain(arguments)))
        .succeeded()
        .stdout
        .clone()
}

/// curl logs in; nobody else is answered as its user, whether without credentials or with others.
#[test]
fn the_user_of_one_connection_is_nobody_elses() {
    let origin = Origin::http(windows);
    for settings in ["", "cache: { size: 1MiB }, "] {
        let yaml = format!(
            "workers: 1\ndestinations: {{ p: {{ hosts: [\"{}\"], {settings} }} }}",
            origin.authority()
        );
        let proxy = Proxy::start(&yaml);
        let url = origin.url(&format!("/{}", settings.len()));
        for user in ["alice", "bob"] {
            let name = format!("{user}:secret");
            assert_eq!(through(&proxy, &["--ntlm", "-u", &name, &url]), user);
            assert_eq!(proxy.get(&url).status, 401, "{settings}");
            let other = proxy.ask("GET", &url, "Authorization: Basic eDp5\r\n");
            assert_eq!(other.status, 401, "{settings}");
        }
        // A body that is sent twice, with each leg.
        let posted = through(&proxy, &["--ntlm", "-u", "carol:secret", "-d", "x=1", &url]);
        assert_eq!(posted, "carol");
    }
}

/// On the app's own connection the user stays, and the upstream connection goes with it.
#[test]
fn the_connection_belongs_to_its_client_and_ends_with_it() {
    let origin = Origin::http(windows);
    let proxy = Proxy::start(&format!(
        "workers: 1\n{}",
        crate::support::proxy::destination(&origin.authority(), "")
    ));
    // A connection that lies in the pool is not taken for the handshake.
    assert_eq!(proxy.get(&origin.url("/pooled")).status, 401);
    let mut wires = Vec::new();
    for user in ["alice", "bob"] {
        let mut wire = proxy.wire();
        let ask = |wire: &mut Wire, scheme: &str, kind: u8| {
            wire.ask(format!(
                "GET {} HTTP/1.1\r\nHost: x\r\nauthorization: {scheme} {}\r\n\r\n",
                origin.url("/"),
                message(kind, user)
            ))
        };
        assert_eq!(ask(&mut wire, "nTlM", 1).status, 401);
        assert_eq!(ask(&mut wire, "NTLM", 3).text(), user);
        wires.push((user, wire));
    }
    for _ in 0..2 {
        for (user, wire) in &mut wires {
            let answer = wire.ask(format!(
                "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
                origin.url("/again")
            ));
            assert_eq!(answer.text(), *user);
        }
        assert_eq!(proxy.get(&origin.url("/pooled")).status, 401);
    }
    let bound = || {
        let seen = origin.seen();
        let authenticated = seen.into_iter().filter(|seen| {
            let text = String::from_utf8_lossy(&seen.bytes).to_lowercase();
            text.contains("authorization: ntlm")
        });
        authenticated.collect::<Vec<_>>()
    };
    assert_eq!(bound().len(), 2);
    assert!(bound().iter().all(|seen| {
        let text = String::from_utf8_lossy(&seen.bytes).into_owned();
        !seen.ended && !text.contains("/pooled")
    }));
    drop(wires);
    eventually("they close with their clients", || {
        bound().iter().all(|seen| seen.ended)
    });
    assert_eq!(proxy.get(&origin.url("/pooled")).status, 401);
}

/// Inside an intercepted tunnel, in HTTP/1.1 and in HTTP/2: the upstream is asked in HTTP/1.1.
#[test]
fn a_tunnel_has_separate_connections() {
    let partner = Partner::offering(&["http/1.1"], windows);
    let proxy = Proxy::start(&format!(
        "workers: 1\ndestinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\", client_certificate: {} }} }} }}",
        partner.authority(),
        partner.pki.ca().display(),
        partner.client.yaml()
    ));
    let host = partner.authority();
    let mut wire = proxy.intercepted(&host);
    for (kind, status) in [(1, 401), (3, 200)] {
        let answer = wire.ask(format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: NTLM {}\r\n\r\n",
            message(kind, "alice")
        ));
        assert_eq!(answer.status, status);
    }
    assert_eq!(wire.get(&host, "/again").text(), "alice");
    assert_eq!(proxy.intercepted(&host).get(&host, "/").status, 401);
    assert_eq!(proxy.get(&partner.url("/")).status, 401);
}

/// Negotiate: what the answer says binds as well, and an offer alone does not.
#[test]
fn an_answer_binds_too_and_an_offer_does_not() {
    for (field, is_bound) in [
        ("Negotiate oYG2MIGz", true),
        ("Basic realm=\"x\", negotiate oYG2MIGz", true),
        ("Negotiate, NTLM", false),
        ("Basic realm=\"x\"", false),
    ] {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let origin = Origin::http(move |wire| {
            counted.fetch_add(1, Ordering::SeqCst);
            while wire.request().is_ok() {
                wire.send(format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {field}\r\nContent-Length: 0\r\n\r\n"
                ));
            }
        });
        let proxy = Proxy::start(&format!(
            "workers: 1\n{}",
            crate::support::proxy::destination(&origin.authority(), "")
        ));
        for _ in 0..3 {
            assert_eq!(proxy.get(&origin.url("/")).status, 401);
        }
        let expected = if is_bound { 3 } else { 1 };
        assert_eq!(connections.load(Ordering::SeqCst), expected, "{field}");
    }
}
