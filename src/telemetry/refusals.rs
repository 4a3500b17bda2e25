//! The last refusals: what the admin page shows to those whose client showed them nothing.

use std::collections::VecDeque;
use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Value, json};

use crate::fields::printable;
use crate::units::rfc3339;

/// Enough to find the one that was just met.
const MOST: usize = 16;

/// The longest sentence that is kept, in characters, and the longest host.
const LONGEST_SENTENCE: usize = 400;
const LONGEST_HOST: usize = 255;

/// The last of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentRefusals(VecDeque<RecentRefusal>);

/// One of them: no path, no query, no user information.
#[derive(Debug)]
struct RecentRefusal {
    at: SystemTime,
    method: &'static str,
    host: Option<String>,
    status: StatusCode,
    sentence: String,
}

impl RecentRefusals {
    pub(super) fn add(
        &mut self,
        method: &'static str,
        host: Option<&str>,
        status: StatusCode,
        sentence: &str,
        now: SystemTime,
    ) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(RecentRefusal {
            at: now,
            method,
            host: host.map(|host| printable(host, LONGEST_HOST)),
            status,
            sentence: printable(sentence, LONGEST_SENTENCE),
        });
    }

    /// Returns them for a page, the newest first.
    pub(super) fn page(&self) -> Value {
        let page = self.0.iter().rev().map(|refusal| {
            json!({
                "at": rfc3339(refusal.at),
                "method": refusal.method,
                "host": refusal.host,
                "status": refusal.status.as_u16(),
                "detail": refusal.sentence,
            })
        });
        page.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_cut() {
        let mut refusals = RecentRefusals::default();
        assert_eq!(refusals.page(), json!([]));
        for number in 0..100 {
            let sentence = format!("{number} \r\n{}", "\u{e9}".repeat(10_000));
            let host = "x".repeat(5_000);
            let host = (number != 99).then_some(host.as_str());
            refusals.add(
                "CONNECT",
                host,
                StatusCode::FORBIDDEN,
                &sentence,
                SystemTime::UNIX_EPOCH,
            );
        }
        let page = refusals.page();
        let page = page.as_array().unwrap();
        assert_eq!(page.len(), MOST);
        let detail = page[0]["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("99 ??") && detail.len() == LONGEST_SENTENCE,
            "{detail}"
        );
        assert!(page[0]["host"].is_null());
        assert_eq!(page[1]["host"].as_str().unwrap().len(), LONGEST_HOST);
    }
}
