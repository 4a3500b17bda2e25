//! What was observed, read from the page /observed or from the log.
//!
//! Neither is believed: each host, port, method and path is parsed as that of a request is, and what does not parse is
//! left out and counted. Somebody who can write to the log can name hosts, which is why a person sees the diff first.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read as _};

use http::Method;
use serde_json::Value;

use crate::host::Host;

/// Hosts with a port.
const MOST: usize = 10_000;

/// Pairs of method and path of one host.
const MOST_REQUESTS: usize = 1_000;

/// A line of the log, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// The log cuts longer paths.
const LONGEST_PATH: usize = 1024;

/// What was observed.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By the host as it is written, and the port.
    pub(super) hosts: BTreeMap<(String, u16), SeenHost>,
    /// Entries that name no usable host, port, method or path.
    pub(super) odd: u64,
    /// Exchanges for which there was no room.
    pub(super) left_out: u64,
}

/// What went to one host and port.
#[derive(Debug)]
pub(super) struct SeenHost {
    pub(super) host: Host,
    /// Whether it ever answered.
    pub(super) has_answered: bool,
    /// Whether something went there of which method and path are not known.
    pub(super) has_unseen: bool,
    /// Method and path, in which a segment `*` stands for a long one.
    pub(super) requests: BTreeSet<(String, String)>,
}

impl Record {
    /// Reads the page; `None` if it is another one.
    pub(super) fn of_page(page: &Value) -> Option<Self> {
        let mut record = Self {
            left_out: page["hosts_left_out"].as_u64()?,
            ..Self::default()
        };
        for entry in page["observed"].as_array()? {
            let passed = entry["passed"].as_u64().unwrap_or_default();
            let Some(seen) = record.seen(&entry["host"], &entry["port"]) else {
                continue;
            };
            seen.has_answered |= passed > 0;
            let is_counted = |key: &str| entry[key].as_u64().is_none_or(|count| count > 0);
            seen.has_unseen |= is_counted("tunnels") || is_counted("requests_left_out");
            for request in entry["requests"].as_array().map_or(&[] as &[_], Vec::as_slice) {
                seen.add(&request["method"], request["path"].as_str());
            }
        }
        Some(record)
    }

    /// Reads a log: lines of JSON, each perhaps behind what a platform writes in front. Other lines mean nothing.
    pub(super) fn of_log(mut log: impl BufRead) -> io::Result<Self> {
        let mut record = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if log.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(record);
            }
            let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST_LINE;
            while !is_whole && !line.ends_with(b"\n") {
                line.clear();
                if log.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
                    break;
                }
            }
            if is_whole {
                record.add_line(&line);
            }
        }
    }

    fn add_line(&mut self, line: &[u8]) {
        let Some(start) = line.iter().position(|byte| *byte == b'{') else {
            return;
        };
        let mut values = serde_json::Deserializer::from_slice(&line[start..]).into_iter::<Value>();
        let Some(Ok(exchange)) = values.next() else { return };
        if exchange["target"] != "access" || !exchange["would_deny"].is_string() {
            return;
        }
        let is_tunnel = exchange["method"] == "CONNECT";
        let Some(seen) = self.seen(&exchange["host"], &exchange["port"]) else {
            return;
        };
        let has_answered = exchange["answered_by"] == "upstream" || (is_tunnel && exchange["status"] == 200);
        seen.has_answered |= has_answered;
        if !has_answered {
            return;
        }
        let is_cut = (exchange["path"].as_str()).is_some_and(|path| path.len() >= LONGEST_PATH);
        // The log knows the registered methods only.
        if is_tunnel || is_cut || exchange["method"] == "other" {
            seen.has_unseen = true;
        } else {
            // The page has it written so.
            let path = exchange["path"].as_str().map(|path| path.replace('*', "%2A"));
            seen.add(&exchange["method"], path.as_deref());
        }
    }

    /// Returns the entry of a host and port.
    fn seen(&mut self, host: &Value, port: &Value) -> Option<&mut SeenHost> {
        let port = port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0);
        let host = host.as_str().and_then(|host| Host::parse(host).ok());
        let (Some(host), Some(port)) = (host, port) else {
            self.odd += 1;
            return None;
        };
        let key = (host.to_string(), port);
        if self.hosts.len() >= MOST && !self.hosts.contains_key(&key) {
            self.left_out += 1;
            return None;
        }
        Some(self.hosts.entry(key).or_insert_with(|| SeenHost {
            host,
            has_answered: false,
            has_unseen: false,
            requests: BTreeSet::new(),
        }))
    }
}

impl SeenHost {
    fn add(&mut self, method: &Value, path: Option<&str>) {
        let method = method
            .as_str()
            .filter(|method| Method::from_bytes(method.as_bytes()).is_ok());
        let path = path.filter(|path| path.starts_with('/'));
        match (method, path) {
            (Some(method), Some(path)) if self.requests.len() < MOST_REQUESTS => {
                self.requests.insert((method.to_owned(), path.to_owned()));
            }
            _ => self.has_unseen = true,
        }
    }
}
