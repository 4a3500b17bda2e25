//! The house as a test: who may know whom, how long a file may be, and what may stand in it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Bottom to top. A module may name modules of a lower row only, never its neighbours.
const RANKS: &[&[&str]] = &[
    &["descriptors", "error", "memory", "panics", "sync"],
    &["drain", "host", "message", "method", "path", "stream", "units"],
    &["fields", "http1", "socks", "window"],
    &["config"],
    &["telemetry"],
    &["policy", "secret", "starttls"],
    &["ca", "cache", "limit", "upstream"],
    &["auth", "clients", "store"],
    &["proxy"],
    &["admin", "server"],
    &["worker"],
    &["app"],
    &["bench", "cli", "fuzz"],
];

/// Type names that each area may have.
const IDIOMS: &[&str] = &["Args", "Config", "Error", "Settings", "State"];

/// Words that make a sentence hard to read; comments say it otherwise.
const WORDS: &[&str] = &[
    "whoever",
    "whomever",
    "whosoever",
    "of its own",
    "of their own",
    "is none",
    "are none",
    "that none",
    "has none",
    "brought none",
    "what stands",
    "stands there",
    "let go",
    "is had",
    "are had",
];

/// So many lines below its first use a constant is still found at once.
const FAR: usize = 60;

/// The longest that a file may be.
const LINES: usize = 600;

