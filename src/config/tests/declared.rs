//! What is declared of each key is what the decoder does.

use super::*;
use crate::config::declare::{Declaration, Status, Table, ValueKind};

/// The defaults of the tables are what the decoder fills in.
#[test]
fn a_default_that_is_written_changes_nothing() {
    fn defaults(table: Table) -> String {
        let written = |key: &&Declaration| matches!(key.status, Status::Works) && !key.default.is_empty();
        let value = |key: &Declaration| match key.kind {
            ValueKind::Table(table) => defaults(table),
            _ => key.default.to_owned(),
        };
        let entries = table
            .iter()
            .filter(written)
            .map(|key| format!("{}: {}", key.name, value(key)));
        format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
    }
    let shown = |text: &str| {
        let config = parse(text).map_err(|problems| problems.to_string()).unwrap();
        format!(
            "{:#?}",
            Config {
                locations: Locations::default(),
                ..config
            }
        )
    };
    assert_eq!(shown(&defaults(Config::KEYS)), shown("drain: 8s"));

    let keys = defaults(DestinationKeys::KEYS).replacen('{', "{ hosts: [a.test], ", 1);
    let written = shown(&format!("destinations: {{ d: {keys} }}"));
    assert_eq!(written, shown("destinations: { d: { hosts: [a.test] } }"));
}

/// A key of the language: the steps to it, and what the tables say about it.
struct Place {
    steps: Vec<String>,
    key: &'static Declaration,
}

/// Where a key stands, as problems name it.
fn path(steps: &[String]) -> String {
    steps.join(".").replace(".[0]", "[0]")
}

/// A file in which nothing but this value stands.
fn document(steps: &[String], value: &str) -> String {
    steps
        .iter()
        .rev()
        .fold(value.to_owned(), |inner, step| match step.as_str() {
            "[0]" => format!("[{inner}]"),
            key => format!("{{ {key}: {inner} }}"),
        })
}

/// Every key of the tables, wherever it can stand.
fn places() -> Vec<Place> {
    fn of_table(table: Table, steps: &[String], found: &mut Vec<Place>) {
        for key in table {
            let steps = [steps, &[key.name.to_owned()]].concat();
            of_kind(&key.kind, &steps, found);
            found.push(Place { steps, key });
        }
    }
    fn of_kind(kind: &ValueKind, steps: &[String], found: &mut Vec<Place>) {
        let below = |step: &str| [steps, &[step.to_owned()]].concat();
        match kind {
            ValueKind::Any(kinds) => kinds.iter().for_each(|kind| of_kind(kind, steps, found)),
            ValueKind::Filled(kind) | ValueKind::List(kind) => of_kind(kind, &below("[0]"), found),
            ValueKind::Named(_, kind) => of_kind(kind, &below("name"), found),
            ValueKind::OneOf(table) | ValueKind::Table(table) => of_table(table, steps, found),
            ValueKind::Address
            | ValueKind::Boolean
            | ValueKind::Choice(_)
            | ValueKind::Duration
            | ValueKind::Json
            | ValueKind::Literal(_)
            | ValueKind::Number(..) => {}
            ValueKind::Rate | ValueKind::Secret | ValueKind::Size | ValueKind::Text | ValueKind::Value => {}
        }
    }
    let mut found = Vec::new();
    of_table(Config::KEYS, &[], &mut found);
    found
}

/// Holds tables and decoder together: what the decoder does not take, it cannot complain about.
#[test]
fn every_key_that_works_is_taken() {
    let works: Vec<_> = places()
        .into_iter()
        .filter(|place| matches!(place.key.status, Status::Works))
        .collect();
    assert!(works.len() > 70, "{}", works.len());
    for place in works {
        let path = path(&place.steps);
        let problems = parse(&document(&place.steps, "[[]]")).map(drop).unwrap_err();
        let noticed = |problem: &Problem| problem.path == path || problem.path == format!("{path}[0]");
        assert!(
            problems.all.iter().any(noticed),
            "nonsense at {path} goes unnoticed:\n{problems}"
        );
    }
}

#[test]
fn every_key_that_does_not_work_yet_says_so_unless_it_is_off() {
    let mut seen = 0;
    for place in places() {
        let Status::Later(off) = place.key.status else {
            continue;
        };
        seen += 1;
        let path = path(&place.steps);
        let told = |value: &str| {
            let problems =
                parse(&document(&place.steps, value)).map_or_else(|problems| problems.all, |_| Vec::new());
            problems
                .into_iter()
                .find(|problem| problem.path == path)
                .map(|problem| problem.what)
        };
        for value in ["1", "{ a: 1 }", "[1]"] {
            assert_eq!(
                told(value).as_deref(),
                Some("does not work yet in this version"),
                "{path}: {value}"
            );
        }
        for value in off {
            assert_eq!(told(value), None, "{path}: {value}");
        }
    }
    assert!(seen > 2, "{seen}");
}

/// A new key cannot forget what follows from it.
#[test]
fn every_key_of_a_destination_says_what_it_implies() {
    for key in DestinationKeys::KEYS.iter().filter(|key| key.works()) {
        assert!(
            key.marks.is_some(),
            "{}: add [Mark, …] or [] to its line",
            key.name
        );
    }
}

#[test]
fn required_keys_are_missed() {
    for place in places().into_iter().filter(|place| place.key.required.is_some()) {
        let (_, steps) = place.steps.split_last().unwrap();
        let problems = parse(&document(steps, "{}")).map(drop).unwrap_err();
        let what = format!("`{}` is missing", place.key.name);
        let missed = |problem: &Problem| problem.path == path(steps) && problem.what == what;
        assert!(
            problems.all.iter().any(missed),
            "{what} at {}:\n{problems}",
            path(steps)
        );
    }
}
