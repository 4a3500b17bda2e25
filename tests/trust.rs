//! Where and for how long a judgement of a server's certificate holds: token endpoints, resumed sessions,
//! connections that wait.

use std::time::Duration;

use rcgen::{CertificateParams, CertificateRevocationListParams, KeyIdMethod, SerialNumber, date_time_ymd};

use crate::support::authorities::{Authorities, Authority, Change};
use crate::support::origin::ok;
use crate::support::pki::accepting;
use crate::support::programs::clean;
use crate::support::{CANARY, Identity, Origin, Proxy, Response, Wire, eventually, run};

/// Answers as a token endpoint that accepts every secret.
fn gives_tokens(wire: &mut Wire) {
    while wire.request().is_ok() {
        let token = r#"{"access_token":"t0ken","token_type":"Bearer","expires_in":3600}"#;
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{token}",
            token.len()
        ));
    }
}

fn serial(number: u64) -> impl Fn(&mut CertificateParams) {
    move |params| params.serial_number = Some(number.into())
}

/// Asks `api` over a proxy whose destination `p` gets its token at `token_host`. `more` are further destinations.
fn ask(api: &Origin, login: &Origin, token_host: &str, tls: &str, more: &str) -> Response {
    let yaml = format!(
        "dns: {{ hosts: {{ partner.test: 127.0.0.1, login.test: 127.0.0.1 }} }}\n\
         destinations:\n  p: {{ hosts: [\"{}\"], tls: {tls}, auth: {{ oauth2: {{ \
         token_url: \"https://{token_host}:{}/token\", client_id: app, client_secret: env:SECRET }} }} }}\n{more}",
        api.authority(),
        login.port(),
    );
    Proxy::start_with(&yaml, &[("SECRET", CANARY)]).get(&api.url("/"))
}

/// Runs the command in docs/destinations.md and returns its output.
fn pin(of: &Identity) -> String {
    let command = format!(
        "openssl x509 -in {} -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64",
        of.cert_path.display()
    );
    let made = run(clean("sh").args(["-c", &command]));
    let hash = &made.succeeded().stdout;
    format!("sha256/{}", hash.trim())
}

/// The lists and pins of a destination hold where it sends its client secret, on its own host and on others. A
/// destination that names the endpoint's host has the last word.
#[test]
fn a_revoked_token_endpoint_gets_no_client_secret() {
    let authorities = Authorities::new();
    let (root, stranger) = (&authorities.root, Authority::new("Public Root", None, &|_| {}));
    std::fs::write(
        authorities.path("both.pem"),
        format!("{}{}", root.pem, stranger.pem),
    )
    .unwrap();
    std::fs::write(authorities.path("root.crl"), root.list(&[7])).unwrap();
    let names = ["partner.test", "login.test"];
    let own = authorities.leaf(&names, root, &[], &serial(8));
    let api = Origin::https(accepting(&own), ok);
    let trusts = format!("ca: \"file:{}\"", authorities.path("both.pem").display());
    let listed = format!(
        "{trusts}, crl: \"file:{}\"",
        authorities.path("root.crl").display()
    );
    let pinned = format!("{trusts}, pins: [{}]", pin(&own));
    let own_trust = |login: &Origin, tls: &str| {
        format!(
            "  login: {{ hosts: [\"login.test:{0}\", \"partner.test:{0}\"], tls: {{ {tls} }} }}\n",
            login.port()
        )
    };

    let revoked = authorities.leaf(&names, root, &[], &serial(7));
    let good = authorities.leaf(&names, root, &[], &serial(9));
    let foreign = authorities.leaf(&names, &stranger, &[], &|_| {});
    for (shown, tls, wanted) in [
        (&revoked, &listed, "that Agency Root has revoked"),
        (&foreign, &listed, "no list of Public Root"),
        (&good, &pinned, "tls.pins"),
        (&foreign, &pinned, "tls.pins"),
    ] {
        for host in ["partner.test", "login.test"] {
            let login = Origin::https(accepting(shown), gives_tokens);
            let tls = format!("{{ {tls} }}");
            let detail = ask(&api, &login, host, &tls, "").assert_ours(502, "tls_certificate_error");
            assert!(detail.contains(wanted), "{host}: {detail}");
            assert!(detail.contains("token endpoint"), "{host}: {detail}");
            assert_eq!(login.raw(), "", "{host}: the secret left");
            // Its own destination says otherwise, or the same.
            if wanted != "that Agency Root has revoked" {
                let more = own_trust(&login, &trusts);
                assert_eq!(ask(&api, &login, host, &tls, &more).status, 200, "{host}");
                assert!(login.raw().contains("token"), "{host}");
            }
        }
    }
    for (shown, tls) in [(&good, &listed), (&own, &pinned)] {
        for host in ["partner.test", "login.test"] {
            let login = Origin::https(accepting(shown), gives_tokens);
            assert_eq!(ask(&api, &login, host, &format!("{{ {tls} }}"), "").status, 200);
        }
    }
    // A list of the endpoint's own destination, and no list where the token is used.
    let login = Origin::https(accepting(&revoked), gives_tokens);
    let (tls, more) = (format!("{{ {trusts} }}"), own_trust(&login, &listed));
    let detail = ask(&api, &login, "login.test", &tls, &more).assert_ours(502, "tls_certificate_error");
    assert!(detail.contains("has revoked"), "{detail}");
    assert_eq!(login.raw(), "");
}

