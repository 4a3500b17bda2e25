//! Splits the text of a shell into commands and their words.
//!
//! Only what tells one word from the next is understood: quotes, escapes, comments, operators, and the names of
//! variables. The body of a substitution is taken as further commands.

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

/// Returns the commands of a text.
pub(super) fn commands(text: &str) -> Vec<Vec<ShellWord>> {
    let mut commands = vec![Vec::new()];
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
                commands.push(Vec::new());
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
fn end_word(commands: &mut [Vec<ShellWord>], word: &mut Option<ShellWord>) {
    if let (Some(command), Some(word)) = (commands.last_mut(), word.take()) {
        command.push(word);
    }
}
