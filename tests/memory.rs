//! `limits.memory`: one peak of any kind is survived and forgotten.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::h2::{self, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::h2_origin::H2Partner;
use crate::support::partner::Partner;
use crate::support::pki::trusting;
use crate::support::programs::skipped;
use crate::support::{Origin, PATIENCE, Proxy, TOKEN, Wire, eventually, ok};

/// What the limit may be passed by: what is read before it is known whether it can be kept, what the allocator
/// has not given back yet, and in a debug build the size of each task. Without a limit the loads here take 70
/// MB and more.
const SLACK: u64 = 24 << 20;

/// Raises the limit of descriptors to the maximum.
pub(crate) fn take_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).unwrap();
}

/// Returns the limit in bytes for a proxy that may take so many megabytes beside what its program takes for itself,
/// which in a debug build is much.
pub(crate) fn limit(megabytes: u64) -> u64 {
    let origin = Origin::plain();
    let proxy = origin.proxy("");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    (proxy.resident() + (megabytes << 20)) >> 20 << 20
}

pub(crate) fn start(limit: u64, config: &str) -> Proxy {
    let config = format!("{config}\nlog: {{ format: json, access: none }}");
    Proxy::start_with(
        &config,
        &[("MEMORY_LIMIT", &format!("{}M", limit >> 20)), ("TOKEN", TOKEN)],
    )
}

/// Returns how often the log says that the limit is reached, and that it is over.
pub(crate) fn shortages(proxy: &Proxy) -> (usize, usize) {
    let log = proxy.log();
    let count = |text| log.lines().filter(|line| line.contains(text)).count();
    (
        count("limits.memory is reached: new work"),
        count("there is room again"),
    )
}

#[track_caller]
fn assert_short(proxy: &Proxy) {
    eventually("the shortage is told", || shortages(proxy) == (1, 0));
    assert_eq!(proxy.metric("outrider_memory_short", &[]), 1.0);
}

/// Asserts that everything is served again after the load, with one log line for each change.
#[track_caller]
fn assert_recovers(proxy: &Proxy, limit: u64, url: &str) {
    eventually("there is room again", || {
        proxy.metric("outrider_memory_short", &[]) == 0.0 && proxy.page("/readyz").status == 200
    });
    let answer = proxy.get(url);
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Another thread writes the log, a moment later.
    eventually("each change is logged once", || shortages(proxy) == (1, 1));
    let peak = proxy.resident_peak();
    assert!(peak < limit + SLACK, "{} MB of {}", peak >> 20, limit >> 20);
}

