//! Hosts that apps call past the proxy (`no_proxy`) although something should happen to these calls.

use crate::config::{Config, Problems, TakenPast};

/// Finds hosts that apps call past the proxy although something is attached or refused there.
pub(super) fn find_bypassed(config: &Config, problems: &mut Problems, warnings: &mut Problems) {
    for destination in &config.destinations {
        for (i, host) in destination.hosts.iter().enumerate() {
            let past = config
                .no_proxy
                .iter()
                .find_map(|entry| Some((entry, entry.takes(&host.what)?)));
            let Some((entry, taken)) = past else { continue };
            let concerned = if destination.carries_credential() {
                "the credential is not attached"
            } else if destination.deny {
                "they are not refused"
            } else {
                "nothing here holds for them"
            };
            let is_safe = !destination.carries_credential() && !destination.deny;
            let what = match taken {
                TakenPast::All => {
                    format!("apps call {host} past the proxy (no_proxy: {entry}), and {concerned}")
                }
                TakenPast::Part => {
                    format!(
                        "apps call some hosts of {host} past the proxy (no_proxy: {entry}), and {concerned}"
                    )
                }
            };
            let path = format!("destinations.{}.hosts[{i}]", destination.name);
            let right = "write `no_proxy` without it, or take the host out here";
            match taken {
                // With loopback it is tried out, by clients that are told of the proxy otherwise.
                _ if entry.is_loopback() && is_safe => {}
                TakenPast::All if !is_safe && !entry.is_loopback() => problems.add(path, what, right),
                TakenPast::All | TakenPast::Part => warnings.add(path, what, right),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::examine_written;

    #[test]
    fn a_destination_that_apps_call_past_the_proxy_is_a_problem() {
        let told = |text: &str| {
            let config = Config::parse(text, "a.yml")
                .map_err(|problems| problems.to_string())
                .unwrap();
            let (problems, warnings) = examine_written(&config);
            (problems.to_string(), warnings.to_string())
        };
        let with = |host: &str, keys: &str| {
            format!(
                "egress: {{ allow_networks: [loopback] }}\ndestinations: {{ a: {{ hosts: [\"{host}\"], {keys} }} }}"
            )
        };
        let attached = "auth: { bearer: env:TOKEN }";
        for (host, keys, problem, warning) in [
            (
                "*.apps.internal",
                attached,
                "apps call *.apps.internal past the proxy (no_proxy: apps.internal), and the credential is not",
                "",
            ),
            ("b.apps.internal", "deny: true", "and they are not refused", ""),
            (
                "b.apps.internal",
                "rate_limit: 5/s",
                "",
                "nothing here holds for them",
            ),
            (
                "*.internal",
                attached,
                "",
                "apps call some hosts of *.internal past",
            ),
            ("127.0.0.1:8080", attached, "", "the credential is not attached"),
            ("127.0.0.1:8080", "rate_limit: 5/s", "", ""),
            ("internal.test", attached, "", ""),
        ] {
            let (problems, warnings) = told(&with(host, keys));
            assert!(
                problems.contains(problem) && problems.is_empty() == problem.is_empty(),
                "{host}: {problems}"
            );
            assert!(warnings.contains(warning), "{host}: {warnings}");
            assert_eq!(
                warnings.contains("past the proxy"),
                !warning.is_empty(),
                "{host}: {warnings}"
            );
            // Where the list leaves it out, nothing is wrong.
            let without = format!("no_proxy: []\n{}", with(host, keys));
            let (problems, warnings) = told(&without);
            assert!(
                problems.is_empty() && !warnings.contains("past the proxy"),
                "{host}: {problems}{warnings}"
            );
        }
    }
}
