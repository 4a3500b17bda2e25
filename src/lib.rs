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
//! | 11 | `cli`, `bench` |
//! | 10 | `app` |
//! | 9 | `worker` |
//! | 8 | `server`, `admin` |
//! | 7 | `proxy` |
//! | 6 | `auth`, `store` |
//! | 5 | `upstream`, `limit`, `cache`, `ca` |
//! | 4 | `policy`, `secret` |
//! | 3 | `telemetry` |
//! | 2 | `config` |
//! | 1 | `fields`, `http1`, `window` |
//! | 0 | `host`, `units`, `stream`, `drain` |
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
mod drain;
mod fields;
mod host;
mod http1;
mod limit;
mod policy;
mod proxy;
mod secret;
mod server;
mod store;
mod stream;
mod telemetry;
mod units;
mod upstream;
mod window;
mod worker;