/// A certificate that is revoked while the proxy runs is refused from then on, and one that is not goes on.
#[test]
fn a_list_that_changes_revokes_without_a_restart() {
    let authorities = Authorities::new();
    let root = &authorities.root;
    let serial =
        |number: u64| move |params: &mut CertificateParams| params.serial_number = Some(number.into());
    let (bad, good) = (
        authorities.leaf(&["partner.test"], root, &[], &serial(7)),
        authorities.leaf(&["other.test"], root, &[], &serial(8)),
    );
    let (bad, good) = (
        Origin::https(accepting(&bad), ok),
        Origin::https(accepting(&good), ok),
    );
    let list = authorities.path("root.crl");
    std::fs::write(&list, root.list(&[1])).unwrap();
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{}\", \"other.test:{}\"], tls: {{ ca: \"file:{}\", crl: \"file:{}\" }} }} }}",
        bad.port(),
        good.port(),
        authorities.path("root.pem").display(),
        list.display(),
    ));
    let bad = format!("http://partner.test:{}/", bad.port());
    let good = format!("http://other.test:{}/", good.port());
    for url in [&bad, &good] {
        assert_eq!(proxy.get(url).status, 200);
    }

    // As usual for a fetched list: written beside the old one, then renamed over it.
    std::fs::write(authorities.path("new"), root.list(&[1, 7])).unwrap();
    std::fs::rename(authorities.path("new"), &list).unwrap();
    eventually("the revoked one is refused", || proxy.get(&bad).status == 502);
    let detail = proxy.get(&bad).assert_ours(502, "tls_certificate_error");
    assert!(
        detail.contains("a certificate (The Partner) that Agency Root has revoked: 2026-01-02"),
        "{detail}"
    );
    assert!(detail.contains("Superseded"), "{detail}");
    assert_eq!(proxy.get(&good).status, 200);

    // What cannot be read changes nothing.
    std::fs::write(&list, "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n").unwrap();
    eventually("it stays as it is, and the log says why", || {
        let log = proxy.log();
        log.contains("changed secrets cannot be used") && log.contains("list 1 of file:")
    });
    assert_eq!((proxy.get(&bad).status, proxy.get(&good).status), (502, 200));
}

