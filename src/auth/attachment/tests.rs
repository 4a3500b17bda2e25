use super::*;
use crate::message::Request;
use crate::secret;

const CANARY: &str = "canary-7f3a";

fn env(name: &str) -> SecretRef {
    SecretRef::Env(name.to_owned())
}

fn snapshot() -> Snapshot {
    Snapshot::of_variables([
        ("TOKEN", CANARY.to_owned()),
        ("LINES", format!("{CANARY}\r\nX-Evil: 1")),
        ("NUL", format!("{CANARY}\u{1}")),
        ("DELETE", format!("{CANARY}\u{7f}")),
        ("ACCENT", format!("{CANARY}é")),
        ("TRAILING", format!("{CANARY}\n")),
        ("WORD", format!("Bearer {CANARY}")),
        ("ODD", "a&b=c d+%".to_owned()),
        ("USER", "us:er".to_owned()),
    ])
}

fn build(auth: Option<Auth>, headers: &Headers) -> Result<Attachment, Error> {
    Attachment::build(auth.as_ref(), headers, &snapshot())
}

fn of(auth: Auth) -> Attachment {
    build(Some(auth), &Headers::default()).unwrap()
}

/// Applies `attachment` to a request and returns its head.
fn applied(attachment: &Attachment, uri: &str, fields: &[(&str, &str)]) -> Box<RequestHead> {
    let request = fields
        .iter()
        .fold(http::Request::get(uri), |request, (name, value)| {
            request.header(*name, *value)
        });
    let mut head = Request::from(request.body(()).unwrap()).into_parts().0;
    attachment.apply(&mut head).unwrap();
    head
}

fn values<'h>(head: &'h RequestHead, name: &str) -> Vec<&'h str> {
    head.headers
        .get_all(name)
        .map(|value| value.to_str().unwrap())
        .collect()
}

#[test]
fn each_kind_stands_in_its_field() {
    for (auth, name, wanted) in [
        (Auth::Bearer(env("TOKEN")), "authorization", "Bearer canary-7f3a"),
        (
            Auth::Bearer(env("TRAILING")),
            "authorization",
            "Bearer canary-7f3a",
        ),
        (
            Auth::Basic {
                username: Text::Plain("Aladdin".into()),
                password: env("TOKEN"),
            },
            "authorization",
            "Basic QWxhZGRpbjpjYW5hcnktN2YzYQ==",
        ),
        (
            Auth::Basic {
                username: Text::Reference(env("TOKEN")),
                password: env("ACCENT"),
            },
            "authorization",
            "Basic Y2FuYXJ5LTdmM2E6Y2FuYXJ5LTdmM2HDqQ==",
        ),
        (
            Auth::Header {
                name: HeaderName::from_static("x-api-key"),
                value: env("TOKEN"),
            },
            "x-api-key",
            "canary-7f3a",
        ),
    ] {
        let attachment = of(auth);
        let head = applied(&attachment, "http://h/", &[]);
        assert_eq!(values(&head, name), [wanted]);
        assert!(head.headers[name].is_sensitive());
        assert_eq!(
            attachment
                .set
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            [name]
        );
    }
}

/// F7: the origin gets exactly one, whatever the app sent.
#[test]
fn all_of_the_apps_own_give_way_to_ours() {
    let head = applied(
        &of(Auth::Bearer(env("TOKEN"))),
        "http://h/",
        &[
            ("Authorization", "a"),
            ("AUTHORIZATION", "b"),
            ("authorization", "c"),
            ("accept", "*/*"),
        ],
    );
    assert_eq!(values(&head, "authorization"), ["Bearer canary-7f3a"]);
    assert_eq!(values(&head, "accept"), ["*/*"]);

    let key = Auth::Header {
        name: HeaderName::from_static("x-api-key"),
        value: env("TOKEN"),
    };
    let theirs = [
        ("X_Api_Key", "a"),
        ("x-api_key", "b"),
        ("X-API-KEY", "c"),
        ("x_api_keys", "stays"),
    ];
    let head = applied(&of(key), "http://h/", &theirs);
    assert_eq!(head.headers.len(), 2);
    assert_eq!(values(&head, "x-api-key"), [CANARY]);
    assert_eq!(values(&head, "x_api_keys"), ["stays"]);
}

