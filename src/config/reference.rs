//! The reference page, `docs/reference.md`, made from the declarations of the keys.
//!
//! One section a mapping, one line a key: name, type, default, meaning. A test keeps the page current and writes it
//! when it is told to.

use std::fmt::Write as _;

use super::keys::{self, Key, Kind, Status, Table};
use super::node::join;

/// A mapping of the language and where it is written.
struct Section {
    path: String,
    table: Table,
}

/// Returns the page, in Markdown.
fn page() -> String {
    let mut sections = Vec::new();
    collect(keys::ROOT, "", &mut sections);
    // A mapping whose every key also belongs to another one is described there.
    let described: Vec<_> = (sections.iter().enumerate())
        .map(|(i, own)| {
            let covers = |(j, other): &(usize, &Section)| {
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

/// Returns the keys of a destination for which TLS is ended under `mode: auto`.
pub(crate) fn keys_that_end_tls() -> Vec<&'static str> {
    let keys = keys::DESTINATION.iter().filter(|key| key.ends_tls);
    keys.map(|key| key.name).collect()
}

impl Section {
    fn write(&self, page: &mut String, all: &[Self]) {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {}\n\n", self.heading());
        page.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in self.table {
            let default = match (key.default, key.required) {
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

fn meaning(key: &Key) -> String {
    let mut meaning = match key.status {
        Status::Works => key.doc.to_owned(),
        Status::Later(_) => format!("Does not work yet. {}", key.doc),
    };
    if key.ends_tls {
        meaning.push_str(" **Ends TLS.**");
    }
    meaning.replace('|', "\\|")
}

/// Finds every mapping of the language, in the order of the file.
fn collect(table: Table, path: &str, found: &mut Vec<Section>) {
    if found.iter().any(|section| std::ptr::eq(section.table, table)) {
        return;
    }
    found.push(Section {
        path: path.to_owned(),
        table,
    });
    for key in table {
        collect_kind(&key.kind, &join(path, key.name), found);
    }
}

fn collect_kind(kind: &Kind, path: &str, found: &mut Vec<Section>) {
    match kind {
        Kind::Any(kinds) => kinds.iter().for_each(|kind| collect_kind(kind, path, found)),
        Kind::Filled(kind) | Kind::List(kind) => collect_kind(kind, &format!("{path}[]"), found),
        Kind::Named(_, kind) => collect_kind(kind, &join(path, "NAME"), found),
        Kind::OneOf(table) | Kind::Table(table) => collect(table, path, found),
        Kind::Address
        | Kind::Boolean
        | Kind::Choice(_)
        | Kind::Duration
        | Kind::Json
        | Kind::Literal(_)
        | Kind::Number(..)
        | Kind::Rate
        | Kind::Secret
        | Kind::Size
        | Kind::Text
        | Kind::Value => {}
    }
}

/// Whether every key of `part` is also one of `whole`, with the same meaning.
fn covers(whole: Table, part: Table) -> bool {
    let is_same = |one: &Key, other: &Key| one.name == other.name && one.doc == other.doc;
    part.iter().all(|key| whole.iter().any(|own| is_same(own, key)))
}

/// Returns the type of a value, for a cell of a table.
fn kind(kind: &Kind, all: &[Section]) -> String {
    let inner = |inner: &Kind| self::kind(inner, all);
    match kind {
        Kind::Address => "ADDRESS:PORT".to_owned(),
        Kind::Any(kinds) => kinds.iter().map(inner).collect::<Vec<_>>().join(" or "),
        Kind::Boolean => "true or false".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Duration => "duration".to_owned(),
        Kind::Filled(kind) | Kind::List(kind) => format!("list of {}", inner(kind)),
        Kind::Json => "value, list or mapping".to_owned(),
        Kind::Literal(text) => format!("`{text}`"),
        Kind::Named(_, kind) => format!("NAME: {}", inner(kind)),
        Kind::Number(least, most) if *most >= u64::from(u32::MAX) => format!("number from {least}"),
        Kind::Number(least, most) => format!("number {least} to {most}"),
        Kind::OneOf(table) => link("one of these", table, all),
        Kind::Rate => "rate".to_owned(),
        Kind::Secret => "reference".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Table(table) => link("mapping", table, all),
        Kind::Text => "text".to_owned(),
        Kind::Value => "value".to_owned(),
    }
}

fn link(text: &str, table: Table, all: &[Section]) -> String {
    let mut covering = all.iter().filter(|section| covers(section.table, table));
    let first = covering.clone().find(|section| !covers(table, section.table));
    let section = first.or_else(|| covering.next());
    section.map_or_else(
        || text.to_owned(),
        |section| format!("[{text}](#{})", section.anchor()),
    )
}

const HEAD: &str = "\
<!-- Made from the declarations in src/config. Do not edit: change them, then run
     OUTRIDER_WRITE_DOCS=1 cargo test --lib config::reference -->

# Every key of `outrider.yml`

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

#[test]
fn the_page_in_docs_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let page = page();
    if std::env::var_os("OUTRIDER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == page,
        "run OUTRIDER_WRITE_DOCS=1 cargo test --lib config::reference"
    );
}
