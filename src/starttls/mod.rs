//! Protocols that ask for TLS in the clear: what is said before it begins, and right after.
//!
//! The app speaks clear text to a local port of ours, as if its server offered no TLS. An [`Upgrade`] asks the server for
//! TLS in the protocol's own words, and hides from the app that it was there:
//!
//! | protocol | who speaks first | what the app must not see |
//! | --- | --- | --- |
//! | PostgreSQL | the app | SCRAM-SHA-256-PLUS, which libpq takes for an attack where it has no TLS itself |
//! | MySQL | the server | CLIENT_SSL in the greeting; the packets are counted otherwise until the login is over |
//! | SMTP, IMAP | the server | what was said in the clear: anybody on the way can have said it |
//! | LDAP | the app | nothing |
//!
//! A server must say nothing between its consent and TLS. Bytes there were put in by somebody on the way, so that the
//! app would take them for the server's (CVE-2011-0411, CVE-2021-23222): they end the connection. What a server says in
//! the clear never reaches the app, but for the greeting of MySQL, which the login needs.
//!
//! Dialling, TLS and what follows are not here.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) use fault::UpgradeFault;

use crate::config::StartTls;

mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod imap;
mod ldap;
mod lines;
mod mysql;
mod mysql_key;
mod postgres;
mod smtp;
#[cfg(test)]
mod tests;

/// The first bytes of TLS: a handshake record of any version.
const TLS_HELLO: [u8; 2] = [0x16, 0x03];

/// The alert `handshake_failure`, in clear: what a client gets that begins TLS with us.
pub(crate) const TLS_REFUSAL: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28];

/// The upgrade of one connection.
#[derive(Debug)]
pub(crate) enum Upgrade {
    /// TLS begins at once.
    None,
    Imap,
    Ldap,
    Mysql(Box<mysql::Login>),
    Postgres(postgres::Startup),
    Smtp,
}

impl Upgrade {
    pub(crate) fn new(protocol: Option<StartTls>) -> Self {
        match protocol {
            None => Self::None,
            Some(StartTls::Imap) => Self::Imap,
            Some(StartTls::Ldap) => Self::Ldap,
            Some(StartTls::Mysql) => Self::Mysql(Box::default()),
            Some(StartTls::Postgres) => Self::Postgres(postgres::Startup::default()),
            Some(StartTls::Smtp) => Self::Smtp,
        }
    }

    /// Returns the name of the protocol inside TLS (ALPN), where clients offer one.
    pub(crate) fn alpn(&self) -> Option<&'static [u8]> {
        match self {
            // libpq offers it since version 17, so that no other protocol of the server can be meant.
            Self::Postgres(_) => Some(b"postgresql"),
            Self::None | Self::Imap | Self::Ldap | Self::Mysql(_) | Self::Smtp => None,
        }
    }

    pub(crate) fn is_mysql(&self) -> bool {
        matches!(self, Self::Mysql(_))
    }

    /// Whether the server has said nothing under TLS when the bytes begin to pass.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            Self::None | Self::Ldap => true,
            Self::Imap | Self::Mysql(_) | Self::Postgres(_) | Self::Smtp => false,
        }
    }

    /// Whether the next words are the app's.
    pub(crate) fn waits_for_app(&self) -> bool {
        match self {
            Self::Mysql(login) => login.waits_for_app(),
            Self::Postgres(startup) => startup.waits_for_app(),
            Self::None | Self::Imap | Self::Ldap | Self::Smtp => false,
        }
    }

    /// Reads what the app says before it needs a server.
    pub(crate) async fn hear<A>(&mut self, app: &mut A) -> Result<(), UpgradeFault>
    where
        A: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Self::Postgres(startup) => startup.hear(app).await,
            Self::None | Self::Imap | Self::Ldap | Self::Mysql(_) | Self::Smtp => Ok(()),
        }
    }

    /// Asks the server for TLS. Afterwards its next byte is TLS.
    pub(crate) async fn ask<A, S>(&mut self, app: &mut A, server: &mut S) -> Result<(), UpgradeFault>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Self::None => return Ok(()),
            Self::Imap => imap::ask(server).await?,
            Self::Ldap => ldap::ask(server).await?,
            Self::Mysql(login) => login.ask(app, server).await?,
            Self::Postgres(_) => postgres::ask(server).await?,
            Self::Smtp => smtp::ask(server).await?,
        }
        silent(server).await
    }

    /// Says under TLS what the app is to find: its connection is in order afterwards, and bytes pass unchanged. `host` is
    /// told to the app as the server's name.
    pub(crate) async fn begin<A, S>(
        &mut self,
        host: &str,
        app: &mut A,
        server: &mut S,
    ) -> Result<(), UpgradeFault>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Self::None | Self::Ldap => Ok(()),
            Self::Imap => imap::begin(host, app, server).await,
            Self::Mysql(login) => login.begin(app, server).await,
            Self::Postgres(startup) => startup.begin(app, server).await,
            Self::Smtp => smtp::begin(host, app, server).await,
        }
    }

    /// Returns how the protocol says that the connection failed; empty where it cannot say so.
    pub(crate) fn refusal(&self, why: &str) -> Vec<u8> {
        let why = fault::shown(why.as_bytes());
        match self {
            Self::None => Vec::new(),
            Self::Imap => imap::refusal(&why),
            Self::Ldap => ldap::refusal(&why),
            Self::Mysql(login) => login.refusal(&why),
            Self::Postgres(_) => postgres::refusal(&why),
            Self::Smtp => smtp::refusal(&why),
        }
    }

    /// Returns the same for an app that has got no byte of the server yet, once bytes pass unchanged.
    pub(crate) fn late_refusal(&self, why: &str) -> Vec<u8> {
        match self {
            Self::Ldap => self.refusal(why),
            // The others have said more by then.
            Self::None | Self::Imap | Self::Mysql(_) | Self::Postgres(_) | Self::Smtp => Vec::new(),
        }
    }
}

/// Whether the bytes are the begin of TLS, which the app leaves to us.
pub(crate) fn is_tls(first: &[u8]) -> bool {
    first.starts_with(&TLS_HELLO)
}

/// Sends words to the server.
async fn send<S: AsyncWrite + Unpin>(server: &mut S, words: &[u8]) -> Result<(), UpgradeFault> {
    write(server, words).await.map_err(UpgradeFault::Server)
}

/// Sends words to the app.
async fn tell<A: AsyncWrite + Unpin>(app: &mut A, words: &[u8]) -> Result<(), UpgradeFault> {
    write(app, words).await.map_err(UpgradeFault::App)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    stream.flush().await
}

/// Refuses bytes that follow a server's consent to TLS. What comes later is read as TLS, and fails there.
async fn silent<S: AsyncRead + Unpin>(server: &mut S) -> Result<(), UpgradeFault> {
    let mut byte = [0];
    let mut read = std::pin::pin!(server.read(&mut byte));
    let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(read.as_mut().poll(cx))).await;
    match ready {
        std::task::Poll::Pending => Ok(()),
        std::task::Poll::Ready(Ok(0)) => Err(UpgradeFault::Server(io::ErrorKind::UnexpectedEof.into())),
        std::task::Poll::Ready(Ok(_)) => Err(UpgradeFault::Injected),
        std::task::Poll::Ready(Err(error)) => Err(UpgradeFault::Server(error)),
    }
}
