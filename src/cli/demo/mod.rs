//! `outrider demo`: the main job with nothing prepared.
//!
//! Three services, the proxy and an app that knows no secret, all in this process and on loopback.
//! Certificates, keys and the token are made for one run, and the ordinary parser reads the configuration file:
//! the demo shows the real program. Every step is verified; a step that fails says what was expected, and fails
//! the run.
//!
//! This file has the steps; the services are in [`services`], the files in [`files`], the app in [`client`],
//! the output in [`transcript`].

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use rustls::AlertDescription;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::DemoClient;
use self::files::DemoFiles;
use self::services::{Service, ServicePorts};
use self::transcript::{Expected, Transcript};
use super::fail;
use super::run::runtime;
use crate::app::{self, App, PlaceholderSource, Termination};
use crate::clients::CommandClient;
use crate::config::{ConfigSource, Listen};
use crate::error::ErrorChain;

mod client;
mod files;
mod services;
mod transcript;

/// More calls than may wait: the last ones are refused at once.
const BURST: u32 = 8;

/// The exit code of a shell for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The longest that counters may lag behind answers.
const SETTLED: Duration = Duration::from_secs(2);

/// Show the main job on this machine, with nothing prepared
///
/// Starts a partner that demands a client certificate, an API that demands a bearer token and one whose rate is
/// limited, calls them without outrider and through it, and shows a refusal and a queue. Everything is made for
/// this run, on loopback and in a temporary folder, and is gone afterwards. If a step fails, the demo says so
/// and exits with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  outrider demo\n  outrider demo --stay")]
pub(super) struct Args {
    /// Keep everything up until Ctrl-C, and print commands to try
    #[arg(long)]
    stay: bool,
}

/// Why the demo cannot begin.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the configuration of the demo opens no TCP listener or no admin address")]
    Addresses,

    #[error("the certificates of the demo cannot be made")]
    Certificates(#[from] rcgen::Error),

    #[error("the proxy of the demo does not start")]
    Proxy(#[from] app::Error),

    #[error("the demo cannot set up its files and sockets")]
    System(#[from] io::Error),

    #[error("the services of the demo cannot speak TLS")]
    Tls(#[from] rustls::Error),
}

pub(super) fn run(args: &Args) -> ExitCode {
    demonstrate(args).unwrap_or_else(|error| fail(&format!("demo: {}", ErrorChain(&error))))
}

/// Sets everything up, runs the steps, and takes everything down.
fn demonstrate(args: &Args) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        // First, so that Ctrl-C reaches us and the folder is removed.
        let mut termination = Termination::new()?;
        let files = DemoFiles::new()?;
        let mut services = JoinSet::new();
        let ports = services::start(&files, &mut services).await?;
        let mut transcript = Transcript::new();

        transcript.line("outrider demo: three services and an app that knows no secret, all on this machine");
        without_outrider(&mut transcript, &files, ports).await?;

        let source = ConfigSource::File(files.write_configuration(ports)?);
        transcript.heading("2. The configuration of outrider: the whole outrider.yml");
        transcript.quote(&DemoFiles::configuration(ports));
        let config = source.load().map_err(app::Error::from)?;
        let mut app = App::start(
            config,
            source,
            CommandClient::default(),
            PlaceholderSource::Given(None),
        )
        .await?;
        let addresses = app.addresses();
        let (Some(Listen::Tcp(proxy)), Some(admin)) = (addresses.listen.first(), addresses.admin) else {
            return Err(Error::Addresses);
        };
        let proxy = *proxy;
        let steps = app.run(async {
            tokio::select! {
                outcome = with_outrider(&mut transcript, &files, proxy, admin, ports) => Some(outcome),
                () = termination.wait() => None,
            }
        });
        match steps.await? {
            None => return Ok(ExitCode::from(INTERRUPTED)),
            Some(outcome) => outcome?,
        }
        let hint = " With --stay everything stays up, to try more.";
        let code = transcript.end(if args.stay { "" } else { hint });
        if args.stay {
            stay(&mut transcript, &files, proxy, admin, ports);
            app.run(termination.wait()).await?;
        }
        Ok(code)
    })
}

