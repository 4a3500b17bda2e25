use super::*;
use crate::config::Config;
use crate::config::lines::quoted;

fn new(name: &str, host: &str) -> NewDestination {
    NewDestination {
        name: name.to_owned(),
        hosts: vec![host.to_owned()],
        paths: Vec::new(),
        methods: Vec::new(),
    }
}

/// Adds one destination, and checks that the result is a configuration, and the same after a second time.
#[track_caller]
fn added(text: &str) -> String {
    let merged = add_destinations(text, &[new("b", "b.test:443")]).unwrap();
    if text.contains("hosts") || !text.contains("keep") {
        Config::parse(&merged, "a.yml").unwrap_or_else(|problems| panic!("{problems}\n{merged}"));
    }
    merged
}

#[test]
fn each_way_to_write_the_mapping_gets_its_entry() {
    for (text, expected) in [
        ("", "destinations:\n  b:\n    hosts: [\"b.test:443\"]\n"),
        (
            "drain: 8s\n",
            "drain: 8s\n\ndestinations:\n  b:\n    hosts: [\"b.test:443\"]\n",
        ),
        // Without a line end at the end.
        (
            "drain: 8s # c",
            "drain: 8s # c\n\ndestinations:\n  b:\n    hosts: [\"b.test:443\"]\n",
        ),
        (
            "destinations:\n  a: { hosts: [a.test] }",
            "destinations:\n  a: { hosts: [a.test] }\n  b:\n    hosts: [\"b.test:443\"]\n",
        ),
        // In the middle, with comments on both sides.
        (
            "destinations:\n  a:\n    hosts: [a.test]\n    # of a\n  # of all\n\n# next\ndrain: 8s\n",
            "destinations:\n  a:\n    hosts: [a.test]\n    # of a\n  # of all\n  b:\n    hosts: [\"b.test:443\"]\n\n# next\n\
             drain: 8s\n",
        ),
        // Four columns, and blank lines between the entries.
        (
            "destinations:\n    a:\n        hosts: [a.test]\n\n    # c\n    c:\n        hosts: [c.test]\n\ndrain: 8s\n",
            "destinations:\n    a:\n        hosts: [a.test]\n\n    # c\n    c:\n        hosts: [c.test]\n\n    b:\n        \
             hosts: [\"b.test:443\"]\n\ndrain: 8s\n",
        ),
        // Nothing yet, in each spelling.
        (
            "destinations: # none\n# more\ndrain: 8s\n",
            "destinations: # none\n  b:\n    hosts: [\"b.test:443\"]\n# more\ndrain: 8s\n",
        ),
        (
            "destinations: {} # none\ndrain: 8s\n",
            "destinations: # none\n  b:\n    hosts: [\"b.test:443\"]\ndrain: 8s\n",
        ),
        (
            "drain: 8s\ndestinations: {\n }\n",
            "drain: 8s\ndestinations:\n  b:\n    hosts: [\"b.test:443\"]\n",
        ),
        (
            "\"destinations\" : ~\ndrain: 8s",
            "\"destinations\" :\n  b:\n    hosts: [\"b.test:443\"]\ndrain: 8s",
        ),
        (
            "destinations:",
            "destinations:\n  b:\n    hosts: [\"b.test:443\"]\n",
        ),
        // In braces.
        (
            "destinations: { a: { hosts: [a.test] } } # c\n",
            "destinations: { b: { hosts: [\"b.test:443\"] }, a: { hosts: [a.test] } } # c\n",
        ),
        (
            "{ drain: 8s, destinations: {\n  a: { hosts: [a.test] }, # c\n} }\n",
            "{ drain: 8s, destinations: { b: { hosts: [\"b.test:443\"] },\n  a: { hosts: [a.test] }, # c\n} }\n",
        ),
        (
            "{ drain: 8s }",
            "{ destinations: { b: { hosts: [\"b.test:443\"] } }, drain: 8s }",
        ),
        (
            "{destinations: {}, drain: 8s}",
            "{destinations: { b: { hosts: [\"b.test:443\"] } }, drain: 8s}",
        ),
        (
            "{destinations: null, drain: 8s}",
            "{destinations: { b: { hosts: [\"b.test:443\"] } }, drain: 8s}",
        ),
        // Line ends, a byte order mark, the end of a document.
        (
            "destinations:\r\n  a:\r\n    hosts: [a.test]\r\n\r\ndrain: 8s\r\n",
            "destinations:\r\n  a:\r\n    hosts: [a.test]\r\n  b:\r\n    hosts: [\"b.test:443\"]\r\n\r\ndrain: 8s\r\n",
        ),
        (
            "\u{feff}destinations: {}\r\n",
            "\u{feff}destinations:\r\n  b:\r\n    hosts: [\"b.test:443\"]\r\n",
        ),
        (
            "---\ndestinations:\n  a: { hosts: [a.test] }\n...\n",
            "---\ndestinations:\n  a: { hosts: [a.test] }\n  b:\n    hosts: [\"b.test:443\"]\n...\n",
        ),
        (
            "---\ndrain: 8s\n...\n",
            "---\ndrain: 8s\n\ndestinations:\n  b:\n    hosts: [\"b.test:443\"]\n...\n",
        ),
        // Indented as a whole; not ASCII before the place.
        (
            "  drain: 8s # é\n  destinations: {} # ü\n",
            "  drain: 8s # é\n  destinations: # ü\n    b:\n      hosts: [\"b.test:443\"]\n",
        ),
        (
            "{ log: {level: info}, \"destinations\": {a: {hosts: [\"ü.test\"]}}}",
            "{ log: {level: info}, \"destinations\": { b: { hosts: [\"b.test:443\"] }, a: {hosts: [\"ü.test\"]}}}",
        ),
        // A block of text whose lines look like comments and keys.
        (
            "destinations:\n  a:\n    hosts: [a.test]\n    headers:\n      set:\n        x-a: |\n          v\n\n# destinations:\n",
            "destinations:\n  a:\n    hosts: [a.test]\n    headers:\n      set:\n        x-a: |\n          v\n  b:\n    hosts: \
             [\"b.test:443\"]\n\n# destinations:\n",
        ),
    ] {
        assert_eq!(added_to(text), expected, "{text:?}");
    }
}

