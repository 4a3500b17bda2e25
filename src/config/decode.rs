//! From the tree to [`Config`]: the keys of the whole file. Those of a destination are in [`super::destination`].
//!
//! A function a section, which takes its reader and gives what holds.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::destination::destinations;
use super::keys;
use super::limits::rate_limit_store;
use super::node::shown;
use super::reader::{Field, Reader, one_of};
use super::{
    Access, Ca, Config, Constraints, Dns, Egress, EgressDefault, Limits, Listen, Locations, Log, LogFormat,
    Network, NetworkClass, Timeouts,
};
use crate::host::Host;
use crate::http1::HeadRules;

/// The whole file. `None` where it is no mapping; whether it is sound, the filed problems say.
pub(super) fn config(root: Field<'_>) -> Option<Config> {
    let reader = root.reader(keys::ROOT)?;
    // No key below it works yet; making the reader says so.
    reader.section("telemetry", keys::TELEMETRY);
    let listen = listen(reader.take("listen"));
    let timeouts = timeouts(&reader.section("timeouts", keys::TIMEOUTS), DEFAULT_TIMEOUTS);
    let mut limits = limits(&reader.section("limits", keys::LIMITS));
    let destinations = destinations(reader.take("destinations"), timeouts);
    // Whose request it is shows only once its head has been read.
    limits.request_fields.keeps_spelling = destinations.iter().any(|own| own.preserve_header_case);
    Some(Config {
        admin: admin(reader.take("admin"), &listen),
        listen,
        workers: workers(reader.take("workers")),
        drain: reader
            .take("drain")
            .and_then(Field::duration)
            .unwrap_or(Duration::from_secs(8)),
        log: log(&reader.section("log", keys::LOG)),
        ca: ca(&reader.section("ca", keys::CA)),
        egress: egress(&reader.section("egress", keys::EGRESS)),
        dns: dns(&reader.section("dns", keys::DNS)),
        instances: instances(reader.take("instances")),
        rate_limit_store: rate_limit_store(reader.take("rate_limit_store")),
        limits,
        destinations,
        timeouts,
        locations: Locations::default(),
    })
}

/// The time limits of a section; what is not written there is as in `fallback`.
pub(super) fn timeouts(reader: &Reader<'_>, fallback: Timeouts) -> Timeouts {
    let timeout = |name, fallback| {
        reader
            .take(name)
            .and_then(Field::positive_duration)
            .unwrap_or(fallback)
    };
    Timeouts {
        connect: timeout("connect", fallback.connect),
        idle: timeout("idle", fallback.idle),
        response: timeout("response", fallback.response),
        tls: timeout("tls", fallback.tls),
    }
}

fn listen(field: Option<Field<'_>>) -> Vec<Listen> {
    let Some(field) = field else {
        return vec![Listen::Tcp(LISTEN)];
    };
    let fields = if field.is_list() {
        field
            .filled_list("write an address with its port, as in 127.0.0.1:3128")
            .unwrap_or_default()
    } else {
        vec![field]
    };
    let mut listen = Vec::new();
    for field in fields {
        let Some(address) = listener(&field) else { continue };
        let free = matches!(&address, Listen::Tcp(address) if address.port() == 0);
        if listen.contains(&address) && !free {
            field.problem("stands twice", "keep one of them");
        }
        listen.push(address);
    }
    listen
}

fn listener(field: &Field<'_>) -> Option<Listen> {
    let text = field.text("write an address with its port, as in 127.0.0.1:3128")?;
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path_of(field, path)?;
        if path.as_os_str().len() > LONGEST_SOCKET {
            field.problem(
                "the path is too long for a socket",
                format_args!("keep it to {LONGEST_SOCKET} bytes"),
            );
            return None;
        }
        return Some(Listen::Unix(path));
    }
    let address = address(field, text, LISTEN)?;
    if !address.ip().to_canonical().is_loopback() {
        // `clients` says who may come in from outside; until it works, nobody may.
        let what =
            "a public listener would be open to everybody, since `clients` does not work yet in this version";
        field.problem(what, format_args!("write 127.0.0.1:{}", address.port()));
        return None;
    }
    Some(Listen::Tcp(address))
}

fn admin(field: Option<Field<'_>>, listen: &[Listen]) -> Option<SocketAddr> {
    let Some(field) = field else { return Some(ADMIN) };
    if field.plain() == Some("false") {
        return None;
    }
    let text = field.text("write an address with its port, as in 127.0.0.1:9901, or false")?;
    let address = address(&field, text, ADMIN)?;
    if address.port() != 0 && listen.contains(&Listen::Tcp(address)) {
        field.problem("the same address as `listen`", "write another port");
    }
    Some(address)
}

