//! Tests of the pages: README.md, `docs/` and the others.
//!
//! Every example in YAML is loaded, every link leads somewhere, every key has its place. The commands of the pages are run
//! by `tests/documents.rs`.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{Config, DestinationKeys, Mark, schema};
use crate::policy::Policy;

/// The longest that README.md may be, in bytes.
const README_SIZE: usize = 10 * 1024;

/// What a destination promises: no more lines than this in the first page.
const README_EXAMPLE_LINES: usize = 14;

/// YAML that outrider does not read, by its first key, and who holds it.
const FOREIGN: [(&str, &str); 3] = [
    (
        "buildpacks",
        "Cloud Foundry's manifest: the buildpack in place of the sidecar",
    ),
    (
        "sidecars",
        "Cloud Foundry's manifest: it is that of manifest.yml, below",
    ),
    (
        "scrape_configs",
        "Prometheus: promtool reads it in tests/documents.rs",
    ),
];

/// The sections of docs/architecture.md that the header of src/lib.rs repeats.
const SHARED_SECTIONS: [&str; 4] = ["The picture", "Ranks", "The life of a request", "Glossary"];

/// Words of docs/architecture.md that begin like a type of ours.
const NOT_TYPES_OF_OURS: [&str; 3] = ["Age", "Drop", "Host"];

/// A page for people, and its path from the top of the repository.
struct Page {
    path: String,
    text: String,
}

/// A block of code in a page.
struct Block {
    language: String,
    /// Without the indentation of a list around it.
    text: String,
    /// `PAGE:LINE`.
    place: String,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap();
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// Every page of the repository.
    fn all() -> Vec<Self> {
        let mut paths: Vec<String> = fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|entry| format!("docs/{}", entry.unwrap().file_name().display()))
            .filter(|path| path.ends_with(".md"))
            .collect();
        paths.sort();
        let others = [
            "README.md",
            "CHANGELOG.md",
            "grafana/README.md",
            "sidecar/README.md",
            "tests/README.md",
        ];
        paths.extend(others.map(str::to_owned));
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The lines outside of blocks of code.
    fn prose(&self) -> String {
        let mut fenced = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                prose.push_str(line);
                prose.push('\n');
            }
        }
        prose
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open = false;
        for (number, line) in self.text.lines().enumerate() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                open = !open;
                if open {
                    blocks.push(Block {
                        language: language.to_owned(),
                        text: String::new(),
                        place: format!("{}:{}", self.path, number + 1),
                    });
                }
            } else if open {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
        }
        assert!(!open, "{}: a block without an end", self.path);
        for block in &mut blocks {
            block.text = dedented(&block.text);
        }
        blocks
    }

    fn yaml(&self) -> Vec<Block> {
        let blocks = self.blocks();
        blocks
            .into_iter()
            .filter(|block| block.language == "yaml")
            .collect()
    }

    /// The anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> HashSet<String> {
        let prose = self.prose();
        let headings = prose.lines().filter_map(|line| line.strip_prefix('#'));
        headings
            .map(|heading| {
                let text = heading.trim_start_matches('#').trim().to_lowercase();
                text.chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect()
            })
            .collect()
    }

    /// The targets of the links and pictures, code left out.
    fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let text: String = prose.split('`').step_by(2).collect();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let pictures = text
            .split(" src=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        links.chain(pictures).map(str::to_owned).collect()
    }
}

impl Block {
    fn first_key(&self) -> &str {
        let line = self.text.lines().find(|line| !line.starts_with('#'));
        line.and_then(|line| line.split(':').next()).unwrap_or_default()
    }

    /// The whole configuration that the example belongs to: itself, or one destination with its keys.
    fn configuration(&self) -> String {
        let schema = schema();
        let is_top_level = |line: &&str| {
            let key = line.split(':').next().unwrap_or_default();
            schema["properties"].get(key).is_some()
        };
        let keys = self
            .text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
        if keys.clone().count() > 0 && keys.clone().all(|line| is_top_level(&line)) {
            return self.text.clone();
        }
        let inner: String = self.text.lines().map(|line| format!("    {line}\n")).collect();
        format!("destinations:\n  example:\n    hosts: [example.gov]\n{inner}")
    }

