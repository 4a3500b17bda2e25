//! The tables of `docs/clients.md`: written from what was seen, and compared with it.

use std::fmt::Write;
use std::path::Path;

use super::programs::{self, Client};
use super::{FORMS, STAR, further};
use crate::support::programs::skipped;

/// A list of clients, and its place in the page.
pub(super) struct Set {
    pub(super) clients: &'static [Client],
    /// The line before its tables.
    start: &'static str,
    end: &'static str,
    /// What installs its clients.
    installed_by: &'static str,
}

pub(super) const CORE: Set = Set {
    clients: programs::CLIENTS,
    start: "<!-- A test writes these tables: OUTRIDER_WRITE_DOCS=1 cargo test --test tests client_matrix -->",
    end: "<!-- end of these tables -->",
    installed_by: "tests/run --tools",
};

pub(super) const FURTHER: Set = Set {
    clients: further::CLIENTS,
    start: "<!-- A test writes these tables: OUTRIDER_WRITE_DOCS=1 tests/run --all-clients -->",
    end: "<!-- end of the wider tables -->",
    installed_by: "tests/run --all-clients",
};

/// The columns of the first table between the version and the note.
const COLUMNS: [&str; 5] = ["plain", "upgrade", "tunnel", "intercept", "refused"];

/// What one client did.
pub(super) struct Row {
    pub(super) client: &'static Client,
    pub(super) version: String,
    pub(super) cells: Vec<String>,
    pub(super) forms: Vec<String>,
    pub(super) output: String,
    /// Why it cannot run.
    pub(super) missing: Option<String>,
}

impl Row {
    pub(super) fn new(client: &'static Client) -> Self {
        Self {
            client,
            version: String::new(),
            cells: Vec::new(),
            forms: Vec::new(),
            output: String::new(),
            missing: None,
        }
    }

    /// Whether its reading of NO_PROXY says anything: a client that never asks the proxy passes it always.
    pub(super) fn has_forms(&self) -> bool {
        !self.forms.is_empty() && self.cells[0] == "ok"
    }

    /// What is in the columns. A table with one for each question is wider than what a browser shows of it.
    fn columns(&self) -> Vec<String> {
        let (asked, refused) = self.cells.split_at(4);
        let mut refused = refused.to_vec();
        refused.dedup();
        asked.iter().cloned().chain([refused.join(" / ")]).collect()
    }

    /// Compares the row with both tables of its part of the page.
    fn differences(&self, part: &str) -> Vec<String> {
        if self.missing.is_some() {
            return Vec::new();
        }
        let name = self.client.name;
        let lines: Vec<Vec<&str>> = part
            .lines()
            .filter(|line| line.starts_with(&format!("| {name} | ")))
            .map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
            .collect();
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: Option<&str>, seen: &str| {
            if expected != Some(seen) {
                found.push(format!(
                    "{name}, {what}: expected {expected:?}, seen {seen:?}\n{}",
                    self.output
                ));
            }
        };
        let cell = |table: usize, at: usize| lines.get(table).and_then(|line| line.get(at)).copied();
        for (at, (what, seen)) in COLUMNS.iter().zip(self.columns()).enumerate() {
            compare(what, cell(0, at + 2), &seen);
        }
        let note = cell(0, COLUMNS.len() + 2).and_then(|number| {
            let mut lines = part.lines();
            lines.find_map(|line| line.strip_prefix(&format!("{number}. ")))
        });
        compare("note", Some(note.unwrap_or_default()), self.client.remedy);
        let forms: &[String] = if self.has_forms() { &self.forms } else { &[] };
        let named = FORMS.iter().map(|(name, ..)| *name).chain([STAR.0]);
        for (at, (what, seen)) in named.zip(forms).enumerate() {
            compare(what, cell(1, at + 1), seen);
        }
        found
    }
}

