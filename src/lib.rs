//! outrider: an outbound forward proxy that rides beside an app in its own container.
//!
//! The app only sets `HTTP_PROXY` and `HTTPS_PROXY`. The proxy attaches the client certificate or the
//! `Authorization` header that each destination asks for, keeps to its rate limits, refuses what the policy
//! does not allow, and tells what happened.
//!
//! # Words
//!
//! *destination*: a named entry of the configuration. *target*: where a request wants to go. *upstream*: the
//! machinery that gets there. *credential*: what is attached. *permit*: leave to send one request. *exchange*:
//! one request and what became of it. *tunnel*, *intercept*, *upgrade*: the three ways https can pass.
//!
//! # Ranks
//!
//! A module names only modules of a lower rank; `tests/layout.rs` checks it.
//!
//! | rank | modules |
//! | --: | --- |
//! | 12 | `cli`, `bench` |
//! | 11 | `app` |
//! | 10 | `worker` |
//! | 9 | `server`, `admin` |
//! | 8 | `proxy` |
//! | 7 | `auth`, `store` |
//! | 6 | `upstream`, `limit`, `cache`, `ca` |
//! | 5 | `policy`, `secret` |
//! | 4 | `telemetry` |
//! | 3 | `config` |
//! | 2 | `fields`, `http1`, `window` |
//! | 1 | `host`, `units`, `stream`, `drain` |
//! | 0 | `descriptors`, `memory`, `sync` |
//!
//! # The life of a request
//!
//! `server` accepts, `http1` reads the head. `proxy` parses the target, asks the policy for a verdict and takes
//! one of three ways: `forward` carries one HTTP exchange, `tunnel` joins two sockets, `intercept` ends the
//! app's TLS under the local authority and gives each inner request to `forward`.

#[doc(hidden)]
pub mod bench;
pub mod cli;

mod admin;
mod app;
mod auth;
mod ca;
mod cache;
mod config;
mod descriptors;
mod drain;
mod fields;
mod host;
mod http1;
mod limit;
mod memory;
mod policy;
mod proxy;
mod secret;
mod server;
mod store;
mod stream;
mod sync;
mod telemetry;
mod units;
mod upstream;
mod window;
mod worker;
