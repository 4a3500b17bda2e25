//! Where local ports (`tcp`) lead, and with which certificate.

use super::rules::ceiling;
use super::{Changes, Effect, Side};
use crate::config::{Listen, TcpKeys, Tls, Word as _};

/// Compares the entries by their names.
pub(super) fn compare(old: &Side, new: &Side, changes: &mut Changes) {
    let (old, new) = (&old.written.config.tcp, &new.written.config.tcp);
    for entry in new {
        match old.iter().find(|before| before.name == entry.name) {
            None => changes.add(
                Effect::Wider,
                format!("tcp.{} is new: {}", entry.name, way(entry)),
            ),
            Some(before) => compare_entry(before, entry, changes),
        }
    }
    for entry in old {
        if !new.iter().any(|after| after.name == entry.name) {
            changes.add(
                Effect::Narrower,
                format!("tcp.{} is gone: {}", entry.name, way(entry)),
            );
        }
    }
}

fn compare_entry(old: &TcpKeys, new: &TcpKeys, changes: &mut Changes) {
    let mut tell = |effect, what: String| changes.add(effect, format!("tcp.{}: {what}", new.name));
    if old.to != new.to {
        tell(Effect::Wider, format!("leads elsewhere: {} → {}", old.to, new.to));
    }
    if old.listen != new.listen {
        // A socket is for those who may enter its folder, a port for everybody on this machine.
        let effect = match (&old.listen, &new.listen) {
            (Listen::Unix(_), _) => Effect::Wider,
            (Listen::Tcp(_), _) => Effect::Other,
        };
        tell(
            effect,
            format!("listens elsewhere: {} → {}", old.listen, new.listen),
        );
    }
    if certificate(old) != certificate(new) {
        tell(
            Effect::Wider,
            format!(
                "another client certificate: {} → {}",
                certificate(old),
                certificate(new)
            ),
        );
    }
    match (&old.tls, &new.tls) {
        (Some(_), None) => tell(
            Effect::Wider,
            "no TLS any more: what the app says leaves in clear".to_owned(),
        ),
        (None, Some(_)) => tell(Effect::Narrower, "leaves as TLS now".to_owned()),
        (Some(old), Some(new)) => {
            let trust = |tls: &Tls| Tls {
                client_certificate: None,
                ..tls.clone()
            };
            if trust(old) != trust(new) {
                tell(Effect::Wider, "another trust in the server (tls)".to_owned());
            }
        }
        (None, None) => {}
    }
    if old.starttls != new.starttls {
        tell(Effect::Other, format!("starttls: {} → {}", asks(old), asks(new)));
    }
    if old.parent != new.parent {
        tell(Effect::Wider, "another way out (parent)".to_owned());
    }
    if old.concurrency != new.concurrency {
        let (effect, _) = ceiling(old.concurrency, new.concurrency);
        let shown = |entry: &TcpKeys| {
            entry
                .concurrency
                .map_or_else(|| "any".to_owned(), |most| most.to_string())
        };
        tell(
            effect,
            format!("connections at once: {} → {}", shown(old), shown(new)),
        );
    }
    if (old.on_limit, old.queue, old.timeouts) != (new.on_limit, new.queue, new.timeouts) {
        tell(
            Effect::Other,
            "other times (on_limit, queue, timeouts)".to_owned(),
        );
    }
}

/// Says where an entry leads.
fn way(entry: &TcpKeys) -> String {
    let how = match (&entry.tls, certificate(entry)) {
        (None, _) => "without TLS".to_owned(),
        (Some(_), certificate) if certificate == "none" => "over TLS".to_owned(),
        (Some(_), certificate) => format!("with the client certificate {certificate}"),
    };
    format!("{} leads to {} {how}", entry.listen, entry.to)
}

fn certificate(entry: &TcpKeys) -> String {
    let certificate = entry.client_certificate();
    certificate.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn asks(entry: &TcpKeys) -> &'static str {
    entry.starttls.map_or("none", |protocol| protocol.word())
}