/// Compares each row with the page, or writes the page where OUTRIDER_WRITE_DOCS is set.
pub(super) fn compare(set: &Set, rows: &[Row]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = page.split_once(set.start).expect("the page has the first mark");
    let (part, tail) = rest.split_once(set.end).expect("the page has the second mark");
    let missing: Vec<_> = rows.iter().filter_map(|row| row.missing.as_deref()).collect();
    for why in &missing {
        skipped(&format!("not run: {why}; {} installs it", set.installed_by));
    }
    assert!(
        missing.is_empty() || std::env::var_os("CI").is_none(),
        "clients are missing: {missing:#?}"
    );
    let failed: Vec<&Row> = (rows.iter())
        .filter(|row| {
            row.cells
                .iter()
                .chain(&row.forms)
                .any(|cell| cell == "**failed**")
        })
        .collect();
    for row in &failed {
        let Row { cells, forms, .. } = row;
        println!("{}: {cells:?} {forms:?}\n{}", row.client.name, row.output);
    }
    assert!(
        failed.is_empty(),
        "neither the proxy nor the host was asked, so these clients failed otherwise: {:?}",
        failed.iter().map(|row| row.client.name).collect::<Vec<_>>()
    );
    if std::env::var_os("OUTRIDER_WRITE_DOCS").is_some() {
        assert!(missing.is_empty(), "the page wants every client: {missing:#?}");
        let text = format!("{head}{}\n\n{}\n{}{tail}", set.start, tables(rows), set.end);
        return std::fs::write(&file, text).unwrap();
    }
    // Another Debian has other clients; those of PyPI and npm are pinned.
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_twelve = release.contains("VERSION_ID=\"12\"");
    let (pinned, others): (Vec<_>, Vec<_>) =
        (rows.iter()).partition(|row| is_twelve || row.client.command.starts_with("@TOOLS@"));
    for difference in others.iter().flat_map(|row| row.differences(part)) {
        skipped(&format!(
            "on this Debian otherwise: {}",
            difference.lines().next().unwrap()
        ));
    }
    let differences: Vec<String> = pinned.iter().flat_map(|row| row.differences(part)).collect();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    let names = part
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| client") && !line.starts_with("| ---"));
    for line in names {
        let name = line.split(" | ").next().unwrap().trim_start_matches("| ");
        assert!(
            set.clients.iter().any(|client| client.name == name),
            "docs/clients.md has {name}, which no test runs"
        );
    }
}

/// Writes both tables, and the notes between them.
fn tables(rows: &[Row]) -> String {
    let columns = COLUMNS.join(" | ");
    let mut text = format!(
        "| client | version | {columns} | note |\n|{}",
        " --- |".repeat(COLUMNS.len() + 3)
    );
    let mut notes: Vec<&str> = Vec::new();
    for row in rows {
        let (client, version) = (row.client, &row.version);
        let number = match client.remedy {
            "" => "–".to_owned(),
            remedy => {
                let at = notes.iter().position(|note| *note == remedy).unwrap_or_else(|| {
                    notes.push(remedy);
                    notes.len() - 1
                });
                (at + 1).to_string()
            }
        };
        let cells = row.columns().join(" | ");
        write!(text, "\n| {} | {version} | {cells} | {number} |", client.name).unwrap();
    }
    text.push_str("\n\nNotes:\n");
    for (at, note) in notes.iter().enumerate() {
        write!(text, "\n{}. {note}", at + 1).unwrap();
    }
    text.push_str("\n\nNO_PROXY: ● = the entry takes a request past the proxy; · = it does not. The entries, by column:\n");
    let named: Vec<_> = FORMS.iter().map(|(name, ..)| *name).chain([STAR.0]).collect();
    for (at, name) in named.iter().enumerate() {
        write!(text, "\n{}. {name}", at + 1).unwrap();
    }
    text.push_str("\n\n| client |");
    (1..=named.len()).for_each(|number| write!(text, " {number} |").unwrap());
    write!(text, "\n|{}", " --- |".repeat(named.len() + 1)).unwrap();
    for row in rows.iter().filter(|row| row.has_forms()) {
        write!(text, "\n| {} | {} |", row.client.name, row.forms.join(" | ")).unwrap();
    }
    text.push('\n');
    text
}
