//! The task that sends the calls of all limiters to the servers that keep their keys.
//!
//! ```text
//!  limiters ── StoreQueue ──▶ StoreRouter ── jobs ──▶ StoreNode ── connection ── server
//!                                 ▲      └── jobs ──▶ StoreNode ── connection ── server
//!                                 └───── messages ───────┘
//! ```
//!
//! The router knows the [`Topology`], a task for each server and which of them have a connection. It looks for the
//! servers at the start, when one of them is lost and when a cluster says that a slot has moved. A limiter whose
//! server has no connection keeps to its share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::address::StoreKind;
use super::connector::Connector;
use super::error::Error;
use super::health::StoreHealth;
use super::node::{
    CallAttempt, LONGEST_PAUSE, NodeEvent, NodeJob, NodeMessage, SHORTEST_PAUSE, StoreNode, jitter,
};
use super::topology::{Topology, slot_of};
use crate::host::Target;
use crate::limit::Limiter;
use crate::limit::shared::store_queue::StoreQueue;

/// How often a call may be sent elsewhere before its limiter keeps to its share for a while.
const MOST_REDIRECTS: u32 = 16;
/// How long a limiter whose call was refused keeps to its share.
const REST: Duration = Duration::from_secs(2);
/// Before a call is sent again whose keys are being moved; so much longer each time.
const RETRY: Duration = Duration::from_millis(10);
/// How long all of them wait together.
const ALL_RETRIES: Duration = RETRY.saturating_mul(MOST_REDIRECTS * (MOST_REDIRECTS - 1) / 2);
const TICK: Duration = Duration::from_secs(1);

pub(super) struct StoreRouter {
    connector: Arc<Connector>,
    messages: mpsc::UnboundedReceiver<NodeMessage>,
    found: mpsc::UnboundedReceiver<TaskResult>,
    health: StoreHealth,
    /// As configured; a single server that turns out to be part of a cluster makes it one.
    kind: StoreKind,
    nodes: HashMap<Target, NodeHandle>,
    queue: Arc<StoreQueue>,
    /// Limiters whose calls were refused, and when they may ask again.
    resting: Vec<(Instant, Arc<Limiter>)>,
    script_hash: Arc<str>,
    search: ServerSearch,
    /// Given to each node.
    sender: mpsc::UnboundedSender<NodeMessage>,
    /// Given to searches and delayed calls.
    later: mpsc::UnboundedSender<TaskResult>,
    tasks: JoinSet<()>,
    topology: Option<Topology>,
    last_id: u64,
}

/// A running [`StoreNode`].
struct NodeHandle {
    /// Why it has no connection, until a call was to go there.
    error: Option<Error>,
    id: u64,
    link: LinkState,
    jobs: mpsc::UnboundedSender<NodeJob>,
    task: AbortHandle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    Down,
    /// Neither made nor failed yet.
    Opening,
    Up,
}

/// The search for the servers.
#[derive(Default)]
struct ServerSearch {
    attempts: usize,
    has_failed: bool,
    is_running: bool,
    pause: Duration,
}

/// What a task that runs for a while has brought.
enum TaskResult {
    Again(CallAttempt),
    Topology(Result<Topology, Error>),
}

