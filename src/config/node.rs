//! YAML as a tree whose every value knows its place.
//!
//! The parser's events are read one by one into [`Node`]s, with an explicit stack, so that a hostile file meets a
//! limit and never the end of the thread's stack. What the configuration does not need is refused with a reason:
//! anchors and aliases (bombs are made of them), tags, several documents, keys that are not texts. A manifest of Cloud
//! Foundry may have anchors: there they are resolved, within the same limits.
//!
//! Why our own tree on `saphyr-parser`'s events: serde stops at the first structural fault and knows no place after it; we
//! report all faults with their lines, the nearest key, and never a value that may be a secret.
//!
//! What the values mean is decided in the declarations of the keys.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::problems::MOST as MOST_PROBLEMS;
use super::{Locations, Problem};

/// In bytes.
pub(super) const LARGEST: usize = 1 << 20;

/// Levels of lists and mappings; the language needs seven.
const DEEPEST: usize = 32;

/// Values in one file; about twice what fits into 1 MiB of sensible configuration.
const MOST: usize = 100_000;

/// Characters of a key that a problem repeats.
const LONGEST_SHOWN: usize = 60;

/// 1-based line and column.
pub(super) type LineColumn = (usize, usize);

/// What a text may use of YAML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    /// No anchors and no tags.
    #[default]
    Configuration,
    /// What `cf push` understands: anchors, aliases and merge keys are resolved, tags say that a value is no plain one.
    Manifest,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: LineColumn,
    pub(super) value: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// As written; `plain`: without quotes, so that it can be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<MapEntry>),
}

#[derive(Clone, Debug)]
pub(super) struct MapEntry {
    pub(super) key: String,
    /// The position of the key.
    pub(super) at: LineColumn,
    pub(super) node: Node,
}

impl Node {
    /// Reads a text into a tree, or reports the first place that is not YAML as a configuration uses it.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        Self::parse_as(Dialect::Configuration, text)
    }

    /// Does the same in another dialect.
    pub(super) fn parse_as(dialect: Dialect, text: &str) -> Result<Self, Problem> {
        if text.len() > LARGEST {
            return Err(problem(
                None,
                "larger than 1 MiB",
                "a configuration of this size is a mistake",
            ));
        }
        // Some editors write a byte order mark before UTF-8; it means nothing.
        let text = text.trim_start_matches('\u{feff}');
        let mut tree = Tree {
            dialect,
            ..Tree::default()
        };
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| unreadable(&error, text))?;
            let at = (span.start.line(), span.start.col() + 1);
            match event {
                Event::Alias(_) if dialect == Dialect::Configuration => return Err(starred(at, text)),
                Event::Alias(anchor) => tree.alias(at, anchor)?,
                Event::Scalar(scalar, style, anchor, tag) => {
                    tree.bare(at, anchor, tag.is_some())?;
                    let plain = style == ScalarStyle::Plain && tag.is_none();
                    tree.scalar(at, scalar, plain, anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    tree.bare(at, anchor, tag.is_some())?;
                    tree.open(at, Content::List(Vec::new()), anchor)?;
                }
                Event::MappingStart(anchor, tag) => {
                    tree.bare(at, anchor, tag.is_some())?;
                    tree.open(at, Content::Map(Vec::new()), anchor)?;
                }
                Event::SequenceEnd | Event::MappingEnd => tree.close()?,
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(problem(
                            Some(at),
                            "a second document begins here",
                            "keep to one document",
                        ));
                    }
                }
                Event::DocumentEnd | Event::Nothing | Event::StreamEnd | Event::StreamStart => {}
            }
        }
        match tree.root {
            Some(root) if !root.is_null() => Ok(root),
            _ => Err(problem(
                None,
                "nothing is written in this file",
                "write at least `egress: { default: deny }`",
            )),
        }
    }

    /// Builds the node of a default as a declaration writes it.
    pub(super) fn of_default(text: &str) -> Option<Self> {
        if !text.starts_with(['[', '{', '"']) {
            let value = Content::Scalar {
                text: text.to_owned(),
                plain: true,
            };
            return Some(Self { at: (1, 1), value });
        }
        // The root of a document must not be empty; an item may be.
        match Self::parse(&format!("[{text}]")).ok()?.value {
            Content::List(mut items) if items.len() == 1 => items.pop(),
            Content::List(_) | Content::Map(_) | Content::Scalar { .. } => None,
        }
    }

    /// `null`, `~` or nothing at all.
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Content::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Content::List(_) | Content::Map(_) => false,
        }
    }

    /// Returns the kind of value, in words.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Content::Scalar { .. } if self.is_null() => "nothing",
            Content::Scalar { .. } => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    /// Returns how many values it has, and how many levels.
    fn extent(&self) -> (usize, usize) {
        let below: &mut dyn Iterator<Item = &Self> = match &self.value {
            Content::Scalar { .. } => return (1, 0),
            Content::List(items) => &mut items.iter(),
            Content::Map(entries) => &mut entries.iter().map(|entry| &entry.node),
        };
        let (nodes, levels) = below
            .map(Self::extent)
            .fold((0, 0), |(nodes, levels), (own, deep)| {
                (nodes + own, levels.max(deep))
            });
        (nodes + 1, levels + 1)
    }

    /// Replaces a merge key, `<<: *anchor`, by those entries of the mapping it names that are not written here.
    fn merge(&mut self) {
        let Content::Map(entries) = &mut self.value else {
            return;
        };
        let Some(at) = entries.iter().position(|entry| entry.key == "<<") else {
            return;
        };
        let merged = match entries.remove(at).node.value {
            Content::List(items) => items,
            value @ (Content::Map(_) | Content::Scalar { .. }) => vec![Self { at: self.at, value }],
        };
        for node in merged {
            if let Content::Map(others) = node.value {
                for other in others {
                    if !entries.iter().any(|own| own.key == other.key) {
                        entries.push(other);
                    }
                }
            }
        }
    }

    /// Notes the place of every value and files a problem for each key that is written twice; only the first one stays.
    pub(super) fn index(&mut self, path: &str, locations: &mut Locations, problems: &mut Vec<Problem>) {
        if !path.is_empty() {
            locations.places.insert(path.to_owned(), self.at);
        }
        match &mut self.value {
            Content::Scalar { .. } => {}
            Content::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.index(&format!("{path}[{i}]"), locations, problems);
                }
            }
            Content::Map(entries) => {
                let mut seen: HashMap<String, usize> = HashMap::new();
                entries.retain_mut(|entry| {
                    let path = join(path, &entry.key);
                    if let Some(line) = seen.get(&entry.key) {
                        if problems.len() < MOST_PROBLEMS {
                            let what = format!("stands twice; the first one is on line {line}");
                            problems.push(Problem {
                                path,
                                ..problem(Some(entry.at), &what, "keep one of them")
                            });
                        }
                        return false;
                    }
                    seen.insert(entry.key.clone(), entry.at.0);
                    entry.node.index(&path, locations, problems);
                    true
                });
            }
        }
    }
}

