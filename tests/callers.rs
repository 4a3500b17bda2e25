//! Which requests a limit of the upstream holds: those of one user, one host, one route, or as the
//! configuration says.

use crate::support::{Origin, Proxy, TOKEN};

const REFUSED: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Refuses one user, in any field that names him.
fn refusing(user: &'static str) -> Origin {
    Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            let fields = ["authorization", "x-api-key"].map(|name| request.headers.get(name));
            let is_refused = fields.into_iter().flatten().any(|value| value.contains(user));
            wire.send(if is_refused { REFUSED } else { OK });
        }
    })
}

/// Starts a proxy with a destination that reaches an origin by two names.
fn proxy(origin: &Origin, keys: &str) -> Proxy {
    let port = origin.port();
    Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{port}\", \"other.test:{port}\"], {keys} }} }}"
    ))
}

/// A refusal of one user does not hold another one, for any kind of credential.
#[test]
fn a_limit_of_one_user_holds_no_other() {
    for field in [
        "Authorization: Bearer $",
        "X-Api-Key: $",
        "Authorization: Digest username=\"$\", nonce=\"#\"",
    ] {
        let origin = refusing("anna");
        let proxy = proxy(&origin, "");
        let url = format!("http://partner.test:{}/items", origin.port());
        let mut number = 0;
        let mut ask = |user: &str| {
            number += 1;
            let field = field.replace('$', user).replace('#', &number.to_string());
            proxy.ask("GET", &url, &format!("{field}\r\n"))
        };
        assert_eq!((ask("anna").error(), ask("bert").status), (None, 200), "{field}");
        let refused = ask("anna");
        assert_eq!(refused.status, 429, "{field}");
        assert!(
            refused.header("proxy-status").is_some(),
            "{field}: asked again: {refused:?}"
        );
        assert_eq!(ask("bert").status, 200, "{field}");
        assert_eq!(origin.raw().matches("anna").count(), 1, "{field}");
    }
}

/// If outrider attaches the credential, a value that the app sends in the same field does not make another user.
#[test]
fn behind_an_attached_credential_all_are_one_user() {
    let origin = Origin::saying(REFUSED);
    let keys = "auth: { bearer: env:TOKEN }, upgrade: false, insecure_attach_over_http: true";
    let proxy = Proxy::start_with(
        &format!(
            "destinations: {{ p: {{ hosts: [\"partner.test:{}\"], {keys} }} }}",
            origin.port()
        ),
        &[("TOKEN", TOKEN)],
    );
    let url = format!("http://partner.test:{}/items", origin.port());
    let is_ours = |field: &str| {
        let answer = proxy.ask("GET", &url, &format!("{field}\r\n"));
        assert_eq!(answer.status, 429, "{answer:?}");
        answer.header("proxy-status").is_some()
    };
    assert!(!is_ours("Authorization: Bearer anna"));
    assert!(is_ours("Authorization: Bearer anna"));
    assert!(is_ours("Authorization: Bearer bert"));
    assert!(is_ours("Accept: text/html"));
    // What outrider does not replace the service sees.
    assert!(!is_ours("X-Api-Key: bert"));
}

/// The host, the credential and the path of a request for which there is no pause after the refusal of another one.
#[test]
fn what_the_configuration_says_goes_before_what_the_answers_show() {
    const FIRST: (&str, &str, &str) = ("partner.test", "anna", "/search");
    for (applies_to, held) in [
        ("destination", [true, true, true]),
        ("host", [false, true, true]),
        ("credential", [false, false, true]),
        ("route", [false, false, false]),
        ("auto", [false, false, false]),
    ] {
        let others = [
            ("other.test", "anna", "/search"),
            ("partner.test", "bert", "/search"),
            ("partner.test", "anna", "/items"),
        ];
        let origin = Origin::saying(REFUSED);
        for (other, is_held) in others.into_iter().zip(held) {
            let proxy = proxy(&origin, &format!("limits_apply_to: {applies_to}"));
            let ask = |(host, user, path): (&str, &str, &str)| {
                let url = format!("http://{host}:{}{path}", origin.port());
                let answer = proxy.ask("GET", &url, &format!("X-Api-Key: {user}\r\n"));
                assert_eq!(answer.status, 429, "{answer:?}");
                answer.header("proxy-status").is_some()
            };
            assert!(!ask(FIRST), "{applies_to}");
            assert!(ask(FIRST), "{applies_to}");
            assert_eq!(ask(other), is_held, "{applies_to}: {other:?}");
        }
    }
}
