use super::*;

fn glob(text: &str) -> PathGlob {
    PathGlob::parse(text).unwrap()
}

/// Whether a list of globs, with blanks between them, allows a path.
fn allows(list: &str, path: &str) -> bool {
    let globs: Vec<_> = list.split(' ').map(glob).collect();
    allow(&globs, path).is_ok()
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
            assert!(allows(text, path), "{text} allows {path}");
            assert!(glob(text).reaches(path), "{text} reaches {path}");
        }
        for path in no {
            assert!(!allows(text, path), "{text} does not allow {path}");
        }
    }
}

/// An allow-list must not vouch for a path that a server resolves to another one.
#[test]
fn a_path_that_leads_out_is_not_allowed() {
    for path in [
        "/api/..",
        "/api/../admin",
        "/api/%2e%2e/admin",
        "/api/%2E./admin",
        "/api/.%2e/admin",
        "/api/..%2fadmin",
        "/api%2f..%2fadmin",
        "/api/..%5cadmin",
        "/api/..\\admin",
        "/api\\..\\admin",
        "/api/%252e%252e/admin",
        "/api/%25%32%65%252e/admin",
        "/api/%2525252525252e%252525252e/admin",
        "/api/x/..%252f..%252fadmin",
        "/api/..;/admin",
        "/api/..;x=1/admin",
        "/api/..%3b/admin",
        "/api/%2e%2e;/admin",
        "/api/;/../../admin",
        "/api//../../admin",
        "/api/x%2fy/../../admin",
        "/api/x%5cy/../../admin",
        "/api/x%252fy/../../admin",
        "/api/x%2f../../admin",
        "/api/x;%2f..%2f..%2f/admin",
        "/api/.%e2%80%8b./admin",
        "/api/%ef%bc%8e./admin",
        "/api/..%20/admin",
        "/api/.../admin",
        "/api/...%5c/admin",
    ] {
        for text in ["/api/**", "/api/*/*", "/api/*", "/api/** /x/**"] {
            assert!(!allows(text, path), "{text} allows {path}");
        }
    }
}

/// What no list of habits covers is allowed by nothing.
#[test]
fn a_path_that_is_no_text_is_not_allowed() {
    for path in [
        "/api/x%00.json",
        "/api/x%0d%0a",
        "/api/x%250d%250a",
        "/api/%01",
        "/api/%02",
        "/api/%7f",
        "/api/%",
        "/api/%2",
        "/api/%zz",
        "/api/%u002e%u002e/admin",
        "/api/%c0%ae%c0%ae/admin",
        "/api/x%c0%af",
        "/api/x%25c0%25af",
        "/api/caf%e9",
        "/api/...",
        "/api/. ./x",
    ] {
        let refused = allow(&[glob("/**"), glob("/api/**")], path);
        assert_eq!(refused, Err(Refused::Unclear), "{path}");
    }
}

