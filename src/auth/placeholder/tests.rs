use std::ffi::OsString;

use super::environment::changes;
use super::*;
use crate::config::Config;

fn set(texts: &[&str]) -> PlaceholderSet {
    let placeholder = |text: &&str| Placeholder {
        reference: SecretRef::Env(format!("N{}", text.len())),
        text: (*text).to_owned(),
    };
    PlaceholderSet::new(texts.iter().map(placeholder).collect())
}

fn config(text: &str) -> Config {
    Config::parse(text, "a test").unwrap()
}

#[test]
fn the_longest_of_several_that_begin_alike_is_found() {
    let (short, long) = ("outrider-a-0123456789", "outrider-a-0123456789abc");
    let set = set(&[short, long]);
    let text = format!("x{long}y{short}z{short}{long}");
    let (found, held) = set.find(text.as_bytes(), true, true);
    let found: Vec<_> = found
        .iter()
        .map(|one| (one.number, &text[one.place.clone()]))
        .collect();
    assert_eq!(found, [(1, long), (0, short), (0, short), (1, long)]);
    assert_eq!(held, 0);
    // What may become the longer one waits.
    let (_, held) = set.find(short.as_bytes(), false, true);
    assert_eq!(held, short.len());
}

#[test]
fn escapes_and_upper_case_hide_nothing() {
    let set = set(&["outrider-key-0123456789"]);
    for text in [
        "outrider-key-0123456789",
        "%6futrider%2dkey-0123456789",
        "\\u006Futrider-key-0123456789",
        "&#111;utrider-key-0123456789",
        "%256futrider-key-0123456789",
    ] {
        assert_eq!(set.find(text.as_bytes(), true, true).0.len(), 1, "{text}");
        assert_eq!(
            set.find_folded(text.to_uppercase().replace("&#X", "&#x").as_bytes()),
            Some(0),
            "{text}"
        );
    }
    assert_eq!(
        set.find("%6futrider%2dkey-0123456789".as_bytes(), true, false).0,
        []
    );
    assert_eq!(set.find(b"outrider-key-012345678", true, true).0, []);
}

#[test]
fn placeholders_have_the_shape_that_is_written_and_are_all_different() {
    let config = config(
        "destinations: { a: { hosts: [a.test], auth: { pool: [{ bearer: env:A }, { bearer: env:B }, { bearer: env:C }, \
         { bearer: env:D }] } } }\n\
         placeholders:\n  shapes:\n    env:A: { prefix: sk-, length: 51 }\n    env:B: { prefix: AKIA, length: 20, characters: upper }\n    \
         env:C: { prefix: ghp_ }\n",
    );
    let variables = ["A", "B", "C", "D"].map(|name| (name, "a-secret"));
    let make = |known: fn(&SecretRef) -> Option<String>| {
        PlaceholderSet::of(&config, &Snapshot::of_variables(variables), known).unwrap()
    };
    let (one, other) = (make(|_| None), make(|_| None));
    let texts: Vec<_> = one.all().iter().map(|own| own.text.clone()).collect();
    assert!(
        texts[0].starts_with("sk-outrider") && texts[0].len() == 51,
        "{texts:?}"
    );
    assert!(texts[1].starts_with("AKIA") && texts[1].len() == 20, "{texts:?}");
    assert!(texts[2].starts_with("ghp_outrider-C-"), "{texts:?}");
    assert!(
        texts[3].starts_with("outrider-D-") && texts[3].len() == 11 + RANDOM,
        "{texts:?}"
    );
    for (own, of_other) in one.all().iter().zip(other.all()) {
        assert_ne!(own.text, of_other.text);
        assert!(fits(&own.text, &config.placeholders.shape(&own.reference)));
    }
    // One that is known is kept while it has the shape.
    let known =
        make(|reference| Some(format!("outrider-{reference}-0123456789abcdefghijklmnop").replace(':', "_")));
    assert_eq!(known.all()[3].text, "outrider-env_D-0123456789abcdefghijklmnop");
    assert_ne!(known.all()[0].text, "outrider-env_A-0123456789abcdefghijklmnop");
}

