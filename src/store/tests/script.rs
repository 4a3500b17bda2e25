//! The script on a real server, against its model in Rust.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::limit::shared::script_model::{self, ScriptModel};
use crate::limit::shared::{ANSWERS, PermitGrant, PermitRequest, SCRIPT};
use crate::store::resp::{self, RedisReply};

/// A server of our own on a socket file; ends with the value.
struct Server {
    process: Child,
    socket: UnixStream,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&path)
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which tests/run --tools installs");
        let started = Instant::now();
        let socket = loop {
            match UnixStream::connect(&path) {
                Ok(socket) => break socket,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::yield_now();
        };
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self {
            process,
            socket,
            _folder: folder,
        }
    }

    fn say(&mut self, command: &[&[u8]]) -> RedisReply {
        let mut bytes = Vec::new();
        resp::write(command, &mut bytes);
        self.socket.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        loop {
            if let Some((reply, _)) = resp::read(&answer).unwrap() {
                return reply;
            }
            let mut part = [0; 4096];
            let length = self.socket.read(&mut part).unwrap();
            assert!(length > 0, "the server is gone");
            answer.extend_from_slice(&part[..length]);
        }
    }

    fn call(
        &mut self,
        script: &str,
        member: &str,
        asks: &[(&str, PermitRequest)],
        now: Option<i64>,
    ) -> Vec<PermitGrant> {
        let keys: Vec<_> = (asks.iter())
            .flat_map(|(name, _)| [format!("{{t}}{name}"), format!("{{t}}{name}:m")])
            .collect();
        let count = keys.len().to_string();
        let mut arguments = vec![member.to_owned()];
        arguments.extend(asks.iter().flat_map(|(_, ask)| ask.arguments()));
        arguments.extend(now.map(|now| now.to_string()));
        let mut command = vec!["EVAL".as_bytes(), script.as_bytes(), count.as_bytes()];
        command.extend(keys.iter().chain(&arguments).map(|text| text.as_bytes()));
        let reply = self.say(&command);
        let numbers = reply.numbers().unwrap_or_else(|| panic!("{reply:?}"));
        let grants = numbers.chunks(ANSWERS);
        grants
            .map(|numbers| PermitGrant::read(numbers.try_into().unwrap()).unwrap())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The script with a clock that the test sets.
fn with_given_time() -> String {
    let (clock, given) = ("redis.call('TIME')", "{ 1767225600, ARGV[#ARGV] }");
    assert!(SCRIPT.contains(clock));
    SCRIPT.replace(clock, given)
}

#[test]
fn the_script_and_its_model_agree_on_every_number() {
    let mut server = Server::start();
    let script = with_given_time();
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut model, mut now, mut births) = (ScriptModel::default(), 1_000_000_000_000, vec![0, 1]);
        let limits: Vec<_> = (0..3).map(|_| script_model::random_terms(&mut random)).collect();
        server.say(&[b"FLUSHALL"]);
        for step in 0..100 {
            now += match random.random_range(0..20) {
                0 => random.random_range(0..200_000_000),
                1..=5 => random.random_range(0..2_000_000),
                _ => random.random_range(0..20_000),
            };
            if random.random_bool(0.01) {
                server.say(&[b"FLUSHALL"]);
                model.clear();
            }
            let member = format!("member-{}", random.random_range(0..12));
            let asks: Vec<_> = ["a", "b", "c"]
                .into_iter()
                .zip(&limits)
                .take(random.random_range(1..=3))
                .map(|(name, terms)| (name, script_model::random_ask(*terms, &births, &mut random)))
                .collect();
            let theirs = server.call(&script, &member, &asks, Some(now));
            let ours = model.call(&member, &asks, now);
            assert_eq!(theirs, ours, "seed {seed}, step {step}: {asks:#?}");
            births.push(ours[0].born());
        }
    }
}

#[test]
fn every_key_runs_out_and_shares_a_slot() {
    let mut server = Server::start();
    let mut random = StdRng::seed_from_u64(1);
    let terms = script_model::random_terms(&mut random);
    let ask = script_model::random_ask(terms, &[0], &mut random);
    server.call(SCRIPT, "m", &[("a", ask), ("b", ask)], None);
    let RedisReply::List(keys) = server.say(&[b"KEYS", b"*"]) else {
        panic!("no list")
    };
    assert_eq!(keys.len(), 4);
    for key in keys {
        let RedisReply::Text(key) = key else {
            panic!("{key:?}")
        };
        assert!(key.starts_with(b"{t}"));
        let RedisReply::Integer(life) = server.say(&[b"PTTL", &key]) else {
            panic!("no number")
        };
        assert!(life > 100_000, "{life}");
    }
}

#[test]
fn a_key_of_another_type_is_an_error_that_says_so() {
    let mut server = Server::start();
    server.say(&[b"SET", b"k", b"v"]);
    let mut command: Vec<&[u8]> = vec![b"EVAL", SCRIPT.as_bytes(), b"2", b"k", b"k:m", b"member"];
    command.extend([b"1".as_slice(); 15]);
    assert_eq!(server.say(&command).error(), Some("WRONGTYPE"));
}
