//! `outrider demo`: the main job with nothing prepared.
//!
//! Three services, the proxy and an app that knows no secret, all in this process and on loopback. Certificates, keys
//! and the token are made for this one run, and the configuration is a file that the ordinary parser reads: what is
//! shown is the program, not a play. Every step is verified; one that fails says what was expected, and fails the run.
//!
//! The services are in [`services`], what they and the proxy need on disk in [`files`], the app in [`client`], what is
//! told in [`transcript`]. This file is the order of the steps.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use rustls::AlertDescription;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::Client;
use self::files::DemoFiles;
use self::metrics_page::MetricsPage;
use self::services::{Service, ServicePorts};
use self::transcript::{Expected, Transcript};
use super::run::runtime;
use crate::app::{self, Addresses, App, Termination};
use crate::config::{Listen, Source};

mod client;
mod files;
mod metrics_page;
mod services;
mod transcript;

/// Show the main job on this machine, with nothing prepared
///
/// Starts a partner that demands a client certificate, an API that demands a bearer token and one whose rate is limited,
/// calls them without outrider and through it, and shows a refusal and a queue. Everything is made for this run, on
/// loopback and in a temporary folder, and is gone afterwards. A step that does not go as it should says so, and the
/// exit code is 1.
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
    #[error("the certificates of the demo cannot be made")]
    Certificates(#[from] rcgen::Error),

    #[error("the configuration of the demo opens no TCP listener or no admin address")]
    Endpoints,

    #[error("the proxy of the demo does not start")]
    Proxy(#[from] app::Error),

    #[error("the demo cannot set up its files and sockets")]
    System(#[from] io::Error),

    #[error("the services of the demo cannot speak TLS")]
    Tls(#[from] rustls::Error),
}

pub(super) fn run(args: &Args) -> ExitCode {
    match play(args) {
        Ok(code) => code,
        Err(error) => {
            eprint!("outrider demo: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

/// Sets everything up, tells the transcript, and takes everything down.
fn play(args: &Args) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        // First of all, so that Ctrl-C finds us and the folder is removed.
        let mut termination = Termination::new()?;
        let files = DemoFiles::set()?;
        let mut services = JoinSet::new();
        let ports = services::start(&files, &mut services).await?;
        let mut transcript = Transcript::new();

        transcript.line("outrider demo: three services and an app that knows no secret, all on this machine");
        without_outrider(&mut transcript, &files, ports).await?;

        let path = files.write_configuration(ports)?;
        transcript.heading("2. What outrider is told: the whole outrider.yml");
        transcript.quote(&DemoFiles::configuration(ports));
        let source = Source::File(path);
        let config = source.load().map_err(app::Error::from)?;
        let mut app = App::start(config, source, crate::proxy::Clients::default()).await?;
        let endpoints = Endpoints::of(app.addresses(), &files).ok_or(Error::Endpoints)?;
        let outcome = app.run(async {
            tokio::select! {
                outcome = through_outrider(&mut transcript, &endpoints, ports) => Some(outcome),
                () = termination.wait() => None,
            }
        });
        match outcome.await? {
            None => return Ok(ExitCode::from(INTERRUPTED)),
            Some(outcome) => outcome?,
        }
        let hint = " With --stay everything stays up, to try more.";
        let code = transcript.end(if args.stay { "" } else { hint });
        if args.stay {
            stay(&transcript, &files, &endpoints, ports);
            app.run(termination.wait()).await?;
        }
        Ok(code)
    })
}

/// The app alone: it can reach the services, and they turn it away.
async fn without_outrider(
    transcript: &mut Transcript,
    files: &DemoFiles,
    ports: ServicePorts,
) -> Result<(), Error> {
    transcript
        .heading("1. The app alone: partner.demo demands a client certificate, api.demo a bearer token");
    let app = Client::direct(files.authority())?;
    for (service, expected) in [
        (
            Service::Partner,
            Expected::Alert(AlertDescription::CertificateRequired),
        ),
        (
            Service::Api,
            Expected::Answer(StatusCode::UNAUTHORIZED, "bearer token"),
        ),
    ] {
        let url = format!("https://{}/", ports.authority(service));
        transcript.call(&url, &app.get(&url).await, expected);
    }
    Ok(())
}

/// The same app with a proxy, and nothing else changed.
async fn through_outrider(
    transcript: &mut Transcript,
    endpoints: &Endpoints,
    ports: ServicePorts,
) -> Result<(), Error> {
    transcript.heading(&format!(
        "3. The same app behind the proxy http://{}; it trusts the CA bundle and knows no secret",
        endpoints.proxy
    ));
    let app = Client::through(endpoints.proxy, &endpoints.bundle)?;
    let knows_certificate = Expected::Answer(StatusCode::OK, files::CLIENT);
    let knows_token = Expected::Answer(StatusCode::OK, "token is right");
    for (service, scheme, expected) in [
        (Service::Partner, "http", knows_certificate),
        (Service::Partner, "https", knows_certificate),
        (Service::Api, "http", knows_token),
        (Service::Api, "https", knows_token),
    ] {
        let url = format!("{scheme}://{}/", ports.authority(service));
        transcript.call(&url, &app.get(&url).await, expected);
    }
    transcript
        .note("http:// left outrider as TLS. https:// came as CONNECT, which outrider ends and begins anew.");

    transcript.heading("4. What the policy does not allow");
    for (url, expected) in [
        ("https://unlisted.demo/", "named by no destination"),
        ("http://trap.demo/", "169.254.169.254"),
    ] {
        transcript.call(
            url,
            &app.get(url).await,
            Expected::Answer(StatusCode::FORBIDDEN, expected),
        );
    }

    let refused = burst(transcript, &app, ports).await;
    metrics_page(transcript, endpoints, refused).await
}

/// Asks the limited service more often than it may be asked. Returns how many calls were turned away.
async fn burst(transcript: &mut Transcript, app: &Client, ports: ServicePorts) -> u32 {
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
            Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => refused.push((answer, after)),
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
    let last = refused.iter().max_by_key(|(_, after)| *after);
    let outcome = last.map(|(answer, after)| {
        let retry_after = answer.field("retry-after").unwrap_or("not there");
        format!("429 after {} s, Retry-After: {retry_after}", seconds(*after))
    });
    transcript.result(
        &format!("{} turned away at once", refused.len()),
        outcome.as_deref().unwrap_or_default(),
        "a 429 for those whose turn would come too late",
        !refused.is_empty()
            && refused
                .iter()
                .all(|(answer, _)| answer.field("retry-after").is_some()),
    );
    BURST.saturating_sub(answered.len().try_into().unwrap_or(BURST))
}

/// What the operator sees of all this, as Prometheus would scrape it.
async fn metrics_page(transcript: &mut Transcript, endpoints: &Endpoints, refused: u32) -> Result<(), Error> {
    let url = format!("http://{}/metrics", endpoints.admin);
    transcript.heading(&format!("6. What {url} says of it"));
    let scrape = Client::bare()?;
    let expected: [(_, &[_]); 3] = [
        (
            "outrider_requests_total",
            &[("partner", 2), ("api", 2), ("reports", BURST)],
        ),
        ("outrider_denied_total", &[("unlisted", 1), ("trap", 1)]),
        ("outrider_limit_refused_total", &[("reports", refused)]),
    ];
    let deadline = Instant::now() + SETTLED;
    let metrics_page = loop {
        let page = scrape.get(&url).await;
        let metrics_page = MetricsPage::read(page.as_ref().map_or("", |answer| &answer.text));
        let is_settled = expected
            .iter()
            .all(|(name, values)| metrics_page.hold(name, values));
        // An exchange is counted when its last byte has left, which may be a moment after the app has it.
        if is_settled || Instant::now() > deadline {
            break metrics_page;
        }
        tokio::time::sleep(SETTLED / 50).await;
    };
    for (name, values) in expected {
        let got = values
            .iter()
            .map(|(destination, _)| (*destination, metrics_page.of(name, destination)));
        let right = values
            .iter()
            .map(|(destination, value)| (*destination, f64::from(*value)));
        transcript.result(
            name,
            &listed(got),
            &listed(right),
            metrics_page.hold(name, values),
        );
    }
    Ok(())
}

/// `partner 2, api 2`.
fn listed<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> String {
    let values: Vec<_> = values
        .map(|(destination, value)| format!("{destination} {value}"))
        .collect();
    values.join(", ")
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

/// What a person may try while everything is up.
fn stay(transcript: &Transcript, files: &DemoFiles, endpoints: &Endpoints, ports: ServicePorts) {
    let Endpoints { admin, bundle, proxy } = endpoints;
    let (partner, api, reports) = (
        ports.authority(Service::Partner),
        ports.authority(Service::Api),
        ports.authority(Service::Reports),
    );
    let bundle = bundle.display();
    let authority = files.authority_path();
    let authority = authority.display();
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

/// Where the running proxy is.
struct Endpoints {
    admin: SocketAddr,
    bundle: PathBuf,
    proxy: SocketAddr,
}

impl Endpoints {
    fn of(addresses: &Addresses, files: &DemoFiles) -> Option<Self> {
        let proxy = addresses.listen.iter().find_map(|listen| match listen {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        })?;
        Some(Self {
            admin: addresses.admin?,
            bundle: files.bundle(),
            proxy,
        })
    }
}

/// More than may wait: the last ones are told so at once.
const BURST: u32 = 8;

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The longest that counters may lag behind answers.
const SETTLED: Duration = Duration::from_secs(2);