#[test]
fn nothing_is_replaced_that_is_not_there_or_is_kept() {
    let config = config(
        "destinations: { a: { hosts: [a.test], auth: { basic: { username: env:U, password: env:P } }, tls: { ca: env:CA } } }\n\
         placeholders: { keep: [env:U] }\n",
    );
    let snapshot = Snapshot::of_variables([("U", "user"), ("P", ""), ("CA", "public")]);
    assert!(
        PlaceholderSet::of(&config, &snapshot, |_| None)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_secret_is_replaced_in_every_variable_and_form() {
    let config = config(
        "destinations: { a: { hosts: [a.test], auth: { pool: [{ bearer: env:A }, { bearer: vcap:s/k }, { bearer: env:PEM }] } } }\n",
    );
    let services = r#"{"x":[{"name":"s","credentials":{"k":"short","z":"short","n":1}},{"name":"t","credentials":{"k":"other"}}]}"#;
    let pem = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n";
    let variables = [
        ("A", "a-secret/1"),
        ("PEM", pem),
        ("URL", "http://u:a-secret%2F1@h/?j={\"k\":\"a-secret\\/1\"}"),
        (
            "SETTINGS",
            "{\"pem\": \"-----BEGIN KEY-----\\nabc\\n-----END KEY-----\\n\"}",
        ),
        ("VCAP_SERVICES", services),
        ("OTHER", "short"),
    ];
    let snapshot = Snapshot::of_variables(variables);
    let set = PlaceholderSet::of(&config, &snapshot, |_| None).unwrap();
    let all = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let changed = changes(&set, &config.placeholders, &snapshot, all);
    let after = |name: &str| {
        let found = changed.iter().find(|changed| changed.name == name);
        found.map(|changed| changed.value.clone().unwrap().into_string().unwrap())
    };
    let texts: Vec<_> = set.all().iter().map(|own| own.text.as_str()).collect();
    assert_eq!(after("A").as_deref(), Some(texts[0]));
    assert_eq!(after("PEM").as_deref(), Some(texts[2]));
    assert_eq!(
        after("URL"),
        Some(format!("http://u:{0}@h/?j={{\"k\":\"{0}\"}}", texts[0]))
    );
    assert_eq!(
        after("SETTINGS"),
        Some(format!("{{\"pem\": \"{}\\n\"}}", texts[2]))
    );
    // Too short to be looked for elsewhere, but replaced where the reference says.
    let services = after("VCAP_SERVICES").unwrap();
    let services: serde_json::Value = serde_json::from_str(&services).unwrap();
    assert_eq!(services["x"][0]["credentials"]["k"], texts[1]);
    assert_eq!(services["x"][0]["credentials"]["z"], "short");
    assert_eq!(services["x"][1]["credentials"]["k"], "other");
    assert_eq!(after("OTHER"), None);
}

#[test]
fn the_password_in_a_url_is_replaced_where_it_is_alone_too() {
    let config = config("egress: { parent: vcap:egress-proxy/https_uri }\n");
    let services = r#"{"x":[{"name":"egress-proxy","credentials":{"https_uri":"https://app:s3cret%21pass@p.test:61443",
        "username":"app","password":"s3cret!pass"}}]}"#;
    let snapshot = Snapshot::of_variables([("VCAP_SERVICES", services)]);
    let set = PlaceholderSet::of(&config, &snapshot, |_| None).unwrap();
    let variables = [
        ("VCAP_SERVICES", services),
        ("PROXY_PASSWORD", "s3cret!pass"),
        ("USER", "app"),
    ];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let changed = changes(&set, &config.placeholders, &snapshot, variables);
    let names: Vec<_> = changed
        .iter()
        .map(|changed| changed.name.to_str().unwrap())
        .collect();
    assert_eq!(names, ["VCAP_SERVICES", "PROXY_PASSWORD"]);
    for changed in &changed {
        let value = changed.value.as_ref().unwrap().to_str().unwrap();
        assert!(!value.contains("s3cret"), "{value}");
        assert!(value.contains(&set.all()[0].text), "{value}");
    }
}

