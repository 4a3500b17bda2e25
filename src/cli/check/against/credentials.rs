//! Which credentials go to other hosts than before.

use std::collections::{BTreeMap, BTreeSet};

use super::reach::{HostChange, Reach, hosts};
use super::{Changes, Effect, listed};
use crate::cli::explain::credential;
use crate::config::{Auth, Config, HeaderText, Matcher};
use crate::policy::Destination;

/// The requests that get a credential, as the rules say it.
type Requests = BTreeSet<String>;

/// Where a credential goes: hosts, by the number of their change, or the server of an entry of `tcp`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Recipient {
    Hosts(usize),
    Server(String),
}

/// Compares where each credential goes.
pub(super) fn compare(routes: &[HostChange<'_>], old: &Config, new: &Config, changes: &mut Changes) {
    // By credential: where it goes in both files.
    let mut uses: BTreeMap<String, BTreeMap<Recipient, [Option<Requests>; 2]>> = BTreeMap::new();
    for (side, config) in [old, new].into_iter().enumerate() {
        for entry in &config.tcp {
            let Some(certificate) = entry.client_certificate() else {
                continue;
            };
            let server = Recipient::Server(format!("{} (tcp)", entry.to));
            let uses = uses
                .entry(format!("client certificate {certificate}"))
                .or_default();
            let there = uses.entry(server).or_default();
            there[side]
                .get_or_insert_default()
                .insert("every connection".to_owned());
        }
    }
    for (number, route) in routes.iter().enumerate() {
        for (side, reach) in [&route.old, &route.new].into_iter().enumerate() {
            let Reach::Destination(destination) = reach else {
                continue;
            };
            for (credential, requests) in attached(destination) {
                let uses = uses.entry(credential).or_default();
                let there = uses.entry(Recipient::Hosts(number)).or_default();
                there[side].get_or_insert_default().insert(requests);
            }
        }
    }
    for (credential, uses) in uses {
        let places = |chosen: &dyn Fn(&[Option<Requests>; 2]) -> bool| {
            let chosen = uses.iter().filter(|(_, sides)| chosen(sides));
            shown(chosen.map(|(recipient, _)| recipient), routes)
        };
        let gained = places(&|sides| sides[0].is_none());
        let lost = places(&|sides| sides[1].is_none());
        let is_new = uses.values().all(|sides| sides[0].is_none());
        match (gained.is_empty(), lost.is_empty()) {
            (true, true) => {}
            (false, true) if is_new => {
                changes.add(
                    Effect::Wider,
                    format!("credential is new: {credential}, to {gained}"),
                );
            }
            (false, true) => changes.add(
                Effect::Wider,
                format!("credential goes further: {credential}, to {gained}"),
            ),
            (false, false) => changes.add(
                Effect::Wider,
                format!("credential moves: {credential}, to {gained}, and no longer to {lost}"),
            ),
            (true, false) => {
                changes.add(
                    Effect::Narrower,
                    format!("credential no longer goes to {lost}: {credential}"),
                );
            }
        }
        let mut others: BTreeMap<(String, String), Vec<&Recipient>> = BTreeMap::new();
        for (recipient, sides) in &uses {
            if let [Some(old), Some(new)] = sides
                && old != new
            {
                let key = (listed(old), listed(new));
                others.entry(key).or_default().push(recipient);
            }
        }
        for ((old, new), recipients) in others {
            let hosts = shown(recipients, routes);
            changes.add(
                Effect::Wider,
                format!("credential goes with other requests: {credential}, at {hosts}: {old} → {new}"),
            );
        }
    }
}

/// Returns recipients in one line.
fn shown<'r>(recipients: impl IntoIterator<Item = &'r Recipient>, routes: &[HostChange<'_>]) -> String {
    let (mut changes, mut servers) = (Vec::new(), Vec::new());
    for recipient in recipients {
        match recipient {
            Recipient::Hosts(number) => changes.push(&routes[*number]),
            Recipient::Server(server) => servers.push(server.clone()),
        }
    }
    listed(hosts(&changes).into_iter().chain(servers))
}

/// Returns what a destination attaches, each with the requests that get it.
fn attached(destination: &Destination) -> Vec<(String, String)> {
    let every = || "every request".to_owned();
    let mut all = Vec::new();
    for rule in &destination.auth {
        for one in &rule.credentials {
            all.push((credential(&one.auth), requests(&rule.matcher)));
            all.extend(
                sent_for_tokens(&one.auth)
                    .into_iter()
                    .map(|secret| (secret, every())),
            );
        }
    }
    for (name, text) in &destination.headers.set {
        if let HeaderText::Reference(reference) = text {
            all.push((format!("header {name} from {reference}"), every()));
        }
    }
    if let Some(certificate) = &destination.tls.client_certificate {
        all.push((format!("client certificate {certificate}"), every()));
    }
    all
}

/// Returns the secrets that go to a token endpoint for a destination.
fn sent_for_tokens(auth: &Auth) -> Vec<String> {
    let Auth::OAuth2(oauth2) = auth else {
        return Vec::new();
    };
    let references = auth.references().into_iter();
    references
        .map(|(key, reference)| format!("{key} from {reference}, sent to {}", oauth2.token_url.text))
        .collect()
}

fn requests(matcher: &Matcher) -> String {
    if matcher.is_any() {
        return "every request".to_owned();
    }
    matcher.parts().collect::<Vec<_>>().join(" ")
}
