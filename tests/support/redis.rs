//! Real Redis servers that can be killed and started again at the same port: alone, in a cluster, under Sentinels.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use super::programs::ServerProcess;
use super::{Identity, PATIENCE, Pki, closed_port, eventually};

/// A running server that keeps nothing on disk; it ends with the test.
pub(crate) struct Redis {
    arguments: Vec<String>,
    server: Option<ServerProcess>,
    folder: TempDir,
    port: u16,
    password: Option<String>,
    /// Of a server that also speaks TLS.
    tls_port: Option<u16>,
}

impl Redis {
    /// Speaks in the clear and lets everybody in.
    #[track_caller]
    pub(crate) fn open() -> Self {
        Self::start(Vec::new(), None, None)
    }

    /// Follows `primary`, and is told by Sentinels to take its place.
    #[track_caller]
    pub(crate) fn replica_of(primary: &Self) -> Self {
        let arguments = format!(
            "--replicaof 127.0.0.1 {} --repl-diskless-sync-delay 0",
            primary.port
        );
        let replica = Self::start(words(&arguments), None, None);
        eventually("the replica follows", || {
            replica.say("INFO replication").contains("master_link_status:up")
        });
        replica
    }

    /// Also wants a certificate of `pki` from its clients.
    #[track_caller]
    pub(crate) fn demanding(pki: &Pki, identity: &Identity, password: &str) -> Self {
        let mut redis = Self::guarded(pki, identity, password);
        redis.arguments.extend(words("--tls-auth-clients yes"));
        redis.restart();
        redis
    }

    /// Wants `password`, and speaks TLS as `identity` on another port.
    #[track_caller]
    pub(crate) fn guarded(pki: &Pki, identity: &Identity, password: &str) -> Self {
        let tls_port = closed_port();
        let mut arguments = vec!["--tls-port".to_owned(), tls_port.to_string()];
        for (key, path) in [
            ("--tls-cert-file", &identity.cert_path),
            ("--tls-key-file", &identity.key_path),
            ("--tls-ca-cert-file", &pki.ca()),
        ] {
            arguments.extend([key.to_owned(), path.display().to_string()]);
        }
        arguments.extend(["--tls-auth-clients", "no", "--requirepass", password].map(str::to_owned));
        Self::start(arguments, Some(password.to_owned()), Some(tls_port))
    }

    #[track_caller]
    fn start(arguments: Vec<String>, password: Option<String>, tls_port: Option<u16>) -> Self {
        let mut redis = Self {
            arguments,
            server: None,
            folder: tempfile::tempdir().unwrap(),
            port: closed_port(),
            password,
            tls_port,
        };
        redis.restart();
        redis
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again, empty.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--bind",
                "127.0.0.1",
                "--port",
            ])
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments);
        self.server = Some(ServerProcess::start(&mut command, self.port));
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port.unwrap()
    }

    /// How many times the script was run, and how long one run took on average, in microseconds.
    pub(crate) fn runs(&self) -> (u64, f64) {
        let stats = self.say("INFO commandstats");
        let of = |command: &str| {
            let line = stats.lines().find(|line| line.starts_with(command))?;
            let field = |key: &str| {
                let field = line.split([':', ',']).find_map(|field| field.strip_prefix(key))?;
                field.parse::<f64>().ok()
            };
            Some((field("calls=")?, field("usec=")?))
        };
        let all = [of("cmdstat_evalsha:"), of("cmdstat_eval:")];
        let (calls, micros) = all
            .into_iter()
            .flatten()
            .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (calls as u64, micros / f64::max(calls, 1.0))
    }

    /// All keys.
    pub(crate) fn keys(&self) -> String {
        self.say("EVAL \"return table.concat(redis.call('KEYS', '*'), ' ')\" 0")
    }

    /// Says one line and returns the text of the answer; of a list the texts, with blanks between.
    pub(crate) fn say(&self, command: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut line = String::new();
        if let Some(password) = &self.password {
            socket
                .write_all(format!("AUTH {password}\r\n").as_bytes())
                .unwrap();
            reader.read_line(&mut line).unwrap();
            line.clear();
        }
        socket.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        answer(&mut reader)
    }
}

