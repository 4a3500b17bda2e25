//! The words of servers as [`crate::fuzz`] reads them.

use tokio::io::AsyncWriteExt;

use super::{Upgrade, UpgradeFault};
use crate::config::StartTls;

/// So often everything gets its turn before what still waits counts as waiting for more words.
const TURNS: usize = 64;

/// Reads the words of a server and an app before and after TLS: the first byte says of which protocol, the second one
/// where the words of the server under TLS begin. Returns whether the app's connection is in order afterwards.
pub(crate) fn upgrade(bytes: &[u8]) -> bool {
    let Some((&[kind, cut], words)) = bytes.split_first_chunk() else {
        return false;
    };
    let protocol = match kind % 5 {
        0 => StartTls::Imap,
        1 => StartTls::Ldap,
        2 => StartTls::Mysql,
        3 => StartTls::Postgres,
        _ => StartTls::Smtp,
    };
    // Half of the words are the app's.
    let (app_words, words) = words.split_at(words.len() / 2);
    let (before, after) = words.split_at(usize::from(cut).min(words.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let room = bytes.len() + 1;
        let (mut app, mut own) = tokio::io::duplex(room);
        let (mut far, mut server) = tokio::io::duplex(room);
        let (mut under, mut secured) = tokio::io::duplex(room);
        for (stream, words) in [(&mut app, app_words), (&mut far, before), (&mut under, after)] {
            stream.write_all(words).await.expect("there is room");
            if kind / 5 % 2 == 1 {
                stream.shutdown().await.expect("nobody has closed it");
            }
        }
        // What we say must not wait for a reader.
        for stream in [app, far, under] {
            tokio::spawn(async move {
                let (mut from, _to) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            });
        }
        let mut upgrade = Upgrade::new(Some(protocol));
        let run = async {
            upgrade.hear(&mut own).await?;
            upgrade.ask(&mut own, &mut server).await?;
            upgrade.begin("host", &mut own, &mut secured).await
        };
        // Nothing here comes later than at once.
        let waiting = async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        };
        let ended: Result<(), UpgradeFault> = tokio::select! {
            biased;
            ended = run => ended,
            () = waiting => return false,
        };
        if let Err(fault) = &ended {
            assert!(fault.to_string().len() < 1024, "a sentence of any length");
            assert!(
                !upgrade.refusal(&fault.to_string()).is_empty(),
                "the app is told nothing"
            );
        }
        ended.is_ok()
    })
}
