//! Adds destinations to the text of a configuration, which stays as it is otherwise.
//!
//! Lines are inserted; comments, blank lines, quotes and the order of what is there are not touched. The result is read
//! again and compared with the old tree: it must have the new destinations and not one other difference. A text in which
//! that does not succeed is refused, with the lines to add by hand.
//!
//! Which destinations are added is decided in `cli/learn`.

use super::lines::{MergeError, SourceLines, Style, all_alike, same, same_entry, split_mark};
use super::node::{Content, MapEntry, Node};

const KEY: &str = "destinations";

/// A destination to add: hosts, and perhaps the only paths and methods that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewDestination {
    pub(crate) name: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) methods: Vec<String>,
}

/// Returns `text` with more destinations. An empty text becomes a configuration of these alone.
pub(crate) fn add_destinations(text: &str, new: &[NewDestination]) -> Result<String, MergeError> {
    if new.is_empty() {
        return Ok(text.to_owned());
    }
    let (mark, bare) = split_mark(text)?;
    let root = if bare.is_empty() {
        None
    } else {
        Some(Node::parse(bare).map_err(|_| MergeError::Unclear)?)
    };
    let lines = SourceLines::of(bare);
    let merged = match &root {
        None => destination_lines(new),
        Some(root) => insert(&lines, root, new).ok_or(MergeError::Unclear)?,
    };
    let is_right = Node::parse(&merged).is_ok_and(|after| adds_only(root.as_ref(), &after, new));
    is_right
        .then(|| format!("{mark}{merged}"))
        .ok_or(MergeError::Unclear)
}

/// Returns the lines that a person would add by hand.
pub(crate) fn destination_lines(new: &[NewDestination]) -> String {
    Node::map([(KEY, entries(new))]).block(Style { indent: 0, ..PLAIN })
}

/// How entries are written where there are no others.
const PLAIN: Style = Style {
    indent: 2,
    step: 2,
    dash: 0,
};

/// Returns the mapping that has the new destinations.
fn entries(new: &[NewDestination]) -> Node {
    Node::map(new.iter().map(|new| (&*new.name, new.node())))
}

impl NewDestination {
    fn node(&self) -> Node {
        let keys = [
            ("hosts", &*self.hosts),
            ("paths", &*self.paths),
            ("methods", &*self.methods),
        ];
        let written = keys.into_iter();
        let written = written.filter(|(key, values)| *key == "hosts" || !values.is_empty());
        Node::map(written.map(|(key, values)| (key, Node::texts(values))))
    }
}

/// Returns the text with the new destinations, or `None` where no place for them is found.
fn insert(lines: &SourceLines<'_>, root: &Node, new: &[NewDestination]) -> Option<String> {
    let Content::Map(all) = &root.value else {
        return None;
    };
    let is_flow = lines.is_flow(root)?;
    let added = entries(new);
    let Some(entry) = all.iter().find(|entry| entry.key == KEY) else {
        if is_flow {
            return lines.in_front(root, &format!("{KEY}: {}", added.flow()));
        }
        return Some(append(lines, root.at.1 - 1, new));
    };
    match &entry.node.value {
        Content::Map(inner) if !inner.is_empty() => {
            if lines.is_flow(&entry.node)? {
                return lines.in_front(&entry.node, &added.flow_entries());
            }
            Some(below(lines, inner.first()?, inner, new))
        }
        Content::Scalar { .. } | Content::List(_) | Content::Map(_) => {
            let indent = entry.at.1 - 1 + 2;
            lines.filled(
                entry,
                is_flow,
                &added.block(Style { indent, ..PLAIN }),
                &added.flow(),
            )
        }
    }
}

/// Returns the text with the entries below the last one of a mapping of one line a key.
fn below(lines: &SourceLines<'_>, first: &MapEntry, inner: &[MapEntry], new: &[NewDestination]) -> String {
    let indent = first.at.1 - 1;
    let step = match &first.node.value {
        Content::Map(keys) => keys
            .first()
            .filter(|key| key.at.0 > first.at.0)
            .and_then(|key| (key.at.1 - 1).checked_sub(indent)),
        Content::List(_) | Content::Scalar { .. } => None,
    };
    let style = Style {
        indent,
        step: step.filter(|step| *step > 0).unwrap_or(2),
        ..PLAIN
    };
    // A blank line stands between the entries that are there.
    let mut heading = inner.last().map_or(0, |last| last.at.0 - 1);
    while heading > 0 && lines.lines[heading - 1].trim_start().starts_with('#') {
        heading -= 1;
    }
    let is_spaced = inner.len() > 1 && heading > 0 && lines.is_blank(heading - 1);
    let gap = if is_spaced { "\n" } else { "" };
    let one = |new| format!("{gap}{}", entries(std::slice::from_ref(new)).block(style));
    let added: String = new.iter().map(one).collect();
    let at = lines.end_of(first.at.0 - 1, indent, indent, false);
    lines.with_lines(at, &added)
}

/// Returns the text with the key and its entries at the end.
fn append(lines: &SourceLines<'_>, indent: usize, new: &[NewDestination]) -> String {
    let at = lines.lines.iter().position(|line| line.starts_with("..."));
    let at = at.unwrap_or(lines.lines.len());
    let gap = if at > 0 && !lines.is_blank(at - 1) {
        "\n"
    } else {
        ""
    };
    let added = Node::map([(KEY, entries(new))]).block(Style { indent, ..PLAIN });
    lines.with_lines(at, &format!("{gap}{added}"))
}

/// Whether `after` is `before` with the new destinations and nothing else.
fn adds_only(before: Option<&Node>, after: &Node, new: &[NewDestination]) -> bool {
    let (Content::Map(after), Some(old)) = (&after.value, entries_of(before)) else {
        return false;
    };
    let is_new = |entry: &&MapEntry| new.iter().any(|new| new.name == entry.key);
    let is_other = |entry: &&MapEntry| entry.key != KEY;
    let old_rest: Vec<_> = old.iter().filter(is_other).collect();
    let new_rest: Vec<_> = after.iter().filter(is_other).collect();
    let mut found = after.iter().filter(|entry| entry.key == KEY);
    let (Some(destinations), None) = (found.next(), found.next()) else {
        return false;
    };
    let Content::Map(destinations) = &destinations.node.value else {
        return false;
    };
    let had = match old.iter().find(|entry| entry.key == KEY) {
        Some(MapEntry {
            node: Node {
                value: Content::Map(had),
                ..
            },
            ..
        }) => had.iter().collect(),
        _ => Vec::new(),
    };
    let (added, kept): (Vec<_>, Vec<_>) = destinations.iter().partition(is_new);
    let is_same = |a: &&MapEntry, b: &&MapEntry| same_entry(a, b);
    all_alike(&old_rest, &new_rest, is_same)
        && all_alike(&kept, &had, is_same)
        && all_alike(&added, new, |entry, new| same(&entry.node, &new.node()))
}

/// Returns the entries of a tree; none where nothing was written.
fn entries_of(root: Option<&Node>) -> Option<&[MapEntry]> {
    match root.map(|root| &root.value) {
        None => Some(&[]),
        Some(Content::Map(entries)) => Some(entries),
        Some(Content::List(_) | Content::Scalar { .. }) => None,
    }
}

#[cfg(test)]
mod tests;
