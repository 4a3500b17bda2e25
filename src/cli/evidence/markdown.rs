//! Evidence as Markdown: one table a control, and first of all what is not met.

use std::fmt::Write as _;

use super::Report;
use super::facts::{Control, Fact, FactProof, Standing, code};

/// How the words are meant.
const WORDS: &str = "\
Every statement is about this configuration and this build, and about what goes through outrider; a control is never met by it \
alone. *met*: it holds, and the last column says what proves it. *gap*: it does not hold, or an exception is open that somebody \
has to justify. *not known*: it cannot be told from here. *note*: neither, and worth knowing.
";

/// Writes the whole document.
pub(super) fn write(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "# Evidence about {} for NIST SP 800-53, revision 5\n",
        code(&report.name)
    );
    let _ = writeln!(
        text,
        "Written by `outrider evidence`. Do not edit: change the configuration, and write it again.\n"
    );
    let _ = writeln!(text, "{WORDS}");
    let _ = writeln!(text, "| about | |\n| --- | --- |");
    for (what, value) in &report.origin {
        let _ = writeln!(text, "| {what} | {} |", cell(&code(value)));
    }
    let _ = writeln!(text, "| last modified | {} |", code(&report.date()));
    let prepared = report.prepared_by.as_deref();
    let prepared = prepared.map_or_else(|| "not told (`--prepared-by`)".to_owned(), code);
    let _ = writeln!(text, "| prepared by | {} |\n", cell(&prepared));
    overview(report, &mut text);
    gaps(report, &mut text);
    for control in &report.controls {
        table(control, report.file_name(), &mut text);
    }
    while text.ends_with("\n\n") {
        text.pop();
    }
    text
}

/// Adds how many statements each control has.
fn overview(report: &Report, text: &mut String) {
    let _ = writeln!(text, "## Overview\n\n| control | met | gap | not known | note |");
    let _ = writeln!(text, "| --- | --: | --: | --: | --: |");
    for control in &report.controls {
        let [met, gap, unknown, note] = [Standing::Met, Standing::Gap, Standing::Unknown, Standing::Note]
            .map(|standing| control.count(standing));
        let _ = writeln!(
            text,
            "| [{} {}](#{}) | {met} | {gap} | {unknown} | {note} |",
            control.label(),
            control.title,
            anchor(control)
        );
    }
    text.push('\n');
}

/// Returns the anchor of a control's heading, as GitHub and GitLab make it.
fn anchor(control: &Control) -> String {
    format!("{} {}", control.id, control.title)
        .to_lowercase()
        .replace(' ', "-")
}

/// Adds what is not met, of all controls.
fn gaps(report: &Report, text: &mut String) {
    text.push_str("## What is not met\n\n");
    let all = report.controls.iter().flat_map(|control| {
        let gaps = control.facts.iter().filter(|fact| fact.standing == Standing::Gap);
        gaps.map(|fact| format!("- **{}** {}\n", control.label(), fact.sentence()))
    });
    let mut told: Vec<String> = Vec::new();
    for gap in all {
        // Several parts of a control may have the same.
        if !told.contains(&gap) {
            text.push_str(&gap);
            told.push(gap);
        }
    }
    if told.is_empty() {
        text.push_str("Nothing, of what outrider can tell.\n");
    }
    text.push('\n');
}

fn table(control: &Control, file: &str, text: &mut String) {
    let _ = writeln!(text, "## {} {}\n", control.label(), control.title);
    let _ = writeln!(text, "Left to the rest of the system: {}\n", control.left);
    let _ = writeln!(text, "| part | | statement | proof |\n| --- | --- | --- | --- |");
    for fact in &control.facts {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            part(fact),
            word(fact.standing),
            cell(&fact.sentence()),
            cell(&proofs(fact, file))
        );
    }
    text.push('\n');
}

/// Returns the letter of the part; nothing where the control is one sentence.
fn part(fact: &Fact) -> &str {
    fact.part.split_once("_smt.").map_or("", |(_, part)| part)
}

fn word(standing: Standing) -> String {
    let word = standing.word();
    match standing {
        Standing::Gap => format!("**{word}**"),
        Standing::Met | Standing::Note | Standing::Unknown => word.to_owned(),
    }
}

/// Returns what proves a fact, in one line.
pub(super) fn proofs(fact: &Fact, file: &str) -> String {
    let all: Vec<_> = fact.proofs.iter().map(|proof| shown(proof, file)).collect();
    all.join("; ")
}

fn shown(proof: &FactProof, file: &str) -> String {
    match proof {
        FactProof::Always(page) => format!("every build ({page})"),
        FactProof::Build(command) => code(command),
        FactProof::LogField(field) => format!("log field {}", code(field)),
        FactProof::Metric(metric) => format!("metric {}", code(metric)),
        FactProof::Read(reference) => format!("read from {}", code(reference)),
        FactProof::Setting(path, Some(line)) => format!("{} ({file}:{line})", code(path)),
        FactProof::Setting(path, None) => format!("{} (default)", code(path)),
    }
}

/// Returns a text that stays in its cell: a `|` ends one, in a code span, too.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
