//! Names for new destinations: the host, as far as a name may be written so.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::config::{LONGEST_NAME, is_destination_name};

/// What a name is followed by where it alone is taken: a hyphen and eight digits.
const SUFFIX: usize = 9;

/// Returns a name that is not in `taken`, and puts it there: the host; else with its port; else with a hash of both. It is
/// the same in each run.
pub(super) fn name(host: &str, port: u16, taken: &mut HashSet<String>) -> String {
    let text: String = host
        .trim_matches(['[', ']'])
        .chars()
        .map(|letter| match letter {
            'a'..='z' | '0'..='9' | '-' | '_' => letter,
            _ => '-',
        })
        .collect();
    let mut hasher = DefaultHasher::new();
    (host, port).hash(&mut hasher);
    let hash = hasher.finish();
    let hashed = |hash: u64| {
        let room = &text[..text.len().min(LONGEST_NAME - SUFFIX)];
        format!("{}-{:08x}", room.trim_end_matches('-'), hash as u32)
    };
    let candidates = [text.clone(), format!("{text}-{port}")].into_iter();
    let more = (0..).map(|number| hashed(hash.wrapping_add(number)));
    let is_free = |name: &String| is_destination_name(name) && !taken.contains(name);
    // There are more hashes than names can be taken.
    let name = candidates.chain(more).find(is_free).unwrap_or_default();
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_host_and_unique_and_the_same_in_each_run() {
        let long = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
        let names = || {
            let mut taken = HashSet::from(["api-b-test".to_owned()]);
            let hosts = [
                ("api.a.test", 443),
                ("api-a.test", 443),
                ("api.a-test", 443),
                ("api.b.test", 443),
                ("[2001:db8::1]", 443),
                ("10.0.0.1", 443),
                ("none", 80),
                ("unlisted", 443),
                (&*long, 443),
                (&*long, 80),
                ("-.test", 443),
                ("xn--bcher-kva.test", 443),
            ];
            hosts.map(|(host, port)| name(host, port, &mut taken))
        };
        let first = names();
        assert_eq!(first, names());
        assert_eq!(first[0], "api-a-test");
        assert_eq!(first[1], "api-a-test-443");
        assert!(
            first[2].starts_with("api-a-test-") && first[2].len() == 19,
            "{}",
            first[2]
        );
        assert_eq!(first[3], "api-b-test-443");
        assert_eq!(first[4], "2001-db8--1");
        assert_eq!(first[5], "10-0-0-1");
        assert_eq!(first[6], "none-80");
        assert_eq!(first[7], "unlisted-443");
        assert_eq!(first[11], "xn--bcher-kva-test");
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
        assert!(first.iter().all(|name| is_destination_name(name)), "{first:?}");
    }
}