/// Starts an origin that reads requests and answers them all at once, on a signal.
fn gated() -> (u16, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, gate) = mpsc::channel();
    thread::spawn(move || {
        listener.set_nonblocking(true).unwrap();
        let mut held = Vec::new();
        while gate.try_recv() == Err(mpsc::TryRecvError::Empty) {
            match listener.accept() {
                Ok((socket, _)) => held.push(socket),
                Err(_) => thread::park_timeout(std::time::Duration::from_millis(5)),
            }
        }
        for mut socket in held {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = socket.write_all(answer.as_bytes());
            let _ = socket.shutdown(Shutdown::Write);
            thread::spawn(move || socket.read_to_end(&mut Vec::new()));
        }
        listener.set_nonblocking(false).unwrap();
        for socket in listener.incoming().map_while(Result::ok) {
            let mut wire = Wire::over(Box::new(socket.try_clone().unwrap()), socket);
            while wire.request().is_ok() {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    (port, open)
}

/// Sends `request` from `count` clients while nobody is answered, and calls `held`. Returns the status for each
/// client.
fn statuses(proxy: &Proxy, count: usize, request: &[u8], held: impl FnOnce()) -> Vec<Option<u16>> {
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut socket = TcpStream::connect(proxy.address()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_write_timeout(Some(PATIENCE)).unwrap();
            let _ = socket.write_all(request);
            socket
        })
        .collect();
    held();
    let status = |mut socket: TcpStream| {
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).get(9..12)?.parse().ok()
    };
    clients.into_iter().map(status).collect()
}

/// As many requests are served as there is memory for, the others are refused; afterwards all is as before.
#[test]
fn bodies_that_are_kept_take_part_in_the_limit() {
    take_descriptors();
    let limit = limit(24);
    let (port, open) = gated();
    let authority = format!("127.0.0.1:{port}");
    let proxy = start(
        limit,
        &format!("destinations: {{ p: {{ hosts: [\"{authority}\"], retry: {{}} }} }}"),
    );
    let mut request = format!(
        "PUT http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 60000\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + 60_000, b'x');
    let statuses = statuses(&proxy, 1000, &request, || {
        assert_short(&proxy);
        open.send(()).unwrap();
    });
    let count = |status| statuses.iter().filter(|other| **other == Some(status)).count();
    assert!(
        count(200) > 150 && count(503) > 400,
        "{} served, {} refused",
        count(200),
        count(503)
    );
    assert_recovers(&proxy, limit, &format!("http://{authority}/"));
}

#[test]
fn half_heads_take_part_in_the_limit() {
    take_descriptors();
    let limit = limit(24);
    let origin = Origin::plain();
    let proxy = start(
        limit,
        &format!("destinations: {{ p: {{ hosts: [\"{}\"] }} }}", origin.authority()),
    );
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nX-Filler: ",
        origin.url("/"),
        origin.authority()
    )
    .into_bytes();
    head.resize(63 * 1024, b'x');
    let clients: Vec<TcpStream> = (0..1500)
        .map(|_| {
            let mut socket = TcpStream::connect(proxy.address()).unwrap();
            let _ = socket.write_all(&head);
            socket
        })
        .collect();
    assert_short(&proxy);
    let mut wire = proxy.wire();
    let text = (wire.send(&head).response()).assert_ours(503, "connection_limit_reached");
    assert!(text.contains("limits.memory"), "{text}");
    drop(clients);
    assert_recovers(&proxy, limit, &origin.url("/"));
}

/// They may be as large as a head, and never end.
#[test]
fn half_trailers_take_part_in_the_limit() {
    take_descriptors();
    let limit = limit(24);
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            if request.line.contains("/half") {
                let mut answer =
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Filler: ".to_vec();
                answer.resize(250 * 1024, b'x');
                wire.send(answer);
            } else {
                wire.send(ok("", "ok"));
            }
        }
    });
    let proxy = start(
        limit,
        &format!("destinations: {{ p: {{ hosts: [\"{}\"] }} }}", origin.authority()),
    );
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/half"));
    let clients: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut socket = TcpStream::connect(proxy.address()).unwrap();
            let _ = socket.write_all(request.as_bytes());
            socket
        })
        .collect();
    assert_short(&proxy);
    drop(clients);
    assert_recovers(&proxy, limit, &origin.url("/"));
}

/// Heads that are whole, and wait with their requests.
#[test]
fn large_heads_take_part_in_the_limit_as_long_as_their_requests() {
    take_descriptors();
    let limit = limit(24);
    let (port, open) = gated();
    let authority = format!("127.0.0.1:{port}");
    let proxy = start(
        limit,
        &format!("destinations: {{ p: {{ hosts: [\"{authority}\"] }} }}"),
    );
    let mut request =
        format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nX-Filler: ")
            .into_bytes();
    request.resize(60 * 1024, b'x');
    request.extend_from_slice(b"\r\n\r\n");
    let statuses = statuses(&proxy, 1000, &request, || {
        assert_short(&proxy);
        open.send(()).unwrap();
    });
    let refused = statuses.iter().filter(|status| **status == Some(503)).count();
    assert!(refused > 400, "{refused} refused");
    assert_recovers(&proxy, limit, &format!("http://{authority}/"));
}

#[test]
fn http_2_streams_take_part_in_the_limit() {
    take_descriptors();
    let limit = limit(10);
    let partner = H2Partner::new();
    let config = partner.yaml_with("{ bearer: env:TOKEN }").replace(
        "hosts:",
        "rate_limit: 1/s, on_limit: wait 2h, queue: 10000, hosts:",
    );
    let proxy = start(limit, &config);
    let head = h2::get(&partner.authority(), "/");
    let connections: Vec<Wire> = (0..25)
        .map(|_| {
            let mut wire = proxy.intercepted_as(&partner.authority(), &["h2"]);
            h2::greet(&mut wire);
            wire
        })
        .collect();
    let connections: Vec<Wire> = connections
        .into_iter()
        .map(|mut wire| {
            for stream in (1..200).step_by(2) {
                wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
            }
            wire
        })
        .collect();
    assert_short(&proxy);
    drop(connections);
    eventually("there is room again", || {
        proxy.metric("outrider_memory_short", &[]) == 0.0
    });
    assert_eq!(proxy.page("/readyz").status, 200);
    eventually("each change is logged once", || shortages(&proxy) == (1, 1));
    let peak = proxy.resident_peak();
    assert!(peak < limit + SLACK, "{} MB of {}", peak >> 20, limit >> 20);
}

