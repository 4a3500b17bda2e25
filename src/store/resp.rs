//! The part of the Redis protocol (RESP2) that a few commands need: writes commands and reads answers.
//!
//! Commands are lists of byte strings. Answers are read from whatever has arrived; what is larger or nested deeper
//! than any answer to our commands is refused, because the bytes come from a network.

/// As deep as the map of a cluster: ranges, servers, metadata.
const DEEPEST: usize = 4;
const LONGEST_KIND: usize = 32;
const LONGEST_LINE: usize = 4096;
const LONGEST_LIST: usize = 4096;
const LONGEST_TEXT: usize = 64 * 1024;
const LONGEST_REPLY: usize = 256 * 1024;

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedisReply {
    /// The whole text, which begins with a word such as `NOSCRIPT`.
    Error(String),
    Integer(i64),
    List(Vec<Self>),
    Nil,
    Text(Vec<u8>),
}

/// Bytes that are no answer to any command of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came back is not the protocol of a Redis server")]
pub(super) struct ProtocolError;

/// Appends a command.
pub(super) fn write(command: &[&[u8]], to: &mut Vec<u8>) {
    line(b'*', command.len(), to);
    for part in command {
        line(b'$', part.len(), to);
        to.extend_from_slice(part);
        to.extend_from_slice(b"\r\n");
    }
}

/// Reads the answer at the front of `bytes`, and how long it is; `None` where it is not all there yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(RedisReply, usize)>, ProtocolError> {
    let mut reader = ReplyReader { bytes, at: 0 };
    match reader.reply(0) {
        Ok(reply) => Ok(Some((reply, reader.at))),
        Err(ReplyFault::Incomplete) if bytes.len() <= LONGEST_REPLY => Ok(None),
        Err(ReplyFault::Incomplete | ReplyFault::ProtocolError) => Err(ProtocolError),
    }
}

impl RedisReply {
    /// Returns the kind of an error.
    #[cfg(test)]
    pub(super) fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(error_kind(text)),
            Self::Integer(_) | Self::List(_) | Self::Nil | Self::Text(_) => None,
        }
    }

    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Error(_) | Self::List(_) | Self::Nil | Self::Text(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            Self::Error(_) | Self::Integer(_) | Self::List(_) | Self::Nil => None,
        }
    }

    /// A list of whole numbers.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        let Self::List(items) = self else { return None };
        items.iter().map(Self::number).collect()
    }
}

/// Returns the kind of an error: its first word. Redis 5 and 6 write the kind of a script's error at the end, as in
/// `ERR Error running script (call to f_…): @user_script:65: @user_script: 65: -READONLY You can't …`.
pub(super) fn error_kind(text: &str) -> &str {
    let first = capitals(text);
    if !text.starts_with("ERR Error running script") {
        return first;
    }
    let inner = text.rsplit(": ").next().unwrap_or(text);
    match capitals(inner.trim_start_matches('-')) {
        inner if inner.len() > 1 => inner,
        _ => first,
    }
}

fn capitals(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_uppercase());
    &text[..end.unwrap_or(text.len()).min(LONGEST_KIND)]
}

fn line(kind: u8, number: usize, to: &mut Vec<u8>) {
    to.push(kind);
    to.extend_from_slice(number.to_string().as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// Why no answer could be read.
enum ReplyFault {
    Incomplete,
    ProtocolError,
}

struct ReplyReader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> ReplyReader<'b> {
    fn reply(&mut self, depth: usize) -> Result<RedisReply, ReplyFault> {
        let (kind, text) = self.line()?.split_first().ok_or(ReplyFault::ProtocolError)?;
        match kind {
            b'+' => Ok(RedisReply::Text(text.to_vec())),
            b'-' => Ok(RedisReply::Error(String::from_utf8_lossy(text).into_owned())),
            b':' => number(text).map(RedisReply::Integer),
            b'$' => match length(text, LONGEST_TEXT)? {
                None => Ok(RedisReply::Nil),
                Some(length) => {
                    let text = self.take(length)?.to_vec();
                    match self.take(2)? {
                        b"\r\n" => Ok(RedisReply::Text(text)),
                        _ => Err(ReplyFault::ProtocolError),
                    }
                }
            },
            b'*' if depth < DEEPEST => match length(text, LONGEST_LIST)? {
                None => Ok(RedisReply::Nil),
                Some(length) => (0..length)
                    .map(|_| self.reply(depth + 1))
                    .collect::<Result<_, _>>()
                    .map(RedisReply::List),
            },
            _ => Err(ReplyFault::ProtocolError),
        }
    }

    /// Up to the end of the line, without it.
    fn line(&mut self) -> Result<&'b [u8], ReplyFault> {
        let rest = &self.bytes[self.at..];
        match rest.windows(2).take(LONGEST_LINE).position(|two| two == b"\r\n") {
            Some(end) => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            None if rest.len() > LONGEST_LINE => Err(ReplyFault::ProtocolError),
            None => Err(ReplyFault::Incomplete),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ReplyFault> {
        let taken = self
            .bytes
            .get(self.at..self.at + length)
            .ok_or(ReplyFault::Incomplete)?;
        self.at += length;
        Ok(taken)
    }
}

fn number(text: &[u8]) -> Result<i64, ReplyFault> {
    let text = std::str::from_utf8(text).map_err(|_| ReplyFault::ProtocolError)?;
    text.parse().map_err(|_| ReplyFault::ProtocolError)
}

/// A length; `None` for the one that says that there is nothing.
fn length(text: &[u8], most: usize) -> Result<Option<usize>, ReplyFault> {
    match number(text)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            Ok(_) | Err(_) => Err(ReplyFault::ProtocolError),
        },
    }
}
