//! SMTP: STARTTLS of RFC 3207.
//!
//! All that the server said before TLS is forgotten, as the standard wants it. The app gets a greeting of ours, and asks
//! for the capabilities itself, under TLS. Before that we ask for them once: a server that does not accept our
//! certificate in TLS 1.3 says so only now, and the app gets the reason as its greeting.

use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::shown;
use super::lines::LineReader;
use super::{UpgradeFault, send, tell};

/// Our name in the greetings that the server forgets again: any client may call itself by its address.
const HELLO: &[u8] = b"EHLO [127.0.0.1]\r\n";

const WHAT: &str = "SMTP";

/// The reply to a command (RFC 5321 section 4.2).
struct Reply {
    code: u16,
    lines: Vec<Vec<u8>>,
}

pub(super) async fn ask<S>(server: &mut S) -> Result<(), UpgradeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = LineReader::default();
    reply(server, &mut reader).await?.wanted(220)?;
    send(server, HELLO).await?;
    let hello = reply(server, &mut reader).await?;
    let hello = hello.wanted(250)?;
    if !hello.lines.iter().skip(1).any(|line| is_starttls(line)) {
        return Err(UpgradeFault::NotOffered(String::new()));
    }
    send(server, b"STARTTLS\r\n").await?;
    reply(server, &mut reader).await?.wanted(220)?;
    Ok(())
}

pub(super) async fn begin<A, S>(host: &str, app: &mut A, server: &mut S) -> Result<(), UpgradeFault>
where
    A: AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(server, HELLO).await?;
    let hello = reply(server, &mut LineReader::default()).await;
    hello.map_err(|fault| fault.under_tls(WHAT))?.wanted(250)?;
    tell(
        app,
        format!("220 {host} ESMTP, over TLS by outrider\r\n").as_bytes(),
    )
    .await
}

pub(super) fn refusal(why: &str) -> Vec<u8> {
    format!("421 4.4.1 outrider: {why}\r\n").into_bytes()
}

/// Reads a reply of one line or several. Nothing may follow it.
async fn reply<S: AsyncRead + Unpin>(server: &mut S, reader: &mut LineReader) -> Result<Reply, UpgradeFault> {
    let malformed = || UpgradeFault::Malformed { what: WHAT };
    reader.begin();
    let mut lines = Vec::new();
    let mut first = None;
    loop {
        let line = reader.line(server).await?;
        let (code, rest) = line.split_at_checked(3).ok_or_else(malformed)?;
        let code = code.is_ascii().then(|| std::str::from_utf8(code).ok()).flatten();
        let code: u16 = code.and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
        if *first.get_or_insert(code) != code {
            return Err(malformed());
        }
        let (is_last, text) = match rest.split_first() {
            None => (true, &[][..]),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(malformed()),
        };
        lines.push(text.to_owned());
        if is_last {
            reader.end()?;
            return Ok(Reply { code, lines });
        }
    }
}

fn is_starttls(line: &[u8]) -> bool {
    let keyword = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    keyword.eq_ignore_ascii_case(b"STARTTLS")
}

impl Reply {
    fn wanted(self, code: u16) -> Result<Self, UpgradeFault> {
        if self.code == code {
            return Ok(self);
        }
        let last = self.lines.last().map(|line| shown(line)).unwrap_or_default();
        Err(UpgradeFault::Refused(format!("{} {last}", self.code)))
    }
}
