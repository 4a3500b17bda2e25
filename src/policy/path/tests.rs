use super::*;

fn glob(text: &str) -> PathGlob {
    PathGlob::parse(text).unwrap()
}

#[test]
fn stars_stay_in_their_segment_and_double_stars_cross() {
    for (text, yes, no) in [
        ("/", &["/"][..], &["/a", "//", ""][..]),
        (
            "/api",
            &["/api", "/%61pi"],
            &["/api/", "/API", "/apis", "/ap", "api", "/api/x"],
        ),
        ("/api/", &["/api/"], &["/api", "/api//", "/api/x"]),
        (
            "/api/*",
            &["/api/x", "/api/x;v=1", "/api/.x"],
            &["/api", "/api/", "/api/x/y", "/api//"],
        ),
        (
            "/api/**",
            &["/api", "/api/", "/api/x", "/api/x/y/", "/api//x"],
            &["/apis", "/", "/x/api", "//api"],
        ),
        ("/**", &["/", "/a", "/a/b//c"], &["", "*", "a"]),
        ("/**/c", &["/c", "/a/c", "/a/b/c/c"], &["/", "/c/", "/a/c/b"]),
        (
            "/a/**/c/*",
            &["/a/c/x", "/a/b/c/c/x", "/a/c/c"],
            &["/a/c", "/a/c/", "/c/x"],
        ),
        ("/v*/x", &["/v1/x", "/v/x"], &["/v1/y/x", "/w/x", "/x"]),
        (
            "/*.json",
            &["/a.json", "/.json", "/a%2ejson"],
            &["/a.json2", "/a/b.json", "/json", "/admin;.json"],
        ),
        ("/a*b*c", &["/abc", "/axbxc", "/abbcc"], &["/ac", "/acb", "/ab"]),
        ("/a*a", &["/aa", "/aba"], &["/a"]),
        ("/caf%C3%A9", &["/caf%c3%a9", "/café"], &["/cafe"]),
        ("/x;y", &["/x;y"], &["/x"]),
        ("/%2a", &["/*", "/%2A"], &["/a"]),
    ] {
        for path in yes {
            assert!(glob(text).allows(path), "{text} allows {path}");
            assert!(glob(text).reaches(path), "{text} reaches {path}");
        }
        for path in no {
            assert!(!glob(text).allows(path), "{text} does not allow {path}");
        }
    }
}

/// An allow-list must not vouch for a path that a server resolves to another one.
#[test]
fn ambiguous_paths_are_allowed_by_no_glob() {
    for path in [
        "/api/..",
        "/api/../admin",
        "/api/./x",
        "/api/.",
        "/../api",
        "/api/%2e%2e/admin",
        "/api/%2E./admin",
        "/api/.%2e/admin",
        "/api/..%2fadmin",
        "/api%2f..%2fadmin",
        "/api/x%2Fy",
        "/api/..%5cadmin",
        "/api/..\\admin",
        "/api\\admin",
        "/api/%252e%252e/admin",
        "/api/%25%32%65/admin",
        "/api/x%252fy",
        "/api/..;/admin",
        "/api/..;x=1/admin",
        "/api/..%3b/admin",
        "/api/%2e%2e;/admin",
        "/api/.;/x",
        "/api/x%00.json",
        "/api/x%0d%0a",
        "/api/%7f",
        "/api/%",
        "/api/%2",
        "/api/%zz",
        "/api/%u002e%u002e/admin",
        "/api/%c0%ae%c0%ae/admin",
        "/api/x%c0%af",
    ] {
        assert!(is_ambiguous(path), "{path}");
        for text in ["/**", "/api/**", "/api/*/*", "/api/*"] {
            assert!(!glob(text).allows(path), "{text} allows {path}");
        }
    }
}

/// A limit on a path must count whatever a server could route there.
#[test]
fn a_limited_path_is_reached_by_every_spelling_of_it() {
    for path in [
        "/api/reindex",
        "/api/%72eindex",
        "/api/x/../reindex",
        "/api/./reindex",
        "//api//reindex",
        "/api%2freindex",
        "/api\\reindex",
        "/api/reindex;x=1",
        "/api;v=1/reindex",
        "/api/%2572eindex",
        "/x/%2e%2e/api/reindex",
        "/x/..;/api/reindex",
        "/../api/reindex",
        "/api/reindex/",
        "/API/ReIndex",
        "/api./reindex",
        "/api/reindex%20.",
        "/api%20/reindex",
        "/api/reindex::$DATA",
        "/api:$i30:$INDEX_ALLOCATION/reindex",
        "/api%00/reindex",
        "/api/reindex%00.json",
        "/api/reindex%3fx",
        "/api/reindex%23",
        "/api/rein%c1%a4ex",
        "/api%c0%afreindex",
        "/api%u002freindex",
        "/api/%25%37%32eindex",
        "/api/%ef%bd%92eindex",
        "/a%e2%80%8bpi/reindex",
        "/api/%e2%84%aa/../reindex",
        "/X/..%5cAPI.%5creindex;a=b/",
    ] {
        assert!(glob("/api/reindex").reaches(path), "{path}");
    }
    for path in [
        "/api/reindex/..",
        "/api/reindex2",
        "/api/%2",
        "/api/../reindex",
        "*",
        "",
    ] {
        assert!(!glob("/api/reindex").reaches(path), "{path}");
    }
    assert!(glob("/a/**").reaches("/a/%25"));
    assert!(glob("/a/").reaches("/a//"));
}

