//! Group K: start, reload, stop. A failed change never widens access, and a stop loses nothing.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Signal, geteuid};

use crate::support::dns::{Answer, Dns};
use crate::support::partner::Partner;
use crate::support::programs::{outrider, skipped};
use crate::support::{Origin, Proxy, TOKEN, eventually, run};

/// Starts an origin that sends half of its answer, and the rest on a signal.
fn gated() -> (mpsc::Sender<()>, Origin) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
            let _ = gate.lock().unwrap().recv();
            wire.send("done");
        }
    });
    (open, origin)
}

fn half_way(proxy: &Proxy, origin: &Origin) -> crate::support::Wire {
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    while wire.read_line() != "\r\n" {}
    assert_eq!(wire.read_exact(4).unwrap(), b"half");
    wire
}

/// K1: SIGTERM says not-ready, lets the transfer finish, and exits 0.
#[test]
fn sigterm_finishes_the_transfer_in_flight() {
    let (open, origin) = gated();
    let mut proxy = Proxy::start(&format!(
        "drain: 15s\ndestinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    assert_eq!(proxy.page("/readyz").status, 200);
    let mut wire = half_way(&proxy, &origin);

    proxy.signal(Signal::TERM);
    eventually("not ready", || proxy.page("/readyz").status == 503);
    assert_eq!(proxy.page("/healthz").status, 200);
    assert!(proxy.runs());
    open.send(()).unwrap();

    assert_eq!(wire.read_exact(4).unwrap(), b"done");
    drop(wire);
    assert_eq!(proxy.exit().code(), Some(0));
}

/// K1: while draining, the app still finds its way out.
#[test]
fn a_draining_proxy_still_serves_the_app() {
    let (open, origin) = gated();
    let quick = Origin::plain();
    let mut proxy = Proxy::start(&format!(
        "drain: 15s\ndestinations: {{ p: {{ hosts: [\"{}\", \"{}\"] }} }}",
        origin.authority(),
        quick.authority()
    ));
    let mut wire = half_way(&proxy, &origin);
    let mut kept = proxy.wire();
    let get = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", quick.url("/kept"));
    assert_eq!(kept.ask(&get).header("connection"), None);
    proxy.signal(Signal::TERM);
    eventually("not ready", || proxy.page("/readyz").status == 503);
    assert_eq!(proxy.get(&quick.url("/last-words")).status, 200);
    // Told to the app with an answer, so that no request meets the end of its connection.
    let last = kept.ask(&get);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(kept.closes());
    open.send(()).unwrap();
    assert_eq!(wire.read_exact(4).unwrap(), b"done");
    drop(wire);
    assert_eq!(proxy.exit().code(), Some(0));
}

/// K1: a tunnel that is being opened holds the end back, as a request does.
#[test]
fn a_tunnel_that_does_not_stand_yet_is_waited_for() {
    let origin = Origin::http(|wire| {
        let byte = wire.read_exact(1).unwrap_or_default();
        wire.send(byte);
    });
    let (_open, gate) = mpsc::channel::<()>();
    let dns = Dns::serve(move |_, before| {
        if before == 0 {
            // Longer than the quiet moment after which a draining proxy leaves.
            let _ = gate.recv_timeout(Duration::from_millis(700));
        }
        Answer::Addresses(vec!["127.0.0.1".parse().unwrap()], 60)
    });
    let mut proxy = Proxy::start(&format!(
        "drain: 15s\ndns: {}\ndestinations: {{ p: {{ hosts: [\"slow.test:{}\"] }} }}",
        dns.yaml(),
        origin.port()
    ));
    let mut wire = proxy.wire();
    let authority = format!("slow.test:{}", origin.port());
    wire.send(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    ));
    eventually("a look-up", || dns.asked("slow.test") > 0);
    proxy.signal(Signal::TERM);
    assert_eq!(wire.bodiless_response().status, 200);
    assert_eq!(wire.send("x").read_exact(1).unwrap(), b"x");
    drop(wire);
    assert_eq!(proxy.exit().code(), Some(0));
}

/// K1: what does not end by itself is ended at the deadline; exit 0.
#[test]
fn tunnels_and_stuck_requests_end_at_the_deadline() {
    let (_open, origin) = gated();
    let mut proxy = Proxy::start(&format!(
        "drain: 1s\ndestinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let _stuck = half_way(&proxy, &origin);
    let mut tunnel = proxy.tunnel(&origin.authority());
    let started = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit().code(), Some(0));
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert!(tunnel.closes());
}

/// K1: a second signal means now; an idle proxy goes at once.
#[test]
fn a_second_signal_means_now() {
    let (_open, origin) = gated();
    let mut proxy = Proxy::start(&format!(
        "drain: 60s\ndestinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let _stuck = half_way(&proxy, &origin);
    proxy.signal(Signal::TERM);
    eventually("not ready", || proxy.page("/readyz").status == 503);
    // Two within a moment are one wish, so a person's second one may have to be said again.
    eventually("left", || {
        proxy.signal(Signal::TERM);
        !proxy.runs()
    });

    let mut idle = Proxy::start("drain: 60s");
    let started = Instant::now();
    idle.signal(Signal::TERM);
    assert_eq!(idle.exit().code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

fn reloads(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("outrider_config_reloads_total", &[("result", result)])
}

/// Returns the number of failed reloads, under any name of the label.
fn failed_reloads(proxy: &Proxy) -> f64 {
    proxy.metric("outrider_config_reloads_total", &[]) - reloads(proxy, "done")
}

/// K2, D15, invariant 6: a configuration with a fault changes nothing, and the log says where the fault is.
#[test]
fn a_faulty_configuration_keeps_the_old_one() {
    let origin = Origin::plain();
    let good = format!("destinations: {{ p: {{ hosts: [\"{}\"] }} }}", origin.authority());
    let mut proxy = Proxy::start(&good);
    let widened = format!(
        "egress: {{ default: tunnel, ports: [{}], allow_networks: [loopback] }}",
        origin.port()
    );
    for (name, bad) in [
        ("misspelt key", format!("{widened}\ndestinatoins: {{}}")),
        ("wrong value", format!("{widened}\nworkers: many")),
        ("duplicate key", format!("{widened}\n{widened}")),
        ("broken YAML", format!("{widened}\ndestinations: {{ p: [")),
        ("tabs", format!("{widened}\ndestinations:\n\tp: 1")),
        (
            "a secret in clear",
            format!("{widened}\ndestinations: {{ p: {{ hosts: [x.test], auth: {{ bearer: sesame }} }} }}"),
        ),
        ("half a file", widened[..widened.len() - 12].to_owned()),
    ] {
        let failures = failed_reloads(&proxy);
        let said = proxy.log().len();
        proxy.rewrite(&bad);
        proxy.signal(Signal::HUP);
        eventually(name, || failed_reloads(&proxy) > failures);
        eventually("the log names the file", || {
            proxy.log()[said..].contains("outrider.yml")
        });
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{name}");
        let stranger = format!("http://other.test:{}/", origin.port());
        assert_eq!(proxy.get(&stranger).status, 403, "{name}: access was widened");
    }
    std::fs::remove_file(proxy.config_file()).unwrap();
    proxy.signal(Signal::HUP);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert_eq!(
        proxy.get(&format!("http://other.test:{}/", origin.port())).status,
        403
    );
    assert!(proxy.runs());
}

/// D13: rules for networks hold for connections that were made before them, too.
#[test]
fn a_pooled_connection_does_not_outlive_its_permission() {
    let origin = Origin::plain();
    let one = format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{}\"] }} }}",
        origin.port()
    );
    let proxy = Proxy::start(&one);
    let url = format!("http://partner.test:{}/", origin.port());
    // On every worker.
    for _ in 0..8 {
        assert_eq!(proxy.get(&url).status, 200);
    }
    proxy.rewrite(&format!("egress: {{ allow_networks: [] }}\n{one}"));
    proxy.signal(Signal::HUP);
    eventually("the reload", || reloads(&proxy, "done") >= 1.0);
    for _ in 0..8 {
        proxy.get(&url).assert_ours(403, "destination_ip_prohibited");
    }
}

/// K2: a good configuration is taken over whole, on SIGHUP and on the file's change alike.
#[test]
fn a_good_configuration_is_taken_over() {
    let origin = Origin::plain();
    let (one, other) = (origin.url("/"), format!("http://other.test:{}/", origin.port()));
    let naming = |name: &str| {
        format!(
            "destinations: {{ p: {{ hosts: [\"{name}:{}\"] }} }}",
            origin.port()
        )
    };
    let proxy = Proxy::start(&naming("partner.test"));
    assert_eq!((proxy.get(&one).status, proxy.get(&other).status), (200, 403));

    proxy.rewrite(&naming("other.test"));
    proxy.signal(Signal::HUP);
    eventually("SIGHUP", || proxy.get(&other).status == 200);
    assert_eq!(proxy.get(&one).status, 403);

    proxy.rewrite(&naming("partner.test"));
    eventually("the change of the file, by rename", || {
        proxy.get(&one).status == 200
    });
    assert_eq!(proxy.get(&other).status, 403);

    let text = std::fs::read_to_string(proxy.config_file())
        .unwrap()
        .replace("\"partner.test:", "\"other.test:");
    std::fs::File::create(proxy.config_file())
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    eventually("the change of the file, in place", || {
        proxy.get(&other).status == 200
    });
}

/// K2: the way in which mounted volumes change: a link in the path is swapped.
#[test]
fn a_swapped_link_is_noticed() {
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| {
        let yaml = format!(
            "destinations: {{ p: {{ hosts: [\"{name}:{}\"] }} }}",
            origin.port()
        );
        crate::support::proxy::configuration(&yaml, folder.path())
    };
    for (version, name) in [("v1", "partner.test"), ("v2", "other.test")] {
        std::fs::create_dir(folder.path().join(version)).unwrap();
        std::fs::write(folder.path().join(version).join("outrider.yml"), text(name)).unwrap();
    }
    symlink("v1", folder.path().join("current")).unwrap();
    let proxy = Proxy::on(&folder.path().join("current/outrider.yml"));
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    symlink("v2", folder.path().join("next")).unwrap();
    std::fs::rename(folder.path().join("next"), folder.path().join("current")).unwrap();
    let other = format!("http://other.test:{}/", origin.port());
    eventually("the swap", || proxy.get(&other).status == 200);
}

/// A reload under load loses no request.
#[test]
fn reloading_under_load_loses_nothing() {
    let origin = Origin::plain();
    let yaml = format!("destinations: {{ p: {{ hosts: [\"{}\"] }} }}", origin.authority());
    let proxy = Proxy::start(&yaml);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut wire = proxy.wire();
                    for _ in 0..200 {
                        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/"));
                        assert_eq!(wire.ask(request).status, 200);
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            let before = reloads(&proxy, "done");
            proxy.signal(Signal::HUP);
            eventually("a reload", || reloads(&proxy, "done") > before);
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

/// A reload that intercepts more hosts writes a new bundle, and says who must be restarted.
#[test]
fn a_new_intercepted_host_means_a_new_bundle() {
    let partner = Partner::new();
    let proxy = Proxy::start_with("egress: { allow_networks: [loopback] }", &[("TOKEN", TOKEN)]);
    let old = std::fs::read(proxy.bundle()).unwrap();
    proxy.rewrite(&partner.yaml(""));
    proxy.signal(Signal::HUP);
    eventually("the reload", || proxy.get(&partner.url("/")).status == 200);
    assert_ne!(std::fs::read(proxy.bundle()).unwrap(), old);
    eventually("the log says so", || {
        proxy.log().to_lowercase().contains("restart")
    });
    let mut wire = proxy.intercepted(&partner.authority());
    assert_eq!(wire.get(&partner.authority(), "/").status, 200);
}

/// K8: a new denial also holds for connections that are already open.
#[test]
fn a_tunnel_inside_ends_its_rights_with_the_reload() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let mut wire = proxy.intercepted(&partner.authority());
    assert_eq!(wire.get(&partner.authority(), "/before").status, 200);
    let before = reloads(&proxy, "done");
    proxy.rewrite("egress: { allow_networks: [loopback] }");
    proxy.signal(Signal::HUP);
    eventually("the reload", || reloads(&proxy, "done") > before);
    wire.send(format!(
        "GET /after HTTP/1.1\r\nHost: {}\r\n\r\n",
        partner.authority()
    ));
    if let Ok(answer) = wire.try_response() {
        assert!(matches!(answer.status, 403 | 421), "{answer:?}");
    }
    assert!(!partner.origin.raw().contains("/after"));
}

/// K4, D15: a configuration with a fault does not start, and every problem is reported at once.
#[test]
fn a_faulty_configuration_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(&file, "listne: 127.0.0.1:0\nworkers: many\n").unwrap();
    let refused = run(outrider(["run", "--config"]).arg(&file));
    assert_eq!(refused.code(), 1, "{refused:?}");
    for part in ["outrider.yml:1:", "outrider.yml:2:", "listen"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
}

/// A port in use is reported in a sentence.
#[test]
fn a_taken_port_is_reported() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(
        &file,
        format!("listen: {}\nadmin: false\n", taken.local_addr().unwrap()),
    )
    .unwrap();
    let refused = run(outrider(["run", "--config"])
        .arg(&file)
        .env("TMPDIR", folder.path()));
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(
        refused.stderr.contains(&taken.local_addr().unwrap().to_string()),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);

    // So is that of the admin pages, which a health check would miss.
    std::fs::write(
        &file,
        format!("listen: 127.0.0.1:0\nadmin: {}\n", taken.local_addr().unwrap()),
    )
    .unwrap();
    let refused = run(outrider(["run", "--config"])
        .arg(&file)
        .env("TMPDIR", folder.path()));
    assert_eq!(refused.code(), 1, "{refused:?}");
    for part in [
        &*taken.local_addr().unwrap().to_string(),
        "choose another listen or admin",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
}

/// K4: a start takes little of the processor, so that it is ready soon. Measured on two busy cores: 18 ms from exec to
/// ready (13 at best), in a debug build 35. What is bounded is processor time: a clock would measure what else runs.
#[test]
fn a_start_takes_little_processor_time() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    assert_eq!(proxy.page("/readyz").status, 200);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    // After the name, in which there may be blanks: the twelfth and thirteenth are in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    assert!(ticks <= 25, "{ticks}0 ms");
}

/// K4: what a start reads and writes does not stay, were it a thousand roots. Files that are mapped, the
/// program's own first of all, are not counted: they are larger in a debug build.
#[test]
fn an_idle_proxy_holds_little_memory() {
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    let key = KeyPair::generate().unwrap();
    let root = |number| {
        let params = CertificateParams::new([format!("{number}.test")]).unwrap();
        params.self_signed(&key).unwrap().pem()
    };
    std::fs::write(&roots, (0..1000).map(root).collect::<String>()).unwrap();
    let config = format!(
        r#"
        destinations:
          plain: {{ hosts: ["{}"] }}
          partner: {{ hosts: [partner.test], tls: {{}} }}
        "#,
        origin.authority()
    );
    let proxy = Proxy::start_with(&config, &[("SSL_CERT_FILE", roots.to_str().unwrap())]);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let bundle = std::fs::read_to_string(proxy.bundle()).unwrap();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1001);
    if !geteuid().is_root() {
        return skipped("the pages that the loader has changed can be told apart by root only");
    }
    let held = proxy.anonymous();
    // Measured: 3,320 kB, of which 1.2 MB are the allocator's own tables.
    assert!(held < 3_500 << 10, "{} kB", held >> 10);
}
