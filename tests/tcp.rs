//! Local ports (`tcp`): real clients that know no TLS, before real servers that demand a client certificate.
//!
//! Each server is asked three times: with our certificate; without one, which the server refuses; and where we trust
//! another authority, so that we refuse the server. So a pass cannot come from a server that lets everybody in.

use std::process::Stdio;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::support::local_ports::{PASSWORD, Service, entry, local_port, psql, tls};
use crate::support::programs::{clean, python, skipped, wait};
use crate::support::redis::Redis;
use crate::support::{PATIENCE, Pki, ProgramOutput, Proxy, closed_port, eventually, run};

/// What the app and the log say where no certificate is shown.
struct Refusal {
    told: &'static str,
    logged: &'static str,
}

/// Asks a server in the three ways. `client` runs the app's program on a port.
#[track_caller]
fn asked_three_ways(
    pki: &Pki,
    server: u16,
    starttls: &str,
    good: &str,
    bare: &Refusal,
    client: impl Fn(u16) -> ProgramOutput,
) -> Proxy {
    let (app, foreign) = (pki.client("app"), Pki::named("another authority"));
    let more = if starttls.is_empty() {
        String::new()
    } else {
        format!("starttls: {starttls}")
    };
    let entries = [
        entry("good", server, &tls(pki, Some(&app)), &more),
        entry("bare", server, &tls(pki, None), &more),
        entry("foreign", server, &tls(&foreign, Some(&app)), &more),
    ];
    let proxy = Proxy::start(&format!("tcp:\n{}", entries.concat()));

    let answered = client(local_port(&proxy, "good"));
    let said = format!("{}{}", answered.stdout, answered.stderr);
    assert!(answered.status.success() && said.contains(good), "{answered:#?}");

    let refused = client(local_port(&proxy, "bare"));
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!said.contains(good) && said.contains(bare.told), "{refused:#?}");
    eventually("the log says why the server refused us", || {
        proxy.log().contains(bare.logged)
    });

    let refused = client(local_port(&proxy, "foreign"));
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!refused.status.success() && !said.contains(good), "{refused:#?}");
    let reason = "partner.test shows a certificate that leads to outrider test authority, which is not among";
    eventually("the log says why we refused the server", || {
        let log = proxy.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("\"destination\":\"foreign\""));
        lines.any(|line| line.contains(reason) && line.contains("tls_certificate_error"))
    });
    assert_eq!(
        proxy.metric("outrider_tunnels_total", &[("destination", "foreign")]),
        0.0
    );
    eventually("the tunnel is counted under the entry's name", || {
        proxy.metric(
            "outrider_tunnels_total",
            &[("destination", "good"), ("result", "closed")],
        ) >= 1.0
    });
    assert!(proxy.metric("outrider_bytes_total", &[("destination", "good")]) > 0.0);
    proxy
}

#[test]
fn psql_without_tls_reaches_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let server = Service::postgres(&pki);
    let who = "select ssl, client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    let bare = Refusal {
        told: "connection requires a valid client certificate",
        logged: "\"destination\":\"bare\"",
    };
    let proxy = asked_three_ways(&pki, server.port, "postgres", "t|/CN=app", &bare, |port| {
        run(&mut psql(port, "", who))
    });
    // Our words arrive as those of a server.
    let told = run(&mut psql(local_port(&proxy, "foreign"), "", who));
    assert!(
        told.stderr
            .contains("FATAL:  outrider: partner.test shows a certificate"),
        "{told:?}"
    );

    let port = local_port(&proxy, "good");
    for more in [
        "sslmode=disable",
        "sslmode=prefer",
        "sslmode=allow",
        "gssencmode=prefer",
    ] {
        let answered = run(&mut psql(port, more, who));
        assert_eq!(answered.succeeded().stdout.trim(), "t|/CN=app", "{more}");
    }
    for more in ["sslmode=require", "sslmode=verify-full"] {
        assert!(
            run(&mut psql(port, more, who))
                .stderr
                .contains("does not support SSL"),
            "{more}"
        );
        eventually("the log says what to do", || {
            proxy.log().contains("the app insists on TLS with the local port")
        });
    }
}