/// A pin is a key of the chain, on top of everything else.
#[test]
fn a_pin_that_fits_nothing_refuses_and_names_what_would_fit() {
    let authorities = Authorities::new();
    let shown = authorities.leaf(&["partner.test"], &authorities.root, &[], &|_| {});
    let origin = Origin::https(accepting(&shown), ok);
    let with = |pin: &str| {
        let ca = authorities.path("root.pem");
        let tls = format!("tls: {{ ca: \"file:{}\", pins: [{pin}] }}", ca.display());
        Proxy::to(&origin.authority(), &tls).get(&origin.url("/"))
    };
    let key = pin(&shown);
    assert_eq!(with(&key).status, 200);

    let refused = with("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let detail = refused.assert_ours(502, "tls_certificate_error");
    assert!(detail.contains(&format!("{key} (The Partner)")), "{detail}");
    assert!(detail.contains("(Agency Root)"), "{detail}");
    assert_eq!(origin.seen().len(), 2);
}

/// Sessions do not resume, and connections that wait are not used, once a certificate of the path or a list has
/// ended.
#[test]
fn what_has_ended_is_not_trusted_any_longer() {
    let authorities = Authorities::new();
    let root = &authorities.root;
    // The start of the proxy and the first requests take their time, and connections leave the pool some
    // seconds ahead.
    let end = time::OffsetDateTime::now_utc() + Duration::from_secs(12);
    let end = end.replace_nanosecond(0).unwrap();
    let ends: Change = &|params| params.not_after = end;
    let lasts: Change = &|_| {};
    let list = |next_update| {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 3),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&root.issuer()).unwrap().pem().unwrap()
    };
    std::fs::write(authorities.path("short.crl"), list(end)).unwrap();
    let crl = format!("crl: \"file:{}\"", authorities.path("short.crl").display());
    let middle = |alter| Authority::new("Middle CA", Some(root), alter);
    let (lasting, ending) = (middle(lasts), middle(ends));
    let name = ["partner.test"];
    let kinds = [
        (
            "certificate_expired",
            "",
            authorities.leaf(&name, &lasting, &[&lasting], ends),
        ),
        (
            "certificate_expired",
            "",
            authorities.leaf(&name, &ending, &[&ending], lasts),
        ),
        (
            "certificate_revocation_unknown",
            &*crl,
            authorities.leaf(&name, root, &[], lasts),
        ),
    ];
    let mut yaml = "destinations:\n".to_owned();
    let mut origins = Vec::new();
    for (reason, tls, shows) in &kinds {
        for closes in [false, true] {
            let origin = Origin::https(accepting(shows), move |wire| {
                if closes {
                    let _ = wire.request();
                    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                } else {
                    ok(wire);
                }
            });
            let (i, ca) = (origins.len(), authorities.path("root.pem"));
            yaml.push_str(&format!(
                "  d{i}: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\", {tls} }} }}\n",
                origin.authority(),
                ca.display()
            ));
            origins.push((*reason, closes, origin));
        }
    }
    let proxy = Proxy::start(&format!("{yaml}workers: 1"));
    for (reason, closes, origin) in &origins {
        for _ in 0..2 {
            assert_eq!(proxy.get(&origin.url("/")).status, 200, "{reason}");
        }
        if *closes {
            origin.wait("a session that resumes", |seen| {
                seen.len() == 2 && seen[1].resumed
            });
        } else {
            assert_eq!(origin.seen().len(), 1, "{reason}");
        }
    }
    let is_over = || time::OffsetDateTime::now_utc() > end + Duration::from_secs(1);
    eventually("the end comes", is_over);
    for (reason, closes, origin) in &origins {
        let before = origin.raw();
        let answer = proxy.get(&origin.url("/after"));
        assert_eq!(answer.status, 502, "{reason}, closes: {closes}");
        answer.assert_ours(502, "tls_certificate_error");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["reason"], *reason);
        assert_eq!(origin.raw(), before, "{reason}, closes: {closes}");
    }
}
