//! outrider: an outbound forward proxy that runs beside an app, in the same container.
//!
//! The app only sets `HTTP_PROXY` and `HTTPS_PROXY`. outrider attaches the client certificate or the credential
//! that each destination asks for, keeps to its rate limits, refuses what the policy does not allow, and records
//! what happened.
//!
//! This is the map. `docs/architecture.md` has the same sections, which a test compares, and the lives of a
//! destination and of a learned limit.
//!
//! # The picture
//!
//! ```text
//!          ┌──────────────────────────────── one process ─────────────────────────────────┐
//!          │  cli ──▶ app ──▶ worker 1 … N       (each: a thread, a runtime, a pool)      │
//!          │           │                                                                  │
//!          │           └─ reload, rotation, drain: swaps what the workers use             │
//!          │                                                                              │
//! app ────▶│  server ▶ http1 ▶ proxy ▶ cache ▶ limit ▶ auth ▶ upstream ▶ http1            │──▶ partner
//!          │                     │               ▲                 │                      │
//!          │                     ▼               └─ learns from    ▼                      │
//!          │                   policy               the answer   look-up, approve,        │
//!          │                                                     dial, TLS                │
//!          │  admin: metrics, health, status        store: one limit for a fleet          │──▶ Redis
//!          └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What was written (`Config`), what it means (`Policy`) and what is alive (`Live`) are three types in three
//! modules. A request loads the live state once and keeps it until its end, so a reload never changes a request
//! that is under way.
//!
//! # Ranks
//!
//! A module names only modules of a lower rank. `tests/layout.rs` checks it, so there is no cycle between them.
//!
//! | rank | module | what it does |
//! | --: | --- | --- |
//! | 12 | `cli` | the commands: run, exec, check, explain, evidence, learn, env, init, schema, demo |
//! | 12 | `bench`, `fuzz` | what the benches and the cost test measure; what the fuzz targets run |
//! | 11 | `app` | starts everything; the one loop where anything changes |
//! | 10 | `worker` | a thread with a runtime, a share of the connections, and a pool |
//! | 9 | `server` | accepts the app's connections |
//! | 9 | `admin` | the pages on the admin port |
//! | 8 | `proxy` | what happens to a request |
//! | 7 | `auth` | attaches credentials: secrets, tokens, signatures |
//! | 7 | `clients` | who may use the listener, and its TLS; who may come through the route service |
//! | 7 | `store` | counts one limit for all instances, in Redis |
//! | 6 | `upstream` | gets a request to its destination: pool, look-up, dialler, TLS, circuit breaker |
//! | 6 | `limit` | how many requests a destination gets |
//! | 6 | `cache` | stored answers, by RFC 9111 |
//! | 6 | `ca` | the local authority, its certificates and the bundle for the app |
//! | 5 | `policy` | what the configuration means; no I/O |
//! | 5 | `secret` | reads and guards secrets |
//! | 5 | `starttls` | protocols that ask for TLS in the clear: what is said before it begins |
//! | 4 | `telemetry` | metrics, the record of an exchange, the log |
//! | 3 | `config` | the configuration as written, and everything wrong with it |
//! | 2 | `http1` | HTTP/1.1 on the wire, both sides |
//! | 2 | `socks` | SOCKS5 on the wire |
//! | 2 | `fields` | which header fields may pass |
//! | 2 | `window` | counts over a sliding span of time |
//! | 1 | `host` | where a request wants to go, parsed once |
//! | 1 | `units` | durations, sizes, rates |
//! | 1 | `message` | requests and responses, and the list of their fields |
//! | 1 | `method`, `path` | methods and patterns of paths, parsed once |
//! | 1 | `stream`, `drain` | byte streams; the end of the process |
//! | 0 | `descriptors`, `memory` | how many file descriptors and how much memory may be used |
//! | 0 | `panics`, `sync`, `error` | what a panic ends; locks that outlive it; an error with its causes |
//!
//! # The life of a request
//!
//! ```text
//! server/mod.rs           accept; refuse beyond limits.connections; give to the idlest worker
//! proxy/listener.rs       the first byte: HTTP, or SOCKS5 (proxy/socks.rs), or TLS with a client
//! proxy/connection.rs     serve one connection of the app
//! http1/server            read the head; refuse what two parsers could read in two ways
//! proxy/mod.rs            begin the record, ask who sends it, parse the target, ask policy: one of these, or deny
//!   proxy/tunnel.rs         tunnel: open the upstream, answer 200, join two sockets
//!   proxy/intercept.rs      intercept: answer 200, end TLS, give each inner request to forward
//!   proxy/udp.rs            CONNECT-UDP: answer 101, move packets in capsules
//! proxy/route_service.rs  the route service: what the platform's router asks, judged, then as in forward
//! proxy/tcp               a local port of `tcp`: the words before TLS, TLS, then join two streams
//! proxy/forward.rs        forward: may it be asked? strip hop-by-hop fields, load the live state
//! proxy/placeholders      find the app's placeholders; refuse those that do not belong here
//! proxy/cached.rs         answer from the cache, or wait for an equal request, or go on
//! proxy/fetch.rs          try after try:
//!   proxy/attempt.rs        circuit and limits admit it; attach the credential, send, learn
//!     limit                   Permit or Refusal; a permit stays with the body until its end
//!     auth                    the credential of the rule, or of the pool
//!     upstream                a pooled connection, or: look-up, approve, dial, TLS
//!   proxy/tries.rs          decides whether another try follows
//! proxy/scrub.rs          redact our secrets in the answer
//! proxy/reply.rs          the only file that makes a response of our own, with Proxy-Status
//! ```
//!
//! Whatever ends it, the record (`Exchange`) is written once, when it is dropped: one set of counters and one line
//! in the log.
//!
//! A CONNECT that is intercepted cannot contain another CONNECT, and an inner request cannot change its
//! destination: its `Host` must be the tunnel's, or the answer is 421.
//!
//! # Glossary
//!
//! | word | meaning |
//! | --- | --- |
//! | app | the program beside outrider, which sends it its requests |
//! | destination | a named entry of the configuration: some hosts and the rules for them |
//! | target | where a request wants to go: scheme, host, port |
//! | parent | a proxy through which outrider gets to its destinations |
//! | upstream | the server of a destination, and the code that gets there |
//! | verdict | what the policy says to a target: forward, tunnel, intercept, deny |
//! | forward | carry one HTTP request and its answer |
//! | tunnel | join two sockets for a CONNECT, unread |
//! | intercept | end the app's TLS under the local authority, to see the requests in a CONNECT |
//! | upgrade | send an `http://` request of the app over TLS |
//! | exchange | one request and what became of it; a metric and a line in the log |
//! | credential | what is attached: a header, a parameter, a signature, a token, a client certificate |
//! | placeholder | a random text that the app has in the place of a secret |
//! | rule, `match` | a part of `auth`, `rate_limit` or `priority` that concerns certain methods and paths |
//! | reading | one way in which a server may understand a path |
//! | refusal | an answer of outrider: it says why, and what to change; in `limit::hints` and `limit::learned` an answer of the upstream (429, 503 …) |
//! | permit | the right to send one request |
//! | limiter | the limits of one destination at run time, its queue included |
//! | configured limit | a rate or a concurrency that you wrote |
//! | learned limit | what the upstream's answers say: a quota, a pause, or a rate that we guess |
//! | quota | how many requests the upstream leaves us until a moment |
//! | pause | nothing may be sent until a moment |
//! | guessed rate | a rate measured from what passed, for a service that only says 429 |
//! | probe | the one request that goes first when a pause or a quota ends |
//! | slow start | requests that follow a probe, a few more with each answer |
//! | client | somebody whom the listener serves: known by a password, a certificate, or both |
//! | caller | the user as the upstream sees him: a fingerprint of the credential |
//! | route | for learned limits: whether the method only reads, and the first segments of the path |
//! | lease | permits that an instance has borrowed from the store |
//! | share | the part of a rate that an instance keeps to while the store is away |
//! | circuit | whether a host is asked, or left alone after failures |
//! | try, retry | one sending of a request; another one after it |
//! | rehearsal | simulated limits and faults of a destination |
//! | cache entry | a stored answer, and the fields of its request |
//! | endpoint | the run-time part of a destination in `upstream`: TLS settings, identity, counters |
//! | pool | connections that wait for their next request, one pool a worker; in `auth`, several credentials of one destination |
//! | identity | a client certificate and its key |
//! | authority, leaf | our local certificate authority; a certificate that it signed for one host |
//! | bundle | the system's roots and our authority, for the app |
//! | snapshot | every secret of a configuration, read once |
//! | rotation | changed secrets are taken over while requests go on |
//! | reload | a changed configuration is taken over whole, or not at all |
//! | drain | the time between SIGTERM and the end |
//! | instance | one copy of the app with its outrider; all of them are the fleet |

// The fuzz targets use the readers only. The modules above those are left out for them, which saves a minute of CPU.
#![cfg_attr(fuzzing, allow(dead_code, unused_imports))]

#[cfg(not(fuzzing))]
#[doc(hidden)]
pub mod bench;
#[cfg(not(fuzzing))]
pub mod cli;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

#[cfg(not(fuzzing))]
mod admin;
#[cfg(not(fuzzing))]
mod app;
#[cfg(not(fuzzing))]
mod auth;
#[cfg(not(fuzzing))]
mod ca;
#[cfg(not(fuzzing))]
mod cache;
#[cfg(not(fuzzing))]
mod clients;
mod config;
mod descriptors;
mod drain;
mod error;
mod fields;
mod host;
mod http1;
#[cfg(test)]
#[path = "../tests/cost/ledger.rs"]
mod ledger;
mod limit;
mod memory;
mod message;
mod method;
mod panics;
mod path;
mod policy;
#[cfg(not(fuzzing))]
mod proxy;
mod secret;
#[cfg(not(fuzzing))]
mod server;
mod socks;
mod starttls;
mod store;
mod stream;
mod sync;
mod telemetry;
mod units;
mod upstream;
mod window;
#[cfg(not(fuzzing))]
mod worker;
