//! One server of the store: keeps a connection to it, sends the calls and passes on what the answers say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::connection::RedisConnection;
use super::connector::Connector;
use super::error::Error;
use super::members_key;
use super::resp::{ProtocolError, RedisReply, error_kind};
use super::topology;
use crate::host::Target;
use crate::limit::Limiter;
use crate::limit::shared::store_queue::PermitCall;
use crate::limit::shared::{ANSWERS, PermitGrant, SCRIPT};

/// Errors after which this connection is useless and another one may work.
const FINAL: &[&str] = &["CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "READONLY"];

/// Shorter than what the script gives a fleet to return.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Doubled before the first pause.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_secs(1);

/// The task that talks to one server. It ends when its jobs are done and no more can come.
pub(super) struct StoreNode {
    pub(super) address: Target,
    pub(super) connector: Arc<Connector>,
    pub(super) messages: UnboundedSender<NodeMessage>,
    pub(super) id: u64,
    pub(super) jobs: UnboundedReceiver<NodeJob>,
    /// By which the server knows the script.
    pub(super) script_hash: Arc<str>,
}

/// What a server is asked to do.
pub(super) enum NodeJob {
    /// Remove this instance from those who share the limits.
    Forget(Arc<Limiter>),
    /// Grant permits. `asking`: although the slot is still on its way to this server.
    Grant { attempt: CallAttempt, asking: bool },
}

/// A call, and how often it was sent elsewhere.
pub(super) struct CallAttempt {
    pub(super) call: PermitCall,
    pub(super) redirects: u32,
    /// Whether to report that it was answered.
    pub(super) is_reported: bool,
}

/// What has happened at the server numbered so.
pub(super) struct NodeMessage {
    pub(super) id: u64,
    pub(super) event: NodeEvent,
}

pub(super) enum NodeEvent {
    /// It has answered a call of this limiter that was to be reported.
    Answered(Arc<Limiter>),
    /// The keys of this call are on their way to another server.
    Asked(CallAttempt, Target),
    /// There is no connection. `None`: a new one is made because the server's certificate has ended.
    Down(Option<Error>),
    /// This call was not answered.
    Lost(CallAttempt),
    /// The keys of this call are at another server.
    Moved(CallAttempt, Target),
    /// It has refused the call of this limiter.
    Refused(Arc<Limiter>, Error),
    /// Some keys of this call are on their way, some are not.
    Split(CallAttempt),
    /// There is a connection.
    Up,
}

/// What an answer will be about.
enum PendingAnswer {
    Grant {
        attempt: CallAttempt,
        asking: bool,
        had_script: bool,
    },
    /// Nothing that matters.
    Ignored,
}

/// Why a connection was given up that had not failed.
enum ConnectionEnd {
    Expired,
    Released,
}

impl StoreNode {
    pub(super) async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let since = Instant::now();
            let (ended, lost) = match self.connector.open(&self.address).await {
                Ok(mut connection) => (self.serve(&mut connection).await, connection.abandon()),
                Err(error) => (Err(error), Vec::new()),
            };
            let failed = match ended {
                Ok(ConnectionEnd::Released) => return,
                Ok(ConnectionEnd::Expired) => None,
                Err(error) => Some(error),
            };
            let is_failure = failed.is_some();
            self.report(NodeEvent::Down(failed));
            for pending in lost {
                if let PendingAnswer::Grant { attempt, .. } = pending {
                    self.report(NodeEvent::Lost(attempt));
                }
            }
            if is_failure {
                // What ended a connection that held for a while may be over.
                pause = if since.elapsed() > LONGEST_PAUSE {
                    SHORTEST_PAUSE
                } else {
                    (pause * 2).min(LONGEST_PAUSE)
                };
                sleep(jitter(pause)).await;
            }
            if self.jobs.is_closed() {
                return;
            }
        }
    }

    /// Sends calls and handles answers over one connection.
    async fn serve(
        &mut self,
        connection: &mut RedisConnection<PendingAnswer>,
    ) -> Result<ConnectionEnd, Error> {
        // These came too late for the last connection.
        while let Ok(job) = self.jobs.try_recv() {
            if let NodeJob::Grant { attempt, .. } = job {
                self.report(NodeEvent::Lost(attempt));
            }
        }
        self.report(NodeEvent::Up);
        let mut is_released = false;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if is_released && connection.is_idle() {
                return Ok(ConnectionEnd::Released);
            }
            tokio::select! {
                job = self.jobs.recv(), if !is_released => match job {
                    Some(job) => self.send(job, connection),
                    None => is_released = true,
                },
                answer = connection.next() => {
                    let (pending, reply) = answer?;
                    if let PendingAnswer::Grant { attempt, asking, had_script } = pending {
                        self.handle(attempt, asking, had_script, &reply, connection)?;
                    }
                }
                _ = tick.tick() => {
                    if connection.has_expired(SystemTime::now()) {
                        return Ok(ConnectionEnd::Expired);
                    }
                }
            }
        }
    }

    fn send(&self, job: NodeJob, connection: &mut RedisConnection<PendingAnswer>) {
        match job {
            NodeJob::Grant { attempt, asking } => self.call(attempt, asking, false, connection),
            NodeJob::Forget(limiter) => {
                let (names, member) = limiter.names();
                for name in names {
                    let key = members_key(name);
                    connection.command(
                        &[b"ZREM", key.as_bytes(), member.as_bytes()],
                        PendingAnswer::Ignored,
                    );
                }
            }
        }
    }

    fn call(
        &self,
        attempt: CallAttempt,
        asking: bool,
        had_script: bool,
        connection: &mut RedisConnection<PendingAnswer>,
    ) {
        let limiter = Arc::clone(&attempt.call.limiter);
        let (names, member) = limiter.names();
        let keys: Vec<_> = names
            .iter()
            .flat_map(|name| [name.clone(), members_key(name)])
            .collect();
        let count = keys.len().to_string();
        let requests = attempt.call.requests.iter();
        let numbers: Vec<_> = requests.flat_map(|request| request.arguments()).collect();
        let mut command: Vec<&[u8]> = if had_script {
            vec![b"EVAL", SCRIPT.as_bytes()]
        } else {
            vec![b"EVALSHA", self.script_hash.as_bytes()]
        };
        command.push(count.as_bytes());
        command.extend(keys.iter().map(String::as_bytes));
        command.push(member.as_bytes());
        command.extend(numbers.iter().map(String::as_bytes));
        if asking {
            connection.command(&[b"ASKING"], PendingAnswer::Ignored);
        }
        let pending = PendingAnswer::Grant {
            attempt,
            asking,
            had_script,
        };
        connection.command(&command, pending);
    }

    fn handle(
        &self,
        attempt: CallAttempt,
        asking: bool,
        had_script: bool,
        reply: &RedisReply,
        connection: &mut RedisConnection<PendingAnswer>,
    ) -> Result<(), Error> {
        if let RedisReply::Error(text) = reply {
            match error_kind(text) {
                kind @ ("ASK" | "MOVED") => match topology::redirection(text, &self.address) {
                    Ok(to) if kind == "ASK" => self.report(NodeEvent::Asked(attempt, to)),
                    Ok(to) => self.report(NodeEvent::Moved(attempt, to)),
                    Err(error) => {
                        self.report(NodeEvent::Lost(attempt));
                        return Err(error);
                    }
                },
                // The server was restarted, or is another one.
                "NOSCRIPT" if !had_script => self.call(attempt, asking, true, connection),
                "TRYAGAIN" => self.report(NodeEvent::Split(attempt)),
                kind if FINAL.contains(&kind) => {
                    self.report(NodeEvent::Lost(attempt));
                    return Err(Error::refused(text));
                }
                _ => self.report(NodeEvent::Refused(attempt.call.limiter, Error::refused(text))),
            }
            return Ok(());
        }
        let numbers = reply.numbers().unwrap_or_default();
        let grant = |numbers: &[i64]| PermitGrant::read(numbers.try_into().ok()?);
        let grants: Option<Vec<_>> = numbers.chunks(ANSWERS).map(grant).collect();
        let Some(grants) = grants.filter(|grants| grants.len() == attempt.call.requests.len()) else {
            self.report(NodeEvent::Lost(attempt));
            return Err(ProtocolError.into());
        };
        attempt.call.answered(&grants);
        if attempt.is_reported {
            self.report(NodeEvent::Answered(attempt.call.limiter));
        }
        Ok(())
    }

    fn report(&self, event: NodeEvent) {
        // Nobody listens any more when the store is given up.
        let _ = self.messages.send(NodeMessage { id: self.id, event });
    }
}

