//! Adds destinations to the text of a configuration, which stays as it is otherwise.
//!
//! Lines are inserted; comments, blank lines, quotes and the order of what is there are not touched. The result is read
//! again and compared with the old tree: it must have the new destinations and not one other difference. A text in which
//! that does not succeed is refused, with the lines to add by hand.
//!
//! Which destinations are added is decided in `cli/learn`.

use std::fmt::Write as _;

use super::node::{Content, LineColumn, MapEntry, Node};

const KEY: &str = "destinations";

/// Words that some reader of YAML takes for a boolean or nothing where they stand without quotes.
const NOT_TEXTS: [&str; 12] = [
    "false", "inf", "n", "nan", "no", "none", "null", "off", "on", "true", "y", "yes",
];

/// A destination to add: hosts, and perhaps the only paths and methods that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewDestination {
    pub(crate) name: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) methods: Vec<String>,
}

/// Why a text cannot be changed; `Display` contains the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MergeError {
    #[error(
        "the file has line ends of a carriage return alone; save it with usual line ends, or add the lines by hand"
    )]
    LineEnds,
    #[error(
        "the file is written in a way in which lines cannot be added without a change of the rest; write `destinations:` as \
         a mapping of one line a key, or add the lines by hand"
    )]
    Unclear,
}

/// Returns `text` with more destinations. An empty text becomes a configuration of these alone.
pub(crate) fn add_destinations(text: &str, new: &[NewDestination]) -> Result<String, MergeError> {
    if new.is_empty() {
        return Ok(text.to_owned());
    }
    let (mark, bare) = match text.strip_prefix('\u{feff}') {
        Some(bare) => ("\u{feff}", bare),
        None => ("", text),
    };
    if bare.replace("\r\n", "").contains('\r') {
        return Err(MergeError::LineEnds);
    }
    let root = if bare.is_empty() {
        None
    } else {
        Some(Node::parse(bare).map_err(|_| MergeError::Unclear)?)
    };
    let lines = SourceLines::of(bare);
    let merged = match &root {
        None => block(new, &Style::default(), Some(0)),
        Some(root) => insert(&lines, root, new).ok_or(MergeError::Unclear)?,
    };
    let is_right = Node::parse(&merged).is_ok_and(|after| adds_only(root.as_ref(), &after, new));
    is_right
        .then(|| format!("{mark}{merged}"))
        .ok_or(MergeError::Unclear)
}

/// Returns the lines that a person would add by hand.
pub(crate) fn destination_lines(new: &[NewDestination]) -> String {
    block(new, &Style::default(), Some(0))
}

/// The text by lines, each with its end.
struct SourceLines<'t> {
    text: &'t str,
    lines: Vec<&'t str>,
    /// What ends the first line, and each new one.
    end: &'static str,
}

/// How the entries of `destinations` are written.
struct Style {
    /// Columns before a name.
    indent: usize,
    /// Columns more before its keys.
    step: usize,
    /// A blank line stands between entries.
    spaced: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            indent: 2,
            step: 2,
            spaced: false,
        }
    }
}

