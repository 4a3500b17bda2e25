//! The parts that `tests/bench` and `tests/cost.rs` measure: pieces of a request's path, one at a time and
//! without sockets, and the whole proxy.
//!
//! Each type holds what the proxy prepares in advance and calls what the proxy calls. The program does not use
//! this module, and it is not a stable interface: it changes with the parts.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::app::{App, PlaceholderSource};
use crate::auth::Attachment;
use crate::ca::{Authority, Offer};
use crate::config::{self, Config, Listen};
use crate::host::{Host, HostPattern, Scheme, Target};
use crate::limit::shared::lease::FleetConfig;
use crate::limit::shared::store_queue::Sharing;
use crate::limit::{self, LazyLimiter, Limiter};
use crate::message::{Fields, Request, RequestHead};
use crate::policy::{Policy, RequestForm, Verdict};
use crate::proxy::{self, RetryPolicy};
use crate::secret::Snapshot;
use crate::telemetry::Telemetry;
use crate::upstream::breaker::{Breaker, HostHealth};

/// A policy of many destinations: `api-0.test`, `*.zone-0.test` and `/v1/**` for the first, and so on.
#[derive(Debug)]
pub struct RoutingBench(Policy);

/// A limiter that is far from its rate and its slots.
#[derive(Debug)]
pub struct LimiterBench(Arc<Limiter>);

/// The circuit breaker and the retry budget of a destination that works.
#[derive(Debug)]
pub struct CircuitBench {
    breaker: Breaker,
    retry_policy: RetryPolicy,
    target: Target,
}

/// The fields of a successful answer.
#[derive(Debug)]
pub struct HintsBench(Fields);

/// The head of a request.
#[derive(Clone, Debug)]
pub struct HeadBench(Box<RequestHead>);

/// A destination that attaches a bearer token.
#[derive(Debug)]
pub struct CredentialBench(Attachment);

/// A local authority that has served `api.test` before.
#[derive(Debug)]
pub struct LeafBench {
    authority: Authority,
    host: Host,
}

/// The whole proxy in this process, on separate threads. Ends on drop.
#[derive(Debug)]
pub struct RunningProxy {
    address: SocketAddr,
    /// What ends it, and its thread. `None` once it is dropped.
    runs: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl RoutingBench {
    /// Compiles the policy.
    pub fn prepare(destinations: usize) -> Self {
        let mut text = String::from("egress: { default: deny }\ndestinations:\n");
        for i in 0..destinations {
            writeln!(
                text,
                "  d{i}: {{ hosts: [api-{i}.test, '*.zone-{i}.test'], paths: [/v1/**] }}"
            )
            .expect("a string takes all");
        }
        Self(policy(&text))
    }

    /// Returns whether a GET of `uri` is carried: target, verdict, method and path, and how it leaves.
    pub fn is_carried(&self, uri: &Uri) -> bool {
        let Ok(target) = Target::of_absolute(uri) else {
            return false;
        };
        match self.0.route(&target, RequestForm::Request) {
            Verdict::Forward(destination) => {
                destination.permits(&Method::GET, uri.path()).is_ok() && destination.leaves(&target).is_ok()
            }
            Verdict::Deny(..) | Verdict::Intercept(_) | Verdict::Observe(..) | Verdict::Tunnel(_) => false,
        }
    }
}

impl LimiterBench {
    /// Makes the limiter.
    pub fn prepare() -> Self {
        let policy = policy(
            "destinations: { d: { hosts: [api.test], concurrency: 1000, rate_limit: 1000000/s burst 1000000 } }",
        );
        Self(limiter(&policy, None))
    }

    /// Makes a limiter without limits, which can still learn.
    pub fn unlimited() -> Self {
        let policy = policy("destinations: { d: { hosts: [api.test] } }");
        Self(limiter(&policy, None))
    }

    /// Makes a limiter whose permits are lent by a store.
    pub fn shared() -> Self {
        let policy = policy(
            "destinations: { d: { hosts: [api.test], concurrency: 1000, rate_limit: 1000000/s burst 1000000 } }",
        );
        let sharing = Sharing {
            queue: Arc::default(),
            fleet: FleetConfig::default(),
            names: Arc::new([]),
        };
        Self(limiter(&policy, Some(sharing)))
    }

    /// Lends permits, as the store does.
    pub fn lend(&self, permits: u32) {
        limit::bench::lend(&self.0, permits);
    }

    /// Takes a permit and gives it back. Returns whether there was one.
    pub fn admits(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let admitted = pin!(
            self.0
                .admit(limit::bench::request(&Method::GET, "/v1/x"), || None)
        )
        .poll(&mut context);
        matches!(admitted, Poll::Ready(Ok(_)))
    }

