//! End to end: the real program, started as a user starts it, spoken to over sockets.
//!
//! One file a capability; [`support`] is the language they are written in. An id such as `A14` in a test's
//! doc comment is the line of the catalogue of attacks and faults that it proves. Verdicts are taken where
//! they matter: at the raw bytes which the origin received, not at the proxy's own word.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod admission;
mod app_handshakes;
mod bodies;
mod border;
mod bulk;
mod bundle;
mod cache;
mod cache_suite;
mod cache_users;
mod callers;
mod circuit;
mod clear_http2;
mod commands;
mod connect;
mod connection_bound;
mod connections;
mod credentials;
mod dashboards;
mod documents;
mod endings;
mod fleet;
mod fleet_cluster;
mod handshakes;
mod heads;
mod http2;
mod interim;
mod interim_h2;
mod interim_programs;
mod keys;
mod late_certificates;
mod layout;
mod learning;
mod leaving;
mod lifecycle;
mod limits;
mod loops;
mod main_job;
mod memory;
mod oauth;
mod raw_targets;
mod rehearse;
mod replay;
mod requests;
mod responses;
mod retry;
mod rotation;
mod rotten;
mod scrub;
mod secrets;
mod several;
mod shared_host;
mod signatures;
mod signed_tokens;
mod spelling;
mod stale;
mod status;
mod streaming;
mod support;
mod targets;
mod telling;
mod together;
mod token_servers;
mod tooling;
mod tries;
mod trust;
mod unprocessed;
mod upgrade;
mod upstream_tls;
mod x509;
