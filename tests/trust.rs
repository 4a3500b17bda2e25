//! Where and for how long a judgement of a server's certificate holds: token endpoints, resumed sessions, connections
//! that wait.

use rcgen::CertificateParams;

use crate::support::origin::ok;
use crate::support::pki::accepting;
use crate::support::programs::clean;
use crate::support::world::{Authority, World};
use crate::support::{CANARY, Identity, Origin, Proxy, Response, Wire, run};

/// A token endpoint that takes every secret.
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

/// What the README's command prints.
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
    let world = World::new();
    let (root, stranger) = (&world.root, Authority::new("Public Root", None, &|_| {}));
    std::fs::write(world.path("both.pem"), format!("{}{}", root.pem, stranger.pem)).unwrap();
    std::fs::write(world.path("root.crl"), root.list(&[7])).unwrap();
    let names = ["partner.test", "login.test"];
    let own = world.leaf(&names, root, &[], &serial(8));
    let api = Origin::https(accepting(&own), ok);
    let trusts = format!("ca: \"file:{}\"", world.path("both.pem").display());
    let listed = format!("{trusts}, crl: \"file:{}\"", world.path("root.crl").display());
    let pinned = format!("{trusts}, pins: [{}]", pin(&own));
    let own_trust = |login: &Origin, tls: &str| {
        format!(
            "  login: {{ hosts: [\"login.test:{0}\", \"partner.test:{0}\"], tls: {{ {tls} }} }}\n",
            login.port()
        )
    };

    let revoked = world.leaf(&names, root, &[], &serial(7));
    let good = world.leaf(&names, root, &[], &serial(9));
    let foreign = world.leaf(&names, &stranger, &[], &|_| {});
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
