//! The sections of the whole file that are not about one destination.

use std::time::Duration;

use http::Uri;

use super::PathBuf;
use super::declare::{Syntax, ValueKind};
use super::reader::Located;
use super::syntax::{AutoOrSize, GIB, KIB, MIB, Number, Positive, Size, Switched};
use crate::host::Target;
use crate::http1::HeadRules;

/// The most fields that a key may allow: a map of fields holds no more than some 24,000 names.
const MOST_FIELDS: u64 = 10_000;
const MOST_CONNECTIONS: u64 = 1_000_000;

const EVERY: Duration = Duration::from_secs(60);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);

section! {
    /// What is logged, and how.
    pub(crate) struct Log {
        /// auto: text on a terminal, else JSON.
        format: LogFormat = "auto";
        /// The least severe level that is logged.
        level: tracing::Level as Level = "info";
        /// One line a request; errors are 4xx, 5xx, refusals and waits.
        access: Access = "errors";
        /// How often the key counters are logged, where nothing can scrape: off, or 10s and longer.
        metrics: Option<Duration> as Switched<ReportInterval> = "off";
    }
}

choice! {
    pub(crate) enum LogFormat {
        Auto = "auto",
        Json = "json",
        Text = "text",
    }
}

words! {
    Level: tracing::Level {
        "error" = tracing::Level::ERROR,
        "warn" = tracing::Level::WARN,
        "info" = tracing::Level::INFO,
        "debug" = tracing::Level::DEBUG,
        "trace" = tracing::Level::TRACE,
    }
}

choice! {
    /// Which requests get a line in the access log.
    pub(crate) enum Access {
        All = "all",
        Errors = "errors",
        None = "none",
    }
}

section! {
    /// Where metrics and traces are sent.
    pub(crate) struct TelemetryKeys {
        /// Prometheus remote write: an address, or a mapping with `url`. The destination of its host attaches the credential.
        push: Option<Push> as OptionalPush = "null";
    }
    later {
        /// Traces over OTLP/HTTP.
        "otlp" = ["null"];
    }
}

section! {
    /// Where all metrics are written.
    pub(crate) struct Push {
        /// The address of the receiver.
        url: PushUrl = required "write where the metrics go, as in url: https://prom.example/api/v1/write";
        /// How often: 10s or longer.
        every: Duration as ReportInterval = "60s";
    }
}

/// An address, or a mapping with what else is wanted; `None` where it is empty.
pub(super) struct OptionalPush;

impl Syntax for OptionalPush {
    type Value = Option<Push>;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Text, Push::KIND, ValueKind::Literal("null")]);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        if written.is_mapping() {
            return Push::read(written).map(Some);
        }
        if written.is_empty() {
            return Some(None);
        }
        let every = EVERY;
        PushUrl::read(written).map(|url| Some(Push { url, every }))
    }
}

/// The address of a receiver of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PushUrl {
    pub(crate) target: Target,
    pub(crate) uri: Uri,
}

impl Syntax for PushUrl {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write an address without a user name; the destination of its host attaches a credential";
        let text = written.text(right)?;
        let uri = Uri::try_from(text).ok();
        let target = uri.as_ref().and_then(|uri| Target::of_absolute(uri).ok());
        let has_user = |uri: &Uri| {
            uri.authority()
                .is_some_and(|authority| authority.as_str().contains('@'))
        };
        match (uri, target) {
            (Some(uri), Some(target)) if !has_user(&uri) && !text.contains('#') => Some(Self { target, uri }),
            _ => {
                // Not shown: it may hold a password.
                written.problem("not the address of a receiver of metrics", right);
                None
            }
        }
    }
}

/// How often something is reported: not so often that the platform's limit on logs is felt.
pub(super) struct ReportInterval;

impl Syntax for ReportInterval {
    type Value = Duration;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Duration> {
        let every = written.clone().duration()?;
        if every < SHORTEST_INTERVAL {
            written.problem("too often", "write 10s or longer");
            return None;
        }
        Some(every)
    }
}

choice! {
    /// What a draining proxy waits for.
    pub(crate) enum DrainUntil {
        AppGone = "app_gone",
        Auto = "auto",
        Quiet = "quiet",
    }
}

