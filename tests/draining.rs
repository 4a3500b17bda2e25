//! Draining: how connections are ended, and as a platform does it: SIGTERM to the app and to the proxy at the same
//! moment, in one PID namespace.

use std::thread;

use rustix::process::Signal;

use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, frame};
use crate::support::h2_origin::H2Partner;
use crate::support::programs::{clean, curl, outrider, skipped};
use crate::support::proxy::{configuration, destination};
use crate::support::{Origin, Proxy, TOKEN, eventually, run};

/// Starts the app and the proxy, stops both at the same moment, and says in which order they ended. On TERM the app
/// calls $CALLS times, a second apart, and does $LAST.
const PLATFORM: &str = r#"
"$OUTRIDER" run --config "$FILE" >/dev/null 2>"$FILE.log" & proxy=$!
until at=$(grep -o -m 1 'proxy on [0-9.:]*' "$FILE.log"); do kill -0 "$proxy" || break; sleep 0.02; done
AT=${at##* } bash -c '
  finish() {
    for ((call = 0; call < CALLS; call++)); do
      sleep 1
      curl -sS -m 5 -o "$FILE.body" -w "call %{http_code}\n" -x "http://$AT" "$URL" || echo "call failed"
    done
    eval "$LAST"
  }
  trap "finish; exit 0" TERM
  echo ready
  while :; do sleep 0.05; done
' > "$FILE.app" & app=$!
until grep -q ready "$FILE.app"; do sleep 0.02; done
kill -TERM "$app" "$proxy"
wait -n -p first "$app" "$proxy"; code=$?
[ "$first" = "$app" ] && echo "app $code" || echo "proxy $code"
if [ "$first" = "$app" ]; then wait "$proxy"; echo "proxy $?"; fi
cat "$FILE.app" "$FILE.log"
"#;

/// What the app does at its end, what is configured, whether it is a platform, and what is seen.
#[expect(clippy::type_complexity, reason = "a table, read once")]
const CASES: [(&str, &str, &str, &str, bool, &[&str]); 5] = [
    (
        "an app that calls on while it ends finds the proxy there until its end",
        "3",
        "",
        "drain: 15s",
        true,
        &["app 0", "proxy 0", "ready", "call 200", "call 200", "call 200"],
    ),
    (
        "an app that does not end is not waited for longer than is written",
        "0",
        "sleep 60",
        "drain: 2s",
        true,
        &["proxy 0", "ready"],
    ),
    (
        "where no platform stops both a quiet moment suffices",
        "0",
        "sleep 60",
        "drain: 15s",
        false,
        &["proxy 0", "ready"],
    ),
    (
        "elsewhere the configuration can ask for it",
        "1",
        "",
        "drain_until: app_gone\ndrain: 15s",
        false,
        &["app 0", "proxy 0", "ready", "call 200"],
    ),
    (
        "and on the platform a quiet moment can be asked for",
        "0",
        "sleep 60",
        "drain_until: quiet\ndrain: 15s",
        true,
        &["proxy 0", "ready"],
    ),
];

/// Returns a command in a new PID namespace, where every process ends with it.
fn container(script: &str) -> std::process::Command {
    let mut command = clean("unshare");
    command.args("--user --map-root-user --pid --fork --mount-proc --kill-child bash -c".split(' '));
    command.arg(script);
    command
}

#[test]
fn the_proxy_stays_as_long_as_the_app() {
    if run(&mut container("true")).code() != 0 {
        return skipped("no PID namespace can be made here");
    }
    let origin = Origin::plain();
    thread::scope(|scope| {
        for (what, calls, last, settings, is_platform, expected) in CASES {
            let origin = &origin;
            scope.spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("outrider.yml");
                let text = format!("{settings}\n{}", destination(&origin.authority(), ""));
                std::fs::write(&file, configuration(&text, folder.path())).unwrap();
                let mut command = container(PLATFORM);
                command.env("OUTRIDER", outrider([""; 0]).get_program());
                command.env("FILE", &file).env("TMPDIR", folder.path());
                command
                    .env("CALLS", calls)
                    .env("LAST", last)
                    .env("URL", origin.url("/bye"));
                if is_platform {
                    command.env("VCAP_APPLICATION", "{}");
                }
                let ended = run(&mut command);
                let said: Vec<_> = ended.stdout.lines().take(expected.len()).collect();
                assert_eq!(said, expected, "{what}: {ended:#?}");
                let at_its_time = "the time to drain is over";
                let is_bounded = settings == "drain: 2s";
                assert_eq!(
                    ended.stdout.contains(at_its_time),
                    is_bounded,
                    "{what}: {ended:#?}"
                );
            });
        }
    });
}

/// The app's next request comes on a new connection, and none is lost on an old one.
#[test]
fn http_2_is_told_with_a_goaway() {
    let partner = H2Partner::new();
    let yaml = format!("drain: 60s\n{}", partner.yaml_with("{ bearer: env:TOKEN }"));
    let mut proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let authority = partner.authority();
    let get = |path| h2::get(&authority, path);
    let open = || {
        let mut wire = proxy.intercepted_as(&authority, &["h2"]);
        h2::greet(&mut wire);
        wire
    };
    let (mut idle, mut busy, mut unused) = (open(), open(), open());
    idle.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/idle")));
    assert_eq!(h2::outcome(&mut idle, 1), Some(200));
    // Its body goes on, so its answer waits.
    busy.send(frame(HEADERS, END_HEADERS, 1, &get("/busy")));
    eventually("it is under way", || {
        proxy.metric("outrider_requests_in_flight", &[]) == 1.0
    });
    proxy.signal(Signal::TERM);

    let goaway = |frame: &h2::Frame| frame.kind == GOAWAY;
    let told = |wire: &mut _| h2::read_until(wire, goaway).and_then(|frame| frame.error());
    assert_eq!((told(&mut idle), told(&mut busy)), (Some(0), Some(0)));
    // What the app sent before it had read that is still answered.
    idle.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/late")));
    assert_eq!(h2::outcome(&mut idle, 3), Some(200));
    // A connection that has had no request is told with its first one, which is answered.
    unused.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/first")));
    assert_eq!(told(&mut unused), Some(0));
    assert_eq!(h2::outcome(&mut unused, 1), Some(200));

    let url = format!("https://{authority}/curl");
    let mut curl = curl([
        "-sS",
        "-w",
        " %{http_code} by %{http_version} on %{num_connects}\n",
    ]);
    curl.args(["--http2", "--cacert"]).arg(proxy.bundle());
    curl.args(["-x", &format!("http://{}", proxy.address()), &url, &url]);
    let said = run(&mut curl);
    assert_eq!(said.stdout, "/curl 200 by 2 on 1\n".repeat(2), "{said:?}");

    assert!(proxy.runs());
    busy.send(frame(DATA, END_STREAM, 1, b"end"));
    assert_eq!(h2::outcome(&mut busy, 1), Some(200));
    drop((idle, busy, unused));
    assert_eq!(proxy.exit().code(), Some(0));
}
