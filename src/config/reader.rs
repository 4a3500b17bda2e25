//! Takes values out of the tree and files what is wrong with them.
//!
//! A [`Reader`] stands on one mapping and knows its [`Table`]: making one finds every unknown key and every key
//! that does not work yet, so a key is never ignored. A [`Field`] is one value; turning it into a type either
//! succeeds or files a problem at its place and gives `None`, so that decoding goes on and every problem is told at
//! once. Whoever decodes fills in anything for a `None`: where a problem is filed, the whole result is discarded.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use super::keys::{Key, Status, Table};
use super::node::{Entry, Node, Value, join, shown};
use super::{Environment, Problem, SecretRef, keys, problems};
use crate::units;

/// What all readers of one file share.
pub(super) struct Decoding<'a> {
    pub(super) environment: Environment<'a>,
    pub(super) problems: RefCell<Vec<Problem>>,
}

/// One mapping.
pub(super) struct Reader<'a> {
    entries: &'a [Entry],
    table: Table,
    whole: Field<'a>,
}

/// One value, and where it stands.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) decoding: &'a Decoding<'a>,
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> Reader<'a> {
    /// The value of a key that works, if it is written.
    pub(super) fn take(&self, name: &str) -> Option<Field<'a>> {
        debug_assert!(
            self.table
                .iter()
                .any(|key| key.name == name && matches!(key.status, Status::Works)),
            "{name} is taken but stands in no table"
        );
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(self.whole.below(&entry.key, &entry.node))
    }

    /// The mapping after a key. One that is not written, or is nothing but comments, is as good as one without
    /// keys.
    pub(super) fn section(&self, name: &str, table: Table) -> Self {
        let field = self.take(name).filter(|field| !field.node.is_null());
        let empty = || Self {
            entries: &[],
            table,
            whole: self.whole.clone(),
        };
        field.and_then(|field| field.reader(table)).unwrap_or_else(empty)
    }

    pub(super) fn environment(&self) -> Environment<'a> {
        self.whole.decoding.environment
    }

    /// The value of a key that has to be written.
    pub(super) fn need(&self, name: &str, right: &str) -> Option<Field<'a>> {
        debug_assert!(
            self.table.iter().any(|key| key.name == name && key.required),
            "{name} is needed"
        );
        let field = self.take(name);
        if field.is_none() {
            self.problem(&format!("`{name}` is missing"), right);
        }
        field
    }

    /// Files a problem with the mapping as a whole.
    pub(super) fn problem(&self, what: &str, right: &str) {
        self.whole.problem(what, right);
    }

    /// Whether a key is written that does not work, or none of the table.
    pub(super) fn has_told(&self) -> bool {
        self.entries.len() > self.written().count()
    }

    /// The keys that are written and work, in the order of the file.
    pub(super) fn written(&self) -> impl Iterator<Item = &'a str> {
        let works = |entry: &&Entry| {
            self.table
                .iter()
                .any(|key| key.name == entry.key && matches!(key.status, Status::Works))
        };
        self.entries.iter().filter(works).map(|entry| entry.key.as_str())
    }

    /// Files a problem for each key that is unknown or does not work yet.
    fn inspect(&self) {
        for entry in self.entries {
            if self.whole.decoding.is_full() {
                return;
            }
            match self.table.iter().find(|key| key.name == entry.key) {
                Some(Key {
                    status: Status::Works,
                    ..
                }) => {}
                Some(Key {
                    status: Status::Later(off),
                    ..
                }) => {
                    if !off.contains(&flow(&entry.node).as_str()) {
                        self.at_key(entry, "does not work yet in this version", &without(off));
                    }
                }
                None => self.at_key(entry, "no such key", &meant(&entry.key, self.table)),
            }
        }
    }

    fn at_key(&self, entry: &Entry, what: &str, right: &str) {
        let path = join(&self.whole.path, &entry.key);
        self.whole.decoding.file(path, entry.at, what, right);
    }
}

impl<'a> Field<'a> {
    /// Files a problem at this value.
    pub(super) fn problem(&self, what: impl Display, right: impl Display) {
        self.decoding.file(self.path.clone(), self.node.at, what, right);
    }