    /// Loads the example as a configuration; panics with what is wrong.
    fn load(&self) -> Config {
        let text = self.configuration();
        let config =
            Config::parse(&text, &self.place).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Policy::compile(&config).unwrap_or_else(|problems| panic!("{}: {problems}\n{text}", self.place));
        config
    }
}

#[test]
fn every_example_in_yaml_is_sound() {
    let pages = Page::all();
    let blocks: Vec<Block> = pages.iter().flat_map(Page::yaml).collect();
    let (foreign, own): (Vec<&Block>, Vec<&Block>) = blocks
        .iter()
        .partition(|block| FOREIGN.iter().any(|(key, _)| *key == block.first_key()));
    assert!(own.len() >= 20, "{}", own.len());
    for block in own {
        block.load();
    }
    let kinds: HashSet<&str> = foreign.iter().map(|block| block.first_key()).collect();
    assert_eq!(kinds.len(), FOREIGN.len(), "FOREIGN names what no page has");
}

/// A start that fits on a screen: one destination, and no more lines than promised.
#[test]
fn the_examples_of_the_start_are_short() {
    for path in ["README.md", "sidecar/README.md"] {
        let page = Page::read(path);
        let examples: Vec<Block> = (page.yaml().into_iter())
            .filter(|block| block.text.contains("destinations:"))
            .collect();
        assert!(!examples.is_empty(), "{path}");
        for example in examples {
            assert_eq!(example.load().destinations.len(), 1, "{}", example.place);
            let lines = example.text.lines().count();
            assert!(lines <= README_EXAMPLE_LINES, "{}: {lines} lines", example.place);
        }
    }
}

