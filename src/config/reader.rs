//! Takes values out of the tree and files what is wrong with them.
//!
//! A [`SectionReader`] reads one mapping and knows its [`Table`]: making one finds every unknown key and every key that does not
//! work yet, so a key is never ignored. A [`Located`] is one value and its place; turning it into a type either succeeds
//! or files a problem there and gives `None`. Decoding goes on after that, so that all problems are reported at once.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::declare::{Declaration, Section as _, Status, Syntax, Table, ValueKind};
use super::node::{Content, MapEntry, Node, join, shown};
use super::{Config, DestinationKeys, Environment, PathBuf, Problem, SecretRef, problems};
use crate::units;

/// What would be right where a secret belongs.
pub(super) const REFERENCE: &str = "write env:NAME, file:PATH or vcap:SERVICE/KEY";

/// The Jaro-Winkler similarity from which a key counts as misspelt.
const NEAR: f64 = 0.8;

/// The units of a size, largest first.
const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];

/// What all readers of one file share.
pub(super) struct Decoding<'a> {
    pub(super) environment: Environment<'a>,
    pub(super) problems: RefCell<Vec<Problem>>,
}

/// One mapping.
pub(super) struct SectionReader<'a> {
    entries: &'a [MapEntry],
    table: Table,
    whole: Located<'a>,
}