/// F8: a secret that could end a field or a line is refused, and the error names only the place.
#[test]
fn a_secret_that_is_no_field_text_is_refused() {
    let kinds: [fn(&str) -> Auth; 4] = [
        |name| Auth::Bearer(env(name)),
        |name| Auth::Header {
            name: AUTHORIZATION,
            value: env(name),
        },
        |name| Auth::Query {
            name: "k".into(),
            value: env(name),
        },
        |name| Auth::Basic {
            username: Text::Plain("u".into()),
            password: env(name),
        },
    ];
    for (name, wanted) in [
        ("LINES", "a line end"),
        ("NUL", "a control character"),
        ("DELETE", "a control character"),
        ("ACCENT", "not ASCII"),
        ("WORD", "a blank"),
    ] {
        for (i, kind) in kinds.iter().enumerate() {
            // Base64 can carry any character. A space is only invalid in a bearer token.
            if (name == "ACCENT" && i == 3) || (name == "WORD" && i != 0) {
                continue;
            }
            let error = build(Some(kind(name)), &Headers::default()).unwrap_err();
            let Error::NotFieldText { what, position, .. } = &error else {
                panic!("{name} {i}: {error:?}")
            };
            assert_eq!(*what, wanted, "{name} {i}");
            assert_eq!(
                *position,
                if name == "WORD" { 7 } else { CANARY.len() + 1 },
                "{name} {i}"
            );
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(name) && !shown.contains(CANARY), "{shown}");
        }
    }
    let headers = Headers {
        remove: Vec::new(),
        set: vec![(
            HeaderName::from_static("x-a"),
            HeaderText::Reference(env("LINES")),
        )],
    };
    assert!(matches!(build(None, &headers), Err(Error::NotFieldText { .. })));
}

#[test]
fn a_user_name_with_a_colon_is_refused() {
    for username in [
        Text::Plain("us:er".into()),
        Text::Plain("a\nb".into()),
        Text::Reference(env("USER")),
    ] {
        let auth = Auth::Basic {
            username,
            password: env("TOKEN"),
        };
        assert!(matches!(
            build(Some(auth), &Headers::default()),
            Err(Error::NotUserName { .. })
        ));
    }
}

#[test]
fn a_missing_secret_fails_the_build() {
    let error = build(Some(Auth::Bearer(env("ABSENT"))), &Headers::default()).unwrap_err();
    assert!(matches!(error, Error::Secret(secret::Error::Unset { .. })));
}

#[test]
fn headers_are_struck_then_set_and_ours_cannot_be_struck() {
    let headers = Headers {
        remove: vec![
            "X-Internal-*".into(),
            "Cookie".into(),
            "Authorization".into(),
            "x-agency".into(),
        ],
        set: vec![
            (
                HeaderName::from_static("x-agency"),
                HeaderText::Plain(HeaderValue::from_static("047")),
            ),
            (
                HeaderName::from_static("x-key"),
                HeaderText::Reference(env("TOKEN")),
            ),
        ],
    };
    let attachment = build(Some(Auth::Bearer(env("TOKEN"))), &headers).unwrap();
    let head = applied(
        &attachment,
        "http://h/",
        &[
            ("x-internal-a", "1"),
            ("X-INTERNAL-", "2"),
            ("x-interna", "3"),
            ("cookie", "4"),
            ("cookie", "5"),
            ("x-agency", "6"),
            ("x-agency", "7"),
        ],
    );
    assert_eq!(head.headers.len(), 4);
    assert_eq!(values(&head, "x-interna"), ["3"]);
    assert_eq!(values(&head, "x-agency"), ["047"]);
    assert_eq!(values(&head, "authorization"), ["Bearer canary-7f3a"]);
    assert!(head.headers["x-key"].is_sensitive() && !head.headers["x-agency"].is_sensitive());
}