#[test]
fn what_is_no_glob_is_refused() {
    for (text, error) in [
        ("", GlobError::Relative),
        ("api/**", GlobError::Relative),
        ("**", GlobError::Relative),
        ("https://a/b", GlobError::Relative),
        ("/a?b", GlobError::NotPath),
        ("/a#b", GlobError::NotPath),
        ("/a**", GlobError::DoubleStar),
        ("/a/***", GlobError::DoubleStar),
        ("/a//b", GlobError::Ambiguous),
        ("//", GlobError::Ambiguous),
        ("//a", GlobError::Ambiguous),
        ("/a/../b", GlobError::Ambiguous),
        ("/a/%2e%2e", GlobError::Ambiguous),
        ("/a%2fb", GlobError::Ambiguous),
        ("/a\\b", GlobError::Ambiguous),
        ("/a%", GlobError::Ambiguous),
    ] {
        assert_eq!(PathGlob::parse(text), Err(error), "{text:?}");
    }
}

/// An allow-list must not vouch for what a server decodes, cuts or narrows to another path.
#[test]
fn a_path_is_allowed_only_where_each_reading_is() {
    for (text, path) in [
        ("/pub/**", "/pub/%ef%bc%8e%ef%bc%8e/admin"),
        ("/pub/**", "/pub/\u{ff0e}\u{ff0e}/admin"),
        ("/pub/*", "/pub/a%ef%bc%8fb"),
        ("/pub/*", "/pub/a\u{2215}b"),
        ("/pub/*.json", "/pub/secret%3f.json"),
        ("/pub/*.json", "/pub/secret%23.json"),
        ("/pub/*.json", "/pub/secret::$DATA.json"),
        ("/*/list", "/a%3f/list"),
    ] {
        assert!(!glob(text).allows(path), "{text} allows {path}");
    }
    for (text, path) in [
        ("/repos/**", "/repos/a.b/c%20d"),
        ("/repos/*/*", "/repos/Some-Org/Repo.js"),
        ("/API/**", "/API/x"),
        ("/v1/**", "/v1/items;v=2"),
        ("/v1/*", "/v1/items;v=2"),
        ("/v1/**", "/v1/models/gemini-1.5-pro:generateContent"),
        ("/v1/*", "/v1/projects%3Aa"),
        ("/v1/*:run", "/v1/a:run"),
        ("/browse/**", "/browse/%E6%97%A5%E6%9C%AC/\u{e9}.txt"),
        ("/bucket/**", "/bucket/a//b/"),
        ("/bucket/**", "/bucket/name."),
        ("/bucket/*", "/bucket/what%3f"),
        ("/ids/*", "/ids/eyJhbGciOi-_JIUzI1NiJ9=="),
        ("/ids/*/x", "/ids/urn:ietf:rfc:9110/x"),
        ("/a/*/x", "/a/Tom%20%26%20Jerry's%20(1)/x"),
        ("/users/*", "/users/a+b@example.com"),
        ("/caf%C3%89/*", "/caf%c3%89/x"),
    ] {
        assert!(glob(text).allows(path), "{text} allows {path}");
    }
}

/// Merging empty segments, as many servers do, never leads from an allowed path to one that is not.
#[test]
fn merging_slashes_stays_within_a_glob() {
    for text in ["/**", "/a/**", "/a/**/b", "/a/*", "/*/b", "/a", "/**/b"] {
        for path in ["//a", "/a//b", "/a//", "//", "/a//x//b", "///b", "/x//a//b"] {
            let mut merged = path.to_owned();
            while merged.contains("//") {
                merged = merged.replace("//", "/");
            }
            assert!(
                !glob(text).allows(path) || glob(text).allows(&merged),
                "{text}: {path} but not {merged}"
            );
        }
    }
}

/// Whatever is allowed is allowed as well in each form that servers make of it.
#[test]
fn an_allowed_path_stays_allowed_however_it_is_read() {
    let pieces = [
        "/",
        "/",
        "pub",
        "a",
        ".",
        "..",
        "%2e",
        "%2f",
        "%5c",
        "\\",
        "%25",
        "2e",
        ";",
        ";x",
        "%3b",
        "%",
        "%61",
        "*",
        "%00",
        "é",
        "%c3%a9",
        "//",
        "A",
        ". ",
        "::",
        ":$x",
        "%3f",
        "%23",
        "．",
        "%ef%bc%8f",
        "%e2%80%8b",
    ];
    let globs = [
        "/**", "/pub/**", "/pub/*", "/*", "/**/a", "/pub/*/a", "/a", "/pub/", "/*.a", "/a*a",
    ]
    .map(glob);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut allowed = 0;
    for _ in 0..50_000 {
        let mut path = String::from("/");
        for _ in 0..1 + (state >> 60) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            path.push_str(pieces[(state % pieces.len() as u64) as usize]);
        }
        let readings = Readings::of(&path);
        for glob in globs.iter().filter(|glob| glob.allows(&path)) {
            for read in readings.all().unwrap() {
                allowed += 1;
                assert!(
                    glob.means(read),
                    "{path} is read as {read}, which {glob:?} does not mean"
                );
            }
        }
    }
    assert!(allowed > 1_000, "{allowed} paths were allowed");
}

/// Each habit may double the readings; a path that has more than anybody needs is every rule's.
#[test]
fn readings_are_bounded() {
    let hostile = "/%2525%255c..%c0%ae%3b%3f%00./ａ;x\\..//%u002e".repeat(40);
    match Readings::of(&hostile) {
        Readings::TooMany => assert!(glob("/x").reaches(&hostile)),
        readings => assert!(readings.all().unwrap().count() <= 200),
    }
    assert!(matches!(
        Readings::of("/v1/items/42/"),
        Readings::Plain("/v1/items/42")
    ));
}