impl StoreRouter {
    pub(super) fn new(
        connector: Arc<Connector>,
        queue: Arc<StoreQueue>,
        health: StoreHealth,
        script_hash: Arc<str>,
    ) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let (later, found) = mpsc::unbounded_channel();
        Self {
            kind: connector.address.kind.clone(),
            connector,
            messages,
            found,
            health,
            nodes: HashMap::new(),
            queue,
            resting: Vec::new(),
            script_hash,
            search: ServerSearch::default(),
            sender,
            later,
            tasks: JoinSet::new(),
            topology: None,
            last_id: 0,
        }
    }

    /// Routes until `leave` is called; then removes this instance from those who share the limits, and answers.
    pub(super) async fn run(mut self, mut leave: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        self.search();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.queue.wait() => {
                    for limiter in self.queue.take() {
                        self.ask(&limiter);
                    }
                }
                Some(message) = self.messages.recv() => self.handle(message),
                Some(found) = self.found.recv() => match found {
                    TaskResult::Again(attempt) => self.route(attempt),
                    TaskResult::Topology(found) => self.located(found),
                },
                _ = tick.tick() => self.tend(),
                Some(left) = leave.recv() => {
                    self.leave().await;
                    let _ = left.send(());
                    return;
                }
            }
        }
    }

    /// Sends a new call for a limiter.
    fn ask(&mut self, limiter: &Arc<Limiter>) {
        if let Some(call) = limiter.call() {
            self.route(CallAttempt {
                call,
                redirects: 0,
                is_reported: false,
            });
        }
    }

    /// Sends a call to the server of its keys, or leaves its limiter to its share.
    fn route(&mut self, mut attempt: CallAttempt) {
        attempt.is_reported = self.health.has_failed();
        let limiter = &attempt.call.limiter;
        match self.owner(limiter).and_then(|owner| self.nodes.get(owner)) {
            Some(node) => match node.link {
                LinkState::Up => node.send(attempt, false),
                LinkState::Down => limiter.unanswered(),
                // It asks again when the connection is there.
                LinkState::Opening => {}
            },
            None if self.topology.is_some() || self.search.has_failed => limiter.unanswered(),
            None => {}
        }
    }

    fn is_up(&self, node: &Target) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|node| node.link == LinkState::Up)
    }

    fn set_link(&mut self, node: &Target, link: LinkState) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.link = link;
            node.error = None;
        }
    }

    fn owner(&self, limiter: &Limiter) -> Option<&Target> {
        self.topology.as_ref()?.owner(slot_of_limiter(limiter))
    }

    /// Returns the limiters whose keys are at a server.
    fn limiters_of(&self, node: &Target) -> Vec<Arc<Limiter>> {
        let limiters = self.queue.limiters().into_iter();
        limiters
            .filter(|limiter| self.owner(limiter) == Some(node))
            .collect()
    }

    fn handle(&mut self, message: NodeMessage) {
        let node = self.nodes.iter().find(|(_, node)| node.id == message.id);
        let address = node.map(|(address, _)| address.clone());
        match (message.event, address) {
            (NodeEvent::Answered(limiter), _) => self.health.good(&limiter),
            (NodeEvent::Asked(attempt, to), _) => {
                self.start(&to);
                match self.nodes.get_mut(&to).map(|node| (node.error.take(), node)) {
                    Some((_, node)) if node.link == LinkState::Up => node.send(attempt, true),
                    Some((Some(error), _)) => {
                        let limiter = attempt.call.limiter;
                        self.health.bad(&error, Some(&to), &[Arc::clone(&limiter)]);
                        self.rest(limiter);
                    }
                    // Not even its connection has failed yet, for example because its packets are dropped.
                    Some((None, _)) | None if attempt.redirects >= MOST_REDIRECTS => {
                        let limiter = attempt.call.limiter;
                        let error = Error::Slow { limit: ALL_RETRIES };
                        self.health.bad(&error, Some(&to), &[Arc::clone(&limiter)]);
                        self.rest(limiter);
                    }
                    Some((None, _)) | None => self.again(attempt),
                }
            }
            (NodeEvent::Lost(attempt), _) => {
                let owner = self.owner(&attempt.call.limiter);
                if owner.is_some_and(|owner| self.is_up(owner)) {
                    self.again(attempt);
                } else {
                    self.route(attempt);
                }
            }
            (NodeEvent::Moved(attempt, to), _) => {
                if matches!(self.kind, StoreKind::Server) {
                    self.kind = StoreKind::Cluster;
                }
                self.start(&to);
                let slot = slot_of_limiter(&attempt.call.limiter);
                if let Some(topology) = &mut self.topology {
                    topology.apply(slot, to);
                }
                self.search();
                self.again(attempt);
            }
            (NodeEvent::Refused(limiter, error), address) => {
                self.health.bad(&error, address.as_ref(), &[Arc::clone(&limiter)]);
                self.rest(limiter);
            }
            (NodeEvent::Split(attempt), _) => self.again(attempt),
            (NodeEvent::Up, Some(address)) => {
                self.set_link(&address, LinkState::Up);
                let (waiting, limiters) = (self.queue.take(), self.limiters_of(&address));
                self.back(&limiters);
                for limiter in waiting {
                    // The others have asked just now.
                    if !contains(&limiters, &limiter) {
                        self.ask(&limiter);
                    }
                }
            }
            (NodeEvent::Down(error), Some(address)) => {
                self.set_link(&address, LinkState::Down);
                let limiters = self.limiters_of(&address);
                self.resting.retain(|(_, resting)| !contains(&limiters, resting));
                limiters.iter().for_each(|limiter| limiter.unanswered());
                if let Some(error) = error {
                    self.health.bad(&error, Some(&address), &limiters);
                    self.search();
                    if let Some(node) = self.nodes.get_mut(&address) {
                        node.error = Some(error);
                    }
                }
            }
            // Of a server that is not part of the store any more.
            (NodeEvent::Up | NodeEvent::Down(_), None) => {}
        }
    }

    /// Sends a call again after a moment.
    fn again(&mut self, attempt: CallAttempt) {
        let redirects = attempt.redirects;
        if redirects >= MOST_REDIRECTS {
            let limiter = attempt.call.limiter;
            self.health
                .bad(&Error::refused("MOVED"), None, &[Arc::clone(&limiter)]);
            return self.rest(limiter);
        }
        let attempt = CallAttempt {
            redirects: redirects + 1,
            ..attempt
        };
        let later = self.later.clone();
        self.tasks.spawn(async move {
            sleep(RETRY * redirects).await;
            let _ = later.send(TaskResult::Again(attempt));
        });
    }

    /// The store is well except for this limiter: it keeps to its share for a while.
    fn rest(&mut self, limiter: Arc<Limiter>) {
        limiter.unanswered();
        self.resting.push((Instant::now() + REST, limiter));
    }

    /// Lets limiters ask again whose server has come back, or is another one now.
    fn back(&mut self, limiters: &[Arc<Limiter>]) {
        for limiter in limiters {
            limiter.reachable();
            self.ask(limiter);
        }
    }

    /// Starts to look for the servers, unless that is under way.
    fn search(&mut self) {
        if self.search.is_running {
            return;
        }
        if matches!(self.kind, StoreKind::Server) {
            // There is nothing to find.
            if self.topology.is_none() {
                self.located(Ok(Topology::of_one(self.connector.address.first().clone())));
            }
            return;
        }
        self.search.is_running = true;
        let (attempt, pause) = (self.search.attempts, self.search.pause);
        self.search.attempts += 1;
        let nodes = self.topology.iter().flat_map(Topology::nodes);
        let known: Vec<_> = nodes.cloned().collect();
        let (connector, kind, later) = (Arc::clone(&self.connector), self.kind.clone(), self.later.clone());
        self.tasks.spawn(async move {
            sleep(pause).await;
            let found = connector.locate(&kind, &known, attempt).await;
            let _ = later.send(TaskResult::Topology(found));
        });
    }

    fn located(&mut self, found: Result<Topology, Error>) {
        self.search.is_running = false;
        let topology = match found {
            Ok(topology) => topology,
            Err(error) => {
                self.search.has_failed = true;
                self.search.pause = jitter((self.search.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
                let limiters = self.queue.limiters();
                if self.topology.is_none() {
                    limiters.iter().for_each(|limiter| limiter.unanswered());
                    self.health.bad(&error, None, &limiters);
                    self.search();
                } else {
                    // The servers that were found go on.
                    self.health.bad(&error, None, &[]);
                }
                return;
            }
        };
        self.search.has_failed = false;
        self.search.pause = SHORTEST_PAUSE;
        for node in topology.nodes() {
            self.start(node);
        }
        // A server that is gone ends its task when it has answered what it was asked.
        self.nodes
            .retain(|address, _| topology.nodes().contains(&address));
        let limiters = self.queue.limiters();
        let before: Vec<_> = limiters
            .iter()
            .map(|limiter| self.owner(limiter).cloned())
            .collect();
        self.topology = Some(topology);
        let mut without = Vec::new();
        for (limiter, before) in limiters.into_iter().zip(before) {
            match self.owner(&limiter) {
                Some(owner) if before.as_ref() != Some(owner) && self.is_up(owner) => self.back(&[limiter]),
                // Otherwise it asks when the connection is there.
                Some(_) => {}
                None => {
                    limiter.unanswered();
                    without.push(limiter);
                }
            }
        }
        if !without.is_empty() {
            self.health.bad(&Error::NoSlot, None, &without);
        }
    }

    /// Starts the task of a server that is new.
    fn start(&mut self, address: &Target) {
        if self.nodes.contains_key(address) {
            return;
        }
        self.last_id += 1;
        let (id, (jobs, receiver)) = (self.last_id, mpsc::unbounded_channel());
        let node = StoreNode {
            address: address.clone(),
            connector: Arc::clone(&self.connector),
            messages: self.sender.clone(),
            id,
            jobs: receiver,
            script_hash: Arc::clone(&self.script_hash),
        };
        let handle = NodeHandle {
            error: None,
            id,
            link: LinkState::Opening,
            jobs,
            task: self.tasks.spawn(node.run()),
        };
        self.nodes.insert(address.clone(), handle);
    }

    /// Does what is due by the clock: limiters that have rested, those that the others would forget, lost servers.
    fn tend(&mut self) {
        let now = Instant::now();
        let (rested, resting): (Vec<_>, Vec<_>) =
            self.resting.drain(..).partition(|(until, _)| *until <= now);
        self.resting = resting;
        let rested: Vec<_> = rested.into_iter().map(|(_, limiter)| limiter).collect();
        self.back(&rested);
        let limiters = self.queue.limiters();
        for limiter in &limiters {
            if limiter.is_quiet() {
                self.ask(limiter);
            }
        }
        let is_down = self.nodes.values().any(|node| node.link != LinkState::Up);
        if is_down || limiters.iter().any(|limiter| self.owner(limiter).is_none()) {
            self.search();
        }
        while self.tasks.try_join_next().is_some() {}
    }

    async fn leave(mut self) {
        for limiter in self.queue.limiters() {
            let node = self.owner(&limiter).and_then(|owner| self.nodes.get(owner));
            if let Some(node) = node.filter(|node| node.link == LinkState::Up) {
                let _ = node.jobs.send(NodeJob::Forget(limiter));
            }
        }
        let nodes = self.nodes.drain().filter(|(_, node)| node.link == LinkState::Up);
        // Without a sender of jobs they end when they have answered.
        let left: Vec<_> = nodes.map(|(_, node)| node.task).collect();
        while !left.iter().all(AbortHandle::is_finished) && self.tasks.join_next().await.is_some() {}
    }
}

/// Returns the slot of all keys of a limiter.
fn slot_of_limiter(limiter: &Limiter) -> u16 {
    let (names, _) = limiter.names();
    slot_of(names.first().map_or("", String::as_str))
}

fn contains(limiters: &[Arc<Limiter>], limiter: &Arc<Limiter>) -> bool {
    limiters.iter().any(|other| Arc::ptr_eq(other, limiter))
}

impl NodeHandle {
    fn send(&self, attempt: CallAttempt, asking: bool) {
        // When the task has ended, a message says so.
        let _ = self.jobs.send(NodeJob::Grant { attempt, asking });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests;
    use crate::telemetry::Telemetry;

    fn router(telemetry: &Arc<Telemetry>) -> StoreRouter {
        let health = StoreHealth::new("test".to_owned(), Arc::clone(telemetry));
        let mut router = StoreRouter::new(tests::connector(telemetry), Arc::default(), health, "".into());
        router.topology = Some(Topology::of_one(tests::node("10.0.0.1", 7000)));
        router
    }

    fn errors(telemetry: &Telemetry) -> String {
        let page = String::from_utf8(telemetry.render()).unwrap();
        let line = page
            .lines()
            .find(|line| line.starts_with("outrider_quota_store_errors_total "));
        line.unwrap().to_owned()
    }

    /// The log names the server whose packets are dropped, not the cluster.
    #[tokio::test]
    async fn a_server_that_is_asked_for_and_never_answers_is_named() {
        let telemetry = Telemetry::new();
        let mut router = router(&telemetry);
        let (to, (jobs, _receiver)) = (tests::node("10.0.0.2", 7001), mpsc::unbounded_channel());
        let handle = NodeHandle {
            error: None,
            id: 1,
            link: LinkState::Opening,
            jobs,
            task: router.tasks.spawn(std::future::pending()),
        };
        router.nodes.insert(to.clone(), handle);
        let log = tempfile::NamedTempFile::new().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(Arc::new(log.reopen().unwrap()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for redirects in [MOST_REDIRECTS - 1, MOST_REDIRECTS] {
                let event = NodeEvent::Asked(tests::attempt(redirects, &telemetry), to.clone());
                router.handle(NodeMessage { id: 7, event });
                assert_eq!(router.resting.len(), usize::from(redirects == MOST_REDIRECTS));
            }
        });
        let log = std::fs::read_to_string(log.path()).unwrap();
        for part in ["10.0.0.2:7001", "the store did not answer within 1s 200ms"] {
            assert!(log.contains(part), "{part} is not in {log}");
        }
        assert!(!log.contains("MOVED"), "{log}");
    }

    #[tokio::test]
    async fn a_search_that_fails_is_counted_although_the_servers_are_known() {
        let telemetry = Telemetry::new();
        let mut router = router(&telemetry);
        router.located(Err(Error::Closed));
        assert_eq!(errors(&telemetry), "outrider_quota_store_errors_total 1");
        assert!(router.topology.is_some() && !router.health.has_failed());
    }
}
