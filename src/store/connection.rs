//! One connection to a server: commands go out many at a time, answers come back in the same order.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use super::error::Error;
use super::resp::{self, ProtocolError, RedisReply};

/// How long an answer may take before the connection is given up.
const OVERDUE: Duration = Duration::from_secs(1);

/// Room for the login: a buffer that grows leaves copies of the password behind.
const ROOM: usize = 2048;

/// Both directions of a connection, with or without TLS.
pub(super) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for S {}

/// An open connection. `T`: what the caller wants to get back with each answer.
pub(super) struct RedisConnection<T> {
    stream: Box<dyn RedisStream>,
    /// Bytes that were read and are not parsed yet.
    input: Vec<u8>,
    /// Commands that are not written yet. It has held the password.
    output: Zeroizing<Vec<u8>>,
    /// TLS may hold back what was written until it is flushed.
    is_flushed: bool,
    pending: VecDeque<(T, Instant)>,
    /// When the server's certificate ends; `None` without TLS.
    until: Option<SystemTime>,
}

impl<T> RedisConnection<T> {
    pub(super) fn new(stream: Box<dyn RedisStream>, until: Option<SystemTime>) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Zeroizing::new(Vec::with_capacity(ROOM)),
            is_flushed: true,
            pending: VecDeque::new(),
            until,
        }
    }

    /// Makes a fresh connection of the same stream: without the buffer that has held the password.
    pub(super) fn logged_in<U>(self) -> RedisConnection<U> {
        RedisConnection::new(self.stream, self.until)
    }

    /// Returns whether the server's certificate has ended.
    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds a command; [`next`](Self::next) sends it, and returns its answer together with `about`.
    pub(super) fn command(&mut self, command: &[&[u8]], about: T) {
        resp::write(command, &mut self.output);
        self.pending.push_back((about, Instant::now()));
    }

    /// Returns what the answers would have been about that did not come.
    pub(super) fn abandon(self) -> Vec<T> {
        self.pending.into_iter().map(|(about, _)| about).collect()
    }

    /// Waits for all answers and returns the last one. Fails when one of them is an error; `refused` explains it.
    pub(super) async fn finish(&mut self, refused: impl Fn(&str) -> Error) -> Result<RedisReply, Error> {
        let mut last = RedisReply::Nil;
        while !self.pending.is_empty() {
            last = self.next().await?.1;
            if let RedisReply::Error(text) = &last {
                return Err(refused(text));
            }
        }
        Ok(last)
    }

    /// Returns the next answer and what it is about. Dropping the future loses nothing. Fails when an answer is
    /// overdue or the server closes the connection; waits for ever when no answer is expected.
    pub(super) async fn next(&mut self) -> Result<(T, RedisReply), Error> {
        loop {
            if let Some((reply, length)) = resp::read(&self.input)? {
                self.input.drain(..length);
                // Nobody asked for this answer.
                let (about, _) = self.pending.pop_front().ok_or(ProtocolError)?;
                return Ok((about, reply));
            }
            if !self.output.is_empty() {
                self.is_flushed = false;
                match in_time(self.stream.write(&self.output)).await {
                    Ok(written) => drop(self.output.drain(..written)),
                    Err(error) => self.read_last(error).await?,
                }
            } else if !self.is_flushed {
                in_time(self.stream.flush()).await?;
                self.is_flushed = true;
            } else {
                let read = self.stream.read_buf(&mut self.input);
                let read = match self.pending.front() {
                    None => read.await?,
                    Some((_, sent)) => match timeout_at(*sent + OVERDUE, read).await {
                        Ok(read) => read?,
                        Err(_) => return Err(Error::Slow { limit: OVERDUE }),
                    },
                };
                if read == 0 {
                    return Err(Error::Closed);
                }
            }
        }
    }

    /// Reads what the server has sent before it closed: it says more than `error`, which came of writing.
    async fn read_last(&mut self, error: Error) -> Result<(), Error> {
        self.output.clear();
        match in_time(self.stream.read_buf(&mut self.input)).await {
            Ok(read) if read > 0 => Ok(()),
            // An alert of TLS.
            Err(Error::Io(alert)) if alert.kind() == io::ErrorKind::InvalidData => Err(alert.into()),
            Ok(_) | Err(_) => Err(error),
        }
    }
}

async fn in_time<V>(step: impl Future<Output = io::Result<V>>) -> Result<V, Error> {
    match timeout(OVERDUE, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Slow { limit: OVERDUE }),
    }
}
