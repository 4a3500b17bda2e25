//! Why the store cannot be asked, and what a person can do about it.

use std::io;
use std::time::Duration;

use super::resp::ProtocolError;
use crate::upstream::resolve;
use crate::upstream::{dial, tls};

const LONGEST_KIND: usize = 32;

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
    Dial(#[from] dial::Error),

    #[error("the connection to the store has failed")]
    Io(#[from] io::Error),

    #[error("{place} is not part of a cluster; write redis:// or rediss:// in the address")]
    NoCluster { place: String },

    #[error("no Sentinel knows a primary named `{name}`; check the name in the address")]
    NoPrimary { name: String },

    #[error(transparent)]
    Protocol(#[from] ProtocolError),

    #[error("the store has refused with {kind}{}", remedy(kind))]
    Refused { kind: String },

    #[error("the name of the store cannot be resolved")]
    Resolve(#[from] resolve::Error),

    #[error("the store did not answer within {}", humantime::format_duration(*.limit))]
    Slow { limit: Duration },

    #[error("TLS with the store has failed")]
    Tls(#[from] Box<tls::Error>),
}

impl Error {
    /// Builds the error from what the server has answered.
    pub(super) fn refused(text: &str) -> Self {
        let is_word = |letter: &char| letter.is_ascii_uppercase();
        Self::Refused {
            kind: text.chars().take_while(is_word).take(LONGEST_KIND).collect(),
        }
    }
}

fn remedy(kind: &str) -> &'static str {
    match kind {
        "ASK" | "MOVED" | "TRYAGAIN" => ": its slots are being moved for long; check the cluster",
        "CLUSTERDOWN" => ": a part of the cluster has no primary",
        "NOAUTH" | "WRONGPASS" => ": check the password in its address",
        "NOPERM" => ": its user must be allowed EVAL, EVALSHA, TIME, hashes and sorted sets",
        "READONLY" => ": it is a replica; name the primary",
        "WRONGTYPE" => ": somebody else has written to our keys",
        _ => "",
    }
}
