//! Which keys of two configurations have other values, each value as it is written.

use super::declare::{Declaration, Section as _};
use super::node::{Content, Node};
use super::{Config, DestinationKeys};

/// Characters of a value that are shown.
const LONGEST: usize = 160;

/// A key that has another value. A value that is not written is shown as its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangedKey {
    /// `egress.ports`; in a destination as in `tls.ca`.
    pub(crate) path: String,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// A configuration and its text as a tree.
#[derive(Debug)]
pub(crate) struct WrittenConfig {
    pub(crate) config: Config,
    /// `None` where there is no file: then everything is a default.
    root: Option<Node>,
}

impl WrittenConfig {
    /// `text` is that of `config`.
    pub(crate) fn new(config: Config, text: &str) -> Self {
        Self {
            config,
            root: Node::parse(text).ok(),
        }
    }

    /// Returns the keys of the file that differ, destinations left out.
    pub(crate) fn changed(&self, new: &Self) -> Vec<ChangedKey> {
        let (old, other) = (&self.config, &new.config);
        let mut changed = Vec::new();
        for key in old.differing(other) {
            let below = match key.name {
                "ca" => old.ca.differing(&other.ca),
                "destinations" => continue,
                "dns" => old.dns.differing(&other.dns),
                "egress" => old.egress.differing(&other.egress),
                "limits" => old.limits.differing(&other.limits),
                "log" => old.log.differing(&other.log),
                "timeouts" => old.timeouts.differing(&other.timeouts),
                _ => Vec::new(),
            };
            add(key, &below, self.root.as_ref(), new.root.as_ref(), &mut changed);
        }
        changed
    }

    /// Returns the keys that differ between a destination and one of the new file.
    pub(crate) fn changed_in(
        &self,
        own: &DestinationKeys,
        new: &Self,
        other: &DestinationKeys,
    ) -> Vec<ChangedKey> {
        let mut changed = Vec::new();
        let tls = |keys: &DestinationKeys| keys.tls.clone().unwrap_or_default();
        for key in own.differing(other) {
            let below = match key.name {
                "hosts" => continue,
                "headers" => own.headers.differing(&other.headers),
                "timeouts" => own.timeouts.differing(&other.timeouts),
                // `tls: {}` only asks for the upgrade of http://.
                "tls" if tls(own) == tls(other) => continue,
                "tls" => tls(own).differing(&tls(other)),
                _ => Vec::new(),
            };
            let (written, also) = (self.destination(&own.name), new.destination(&other.name));
            add(key, &below, written, also, &mut changed);
        }
        changed
    }

    /// Returns the mapping of a destination.
    fn destination(&self, name: &str) -> Option<&Node> {
        below(below(self.root.as_ref()?, "destinations")?, name)
    }
}

/// Adds a key, or those keys `inside` it that differ.
fn add(
    key: &Declaration,
    inside: &[&Declaration],
    old: Option<&Node>,
    new: Option<&Node>,
    changed: &mut Vec<ChangedKey>,
) {
    if inside.is_empty() {
        return changed.push(ChangedKey {
            path: key.name.to_owned(),
            old: value(old, key),
            new: value(new, key),
        });
    }
    let (old, new) = [old, new]
        .map(|node| node.and_then(|node| below(node, key.name)))
        .into();
    for inner in inside {
        changed.push(ChangedKey {
            path: format!("{}.{}", key.name, inner.name),
            old: value(old, inner),
            new: value(new, inner),
        });
    }
}

/// Returns the value of a key in a mapping, as a person reads it in one line.
fn value(node: Option<&Node>, key: &Declaration) -> String {
    let written = node.and_then(|node| below(node, key.name));
    let text = match written {
        // A value here may be meant to be known to few.
        Some(Node {
            value: Content::Map(entries),
            ..
        }) if key.name == "set" => {
            let names: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
            names.join(", ")
        }
        Some(node) => flow(node),
        None if key.default.is_empty() => "nothing".to_owned(),
        None => format!("{} (default)", key.default),
    };
    let text: String = text.chars().flat_map(visible).collect();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn visible(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_default());
    let plain = (!letter.is_control()).then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}

/// Returns a value in one line.
fn flow(node: &Node) -> String {
    match &node.value {
        Content::Scalar { text, .. } => text.clone(),
        Content::List(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Content::Map(entries) => {
            let entries = entries
                .iter()
                .map(|entry| format!("{}: {}", entry.key, flow(&entry.node)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn below<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Content::Map(entries) => entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node),
        Content::List(_) | Content::Scalar { .. } => None,
    }
}
