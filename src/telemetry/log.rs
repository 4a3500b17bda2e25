//! The log: lines of JSON or text on standard error, which never block traffic.
//!
//! Lines go through a bounded queue to a thread that writes them; if the reader is too slow, lines are dropped and
//! counted. The last writer escapes control characters, wherever they came from. Standard output is not used: under
//! `exec` it belongs to the child.

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

use super::{access, counter_log};
use crate::config::{Log, LogFormat};

/// How many lines may wait. At some hundred bytes each, a reader that stops costs about a megabyte.
const QUEUE: usize = 2048;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Keeps the log running. Lines still queued are written when it is dropped.
#[must_use = "the log ends with its guard"]
#[derive(Debug)]
pub(crate) struct LogGuard {
    /// `None` if the process had another log already.
    level: Option<reload::Handle<Targets, Registry>>,
    _worker: WorkerGuard,
}

/// Starts the log of this process. `$OUTRIDER_LOG` (`error`, `warn`, `info`, `debug`, `trace`) overrides the
/// configured level.
///
/// If the process has a log already, this call changes nothing.
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
    // Set once: only the first log of a process gets here.
    let _ = DROPPED.set(dropped);
    LogGuard {
        level: Some(level),
        _worker: worker,
    }
}

impl LogGuard {
    /// Applies the level of a reloaded configuration. The format stays as it was at start.
    pub(crate) fn reload(&self, log: &Log) {
        if let Some(handle) = &self.level {
            // Fails only if the subscriber is gone, and with it the log.
            let _ = handle.reload(filter(level(log)));
        }
    }
}

/// Returns how many lines were dropped because the queue was full.
pub(super) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// Starts the bounded queue and the thread that writes.
fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("log")
        .finish(writer)
}

/// Returns whether lines are plain text: as configured, or on a terminal.
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

/// Lets our own lines pass at `level`, access lines always (another setting controls them), and lines of
/// dependencies only from `warn` up: at debug and trace some of them print what passes through, secrets
/// included.
fn filter(level: Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::from_level(level.min(Level::WARN)))
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target(access::TARGET, Level::INFO)
        .with_target(counter_log::TARGET, Level::INFO)
}

/// Builds the subscriber, which turns an event into a line.
fn subscriber<F, W>(
    filter: F,
    text: bool,
    writer: EscapingWriter<W>,
) -> impl tracing::Subscriber + Send + Sync
where
    F: tracing_subscriber::Layer<Registry> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    // No colours: their escape sequences look like those that an attacker could smuggle in.
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

/// Writes one event as one line, with control characters escaped.
#[derive(Clone, Debug)]
struct EscapingWriter<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for EscapingWriter<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

/// The formatter passes a whole line, line end included, in one call.
impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(&clean(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes control characters (C0, DEL, C1) as JSON does, except the line end. A line without any is not copied.
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

/// Returns a subscriber like that of the log, with another writer.
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

    /// G2: a value stays inside its line and its field.
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
    fn dependencies_are_logged_only_from_warn_up() {
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
    fn a_reload_applies_the_new_level() {
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
                    metrics: None,
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

    /// K7: a reader that stops does not stop the writers, and lost lines are counted.
    #[test]
    fn a_reader_that_stops_delays_nobody() {
        let (blocked, gate) = std::sync::mpsc::sync_channel::<()>(0);
        struct Stuck(std::sync::mpsc::SyncSender<()>);
        impl Write for Stuck {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                // Returns when the test drops the other end.
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