/// What the public APIs of services look like, and the globs that people write for them.
#[test]
fn a_path_is_allowed_where_its_readings_agree() {
    for (list, path) in [
        ("/api/v4/**", "/api/v4/projects/group%2Fproject"),
        (
            "/api/v4/**",
            "/api/v4/projects/group%2Fproject/repository/files/src%2Fa.rs/raw",
        ),
        ("/api/v4/projects/**", "/api/v4/projects/a%2Fb%2Fc/issues"),
        (
            "/api/v4/projects/group%2Fproject/**",
            "/api/v4/projects/group%2Fproject/issues/1",
        ),
        (
            "/api/v4/projects/group%2Fproject",
            "/api/v4/projects/group%2fproject",
        ),
        (
            "/api/v4/projects/*/issues /api/v4/projects/*/*/issues",
            "/api/v4/projects/group%2Fproject/issues",
        ),
        ("/**", "/@scope%2Fname"),
        ("/@scope%2F*", "/@scope%2Fname"),
        ("/@scope%2F* /@scope/**", "/@scope/name/-/name-1.0.0.tgz"),
        ("/@scope%2F* /@scope/**", "/@scope%2fname"),
        ("/* /@scope/*", "/@scope%2Fname"),
        ("/v1/**", "/v1/projects/p/topics/t:publish"),
        ("/v1/*:batch", "/v1/things:batch"),
        ("/v1/*%3Abatch", "/v1/things:batch"),
        ("/odata/**", "/odata/Products(1)/Name%20of%20it"),
        ("/odata/**", "/odata/People('a%2Fb')"),
        ("/matrix/**", "/matrix/client/v3/rooms/!a%3Aexample.org/state"),
        ("/a;v=1/**", "/a;v=1/x%2Fy"),
        ("/a;v=1/** /a/**", "/a;v=1/x%2Fy/./z"),
        ("/search/*", "/search/100%25"),
        ("/search/*", "/search/50%2525"),
        ("/search/50%25Up", "/search/50%25Up"),
        ("/x/**", "/x/a/../b"),
        ("/x/**", "/x/a/%2e%2e/b"),
        ("/x/**", "/x/a%2f..%2fb"),
        ("/x/**", "/x/./b"),
        ("/x/**", "/x/a%5cb"),
        ("/x/**", "/x/a\\b"),
        ("/x/**", "/x/a%252fb"),
        ("/x/**", "/x/%252e/b"),
        ("/x/**", "/x/a./b."),
        ("/x/**", "/x/.well-known/y"),
        ("/**", "/x/../../y"),
        ("/**", "/%2e%2e%2f%2e%2e"),
        ("/", "/"),
    ] {
        let globs: Vec<_> = list.split(' ').map(glob).collect();
        assert_eq!(allow(&globs, path), Ok(()), "{list} and {path}");
    }
    for (list, path, other) in [
        ("/api/*/issues", "/api/g%2Fp/issues", "/api/g/p/issues"),
        ("/api/*/*/issues", "/api/g%2Fp/issues", ""),
        ("/@scope/**", "/@scope%2Fname", ""),
        ("/@scope%2F*", "/@scope/name", ""),
        ("/@scope%2F*", "/@scope%2fname/../name", ""),
        ("/@scope%2F** /x", "", ""),
        ("/g%2Fp/**", "/g%2Fp/../g/p/secret", "/g/p/secret"),
        ("/x;y/**", "/x;y/%2e%2e%2fx/secret", "/x/secret"),
        ("/x;y", "/x;z", ""),
        ("/x/*", "/x/a/../b", ""),
        ("/x/*/*/*", "/x/a/../b", "/x/b"),
        ("/API/**", "/API/../api/x", "/api/x"),
        ("/v1/*", "/v1/a%5cb", "/v1/a/b"),
        ("/pub/*/* /pub/*/*/*", "/pub/./a%2Fb", "/pub/a%2Fb"),
    ] {
        let Ok(globs) = list
            .split(' ')
            .map(PathGlob::parse)
            .collect::<Result<Vec<_>, _>>()
        else {
            assert_eq!(path, "", "{list}");
            continue;
        };
        let expected = match other {
            "" => Refused::Other,
            other => Refused::Reading(other.to_owned()),
        };
        assert_eq!(allow(&globs, path), Err(expected), "{list} and {path}");
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
        "/api%e0%80%afreindex",
        "/api%f0%80%80%afreindex",
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
        ("/a%2f..%2fb", GlobError::Ambiguous),
        ("/a%2f/b", GlobError::Ambiguous),
        ("/a%252fb", GlobError::Ambiguous),
        ("/a\\b", GlobError::Ambiguous),
        ("/a%5cb", GlobError::Ambiguous),
        ("/a%", GlobError::Ambiguous),
        ("/a%00b", GlobError::Ambiguous),
        ("/a%02b", GlobError::Ambiguous),
        ("/..;/b", GlobError::Ambiguous),
        ("/.../b", GlobError::Ambiguous),
        ("/@scope%2F**", GlobError::DoubleStar),
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
        assert!(!allows(text, path), "{text} allows {path}");
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
        assert!(allows(text, path), "{text} allows {path}");
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
                !allows(text, path) || allows(text, &merged),
                "{text}: {path} but not {merged}"
            );
        }
    }
}

