//! Log lines: JSON or text on standard error, never blocking traffic.
//!
//! Lines go through a bounded queue to a thread that writes them; where whoever reads is too slow, lines are dropped
//! and counted. Every line passes one last gate that escapes control characters, whatever a dependency or the wire put
//! into it. Standard output is left alone: under `exec` it is the child's.

use std::borrow::Cow;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use super::access;
use crate::config::{Log, LogFormat};

/// Keeps the log alive: lines still queued are written when it is dropped.
#[must_use = "the log ends with its guard"]
#[derive(Debug)]
pub(crate) struct LogGuard {
    /// `None` where the process has another log already.
    level: Option<reload::Handle<Targets, Registry>>,
    _worker: WorkerGuard,
}

/// Starts the log of this process. `$OUTRIDER_LOG` (`error`, `warn`, `info`, `debug`, `trace`) goes before the
/// configured level.
///
/// Where a log was started before, that one stays and this call changes nothing.
pub(crate) fn init(log: &Log) -> LogGuard {
    let (writer, worker) = queue(io::stderr());
    let dropped = writer.error_counter();
    let (filter, level) = reload::Layer::new(filter(level(log)));
    let subscriber = subscriber(filter, text(log.format), EscapingWriter(writer));
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return LogGuard {
            level: None,
            _worker: worker,
        };
    }
    // Set once: only the first log of a process comes here.
    let _ = DROPPED.set(dropped);
    LogGuard {
        level: Some(level),
        _worker: worker,
    }
}

impl LogGuard {
    /// Takes over the level of a reloaded configuration. The format stays as it was at start.
    pub(crate) fn reload(&self, log: &Log) {
        if let Some(handle) = &self.level {
            // Fails only where the subscriber is gone, and with it the log.
            let _ = handle.reload(filter(level(log)));
        }
    }
}

/// Lines given up so far because the queue was full.
pub(super) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// The bounded queue and the thread that writes.
fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("log")
        .finish(writer)
}

/// Whether lines are text for a person: as configured, or by who reads them.
fn text(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    }
}

fn level(log: &Log) -> Level {
    let asked = env::var("OUTRIDER_LOG")
        .ok()
        .and_then(|level| level.trim().parse().ok());
    asked.unwrap_or(log.level)
}

/// Our own lines at `level`, access lines at every level (another setting rules them), those of dependencies only
/// where they warn: at debug and trace some of them print what passes through, secrets included.
fn filter(level: Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::from_level(level.min(Level::WARN)))
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target(access::TARGET, Level::INFO)
}