/// psql cancels by another connection, whose only message is the request.
#[test]
fn a_cancel_of_psql_reaches_the_server() {
    let pki = Pki::new();
    let server = Service::postgres(&pki);
    let line = entry(
        "db",
        server.port,
        &tls(&pki, Some(&pki.client("app"))),
        "starttls: postgres",
    );
    let proxy = Proxy::start(&format!("tcp:\n{line}"));
    let mut command = psql(local_port(&proxy, "db"), "", "select pg_sleep(600)");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the statement runs", || {
        let running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        server.sql(running).stdout.trim() == "1"
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut pipe = child.stderr.take().unwrap();
    assert!(wait(&mut child, PATIENCE).is_some(), "it was not cancelled");
    let told = std::io::read_to_string(&mut pipe).unwrap();
    assert!(told.contains("canceling statement due to user request"), "{told}");
}

#[test]
fn mariadb_and_pymysql_reach_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let server = Service::mariadb(&pki);
    let bare = Refusal {
        told: "Access denied for user",
        logged: "\"destination\":\"bare\"",
    };
    let sql = "select concat('TLS by ', variable_value) from information_schema.session_status \
        where variable_name = 'Ssl_cipher'";
    let proxy = asked_three_ways(&pki, server.port, "mysql", "TLS by TLS_", &bare, |port| {
        let mut command = clean("mariadb");
        // Its client from 11.4 on demands TLS where nothing else is said.
        command.args([
            "--no-defaults",
            "--skip-ssl",
            "--host=127.0.0.1",
            "--user=app",
            "--connect-timeout=15",
        ]);
        command
            .arg(format!("--port={port}"))
            .arg(format!("--password={PASSWORD}"));
        run(command.args(["--batch", "app", "-e", sql]))
    });
    let mut command = clean("mariadb");
    command.args([
        "--no-defaults",
        "--skip-ssl",
        "--host=127.0.0.1",
        "--user=app",
        "--password=x",
        "app",
        "-e",
        "select 1",
    ]);
    let told = run(command.arg(format!("--port={}", local_port(&proxy, "foreign"))));
    assert!(
        told.stderr.contains("outrider: partner.test shows a certificate"),
        "{told:?}"
    );

    // A wrong password is the server's to refuse, with its own numbers of packets.
    let port = local_port(&proxy, "good");
    for (password, good) in [(PASSWORD, true), ("wrong", false)] {
        let script = format!(
            "import pymysql\nc = pymysql.connect(host='127.0.0.1', port={port}, user='app', password='{password}', \
             database='app')\nk = c.cursor()\nk.execute('select repeat(\"x\", 300000)')\nprint(len(k.fetchone()[0]))"
        );
        let answered = run(&mut python(&script));
        assert_eq!(answered.stdout.trim() == "300000", good, "{answered:?}");
        assert_eq!(answered.stderr.contains("(1045"), !good, "{answered:?}");
    }
}

#[test]
fn redis_cli_reaches_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let port = closed_port();
    let server = pki.server("partner.test");
    let _redis = Redis::with(&format!(
        "--tls-port {port} --tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {} --tls-auth-clients yes",
        server.cert_path.display(),
        server.key_path.display(),
        pki.ca().display()
    ));
    let bare = Refusal {
        told: "",
        logged: "demands a client certificate and this destination has none; set tls.client_certificate",
    };
    asked_three_ways(&pki, port, "", "it-is-here", &bare, |port| {
        let mut command = clean("sh");
        let script = format!("redis-cli -p {port} set k it-is-here && redis-cli -p {port} get k | grep here");
        run(command.args(["-c", &script]))
    });
}