impl<'t> SourceLines<'t> {
    fn of(text: &'t str) -> Self {
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
    fn offset(&self, (line, column): LineColumn) -> Option<usize> {
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
    fn with_lines(&self, at: usize, what: &str) -> String {
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

    fn is_blank(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| line.trim().is_empty())
    }

    /// Whether a line is a comment that stands further left than `indent`.
    fn is_outer_comment(&self, line: usize, indent: usize) -> bool {
        self.lines.get(line).is_some_and(|line| {
            let content = line.trim_start_matches(' ');
            content.starts_with('#') && line.len() - content.len() < indent
        })
    }
}

/// Returns the text with the new destinations, or `None` where no place for them is found.
fn insert(lines: &SourceLines<'_>, root: &Node, new: &[NewDestination]) -> Option<String> {
    let Content::Map(entries) = &root.value else {
        return None;
    };
    let start = lines.offset(root.at)?;
    let is_flow = lines.text[start..].starts_with('{');
    let Some(index) = entries.iter().position(|entry| entry.key == KEY) else {
        if is_flow {
            let item = format!(" {KEY}: {{ {} }}", flow(new));
            return Some(in_front(lines.text, start + 1, &item, !entries.is_empty()));
        }
        return Some(append(lines, root.at.1 - 1, new));
    };
    let entry = &entries[index];
    match &entry.node.value {
        Content::Map(inner) => {
            let at = lines.offset(entry.node.at)?;
            match (lines.text[at..].starts_with('{'), inner.is_empty()) {
                (true, false) => Some(in_front(lines.text, at + 1, &format!(" {}", flow(new)), true)),
                (true, true) => {
                    let inside = &lines.text[at + 1..];
                    let blanks = inside.len() - inside.trim_start().len();
                    let rest = inside[blanks..].strip_prefix('}')?;
                    let before = &lines.text[..at];
                    replaced(lines, entry, is_flow, before, rest, new)
                }
                (false, _) => below(lines, inner, entries.get(index + 1), new),
            }
        }
        Content::Scalar { .. } if entry.node.is_null() => {
            // The parser gives `~` also for a value that is not written, so it is looked for in the text.
            let colon = after_colon(lines, entry)?;
            let blanks = lines.text[colon..]
                .bytes()
                .take_while(|byte| *byte == b' ')
                .count();
            let written = &lines.text[colon + blanks..];
            let null = ["~", "null", "Null", "NULL"]
                .into_iter()
                .find(|null| written.starts_with(null));
            let (before, rest) = match null {
                Some(null) => (&lines.text[..colon + blanks], &written[null.len()..]),
                None => lines.text.split_at(colon),
            };
            replaced(lines, entry, is_flow, before, rest, new)
        }
        Content::Scalar { .. } | Content::List(_) => None,
    }
}

/// Returns the byte after the colon of a key whose value is not written.
fn after_colon(lines: &SourceLines<'_>, entry: &MapEntry) -> Option<usize> {
    let at = lines.offset(entry.at)?;
    let rest = &lines.text[at..];
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
    let written = entry.key.len() + quote.map_or(0, |_| 2);
    let between = rest.get(written..)?;
    let colon = between
        .find(|letter: char| letter != ' ')
        .filter(|colon| between[*colon..].starts_with(':'))?;
    Some(at + written + colon + 1)
}

/// Returns the text where the empty value between `before` and `rest` is replaced.
fn replaced(
    lines: &SourceLines<'_>,
    entry: &MapEntry,
    is_flow: bool,
    before: &str,
    rest: &str,
    new: &[NewDestination],
) -> Option<String> {
    if is_flow {
        let gap = if before.ends_with(' ') { "" } else { " " };
        return Some(format!("{before}{gap}{{ {} }}{rest}", flow(new)));
    }
    let (line, after) = rest.split_at(rest.find('\n').map_or(rest.len(), |end| end + 1));
    // A comment stays behind the key, after a blank.
    let (before, line) = match line.trim_start_matches(' ') {
        bare if bare.trim().is_empty() => (before.trim_end_matches(' '), bare),
        comment if before.ends_with(' ') => (before, comment),
        _ => (before, line),
    };
    let end = if line.ends_with('\n') { "" } else { lines.end };
    let style = Style {
        indent: entry.at.1 - 1 + 2,
        ..Style::default()
    };
    let added = lines.ended(&block(new, &style, None));
    Some(format!("{before}{line}{end}{added}{after}"))
}

/// Returns the text with the entries below the last one of a mapping of one line a key. `next`: the key after it.
fn below(
    lines: &SourceLines<'_>,
    inner: &[MapEntry],
    next: Option<&MapEntry>,
    new: &[NewDestination],
) -> Option<String> {
    let first = inner.first()?;
    let indent = first.at.1 - 1;
    let last = inner.last()?;
    let step = match &first.node.value {
        Content::Map(keys) => keys
            .first()
            .filter(|key| key.at.0 > first.at.0)
            .map(|key| key.at.1 - 1),
        Content::List(_) | Content::Scalar { .. } => None,
    };
    let mut heading = last.at.0 - 1;
    while heading > 0 && lines.lines[heading - 1].trim_start().starts_with('#') {
        heading -= 1;
    }
    let style = Style {
        indent,
        step: step
            .and_then(|step| step.checked_sub(indent))
            .filter(|step| *step > 0)
            .unwrap_or(2),
        spaced: inner.len() > 1 && heading > 0 && lines.is_blank(heading - 1),
    };
    let end_of_document = |line: &&str| line.starts_with("...");
    let ends = lines.lines.iter().skip(last.at.0).position(end_of_document);
    let mut at = match next {
        Some(next) => next.at.0 - 1,
        None => ends.map_or(lines.lines.len(), |line| line + last.at.0),
    };
    while at > last.at.0 && (lines.is_blank(at - 1) || lines.is_outer_comment(at - 1, indent)) {
        at -= 1;
    }
    let gap = if style.spaced { "\n" } else { "" };
    Some(lines.with_lines(at, &format!("{gap}{}", block(new, &style, None))))
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
    let style = Style {
        indent: indent + 2,
        ..Style::default()
    };
    lines.with_lines(at, &format!("{gap}{}", block(new, &style, Some(indent))))
}

/// Returns a text with `what` at a byte, and a comma where `more` follows.
fn in_front(text: &str, at: usize, what: &str, more: bool) -> String {
    let (before, after) = text.split_at(at);
    let comma = match after.starts_with(char::is_whitespace) {
        true if more => ",",
        false if more => ", ",
        _ => " ",
    };
    format!("{before}{what}{comma}{after}")
}

/// Returns the entries, one line a key; `key`: with `destinations:` in front, at this column.
fn block(new: &[NewDestination], style: &Style, key: Option<usize>) -> String {
    let mut text = String::new();
    if let Some(column) = key {
        let _ = writeln!(text, "{:column$}{KEY}:", "");
    }
    let (indent, inner) = (style.indent, style.indent + style.step);
    for (i, destination) in new.iter().enumerate() {
        if i > 0 && style.spaced {
            text.push('\n');
        }
        let _ = writeln!(text, "{:indent$}{}:", "", quoted(&destination.name));
        for (key, values) in destination.keys() {
            let _ = writeln!(text, "{:inner$}{key}: {}", "", list(values));
        }
    }
    text
}

/// Returns the entries for a mapping in braces.
fn flow(new: &[NewDestination]) -> String {
    let entries = new.iter().map(|destination| {
        let keys = destination
            .keys()
            .map(|(key, values)| format!("{key}: {}", list(values)));
        let keys: Vec<_> = keys.collect();
        format!("{}: {{ {} }}", quoted(&destination.name), keys.join(", "))
    });
    entries.collect::<Vec<_>>().join(", ")
}

impl NewDestination {
    /// Returns the keys that are written, with their values.
    fn keys(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let keys = [
            ("hosts", &*self.hosts),
            ("paths", &*self.paths),
            ("methods", &*self.methods),
        ];
        keys.into_iter()
            .filter(|(key, values)| *key == "hosts" || !values.is_empty())
    }
}

/// Returns texts as a list in YAML.
fn list(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", values.join(", "))
}

/// Returns a text as YAML: plain where every reader takes it for a text, else in double quotes.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_word = text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(is_plain);
    if (is_word || is_method) && !NOT_TEXTS.contains(&text.to_ascii_lowercase().as_str()) {
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
        && all_alike(&added, new, |entry, new| is_written(&entry.node, new))
}

/// Whether there are as many of both, and each is like the one in its place.
fn all_alike<A, B>(a: &[A], b: &[B], is_alike: impl Fn(&A, &B) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_alike(a, b))
}

/// Returns the entries of a tree; none where nothing was written.
fn entries_of(root: Option<&Node>) -> Option<&[MapEntry]> {
    match root.map(|root| &root.value) {
        None => Some(&[]),
        Some(Content::Map(entries)) => Some(entries),
        Some(Content::List(_) | Content::Scalar { .. }) => None,
    }
}

fn same_entry(a: &MapEntry, b: &MapEntry) -> bool {
    a.key == b.key && same(&a.node, &b.node)
}

/// Whether two values are written alike, wherever they are.
fn same(a: &Node, b: &Node) -> bool {
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

/// Whether a node says exactly what a new destination does.
fn is_written(node: &Node, new: &NewDestination) -> bool {
    let Content::Map(keys) = &node.value else {
        return false;
    };
    let expected: Vec<_> = new.keys().collect();
    let is_text =
        |item: &Node, value: &String| matches!(&item.value, Content::Scalar { text, .. } if text == value);
    let is_list = |node: &Node, values: &[String]| match &node.value {
        Content::List(items) => all_alike(items, values, is_text),
        Content::Scalar { .. } | Content::Map(_) => false,
    };
    all_alike(keys, &expected, |key, (name, values)| {
        key.key == *name && is_list(&key.node, values)
    })
}

#[cfg(test)]
mod tests;
