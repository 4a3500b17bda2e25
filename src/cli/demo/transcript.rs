//! The output of the demo, and whether its steps went as they should.
//!
//! Every step has an expected result; a step with another one is shown as failed and fails the run.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use http::StatusCode;
use rustls::AlertDescription;

use super::client::{DemoReply, Error};

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";

/// The column at which the second part of a row begins.
const COLUMN: usize = 38;

const WIDTH: usize = 110;

/// Prints lines and counts failed steps.
pub(super) struct Transcript {
    failed: usize,
    is_coloured: bool,
    output: Box<dyn Write>,
    steps: usize,
}

/// The expected result of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// TLS ends with this alert.
    Alert(AlertDescription),
    /// A response with this status, and these words in its body.
    Answer(StatusCode, &'static str),
}

impl Transcript {
    /// Prints to standard output, in colour on a terminal unless `$NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stdout = std::io::stdout();
        Self {
            failed: 0,
            is_coloured: !no_color && stdout.is_terminal(),
            output: Box::new(stdout),
            steps: 0,
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        // A reader that closes early changes nothing: the exit code has the result.
        let _ = writeln!(self.output, "{text}");
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.line("");
        self.coloured_line(BOLD, text);
    }

    pub(super) fn note(&mut self, text: &str) {
        for line in wrapped(text) {
            self.line(&format!("     {line}"));
        }
    }

    pub(super) fn quote(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&format!("   | {line}"));
        }
    }

    /// Prints the result of a step. If it is wrong, prints what was expected, and counts a failure.
    pub(super) fn result(&mut self, what: &str, got: &str, expected: &str, holds: bool) {
        self.steps += 1;
        self.line(&format!("   {what:<COLUMN$} {got}"));
        if !holds {
            self.failed += 1;
            let failed = format!("   {:<COLUMN$} FAILED: expected {expected}", "");
            self.coloured_line(RED, &failed);
        }
    }

    /// Prints a call and its result.
    pub(super) fn call(&mut self, url: &str, outcome: &Result<DemoReply, Error>, expected: Expected) {
        let problem = outcome.as_ref().ok().and_then(DemoReply::problem);
        let got = match outcome {
            Ok(reply) => {
                let first_line = reply.text.lines().next().unwrap_or_default();
                let text = problem.as_ref().map_or(first_line, |(error, _)| error);
                format!("{} {text}", reply.status.as_u16())
            }
            Err(error) => error.to_string(),
        };
        let holds = expected.is_met_by(outcome);
        self.result(&format!("GET {url}"), &got, &expected.to_string(), holds);
        if let Some((_, sentence)) = problem {
            self.note(&sentence);
        }
    }

    /// Prints the last line, with a `hint` if all steps went well, and returns the exit code.
    pub(super) fn end(&mut self, hint: &str) -> ExitCode {
        self.line("");
        if self.failed == 0 {
            let text = format!("All {} steps went as they should.{hint}", self.steps);
            self.coloured_line(GREEN, &text);
            ExitCode::SUCCESS
        } else {
            let text = format!("{} of {} steps FAILED.", self.failed, self.steps);
            self.coloured_line(RED, &text);
            ExitCode::FAILURE
        }
    }

    fn coloured_line(&mut self, colour: &str, text: &str) {
        if self.is_coloured {
            self.line(&format!("{colour}{text}\x1b[0m"));
        } else {
            self.line(text);
        }
    }
}

impl Expected {
    pub(super) fn is_met_by(self, outcome: &Result<DemoReply, Error>) -> bool {
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

/// Splits `text` into lines that fit on a terminal.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &str) -> Result<DemoReply, Error> {
        Ok(DemoReply {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
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
            (token, Err(Error::Other("no answer".to_owned())), false),
            (
                alert,
                Err(Error::Alert(AlertDescription::CertificateRequired)),
                true,
            ),
            (alert, Err(Error::Alert(AlertDescription::UnknownCA)), false),
            (alert, Err(Error::Other("no answer".to_owned())), false),
            (alert, answer(200, ""), false),
        ];
        for (expected, outcome, holds) in cases {
            assert_eq!(expected.is_met_by(&outcome), holds, "{expected}: {outcome:?}");
        }
    }

    #[test]
    fn one_failed_step_fails_the_run() {
        let mut transcript = Transcript {
            // A failed step on standard output would look like a failed test.
            output: Box::new(std::io::sink()),
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
