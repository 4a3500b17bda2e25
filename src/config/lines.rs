//! The text of a file by lines, to which values are added without a change of the rest.
//!
//! Here is where an addition may stand, and how it is written; what is added is decided in `merge` and `sidecar`. Both read
//! the result again and compare it with the old tree, so nothing here has to know every form of YAML.

use std::fmt::Write as _;

use super::node::{Content, LineColumn, MapEntry, Node};

/// Words that some reader of YAML takes for a boolean or nothing where they stand without quotes.
const NOT_TEXTS: [&str; 12] = [
    "false", "inf", "n", "nan", "no", "none", "null", "off", "on", "true", "y", "yes",
];

/// Why a text cannot be changed; `Display` contains the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MergeError {
    #[error(
        "the file has line ends of a carriage return alone; save it with usual line ends, or add the lines by hand"
    )]
    LineEnds,
    #[error(
        "the file is written in a way in which lines cannot be added without a change of the rest, as where an anchor is \
         used twice; add the lines by hand"
    )]
    Shared,
    #[error(
        "the file is written in a way in which lines cannot be added without a change of the rest; write `destinations:` as \
         a mapping of one line a key, or add the lines by hand"
    )]
    Unclear,
}

/// The text by lines, each with its end.
pub(super) struct SourceLines<'t> {
    pub(super) text: &'t str,
    pub(super) lines: Vec<&'t str>,
    /// What ends the first line, and each new one.
    pub(super) end: &'static str,
}

/// How many columns stand before what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Before a key.
    pub(super) indent: usize,
    /// Before the keys of a mapping, more than before its own.
    pub(super) step: usize,
    /// Before the dashes of a list, more than before its key.
    pub(super) dash: usize,
}

/// Splits a byte order mark off a text whose lines can be told apart.
pub(super) fn split_mark(text: &str) -> Result<(&'static str, &str), MergeError> {
    let (mark, bare) = match text.strip_prefix('\u{feff}') {
        Some(bare) => ("\u{feff}", bare),
        None => ("", text),
    };
    if bare.replace("\r\n", "").contains('\r') {
        return Err(MergeError::LineEnds);
    }
    Ok((mark, bare))
}

