use super::*;

fn matcher(secrets: &[&str]) -> SecretMatcher {
    let mut matcher = SecretMatcher::default();
    for secret in secrets {
        assert!(matcher.add(secret.as_bytes()), "{secret}");
    }
    matcher
}

/// Returns `text` with stars in place of secrets.
fn struck(matcher: &SecretMatcher, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    matcher.search(text.as_bytes(), true, |place| bytes[place].fill(b'*'));
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_secret_is_found_in_each_spelling_that_encoders_have() {
    // As Python, Go, Java, PHP, .NET, Ruby and browsers encode them in URLs, forms, JSON and pages.
    for (secret, spellings) in [
        (
            "canary-7f3a",
            &["canary-7f3a", "Bearer canary-7f3a.", "xcanary-7f3ax"] as &[_],
        ),
        (
            "ab+cd/ef==",
            &[
                "ab+cd/ef==",
                "ab%2Bcd%2Fef%3D%3D",
                "ab%2bcd%2fef%3d%3d",
                "ab%2Bcd/ef%3D%3D",
                r"ab+cd\/ef==",
                r"ab\u002Bcd/ef==",
                r"ab\u002bcd\u002fef\u003d\u003d",
                r"ab%2Bcd\/ef\u003d%3D",
                "ab&#43;cd/ef==",
                "ab&#x2B;cd&#x2F;ef&#61;&#61;",
                "ab&#x002b;cd&#047;ef==",
            ],
        ),
        (
            "it's <a> & \"b\\c\"",
            &[
                "it's <a> & \"b\\c\"",
                "it's+%3Ca%3E+%26+%22b%5Cc%22",
                "it%27s%20%3Ca%3E%20%26%20%22b%5Cc%22",
                r#"it's <a> & \"b\\c\""#,
                r#"it\u0027s \u003ca\u003e \u0026 \"b\\c\""#,
                "it&#39;s &lt;a&gt; &amp; &quot;b\\c&quot;",
                "it&apos;s &#60;a&#62; &#38; &#34;b\\c&#34;",
            ],
        ),
        (
            "pässwörd🔑",
            &[
                "pässwörd🔑",
                "p%C3%A4ssw%C3%B6rd%F0%9F%94%91",
                r"p\u00e4ssw\u00f6rd\ud83d\udd11",
                "p&#228;ssw&#xF6;rd&#128273;",
            ],
        ),
        // Every part of it is encoded by at least one of them.
        (
            "!?!?!?!?",
            &["!?!?!?!?", "%21%3F%21%3F%21%3F%21%3F", "!%3F!%3F!%3F!%3F"],
        ),
        ("%2B%2B%2B", &["%2B%2B%2B", "%252B%252B%252B"]),
    ] {
        let matcher = matcher(&[secret]);
        for spelled in spellings {
            for (before, after) in [("", ""), ("<p>%&\\", "&amp;\\%</p>"), ("\"a+", "b\"}")] {
                // With a further character on either side it is still this secret.
                let text = format!("{before}{spelled}{after}");
                let left = struck(&matcher, &text);
                let stars = left.chars().filter(|c| *c == '*').count();
                assert_eq!(left.len(), text.len());
                assert!(
                    left.starts_with(before) && left.ends_with(after) && stars >= secret.len(),
                    "{text} became {left}"
                );
                let head = format!("HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Echo: {text}\r\nAge: 7\r\n\r\n");
                assert!(!matcher.cannot_be_in(head.as_bytes()), "{head}");
            }
        }
    }
}

#[test]
fn a_look_rules_out_only_what_has_no_secret() {
    let matcher = matcher(&["canaryXY", "aXXXXXXa"]);
    let ruled_out = |text: String| matcher.cannot_be_in(text.as_bytes());
    assert!(ruled_out(
        "HTTP/1.1 200 OK\r\nX-Powered-By: canaryX\r\n\r\n".into()
    ));
    // At both ends, and behind the places at which it looks.
    for begin in [0, 1, 7, MOST_LOOKS - 1, MOST_LOOKS, 10 * MOST_LOOKS] {
        for end in [0, 1, 300] {
            let text = |secret: &str| format!("{}{secret}{}", "X-".repeat(begin), "r".repeat(end));
            assert!(!ruled_out(text("canaryXY")) && !ruled_out(text("aXXXXXXa")));
            // With more places than that the values are searched one by one.
            assert_eq!(ruled_out(text("canary")), begin <= MOST_LOOKS);
        }
    }
    // An escape is decoded elsewhere.
    assert!(
        ["%", "\\", "&", "\0"]
            .iter()
            .all(|escape| !ruled_out(format!("a {escape} b")))
    );
}

#[test]
fn what_only_resembles_a_secret_stays() {
    let matcher = matcher(&["ab+cd/ef==", "canary-7f3a"]);
    for text in [
        "",
        "canary-7f3",
        "anary-7f3a",
        "canary-7f3A",
        "ab cd/ef==",
        "ab%2Bcd%2Fef%3D",
        "ab%2",
        r"ab\u00",
        "ab&#",
        "ab&#43cd/ef==",
    ] {
        assert_eq!(struck(&matcher, text), text);
    }
}

#[test]
fn each_secret_is_found_where_they_overlap() {
    let matcher = matcher(&["abcdefgh", "efghijkl", "abababab"]);
    assert_eq!(struck(&matcher, "-abcdefghijkl-"), "-************-");
    assert_eq!(struck(&matcher, "-ababababab-"), "-**********-");
    assert_eq!(struck(&matcher, "-abcdefghabababab-"), "-****************-");
}

#[test]
fn a_short_secret_is_not_looked_for() {
    let mut matcher = SecretMatcher::default();
    assert!(!matcher.add(b"sesame7") && matcher.is_empty());
    assert!(matcher.add(b"sesame78") && !matcher.is_empty());
}

#[test]
fn a_field_is_looked_for_with_and_without_its_scheme() {
    let mut matcher = SecretMatcher::default();
    assert!(matcher.add_field(b"ApiKey canary-7f3a"));
    assert_eq!(struck(&matcher, "ApiKey canary-7f3a"), "******************");
    assert_eq!(struck(&matcher, "key=canary-7f3a"), "key=***********");

    // Aladdin:canary-7f3a
    let mut matcher = SecretMatcher::default();
    assert!(matcher.add_field(b"Basic QWxhZGRpbjpjYW5hcnktN2YzYQ=="));
    for (text, left) in [
        (
            "got Basic QWxhZGRpbjpjYW5hcnktN2YzYQ==",
            "got **********************************",
        ),
        ("QWxhZGRpbjpjYW5hcnktN2YzYQ", "**************************"),
        (
            "QWxhZGRpbjpjYW5hcnktN2YzYQ%3D%3D",
            "**************************%3D%3D",
        ),
        ("Aladdin:canary-7f3a", "Aladdin:***********"),
    ] {
        assert_eq!(struck(&matcher, text), left);
    }
}

/// The pair is searched even if the password alone is too short.
#[test]
fn a_short_password_is_looked_for_with_its_user_only() {
    let mut matcher = SecretMatcher::default();
    assert!(!matcher.add_field(b"Basic YXBwOnNlc2FtZQ=="));
    assert_eq!(
        struck(&matcher, "YXBwOnNlc2FtZQ== sesame"),
        "**************== sesame"
    );
}

/// The end of a text is held back exactly if more text could make it a secret.
#[test]
fn the_beginning_of_a_secret_is_known_as_one() {
    for (secret, spelled) in [
        ("canary-7f3a", "canary-7f3a"),
        ("ab+cd/ef==", "ab%2Bcd%2fef%3D%3D"),
        ("ab+cd/ef==", r"ab\u002Bcd\/ef=="),
        ("ab+cd/ef==", "ab&#43;cd&#x2F;ef=="),
        ("+b+cd/ef==", "%2Bb+cd/ef=="),
        ("p🔑sswörter", r"p\ud83d\udd11ssw\u00f6rter"),
    ] {
        let matcher = matcher(&[secret]);
        for end in 0..spelled.len() {
            let text = format!("no secret\n{}", &spelled[..end]);
            assert_eq!(matcher.search(text.as_bytes(), false, |_| {}), end, "{text}");
        }
        assert_eq!(
            matcher.search(format!("{spelled}\n").as_bytes(), false, |_| {}),
            0
        );
    }
}

#[test]
fn what_changes_is_looked_for_as_it_is_now() {
    let changing = MatcherCache::default();
    let fixed = matcher(&["always-here"]);
    let of = |token: &str| {
        changing.with(
            &HeaderValue::from_str(&format!("Bearer {token}")).unwrap(),
            &fixed,
        )
    };
    let first = of("canary-7f3a");
    assert!(Arc::ptr_eq(&first, &of("canary-7f3a")));
    assert_eq!(
        struck(&first, "always-here canary-7f3a canary-7f3b"),
        "*********** *********** canary-7f3b"
    );
    assert_eq!(
        struck(&of("canary-7f3b"), "always-here canary-7f3a canary-7f3b"),
        "*********** canary-7f3a ***********"
    );
}

/// Several encoders, one after the other, in any order and any number.
#[test]
fn a_secret_is_found_under_layers_of_escapes() {
    let percent = |text: &str| -> String {
        let escaped = |byte: u8| match byte {
            b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        };
        text.bytes().map(escaped).collect()
    };
    let every_byte = |text: &str| {
        text.bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    let json = |text: &str| {
        serde_json::to_string(text)
            .unwrap()
            .replace('/', "\\/")
            .replace('+', "\\u002B")
    };
    let html = |text: &str| {
        let text = text
            .replace('&', "&amp;")
            .replace('"', "&quot;")
            .replace('+', "&plus;");
        text.replace('=', "&#x3D;").replace('/', "&#0047;")
    };
    let script = |text: &str| text.replace('+', "\\x2b").replace('=', "%u003d");
    let encoders: [&dyn Fn(&str) -> String; 5] = [&percent, &every_byte, &json, &html, &script];
    let secret = "ab+cd/ef==";
    let matcher = matcher(&[secret]);
    let mut texts = vec![secret.to_owned()];
    for _ in 0..3 {
        let next = texts
            .iter()
            .flat_map(|text| encoders.iter().map(|encoder| encoder(text)));
        texts = next.collect();
        for text in &texts {
            let whole = format!("x: {text};\n");
            assert_ne!(struck(&matcher, &whole), whole, "{text}");
            for decoy in ["&%\\%25&amp", "%", "\\\\"] {
                let whole = format!("{decoy} {text}{decoy}");
                assert_ne!(struck(&matcher, &whole), whole, "{text}");
            }
        }
    }
    // As many encodings as occur in practice.
    let mut deep = percent(secret);
    for _ in 0..5 {
        deep = deep.replace('%', "%25");
        assert_ne!(struck(&matcher, &deep), deep);
    }
}

/// With and without a byte order mark.
#[test]
fn utf_16_is_looked_through_without_a_label() {
    for secret in ["canary-7f3a", "ab+cd/ef==", "p\u{e4}ssw\u{f6}rd\u{1f511}"] {
        let matcher = matcher(&[secret]);
        for text in [
            format!("{{\"a\":\"{secret}\"}}"),
            "a=ab%2Bcd%2Fef%3D%3D".to_owned(),
        ] {
            for bytes in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                for mark in ["", "\u{feff}"] {
                    let wide: Vec<u8> = format!("{mark}{text}").encode_utf16().flat_map(bytes).collect();
                    let mut places = 0;
                    matcher.search(&wide, true, |_| places += 1);
                    assert_eq!(
                        places > 0,
                        text.contains(secret) || secret.starts_with("ab"),
                        "{text}"
                    );
                }
            }
        }
    }
}

/// Counts steps, because time says nothing on a busy machine.
#[test]
fn a_hostile_text_takes_steps_in_proportion_to_its_length() {
    let matcher = matcher(&["ab+cd/ef==", "aaaaaaaaaaaaaaaaaaaaaaab", "%25%25%25%25"]);
    for piece in [
        "%25",
        "%2525",
        "&amp;",
        "\\\\",
        "\\u0025",
        "&#x0000025;",
        "\0",
        "a",
        "%",
        "&",
        "\\u",
        "ab%2Bcd",
        "%61",
        "&#37;25",
    ] {
        let steps = |length: usize| {
            let text = piece.repeat(length / piece.len());
            layers::STEPS.set(0);
            matcher.search(text.as_bytes(), false, |_| {});
            layers::STEPS.get()
        };
        let (few, many) = (steps(1 << 12), steps(1 << 16));
        assert!(many <= 17 * few.max(1 << 12), "{piece}: {few}, then {many}");
        assert!(many <= (MOST_LAYERS + 2) << 16, "{piece}: {many}");
        // The held-back part is bounded too.
        let text = piece.repeat(1 << 16);
        assert!(
            matcher.search(text.as_bytes(), false, |_| {}) <= MOST_HELD,
            "{piece}"
        );
    }
}