/// Caches that fill as they are meant to are what gives way.
#[test]
fn caches_leave_room_for_requests() {
    let limit = limit(16);
    let body = "x".repeat(20_000);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let origins: Vec<Origin> = (0..4).map(|_| Origin::saying(answer.clone())).collect();
    let destinations: Vec<String> = origins
        .iter()
        .enumerate()
        .map(|(number, origin)| {
            format!(
                "d{number}: {{ hosts: [\"{}\"], cache: {{}} }}",
                origin.authority()
            )
        })
        .collect();
    let proxy = start(limit, &format!("destinations: {{ {} }}", destinations.join(", ")));
    let mut wires: Vec<Wire> = origins.iter().map(|_| proxy.wire()).collect();
    for number in 0..1600 {
        let origin = &origins[number % origins.len()];
        let url = origin.url(&format!("/{number}"));
        let answer = wires[number % origins.len()].ask(format!(
            "GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.authority()
        ));
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
    }
    assert_eq!(shortages(&proxy), (0, 0), "{}", proxy.log());
    assert_eq!(proxy.metric("outrider_memory_short", &[]), 0.0);
    // What was asked for last is there still.
    let url = origins[3].url("/1599");
    let hit = proxy.get(&url);
    hit.assert_cache_status("outrider; hit");
    let peak = proxy.resident_peak();
    assert!(peak < limit, "{} MB of {}", peak >> 20, limit >> 20);
}

/// A client that connects and stays silent uses nothing that others need: upstreams and the admin port.
#[test]
fn idle_clients_leave_descriptors_for_requests_and_the_operator() {
    take_descriptors();
    let origins: Vec<Origin> = (0..3).map(|_| Origin::plain()).collect();
    let destinations: Vec<String> = origins
        .iter()
        .enumerate()
        .map(|(number, origin)| format!("d{number}: {{ hosts: [\"{}\"] }}", origin.authority()))
        .collect();
    let config = format!("destinations: {{ {} }}", destinations.join(", "));
    let proxy = Proxy::start_after("ulimit -n 200", &config, &[]);
    let mut early: Vec<Wire> = (0..20).map(|_| proxy.wire()).collect();
    for (number, wire) in early.iter_mut().enumerate() {
        let origin = &origins[number % origins.len()];
        let answer = wire.ask(format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.url("/"),
            origin.authority()
        ));
        assert_eq!(answer.status, 200);
    }
    let crowd: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect(proxy.address()).unwrap())
        .collect();
    let refused = |mut socket: &TcpStream| {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 503"
    };
    assert!(refused(&crowd[399]), "the last of a crowd is told");
    // All at once, and to every destination: none of the pool is enough.
    for round in 0..3 {
        for (number, wire) in early.iter_mut().enumerate() {
            let origin = &origins[(number + round) % origins.len()];
            wire.send(format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
                origin.url("/"),
                origin.authority()
            ));
        }
        for wire in &mut early {
            let answer = wire.response();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(proxy.page("/readyz").status, 200);
    }
    let open = proxy.metric("process_open_fds", &[]);
    assert!(open < 200.0, "{open}");
    assert!(!proxy.log().contains("cannot accept"), "{}", proxy.log());
    drop(crowd);
    eventually("others are let in again", || {
        let origin = &origins[0];
        let mut wire = proxy.wire();
        wire.send(format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.url("/"),
            origin.authority()
        ));
        wire.try_response().is_ok_and(|answer| answer.status == 200)
    });
}

