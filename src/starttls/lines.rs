//! Protocols of lines, as SMTP and IMAP: a bounded reader.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::UpgradeFault;

/// The most that is read of one reply, in bytes.
pub(super) const LONGEST_REPLY: usize = 16 * 1024;

/// Reads lines of a server. What it has read of the next line is kept.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    buffer: Vec<u8>,
    /// So much of the current reply has been taken out of the buffer.
    taken: usize,
}

impl LineReader {
    /// Begins a reply: its length is bounded anew.
    pub(super) fn begin(&mut self) {
        self.taken = 0;
    }

    /// Reads a line, without its end.
    pub(super) async fn line<S: AsyncRead + Unpin>(
        &mut self,
        server: &mut S,
    ) -> Result<Vec<u8>, UpgradeFault> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.taken += line.len();
                line.pop();
                line.pop_if(|byte| *byte == b'\r');
                return Ok(line);
            }
            if self.taken + self.buffer.len() >= LONGEST_REPLY {
                return Err(UpgradeFault::TooLong);
            }
            let mut chunk = [0; 1024];
            let count = server.read(&mut chunk).await.map_err(UpgradeFault::Server)?;
            if count == 0 {
                return Err(UpgradeFault::Server(io::ErrorKind::UnexpectedEof.into()));
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    /// Refuses bytes behind the last line.
    pub(super) fn end(&self) -> Result<(), UpgradeFault> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(UpgradeFault::Injected)
        }
    }
}
