//! What the running outrider believes of a destination's limits: one request to its admin port, /status.

use std::net::SocketAddr;

use serde_json::Value;

use crate::cli::{admin_page, loopback};

/// Lines.
const MOST: usize = 10;

/// What is believed of one host of a destination, each as an object of the page.
#[derive(Debug)]
pub(super) enum Now {
    Known(Vec<Value>),
    /// And why.
    Unknown(String),
}

impl Now {
    /// Asks the outrider whose admin port is at `admin`, if it is on this machine's loopback. `host`: as in
    /// `https://host:port`.
    pub(super) fn ask(admin: Option<SocketAddr>, destination: &str, host: &str) -> Self {
        let Some(address) = admin else {
            return Self::Unknown("admin: false".to_owned());
        };
        let Some(address) = loopback(address) else {
            return Self::Unknown(format!("admin is at {address}, and only loopback is asked"));
        };
        let Ok(page) = admin_page::fetch(address, &address.to_string(), "/status") else {
            return Self::Unknown(format!("no outrider answers at {address}"));
        };
        let beliefs = page["limits_now"][destination].as_array();
        Self::Known(concerning(beliefs.map_or(&[], Vec::as_slice), host))
    }

    /// Each as a sentence.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Known(beliefs) if beliefs.is_empty() => {
                vec!["nothing is learned that concerns this host".to_owned()]
            }
            Self::Known(beliefs) => {
                // Each of the app's users may have met the same limit.
                let mut alike: Vec<(String, usize)> = Vec::new();
                for line in beliefs.iter().map(line) {
                    match alike.iter_mut().find(|(other, _)| *other == line) {
                        Some((_, count)) => *count += 1,
                        None => alike.push((line, 1)),
                    }
                }
                let more = alike.len().saturating_sub(MOST);
                let lines = alike.into_iter().take(MOST).map(|(line, count)| match count {
                    1 => line,
                    _ => format!("{line} ({count} alike)"),
                });
                let more = (more > 0).then(|| format!("{more} more; /status on the admin port has them"));
                lines.chain(more).collect()
            }
            Self::Unknown(why) => vec![format!("not known ({why})")],
        }
    }

    /// `null` where it is not known.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Known(beliefs) => beliefs.as_slice().into(),
            Self::Unknown(_) => Value::Null,
        }
    }
}

/// Those of this host, and of all hosts.
fn concerning(beliefs: &[Value], host: &str) -> Vec<Value> {
    let concerns = |belief: &&Value| belief["host"].as_str().is_none_or(|own| own == host);
    beliefs.iter().filter(concerns).cloned().collect()
}

fn line(belief: &Value) -> String {
    let text = belief["text"].as_str().unwrap_or_default();
    // What listens there may be anything.
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    match belief["credential"].as_str() {
        None => text,
        Some(place) => format!("{place}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_concerns_the_host_is_told_in_few_lines() {
        let belief = |host: Value, text: &str| json!({ "host": host, "text": text, "credential": null });
        let beliefs = [
            belief(json!("https://a.test:443"), "one\u{1b}[2J"),
            belief(json!("https://b.test:443"), "other"),
            belief(Value::Null, "all hosts"),
            belief(json!("https://a.test:443"), "one\u{1b}[2J"),
            json!({ "host": null, "text": "one", "credential": "auth[0].pool[1]" }),
        ];
        let now = Now::Known(concerning(&beliefs, "https://a.test:443"));
        assert_eq!(
            now.lines(),
            ["one[2J (2 alike)", "all hosts", "auth[0].pool[1]: one"]
        );
        let many = (0..25).map(|number| belief(Value::Null, &number.to_string()));
        let lines = Now::Known(many.collect()).lines();
        assert_eq!(lines.len(), MOST + 1);
        assert_eq!(lines[MOST], "15 more; /status on the admin port has them");
    }
}
