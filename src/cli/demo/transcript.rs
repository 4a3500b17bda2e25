//! What the demo tells, and whether it went as it should.
//!
//! Every step says what it should come to; one that does not is shown as failed, counted, and fails the run.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use http::StatusCode;
use rustls::AlertDescription;

use super::client::{Error, Reply};

/// Lines on standard output; what fails is counted.
#[derive(Debug)]
pub(super) struct Transcript {
    failed: usize,
    is_coloured: bool,
    output: Output,
    steps: usize,
}

/// Who is told.
#[derive(Debug)]
enum Output {
    /// Tests: a failed step of theirs would pass for a failed test.
    #[cfg(test)]
    Nobody,
    Stdout,
}

/// What a call should come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// TLS ends with this alert.
    Alert(AlertDescription),
    /// This status, and these words in the body.
    Answer(StatusCode, &'static str),
}

impl Transcript {
    /// Coloured on a terminal, unless `$NO_COLOR` says otherwise.
    pub(super) fn new() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            failed: 0,
            is_coloured: !no_color && std::io::stdout().is_terminal(),
            output: Output::Stdout,
            steps: 0,
        }
    }

    pub(super) fn line(&self, text: &str) {
        match self.output {
            #[cfg(test)]
            Output::Nobody => {}
            // A reader that has seen enough changes nothing: the exit code tells the rest.
            Output::Stdout => drop(writeln!(std::io::stdout(), "{text}")),
        }
    }

    pub(super) fn heading(&self, text: &str) {
        self.line("");
        self.line(&self.painted(BOLD, text));
    }

    pub(super) fn note(&self, text: &str) {
        for line in wrapped(text) {
            self.line(&format!("     {line}"));
        }
    }

    pub(super) fn quote(&self, text: &str) {
        text.lines().for_each(|line| self.line(&format!("   | {line}")));
    }

    /// Two columns.
    fn row(&self, left: &str, right: &str) {
        self.line(&format!("   {left:<COLUMN$} {right}"));
    }

    /// A step that came to `got`, and what it should have come to.
    pub(super) fn result(&mut self, what: &str, got: &str, expected: &str, holds: bool) {
        self.steps += 1;
        self.row(what, got);
        if !holds {
            self.failed += 1;
            let failed = format!("   {:<COLUMN$} FAILED: expected {expected}", "");
            self.line(&self.painted(RED, &failed));
        }
    }

    /// A call, and what it came to.
    pub(super) fn call(&mut self, url: &str, outcome: &Result<Reply, Error>, expected: Expected) {
        let problem = outcome.as_ref().ok().and_then(Reply::problem);
        let got = match (outcome, &problem) {
            (Ok(answer), Some((error, _))) => format!("{} {error}", answer.status.as_u16()),
            (Ok(answer), None) => format!(
                "{} {}",
                answer.status.as_u16(),
                answer.text.lines().next().unwrap_or_default()
            ),
            (Err(error), _) => error.to_string(),
        };
        let holds = expected.is_met_by(outcome);
        self.result(&format!("GET {url}"), &got, &expected.to_string(), holds);
        if let Some((_, sentence)) = problem {
            self.note(&sentence);
        }
    }

    /// The last line, with a `hint` behind it where all is well, and the exit code.
    pub(super) fn end(&self, hint: &str) -> ExitCode {
        self.line("");
        if self.failed == 0 {
            self.line(&self.painted(
                GREEN,
                &format!("All {} steps went as they should.{hint}", self.steps),
            ));
            ExitCode::SUCCESS
        } else {
            self.line(&self.painted(RED, &format!("{} of {} steps FAILED.", self.failed, self.steps)));
            ExitCode::FAILURE
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        match self.is_coloured {
            true => format!("{colour}{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

impl Expected {
    pub(super) fn is_met_by(self, outcome: &Result<Reply, Error>) -> bool {
        match (self, outcome) {
            (Self::Alert(expected), Err(Error::Alert(alert))) => *alert == expected,
            (Self::Answer(status, words), Ok(answer)) => {
                answer.status == status && answer.text.contains(words)
            }
            (Self::Alert(_) | Self::Answer(..), _) => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "{}", Error::Alert(*alert)),
            Self::Answer(status, words) => write!(f, "{} and \"{words}\"", status.as_u16()),
        }
    }
}

/// `text` in lines that a terminal shows whole.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_ascii_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";

/// Where the second column of a row begins.
const COLUMN: usize = 38;

const WIDTH: usize = 110;

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, text: &str) -> Result<Reply, Error> {
        Ok(Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn a_call_is_right_only_with_its_status_and_its_words() {
        let token = Expected::Answer(StatusCode::OK, "right");
        let alert = Expected::Alert(AlertDescription::CertificateRequired);
        let cases = [
            (token, answer(200, "the token is right"), true),
            (token, answer(200, "no token"), false),
            (token, answer(401, "the token is right"), false),
            (token, Err(Error::Slow), false),
            (
                alert,
                Err(Error::Alert(AlertDescription::CertificateRequired)),
                true,
            ),
            (alert, Err(Error::Alert(AlertDescription::UnknownCA)), false),
            (alert, Err(Error::Slow), false),
            (alert, answer(200, ""), false),
        ];
        for (expected, outcome, holds) in cases {
            assert_eq!(expected.is_met_by(&outcome), holds, "{expected}: {outcome:?}");
        }
    }

    #[test]
    fn one_failed_step_fails_the_run() {
        let mut transcript = Transcript {
            output: Output::Nobody,
            ..Transcript::new()
        };
        let right = Expected::Answer(StatusCode::OK, "");
        transcript.call("http://a.demo/", &answer(200, ""), right);
        assert_eq!(transcript.end(""), ExitCode::SUCCESS);
        transcript.call("http://a.demo/", &answer(403, ""), right);
        transcript.call("http://a.demo/", &answer(200, ""), right);
        assert_eq!(transcript.end(""), ExitCode::FAILURE);
    }

    #[test]
    fn long_lines_are_wrapped_between_words() {
        let text = "word ".repeat(50);
        let lines = wrapped(&text);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" "), text.trim_end());
    }
}