/// Everything between an event and the line that is written.
fn subscriber<F, W>(
    filter: F,
    text: bool,
    writer: EscapingWriter<W>,
) -> impl tracing::Subscriber + Send + Sync
where
    F: tracing_subscriber::Layer<Registry> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    // No colours: their escape sequences could not be told from those that somebody smuggled in.
    let as_text = text.then(|| fmt::layer().with_ansi(false).with_writer(writer.clone()));
    let as_json = (!text).then(|| {
        let layer = fmt::layer().json().flatten_event(true);
        layer
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(as_text)
        .with(as_json)
}

/// The last gate: one event is one line, free of control characters.
#[derive(Clone, Debug)]
struct EscapingWriter<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for EscapingWriter<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

/// The formatter hands over a whole line, line end included, in one call.
impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(&clean(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes control characters (C0, DEL, C1) as JSON does, the line end left out. The usual line is passed on as it is.
fn clean(line: &[u8]) -> Cow<'_, [u8]> {
    let (text, end) = match line {
        [text @ .., b'\n'] => (text, &b"\n"[..]),
        _ => (line, &b""[..]),
    };
    // C1 characters are U+0080 to U+009F, in UTF-8 a C2 and the character's own number.
    let is_c1 = |i: usize| text[i] == 0xc2 && text.get(i + 1).is_some_and(|byte| (0x80..0xa0).contains(byte));
    if !(0..text.len()).any(|i| text[i].is_ascii_control() || is_c1(i)) {
        return Cow::Borrowed(line);
    }
    let mut cleaned = Vec::with_capacity(line.len() + 64);
    let mut i = 0;
    while i < text.len() {
        if is_c1(i) {
            i += 1;
        } else if !text[i].is_ascii_control() {
            cleaned.push(text[i]);
            i += 1;
            continue;
        }
        cleaned.extend_from_slice(format!("\\u{:04x}", text[i]).as_bytes());
        i += 1;
    }
    cleaned.extend_from_slice(end);
    Cow::Owned(cleaned)
}

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines waiting at most: at some hundred bytes each, a reader that stands still costs about a megabyte.
const QUEUE: usize = 2048;

/// The log as it is, but for where it goes.
/// An error with all its causes, as one line. For people: the first level often says only what was attempted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain<'e>(pub(crate) &'e (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn captured<W>(level: Level, text: bool, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    subscriber(filter(level), text, EscapingWriter(writer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::lines_of;

    /// G2: whatever stands in a value, it stays inside its line and its field.
    #[test]
    fn no_value_breaks_out_of_its_line() {
        for value in [
            "two\nlines",
            "carriage\r\nreturn",
            "\u{1b}[31mred\u{1b}[0m",
            "\u{9b}31mred",
            "\u{0}\u{8}\u{7f}\u{85}",
            "\"}{\"level\":\"ERROR\"",
            "caf\u{e9} \u{a0} \u{c2}",
        ] {
            let event = || tracing::warn!(field = value, debug = ?value, display = %value, "{value}");
            for text in [true, false] {
                let written = lines_of(Level::INFO, text, event);
                let line = written.strip_suffix('\n').unwrap();
                assert!(!line.chars().any(char::is_control), "{line:?}");
            }
            let line: serde_json::Value = serde_json::from_str(&lines_of(Level::INFO, false, event)).unwrap();
            assert_eq!((&line["level"], &line["field"]), (&"WARN".into(), &value.into()));
        }
    }

    #[test]
    fn a_line_without_control_characters_is_not_copied() {
        for (line, cleaned) in [
            ("plain\n", "plain\n"),
            ("caf\u{e9}\n", "caf\u{e9}\n"),
            ("a\nb\n", "a\\u000ab\n"),
            ("a\tb", "a\\u0009b"),
            ("\u{9b}m\n", "\\u009bm\n"),
            ("\n\n", "\\u000a\n"),
            ("", ""),
        ] {
            assert_eq!(clean(line.as_bytes()), cleaned.as_bytes(), "{line:?}");
            let same = matches!(clean(line.as_bytes()), Cow::Borrowed(_));
            assert_eq!(same, line == cleaned, "{line:?}");
        }
    }

    /// G1: some dependencies print what passes through at debug and trace.
    #[test]
    fn dependencies_speak_only_when_they_warn() {
        for (level, lines) in [(Level::ERROR, 1), (Level::INFO, 3), (Level::TRACE, 4)] {
            let written = lines_of(level, true, || {
                tracing::error!(target: "outrider::upstream", "ours");
                tracing::trace!(target: "outrider::upstream", "ours");
                tracing::warn!(target: "outrider", "ours");
                tracing::debug!(target: "hyper::proto", "theirs: CANARY");
                tracing::info!(target: "h2::client", "theirs: CANARY");
                tracing::warn!(target: "rustls", "theirs");
            });
            assert_eq!(written.lines().count(), lines, "{written}");
            assert!(!written.contains("CANARY"), "{written}");
        }
    }

    #[test]
    fn a_reload_takes_the_new_level_over() {
        let captured = crate::telemetry::tests::Captured::default();
        let (layer, handle) = reload::Layer::new(filter(Level::INFO));
        let (_, worker) = queue(io::sink());
        let guard = LogGuard {
            level: Some(handle),
            _worker: worker,
        };
        tracing::subscriber::with_default(subscriber(layer, true, EscapingWriter(captured.clone())), || {
            for level in [Level::INFO, Level::DEBUG, Level::ERROR] {
                guard.reload(&Log {
                    format: LogFormat::Json,
                    level,
                    access: crate::config::Access::Errors,
                });
                tracing::debug!("under {level}");
            }
        });
        let written = captured.text();
        assert!(
            written.lines().count() == 1 && written.contains("under DEBUG"),
            "{written}"
        );
    }

    /// K7: the reader stands still; the writers do not, and what they lose is counted.
    #[test]
    fn a_reader_that_stands_still_holds_nobody_up() {
        let (blocked, gate) = std::sync::mpsc::sync_channel::<()>(0);
        struct Stuck(std::sync::mpsc::SyncSender<()>);
        impl Write for Stuck {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                // Returns when the test lets go of the other end.
                let _ = self.0.send(());
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (writer, worker) = queue(Stuck(blocked));
        let dropped = writer.error_counter();
        tracing::subscriber::with_default(captured(Level::INFO, false, writer), || {
            for _ in 0..QUEUE + 100 {
                tracing::info!("line");
            }
        });
        assert!(
            (99..=100).contains(&dropped.dropped_lines()),
            "{}",
            dropped.dropped_lines()
        );
        drop(gate);
        drop(worker);
    }
}