/// An address with its port; what is missing is taken from the `example` in the remedy.
fn address(field: &Field<'_>, text: &str, example: SocketAddr) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let named = text
        .strip_prefix("localhost")
        .map(|rest| rest.trim_start_matches(':'));
    let (what, right) = if let Ok(ip) = text.parse() {
        ("an address without a port", SocketAddr::new(ip, example.port()))
    } else if let Ok(port) = text.trim_start_matches(':').parse() {
        ("a port without an address", SocketAddr::new(example.ip(), port))
    } else if let Some(port) = named {
        let port = port.parse().unwrap_or_else(|_| example.port());
        (
            "a name where an address is wanted",
            SocketAddr::new(example.ip(), port),
        )
    } else {
        ("not an address with a port", example)
    };
    field.problem(
        format_args!("`{}` is {what}", shown(text)),
        format_args!("write {right}"),
    );
    None
}

/// `None`: `auto`.
fn workers(field: Option<Field<'_>>) -> Option<usize> {
    field
        .filter(|field| field.scalar() != Some("auto"))?
        .number(1, keys::MOST_WORKERS, "auto or a number")
}

/// `None`: `auto`.
fn instances(field: Option<Field<'_>>) -> Option<NonZeroU32> {
    let number = field.filter(|field| field.scalar() != Some("auto"))?.number(
        1,
        keys::MOST_INSTANCES,
        "auto or a number",
    )?;
    NonZeroU32::new(number)
}

fn log(reader: &Reader<'_>) -> Log {
    let format = [
        ("auto", LogFormat::Auto),
        ("json", LogFormat::Json),
        ("text", LogFormat::Text),
    ];
    let level = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let access = [
        ("all", Access::All),
        ("errors", Access::Errors),
        ("none", Access::None),
    ];
    Log {
        format: reader
            .take("format")
            .and_then(|field| field.choice(&format))
            .unwrap_or(LogFormat::Auto),
        level: reader
            .take("level")
            .and_then(|field| field.choice(&level))
            .unwrap_or(tracing::Level::INFO),
        access: reader
            .take("access")
            .and_then(|field| field.choice(&access))
            .unwrap_or(Access::Errors),
    }
}

fn ca(reader: &Reader<'_>) -> Ca {
    let path = |name, default| match reader.take(name) {
        Some(field) => field
            .text("write a path")
            .and_then(|text| path_of(&field, text))
            .unwrap_or_default(),
        // The defaults name TMPDIR only, which always expands.
        None => reader.environment().expand(default).unwrap_or_default(),
    };
    let lifetime = reader.take("lifetime").and_then(|field| {
        let lifetime = field.clone().duration()?;
        if lifetime < SHORTEST_LIFETIME {
            field.problem("too short for a certificate to be of use", "write 1m or longer");
        }
        Some(lifetime)
    });
    let constraints = [
        ("names_and_addresses", Constraints::NamesAndAddresses),
        ("names", Constraints::Names),
        ("none", Constraints::None),
    ];
    Ca {
        constraints: (reader.take("constraints"))
            .and_then(|field| field.choice(&constraints))
            .unwrap_or_default(),
        bundle: path("bundle", "$TMPDIR/outrider/ca-bundle.pem"),
        truststore: path("truststore", "$TMPDIR/outrider/truststore.p12"),
        lifetime: lifetime.unwrap_or(Duration::from_secs(7 * 86_400)),
    }
}

fn path_of(field: &Field<'_>, text: &str) -> Option<PathBuf> {
    (field.decoding.environment.expand(text))
        .map_err(|error| field.problem(&error, error.right()))
        .ok()
}

fn egress(reader: &Reader<'_>) -> Egress {
    let port = |field: Field<'_>| field.number(1, u16::MAX.into(), "a port");
    let networks = |name| {
        let fields = reader.take(name).and_then(Field::list);
        fields.map(|fields| fields.iter().filter_map(network).collect::<Vec<_>>())
    };
    let ports = reader.take("ports").and_then(Field::list);
    Egress {
        default: reader
            .take("default")
            .and_then(egress_default)
            .unwrap_or(EgressDefault::Deny),
        ports: ports.map_or_else(
            || vec![80, 443],
            |fields| fields.into_iter().filter_map(port).collect(),
        ),
        deny_networks: networks("deny_networks")
            .unwrap_or_else(|| NetworkClass::ALL.map(Network::Class).to_vec()),
        allow_networks: networks("allow_networks").unwrap_or_default(),
    }
}

fn egress_default(field: Field<'_>) -> Option<EgressDefault> {
    if field.scalar() == Some("observe") {
        field.problem(
            "`observe` does not work yet in this version",
            "write deny or tunnel",
        );
        return None;
    }
    field.choice(&[("deny", EgressDefault::Deny), ("tunnel", EgressDefault::Tunnel)])
}

/// A class, a block or a single address.
fn network(field: &Field<'_>) -> Option<Network> {
    let classes = NetworkClass::ALL.map(NetworkClass::name);
    let right = format!("write {}, or a block as in 10.255.0.0/16", one_of(&classes));
    let text = field.text(&right)?;
    if let Some(class) = NetworkClass::ALL.into_iter().find(|class| class.name() == text) {
        return Some(Network::Class(class));
    }
    let block = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match block {
        Ok(block) => Some(Network::Block(block.trunc())),
        Err(_) => {
            field.problem(
                format_args!("`{}` is neither a class of networks nor a block", shown(text)),
                right,
            );
            None
        }
    }
}

