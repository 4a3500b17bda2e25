//! The reference page, `docs/reference.md`, made from the declarations of the keys.
//!
//! One section a mapping, one line a key: name, type, default, meaning. A test keeps the page current and writes it
//! when it is told to.

use std::fmt::Write as _;

use super::Config;
use super::declare::{Declaration, Mark, Section as _, Status, Table, ValueKind};
use super::node::join;

const HEAD: &str = "\
<!-- Made from the declarations in src/config. Do not edit: change them, then run
     OUTRIDER_WRITE_DOCS=1 cargo test --lib config::reference -->

# Every key of `outrider.yml`

This page lists every key, with its type, its default and its meaning; the other pages show how keys work together. The
smallest file names one host:

```yaml
destinations: { partner: { hosts: [partner.agency.gov] } }
```

A key that is misspelt, unknown or written twice stops the start, and `outrider check` says what was meant.

| type | is written as |
| --- | --- |
| duration | a number and a unit: `500ms`, `10s`, `5m`, `1h`, `7d` |
| size | a number and a unit: `64KiB`, `1MiB` |
| rate | requests per unit, and how many may pass at once after a quiet time: `5/s`, `30/m`, `5/s burst 10` |
| reference | where a secret is: `env:NAME`, `file:PATH` or `vcap:SERVICE/KEY` |
| value | a text, which may look like a number or a boolean |

**Ends TLS**: the proxy must see the requests for this key to work. Where it is written, `mode: auto` intercepts the
destination's `CONNECT`, and the app sees a certificate of the local authority.
";

/// A mapping of the language and where it is written.
struct Heading {
    path: String,
    table: Table,
}

/// Returns the page, in Markdown.
fn page() -> String {
    let mut sections = Vec::new();
    collect(Config::KEYS, "", &mut sections);
    // A mapping whose every key also belongs to another one is described there.
    let described: Vec<_> = (sections.iter().enumerate())
        .map(|(i, own)| {
            let covers = |(j, other): &(usize, &Heading)| {
                covers(other.table, own.table) && (*j < i || !covers(own.table, other.table))
            };
            let other = sections.iter().enumerate().find(covers);
            other.map_or(i, |(j, _)| j)
        })
        .collect();
    let mut page = HEAD.to_owned();
    for (i, section) in sections.iter().enumerate() {
        if described[i] == i {
            section.write(&mut page, &sections);
        }
    }
    page
}

impl Heading {
    fn write(&self, page: &mut String, all: &[Self]) {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {}\n\n", self.heading());
        page.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in self.table {
            let default = match (key.default, key.required.is_some()) {
                ("" | "{}", false) => String::new(),
                ("", true) => "required".to_owned(),
                (default, _) => format!("`{default}`"),
            };
            let kind = match key.status {
                Status::Works => kind(&key.kind, all),
                Status::Later(_) => String::new(),
            };
            let line = format!("| `{}` | {kind} | {default} | {} |\n", key.name, meaning(key));
            page.push_str(&line);
        }
    }

    fn heading(&self) -> String {
        if self.path.is_empty() {
            "The whole file".to_owned()
        } else {
            format!("`{}`", self.path)
        }
    }

    /// Returns the anchor that Markdown renderers derive from the heading.
    fn anchor(&self) -> String {
        let heading = self.heading().to_lowercase().replace(' ', "-");
        let is_kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        heading.chars().filter(is_kept).collect()
    }
}

fn meaning(key: &Declaration) -> String {
    let mut meaning = match key.status {
        Status::Works => key.doc.to_owned(),
        Status::Later(_) => format!("Does not work yet. {}", key.doc),
    };
    if key.implies(Mark::EndsTls) {
        meaning.push_str(" **Ends TLS.**");
    }
    meaning.replace('|', "\\|")
}

/// Finds every mapping of the language, in the order of the file.
fn collect(table: Table, path: &str, found: &mut Vec<Heading>) {
    found.push(Heading {
        path: path.to_owned(),
        table,
    });
    for key in table {
        collect_kind(&key.kind, &join(path, key.name), found);
    }
}

fn collect_kind(kind: &ValueKind, path: &str, found: &mut Vec<Heading>) {
    match kind {
        ValueKind::Any(kinds) => kinds.iter().for_each(|kind| collect_kind(kind, path, found)),
        ValueKind::Filled(kind) | ValueKind::List(kind) => collect_kind(kind, &format!("{path}[]"), found),
        ValueKind::Named(_, kind) => collect_kind(kind, &join(path, "NAME"), found),
        ValueKind::OneOf(table) | ValueKind::Table(table) => collect(table, path, found),
        ValueKind::Address
        | ValueKind::Boolean
        | ValueKind::Choice(_)
        | ValueKind::Duration
        | ValueKind::Json
        | ValueKind::Literal(_)
        | ValueKind::Number(..)
        | ValueKind::Rate
        | ValueKind::Secret
        | ValueKind::Size
        | ValueKind::Text
        | ValueKind::Value => {}
    }
}

/// Whether every key of `part` is also one of `whole`, with the same meaning.
fn covers(whole: Table, part: Table) -> bool {
    let is_same = |one: &Declaration, other: &Declaration| one.name == other.name && one.doc == other.doc;
    part.iter().all(|key| whole.iter().any(|own| is_same(own, key)))
}

/// Returns the type of a value, for a cell of a table.
fn kind(kind: &ValueKind, all: &[Heading]) -> String {
    let inner = |inner: &ValueKind| self::kind(inner, all);
    match kind {
        ValueKind::Address => "ADDRESS:PORT".to_owned(),
        ValueKind::Any(kinds) => kinds.iter().map(inner).collect::<Vec<_>>().join(" or "),
        ValueKind::Boolean => "true or false".to_owned(),
        ValueKind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        ValueKind::Duration => "duration".to_owned(),
        ValueKind::Filled(kind) | ValueKind::List(kind) => format!("list of {}", inner(kind)),
        ValueKind::Json => "value, list or mapping".to_owned(),
        ValueKind::Literal(text) => format!("`{text}`"),
        ValueKind::Named(_, kind) => format!("NAME: {}", inner(kind)),
        ValueKind::Number(least, most) if *most >= u64::from(u32::MAX) => format!("number from {least}"),
        ValueKind::Number(least, most) => format!("number {least} to {most}"),
        ValueKind::OneOf(table) => link("one of these", table, all),
        ValueKind::Rate => "rate".to_owned(),
        ValueKind::Secret => "reference".to_owned(),
        ValueKind::Size => "size".to_owned(),
        ValueKind::Table(table) => link("mapping", table, all),
        ValueKind::Text => "text".to_owned(),
        ValueKind::Value => "value".to_owned(),
    }
}

fn link(text: &str, table: Table, all: &[Heading]) -> String {
    let mut covering = all.iter().filter(|section| covers(section.table, table));
    let first = covering.clone().find(|section| !covers(table, section.table));
    let section = first.or_else(|| covering.next());
    section.map_or_else(
        || text.to_owned(),
        |section| format!("[{text}](#{})", section.anchor()),
    )
}

#[test]
fn the_page_in_docs_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let page = page();
    if std::env::var_os("OUTRIDER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    let other = written
        .lines()
        .zip(page.lines())
        .find(|(written, made)| written != made);
    assert!(
        written == page,
        "run OUTRIDER_WRITE_DOCS=1 cargo test --lib config::reference; the first other line: {other:?}"
    );
}
