//! A connection to the store: resolve → approve → dial → TLS → AUTH, then calls and their answers, many at a time.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use super::StoreAddress;
use super::resp::{self, ProtocolError, RedisReply};
use crate::host::Host;
use crate::policy::{Approved, Egress};
use crate::upstream::resolve::{self, Resolver};
use crate::upstream::{dial, tls};

/// Both directions of a connection, in the clear or not.
pub(super) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for S {}

/// What it takes to reach the store.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) address: StoreAddress,
    pub(super) egress: Egress,
    pub(super) resolver: Resolver,
    /// `None` where the store is spoken to in the clear.
    pub(super) tls: Option<tls::Settings>,
}

/// An open connection; `T` is what the caller wants to know again with the answer.
pub(super) struct RedisConnection<T> {
    stream: Box<dyn RedisStream>,
    /// Read, not yet understood.
    inbox: Vec<u8>,
    /// Said, not yet written. It has held the password.
    outbox: Zeroizing<Vec<u8>>,
    /// Written, and perhaps kept back by TLS.
    is_flushed: bool,
    pending: VecDeque<(T, Instant)>,
    /// When the certificate ends by which the server is known; `None` in the clear.
    until: Option<SystemTime>,
}

/// Why the store cannot be asked. Never shows what the server said beyond a word: servers repeat what they were told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the store has closed the connection")]
    Closed,

    #[error(
        "{place} is a listener of outrider itself, or a metadata service of the platform; name the store"
    )]
    Denied { place: String },

    #[error("the store cannot be reached")]
    Dial(#[from] dial::Error),

    #[error("the connection to the store has failed")]
    Io(#[from] io::Error),

    #[error(transparent)]
    ProtocolError(#[from] ProtocolError),

    #[error("the store has refused with {kind}{}", hint(kind))]
    Refused { kind: String },

    #[error("the name of the store cannot be resolved")]
    Resolve(#[from] resolve::Error),

    #[error("the store did not answer within {}", humantime::format_duration(*.limit))]
    Slow { limit: Duration },

    #[error("TLS with the store has failed")]
    Tls(#[from] Box<tls::Error>),
}

impl Error {
    /// By the kind of an error that the server has answered.
    pub(super) fn refused(kind: &str) -> Self {
        let is_word = |letter: &char| letter.is_ascii_uppercase();
        Self::Refused {
            kind: kind.chars().take_while(is_word).take(LONGEST_KIND).collect(),
        }
    }
}

impl Connector {
    /// Opens a connection that the server has let in.
    pub(super) async fn open<T>(&self) -> Result<RedisConnection<T>, Error> {
        let approved = self.approved().await?;
        let target = &self.address.target;
        let stream = dial::dial(&approved, LIMIT).await?;
        let (stream, until): (Box<dyn RedisStream>, _) = match &self.tls {
            None => (Box::new(stream), None),
            Some(settings) => {
                let secured = settings.connect_bare(stream, &target.host, LIMIT).await;
                let tls::Secured { stream, until } = secured.map_err(Box::new)?;
                (Box::new(stream), Some(until))
            }
        };
        let mut connection = RedisConnection::new(stream);
        timeout(LIMIT, self.enter(&mut connection))
            .await
            .unwrap_or(Err(Error::Slow { limit: LIMIT }))?;
        let connection = RedisConnection::new(connection.stream);
        Ok(RedisConnection { until, ..connection })
    }

    async fn approved(&self) -> Result<Approved, Error> {
        let target = &self.address.target;
        let resolved = match &target.host {
            Host::Name(name) => self.resolver.resolve(name).await?,
            Host::V4(address) => [IpAddr::from(*address)].into(),
            Host::V6(address) => [IpAddr::from(*address)].into(),
        };
        let approved = self.egress.approve(&resolved, target.port);
        approved.map_err(|_| Error::Denied {
            place: self.address.to_string(),
        })
    }

    /// Says the password and chooses the database.
    async fn enter(&self, connection: &mut RedisConnection<()>) -> Result<(), Error> {
        let StoreAddress {
            user,
            password,
            database,
            ..
        } = &self.address;
        let database = database.to_string();
        match (user, password) {
            (Some(user), Some(password)) => {
                connection.say(&[b"AUTH", user.as_bytes(), password.expose()]);
                connection.expect(());
            }
            (None, Some(password)) => {
                connection.say(&[b"AUTH", password.expose()]);
                connection.expect(());
            }
            (_, None) => {}
        }
        // Also where it is the first: the answer shows that the server lets us in and is ready.
        connection.say(&[b"SELECT", database.as_bytes()]);
        connection.expect(());
        connection.settled().await
    }
}

impl<T> RedisConnection<T> {
    pub(super) fn new(stream: Box<dyn RedisStream>) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            outbox: Zeroizing::new(Vec::with_capacity(ROOM)),
            is_flushed: true,
            pending: VecDeque::new(),
            until: None,
        }
    }

    /// Whether the certificate by which the server is known has ended.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Puts a command on its connector; it leaves with [`next`](Self::next). An answer is to be [expected](Self::expect).
    pub(super) fn say(&mut self, command: &[&[u8]]) {
        resp::write(command, &mut self.outbox);
    }

    pub(super) fn expect(&mut self, about: T) {
        self.pending.push_back((about, Instant::now()));
    }

    /// Hears out what is expected; an error of the server's fails.
    pub(super) async fn settled(&mut self) -> Result<(), Error> {
        while !self.pending.is_empty() {
            if let (_, RedisReply::Error(text)) = self.next().await? {
                return Err(Error::refused(&text));
            }
        }
        Ok(())
    }

    /// The next answer and what it is about. Dropping the future loses nothing. Fails where an answer is overdue; waits
    /// for ever where none is expected, unless the server closes the connection.
    pub(super) async fn next(&mut self) -> Result<(T, RedisReply), Error> {
        loop {
            if let Some((reply, length)) = resp::read(&self.inbox)? {
                self.inbox.drain(..length);
                // An answer that nobody has asked for.
                let (about, _) = self.pending.pop_front().ok_or(ProtocolError)?;
                return Ok((about, reply));
            }
            if !self.outbox.is_empty() {
                self.is_flushed = false;
                let written = in_time(self.stream.write(&self.outbox)).await?;
                self.outbox.drain(..written);
            } else if !self.is_flushed {
                in_time(self.stream.flush()).await?;
                self.is_flushed = true;
            } else {
                let read = self.stream.read_buf(&mut self.inbox);
                let read = match self.pending.front() {
                    None => read.await?,
                    Some((_, said)) => match timeout_at(*said + OVERDUE, read).await {
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
}

async fn in_time<V>(step: impl Future<Output = io::Result<V>>) -> Result<V, Error> {
    match timeout(OVERDUE, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Slow { limit: OVERDUE }),
    }
}

/// What a person can do about an error of the server's.
fn hint(kind: &str) -> &'static str {
    match kind {
        "MOVED" | "ASK" | "CLUSTERDOWN" => ": it is a cluster; name a store that is not",
        "NOAUTH" | "WRONGPASS" => ": check the password in its address",
        "NOPERM" => ": its user must be allowed EVAL, EVALSHA, TIME, hashes and sorted sets",
        "READONLY" => ": it is a replica; name the primary",
        "WRONGTYPE" => ": somebody else has written to our keys",
        _ => "",
    }
}

/// To a connection, to a finished handshake, to be let in: each.
const LIMIT: Duration = Duration::from_secs(2);

/// From when on an answer does not come any more.
const OVERDUE: Duration = Duration::from_secs(1);

const LONGEST_KIND: usize = 32;

/// A buffer that grows leaves copies behind.
const ROOM: usize = 2048;
