//! What is wrong, word for word: these lines are what a person sees.

use super::*;

/// The problems of a text, a line each.
fn told(text: &str) -> String {
    parse(text).map_or_else(|problems| problems.to_string(), |_| "fine".to_owned())
}

/// The problems of one destination, without their places.
fn told_of(keys: &str) -> String {
    let problems = parse(&format!("destinations: {{ d: {{ hosts: [a.test], {keys} }} }}"));
    let problems = problems.map_or_else(|problems| problems.all, |_| Vec::new());
    let lines: Vec<_> = problems
        .iter()
        .map(|problem| problem.to_string().replace("destinations.d.", ""))
        .collect();
    lines.join("\n")
}

#[track_caller]
fn assert_told(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(told(text), *expected, "{text}");
    }
}

#[track_caller]
fn assert_told_of(table: &[(&str, &str)]) {
    for (keys, expected) in table {
        assert_eq!(told_of(keys), *expected, "{keys}");
    }
}