/// A control group (v1) of 32 MB, with what the kernel holds of its sockets counted beside; `None` where none
/// can be made.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new() -> Option<Self> {
        let folder = PathBuf::from(format!(
            "/sys/fs/cgroup/memory/outrider-test-{}",
            std::process::id()
        ));
        let group = std::fs::create_dir(&folder).is_ok().then_some(Self(folder))?;
        let set = |name, bytes: u64| std::fs::write(group.0.join(name), bytes.to_string()).is_ok();
        // Any limit turns that count on.
        let is_set = set("memory.limit_in_bytes", GROUP) && set("memory.kmem.tcp.limit_in_bytes", 1 << 40);
        is_set.then_some(group)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn bytes(&self, name: &str) -> u64 {
        self.read(name).trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is empty once the kernel has done with the process.
        let is_gone = |_: &u32| std::fs::remove_dir(&self.0).is_ok();
        let _ = (0..200).find(|step| {
            thread::park_timeout(std::time::Duration::from_millis(10));
            is_gone(step)
        });
    }
}

const GROUP: u64 = 32 << 20;

/// What apps do not read must not end in a kill: neither here nor in the kernel may more than the group has be
/// held. In a group of version 2 both count together; here each is counted, and the sum is what must fit.
#[test]
fn unread_downloads_fit_into_a_control_group() {
    take_descriptors();
    let Some(group) = MemoryGroup::new() else {
        return skipped("no control group can be made here (version 1, as root)");
    };
    // 50 MB, as far as they are taken.
    let large = |wire: &mut Wire| {
        while let Ok(request) = wire.request() {
            if request.target() == "/small" {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            let part = vec![b'x'; 1 << 20];
            let _ = wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n");
            for _ in 0..50 {
                if wire.try_send(&part).is_err() {
                    return;
                }
            }
        }
    };
    let origin = Origin::http(large);
    let partner = Partner::with(large);
    let config = format!(
        "{}  p: {{ hosts: [\"{}\"] }}\nlog: {{ format: json, access: none }}",
        partner.yaml(""),
        origin.authority(),
    );
    let proxy = Proxy::start_after(
        &format!("echo $$ > {}/cgroup.procs", group.0.display()),
        &config,
        &[("MEMORY_LIMIT", "32M"), ("TOKEN", TOKEN)],
    );
    let get = |authority: &str, target: &str| format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut clients = Vec::new();
    for number in 0..200 {
        let mut wire = match number % 5 {
            3 => {
                let (answer, mut wire) = proxy.connect(&origin.authority());
                if answer.status == 200 {
                    wire.send(get(&origin.authority(), "/"));
                }
                wire
            }
            4 => {
                let (answer, wire) = proxy.connect(&partner.authority());
                if answer.status == 200 {
                    let trusted = trusting(&proxy.bundle(), &["http/1.1"]);
                    let mut wire = wire.tls("partner.test", &trusted).unwrap();
                    wire.send(get(&partner.authority(), "/"));
                    wire
                } else {
                    wire
                }
            }
            _ => proxy.wire(),
        };
        if number % 5 < 3 {
            wire.send(get(&origin.authority(), &origin.url("/")));
        }
        clients.push(wire);
    }
    let used = || group.bytes("memory.usage_in_bytes") + group.bytes("memory.kmem.tcp.usage_in_bytes");
    let mut last = 0;
    eventually("all has come that will", || {
        let (before, now) = (std::mem::replace(&mut last, used()), used());
        thread::park_timeout(std::time::Duration::from_millis(300));
        now > (8 << 20) && now.abs_diff(before) < 64 * 1024
    });
    let (own, kernel) = (
        group.bytes("memory.max_usage_in_bytes"),
        group.bytes("memory.kmem.tcp.max_usage_in_bytes"),
    );
    println!("{} MB of its own, {} MB in sockets", own >> 20, kernel >> 20);
    assert!(own + kernel < GROUP, "{} MB", (own + kernel) >> 20);
    let answer = proxy.get(&origin.url("/small"));
    assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    if answer.status == 503 {
        assert!(answer.text().contains("limits.memory"), "{}", answer.text());
    }
    drop(clients);
    eventually("it is well again", || {
        proxy.page("/readyz").status == 200 && proxy.get(&origin.url("/small")).status == 200
    });
    let control = group.read("memory.oom_control");
    assert!(control.contains("oom_kill 0"), "{control}");
    drop(proxy);
}