/// The lines for Cloud Foundry's manifest are those that `manifest.yml` pushes with.
#[test]
fn the_sidecar_of_the_pages_is_the_one_of_the_manifest() {
    let without_comment = |line: &str| line.split(" #").next().unwrap_or_default().trim().to_owned();
    let lines = |text: &str| {
        let lines = text.lines().map(without_comment).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    };
    let manifest = lines(&fs::read_to_string(root().join("manifest.yml")).unwrap());
    let mut seen = 0;
    for block in Page::all().iter().flat_map(Page::yaml) {
        if block.first_key() == "sidecars" {
            seen += 1;
            assert!(
                manifest.contains(&lines(&block.text)),
                "{}: {manifest}",
                block.place
            );
        }
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn the_first_page_is_short() {
    let size = Page::read("README.md").text.len();
    assert!(
        size <= README_SIZE,
        "README.md has {size} bytes: move something to docs/"
    );
}

/// Links between pages lead to a file, and to a heading in it.
#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    let mut dead = Vec::new();
    for page in Page::all() {
        let folder = Path::new(&page.path).parent().unwrap().to_owned();
        for link in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let file = if file.is_empty() {
                page.path.clone()
            } else {
                folder.join(file).to_string_lossy().into_owned()
            };
            let is_there = root().join(&file).exists()
                && (anchor.is_empty() || Page::read(&file).anchors().contains(anchor));
            if !is_there {
                dead.push(format!("{}: {link}", page.path));
            }
        }
    }
    assert!(count > 30, "{count}");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A page that a message or a comment names is there.
#[test]
fn every_page_that_the_code_names_is_there() {
    let mut missing = Vec::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for rest in text.split("docs/").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase()).collect();
            let is_page = rest[name.len()..].starts_with(".md") && !name.is_empty();
            if is_page && !root().join("docs").join(&name).with_extension("md").exists() {
                missing.push(format!("{}: docs/{name}.md", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_key_that_does_not_work_yet_is_named_and_no_other() {
    let text = Page::read("docs/operating.md").text;
    let (_, rest) = text.split_once("## What does not work yet").expect("the section");
    let (section, _) = rest.split_once("\n\nSo: ").expect("its end");
    let mut named: Vec<&str> = (section.split('`').skip(1).step_by(2))
        .map(|key| key.split([':', ' ']).next().unwrap_or(key))
        .map(|key| key.rsplit('.').next().unwrap_or(key))
        // Here only one of the values does not work, or a key stands for where the next ones are.
        .filter(|key| !matches!(*key, "default" | "client_certificate" | "auth"))
        .collect();
    let schema = schema();
    let mut later = Vec::new();
    collect(&schema, &|text| text.starts_with("Does not work yet"), &mut later);

    named.sort_unstable();
    later.sort_unstable();
    // A kind of credential stands in several places.
    later.dedup();
    named.dedup();
    assert_eq!(named, later);
}

#[test]
fn what_causes_interception_is_named_and_nothing_else() {
    let text = Page::read("docs/destinations.md").text;
    let (_, rest) = text
        .split_once("\"Must see requests\" is ")
        .expect("the sentence");
    let (sentence, _) = rest.split_once(". ").expect("its end");
    let named: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
    let mut keys: Vec<_> = DestinationKeys::marked(Mark::EndsTls).collect();
    keys.sort_unstable();
    assert_eq!(named, keys);
}

/// `tests/README.md` has each id that a comment of a test names, and no other.
#[test]
fn every_id_of_the_tests_is_explained() {
    let mut named = HashSet::new();
    for path in sources(&root().join("src"))
        .into_iter()
        .chain(sources(&root().join("tests")))
    {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim_start();
            if let Some(comment) = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! ")) {
                named.extend(ids(comment));
            }
        }
    }
    let page = Page::read("tests/README.md").text;
    let explained: HashSet<String> = (page.lines())
        .filter_map(|line| line.strip_prefix("| "))
        .flat_map(ids)
        .collect();
    let mut unexplained: Vec<_> = named.difference(&explained).collect();
    let mut unused: Vec<_> = explained.difference(&named).collect();
    unexplained.sort();
    unused.sort();
    assert!(named.len() > 100, "{named:?}");
    assert!(
        unexplained.is_empty() && unused.is_empty(),
        "not explained: {unexplained:?}; not used: {unused:?}"
    );
}

/// The ids at the start of a comment, in a list: a letter and a number each.
fn ids(comment: &str) -> Vec<String> {
    let words = comment
        .split_whitespace()
        .map(|word| word.trim_end_matches([',', ':', '.']));
    words
        .filter(|word| *word != "and")
        .take_while(|word| {
            let (letter, number) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            letter.starts_with(|c: char| ('A'..='P').contains(&c))
                && number.len() <= 2
                && number.parse::<u8>().is_ok()
        })
        .map(str::to_owned)
        .collect()
}

/// The map in the header of src/lib.rs is that of docs/architecture.md.
#[test]
fn the_map_in_the_code_is_the_one_of_the_page() {
    let page = Page::read("docs/architecture.md").text;
    let header: String = (fs::read_to_string(root().join("src/lib.rs")).unwrap().lines())
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    for title in SHARED_SECTIONS {
        let section = section(&page, title);
        assert!(section.len() > 100, "{title}");
        assert!(
            header.contains(section.trim()),
            "`{title}` is another one in docs/architecture.md and in src/lib.rs"
        );
    }
}

/// docs/architecture.md has each module with the rank that `tests/layout.rs` checks.
#[test]
fn the_ranks_of_the_page_are_those_of_the_test() {
    let page = Page::read("docs/architecture.md").text;
    let mut written = BTreeSet::new();
    for row in section(&page, "Ranks")
        .lines()
        .filter(|line| line.starts_with("| "))
    {
        let mut cells = row.split('|').map(str::trim).skip(1);
        if let Some(rank) = cells.next().and_then(|cell| cell.parse::<usize>().ok()) {
            let modules = cells.next().unwrap().split('`').skip(1).step_by(2);
            written.extend(modules.map(|module| (rank, module.to_owned())));
        }
    }
    let layout = fs::read_to_string(root().join("tests/layout.rs")).unwrap();
    let (_, rest) = layout
        .split_once("const RANKS: &[&[&str]] = &[\n")
        .expect("the ranks");
    let (rows, _) = rest.split_once("\n];").expect("their end");
    let checked: BTreeSet<_> = (rows.lines().enumerate())
        .flat_map(|(rank, row)| {
            row.split('"')
                .skip(1)
                .step_by(2)
                .map(move |module| (rank, module.to_owned()))
        })
        .collect();
    assert!(checked.len() > 20, "{checked:?}");
    let missing: Vec<_> = checked.difference(&written).collect();
    assert!(
        missing.is_empty(),
        "give them a row in docs/architecture.md and in src/lib.rs: {missing:?}"
    );
}

/// Files and types that docs/architecture.md names are there.
#[test]
fn the_architecture_names_what_is_there() {
    let page = Page::read("docs/architecture.md");
    let is_of_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/.".contains(c);
    let mut missing: Vec<&str> = (page
        .text
        .split(|c: char| c.is_whitespace() || "`,;:()".contains(c)))
    .filter(|word| {
        word.contains('/')
            && word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(is_of_path)
    })
    .filter(|path| !root().join("src").join(path).exists() && !root().join(path).exists())
    .collect();
    let code: String = (sources(&root().join("src")).iter())
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let prose = page.prose();
    let types = (prose.split('`').skip(1).step_by(2))
        .filter(|word| {
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(char::is_alphanumeric)
        })
        .filter(|word| !NOT_TYPES_OF_OURS.contains(word));
    missing.extend(types.filter(|name| {
        let defined = |kind: &str| {
            let definition = format!("{kind} {name}");
            let mut places = code.split(&definition).skip(1);
            places.any(|rest| !rest.starts_with(char::is_alphanumeric))
        };
        !["struct", "enum", "trait"].into_iter().any(defined)
    }));
    assert!(missing.is_empty(), "{missing:?}");
}

/// The text below a heading of the second level, up to the next one.
fn section<'p>(page: &'p str, title: &str) -> &'p str {
    let (_, rest) = page
        .split_once(&format!("\n## {title}\n"))
        .unwrap_or_else(|| panic!("no section `{title}`"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// Each key has its place in a page, as code.
#[test]
fn every_key_is_in_the_documents() {
    let pages = Page::all();
    let code: Vec<&str> = (pages.iter())
        // The reference is made of the keys, and the changelog is no place to look for one.
        .filter(|page| !matches!(page.path.as_str(), "docs/reference.md" | "CHANGELOG.md"))
        .flat_map(|page| page.text.split('`').skip(1).step_by(2))
        .collect();
    let words: HashSet<&str> = code
        .iter()
        .flat_map(|code| code.split(|c| !is_of_word(c)))
        .collect();
    let schema = schema();
    let mut keys = Vec::new();
    collect(&schema, &|_| true, &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    keys.retain(|key| !words.contains(key));
    assert!(keys.is_empty(), "give each a line in docs/: {keys:?}");
}

/// A key that is declared and never used would pass every test of the language.
#[test]
fn every_key_is_in_a_test_of_what_it_does() {
    let files = [sources(&root().join("src")), sources(&root().join("tests"))].concat();
    let is_test = |path: &PathBuf| {
        let path = path.strip_prefix(root()).unwrap();
        path.components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with("tests"))
            && !path.starts_with("src/config")
    };
    let tests = files.iter().filter(|path| is_test(path));
    let text: String = tests.map(|path| fs::read_to_string(path).unwrap()).collect();
    // As `key:`, `above.key` or `"key"`: many keys are common words.
    let has_key = |line: &str, key: &str| {
        line.match_indices(key).any(|(at, _)| {
            let before = line[..at].chars().next_back().unwrap_or(' ');
            let after = line[at + key.len()..].chars().next().unwrap_or(' ');
            let is_key = after == ':' || before == '.' || (before, after) == ('"', '"');
            is_key && !is_of_word(before) && !is_of_word(after)
        })
    };
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let is_tested = |key: &str| text.lines().any(|line| !is_comment(line) && has_key(line, key));
    let schema = schema();
    let mut keys = Vec::new();
    collect(
        &schema,
        &|meaning| !meaning.starts_with("Does not work yet"),
        &mut keys,
    );
    assert!(keys.len() > 100, "{keys:?}");
    keys.retain(|key| !is_tested(key));
    assert!(keys.is_empty(), "test in tests/ what each does: {keys:?}");
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// The keys of the schema whose description is `wanted`.
fn collect<'s>(schema: &'s Value, wanted: &impl Fn(&str) -> bool, keys: &mut Vec<&'s str>) {
    let children: Vec<&Value> = match schema {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
    };
    for (name, key) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let description = key.get("description").and_then(Value::as_str);
        if description.is_some_and(wanted) {
            keys.push(name);
        }
    }
    children
        .into_iter()
        .for_each(|child| collect(child, wanted, keys));
}

/// The top of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// `text` without the indentation that all of its lines have.
fn dedented(text: &str) -> String {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let margin = lines().map(|line| line.len() - line.trim_start().len()).min();
    lines()
        .map(|line| format!("{}\n", &line[margin.unwrap_or(0)..]))
        .collect()
}