/// The app alone: it can reach the services, and they refuse it.
async fn without_outrider(
    transcript: &mut Transcript,
    files: &DemoFiles,
    ports: ServicePorts,
) -> Result<(), Error> {
    transcript
        .heading("1. The app alone: partner.demo demands a client certificate, api.demo a bearer token");
    let app = DemoClient::new(None, &std::fs::read(files.path(files::AUTHORITY))?)?;
    let no_certificate = Expected::Alert(AlertDescription::CertificateRequired);
    let no_token = Expected::Answer(StatusCode::UNAUTHORIZED, "bearer token");
    for (service, expected) in [(Service::Partner, no_certificate), (Service::Api, no_token)] {
        let url = format!("https://{}/", ports.authority(service));
        transcript.call(&url, &app.get(&url).await, expected);
    }
    Ok(())
}

/// The same app with a proxy, and nothing else changed.
async fn with_outrider(
    transcript: &mut Transcript,
    files: &DemoFiles,
    proxy: SocketAddr,
    admin: SocketAddr,
    ports: ServicePorts,
) -> Result<(), Error> {
    transcript.heading(&format!(
        "3. The same app behind the proxy http://{proxy}; it trusts the CA bundle and knows no secret"
    ));
    let app = DemoClient::new(Some(proxy), &std::fs::read(files.path(files::BUNDLE))?)?;
    let knows_certificate = Expected::Answer(StatusCode::OK, files::CLIENT);
    let knows_token = Expected::Answer(StatusCode::OK, "token is right");
    for (service, expected) in [(Service::Partner, knows_certificate), (Service::Api, knows_token)] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{}/", ports.authority(service));
            transcript.call(&url, &app.get(&url).await, expected);
        }
    }
    transcript
        .note("http:// left outrider as TLS. https:// came as CONNECT, which outrider ends and begins anew.");

    transcript.heading("4. What the policy does not allow");
    for (url, words) in [
        ("https://unlisted.demo/", "named by no destination"),
        ("http://trap.demo/", "169.254.169.254"),
    ] {
        let expected = Expected::Answer(StatusCode::FORBIDDEN, words);
        transcript.call(url, &app.get(url).await, expected);
    }

    let refused = burst(transcript, &app, ports).await;
    metrics(transcript, admin, refused).await
}