fn dns(reader: &Reader<'_>) -> Dns {
    let duration = |name, seconds| {
        reader
            .take(name)
            .and_then(Field::duration)
            .unwrap_or_else(|| Duration::from_secs(seconds))
    };
    let dns = Dns {
        hosts: hosts(reader.take("hosts")),
        max_ttl: duration("max_ttl", 300),
        min_ttl: duration("min_ttl", 5),
        servers: servers(reader.take("servers")),
        stale: duration("stale", 60),
        timeout: reader
            .take("timeout")
            .and_then(Field::positive_duration)
            .unwrap_or(Duration::from_secs(5)),
    };
    if dns.min_ttl > dns.max_ttl {
        let longer = reader.take("min_ttl").or_else(|| reader.take("max_ttl"));
        if let Some(field) = longer {
            field.problem(
                "`min_ttl` is longer than `max_ttl`",
                "write min_ttl: 5s and max_ttl: 5m, or the like",
            );
        }
    }
    dns
}

fn servers(field: Option<Field<'_>>) -> Vec<SocketAddr> {
    let Some(field) = field.filter(|field| field.scalar() != Some("system")) else {
        return Vec::new();
    };
    if let Some(text) = field.scalar() {
        let right = "write system, or a list as in [10.0.0.2:53]";
        field.problem(format_args!("`{}` is no list of resolvers", shown(text)), right);
        return Vec::new();
    }
    let fields = field
        .filled_list("write system, or a list as in [10.0.0.2:53]")
        .unwrap_or_default();
    let server = |field: &Field<'_>| {
        address(
            field,
            field.text("write ADDRESS:PORT, as in 10.0.0.2:53")?,
            RESOLVER,
        )
    };
    fields.iter().filter_map(server).collect()
}

fn hosts(field: Option<Field<'_>>) -> BTreeMap<Arc<str>, Vec<IpAddr>> {
    let mut hosts = BTreeMap::new();
    for (entry, field) in field.map(Field::named).unwrap_or_default() {
        let Ok(Host::Name(name)) = Host::parse(&entry.key) else {
            field.problem(
                "the key is not the name of a host",
                "write a name, as in api.example.test: 192.0.2.1",
            );
            continue;
        };
        let fields = if field.is_list() {
            field
                .clone()
                .filled_list("write at least one address")
                .unwrap_or_default()
        } else {
            vec![field.clone()]
        };
        let addresses = fields.iter().filter_map(ip).collect();
        match hosts.entry(name) {
            Entry::Occupied(_) => field.problem("the same host stands twice", "keep one of them"),
            Entry::Vacant(vacant) => {
                vacant.insert(addresses);
            }
        }
    }
    hosts
}

fn ip(field: &Field<'_>) -> Option<IpAddr> {
    let text = field.text("write an address, as in 192.0.2.1")?;
    let ip = text.parse().ok();
    if ip.is_none() {
        field.problem(
            format_args!("`{}` is no address", shown(text)),
            "write it without a port, as in 192.0.2.1",
        );
    }
    ip
}

fn limits(reader: &Reader<'_>) -> Limits {
    let number = |name, default| {
        let number = |field: Field<'_>| field.number(1, keys::MOST_CONNECTIONS, "a number");
        reader.take(name).and_then(number).unwrap_or(default)
    };
    let fields = |size, most_size, default_size, count, default_count| {
        let size = reader.take(size).and_then(|field| field.size("8KiB", most_size));
        let count = reader
            .take(count)
            .and_then(|field| field.number(10, keys::MOST_FIELDS, "a number"));
        HeadRules {
            count: count.unwrap_or(default_count),
            // Decided by the destinations.
            keeps_spelling: false,
            // So small that every usize holds it.
            size: size.and_then(|size| size.try_into().ok()).unwrap_or(default_size),
        }
    };
    let memory = reader
        .take("memory")
        .filter(|field| field.scalar() != Some("auto"));
    Limits {
        connections: number("connections", 10_000),
        request_fields: fields("header_size", "1MiB", 64 << 10, "header_count", 200),
        response_fields: fields(
            "response_header_size",
            "4MiB",
            256 << 10,
            "response_header_count",
            1_000,
        ),
        memory: memory.and_then(|field| field.size("16MiB", "1024GiB")),
        tunnels: number("tunnels", 5_000),
    }
}

const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    idle: Duration::from_secs(300),
    response: Duration::from_secs(60),
    tls: Duration::from_secs(5),
};

const LISTEN: SocketAddr = SocketAddr::new(LOCALHOST, 3128);
const ADMIN: SocketAddr = SocketAddr::new(LOCALHOST, 9901);
/// Stands for a resolver where a problem shows what one looks like.
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 53);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `sun_path` has 108 bytes on Linux, the last of which is NUL.
const LONGEST_SOCKET: usize = 107;

const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
