//! What an app's outrider.yml asks of its manifest: bound services, and ports that are free in the container.

use std::net::SocketAddr;

use super::{Application, Findings};
use crate::config::{Config, Listen, ManifestValue, NoProxyHost, needed_services};

/// Ports that something else has in a container, and what. Those above [`ENVOY`] are the platform's, too.
const TAKEN: [(u16, &str); 2] = [(8080, "the app's $PORT"), (2222, "the platform's ssh")];
const ENVOY: u16 = 61_001;

/// Examines one app. `manifest`: what is to be changed there; `config`: in outrider.yml.
pub(super) fn examine(
    application: &Application<'_>,
    own: &Config,
    text: &str,
    manifest: &mut Findings,
    config: &mut Findings,
) {
    services(application, text, manifest);
    bypassed(application, own, manifest);
    if !application.is_own {
        ports(own, config);
    }
    instances(application, own, manifest);
}

/// Finds bound services that the configuration needs and the manifest lacks.
fn services(application: &Application<'_>, text: &str, found: &mut Findings) {
    let written = application.value.get("services");
    let listed = written.as_ref().and_then(|list| list.items()).unwrap_or_default();
    if listed.iter().any(ManifestValue::is_open) || written.as_ref().is_some_and(ManifestValue::is_open) {
        return;
    }
    let needed = needed_services(text);
    let names = |service: &ManifestValue<'_>| -> Vec<String> {
        let keys = ["name", "binding_name"].map(|key| service.get(key));
        let all = keys
            .iter()
            .flatten()
            .filter_map(ManifestValue::text)
            .chain(service.text());
        all.map(str::to_owned).collect()
    };
    let answers = |service: &ManifestValue<'_>, wanted: &str| names(service).iter().any(|own| own == wanted);
    // A service that no reference names may answer by its tag.
    let has_spare = listed
        .iter()
        .any(|service| !needed.iter().any(|(_, wanted)| answers(service, wanted)));
    for (place, wanted) in &needed {
        if listed.iter().any(|service| answers(service, wanted)) {
            continue;
        }
        let path = written.as_ref().unwrap_or(&application.value).path.as_str();
        let what = format!("outrider.yml needs the bound service `{wanted}` ({place})");
        if has_spare {
            let right = "right if one of the services has it as a tag; else add it";
            found.warnings.add(path, what, right);
        } else {
            let right = format!("add `- {wanted}` under services, which also keeps it bound at each push");
            found.problems.add(path, what, right);
        }
    }
}

/// Finds hosts that the manifest's NO_PROXY takes past the proxy although something is attached there.
fn bypassed(application: &Application<'_>, config: &Config, found: &mut Findings) {
    for name in ["no_proxy", "NO_PROXY"] {
        let Some(variable) = application.variable(name) else {
            continue;
        };
        for (entry, own) in NoProxyHost::bypassing(variable.text().unwrap_or_default(), &config.destinations)
        {
            found.problems.add(
                variable.path.as_str(),
                format!(
                    "`{entry}` takes calls past the proxy, and destinations.{} attaches nothing to them",
                    own.name
                ),
                "take it out of the list",
            );
        }
    }
}

/// Finds ports of the configuration that are taken in an app's container.
fn ports(config: &Config, found: &mut Findings) {
    let listeners = config.listen.iter().enumerate().filter_map(|(i, listen)| {
        let path = match config.listen.len() {
            1 => "listen".to_owned(),
            _ => format!("listen[{i}]"),
        };
        Some((path, Listen::address(listen)?))
    });
    let admin = config.admin.map(|address| ("admin".to_owned(), address));
    let local = config.tcp.iter().filter_map(|entry| {
        let path = format!("tcp.{}.listen", entry.name);
        Some((path, Listen::address(&entry.listen)?))
    });
    let all: Vec<(String, SocketAddr)> = listeners.chain(admin).chain(local).collect();
    for (path, address) in all {
        let port = address.port();
        let taken = TAKEN.iter().find(|(own, _)| *own == port).map(|(_, what)| *what);
        let taken = taken.or_else(|| (port >= ENVOY).then_some("the platform's Envoy"));
        if let Some(what) = taken {
            found.problems.add(
                path,
                format!("port {port} is {what} in a container of Cloud Foundry"),
                "write another port, as in 127.0.0.1:3128",
            );
        }
    }
}

/// Warns of rates that each instance would take whole.
fn instances(application: &Application<'_>, config: &Config, found: &mut Findings) {
    let Some(written) = application.value.get("instances") else {
        return;
    };
    let count: Option<u32> = written.text().and_then(|text| text.parse().ok());
    let limited = config.destinations.iter().find(|own| !own.rate_limits.is_empty());
    if let (Some(count @ 2..), Some(own)) = (count, limited)
        && config.instances.is_none()
        && config.rate_limit_store.is_none()
    {
        found.warnings.add(
            written.path,
            format!(
                "each of {count} instances takes the whole rate_limit of {}",
                own.name
            ),
            format!("set rate_limit_store in outrider.yml, or instances: {count}"),
        );
    }
}
