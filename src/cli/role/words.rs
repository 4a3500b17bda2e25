//! Splits the text of a shell into commands and their words.
//!
//! Only what tells one word from the next is understood: quotes, escapes, comments, operators, here-documents, and the
//! names of variables. The body of a substitution is taken as further commands.

use std::iter::Peekable;
use std::str::Chars;

/// One command: its words, and the text of its here-documents, which it reads.
#[derive(Debug, Default)]
pub(super) struct ShellCommand {
    pub(super) words: Vec<ShellWord>,
    pub(super) input: String,
}

/// A word, in pieces.
#[derive(Debug, Default)]
pub(super) struct ShellWord(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    /// A variable, and its value if it is not set.
    Variable {
        name: String,
        default: String,
    },
}

impl ShellWord {
    /// Returns the text, with what `value` says of each variable, and nothing of one that would get longer than `most`
    /// bytes: variables made of variables double with each line.
    pub(super) fn with(&self, most: usize, value: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable { name, default } => {
                    text.push_str(&value(name).unwrap_or_else(|| default.clone()));
                }
            }
            if text.len() > most {
                return String::new();
            }
        }
        text
    }

    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            Some(Piece::Variable { .. }) | None => self.0.push(Piece::Text(c.to_string())),
        }
    }
}

/// A here-document that begins after this line.
struct HereDocument {
    /// The number of the command that reads it.
    command: usize,
    end: String,
    is_indented: bool,
}

/// Returns the commands of a text.
pub(super) fn commands(text: &str) -> Vec<ShellCommand> {
    let mut commands = vec![ShellCommand::default()];
    let mut documents = Vec::new();
    let mut word: Option<ShellWord> = None;
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' if !is_quoted => {
                let word = word.get_or_insert_default();
                chars
                    .by_ref()
                    .take_while(|c| *c != '\'')
                    .for_each(|c| word.push(c));
            }
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '#' if !is_quoted && word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            ' ' | '\t' if !is_quoted => end_word(&mut commands, &mut word),
            ';' | '&' | '|' | '\n' | '(' | ')' | '`' if !is_quoted => {
                end_word(&mut commands, &mut word);
                if c == '\n' {
                    for document in documents.drain(..) {
                        read_document(&document, &mut chars, &mut commands);
                    }
                }
                commands.push(ShellCommand::default());
            }
            '<' if !is_quoted && chars.peek() == Some(&'<') => {
                chars.next();
                if chars.next_if_eq(&'<').is_some() {
                    // A text in place of a file: the next word.
                    end_word(&mut commands, &mut word);
                    "<<<".chars().for_each(|c| word.get_or_insert_default().push(c));
                    end_word(&mut commands, &mut word);
                    continue;
                }
                documents.push(HereDocument {
                    command: commands.len() - 1,
                    is_indented: chars.next_if_eq(&'-').is_some(),
                    end: delimiter(&mut chars),
                });
            }
            '$' => {
                let is_braced = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                let mut default = String::new();
                if is_braced {
                    default = chars.by_ref().take_while(|c| *c != '}').collect();
                    let after = default.trim_start_matches(':').strip_prefix(['-', '=']);
                    default = after.unwrap_or_default().to_owned();
                }
                let word = word.get_or_insert_default();
                word.0.push(Piece::Variable { name, default });
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    end_word(&mut commands, &mut word);
    commands
}

/// Adds a word to the last command.
fn end_word(commands: &mut [ShellCommand], word: &mut Option<ShellWord>) {
    if let (Some(command), Some(word)) = (commands.last_mut(), word.take()) {
        command.words.push(word);
    }
}

/// Reads the word that ends a here-document, without its quotes.
fn delimiter(chars: &mut Peekable<Chars<'_>>) -> String {
    while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    let mut end = String::new();
    while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !";&|()<>".contains(*c)) {
        if !matches!(c, '\'' | '"' | '\\') {
            end.push(c);
        }
    }
    end
}

/// Gives a here-document to its command: the lines up to its end. Without an end it was no here-document but a shift of
/// bits, as in `$((1 << 2))`.
fn read_document(document: &HereDocument, chars: &mut Peekable<Chars<'_>>, commands: &mut [ShellCommand]) {
    let mut body = String::new();
    let mut ahead = chars.clone();
    loop {
        if ahead.peek().is_none() {
            return;
        }
        let line: String = ahead.by_ref().take_while(|c| *c != '\n').collect();
        let line = if document.is_indented {
            line.trim_start_matches('\t')
        } else {
            &line
        };
        if line == document.end {
            break;
        }
        body.push_str(line);
        body.push('\n');
    }
    *chars = ahead;
    if let Some(command) = commands.get_mut(document.command) {
        command.input.push_str(&body);
    }
}
