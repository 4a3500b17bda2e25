//! The figures as text: the failing cells for a person at a terminal, all of them for `docs/limits.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::client::Demand;
use super::{Cell, Outcome, Tally};

const HEAD: &str = "\
| service | it tells | of alone | of what it is told | of the ideal | refused of a first burst | refused alone | with outrider | refused by outrider | longer silence |
| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |
";

/// Returns the name of a cell in the list of failing ones.
pub(super) fn name(cell: &Cell) -> String {
    format!(
        "{:<30} {:<26} {:<14} {:>6} {:<6} {:<4}",
        cell.model.name(),
        cell.reporting.name(),
        cell.limit.name,
        cell.demand.name(),
        if cell.waits { "wait" } else { "reject" },
        if cell.many_routes { "many" } else { "one" },
    )
}

/// The same with one space between the words.
pub(super) fn words(cell: &Cell) -> String {
    let name = name(cell);
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The failing cells, one a line, and how many there are of each model.
pub(super) fn failing(outcomes: &[&Outcome], all: usize) -> String {
    let mut text = format!(
        "{:<91} {:>5} {:>6} {:>5}  {:>11} {:>5} {:>13} {:>6}\n",
        "service, what it tells, limit, demand, on_limit, routes",
        "alone",
        "passed",
        "share",
        "refused/al.",
        "own",
        "silence/alone",
        "owed"
    );
    for outcome in outcomes {
        let Outcome {
            cell, alone, beside, ..
        } = outcome;
        let silence = |tally: &Tally| tally.silence(cell.limit.duration) as f64 / 1000.0;
        let _ = writeln!(
            text,
            "{} {:>5} {:>6} {:>5.2}{} {:>5}/{:<5}{}{:>5} {:>6.1}/{:<6.1} {:>6}",
            name(cell),
            alone.passed(),
            beside.passed(),
            outcome.kept(),
            if outcome.is_below_the_floor() { "!" } else { " " },
            beside.refused,
            alone.refused,
            if outcome.is_refused_more() { "!" } else { " " },
            beside.own,
            silence(beside),
            silence(alone),
            outcome.owed(),
        );
    }
    let _ = writeln!(text, "\n{} of {all} cells fail:", outcomes.len());
    for group in outcomes.chunk_by(|one, other| one.cell.model == other.cell.model) {
        let name = group[0].cell.model.name();
        let _ = writeln!(text, "{:>5}  {name}", group.len());
    }
    text
}

/// Returns the table: a row for each model and what it reports, with the worst of its cells.
pub(super) fn rows(outcomes: &[Outcome]) -> String {
    let mut text = String::from(HEAD);
    let row = |outcome: &Outcome| (outcome.cell.model.name(), outcome.cell.reporting.row());
    for group in outcomes.chunk_by(|one, other| row(one) == row(other)) {
        let (model, reporting) = row(&group[0]);
        let least = |figure: fn(&Outcome) -> f64| {
            let least = group.iter().map(figure).fold(f64::INFINITY, f64::min);
            (least * 100.0).round() as u64
        };
        let sum = |figure: fn(&Outcome) -> u64| group.iter().map(figure).sum::<u64>();
        let silence = |outcome: &Outcome| {
            let end = outcome.cell.limit.duration;
            outcome
                .beside
                .silence(end)
                .saturating_sub(outcome.alone.silence(end))
        };
        let first = group
            .iter()
            .filter(|outcome| outcome.cell.demand == Demand::First);
        let first = first.map(|outcome| outcome.beside.refused).max();
        let _ = writeln!(
            text,
            "| {model} | {reporting} | {} % | {} % | {} % | {} | {} | {} | {} | {} s |",
            least(Outcome::share),
            least(Outcome::kept),
            least(|outcome| outcome.beside.passed() as f64 / outcome.ideal.max(1) as f64),
            first.unwrap_or_default(),
            sum(|outcome| outcome.alone.refused),
            sum(|outcome| outcome.beside.refused),
            sum(|outcome| outcome.beside.own),
            group.iter().map(silence).max().unwrap_or_default().div_ceil(1000),
        );
    }
    text
}

/// Writes the table where `OUTRIDER_WRITE_DOCS` is set; fails where the document has another.
pub(super) fn compare_or_write(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN_MARK).unwrap();
    let (old, after) = rest.split_once(END_MARK).unwrap();
    if old.trim() == table.trim() {
        return;
    }
    assert!(
        std::env::var_os("OUTRIDER_WRITE_DOCS").is_some(),
        "docs/limits.md has another table; OUTRIDER_WRITE_DOCS=1 writes this one:\n{table}"
    );
    let text = format!("{before}{BEGIN_MARK}\n{table}{END_MARK}{after}");
    fs::write(&path, text).unwrap();
}

const BEGIN_MARK: &str = "<!-- begin: simulation -->";
const END_MARK: &str = "<!-- end: simulation -->";