#[test]
fn a_removal_never_takes_what_frames_the_message() {
    let headers = Headers {
        remove: vec!["*".into()],
        set: Vec::new(),
    };
    let fields = [
        ("host", "h"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("accept", "x"),
    ];
    let head = applied(&build(None, &headers).unwrap(), "http://h/", &fields);
    assert_eq!(head.headers.len(), 3);
}

#[test]
fn the_credential_outranks_a_set_header_of_its_name() {
    let headers = Headers {
        remove: Vec::new(),
        set: vec![(
            AUTHORIZATION,
            HeaderText::Plain(HeaderValue::from_static("plain")),
        )],
    };
    let attachment = build(Some(Auth::Bearer(env("TOKEN"))), &headers).unwrap();
    assert_eq!(
        values(&applied(&attachment, "http://h/", &[]), "authorization"),
        ["Bearer canary-7f3a"]
    );
    assert_eq!(attachment.set.len(), 1);
}

#[test]
fn a_query_keeps_every_byte_but_the_replaced_parameter() {
    let attachment = of(Auth::Query {
        name: "api key".into(),
        value: env("ODD"),
    });
    let ours = "api%20key=a%26b%3Dc%20d%2B%25";
    for (uri, wanted) in [
        ("http://h/p", "/p?"),
        ("http://h", "/?"),
        ("http://h/p?", "/p?"),
        ("http://h/p?a=1", "/p?a=1&"),
        ("http://h/p?api+key=theirs", "/p?"),
        ("http://h/p?a=%41&api%20key=x&b=+&%61pi+key&c", "/p?a=%41&b=+&c&"),
        (
            "http://h/p?api+keys=1&API+KEY=2&&=&%zz",
            "/p?api+keys=1&API+KEY=2&&=&%zz&",
        ),
        ("http://h/%61?a=api+key=1", "/%61?a=api+key=1&"),
    ] {
        let head = applied(&attachment, uri, &[]);
        assert_eq!(
            head.uri.path_and_query().unwrap().as_str(),
            format!("{wanted}{ours}"),
            "{uri}"
        );
        assert_eq!(head.uri.host(), Some("h"), "{uri}");
    }
    assert_eq!(
        applied(&attachment, "/p?a", &[]).uri,
        format!("/p?a&{ours}").as_str()
    );
}

#[test]
fn a_query_without_room_for_the_credential_fails_closed() {
    let attachment = of(Auth::Query {
        name: "k".into(),
        value: env("TOKEN"),
    });
    for uri in [format!("/{}", "a".repeat(65_525)), "*".to_owned()] {
        let mut head = Request::from(http::Request::get(&uri).body(()).unwrap())
            .into_parts()
            .0;
        assert!(matches!(attachment.apply(&mut head), Err(Error::NoRoom)));
    }
}

#[test]
fn nothing_configured_changes_nothing() {
    let attachment = build(None, &Headers::default()).unwrap();
    let head = applied(&attachment, "http://h/p?q", &[("authorization", "theirs")]);
    assert_eq!(
        (values(&head, "authorization"), head.uri.query()),
        (vec!["theirs"], Some("q"))
    );
}

#[test]
fn debug_shows_no_secret() {
    for auth in [
        Auth::Bearer(env("TOKEN")),
        Auth::Basic {
            username: Text::Reference(env("TOKEN")),
            password: env("TOKEN"),
        },
        Auth::Query {
            name: "k".into(),
            value: env("TOKEN"),
        },
    ] {
        let attachment = of(auth);
        let head = applied(&attachment, "http://h/", &[]);
        let shown = format!("{attachment:?} {:?}", head.headers);
        assert!(!shown.contains(CANARY) && !shown.contains("Y2FuYXJ5"), "{shown}");
    }
}
