//! Real Redis servers that can be killed and started again at the same port: alone, in a cluster, under Sentinels.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::Range;
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
        Self::with("")
    }

    /// Starts with these arguments, separated by blanks. A `--requirepass` among them is used by [`say`](Self::say).
    #[track_caller]
    pub(crate) fn with(arguments: &str) -> Self {
        Self::start(words(arguments))
    }

    /// Follows `primary`, and takes its place when Sentinels or the cluster say so.
    #[track_caller]
    pub(crate) fn replica_of(primary: &Self) -> Self {
        Self::replica_with(primary, "127.0.0.1", "")
    }

    /// Follows `primary`, which it reaches under the name `host`.
    #[track_caller]
    pub(crate) fn replica_with(primary: &Self, host: &str, arguments: &str) -> Self {
        let port = primary.port;
        let replica = Self::with(&format!(
            "--replicaof {host} {port} --repl-diskless-sync-delay 0 {arguments}"
        ));
        replica.wait_until_it_follows();
        replica
    }

    #[track_caller]
    fn wait_until_it_follows(&self) {
        eventually("the replica follows", || {
            self.say("INFO replication").contains("master_link_status:up")
        });
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
        Self::with(&format!(
            "{} --tls-auth-clients no --requirepass {password}",
            tls_arguments(pki, identity)
        ))
    }

    #[track_caller]
    fn start(arguments: Vec<String>) -> Self {
        let value = |key: &str| {
            let at = arguments.iter().position(|argument| argument == key)?;
            arguments.get(at + 1).cloned()
        };
        let mut redis = Self {
            server: None,
            folder: tempfile::tempdir().unwrap(),
            port: closed_port(),
            password: value("--requirepass"),
            tls_port: value("--tls-port").map(|port| port.parse().unwrap()),
            arguments,
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
    #[track_caller]
    pub(crate) fn say(&self, command: &str) -> String {
        say(self.port, self.password.as_deref(), command)
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

#[track_caller]
fn say(port: u16, password: Option<&str>, command: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    if let Some(password) = password {
        socket
            .write_all(format!("AUTH {password}\r\n").as_bytes())
            .unwrap();
        reader.read_line(&mut String::new()).unwrap();
    }
    socket.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    answer(&mut reader)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The arguments for TLS as `identity` on another port, with clients' certificates of `pki`.
pub(crate) fn tls_arguments(pki: &Pki, identity: &Identity) -> String {
    format!(
        "--tls-port {} --tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {}",
        closed_port(),
        identity.cert_path.display(),
        identity.key_path.display(),
        pki.ca().display()
    )
}

/// Three primaries that share the slots.
pub(crate) struct Cluster {
    /// The primaries; replicas are after them.
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(|_| String::new())
    }

    /// Starts servers with further arguments, by their number.
    #[track_caller]
    pub(crate) fn with(arguments: impl Fn(usize) -> String) -> Self {
        let nodes: Vec<_> = (0..3).map(|number| Self::node(&arguments(number))).collect();
        for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            node.say(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        }
        let cluster = Self { nodes };
        cluster.meet(1..3);
        cluster
    }

    fn node(arguments: &str) -> Redis {
        Redis::with(&format!(
            "--cluster-enabled yes --cluster-node-timeout 2000 --cluster-port {} --repl-diskless-sync-delay 0 {arguments}",
            closed_port()
        ))
    }

    /// Makes servers known to the first one, and waits until all know each other.
    #[track_caller]
    fn meet(&self, numbers: Range<usize>) {
        let first = &self.nodes[0];
        let at = first.arguments.iter().position(|word| word == "--cluster-port");
        let bus = &first.arguments[at.unwrap() + 1];
        let is_secured = first.arguments.iter().any(|word| word == "--tls-cluster");
        let port = if is_secured { first.tls_port() } else { first.port };
        for node in &self.nodes[numbers] {
            node.say(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
        }
        let count = format!("cluster_known_nodes:{}", self.nodes.len());
        eventually("every server knows the cluster", || {
            self.nodes.iter().all(|node| {
                let info = node.say("CLUSTER INFO");
                info.contains(&count) && info.contains("cluster_state:ok")
            })
        });
    }

    /// Adds a replica of a primary.
    #[track_caller]
    pub(crate) fn add_replica(&mut self, of: usize) {
        let number = self.nodes.len();
        self.nodes.push(Self::node(""));
        self.meet(number..number + 1);
        let (primary, replica) = (self.nodes[of].say("CLUSTER MYID"), &self.nodes[number]);
        replica.say(&format!("CLUSTER REPLICATE {primary}"));
        replica.wait_until_it_follows();
        // Only a replica whose primary has said so can be elected.
        eventually("all know the replica", || {
            self.nodes
                .iter()
                .all(|node| node.say("CLUSTER NODES").contains("slave"))
        });
    }

    /// The addresses of the primaries, as a URL has them.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = (self.nodes.iter())
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        addresses.join(",")
    }

    /// Moves the slot of `key` from the server that keeps it to another one. Calls `half` when one of its keys has
    /// moved, and `between` when all have and the cluster does not say so yet. Returns the number of the new server.
    pub(crate) fn move_slot(&self, key: &str, half: impl FnOnce(), between: impl FnOnce()) -> usize {
        let from = self.keeper(key);
        let to = (from + 1) % 3;
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot = source.say(&format!("CLUSTER KEYSLOT {key}"));
        let (from_id, to_id) = (source.say("CLUSTER MYID"), target.say("CLUSTER MYID"));
        target.say(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        source.say(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        let migrate = |keys: &str| {
            let port = target.port;
            source.say(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 5000 KEYS {keys}"))
        };
        migrate(key);
        half();
        migrate(&source.say(&format!("CLUSTER GETKEYSINSLOT {slot} 100")));
        between();
        for node in [target, source, &self.nodes[(to + 1) % 3]] {
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

    /// The keys of the limits of all servers, without those of the members.
    pub(crate) fn limits(&self) -> Vec<String> {
        let keys: String = self.nodes.iter().map(|node| node.keys() + " ").collect();
        let limits = keys.split_whitespace().filter(|key| !key.ends_with(":members"));
        limits.map(str::to_owned).collect()
    }
}

/// Three Sentinels that watch a primary under the name `main`.
pub(crate) struct Sentinels {
    folders: Vec<(TempDir, ServerProcess)>,
    ports: Vec<u16>,
    /// Of Sentinels that also speak TLS.
    tls_ports: Vec<u16>,
}

impl Sentinels {
    #[track_caller]
    pub(crate) fn watching(primary: &Redis) -> Self {
        Self::with("127.0.0.1", primary.port, None, |_| Vec::new())
    }

    /// Watches a primary that has a replica. `password`: what they ask for themselves. `lines`: further lines of a
    /// Sentinel's file, before and after the one with the primary, from the TLS port that it may have.
    #[track_caller]
    pub(crate) fn with(
        host: &str,
        port: u16,
        password: Option<&str>,
        lines: impl Fn(u16) -> Vec<String>,
    ) -> Self {
        let (mut folders, mut ports, mut tls_ports) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            let (folder, own, tls) = (tempfile::tempdir().unwrap(), closed_port(), closed_port());
            let file = folder.path().join("sentinel.conf");
            let (after, mut all): (Vec<_>, Vec<_>) =
                lines(tls).into_iter().partition(|line| line.contains(" main "));
            all.extend([
                format!("bind 127.0.0.1\nport {own}\ndir {}", folder.path().display()),
                format!("sentinel monitor main {host} {port} 2"),
                "sentinel down-after-milliseconds main 500".to_owned(),
                "sentinel failover-timeout main 3000".to_owned(),
            ]);
            all.extend(password.map(|password| format!("requirepass {password}")));
            all.extend(after);
            std::fs::write(&file, all.join("\n") + "\n").unwrap();
            let mut command = Command::new("redis-server");
            folders.push((
                folder,
                ServerProcess::start(command.arg(&file).arg("--sentinel"), own),
            ));
            ports.push(own);
            tls_ports.push(tls);
        }
        let sentinels = Self {
            folders,
            ports,
            tls_ports,
        };
        eventually("the Sentinels know each other and the replica", || {
            let is_ready = |port: &u16| {
                let info = say(*port, password, "INFO sentinel");
                info.contains("slaves=1,sentinels=3") && info.contains("status=ok")
            };
            sentinels.ports.iter().all(is_ready)
        });
        sentinels
    }

    /// The addresses of all, as a URL has them.
    pub(crate) fn addresses(&self) -> String {
        join(&self.ports)
    }

    /// The addresses for TLS.
    pub(crate) fn tls_addresses(&self) -> String {
        join(&self.tls_ports)
    }

    /// Ends the first of them.
    pub(crate) fn kill_one(&mut self) {
        self.folders.remove(0);
    }
}

fn join(ports: &[u16]) -> String {
    let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    addresses.join(",")
}
