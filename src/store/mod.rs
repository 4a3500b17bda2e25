//! The store that counts one quota for all instances: a Redis server, and the task that asks it for all limiters.
//!
//! A limiter that wants permits says so on the [`StoreQueue`]; the task gathers what has been said meanwhile and sends one
//! call for each destination, without waiting for the answers to the calls before. A connection that fails in any connector,
//! also one that is merely slow, is given up and made anew after a pause; until then every limiter keeps to its share,
//! so that no request fails, waits longer, or passes a limit because of the store.
//!
//! What is asked and what an answer means is in `limit::shared`; here are the connection and the words for a person.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::config::{Destination, Dns};
use crate::error::ErrorChain;
use crate::limit::Limiter;
use crate::limit::shared::lease::FleetConfig;
use crate::limit::shared::store_queue::{PermitCall, Sharing, StoreQueue};
use crate::limit::shared::{ANSWERS, PermitGrant, SCRIPT};
use crate::policy::Egress;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::{Telemetry, instance_index};
use crate::upstream::resolve::{self, Resolver};
use crate::upstream::tls;

pub(crate) use self::address::{Error as AddressError, StoreAddress};
use self::client::{Connector, Error, RedisConnection};
use self::resp::RedisReply;

mod address;
mod client;
mod names;
mod resp;
#[cfg(test)]
mod tests;

/// Asks the store until it is dropped.
#[derive(Debug)]
pub(crate) struct QuotaStore {
    queue: Arc<StoreQueue>,
    /// `None`: nobody knows where the store is, and the shares hold.
    running: Option<StoreTask>,
}

#[derive(Debug)]
struct StoreTask {
    task: JoinHandle<()>,
    connector: Arc<Connector>,
}

/// Why a store cannot even be looked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    StoreAddress(#[from] AddressError),

    #[error("dns")]
    Dns(#[from] resolve::Error),

    #[error(transparent)]
    Tls(#[from] tls::SettingsError),
}

/// The task.
struct StoreClient {
    queue: Arc<StoreQueue>,
    health: StoreHealth,
    /// Limiters whose calls the store has refused, and when they may ask again.
    resting: Vec<(Instant, Arc<Limiter>)>,
    /// What the server knows the script by.
    script: String,
    connector: Arc<Connector>,
}

/// A call that is under connector, and whether the script went with it.
struct PendingCall {
    call: PermitCall,
    had_script: bool,
}

/// Whether the store answers, told once for each change.
struct StoreHealth {
    failed: Option<Instant>,
    store: String,
    telemetry: Arc<Telemetry>,
}

impl QuotaStore {
    /// Begins to ask the store at `address` for those on a new queue. `own`: our own listeners. Must be called inside a
    /// tokio runtime.
    pub(crate) fn start(
        address: StoreAddress,
        own: Vec<SocketAddr>,
        dns: &Dns,
        snapshot: &Snapshot,
        roots: &SystemRoots,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, StartError> {
        let tls = match address.is_tls() {
            true => Some(tls::Settings::of_system(snapshot, roots)?),
            false => None,
        };
        let connector = Arc::new(Connector {
            address,
            egress: Egress::of_operator().with_own(own),
            resolver: Resolver::new(dns, telemetry)?,
            tls,
        });
        let queue = Arc::new(StoreQueue::default());
        let client = StoreClient {
            queue: Arc::clone(&queue),
            health: StoreHealth {
                failed: None,
                store: connector.address.to_string(),
                telemetry: Arc::clone(telemetry),
            },
            resting: Vec::new(),
            script: HEXLOWER
                .encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes()).as_ref()),
            connector: Arc::clone(&connector),
        };
        let task = tokio::spawn(client.run());
        Ok(Self {
            queue,
            running: Some(StoreTask { task, connector }),
        })
    }

    /// A store that cannot be looked for.
    pub(crate) fn unknown() -> Self {
        Self {
            queue: Arc::default(),
            running: None,
        }
    }

    /// Whether it is the one at `address`.
    pub(crate) fn is_at(&self, address: &StoreAddress) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.connector.address.is(address))
    }

    /// With whom a destination shares its rates. `instances`: how many there are, as written.
    pub(crate) fn sharing(
        &self,
        destination: &Destination,
        instances: Option<NonZeroU32>,
    ) -> Option<Sharing> {
        if destination.rate_limits.is_empty() {
            return None;
        }
        let names = match &self.running {
            Some(_) => names::names(destination),
            None => Vec::new(),
        };
        Some(Sharing {
            queue: Arc::clone(&self.queue),
            fleet: FleetConfig {
                instances: instances.map(NonZeroU32::get),
                index: instance_index().and_then(|index| index.parse().ok()),
            },
            names: names.into(),
        })
    }

    /// Tells the store that this instance is gone, so that the others need not find out. Best effort, and brief.
    pub(crate) async fn leave(&self) {
        let Some(StoreTask { task, connector }) = &self.running else {
            return;
        };
        task.abort();
        let leave = async {
            let mut connection = connector.open().await?;
            for limiter in self.queue.limiters() {
                let (names, member) = limiter.names();
                for name in names {
                    connection.say(&[b"ZREM", members_of(name).as_bytes(), member.as_bytes()]);
                    connection.expect(());
                }
            }
            connection.settled().await
        };
        if !matches!(timeout(FAREWELL, leave).await, Ok(Ok(()))) {
            tracing::debug!("the quota store does not know that this instance leaves");
        }
    }
}