/// As [`added`], for texts whose values need not be sound.
#[track_caller]
fn added_to(text: &str) -> String {
    add_destinations(text, &[new("b", "b.test:443")]).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// A text is changed rightly or not at all.
#[test]
fn what_cannot_be_merged_is_refused() {
    for text in [
        "? destinations\n: a: { hosts: [a.test] }\n",
        "destinations: [a]\n",
        "destinations: text\n",
        "- a\n",
        "text",
        "drain: 8s\rdestinations: {}\r",
        "destinations: { # a comment\n }\n",
        "a: &x {}\ndestinations: *x\n",
        "destinations: {}\n---\ndestinations: {}\n",
        "destinations: !!map {}\n",
        "destinations: {}\ndestinations: {}\n",
        "destinations:\n  b: { hosts: [x.test] }\n",
    ] {
        match add_destinations(text, &[new("b", "b.test:443")]) {
            Err(_) => {}
            Ok(merged) => {
                // Where it succeeds all the same, everything that was there is there.
                let kept = text
                    .lines()
                    .all(|line| merged.contains(line.trim_end_matches(['{', '}', ' '])));
                assert!(kept && text.starts_with("? "), "{text:?}\n{merged}");
            }
        }
    }
}

/// Every name and host comes back as the same text, whatever YAML makes of it without quotes.
#[test]
fn names_and_values_that_look_like_something_else_stay_texts() {
    let names = [
        "true", "null", "no", "on", "y", "1e3", "0x10", "10-0-0-1", "-a", "_a", "1_000", "nan", "aa", "0",
        "~", "-",
    ];
    for name in names {
        let mut one = new(name, "[2001:db8::1]:8443");
        one.hosts.extend(
            [
                "xn--bcher-kva.test",
                "1.2.3.4",
                "null",
                "e.1",
                "-x.test",
                "12.test",
            ]
            .map(str::to_owned),
        );
        one.paths = [
            "/a b",
            "/\"q\"",
            "/#c",
            "/a: b",
            "/\u{2028}\u{7f}\t",
            "/\\x",
            "/*",
            "/{a}",
            "/'",
            "/%2A",
            "/é\u{1f600}",
        ]
        .map(str::to_owned)
        .to_vec();
        one.methods = ["GET", "NO", "x-own", "M-SEARCH", "Null"]
            .map(str::to_owned)
            .to_vec();
        for text in [
            "",
            "destinations: {}\n",
            "{ drain: 8s }",
            "destinations: { a: { hosts: [a.test] } }",
        ] {
            let merged = add_destinations(text, std::slice::from_ref(&one))
                .unwrap_or_else(|error| panic!("{error}: {name:?} in {text:?}"));
            let tree = Node::parse(&merged).unwrap();
            assert!(
                adds_only(Node::parse(text).ok().as_ref(), &tree, std::slice::from_ref(&one))
                    || text.is_empty()
            );
        }
    }
    assert_eq!(quoted("NO"), "\"NO\"");
    assert_eq!(quoted("GET"), "GET");
    assert_eq!(quoted("api.example.com"), "api.example.com");
    assert_eq!(quoted("a.test:443"), "\"a.test:443\"");
}

/// The check itself sees each kind of difference.
#[test]
fn a_merge_that_changes_anything_else_is_seen() {
    let before = Node::parse("drain: 8s\ndestinations: { a: { hosts: [a.test] } }").unwrap();
    let new = [new("b", "b.test:443")];
    let sees = |after: &str| !adds_only(Some(&before), &Node::parse(after).unwrap(), &new);
    let right = "drain: 8s\ndestinations: { a: { hosts: [a.test] }, b: { hosts: ['b.test:443'] } }";
    assert!(!sees(right));
    for wrong in [
        right.replace("8s", "9s"),
        right.replace("drain: 8s", "drain: '8s'"),
        right.replace("a.test]", "a.test, x.test]"),
        right.replace("b.test:443", "b.test"),
        right.replace("['b.test:443']", "['b.test:443'], auth: { bearer: env:T }"),
        right.replace("['b.test:443']", "['b.test:443', x]"),
        right.replace(", b:", ", c: { hosts: [c] }, b:"),
        right.replace("a: { hosts: [a.test] }, ", ""),
        format!("{right}\ndestinations: {{}}"),
        format!("{right}\nlog: {{}}"),
    ] {
        assert!(sees(&wrong), "{wrong}");
    }
}

#[test]
fn a_sound_file_stays_sound() {
    for text in [
        "drain: 8s\n",
        "destinations:\n  a:\n    hosts: [a.test]\n    auth: { bearer: env:T }\n\negress: { default: observe }\n",
        include_str!("../../cli/starter.yml"),
    ] {
        let merged = added(text);
        for line in text.lines() {
            assert!(merged.contains(line), "{line}");
        }
    }
}
