//! Local ports whose connections leave as TLS, for protocols other than HTTP.

use std::sync::Arc;
use std::time::Duration;

use super::declare::{Syntax, ValueKind};
use super::limits::{MOST_CONCURRENT, MOST_WAITING, OnLimit};
use super::node::shown;
use super::reader::{Located, SectionReader};
use super::syntax::{NamedSection, Number, Positive, Switched};
use super::{ClientCertificate, Config, DestinationKeys, Listen, ParentChoice, Timeouts, Tls};
use crate::host::{Host, Scheme, Target};

const PLACE: &str = "write a host and its port, as in db.example.gov:5432";

section! {
    /// A local port whose connections leave as TLS or mutual TLS.
    pub(crate) struct TcpKeys, check {
        /// Where the app connects: a loopback address with its port, or unix:PATH. Port 0 is chosen by the system, and logged.
        listen: Listen as LocalListen = required "write listen: 127.0.0.1:15432";
        /// The host and the port that connections leave to. To name it here allows it; its addresses are judged by
        /// egress.deny_networks all the same.
        to: Target as HostAndPort = required "write to: db.example.gov:5432";
        /// The protocol that asks for TLS in the clear before TLS begins; default: TLS begins at once.
        starttls: Option<StartTls>;
        /// How TLS is spoken to the server; off: the bytes pass as they are, for an app that speaks TLS itself.
        tls: Option<Tls> as Switched<Tls> = "{}";
        /// The proxy that the server is reached through: inherit (egress.parent), none, or as egress.parent is written.
        parent: ParentChoice = "inherit";
        /// Connections at once.
        concurrency: Option<u32> as Number<u32, 1, MOST_CONCURRENT>;
        /// reject, or `wait D`: what happens to a connection beyond concurrency.
        on_limit: OnLimit = "reject";
        /// How many connections may wait; past it they are refused.
        queue: usize as Number<usize, 1, MOST_WAITING> = "1000";
        /// How long anything may take.
        timeouts: TcpTimeouts = "{}";
    }
    also {
        name: Arc<str>;
    }
}

section! {
    /// How long anything may take on the way through a local port.
    #[derive(Copy)]
    pub(crate) struct TcpTimeouts {
        /// To a connection; default: as for the whole file.
        connect: Option<Duration> as Positive;
        /// To a finished handshake; default: as for the whole file.
        tls: Option<Duration> as Positive;
        /// Before TLS, with starttls: for all that is said until then; default: as for the whole file.
        response: Option<Duration> as Positive;
        /// Without a byte in either direction. As long as MySQL keeps an idle client, the longest of the usual servers, so
        /// that the server decides; the kernel finds dead peers much sooner.
        idle: Duration as Positive = "8h";
    }
}

choice! {
    /// A protocol that asks for TLS in the clear.
    #[derive(PartialOrd, Ord)]
    pub(crate) enum StartTls {
        Postgres = "postgres",
        Mysql = "mysql",
        Smtp = "smtp",
        Imap = "imap",
        Ldap = "ldap",
    }
}

impl TcpKeys {
    /// Returns the timeouts, completed by those of the whole file.
    pub(crate) fn timeouts(&self, of_file: Timeouts) -> Timeouts {
        let own = self.timeouts;
        Timeouts {
            connect: own.connect.unwrap_or(of_file.connect),
            tls: own.tls.unwrap_or(of_file.tls),
            response: own.response.unwrap_or(of_file.response),
            idle: own.idle,
        }
    }

    pub(crate) fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.client_certificate.as_ref()
    }

    /// Returns what the entry says in the words of a destination.
    pub(crate) fn as_destination(&self) -> DestinationKeys {
        DestinationKeys {
            concurrency: self.concurrency,
            on_limit: self.on_limit,
            parent: self.parent.clone(),
            queue: self.queue,
            tls: self.tls.clone().map(Arc::new),
            ..DestinationKeys::unwritten(&self.name)
        }
    }

    fn check(&self, reader: &SectionReader<'_>) {
        if self.tls.is_none() && self.starttls.is_some() {
            reader.problem(
                "`starttls` asks for TLS and `tls: off` forbids it",
                "remove one of them",
            );
        }
    }
}

/// An address of this machine that only this machine reaches.
struct LocalListen;

impl Syntax for LocalListen {
    type Value = Listen;

    const KIND: ValueKind = Listen::KIND;

    fn read(written: Located<'_>) -> Option<Listen> {
        let listen = Listen::read(written.clone())?;
        if let Listen::Tcp(address) = &listen
            && !address.ip().to_canonical().is_loopback()
        {
            written.problem(
                "a public port would lend the client certificate to everybody, and these protocols cannot say who asks",
                format_args!("write 127.0.0.1:{}", address.port()),
            );
            return None;
        }
        Some(listen)
    }
}

/// `HOST:PORT`.
struct HostAndPort;

impl Syntax for HostAndPort {
    type Value = Target;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Target> {
        let text = written.text(PLACE)?;
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let what = match (Host::parse(host), port.parse().ok().filter(|port| *port > 0)) {
            (Ok(host), Some(port)) if is_number => {
                // What leaves there is TLS, whatever is inside.
                let scheme = Scheme::Https;
                return Some(Target { scheme, host, port });
            }
            _ if text.contains("://") => "is a URL",
            (Ok(_), _) if port.is_empty() => "has no port",
            (Ok(_), _) => "has no port from 1 to 65535",
            (Err(_), _) => "is not a host with a port",
        };
        written.problem(format_args!("`{}` {what}", shown(text)), PLACE);
        None
    }
}

impl NamedSection for TcpKeys {
    // Its name is a label as that of a destination is.
    const WHAT: &'static str = DestinationKeys::WHAT;

    fn taken(name: &str) -> Option<&'static str> {
        DestinationKeys::taken(name)
    }

    fn set_name(&mut self, name: Arc<str>) {
        self.name = name;
    }
}

impl Config {
    /// Checks that every name and every local port is used once.
    pub(super) fn check_tcp(&self, reader: &SectionReader<'_>) {
        let Some(written) = reader.take("tcp").and_then(Located::named) else {
            return;
        };
        for (i, entry) in self.tcp.iter().enumerate() {
            let Some((_, place)) = written.iter().find(|(own, _)| *own.key == *entry.name) else {
                continue;
            };
            if self.destinations.iter().any(|other| other.name == entry.name) {
                place.problem(
                    "a destination has the same name, which is the label of both in metrics and logs",
                    "choose another for one of them",
                );
            }
            if matches!(entry.listen, Listen::Tcp(address) if address.port() == 0) {
                continue;
            }
            let earlier = (self.tcp[..i].iter()).find(|other| other.listen == entry.listen);
            let taken = if let Some(other) = earlier {
                format!("tcp.{}", other.name)
            } else if self.listen.contains(&entry.listen) {
                "listen".to_owned()
            } else if self.admin.is_some_and(|admin| entry.listen == Listen::Tcp(admin)) {
                "admin".to_owned()
            } else {
                continue;
            };
            place.problem(
                format_args!("`listen` is the same address as that of {taken}"),
                "write another port",
            );
        }
    }
}