    /// Takes a permit, learns from an answer and gives the permit back. Returns whether there was one.
    pub fn learns(&self, answer: &HintsBench) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let admitted = pin!(
            self.0
                .admit(limit::bench::request(&Method::GET, "/v1/x"), || None)
        )
        .poll(&mut context);
        let Poll::Ready(Ok(permit)) = admitted else {
            return false;
        };
        permit.learn(
            StatusCode::OK,
            &answer.0,
            limit::bench::request(&Method::GET, "/v1/x"),
        );
        true
    }
}

impl CircuitBench {
    /// Makes both.
    pub fn prepare() -> Self {
        let policy = policy("destinations: { d: { hosts: [api.test], circuit_breaker: {}, retry: {} } }");
        let destination = &policy.destinations[1];
        let counters = Telemetry::new().counters("d");
        let breaker = Breaker::new(
            destination.circuit_breaker.expect("written above"),
            &destination.name,
            counters,
        );
        Self {
            breaker,
            retry_policy: RetryPolicy::new(
                destination.retry.clone().expect("written above"),
                &destination.name,
            ),
            target: Target {
                scheme: Scheme::Https,
                host: Host::parse("api.test").expect("a host"),
                port: 443,
            },
        }
    }

    /// Does their part of a request that works. Returns whether it passes.
    pub fn passes(&self) -> bool {
        proxy::bench::begin(&self.retry_policy);
        let passage = self.breaker.pass(&self.target, Instant::now());
        passage.map(|passage| passage.report(HostHealth::Works)).is_ok()
    }
}

impl HintsBench {
    /// Makes the answer.
    pub fn new(fields: HeaderMap) -> Self {
        Self(fields.into())
    }

    /// Returns whether the answer has hints about the upstream's limits.
    pub fn has_hints(&self) -> bool {
        limit::bench::mentions_limits(&self.0, SystemTime::UNIX_EPOCH)
    }
}

impl HeadBench {
    /// Takes the head of `request`.
    pub fn new(request: http::Request<()>) -> Self {
        Self(Request::from(request).into_parts().0)
    }

    /// Returns how many field lines it has.
    pub fn lines(&self) -> usize {
        self.0.headers.len()
    }
}

impl CredentialBench {
    /// Makes the credential ready.
    pub fn prepare() -> Self {
        let policy = policy(
            "destinations: { d: { hosts: [api.test], headers: { set: { Authorization: 'Bearer 0123456789abcdef' } } } }",
        );
        let attachment = Attachment::build(None, &policy.destinations[1].headers, &Snapshot::of_process());
        Self(attachment.expect("no secret to read"))
    }

    /// Removes the hop-by-hop fields and attaches the credential. Returns whether it could.
    pub fn rewrite(&self, head: &mut HeadBench) -> bool {
        proxy::bench::strip(&mut head.0.headers);
        self.0.apply(&mut head.0).is_ok()
    }
}

impl LeafBench {
    /// Makes the authority and the leaf.
    pub fn prepare() -> Self {
        let pattern = HostPattern::parse("api.test").expect("a host");
        let authority = Authority::new(&[pattern], Default::default(), Duration::from_secs(86_400))
            .expect("a key and a certificate");
        let leaves = Self {
            authority,
            host: Host::parse("api.test").expect("a host"),
        };
        assert!(leaves.serves(), "the host is named");
        leaves
    }

    /// Looks up the settings that serve the host. Returns whether there are any.
    pub fn serves(&self) -> bool {
        self.authority.serve(&self.host, Offer::H2).is_ok()
    }
}

impl RunningProxy {
    /// Starts the proxy on a configuration file, as `outrider run` does.
    pub fn start(config: &Path) -> Self {
        let (config, source) = config::load_located(Some(config)).expect("well-formed");
        let (sender, receiver) = mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let outcome = runtime.expect("a runtime").block_on(async {
                let mut app = App::start(
                    config,
                    source,
                    crate::clients::CommandClient::default(),
                    PlaceholderSource::Given(None),
                )
                .await
                .expect("free ports");
                for listen in &app.addresses().listen {
                    if let Listen::Tcp(address) = listen {
                        sender.send(*address).expect("the caller waits for it");
                    }
                }
                app.run(ended).await
            });
            let _ = outcome.expect("an end without a fault");
        });
        let address = receiver.recv().expect("a TCP address to listen on");
        let runs = Some((end, thread));
        Self { address, runs }
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Returns when all of it has ended: what it frees later would be counted with what comes next.
impl Drop for RunningProxy {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.runs.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

fn policy(text: &str) -> Policy {
    let config = Config::parse(text, "bench.yml").expect("well-formed");
    Policy::compile(&config).expect("without contradictions")
}

fn limiter(policy: &Policy, sharing: Option<Sharing>) -> Arc<Limiter> {
    let counters = Telemetry::new().counters("d");
    let lazy = LazyLimiter::of(&policy.destinations[1], sharing, &counters, None);
    Arc::clone(lazy.limiter())
}