impl<'t> SourceLines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self {
            text,
            lines: text.split_inclusive('\n').collect(),
            end: match text.split_inclusive('\n').next() {
                Some(first) if first.ends_with("\r\n") => "\r\n",
                _ => "\n",
            },
        }
    }

    /// Returns the byte at which a position of the parser is; its columns count characters.
    pub(super) fn offset(&self, (line, column): LineColumn) -> Option<usize> {
        let before: usize = self
            .lines
            .get(..line.checked_sub(1)?)?
            .iter()
            .map(|line| line.len())
            .sum();
        let line = self.lines.get(line - 1).copied().unwrap_or_default();
        let mut inside = line.char_indices().map(|(at, _)| at).chain([line.len()]);
        Some(before + inside.nth(column.checked_sub(1)?)?)
    }

    /// Returns the text with `what` before line `at` (0-based).
    pub(super) fn with_lines(&self, at: usize, what: &str) -> String {
        let (before, after) = self.lines.split_at(at.min(self.lines.len()));
        let mut text = before.concat();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(self.end);
        }
        text + &self.ended(what) + &after.concat()
    }

    /// Returns lines of ours with the line ends of the file.
    fn ended(&self, lines: &str) -> String {
        lines.replace('\n', self.end)
    }

    pub(super) fn is_blank(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| line.trim().is_empty())
    }

    /// Returns the line (0-based) after a mapping or list that begins at `first`: `column` is that of its keys or dashes, and
    /// comments further left than `comments` belong to what follows.
    pub(super) fn end_of(&self, first: usize, column: usize, comments: usize, is_list: bool) -> usize {
        let is_outside = |line: &&str| {
            let content = line.trim_start_matches(' ');
            let indent = line.len() - content.len();
            let is_next_key = is_list && indent == column && !content.starts_with('-');
            let is_nothing = content.trim().is_empty() || content.starts_with('#');
            !is_nothing && (indent < column || is_next_key)
        };
        let inside = self.lines.iter().skip(first + 1);
        let length = inside.clone().position(is_outside);
        let mut at = first + 1 + length.unwrap_or_else(|| inside.count());
        while at > first + 1 && (self.is_blank(at - 1) || self.is_outer_comment(at - 1, comments)) {
            at -= 1;
        }
        at
    }

    /// Whether a line is a comment that stands further left than `indent`.
    fn is_outer_comment(&self, line: usize, indent: usize) -> bool {
        self.lines.get(line).is_some_and(|line| {
            let content = line.trim_start_matches(' ');
            content.starts_with('#') && line.len() - content.len() < indent
        })
    }

    /// Returns the text where the value of an entry, which is nothing, `{}` or `[]`, is replaced: by `block` below the key,
    /// or, where the entry stands in braces, by `flow`.
    pub(super) fn filled(&self, entry: &MapEntry, is_flow: bool, block: &str, flow: &str) -> Option<String> {
        let (before, rest) = self.around_nothing(entry)?;
        if is_flow {
            let gap = if before.ends_with(' ') { "" } else { " " };
            return Some(format!("{before}{gap}{flow}{rest}"));
        }
        let (line, after) = rest.split_at(rest.find('\n').map_or(rest.len(), |end| end + 1));
        // A comment stays behind the key, after a blank.
        let (before, line) = match line.trim_start_matches(' ') {
            bare if bare.trim().is_empty() => (before.trim_end_matches(' '), bare),
            comment if before.ends_with(' ') => (before, comment),
            _ => (before, line),
        };
        let end = if line.ends_with('\n') { "" } else { self.end };
        Some(format!("{before}{line}{end}{}{after}", self.ended(block)))
    }

    /// Returns the text before and after a value that is nothing, `{}` or `[]`; `None` for any other.
    fn around_nothing(&self, entry: &MapEntry) -> Option<(&str, &str)> {
        let bracket = match &entry.node.value {
            Content::Map(inner) if inner.is_empty() => '}',
            Content::List(inner) if inner.is_empty() => ']',
            Content::Scalar { .. } if entry.node.is_null() => {
                // The parser gives `~` also for a value that is not written, so it is looked for in the text.
                let colon = self.after_colon(entry)?;
                let blanks = self.text[colon..]
                    .bytes()
                    .take_while(|byte| *byte == b' ')
                    .count();
                let written = &self.text[colon + blanks..];
                let null = ["~", "null", "Null", "NULL"]
                    .into_iter()
                    .find(|null| written.starts_with(null));
                return Some(match null {
                    Some(null) => (&self.text[..colon + blanks], &written[null.len()..]),
                    None => self.text.split_at(colon),
                });
            }
            Content::Map(_) | Content::List(_) | Content::Scalar { .. } => return None,
        };
        let at = self.start(&entry.node)?;
        let inside = self.text.get(at + 1..)?;
        let rest = inside.trim_start().strip_prefix(bracket)?;
        Some((&self.text[..at], rest))
    }

    /// Returns the byte after the colon of a key whose value is not written.
    fn after_colon(&self, entry: &MapEntry) -> Option<usize> {
        let at = self.offset(entry.at)?;
        let rest = &self.text[at..];
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
        let written = entry.key.len() + quote.map_or(0, |_| 2);
        let between = rest.get(written..)?;
        let colon = between
            .find(|letter: char| letter != ' ')
            .filter(|colon| between[*colon..].starts_with(':'))?;
        Some(at + written + colon + 1)
    }

    /// Returns the byte at which a collection begins, after its anchor and tag.
    fn start(&self, node: &Node) -> Option<usize> {
        let mut rest = self.text.get(self.offset(node.at)?..)?;
        while rest.starts_with(['&', '!']) {
            rest = rest
                .trim_start_matches(|letter: char| !letter.is_whitespace())
                .trim_start();
            while rest.starts_with('#') {
                rest = rest.split_once('\n').map_or("", |(_, below)| below).trim_start();
            }
        }
        Some(self.text.len() - rest.len())
    }

    /// Whether a collection is in braces or brackets.
    pub(super) fn is_flow(&self, node: &Node) -> Option<bool> {
        let bracket = match &node.value {
            Content::Map(_) => '{',
            // Of a list whose dashes stand below its key, this is where its first item begins.
            Content::List(_) => '[',
            Content::Scalar { .. } => return None,
        };
        Some(self.text[self.start(node)?..].starts_with(bracket))
    }

    /// Returns line and column (0-based) of the first dash of a list.
    pub(super) fn first_dash(&self, list: &Node) -> Option<(usize, usize)> {
        // The parser gives the dash, or, where it stands below its key itself, what follows it.
        let head = &self.text[..self.start(list)?];
        let is_dash = |line: &str| line.trim_start_matches(' ').starts_with('-');
        let line = head.matches('\n').count();
        let line = [Some(line), line.checked_sub(1)]
            .into_iter()
            .flatten()
            .find(|line| self.lines.get(*line).is_some_and(|text| is_dash(text)))?;
        let text = self.lines[line];
        Some((line, text.len() - text.trim_start_matches(' ').len()))
    }

    /// Returns the text with `what` as the first entry of a collection in braces or brackets.
    pub(super) fn in_front(&self, collection: &Node, what: &str) -> Option<String> {
        let (before, after) = self.text.split_at(self.start(collection)? + 1);
        let is_empty = match &collection.value {
            Content::Map(inner) => inner.is_empty(),
            Content::List(inner) => inner.is_empty(),
            Content::Scalar { .. } => return None,
        };
        let comma = match after.starts_with(char::is_whitespace) {
            true if !is_empty => ",",
            false if !is_empty => ", ",
            _ => " ",
        };
        let gap = if before.ends_with('{') { " " } else { "" };
        Some(format!("{before}{gap}{what}{comma}{after}"))
    }
}

