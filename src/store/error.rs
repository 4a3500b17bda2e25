//! Why the store cannot be asked, and what a person can do about it.

use std::io;
use std::time::Duration;

use super::resp::{ProtocolError, error_kind};
use crate::upstream::resolve;
use crate::upstream::{dial, tls};

const NOT_ALLOWED: &str = "its user lacks a permission; docs/fleets.md lists them";

/// What a person can do about an error of a server: its kind, a part of its text, the remedy. The first line that
/// fits counts. A script's errors of Redis 5 and 6, and some of Redis 7, have the kind `ERR`.
const SERVER_REMEDIES: &[(&str, &str, &str)] = &[
    ("ASK", "", "its slots are being moved for long; check the cluster"),
    (
        "BUSY",
        "",
        "a script of somebody else has run for long; SCRIPT KILL ends it",
    ),
    (
        "CLUSTERDOWN",
        "",
        "a part of the cluster has no primary; with cluster-require-full-coverage no the other parts go on",
    ),
    (
        "DENIED",
        "",
        "it is in protected mode; give it a password, or bind it to the address that is dialled",
    ),
    (
        "ERR",
        "any password",
        "it asks for no password; leave the password out of its address",
    ),
    (
        "ERR",
        "no password is set",
        "it asks for no password; leave the password out of its address",
    ),
    ("ERR", "invalid password", "check the password in its address"),
    (
        "ERR",
        "arguments for 'auth'",
        "it knows no users before Redis 6; leave the user out of its address",
    ),
    ("ERR", "run this command", NOT_ALLOWED),
    ("ERR", "ACL failure", NOT_ALLOWED),
    (
        "ERR",
        "cluster mode",
        "a cluster has no database but 0; leave the number out of the address",
    ),
    (
        "ERR",
        "DB index",
        "it has no database of this number; correct the address, or raise databases",
    ),
    (
        "ERR",
        "max number of clients",
        "it has too many connections; raise maxclients",
    ),
    (
        "ERR",
        "unknown command 'SELECT'",
        "it is a Sentinel; write redis+sentinel://HOST:PORT/PRIMARY",
    ),
    (
        "ERR",
        "unknown command `SELECT`",
        "it is a Sentinel; write redis+sentinel://HOST:PORT/PRIMARY",
    ),
    (
        "ERR",
        "unknown command",
        "a command that is needed is disabled or renamed there (rename-command)",
    ),
    ("LOADING", "", "it still reads its data from the disk; wait"),
    (
        "MASTERDOWN",
        "",
        "it is a replica that does not reach its primary; name the primary",
    ),
    ("MISCONF", "", "it cannot save to its disk; see its log"),
    (
        "MOVED",
        "",
        "its slots are being moved for long; check the cluster",
    ),
    ("NOAUTH", "", "check the password in its address"),
    ("NOPERM", "", NOT_ALLOWED),
    (
        "NOREPLICAS",
        "",
        "it has fewer replicas than it needs to take writes (min-replicas-to-write)",
    ),
    (
        "OOM",
        "",
        "its memory is full; raise maxmemory, or set a maxmemory-policy that evicts keys",
    ),
    (
        "READONLY",
        "",
        "it is a replica; name the primary or its Sentinels; during a failover, wait",
    ),
    (
        "TRYAGAIN",
        "",
        "its slots are being moved for long; check the cluster",
    ),
    ("WRONGPASS", "", "check the password in its address"),
    ("WRONGTYPE", "", "somebody else has written to our keys"),
];

/// The same for a Sentinel.
const SENTINEL_REMEDIES: &[(&str, &str, &str)] = &[
    ("DENIED", "", "it is in protected mode; give it a password"),
    (
        "ERR",
        "any password",
        "it asks for no password; leave out sentinel_password",
    ),
    (
        "ERR",
        "no password is set",
        "it asks for no password; leave out sentinel_password",
    ),
    ("ERR", "invalid password", "check sentinel_password"),
    (
        "ERR",
        "unknown command",
        "it is no Sentinel; name the Sentinels, whose port is 26379 mostly, or write redis://",
    ),
    (
        "NOAUTH",
        "",
        "it asks for a password; set sentinel_password, because that of the address is for the servers",
    ),
    (
        "NOPERM",
        "",
        "the default user must be allowed SENTINEL GET-MASTER-ADDR-BY-NAME",
    ),
    ("WRONGPASS", "", "check sentinel_password"),
];