/// What a server may do to a path before it looks for the resource, said once more and in another way.
fn habits() -> Vec<fn(&str) -> String> {
    fn unescape(path: &str) -> String {
        percent_encoding::percent_decode_str(path)
            .decode_utf8_lossy()
            .into_owned()
    }
    fn normalize(path: &str) -> String {
        let mut kept = vec![];
        for name in path.split('/').skip(1) {
            match name {
                ".." => drop(kept.pop()),
                "." => {}
                name => kept.push(name),
            }
        }
        format!("/{}", kept.join("/"))
    }
    fn merge(path: &str) -> String {
        let mut path = path.to_owned();
        while path.contains("//") {
            path = path.replace("//", "/");
        }
        path
    }
    fn bare(path: &str) -> String {
        let mut is_bare = false;
        let keep = |c: &char| {
            is_bare = *c != '/' && (is_bare || *c == ';');
            !is_bare
        };
        path.chars().filter(keep).collect()
    }
    fn windows(path: &str) -> String {
        let names = path.split('/').map(|name| match name {
            "." | ".." => name,
            name => name.trim_end_matches(['.', ' ']),
        });
        names.collect::<Vec<_>>().join("/")
    }
    fn turn(path: &str) -> String {
        path.replace('\\', "/")
    }
    fn lower(path: &str) -> String {
        path.to_lowercase()
    }
    fn cut(path: &str) -> String {
        path.split(['?', '#']).next().unwrap().to_owned()
    }
    vec![
        unescape, unescape, normalize, normalize, merge, bare, windows, turn, lower, cut,
    ]
}

/// The resources of a tree; which of them a list of globs means is plain.
#[test]
fn no_server_is_led_to_what_is_not_allowed() {
    let pieces = [
        "/", "/", "/pub", "/pub", "/a", "/A", "/b", ".", "..", "/..", "/..", "%2e", "%2f", "%5c", "\\",
        "%25", "2e", "2f", ";", ";x", "%3b", "%61", "//", ". ", "%20", "%3f", "%23", "/PUB", "secret",
        "/secret",
    ];
    let lists = [
        "/**",
        "/pub/**",
        "/pub/*",
        "/*",
        "/**/a",
        "/pub/*/a /pub/a",
        "/a",
        "/pub/ /a",
        "/*.a /pub/*/*",
        "/a*a /pub",
        "/pub%2fa /pub%2fa/**",
        "/pub;x/** /pub/a",
        "/A/** /pub/a/**",
    ];
    let lists: Vec<Vec<PathGlob>> = lists
        .iter()
        .map(|list| list.split(' ').map(glob).collect())
        .collect();
    let habits = habits();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % most
    };
    let (mut allowed, mut odd) = (0, 0);
    for _ in 0..8_000 {
        let path: String = (0..1 + below(8)).map(|_| pieces[below(pieces.len())]).collect();
        let path = format!("/{}", path.trim_start_matches('/'));
        let readings = Readings::of(&path);
        for globs in &lists {
            let is_allowed = allow(globs, &path).is_ok();
            let each_is = readings.is_sound()
                && globs.iter().any(|glob| glob.matches(&path))
                && readings.all().is_some_and(|mut all| {
                    all.all(|reading| {
                        globs.iter().any(|glob| glob.means(reading))
                            && globs.iter().any(|glob| glob.means_exactly(reading))
                    })
                });
            assert_eq!(is_allowed, each_is, "{path} under {globs:?}");
            if !is_allowed {
                continue;
            }
            allowed += 1;
            odd += usize::from(!reading::is_common(&path));
            // A chain of servers, with the same habits for the globs.
            let chain: Vec<_> = (0..below(7)).map(|_| habits[below(habits.len())]).collect();
            let led = chain.iter().fold(path.clone(), |path, habit| habit(&path));
            let led = percent_encoding::percent_decode_str(&led)
                .decode_utf8_lossy()
                .into_owned();
            let means = globs.iter().any(|glob| {
                let seen = |form: &GlobForm| {
                    matches(&form.exact, reading::without_end(&led))
                        || matches(&form.folded, reading::without_end(&led))
                };
                glob.forms.iter().any(seen)
            });
            assert!(
                means || led.is_empty(),
                "{path} leads {chain:?} to {led}, not meant by {globs:?}"
            );
        }
    }
    assert!(
        allowed > 5_000 && odd > 1_000,
        "{allowed} paths were allowed, {odd} of them odd"
    );
}

/// Each habit may double the readings; a path that has more than anybody needs is every rule's.
#[test]
fn readings_are_bounded() {
    let hostile = "/%2525%255c..%c0%ae%3b%3f%00./ａ;x\\..//%u002e".repeat(40);
    match Readings::of(&hostile) {
        Readings::TooMany => assert!(glob("/x").reaches(&hostile)),
        readings => assert!(readings.all().unwrap().count() <= 200),
    }
    assert!(matches!(Readings::of("/v1/items/42/"), Readings::One(path) if path == "/v1/items/42"));
}