fn answer(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        "$" => {
            let mut text = vec![0; rest.parse::<usize>().unwrap() + 2];
            reader.read_exact(&mut text).unwrap();
            String::from_utf8(text)
                .unwrap()
                .trim_end_matches("\r\n")
                .to_owned()
        }
        "*" => {
            let texts: Vec<_> = (0..rest.parse().unwrap()).map(|_| answer(reader)).collect();
            texts.join(" ")
        }
        "-" => panic!("{line}"),
        _ => rest.to_owned(),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Three primaries that share the slots, without replicas.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let buses = [closed_port(), closed_port(), closed_port()];
        let nodes: Vec<_> = (buses.iter())
            .map(|bus| {
                Redis::start(
                    words(&format!("--cluster-enabled yes --cluster-port {bus}")),
                    None,
                    None,
                )
            })
            .collect();
        for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            node.say(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        }
        for node in &nodes[1..] {
            node.say(&format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[0].port, buses[0]));
        }
        eventually("every server knows the cluster", || {
            nodes.iter().all(|node| {
                let info = node.say("CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
        });
        Self { nodes }
    }

    /// The addresses of all, as a URL has them.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = (self.nodes.iter())
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        addresses.join(",")
    }

    /// Moves the slot of `key` from the server that keeps it to another one; calls `between` when its keys have
    /// moved and the cluster does not say so yet. Returns the number of the new server.
    pub(crate) fn move_slot(&self, key: &str, between: impl FnOnce()) -> usize {
        let from = self.keeper(key);
        let to = (from + 1) % self.nodes.len();
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot = source.say(&format!("CLUSTER KEYSLOT {key}"));
        let (from_id, to_id) = (source.say("CLUSTER MYID"), target.say("CLUSTER MYID"));
        target.say(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        source.say(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        let keys = source.say(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
        source.say(&format!(
            "MIGRATE 127.0.0.1 {} \"\" 0 5000 KEYS {keys}",
            target.port
        ));
        between();
        for node in [target, source, &self.nodes[(to + 1) % self.nodes.len()]] {
            node.say(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        }
        to
    }

    /// The number of the server that has a key.
    #[track_caller]
    pub(crate) fn keeper(&self, key: &str) -> usize {
        let has = |node: &Redis| node.keys().split(' ').any(|other| other == key);
        self.nodes.iter().position(has).unwrap()
    }
}

/// Three Sentinels that watch a primary under the name `main`.
pub(crate) struct Sentinels {
    folders: Vec<(TempDir, ServerProcess)>,
    ports: Vec<u16>,
}

impl Sentinels {
    #[track_caller]
    pub(crate) fn watching(primary: &Redis) -> Self {
        let (mut folders, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (folder, port) = (tempfile::tempdir().unwrap(), closed_port());
            let file = folder.path().join("sentinel.conf");
            let lines = [
                format!("bind 127.0.0.1\nport {port}\ndir {}", folder.path().display()),
                format!("sentinel monitor main 127.0.0.1 {} 2", primary.port),
                "sentinel down-after-milliseconds main 500".to_owned(),
                "sentinel failover-timeout main 3000\n".to_owned(),
            ];
            std::fs::write(&file, lines.join("\n")).unwrap();
            let mut command = Command::new("redis-server");
            folders.push((
                folder,
                ServerProcess::start(command.arg(&file).arg("--sentinel"), port),
            ));
            ports.push(port);
        }
        let sentinels = Self { folders, ports };
        eventually("the Sentinels know each other and the replica", || {
            (sentinels.ports.iter()).all(|port| say(*port, "INFO sentinel").contains("slaves=1,sentinels=3"))
        });
        sentinels
    }

    /// The addresses of all, as a URL has them.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        addresses.join(",")
    }

    /// Ends the first of them.
    pub(crate) fn kill_one(&mut self) {
        self.folders.remove(0);
    }
}

fn say(port: u16, command: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    answer(&mut BufReader::new(socket))
}