impl Drop for QuotaStore {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

impl StoreClient {
    async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let since = Instant::now();
            let ended = match self.connector.open().await {
                Ok(connection) => self.serve(connection).await,
                Err(error) => Err(error),
            };
            self.resting.clear();
            let members = self.queue.limiters();
            members.iter().for_each(|limiter| limiter.unanswered());
            let Err(error) = ended else {
                continue;
            };
            self.health.bad(&error, &members);
            // A connection that held for a while was a good one: what ended it may be over.
            pause = match since.elapsed() > LONGEST_PAUSE {
                true => SHORTEST_PAUSE,
                false => (pause * 2).min(LONGEST_PAUSE),
            };
            // All instances lose the store at the same moment and should not come back in one.
            sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
    }

    /// Asks and hears over one connection, until it fails or the certificate of its server ends.
    async fn serve(&mut self, mut connection: RedisConnection<PendingCall>) -> Result<(), Error> {
        // What was posted meanwhile is asked with all the others.
        self.queue.take();
        for limiter in self.queue.limiters() {
            limiter.reachable();
            self.ask(&limiter, &mut connection);
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.queue.wait() => {
                    for limiter in self.queue.take() {
                        self.ask(&limiter, &mut connection);
                    }
                }
                answer = connection.next() => {
                    let heard = answer.and_then(|(asked, reply)| self.hear(asked, &reply, &mut connection));
                    heard?;
                }
                _ = tick.tick() => {
                    if connection.is_over(SystemTime::now()) {
                        return Ok(());
                    }
                    self.tend(&mut connection);
                }
            }
        }
    }

    fn ask(&self, limiter: &Arc<Limiter>, connection: &mut RedisConnection<PendingCall>) {
        if let Some(call) = limiter.call() {
            self.send(call, false, connection);
        }
    }

    fn send(&self, call: PermitCall, had_script: bool, connection: &mut RedisConnection<PendingCall>) {
        let (names, member) = call.limiter.names();
        let keys: Vec<_> = (names.iter())
            .flat_map(|name| [name.clone(), members_of(name)])
            .collect();
        let count = keys.len().to_string();
        let numbers: Vec<_> = call.requests.iter().flat_map(|ask| ask.arguments()).collect();
        let mut command: Vec<&[u8]> = match had_script {
            true => vec![b"EVAL", SCRIPT.as_bytes()],
            false => vec![b"EVALSHA", self.script.as_bytes()],
        };
        command.push(count.as_bytes());
        command.extend(keys.iter().map(String::as_bytes));
        command.push(member.as_bytes());
        command.extend(numbers.iter().map(String::as_bytes));
        connection.say(&command);
        connection.expect(PendingCall { call, had_script });
    }

    fn hear(
        &mut self,
        asked: PendingCall,
        reply: &RedisReply,
        connection: &mut RedisConnection<PendingCall>,
    ) -> Result<(), Error> {
        let PendingCall { call, had_script } = asked;
        match reply.error() {
            None => {}
            // The server has been restarted, or is another one.
            Some("NOSCRIPT") if !had_script => {
                self.send(call, true, connection);
                return Ok(());
            }
            Some(kind) if ENDS.contains(&kind) => return Err(Error::refused(kind)),
            Some(kind) => {
                self.health
                    .bad(&Error::refused(kind), &[Arc::clone(&call.limiter)]);
                self.rest(&call.limiter);
                return Ok(());
            }
        }
        let numbers = reply.numbers().unwrap_or_default();
        let grant = |numbers: &[i64]| PermitGrant::read(numbers.try_into().ok()?);
        let grants: Option<Vec<_>> = numbers.chunks(ANSWERS).map(grant).collect();
        let grants =
            (grants.filter(|grants| grants.len() == call.requests.len())).ok_or(resp::ProtocolError)?;
        call.answered(&grants);
        if self.resting.is_empty() {
            self.health.good();
        }
        Ok(())
    }

    /// The store is well but for what concerns this limiter: it keeps to its share for a while.
    fn rest(&mut self, limiter: &Arc<Limiter>) {
        limiter.unanswered();
        self.resting.push((Instant::now() + REST, Arc::clone(limiter)));
    }

    /// What is due by the clock: limiters that have rested, and those that the others would forget.
    fn tend(&mut self, connection: &mut RedisConnection<PendingCall>) {
        let now = Instant::now();
        let (rested, resting) = (self.resting.drain(..)).partition(|(until, _)| *until <= now);
        self.resting = resting;
        let rested: Vec<(Instant, Arc<Limiter>)> = rested;
        for (_, limiter) in rested {
            limiter.reachable();
            self.ask(&limiter, connection);
        }
        for limiter in self.queue.limiters() {
            if limiter.is_quiet() {
                self.ask(&limiter, connection);
            }
        }
    }
}

impl StoreHealth {
    fn bad(&mut self, error: &Error, concerned: &[Arc<Limiter>]) {
        self.telemetry.quota_store_error();
        if self.failed.is_none() {
            self.failed = Some(Instant::now());
            let parts = concerned.iter().map(|limiter| limiter.parts()).max();
            tracing::warn!(
                store = %self.store,
                error = %ErrorChain(error),
                instances = parts.unwrap_or(1),
                "the quota store cannot be asked: each instance keeps to its share until it can",
            );
        }
    }

    fn good(&mut self) {
        if let Some(failed) = self.failed.take() {
            let seconds = failed.elapsed().as_secs_f32();
            tracing::info!(store = %self.store, seconds, "the quota store answers again");
        }
    }
}

/// The key of those who share a limit.
fn members_of(name: &str) -> String {
    format!("{name}:members")
}

/// Errors after which another connection is worth a try, and this one is not.
const ENDS: &[&str] = &[
    "ASK",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MOVED",
    "NOAUTH",
    "READONLY",
];

const FAREWELL: Duration = Duration::from_millis(300);
/// Shorter than what the script gives a fleet to return.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Doubled before the first pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const REST: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