/// Why the store cannot be asked. Shows the first word of an error only: servers repeat in the rest what they were
/// sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the store has closed the connection")]
    Closed,

    #[error(
        "{place} is a listener of outrider itself, or a metadata service of the platform; name the store"
    )]
    Denied { place: String },

    #[error("the store cannot be reached")]
    Dial(#[source] dial::Error),

    #[error("the connection to the store has failed")]
    Io(#[from] io::Error),

    #[error("{place} is not part of a cluster; write redis:// or rediss:// in the address")]
    NoCluster { place: String },

    #[error(
        "the cluster names a server without an address; with cluster-preferred-endpoint-type hostname each server needs \
         cluster-announce-hostname"
    )]
    NoEndpoint,

    #[error("no Sentinel knows a primary named `{name}`; check the name in the address")]
    NoPrimary { name: String },

    /// To a connection, or to the TLS handshake. The limits of `timeouts` do not hold for the store.
    #[error(
        "no answer{step} within {}; check host, port and the firewalls on the way{hint}",
        humantime::format_duration(*.limit)
    )]
    NoAnswer {
        hint: String,
        limit: Duration,
        step: &'static str,
    },

    #[error("no server of the cluster keeps the slot of a limit; see CLUSTER INFO")]
    NoSlot,

    #[error(transparent)]
    Protocol(#[from] ProtocolError),

    #[error("the store has refused with {kind}{}{remedy}", colon(remedy))]
    Refused { kind: String, remedy: &'static str },

    #[error("the name of the store cannot be resolved")]
    Resolve(#[from] resolve::Error),

    #[error("the Sentinel {place} has refused with {kind}{}{remedy}", colon(remedy))]
    SentinelRefused {
        place: String,
        kind: String,
        remedy: &'static str,
    },

    #[error("the store did not answer within {}", humantime::format_duration(*.limit))]
    Slow { limit: Duration },

    #[error("TLS with the store has failed")]
    Tls(#[source] Box<tls::Error>),
}

impl From<dial::Error> for Error {
    fn from(error: dial::Error) -> Self {
        match error {
            dial::Error::Timeout { limit } => Self::NoAnswer {
                hint: String::new(),
                limit,
                step: "",
            },
            error => Self::Dial(error),
        }
    }
}

impl From<tls::Error> for Error {
    fn from(error: tls::Error) -> Self {
        match error {
            tls::Error::Timeout { hint, limit, .. } => Self::NoAnswer {
                hint,
                limit,
                step: " to the TLS handshake",
            },
            error => Self::Tls(Box::new(error)),
        }
    }
}

impl Error {
    /// Builds the error from what a server has answered.
    pub(super) fn refused(text: &str) -> Self {
        let (kind, remedy) = explain(text, SERVER_REMEDIES);
        Self::Refused { kind, remedy }
    }

    /// Builds the error from what the Sentinel at `place` has answered.
    pub(super) fn refused_by_sentinel(text: &str, place: String) -> Self {
        let (kind, remedy) = explain(text, SENTINEL_REMEDIES);
        Self::SentinelRefused { place, kind, remedy }
    }

    /// Returns whether a server has said this itself. Then it says more than an error of a server that is away.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::NoCluster { .. }
            | Self::NoEndpoint
            | Self::NoPrimary { .. }
            | Self::NoSlot
            | Self::Refused { .. }
            | Self::SentinelRefused { .. } => true,
            Self::Closed
            | Self::Denied { .. }
            | Self::Dial(_)
            | Self::Io(_)
            | Self::NoAnswer { .. }
            | Self::Protocol(_)
            | Self::Resolve(_)
            | Self::Slow { .. }
            | Self::Tls(_) => false,
        }
    }
}

fn explain(text: &str, remedies: &[(&str, &str, &'static str)]) -> (String, &'static str) {
    let kind = error_kind(text);
    let fits = |(of, part, _): &&(&str, &str, &str)| *of == kind && text.contains(part);
    let remedy = remedies.iter().find(fits).map_or("", |(_, _, remedy)| remedy);
    (kind.to_owned(), remedy)
}

fn colon(remedy: &str) -> &'static str {
    if remedy.is_empty() { "" } else { ": " }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorChain;

    /// The store has limits that nobody can raise.
    #[test]
    fn a_timeout_names_no_key_of_the_configuration() {
        let limit = Duration::from_secs(2);
        let dial = Error::from(dial::Error::Timeout { limit });
        let tls = Error::from(tls::Error::Timeout {
            host: "redis.test".to_owned(),
            hint: "; a hint".to_owned(),
            limit,
        });
        let rest = "within 2s; check host, port and the firewalls on the way";
        assert_eq!(ErrorChain(&dial).to_string(), format!("no answer {rest}"));
        assert_eq!(
            ErrorChain(&tls).to_string(),
            format!("no answer to the TLS handshake {rest}; a hint")
        );
    }
}