#[test]
fn modules_depend_downwards() {
    let mut upward = Vec::new();
    for path in sources("src") {
        let from = module_of(&path);
        let Some(own) = rank(&from) else { continue };
        for to in crate_paths(&code(&path)) {
            if to != from && rank(&to).is_some_and(|other| other >= own) {
                upward.push(format!("{}: {from} must not know {to}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "\n{}", upward.join("\n"));
}

#[test]
fn every_module_has_a_rank() {
    let strangers: Vec<_> = (sources("src").iter().map(|path| module_of(path)))
        .filter(|module| !matches!(module.as_str(), "lib" | "main") && rank(module).is_none())
        .collect();
    assert!(strangers.is_empty(), "give them a row in RANKS: {strangers:?}");
}

#[test]
fn no_file_outgrows_its_idea() {
    let long: Vec<_> = (sources("src").into_iter().chain(sources("tests")))
        .map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "split, one idea a file:\n{}", long.join("\n"));
}

/// A reader who sees a name need not ask which of two types it is.
#[test]
fn a_type_name_means_one_thing() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for path in sources("src").into_iter().filter(|path| !is_test(path)) {
        for name in type_names(&code(&path)) {
            places.entry(name).or_default().push(path.display().to_string());
        }
    }
    places.retain(|name, files| files.len() > 1 && !IDIOMS.contains(&name.as_str()));
    assert!(places.is_empty(), "rename all but one: {places:#?}");
}

/// A reader who meets a constant has seen it, or finds it at the top of the file.
#[test]
fn constants_stand_above_their_use() {
    let mut late = Vec::new();
    for path in sources("src") {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let names = text
            .lines()
            .enumerate()
            .filter_map(|(at, line)| Some((at, constant(line)?)));
        for (at, name) in names {
            let is_use = |line: &&str| !line.trim_start().starts_with("//") && has_word(line, name);
            let first = text.lines().position(|line| is_use(&line)).unwrap_or(at);
            if at > first + FAR {
                late.push(format!("{}:{}: {name}", path.display(), at + 1));
            }
        }
    }
    assert!(
        late.is_empty(),
        "move them to the top of the file:\n{}",
        late.join("\n")
    );
}

#[test]
fn comments_use_plain_words() {
    let mut found = Vec::new();
    for path in sources("src").into_iter().chain(sources("tests")) {
        let text = comments(&fs::read_to_string(root().join(&path)).unwrap());
        let words = WORDS.iter().filter(|word| has_word(&text, word));
        found.extend(words.map(|word| format!("{}: {word}", path.display())));
    }
    assert!(found.is_empty(), "say it in other words:\n{}", found.join("\n"));
}

#[test]
fn one_use_names_one_module() {
    assert_absent("several modules in one `use crate::{`", |line| {
        line.trim_start().starts_with("use crate::{")
    });
}

#[test]
fn nothing_is_unsafe_and_nothing_is_left_to_do() {
    assert_absent("unsafe code", |line| {
        line.split_whitespace().any(|word| word == "unsafe")
    });
    assert_absent("unfinished code", |line| {
        line.contains("todo!(") || line.contains("unimplemented!(")
    });
}

#[test]
fn a_path_climbs_at_most_once() {
    assert_absent("`super::super`", |line| line.contains("super::super"));
}

#[test]
fn every_dependency_is_used() {
    let (fuzz, tests): (Vec<_>, Vec<_>) =
        (sources("tests").into_iter()).partition(|path| path.starts_with("tests/fuzz"));
    let own = sources("src").into_iter().chain(tests).collect();
    for (manifest, sources) in [("Cargo.toml", own), ("tests/fuzz/Cargo.toml", fuzz)] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let code = sources.iter().map(|path| code(path)).collect::<String>();
        let unused: Vec<_> = dependencies(&text)
            .filter(|name| !names_crate(&code, &name.replace('-', "_")))
            .collect();
        assert!(unused.is_empty(), "take them out of {manifest}: {unused:?}");
    }
}

/// The checks above find what they look for.
#[test]
fn the_layout_test_sees_a_planted_violation() {
    let planted = "use crate::cli::run;\nfn f() { crate::app::start() }\n";
    assert_eq!(crate_paths(planted), ["cli", "app"]);
    assert!(rank("cli") > rank("proxy") && rank("proxy") > rank("policy"));
    assert_eq!(module_of(Path::new("src/proxy/forward.rs")), "proxy");
    assert_eq!(module_of(Path::new("src/drain.rs")), "drain");
    assert_eq!(
        type_names(
            "pub(in crate::a) struct A<T>(T);\n    type Data = B;\nimpl C {}\nenum D {}\n#[cfg(test)]\nmod tests {\nstruct E;\n"
        ),
        ["A", "D"]
    );
    let text = comments("/// Told by\n/// Whoever reads.\nlet whomever = 1; // is\n// none\n");
    assert!(has_word(&text, "whoever") && !has_word(&text, "whomever") && !has_word(&text, "who"));
    assert_eq!(constant("pub(in crate::a) const A: u8 = 1;"), Some("A"));
    assert_eq!(constant("    const B: u8 = 1;"), None);
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nrand = \"1\"\n[dev-dependencies]\ndata-encoding = \"1\"\n[profile.dev]\ndebug = 1\n";
    assert_eq!(
        dependencies(manifest).collect::<Vec<_>>(),
        ["rand", "data-encoding"]
    );
    assert!(names_crate("use rand::Rng;", "rand") && names_crate("let x = rand::random();", "rand"));
    assert!(!names_crate("aws_lc_rs::rand::fill(); strand::x", "rand"));
}

#[track_caller]
fn assert_absent(what: &str, found: impl Fn(&str) -> bool) {
    let mut places = Vec::new();
    for path in sources("src") {
        let code = code(&path);
        let lines = code.lines().enumerate().filter(|(_, line)| found(line));
        places.extend(lines.map(|(number, line)| format!("{}:{}: {line}", path.display(), number + 1)));
    }
    assert!(places.is_empty(), "{what}:\n{}", places.join("\n"));
}

fn rank(module: &str) -> Option<usize> {
    let rows = RANKS.iter().enumerate();
    let ranks: HashMap<_, _> = rows
        .flat_map(|(rank, row)| row.iter().map(move |module| (*module, rank)))
        .collect();
    ranks.get(module).copied()
}

/// `src/proxy/forward.rs` and `src/proxy.rs` both belong to `proxy`.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap_or(path);
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a text names by `crate::`.
fn crate_paths(code: &str) -> Vec<String> {
    let names = code.split("crate::").skip(1);
    names
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

/// A line without `pub`, `pub(crate)` or `pub(in path)`.
fn without_visibility(line: &str) -> &str {
    match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or(line, |(_, rest)| rest),
        Some(rest) => rest.trim_start(),
        None => line,
    }
}

/// The name of the constant or static that a line declares for the whole file.
fn constant(line: &str) -> Option<&str> {
    let rest = without_visibility(line)
        .strip_prefix("const ")
        .or_else(|| without_visibility(line).strip_prefix("static "))?;
    rest.split_once(':')
        .map(|(name, _)| name)
        .filter(|name| *name != "_")
}

/// The types that a file declares, but those of its tests and those that a trait asks for.
fn type_names(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
    let declared = code.lines().filter_map(|line| {
        let is_inner = line.starts_with(' ');
        let line = without_visibility(line.trim_start());
        let (kind, rest) = line.split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "union") || kind == "type" && !is_inner;
        is_type.then(|| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric())
                .collect::<String>()
        })
    });
    declared
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect()
}

/// The comments of a file in small letters, each block in one line: a phrase may be broken over two lines.
fn comments(text: &str) -> String {
    text.lines()
        .fold(String::new(), |mut comments, line| {
            match line.trim_start().strip_prefix("//") {
                Some(comment) => comments.push_str(comment.trim_start_matches(['/', '!'])),
                None => comments.push('\n'),
            }
            comments
        })
        .to_lowercase()
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_letter(before) && !is_letter(after)
    })
}

/// The names under which a manifest's dependencies are used.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut is_section = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            is_section = line.ends_with("dependencies]");
        }
        line.split_once(" = ")
            .map(|(name, _)| name)
            .filter(|_| is_section)
    })
}

/// Whether some path begins with the crate's name.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

/// A file's code without its comment lines; line numbers stay.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap();
    text.lines()
        .map(|line| {
            if line.trim_start().starts_with("//") {
                "\n"
            } else {
                line
            }
        })
        .fold(String::new(), |mut code, line| {
            code.push_str(line.trim_end_matches('\n'));
            code.push('\n');
            code
        })
}

/// Every Rust file below a folder, as paths from the package's root.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap().map(Result::unwrap) {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
