//! Adds a sidecar to the text of a manifest, which stays as it is otherwise.
//!
//! Lines are inserted; comments, order, indentation and quotes of what is there are not touched. The result is read again as
//! `cf push` would read it, with anchors resolved, and compared with the old tree: it must have the sidecar, perhaps a
//! variable, and not one other difference. A text in which that does not succeed, as where the app's keys come from an
//! anchor, is refused.
//!
//! Which app gets what is decided in `cli/init`.

use super::lines::{MergeError, SourceLines, Style, same, split_mark};
use super::node::{Content, Dialect, MapEntry, Node};

const APPLICATIONS: &str = "applications";
const ENV: &str = "env";
const SIDECARS: &str = "sidecars";

/// A sidecar to add to an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewSidecar {
    pub(crate) name: String,
    pub(crate) process_types: Vec<String>,
    pub(crate) command: String,
    pub(crate) memory: String,
    /// A variable that the app has to have beside it.
    pub(crate) variable: Option<(&'static str, String)>,
}

/// Returns the text of a manifest in which the app at this place of `applications` has the sidecar, too.
pub(crate) fn add_sidecar(text: &str, app: usize, new: &NewSidecar) -> Result<String, MergeError> {
    let (mark, bare) = split_mark(text)?;
    let read = |text: &str| Node::parse_as(Dialect::Manifest, text).map_err(|_| MergeError::Shared);
    let before = read(bare)?;
    let with_sidecar = insert(bare, &before, app, SIDECARS, &new.node()).ok_or(MergeError::Shared)?;
    let merged = match new.env() {
        None => with_sidecar,
        Some(env) => {
            insert(&with_sidecar, &read(&with_sidecar)?, app, ENV, &env).ok_or(MergeError::Shared)?
        }
    };
    let mut after = read(&merged)?;
    let is_right = new.take_out(&mut after, app) && {
        let mut before = before;
        // Nothing, an empty list and no key at all are alike.
        for tree in [&mut before, &mut after] {
            drop_empty(tree, app, &[SIDECARS, ENV]);
        }
        same(&before, &after)
    };
    is_right
        .then(|| format!("{mark}{merged}"))
        .ok_or(MergeError::Shared)
}

/// Returns the lines that a person would add to an app by hand.
pub(crate) fn sidecar_lines(new: &NewSidecar) -> String {
    let sidecars = (SIDECARS, Node::list(vec![new.node()]));
    let env = new.env().map(|env| (ENV, env));
    Node::map([sidecars].into_iter().chain(env)).block(Style {
        indent: 2,
        step: 2,
        dash: 0,
    })
}

impl NewSidecar {
    fn node(&self) -> Node {
        Node::map([
            ("name", Node::text(&self.name)),
            ("process_types", Node::texts(&self.process_types)),
            ("command", Node::text(&self.command)),
            ("memory", Node::text(&self.memory)),
        ])
    }

    fn env(&self) -> Option<Node> {
        let (name, value) = self.variable.as_ref()?;
        Some(Node::map([(*name, Node::text(value))]))
    }

    /// Takes the sidecar, and the variable, out of a tree. Returns whether they were there.
    fn take_out(&self, root: &mut Node, app: usize) -> bool {
        let sidecar = self.node();
        let Some(Content::List(items)) = value_of(root, app, SIDECARS) else {
            return false;
        };
        let Some(at) = items.iter().position(|item| same(item, &sidecar)) else {
            return false;
        };
        items.remove(at);
        let Some((name, value)) = &self.variable else {
            return true;
        };
        let (value, Some(Content::Map(entries))) = (Node::text(value), value_of(root, app, ENV)) else {
            return false;
        };
        let found = entries
            .iter()
            .position(|entry| entry.key == *name && same(&entry.node, &value));
        found.map(|at| entries.remove(at)).is_some()
    }
}