/// To be written.
impl Node {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::written(Content::Scalar {
            text: text.to_owned(),
            plain: is_plain(text),
        })
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::written(Content::List(items))
    }

    /// A list of texts.
    pub(super) fn texts(texts: &[String]) -> Self {
        Self::list(texts.iter().map(|text| Self::text(text)).collect())
    }

    pub(super) fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Self)>) -> Self {
        let entry = |(key, node): (&str, Self)| MapEntry {
            key: key.to_owned(),
            at: (0, 0),
            node,
        };
        Self::written(Content::Map(entries.into_iter().map(entry).collect()))
    }

    fn written(value: Content) -> Self {
        Self { at: (0, 0), value }
    }

    /// Returns it in braces, brackets and quotes, on one line.
    pub(super) fn flow(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(", ");
        match &self.value {
            Content::Scalar { text, .. } => quoted(text),
            Content::List(items) => format!("[{}]", joined(items.iter().map(Self::flow).collect())),
            Content::Map(_) => format!("{{ {} }}", self.flow_entries()),
        }
    }

    /// Returns the entries of a mapping as they stand between braces.
    pub(super) fn flow_entries(&self) -> String {
        let entry = |entry: &MapEntry| format!("{}: {}", quoted(&entry.key), entry.node.flow());
        let entries: Vec<_> = self.map_entries().iter().map(entry).collect();
        entries.join(", ")
    }

    /// Returns a mapping as lines of one key each; lists of texts stand behind their keys.
    pub(super) fn block(&self, style: Style) -> String {
        let (indent, mut text) = (style.indent, String::new());
        for entry in self.map_entries() {
            let key = quoted(&entry.key);
            // Writing to a string cannot fail.
            let _ = match &entry.node.value {
                Content::List(items) if items.iter().any(|item| !item.map_entries().is_empty()) => {
                    let dash = Style {
                        indent: indent + style.dash,
                        ..style
                    };
                    let items: String = items.iter().map(|item| item.block_item(dash)).collect();
                    write!(text, "{:indent$}{key}:\n{items}", "")
                }
                Content::Map(_) => {
                    let below = Style {
                        indent: indent + style.step,
                        ..style
                    };
                    write!(text, "{:indent$}{key}:\n{}", "", entry.node.block(below))
                }
                Content::List(_) | Content::Scalar { .. } => {
                    writeln!(text, "{:indent$}{key}: {}", "", entry.node.flow())
                }
            };
        }
        text
    }

    /// Returns a mapping as an item of a list, whose dash stands at the indentation.
    pub(super) fn block_item(&self, style: Style) -> String {
        let indent = style.indent;
        let keys = self.block(Style {
            indent: indent + 2,
            ..style
        });
        format!("{:indent$}- {}", "", keys.trim_start_matches(' '))
    }

    fn map_entries(&self) -> &[MapEntry] {
        match &self.value {
            Content::Map(entries) => entries,
            Content::List(_) | Content::Scalar { .. } => &[],
        }
    }
}

/// Returns a text as YAML: plain where every reader takes it for a text, else in double quotes.
pub(super) fn quoted(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(letter));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whether every reader takes a text without quotes for the same text: a name, a command of simple words, a method, a size.
fn is_plain(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_/ ".contains(&byte);
    let is_upper =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let is_words = text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with(' ')
        && text.bytes().all(is_letter);
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let is_size = unit.len() < text.len() && ["K", "M", "G", "KB", "MB", "GB"].contains(&unit);
    let is_name = is_upper(text) && text.starts_with(|first: char| first.is_ascii_uppercase());
    (is_words || is_name || is_size) && !NOT_TEXTS.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether there are as many of both, and each is like the one in its place.
pub(super) fn all_alike<A, B>(a: &[A], b: &[B], is_alike: impl Fn(&A, &B) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_alike(a, b))
}

pub(super) fn same_entry(a: &MapEntry, b: &MapEntry) -> bool {
    a.key == b.key && same(&a.node, &b.node)
}

/// Whether two values are written alike, wherever they are.
pub(super) fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (
            Content::Scalar { text, plain },
            Content::Scalar {
                text: other,
                plain: also,
            },
        ) => text == other && plain == also,
        (Content::List(a), Content::List(b)) => all_alike(a, b, same),
        (Content::Map(a), Content::Map(b)) => all_alike(a, b, same_entry),
        (Content::Scalar { .. } | Content::List(_) | Content::Map(_), _) => false,
    }
}
