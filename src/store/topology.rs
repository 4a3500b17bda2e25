//! Which server keeps which key: one server for all of them, or the slots of a cluster.
//!
//! A cluster divides its keys into 16,384 slots by a checksum (the cluster specification of Redis). The names of
//! one destination share a hash tag, so all of them lie in one slot and one script can use them together.
//!
//! Pure: [`connector`](super::connector) asks the servers, [`router`](super::router) keeps the map up to date.

use std::collections::HashMap;

use super::error::Error;
use super::resp::{ProtocolError, RedisReply};
use crate::host::{Host, Scheme, Target};

const SLOTS: u16 = 16_384;

/// The servers by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// First slot, last slot, server.
    ranges: Vec<(u16, u16, Target)>,
    /// Slots that have moved since the ranges were read.
    moved: HashMap<u16, Target>,
}

impl Topology {
    /// One server for everything.
    pub(super) fn of_one(node: Target) -> Self {
        Self {
            ranges: vec![(0, SLOTS - 1, node)],
            moved: HashMap::new(),
        }
    }

    /// Reads the answer of `asked` to CLUSTER SLOTS.
    pub(super) fn read(reply: &RedisReply, asked: &Target) -> Result<Self, Error> {
        let RedisReply::List(ranges) = reply else {
            return Err(ProtocolError.into());
        };
        let range = |range: &RedisReply| {
            let (first, last, host, port) = parts(range).ok_or(ProtocolError)?;
            Ok((first, last, node(host, port, asked)?))
        };
        Ok(Self {
            ranges: ranges.iter().map(range).collect::<Result<_, Error>>()?,
            moved: HashMap::new(),
        })
    }

    /// Returns the server that keeps a slot; `None` while no server does.
    pub(super) fn owner(&self, slot: u16) -> Option<&Target> {
        self.moved.get(&slot).or_else(|| {
            let range = self
                .ranges
                .iter()
                .find(|(first, last, _)| (*first..=*last).contains(&slot));
            range.map(|(_, _, node)| node)
        })
    }

    /// Returns each server once.
    pub(super) fn nodes(&self) -> Vec<&Target> {
        let mut nodes = Vec::new();
        for node in self
            .ranges
            .iter()
            .map(|(_, _, node)| node)
            .chain(self.moved.values())
        {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Notes that one slot has moved.
    pub(super) fn apply(&mut self, slot: u16, to: Target) {
        self.moved.insert(slot, to);
    }
}

/// Reads where a server of a cluster sends us instead: its error `MOVED 3999 127.0.0.1:6381` or `ASK …`.
pub(super) fn redirection(error: &str, asked: &Target) -> Result<Target, Error> {
    let place = error.split(' ').nth(2).and_then(|place| place.rsplit_once(':'));
    let (host, port) = place.ok_or(ProtocolError)?;
    node(Some(host), port.parse().map_err(|_| ProtocolError)?, asked)
}

/// Reads a range of CLUSTER SLOTS: the first and the last slot, and the primary.
fn parts(range: &RedisReply) -> Option<(u16, u16, Option<&str>, u16)> {
    let RedisReply::List(parts) = range else {
        return None;
    };
    let [first, last, RedisReply::List(primary), ..] = parts.as_slice() else {
        return None;
    };
    let [host, port, ..] = primary.as_slice() else {
        return None;
    };
    let port = u16::try_from(port.number()?).ok()?;
    Some((slot(first.number()?)?, slot(last.number()?)?, host.text(), port))
}

/// Returns the slot of a key: that of the part between the first braces, where there is one.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// Builds the address of a server as `asked` names it. Without a host it is the one of `asked`.
pub(super) fn node(host: Option<&str>, port: u16, asked: &Target) -> Result<Target, Error> {
    let parse = |host: &str| Host::parse(host).map_err(|_| ProtocolError);
    let host = match host {
        None | Some("") => asked.host.clone(),
        // As Redis writes a host name that it does not know.
        Some("?") => return Err(Error::NoEndpoint),
        // An IPv6 address comes without brackets.
        Some(host) if host.contains(':') => parse(&format!("[{}]", host.trim_matches(['[', ']'])))?,
        Some(host) => parse(host)?,
    };
    let scheme: Scheme = asked.scheme;
    if port == 0 {
        return Err(ProtocolError.into());
    }
    Ok(Target { scheme, host, port })
}

fn slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|slot| *slot < SLOTS)
}