/// Returns the text in which a key of the app has more: a list one item more, a mapping the entries of `added`.
fn insert(text: &str, root: &Node, app: usize, key: &str, added: &Node) -> Option<String> {
    let lines = SourceLines::of(text);
    let applications = entry_of(root, APPLICATIONS)?;
    let Content::List(apps) = &applications.node.value else {
        return None;
    };
    let app = apps.get(app)?;
    let is_item = key == SIDECARS;
    let whole = if is_item {
        Node::list(vec![added.clone()])
    } else {
        added.clone()
    };
    let indent = own_column(app).checked_sub(1)?;
    let dash = lines.first_dash(&applications.node);
    let style = Style {
        indent,
        step: 2,
        // As in the list of the apps.
        dash: dash.map_or(0, |(_, column)| column.saturating_sub(applications.at.1 - 1)),
    };
    let keyed = Node::map([(key, whole.clone())]);
    let Some(entry) = entry_of(app, key) else {
        return if lines.is_flow(app)? {
            lines.in_front(app, &keyed.flow_entries())
        } else {
            let at = lines.end_of(app.at.0 - 1, indent, indent, false);
            Some(lines.with_lines(at, &keyed.block(style)))
        };
    };
    let is_filled = match &entry.node.value {
        Content::List(items) if is_item => !items.is_empty(),
        Content::Map(entries) if !is_item => !entries.is_empty(),
        Content::Scalar { .. } if entry.node.is_null() => false,
        Content::List(_) | Content::Map(_) | Content::Scalar { .. } => return None,
    };
    if !is_filled {
        let block = keyed.block(style);
        let (_, below) = block.split_once('\n')?;
        return lines.filled(entry, lines.is_flow(app)?, below, &whole.flow());
    }
    if lines.is_flow(&entry.node)? {
        let what = if is_item {
            added.flow()
        } else {
            added.flow_entries()
        };
        return lines.in_front(&entry.node, &what);
    }
    if is_item {
        let (line, column) = lines.first_dash(&entry.node)?;
        let style = Style {
            indent: column,
            ..style
        };
        // Where dashes stand below the key itself, a comment there is of the next key.
        let comments = column + usize::from(column == entry.at.1 - 1);
        let at = lines.end_of(line, column, comments, true);
        return Some(lines.with_lines(at, &added.block_item(style)));
    }
    let style = Style {
        indent: own_column(&entry.node) - 1,
        ..style
    };
    let at = lines.end_of(entry.node.at.0 - 1, style.indent, style.indent, false);
    Some(lines.with_lines(at, &added.block(style)))
}

/// Returns the column of the keys of a mapping. Those that a merge key brings are written elsewhere, which is further up.
fn own_column(mapping: &Node) -> usize {
    let own = match &mapping.value {
        Content::Map(entries) => entries.iter().find(|entry| entry.at >= mapping.at),
        Content::List(_) | Content::Scalar { .. } => None,
    };
    own.map_or(mapping.at.1, |entry| entry.at.1)
}

fn entry_of<'n>(node: &'n Node, key: &str) -> Option<&'n MapEntry> {
    match &node.value {
        Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
        Content::List(_) | Content::Scalar { .. } => None,
    }
}

/// Returns the entries of an app.
fn app_of(root: &mut Node, app: usize) -> Option<&mut Vec<MapEntry>> {
    let Content::Map(entries) = &mut root.value else {
        return None;
    };
    let applications = entries.iter_mut().find(|entry| entry.key == APPLICATIONS)?;
    let Content::List(apps) = &mut applications.node.value else {
        return None;
    };
    match &mut apps.get_mut(app)?.value {
        Content::Map(entries) => Some(entries),
        Content::List(_) | Content::Scalar { .. } => None,
    }
}

/// Returns the value of a key of an app.
fn value_of<'n>(root: &'n mut Node, app: usize, key: &str) -> Option<&'n mut Content> {
    let found = app_of(root, app)?.iter_mut().find(|entry| entry.key == key);
    found.map(|entry| &mut entry.node.value)
}

fn drop_empty(root: &mut Node, app: usize, keys: &[&str]) {
    if let Some(entries) = app_of(root, app) {
        entries.retain(|entry| {
            let is_empty = match &entry.node.value {
                Content::Map(inner) => inner.is_empty(),
                Content::List(inner) => inner.is_empty(),
                Content::Scalar { .. } => entry.node.is_null(),
            };
            !(is_empty && keys.contains(&&*entry.key))
        });
    }
}

#[cfg(test)]
mod tests;
