//! What the tests of the store share: a destination with a shared limit, and a store that is never dialled.

use std::sync::Arc;

use super::address::StoreAddress;
use super::connector::Connector;
use super::node::CallAttempt;
use crate::config::Config;
use crate::host::{Host, Scheme, Target};
use crate::limit::LazyLimiter;
use crate::limit::shared::lease::FleetConfig;
use crate::limit::shared::store_queue::{PermitCall, Sharing};
use crate::policy::{EgressRules, Policy};
use crate::secret::Snapshot;
use crate::telemetry::Telemetry;
use crate::upstream::resolve::Resolver;

mod resp;
mod script;
mod topology;

pub(super) fn node(host: &str, port: u16) -> Target {
    let (scheme, host) = (Scheme::Http, Host::parse(host).unwrap());
    Target { scheme, host, port }
}

pub(super) fn connector(telemetry: &Arc<Telemetry>) -> Arc<Connector> {
    let config = Config::parse("rate_limit_store: redis+cluster://127.0.0.1:7000", "test.yml").unwrap();
    let written = config.rate_limit_store.as_ref().unwrap();
    let snapshot = Snapshot::of_variables::<&str, &str>([]);
    Arc::new(Connector {
        address: StoreAddress::read(written, &snapshot).unwrap(),
        egress: EgressRules::of_operator(),
        resolver: Resolver::new(&config.dns, telemetry).unwrap(),
        tls: None,
    })
}

/// A call that was sent elsewhere so often.
pub(super) fn attempt(redirects: u32, telemetry: &Telemetry) -> CallAttempt {
    let text = "destinations: { d: { hosts: [api.test], rate_limit: 5/s } }";
    let policy = Policy::compile(&Config::parse(text, "test.yml").unwrap()).unwrap();
    let sharing = Sharing {
        queue: Arc::default(),
        fleet: FleetConfig::default(),
        names: ["{d}0".to_owned()].into(),
    };
    let counters = telemetry.counters("d");
    let lazy = LazyLimiter::of(&policy.destinations[1], Some(sharing), &counters, None);
    let limiter = Arc::clone(lazy.limiter());
    CallAttempt {
        call: PermitCall {
            requests: Vec::new(),
            limiter,
        },
        redirects,
        is_reported: false,
    }
}