#[test]
fn two_processes_agree_whoever_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca-bundle.pem");
    let config = config("destinations: { a: { hosts: [a.test], auth: { bearer: env:HOME } } }");
    let agree = || shared::agree(&config, &bundle, &Snapshot::of_variables([("HOME", "a-secret")])).unwrap();
    let many: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| agree().all().to_vec())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(many.windows(2).all(|two| two[0] == two[1]), "{many:?}");
    // A damaged file is written anew, and one that is a link is not followed.
    let file = folder.path().join("placeholders.json");
    std::fs::write(&file, "{ not JSON").unwrap();
    let fresh = agree();
    assert_ne!(fresh.all(), many[0]);
    assert_eq!(agree().all(), fresh.all());
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &file).unwrap();
    assert!(shared::agree(&config, &bundle, &Snapshot::of_variables([("HOME", "a-secret")])).is_err());
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn a_destination_sends_only_what_is_sent() {
    let config = config(
        "destinations:\n  a:\n    hosts: [a.test]\n    auth: { aws_sigv4: { service: s3, region: x, access_key_id: env:ID, secret_access_key: env:KEY } }\n  \
         b: { hosts: [b.test], auth: { bearer: env:TOKEN } }\n",
    );
    let snapshot = Snapshot::of_variables([
        ("ID", "AKIAEXAMPLE"),
        ("KEY", "a-secret-key"),
        ("TOKEN", "a-token-1"),
    ]);
    let set = Arc::new(PlaceholderSet::of(&config, &snapshot, |_| None).unwrap());
    let of = |i: usize| RoutePlaceholders::of(&set, &config.destinations[i], &snapshot);
    let (a, b) = (of(0), of(1));
    let shown = |own: &RoutePlaceholders| {
        let mut numbers: Vec<_> = (0..set.all().len())
            .map(|number| {
                let name = set.all()[number].reference.to_string();
                let word = match own.use_of(number) {
                    PlaceholderUse::Foreign => "foreign",
                    PlaceholderUse::NeverSent => "never",
                    PlaceholderUse::Replaced(_) => "replaced",
                };
                format!("{name} {word}")
            })
            .collect();
        numbers.sort();
        numbers.join(", ")
    };
    assert_eq!(shown(&a), "env:ID replaced, env:KEY never, env:TOKEN foreign");
    assert_eq!(shown(&b), "env:ID foreign, env:KEY foreign, env:TOKEN replaced");
    assert_eq!((a.is_shown, b.is_shown), (false, true));
    assert!(a.matcher().is_none() && b.matcher().is_some());
}

/// A secret for a token endpoint must not reach the hosts that the token is for.
#[test]
fn a_secret_for_a_token_endpoint_goes_nowhere_else() {
    let oauth = "oauth2: { token_url: https://login.test/token, client_id: app, client_secret: env:CS }";
    let config = config(&format!(
        "destinations:\n  api: {{ hosts: [api.test, \"login.test:8443\"], auth: {{ {oauth} }} }}\n  \
         both: {{ hosts: [other.test, \"*.test\"], auth: {{ {oauth} }} }}\n",
    ));
    let snapshot = Snapshot::of_variables([("CS", "a-client-secret")]);
    let set = Arc::new(PlaceholderSet::of(&config, &snapshot, |_| None).unwrap());
    let of = |i: usize| RoutePlaceholders::of(&set, &config.destinations[i], &snapshot);
    assert!(matches!(of(0).use_of(0), PlaceholderUse::NeverSent));
    assert!(matches!(of(1).use_of(0), PlaceholderUse::Replaced(_)));
}

/// Only the variables that name our own address to the app may stay: it gets others for these.
#[test]
fn the_url_of_a_parent_is_taken_out_whatever_its_variable_is_called() {
    for (name, is_replaced) in [("CORP_PROXY", true), ("ALL_PROXY", true), ("HTTPS_PROXY", false)] {
        let config = config(&format!("egress: {{ parent: env:{name} }}\n"));
        assert_eq!(!replaced(&config).is_empty(), is_replaced, "{name}");
    }
}

/// The app runs as the same user, and must not stop a reload.
#[test]
fn a_file_that_stays_locked_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca-bundle.pem");
    let config = config("destinations: { a: { hosts: [a.test], auth: { bearer: env:A } } }");
    let agree = || shared::agree(&config, &bundle, &Snapshot::of_variables([("A", "a-secret")]));
    agree().unwrap();
    let held = std::fs::File::open(folder.path().join("placeholders.json")).unwrap();
    held.lock().unwrap();
    let error = agree().unwrap_err().to_string();
    assert!(error.contains("another process keeps it locked"), "{error}");
    drop(held);
    agree().unwrap();
}