/// Returns the path of `key` below `path`, on one line for any key.
pub(super) fn join(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() {
        key.into_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Returns a text of the file as a problem may show it: short, on one line, without control characters.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    let short = text.chars().take(LONGEST_SHOWN + 1).count() <= LONGEST_SHOWN;
    if short && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown: String = text
        .chars()
        .take(LONGEST_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if !short {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// A tree under construction.
#[derive(Default)]
struct Tree {
    dialect: Dialect,
    root: Option<Node>,
    open: Vec<OpenNode>,
    nodes: usize,
    /// By the parser's number, what an alias repeats.
    anchors: HashMap<usize, Node>,
}

/// A list or a mapping that has not ended; in a mapping, the key whose value comes next.
struct OpenNode {
    node: Node,
    key: Option<(String, LineColumn)>,
    /// 0: it has no anchor.
    anchor: usize,
}

impl Tree {
    /// Refuses anchors and tags where the dialect has no place for them.
    fn bare(&self, at: LineColumn, anchor: usize, tagged: bool) -> Result<(), Problem> {
        match self.dialect {
            Dialect::Configuration => bare(at, anchor, tagged),
            Dialect::Manifest => Ok(()),
        }
    }

    /// Adds what an alias repeats. Its places stay those of the anchor, where a person would change it.
    fn alias(&mut self, at: LineColumn, anchor: usize) -> Result<(), Problem> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(problem(
                Some(at),
                "an alias inside of what it repeats",
                "write the value out where it is used",
            ));
        };
        let (nodes, levels) = node.extent();
        if levels + self.open.len() > DEEPEST {
            return Err(too_deep(at));
        }
        let node = node.clone();
        self.nodes += nodes - 1;
        self.add(node)
    }

    fn scalar(
        &mut self,
        at: LineColumn,
        text: Cow<'_, str>,
        plain: bool,
        anchor: usize,
    ) -> Result<(), Problem> {
        if let Some(OpenNode {
            node: Node {
                value: Content::Map(_),
                ..
            },
            key: key @ None,
            ..
        }) = self.open.last_mut()
        {
            if text.is_empty() {
                return Err(problem(
                    Some(at),
                    "a key is missing before the colon",
                    "write `key: value`",
                ));
            }
            *key = Some((text.into_owned(), at));
            return Ok(());
        }
        let value = Content::Scalar {
            text: text.into_owned(),
            plain,
        };
        self.finish(Node { at, value }, anchor)
    }

    fn open(&mut self, at: LineColumn, value: Content, anchor: usize) -> Result<(), Problem> {
        if let Some(OpenNode {
            node: Node {
                value: Content::Map(_),
                ..
            },
            key: None,
            ..
        }) = self.open.last()
        {
            return Err(problem(
                Some(at),
                "a key has to be plain text",
                "write `key: value`",
            ));
        }
        if self.open.len() == DEEPEST {
            return Err(too_deep(at));
        }
        self.open.push(OpenNode {
            node: Node { at, value },
            key: None,
            anchor,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        match self.open.pop() {
            Some(mut open) => {
                if self.dialect == Dialect::Manifest {
                    open.node.merge();
                }
                self.finish(open.node, open.anchor)
            }
            None => Ok(()),
        }
    }

    /// Adds a node, and keeps it for aliases.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.add(node)
    }

    /// Adds a finished node to the list or mapping around it.
    fn add(&mut self, node: Node) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MOST {
            return Err(problem(
                Some(node.at),
                "too many values",
                "a configuration of this size is a mistake",
            ));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(OpenNode {
                node:
                    Node {
                        value: Content::Map(entries),
                        ..
                    },
                key,
                ..
            }) => {
                if let Some((key, at)) = key.take() {
                    entries.push(MapEntry { key, at, node });
                }
            }
            Some(OpenNode {
                node:
                    Node {
                        value: Content::List(items),
                        ..
                    },
                ..
            }) => items.push(node),
            Some(OpenNode {
                node:
                    Node {
                        value: Content::Scalar { .. },
                        ..
                    },
                ..
            }) => {}
        }
        Ok(())
    }
}

fn too_deep(at: LineColumn) -> Problem {
    problem(
        Some(at),
        "nested too deep",
        "nothing in a configuration stands this deep",
    )
}

/// Refuses anchors and tags.
fn bare(at: LineColumn, anchor: usize, tagged: bool) -> Result<(), Problem> {
    if anchor != 0 {
        return Err(problem(
            Some(at),
            "anchors are not part of the language",
            "write the value out where it is used",
        ));
    }
    if tagged {
        return Err(problem(
            Some(at),
            "tags are not part of the language",
            "write the value without its `!`",
        ));
    }
    Ok(())
}

/// Refuses an alias, which is more likely a `*.example.com` without quotes.
fn starred(at: LineColumn, text: &str) -> Problem {
    let line = text.lines().nth(at.0.saturating_sub(1)).unwrap_or_default();
    if line.contains("*.") || line.contains("**") {
        return problem(
            Some(at),
            "a value that begins with * needs quotes",
            "write \"*.example.com\"",
        );
    }
    problem(
        Some(at),
        "aliases are not part of the language",
        "write the value out where it is used",
    )
}

/// Explains an error of the parser to the author of the file. The parser's words hold the kind of the error and at most
/// one character, so they cannot contain a secret.
fn unreadable(error: &ScanError, text: &str) -> Problem {
    let at = (error.marker().line(), error.marker().col() + 1);
    // The parser reports a tab where it begins to matter, which may be the end of the line above.
    let tab = (text.lines().enumerate().skip(at.0.saturating_sub(1)).take(2))
        .find(|(_, line)| line.trim_start_matches(' ').starts_with('\t'));
    if let Some((line, _)) = tab {
        return problem(
            Some((line + 1, 1)),
            "a tab stands in the indentation",
            "indent with spaces",
        );
    }
    let (what, right) = match error.info() {
        info if info.contains("tabs ") || info.contains("tab ") || info.ends_with(" tab") => {
            ("a tab stands where only spaces may", "write spaces")
        }
        info if info.contains("anchor") => return starred(at, text),
        "recursion limit exceeded" => ("nested too deep", "nothing in a configuration stands this deep"),
        "mapping values are not allowed in this context" => (
            "a colon where no key can stand",
            "put a text that contains `: ` in quotes, or check the indentation and the line above",
        ),
        "simple key expected" | "simple key expect ':'" => (
            "a key without its value",
            "write `key: value`, with a space after the colon",
        ),
        info if info.contains("unexpected end of stream") || info == "unexpected eof" => (
            "the file ends in the middle of a value",
            "close the quote or bracket that is open here",
        ),
        info if info.contains("expected ',' or") => (
            "a bracket is not closed, or a comma is missing",
            "write `[a, b]` or `{ key: value }`",
        ),
        info if info.contains("did not find expected") || info.contains("indent") => (
            "this line does not fit the ones above",
            "check the indentation, quotes and brackets",
        ),
        info => {
            return problem(
                Some(at),
                &format!("not YAML: {info}"),
                "check quotes, brackets and indentation",
            );
        }
    };
    problem(Some(at), what, right)
}

fn problem(at: Option<LineColumn>, what: &str, right: &str) -> Problem {
    Problem {
        path: String::new(),
        at,
        what: what.to_owned(),
        right: right.to_owned(),
    }
}