/// One value and its place.
#[derive(Clone)]
pub(super) struct Located<'a> {
    pub(super) decoding: &'a Decoding<'a>,
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> SectionReader<'a> {
    /// Reads a key, or `default` where it is not written. A mapping of which every line is commented out is as good
    /// as one that is not written.
    pub(super) fn or<S: Syntax>(&self, name: &str, default: &'static str) -> Option<S::Value> {
        let written = self.take(name);
        if let Some(written) = written.filter(|written| default != "{}" || !written.is_null()) {
            return S::read(written);
        }
        // The defaults are ours, and a test reads each of them.
        let node = Node::of_default(default)?;
        S::read(Located {
            decoding: self.whole.decoding,
            node: &node,
            path: join(&self.whole.path, name),
        })
    }

    /// Reads a key that need not be written.
    pub(super) fn optional<S: Syntax, T: Unwritten<S::Value>>(&self, name: &str) -> Option<T> {
        let value = self.take(name).map(S::read);
        value.map_or(Some(None), |value| value.map(Some)).map(T::of)
    }

    /// Reads a key that has to be written.
    pub(super) fn required<S: Syntax>(&self, name: &str, right: &str) -> Option<S::Value> {
        self.need(name, right).and_then(S::read)
    }

    /// Returns the value of a key that works, if it is written.
    pub(super) fn take(&self, name: &str) -> Option<Located<'a>> {
        debug_assert!(
            self.table.iter().any(|key| key.name == name && key.works()),
            "{name} is in no table"
        );
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(self.whole.below(&entry.key, &entry.node))
    }

    /// Returns the value of a key that has to be written; `right` says what to write where it is missing.
    pub(super) fn need(&self, name: &str, right: &str) -> Option<Located<'a>> {
        debug_assert!(
            self.table
                .iter()
                .any(|key| key.name == name && key.required.is_some()),
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

    /// Whether a problem was filed for a key: one that does not work yet, or is in no table.
    pub(super) fn has_complained(&self) -> bool {
        self.entries.len() > self.written().count()
    }

    /// Returns the keys that are written and work, in the order of the file.
    pub(super) fn written(&self) -> impl Iterator<Item = &'a str> {
        let works = |entry: &&MapEntry| self.table.iter().any(|key| key.name == entry.key && key.works());
        self.entries.iter().filter(works).map(|entry| entry.key.as_str())
    }

    /// Files a problem for each key that is unknown or does not work yet.
    fn inspect(&self) {
        for entry in self.entries {
            if self.whole.decoding.is_full() {
                return;
            }
            match self.table.iter().find(|key| key.name == entry.key) {
                Some(Declaration {
                    status: Status::Works,
                    ..
                }) => {}
                Some(Declaration {
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

    fn at_key(&self, entry: &MapEntry, what: &str, right: &str) {
        let path = join(&self.whole.path, &entry.key);
        self.whole.decoding.file(path, entry.at, what, right);
    }
}

impl<'a> Located<'a> {
    /// Files a problem at this value.
    pub(super) fn problem(&self, what: impl Display, right: impl Display) {
        self.decoding.file(self.path.clone(), self.node.at, what, right);
    }

    /// Returns a reader of a mapping whose keys are in `table`.
    pub(super) fn reader(self, table: Table) -> Option<SectionReader<'a>> {
        let Content::Map(entries) = &self.node.value else {
            let names: Vec<_> = works(table).collect();
            self.problem(
                "has to be a mapping",
                format!("write keys below it: {}", names.join(", ")),
            );
            return None;
        };
        let reader = SectionReader {
            entries,
            table,
            whole: self,
        };
        reader.inspect();
        Some(reader)
    }

    /// Returns the entries of a mapping from names that the user chooses.
    pub(super) fn named(self) -> Option<Vec<(&'a MapEntry, Self)>> {
        match &self.node.value {
            Content::Map(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|entry| (entry, self.below(&entry.key, &entry.node)));
                Some(entries.collect())
            }
            Content::Scalar { .. } if self.node.is_null() => Some(Vec::new()),
            Content::Scalar { .. } | Content::List(_) => {
                self.problem("has to be a mapping", "write `name: value` below it");
                None
            }
        }
    }

    /// Returns the values of a list.
    pub(super) fn list(self) -> Option<Vec<Self>> {
        let Content::List(items) = &self.node.value else {
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

    /// Files a problem at the item of a list that has this index, or at the value where it is no list.
    pub(super) fn problem_at(&self, index: usize, what: impl Display, right: impl Display) {
        let items = if self.is_list() { self.clone().list() } else { None };
        let items = items.unwrap_or_default();
        items.get(index).unwrap_or(self).problem(what, right);
    }

    /// Files a problem at each item of a list that is the same as an earlier one.
    pub(super) fn each_once<T: PartialEq>(&self, items: &[T], what: &str, right: &str) {
        for (i, item) in items.iter().enumerate() {
            if items[..i].contains(item) {
                self.problem_at(i, what, right);
            }
        }
    }

    /// Returns the values of a list that must not be empty; `right` says what to do instead.
    pub(super) fn filled_list(self, right: &str) -> Option<Vec<Self>> {
        let items = self.clone().list()?;
        if items.is_empty() {
            self.problem("an empty list", right);
            return None;
        }
        Some(items)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Content::List(_))
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.value, Content::Map(_))
    }

    /// Returns the text of a scalar, quoted or not.
    pub(super) fn scalar(&self) -> Option<&'a str> {
        match &self.node.value {
            Content::Scalar { text, .. } if !self.node.is_null() => Some(text),
            Content::Scalar { .. } | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// Returns the text of a scalar without quotes.
    pub(super) fn plain(&self) -> Option<&'a str> {
        match &self.node.value {
            Content::Scalar { text, plain: true } => Some(text),
            Content::Scalar { .. } | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// Returns the text, or files a problem; `right` says what to write.
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
            Content::Scalar { .. } => self.node.is_null(),
            Content::List(items) => items.is_empty(),
            Content::Map(entries) => entries.is_empty(),
        }
    }

    /// Reads a whole number from `least` to `most`; `wanted` names it, as in `a number`.
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

    /// Reads a duration that is longer than nothing.
    pub(super) fn positive_duration(self) -> Option<Duration> {
        let duration = self.clone().duration()?;
        if duration.is_zero() {
            self.problem("no time at all", "write a longer one, as in 5s");
            return None;
        }
        Some(duration)
    }

    /// Reads a size in bytes from `least` to `most`.
    pub(super) fn size(self, least: u64, most: u64) -> Option<u64> {
        let text = self.text("write a number and a unit, as in 64KiB or 1MiB")?;
        let size = self.kept(text, units::parse_size(text))?;
        if (least..=most).contains(&size) {
            return Some(size);
        }
        self.problem(
            format_args!("`{}` is out of range", shown(text)),
            format_args!("write a size from {} to {}", size_text(least), size_text(most)),
        );
        None
    }

    /// Reads a text that begins like a reference to a secret; `None` where it does not.
    pub(super) fn reference(&self, text: &str) -> Option<Option<SecretRef>> {
        let reference = SecretRef::parse(text, self.decoding.environment)?;
        Some(
            reference
                .map_err(|error| self.problem(&error, error.right()))
                .ok(),
        )
    }

    /// Reads a path, with `$VARS` and `~` expanded.
    pub(super) fn path_of(&self, text: &str) -> Option<PathBuf> {
        let path = self.decoding.environment.expand(text);
        path.map_err(|error| self.problem(&error, error.right())).ok()
    }

    /// Reads one of several words.
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

    /// Reads a reference to a secret. The text is not repeated: it may be the secret.
    pub(super) fn secret(self) -> Option<SecretRef> {
        let Some(text) = self.scalar() else {
            self.problem(
                format_args!("has to be a reference, but is {}", self.node.kind()),
                REFERENCE,
            );
            return None;
        };
        match self.reference(text) {
            Some(reference) => reference,
            None => {
                self.problem("a plain value where a reference belongs", REFERENCE);
                None
            }
        }
    }

    /// Keeps the value, or files the error with the text. The error says what is wrong before a semicolon and what would be
    /// right after it.
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

/// The field of a key that need not be written.
pub(super) trait Unwritten<V> {
    fn of(value: Option<V>) -> Self;
}

impl<V> Unwritten<V> for Option<V> {
    fn of(value: Self) -> Self {
        value
    }
}

impl<V> Unwritten<V> for Option<Arc<V>> {
    fn of(value: Option<V>) -> Self {
        value.map(Arc::new)
    }
}

impl<V> Unwritten<Self> for Vec<V> {
    fn of(value: Option<Self>) -> Self {
        value.unwrap_or_default()
    }
}

impl Decoding<'_> {
    /// Whether as many problems are filed as one report holds.
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

/// Returns a size as the configuration writes it.
fn size_text(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(
        || format!("{bytes}B"),
        |(shift, unit)| format!("{}{unit}", bytes >> shift),
    )
}

/// Returns a value on one line, to compare it with a declared one.
fn flow(node: &Node) -> String {
    match &node.value {
        Content::Scalar { .. } if node.is_null() => "null".to_owned(),
        Content::Scalar { text, .. } => text.clone(),
        Content::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Content::Map(entries) => {
            let entry = |entry: &MapEntry| format!("{}: {}", entry.key, flow(&entry.node));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Returns what to write instead of a key that does not work yet.
fn without(off: &[&str]) -> String {
    match off {
        [] => "remove it".to_owned(),
        off => format!("remove it, or write {}", one_of(off)),
    }
}

/// Returns the name that a person may have meant by `written`.
pub(crate) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = |name: &str| strsim::jaro_winkler(written, name);
    let nearest = names.max_by(|a, b| near(a).total_cmp(&near(b)));
    nearest.filter(|name| near(name) >= NEAR)
}

/// Returns the remedy for an unknown key: the nearest key, the mapping that it belongs to, or all keys.
fn meant(key: &str, table: Table) -> String {
    let plain = |key: &str| key.to_ascii_lowercase().replace('-', "_");
    let nearest = nearest(&plain(key), works(table));
    // Most keys are a destination's, and so are most of those that are written in the wrong place.
    let place = place_of(&plain(key), DestinationKeys::KEYS, "destinations.NAME");
    let place = place.or_else(|| place_of(&plain(key), Config::KEYS, ""));
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

/// Returns the path of the mapping that has a key of this name.
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
            ValueKind::Table(table) | ValueKind::OneOf(table) => place_of(name, table, &path),
            ValueKind::Named(_, ValueKind::Table(table)) => place_of(name, table, &join(&path, "NAME")),
            _ => None,
        }
    })
}

fn works(table: Table) -> impl Iterator<Item = &'static str> {
    table.iter().filter(|key| key.works()).map(|key| key.name)
}