    /// A mapping whose keys are in `table`.
    pub(super) fn reader(self, table: Table) -> Option<Reader<'a>> {
        let Value::Map(entries) = &self.node.value else {
            let names: Vec<_> = works(table).collect();
            self.problem(
                "has to be a mapping",
                format!("write keys below it: {}", names.join(", ")),
            );
            return None;
        };
        let reader = Reader {
            entries,
            table,
            whole: self,
        };
        reader.inspect();
        Some(reader)
    }

    /// A mapping from names that the user chooses.
    pub(super) fn named(self) -> Vec<(&'a Entry, Self)> {
        match &self.node.value {
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry, self.below(&entry.key, &entry.node)))
                .collect(),
            Value::Scalar { .. } if self.node.is_null() => Vec::new(),
            Value::Scalar { .. } | Value::List(_) => {
                self.problem("has to be a mapping", "write `name: value` below it");
                Vec::new()
            }
        }
    }

    /// The values of a list.
    pub(super) fn list(self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else {
            self.problem("has to be a list", "write [A, B], or a line `- A` for each");
            return None;
        };
        let item = |(i, node)| Self {
            node,
            path: format!("{}[{i}]", self.path),
            ..self.clone()
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The values of a list that must not be empty; `right` says what to do instead.
    pub(super) fn filled_list(self, right: &str) -> Option<Vec<Self>> {
        let items = self.clone().list()?;
        if items.is_empty() {
            self.problem("an empty list", right);
            return None;
        }
        Some(items)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The text of a scalar, quoted or not, if it is one.
    pub(super) fn scalar(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// A scalar without quotes.
    pub(super) fn plain(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// A text; `right` says what is wanted where there is none.
    pub(super) fn text(&self, right: &str) -> Option<&'a str> {
        let text = self.scalar();
        if text.is_none() {
            self.problem(
                format_args!("has to be a text, but is {}", self.node.kind()),
                right,
            );
        }
        text
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self.plain() {
            Some("true" | "True" | "TRUE") => Some(true),
            Some("false" | "False" | "FALSE") => Some(false),
            _ => {
                self.problem("has to be true or false", "write true or false, without quotes");
                None
            }
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::Scalar { .. } => self.node.is_null(),
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// A whole number from `least` to `most`; `wanted` says what is wanted, as in `a number`.
    pub(super) fn number<N: TryFrom<u64>>(self, least: u64, most: u64, wanted: &str) -> Option<N> {
        let digits = self
            .plain()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number: Option<u64> = digits.and_then(|text| text.parse().ok());
        let number = number
            .filter(|number| (least..=most).contains(number))
            .and_then(|n| n.try_into().ok());
        if number.is_none() {
            let what = format_args!("has to be {wanted} from {least} to {most}");
            self.problem(what, "write it in digits, without quotes");
        }
        number
    }

    pub(super) fn duration(self) -> Option<Duration> {
        let text = self.text("write a number and a unit, as in 500ms, 10s, 5m, 1h or 7d")?;
        self.kept(text, units::parse_duration(text))
    }

    /// A duration that a wait can have.
    pub(super) fn positive_duration(self) -> Option<Duration> {
        let duration = self.clone().duration()?;
        if duration.is_zero() {
            self.problem("no time at all", "write a longer one, as in 5s");
            return None;
        }
        Some(duration)
    }

    /// A size in bytes within a range, whose ends are given as the configuration writes them.
    pub(super) fn size(self, least: &str, most: &str) -> Option<u64> {
        let text = self.text("write a number and a unit, as in 64KiB or 1MiB")?;
        let size = self.kept(text, units::parse_size(text))?;
        let within = |end: &str, ordering: std::cmp::Ordering| {
            units::parse_size(end).is_ok_and(|end| size.cmp(&end) != ordering)
        };
        if within(least, std::cmp::Ordering::Less) && within(most, std::cmp::Ordering::Greater) {
            return Some(size);
        }
        self.problem(
            format_args!("`{}` is out of range", shown(text)),
            format_args!("write a size from {least} to {most}"),
        );
        None
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let right = format!("write {}", one_of(&words));
        let text = self.text(&right)?;
        let chosen = choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if chosen.is_none() {
            self.problem(format_args!("`{}` is not one of the choices", shown(text)), right);
        }
        chosen
    }

    /// A reference to a secret. What stands there is not repeated: it may be the secret.
    pub(super) fn secret(self) -> Option<SecretRef> {
        let Some(text) = self.scalar() else {
            self.problem(
                format_args!("has to be a reference, but is {}", self.node.kind()),
                REFERENCE,
            );
            return None;
        };
        match SecretRef::parse(text, self.decoding.environment) {
            Some(Ok(reference)) => Some(reference),
            Some(Err(error)) => {
                self.problem(&error, error.right());
                None
            }
            None => {
                self.problem("a plain value where a reference belongs", REFERENCE);
                None
            }
        }
    }

    /// Keeps the value, or files the error, which shows the text that it is about. The error says what is wrong
    /// before a semicolon and what would be right after it.
    pub(super) fn kept<T, E: Display>(&self, text: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| {
                let error = error.to_string();
                let (what, right) = error.split_once("; ").unwrap_or((&error, ""));
                self.problem(format_args!("`{}` is {what}", shown(text)), right);
            })
            .ok()
    }

    fn below(&self, key: &str, node: &'a Node) -> Self {
        Self {
            decoding: self.decoding,
            node,
            path: join(&self.path, key),
        }
    }
}

impl Decoding<'_> {
    /// Whether as much is wrong as anybody wants to read.
    fn is_full(&self) -> bool {
        self.problems.borrow().len() >= problems::MOST
    }

    fn file(&self, path: String, at: (usize, usize), what: impl Display, right: impl Display) {
        if self.is_full() {
            return;
        }
        let problem = Problem {
            path,
            at: Some(at),
            what: what.to_string(),
            right: right.to_string(),
        };
        self.problems.borrow_mut().push(problem);
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [words @ .., last] => format!("{} or {last}", words.join(", ")),
    }
}

/// A value on one line, to compare it with what a table writes.
fn flow(node: &Node) -> String {
    match &node.value {
        Value::Scalar { .. } if node.is_null() => "null".to_owned(),
        Value::Scalar { text, .. } => text.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entry = |entry: &Entry| format!("{}: {}", entry.key, flow(&entry.node));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// What to write instead of a key that does not work yet.
fn without(off: &[&str]) -> String {
    match off {
        [] => "remove it".to_owned(),
        off => format!("remove it, or write {}", one_of(off)),
    }
}

/// What whoever wrote an unknown key probably meant.
fn meant(key: &str, table: Table) -> String {
    let plain = |key: &str| key.to_ascii_lowercase().replace('-', "_");
    let near = |name: &str| strsim::jaro_winkler(&plain(key), name);
    let nearest = (works(table)).max_by(|a, b| near(a).total_cmp(&near(b)));
    let nearest = nearest.filter(|name| near(name) >= NEAR);
    // Most keys are a destination's, and so are most of those that are written in the wrong place.
    let place = place_of(&plain(key), keys::DESTINATION, "destinations.NAME");
    let place = place.or_else(|| place_of(&plain(key), keys::ROOT, ""));
    match (nearest, place) {
        (Some(nearest), place) if place.is_none() || nearest == plain(key) => {
            format!("did you mean `{nearest}`?")
        }
        (_, Some(place)) => format!("`{key}` belongs under `{place}`", key = plain(key)),
        (_, None) => format!(
            "the keys here are {}",
            works(table).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The mapping that has a key of this name.
fn place_of(name: &str, table: Table, path: &str) -> Option<String> {
    if works(table).any(|key| key == name) {
        return Some(if path.is_empty() {
            "the top level".to_owned()
        } else {
            path.to_owned()
        });
    }
    table.iter().find_map(|key| {
        let path = join(path, key.name);
        match &key.kind {
            keys::Kind::Table(table) | keys::Kind::OneOf(table) => place_of(name, table, &path),
            keys::Kind::Named(_, keys::Kind::Table(table)) => place_of(name, table, &join(&path, "NAME")),
            _ => None,
        }
    })
}

fn works(table: Table) -> impl Iterator<Item = &'static str> {
    table
        .iter()
        .filter(|key| matches!(key.status, Status::Works))
        .map(|key| key.name)
}

/// What would be right where a secret belongs.
pub(super) const REFERENCE: &str = "write env:NAME, file:PATH or vcap:SERVICE/KEY";

/// Jaro-Winkler similarity from which a key counts as misspelt.
const NEAR: f64 = 0.8;
