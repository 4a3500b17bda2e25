//! Why a connection did not get as far as TLS, or not beyond its first words.

use std::io;
use std::time::Duration;

/// The most that is told of what a server says.
const LONGEST: usize = 300;

/// Why an upgrade failed. `Display` is a sentence that follows the server's name, with the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeFault {
    #[error("the app closed the connection before it was through")]
    App(#[source] io::Error),

    /// It was told that there is no TLS here, and wants it.
    #[error(
        "the app insists on TLS with the local port, which speaks clear text: outrider does TLS; set sslmode=disable (or \
         prefer) in the app"
    )]
    AppInsists,

    #[error("the app sent what is not {what}: is `starttls` the protocol that it speaks?")]
    AppMalformed { what: &'static str },

    #[error(
        "the app begins TLS with the local port, which speaks clear text: outrider does TLS; switch it off in the app, or \
         set `tls: off` here"
    )]
    AppSpeaksTls,

    #[error("the app closed the connection without a word")]
    AppSilent,

    #[error(
        "the app did not say what it should within {} (timeouts.response)",
        humantime::format_duration(*limit)
    )]
    AppTimeout { limit: Duration },

    #[error(
        "sent bytes in the clear behind its consent to TLS: somebody on the way puts them in, or it is no such server"
    )]
    Injected,

    /// TLS was up by then.
    #[error(
        "closed the connection right behind the TLS handshake{}; it may want a client certificate (tls.client_certificate), \
         or not accept ours",
        end(.0)
    )]
    Late(#[source] io::Error),

    #[error("does not answer as {what} does: check the port, and `starttls`")]
    Malformed { what: &'static str },

    #[error("no key for the app's password could be made; see that the system has random bytes")]
    NoKey,

    #[error("does not offer TLS{}; its operator must switch it on, or check the port", said(.0))]
    NotOffered(String),

    #[error(
        "wants channel binding only (SCRAM-SHA-256-PLUS), which binds the app to a TLS of its own; allow SCRAM-SHA-256"
    )]
    OnlyBound,

    #[error("has logged in without being asked (PREAUTH), so that TLS cannot begin any more; check the port")]
    Preauthenticated,

    #[error("refused{}", said(.0))]
    Refused(String),

    #[error("closed the connection{}", broken(.0))]
    Server(#[source] io::Error),

    #[error(
        "did not say what it should within {} (timeouts.response); check the port, and `starttls`",
        humantime::format_duration(*limit)
    )]
    Timeout { limit: Duration },

    #[error("says more than {LIMIT} KiB where a line is due; check the port, and `starttls`", LIMIT = super::lines::LONGEST_REPLY / 1024)]
    TooLong,
}

impl UpgradeFault {
    /// Returns the fault as it is told where TLS is up: nobody on the way can have put bytes in.
    pub(super) fn under_tls(self, what: &'static str) -> Self {
        match self {
            Self::Injected => Self::Malformed { what },
            other => other,
        }
    }

    /// Whether the app caused it, and not the server.
    pub(crate) fn is_of_app(&self) -> bool {
        match self {
            Self::App(_)
            | Self::AppInsists
            | Self::AppMalformed { .. }
            | Self::AppSpeaksTls
            | Self::AppSilent
            | Self::AppTimeout { .. } => true,
            Self::Injected
            | Self::Late(_)
            | Self::Malformed { .. }
            | Self::NoKey
            | Self::NotOffered(_)
            | Self::OnlyBound
            | Self::Preauthenticated
            | Self::Refused(_)
            | Self::Server(_)
            | Self::Timeout { .. }
            | Self::TooLong => false,
        }
    }

    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::App(_) | Self::AppSilent | Self::Late(_) | Self::Server(_) => "connection_terminated",
            Self::AppTimeout { .. } | Self::Timeout { .. } => "connection_timeout",
            Self::AppInsists | Self::AppMalformed { .. } | Self::AppSpeaksTls => "http_request_error",
            Self::NoKey => "proxy_internal_error",
            Self::Refused(_) => "destination_unavailable",
            Self::Injected
            | Self::Malformed { .. }
            | Self::NotOffered(_)
            | Self::OnlyBound
            | Self::Preauthenticated
            | Self::TooLong => "tls_protocol_error",
        }
    }
}

/// Returns what a peer said, fit for a log: a bounded part of it, without control characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * LONGEST)]);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let kept: String = text.trim().chars().take(LONGEST).map(clean).collect();
    kept.trim().to_owned()
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": it says “{text}”")
    }
}

fn end(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => String::new(),
        _ => format!(" ({error})"),
    }
}

fn broken(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        " before TLS was agreed on; check the port, and `starttls`".to_owned()
    } else {
        format!(" ({error})")
    }
}