#[test]
fn ldapsearch_reaches_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let server = Service::slapd(&pki);
    let bare = Refusal {
        told: "Can't contact LDAP server",
        // It closes without a word, or with an alert in newer ones.
        logged: "client certificate",
    };
    let search = |port: u16, more: &[&str]| {
        let mut command = clean("ldapsearch");
        command.args([
            "-x",
            "-LLL",
            "-D",
            "cn=admin,dc=test",
            "-b",
            "dc=test",
            "-w",
            PASSWORD,
            "-H",
        ]);
        command.arg(format!("ldap://127.0.0.1:{port}")).args(more);
        run(command.arg("o"))
    };
    for (port, starttls) in [(server.port, "ldap"), (server.tls_port, "")] {
        let proxy = asked_three_ways(&pki, port, starttls, "o: test", &bare, |port| search(port, &[]));
        // Who asks for TLS himself hears that it is there.
        let told = search(local_port(&proxy, "good"), &["-ZZ"]);
        assert!(told.stderr.contains("TLS already started"), "{told:?}");
    }
}

#[test]
fn python_and_swaks_send_mail_by_a_server_that_demands_a_certificate() {
    if !geteuid().is_root() {
        return skipped("Postfix starts as root only");
    }
    let pki = Pki::new();
    let server = Service::postfix(&pki);
    let bare = Refusal {
        told: "421",
        logged: "client certificate",
    };
    let proxy = asked_three_ways(&pki, server.port, "smtp", "queued as", &bare, |port| {
        let mut command = clean("swaks");
        command.args([
            "--from",
            "a@partner.test",
            "--to",
            "b@partner.test",
            "--timeout",
            "15",
            "--server",
        ]);
        run(command.arg(format!("127.0.0.1:{port}")))
    });
    let script = "import smtplib, sys\ns = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))\nprint(s.ehlo()[1].decode())\n\
        print(s.has_extn('starttls'))\nprint(s.sendmail('a@partner.test', ['b@partner.test'], 'Subject: x\\n\\nx'))\ns.quit()";
    let answered = run(python(script).arg(local_port(&proxy, "good").to_string()));
    let told = &answered.succeeded().stdout;
    assert!(
        told.contains("PIPELINING") && told.contains("False\n{}"),
        "{told}"
    );
    let refused = run(python(script).arg(local_port(&proxy, "foreign").to_string()));
    let told = "4.4.1 outrider: partner.test shows a certificate";
    assert!(refused.stderr.contains(told), "{refused:?}");
}

#[test]
fn python_reads_mail_of_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let server = Service::dovecot(&pki);
    let script = format!(
        "import imaplib, sys\nm = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))\nprint(m.welcome)\n\
         print(m.login('app', '{PASSWORD}')[0], m.list()[1])\nm.logout()"
    );
    let bare = Refusal {
        told: "imaplib.IMAP4.error",
        logged: "\"destination\":\"bare\"",
    };
    for (port, starttls) in [(server.port, "imap"), (server.tls_port, "")] {
        let proxy = asked_three_ways(&pki, port, starttls, "INBOX", &bare, |port| {
            run(python(&script).arg(port.to_string()))
        });
        if starttls.is_empty() {
            continue;
        }
        let refused = run(python(&script).arg(local_port(&proxy, "foreign").to_string()));
        assert!(
            refused
                .stderr
                .contains("outrider: partner.test shows a certificate"),
            "{refused:?}"
        );
        let mut curl = clean("curl");
        curl.args([
            "--silent",
            "--max-time",
            "15",
            "--user",
            &format!("app:{PASSWORD}"),
        ]);
        let listed = run(curl.arg(format!("imap://127.0.0.1:{}/", local_port(&proxy, "good"))));
        assert!(listed.succeeded().stdout.contains("INBOX"), "{listed:?}");
    }
}

#[test]
fn mosquitto_clients_reach_a_server_that_demands_a_certificate() {
    let pki = Pki::new();
    let server = Service::mosquitto(&pki);
    let bare = Refusal {
        told: "",
        logged: "demands a client certificate and this destination has none; set tls.client_certificate",
    };
    asked_three_ways(&pki, server.port, "", "hello", &bare, |port| {
        let script = format!(
            "mosquitto_pub -h 127.0.0.1 -p {port} -t t -m hello -r && mosquitto_sub -h 127.0.0.1 -p {port} -t t -C 1 -W 15"
        );
        run(clean("sh").args(["-c", &script]))
    });
}
