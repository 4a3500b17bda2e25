//! IMAP: STARTTLS of RFC 9051, section 6.2.1.
//!
//! The greeting and the capabilities that the server told before TLS are forgotten: the app gets a greeting without any,
//! and so asks for them under TLS.

use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::shown;
use super::lines::LineReader;
use super::{UpgradeFault, send, tell};

const WHAT: &str = "IMAP";

pub(super) async fn ask<S>(server: &mut S) -> Result<(), UpgradeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = LineReader::default();
    let greeting = reader.line(server).await?;
    match status(&greeting, "*") {
        Some(("OK", _)) => {}
        Some(("PREAUTH", _)) => return Err(UpgradeFault::Preauthenticated),
        Some(("BYE", text)) => return Err(UpgradeFault::Refused(shown(text))),
        Some(_) | None => return Err(UpgradeFault::Malformed { what: WHAT }),
    }
    reader.end()?;
    send(server, b"o1 STARTTLS\r\n").await?;
    done(server, &mut reader, "o1").await
}

pub(super) async fn begin<A, S>(host: &str, app: &mut A, server: &mut S) -> Result<(), UpgradeFault>
where
    A: AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    // In TLS 1.3 a refused certificate shows only now, and the app gets the reason instead of a greeting.
    send(server, b"o2 NOOP\r\n").await?;
    let done = done(server, &mut LineReader::default(), "o2").await;
    done.map_err(|fault| fault.under_tls(WHAT))?;
    tell(app, format!("* OK {host} over TLS by outrider\r\n").as_bytes()).await
}

pub(super) fn refusal(why: &str) -> Vec<u8> {
    format!("* BYE outrider: {why}\r\n").into_bytes()
}

/// Reads until the answer to the command `tag`. What comes untagged before it is nobody's.
async fn done<S: AsyncRead + Unpin>(
    server: &mut S,
    reader: &mut LineReader,
    tag: &str,
) -> Result<(), UpgradeFault> {
    reader.begin();
    loop {
        let line = reader.line(server).await?;
        match status(&line, tag) {
            Some(("OK", _)) => return reader.end(),
            // Dovecot without TLS knows no such command.
            Some(("BAD" | "NO", text)) => return Err(UpgradeFault::NotOffered(shown(text))),
            Some(_) => return Err(UpgradeFault::Malformed { what: WHAT }),
            None => match status(&line, "*") {
                Some(("BYE", text)) => return Err(UpgradeFault::Refused(shown(text))),
                Some(_) => {}
                None => return Err(UpgradeFault::Malformed { what: WHAT }),
            },
        }
    }
}

/// Splits a line into its first word after the tag, in capitals, and the rest; `None` where it has another tag.
fn status<'l>(line: &'l [u8], tag: &str) -> Option<(&'static str, &'l [u8])> {
    let rest = line.strip_prefix(tag.as_bytes())?.strip_prefix(b" ")?;
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (word, text) = rest.split_at(end);
    let known = ["OK", "NO", "BAD", "BYE", "PREAUTH"];
    let known = known
        .into_iter()
        .find(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    Some((known.unwrap_or_default(), text.trim_ascii()))
}