/// Calls the limited service more often than allowed. Returns how many calls were refused.
async fn burst(transcript: &mut Transcript, app: &DemoClient, ports: ServicePorts) -> u32 {
    transcript.heading(&format!(
        "5. {BURST} calls at once to a service with rate_limit {}, on_limit {}",
        files::RATE_LIMIT,
        files::ON_LIMIT
    ));
    let url = format!("http://{}/", ports.authority(Service::Reports));
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..BURST {
        let (app, url) = (app.clone(), url.clone());
        calls.spawn(async move { (app.get(&url).await, began.elapsed()) });
    }
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    for (outcome, after) in calls.join_all().await {
        match outcome {
            Ok(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => refused.push((after, reply)),
            outcome => {
                let expected = Expected::Answer(StatusCode::OK, "a report");
                if !expected.is_met_by(&outcome) {
                    transcript.call(&url, &outcome, expected);
                }
                answered.push(after);
            }
        }
    }
    answered.sort();
    let times: Vec<_> = answered.iter().map(|after| seconds(*after)).collect();
    transcript.result(
        &format!("{} answered", answered.len()),
        &format!("after {} s", times.join(", ")),
        "one every 0.20 s",
        // No call can be early: the first was let through after the clock began.
        (0u32..)
            .zip(&answered)
            .all(|(n, after)| *after >= files::PERIOD * n),
    );
    let last = refused.iter().max_by_key(|(after, _)| *after);
    let last = last.map(|(after, reply)| {
        let retry_after = reply.retry_after.as_deref().unwrap_or("not there");
        format!("429 after {} s, Retry-After: {retry_after}", seconds(*after))
    });
    transcript.result(
        &format!("{} turned away at once", refused.len()),
        last.as_deref().unwrap_or_default(),
        "a 429 for those whose turn would come too late",
        // They hear it while others still wait for their turn.
        last.is_some()
            && refused
                .iter()
                .all(|(after, reply)| Some(after) < answered.last() && reply.retry_after.is_some()),
    );
    BURST.saturating_sub(answered.len().try_into().unwrap_or(BURST))
}

/// Shows what the operator sees of all this, as Prometheus would scrape it.
async fn metrics(transcript: &mut Transcript, admin: SocketAddr, refused: u32) -> Result<(), Error> {
    let url = format!("http://{admin}/metrics");
    transcript.heading(&format!("6. What {url} says of it"));
    let scrape = DemoClient::new(None, b"")?;
    let expected: [(_, &[_]); 3] = [
        (
            "outrider_requests_total",
            &[("partner", 2), ("api", 2), ("reports", BURST)],
        ),
        ("outrider_denied_total", &[("unlisted", 1), ("trap", 1)]),
        ("outrider_limit_refused_total", &[("reports", refused)]),
    ];
    let deadline = Instant::now() + SETTLED;
    let rows = loop {
        let page = scrape.get(&url).await.map(|reply| reply.text).unwrap_or_default();
        let rows = expected.map(|(name, values)| {
            let found = values
                .iter()
                .map(|(destination, _)| (*destination, metric(&page, name, destination)));
            let right = values
                .iter()
                .map(|(destination, value)| (*destination, f64::from(*value)));
            (name, listed(found), listed(right))
        });
        // An exchange is counted when its last byte has been sent, which may be a moment after the app has it.
        let is_settled = rows.iter().all(|(_, found, right)| found == right);
        if is_settled || Instant::now() > deadline {
            break rows;
        }
        tokio::time::sleep(SETTLED / 50).await;
    };
    for (name, found, right) in rows {
        transcript.result(name, &found, &right, found == right);
    }
    Ok(())
}

/// Adds up the samples of `name` for a destination on a metrics page.
fn metric(page: &str, name: &str, destination: &str) -> f64 {
    let label = format!("destination=\"{destination}\"");
    let values = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        let is_ours = labels.split(',').any(|pair| pair == label);
        is_ours.then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

/// Writes values as `partner 2, api 2`.
fn listed<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> String {
    let values: Vec<_> = values
        .map(|(destination, value)| format!("{destination} {value}"))
        .collect();
    values.join(", ")
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

/// Prints what a person may try while everything is up.
fn stay(
    transcript: &mut Transcript,
    files: &DemoFiles,
    proxy: SocketAddr,
    admin: SocketAddr,
    ports: ServicePorts,
) {
    let [partner, api, reports] =
        [Service::Partner, Service::Api, Service::Reports].map(|service| ports.authority(service));
    let [bundle, authority] =
        [files::BUNDLE, files::AUTHORITY].map(|name| files.path(name).display().to_string());
    transcript.heading("Everything stays up until Ctrl-C. To try:");
    transcript.quote(&format!(
        "curl --proxy http://{proxy} http://{partner}/\n\
         curl --proxy http://{proxy} --cacert '{bundle}' https://{partner}/\n\
         curl --proxy http://{proxy} --cacert '{bundle}' https://{api}/\n\
         curl --proxy http://{proxy} http://{reports}/\n\
         curl --proxy http://{proxy} http://169.254.169.254/latest/meta-data/\n\
         curl --noproxy '*' --cacert '{authority}' --resolve {api}:127.0.0.1 https://{api}/\n\
         curl --noproxy '*' http://{admin}/metrics\n"
    ));
}

#[cfg(test)]
mod tests {
    use super::metric;

    #[test]
    fn the_samples_of_a_destination_are_added_up() {
        let page = "# HELP a_total Requests.\n\
                    a_total{code=\"200\",destination=\"api\"} 2\n\
                    a_total{code=\"429\",destination=\"api\"} 1\n\
                    a_total{code=\"200\",destination=\"api-two\"} 4\n\
                    a_total_created{destination=\"api\"} 8\n\
                    alone 16\n";
        assert_eq!(metric(page, "a_total", "api"), 3.0);
        assert_eq!(metric(page, "a_total", "partner"), 0.0);
        assert_eq!(metric(page, "b_total", "api"), 0.0);
    }
}
