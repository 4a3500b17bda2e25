//! YAML as a tree whose every value knows its place.
//!
//! The parser's events are read one by one into [`Node`]s, with an explicit stack, so that a hostile file meets a
//! limit and never the end of the thread's stack. What the configuration does not need is refused with a reason:
//! anchors and aliases (bombs are made of them), tags, several documents, keys that are not texts.
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

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: LineColumn,
    pub(super) value: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// As written; `plain`: without quotes, so that it can be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<MapEntry>),
}

#[derive(Debug)]
pub(super) struct MapEntry {
    pub(super) key: String,
    /// The position of the key.
    pub(super) at: LineColumn,
    pub(super) node: Node,
}

impl Node {
    /// Reads a text into a tree, or reports the first place that is not YAML as a configuration uses it.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > LARGEST {
            return Err(problem(
                None,
                "larger than 1 MiB",
                "a configuration of this size is a mistake",
            ));
        }
        // Some editors write a byte order mark before UTF-8; it means nothing.
        let text = text.trim_start_matches('\u{feff}');
        let mut tree = Tree::default();
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| unreadable(&error, text))?;
            let at = (span.start.line(), span.start.col() + 1);
            match event {
                Event::Alias(_) => return Err(starred(at, text)),
                Event::Scalar(scalar, style, anchor, tag) => {
                    bare(at, anchor, tag.is_some())?;
                    tree.scalar(at, scalar, style == ScalarStyle::Plain)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    bare(at, anchor, tag.is_some())?;
                    tree.open(at, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    bare(at, anchor, tag.is_some())?;
                    tree.open(at, Content::Map(Vec::new()))?;
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
    root: Option<Node>,
    open: Vec<OpenNode>,
    nodes: usize,
}

/// A list or a mapping that has not ended; in a mapping, the key whose value comes next.
struct OpenNode {
    node: Node,
    key: Option<(String, LineColumn)>,
}

impl Tree {
    fn scalar(&mut self, at: LineColumn, text: Cow<'_, str>, plain: bool) -> Result<(), Problem> {
        if let Some(OpenNode {
            node: Node {
                value: Content::Map(_),
                ..
            },
            key: key @ None,
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
        self.add(Node {
            at,
            value: Content::Scalar {
                text: text.into_owned(),
                plain,
            },
        })
    }

    fn open(&mut self, at: LineColumn, value: Content) -> Result<(), Problem> {
        if let Some(OpenNode {
            node: Node {
                value: Content::Map(_),
                ..
            },
            key: None,
        }) = self.open.last()
        {
            return Err(problem(
                Some(at),
                "a key has to be plain text",
                "write `key: value`",
            ));
        }
        if self.open.len() == DEEPEST {
            return Err(problem(
                Some(at),
                "nested too deep",
                "nothing in a configuration stands this deep",
            ));
        }
        self.open.push(OpenNode {
            node: Node { at, value },
            key: None,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        match self.open.pop() {
            Some(open) => self.add(open.node),
            None => Ok(()),
        }
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