/// Returns half of `pause` and a random part of the rest: all instances lose the store at the same moment and
/// should not come back in one.
pub(super) fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::tests;
    use crate::telemetry::Telemetry;

    /// Otherwise its limiter, which may be at another server, would wait for an answer for ever.
    #[tokio::test]
    async fn a_call_with_a_useless_redirection_is_reported_as_lost() {
        let telemetry = Telemetry::new();
        let (messages, mut reported) = mpsc::unbounded_channel();
        let (_jobs, jobs) = mpsc::unbounded_channel();
        let node = StoreNode {
            address: tests::node("10.0.0.9", 7000),
            connector: tests::connector(&telemetry),
            messages,
            id: 1,
            jobs,
            script_hash: "".into(),
        };
        let mut connection = RedisConnection::new(Box::new(tokio::io::duplex(1).0), None);
        for text in ["ASK 1 ?:7001", "MOVED 1 ?:7001", "ASK 1 a/b:1", "MOVED 1"] {
            let (attempt, reply) = (tests::attempt(3, &telemetry), RedisReply::Error(text.to_owned()));
            node.handle(attempt, false, false, &reply, &mut connection)
                .unwrap_err();
            let message = reported.try_recv().unwrap();
            assert!(
                matches!(message.event, NodeEvent::Lost(CallAttempt { redirects: 3, .. })),
                "{text}"
            );
        }
    }
}