section! {
    /// The files and the certificate of the local authority.
    pub(crate) struct Ca {
        /// The system's roots and ours as PEM; $VARS and ~ are expanded, $TMPDIR is /tmp where it is not set.
        bundle: PathBuf = "$TMPDIR/outrider/ca-bundle.pem";
        /// The same for Java.
        truststore: PathBuf = "$TMPDIR/outrider/truststore.p12";
        /// How long a certificate of the local authority is valid; the key is new at every start.
        lifetime: Duration as CertificateLifetime = "7d";
        /// What the local authority's certificate is confined to (name constraints). BoringSSL refuses an intercepted
        /// address under `names_and_addresses`; with `names` a stolen key of the authority is good for any address. Mbed
        /// TLS takes `none` only; with it such a key is good for every host.
        constraints: Constraints = "names_and_addresses";
    }
}

choice! {
    /// Which names the certificate of the local authority is confined to.
    #[derive(Default)]
    pub(crate) enum Constraints {
        #[default]
        NamesAndAddresses = "names_and_addresses",
        Names = "names",
        None = "none",
    }
}

/// How long a certificate is valid.
pub(super) struct CertificateLifetime;

impl Syntax for CertificateLifetime {
    type Value = Duration;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Duration> {
        let lifetime = written.clone().duration()?;
        if lifetime < SHORTEST_LIFETIME {
            written.problem("too short for a certificate to be of use", "write 1m or longer");
            return None;
        }
        Some(lifetime)
    }
}

section! {
    /// How long anything may take.
    #[derive(Copy)]
    pub(crate) struct Timeouts {
        /// To a connection.
        connect: Duration as Positive = "5s";
        /// To a finished handshake.
        tls: Duration as Positive = "5s";
        /// To the head of the response; each interim one (1xx) extends it.
        response: Duration as Positive = "60s";
        /// Without a byte in either direction.
        idle: Duration as Positive = "5m";
    }
}

section! {
    /// How long anything may take at one destination, where that differs from the whole file.
    #[derive(Copy)]
    pub(crate) struct TimeoutOverrides {
        /// To a connection.
        connect: Option<Duration> as Positive;
        /// To a finished handshake.
        tls: Option<Duration> as Positive;
        /// To the head of the response; each interim one (1xx) extends it.
        response: Option<Duration> as Positive;
        /// Without a byte in either direction.
        idle: Option<Duration> as Positive;
    }
}

impl Timeouts {
    /// Returns the timeouts of a destination that overrides some of them.
    pub(crate) fn with(self, own: TimeoutOverrides) -> Self {
        Self {
            connect: own.connect.unwrap_or(self.connect),
            tls: own.tls.unwrap_or(self.tls),
            response: own.response.unwrap_or(self.response),
            idle: own.idle.unwrap_or(self.idle),
        }
    }
}

section! {
    /// How much the app may use; past it new work is refused with a reason.
    pub(crate) struct Limits {
        /// Connections of the app with the proxy.
        connections: usize as Number<usize, 1, MOST_CONNECTIONS> = "10000";
        /// Open at once.
        tunnels: usize as Number<usize, 1, MOST_CONNECTIONS> = "5000";
        /// The head of a request, and its trailers; from 8KiB to 1MiB.
        header_size: u64 as Size<{ 8 * KIB }, MIB> = "64KiB";
        /// Fields in the head of a request, and in its trailers.
        header_count: usize as Number<usize, 10, MOST_FIELDS> = "200";
        /// The head of a response, and its trailers; from 8KiB to 4MiB.
        response_header_size: u64 as Size<{ 8 * KIB }, { 4 * MIB }> = "256KiB";
        /// Fields in the head of a response, and in its trailers.
        response_header_count: usize as Number<usize, 10, MOST_FIELDS> = "1000";
        /// auto: the sidecar's MEMORY_LIMIT, else none.
        memory: Option<u64> as AutoOrSize<{ 16 * MIB }, { 1024 * GIB }> = "auto";
    }
    also {
        /// Whether a destination keeps the spelling of field names: which one a request is for shows only once its head has
        /// been read.
        keeps_spelling: bool;
    }
}

impl Limits {
    /// Returns the rules for the head of a request.
    pub(crate) fn request_fields(&self) -> HeadRules {
        HeadRules {
            count: self.header_count,
            keeps_spelling: self.keeps_spelling,
            // At most 1 MiB, which every usize holds.
            size: usize::try_from(self.header_size).unwrap_or(usize::MAX),
        }
    }

    /// Returns the rules for the head of a response.
    pub(crate) fn response_fields(&self) -> HeadRules {
        HeadRules {
            count: self.response_header_count,
            // Each destination decides.
            keeps_spelling: false,
            size: usize::try_from(self.response_header_size).unwrap_or(usize::MAX),
        }
    }
}
