//! README.md holds: its configurations are sound, and what it says does not work does not.

use std::collections::HashSet;

use serde_json::Value;

use crate::config::{Config, schema};
use crate::policy::{MUST_SEE, Policy};

const README: &str = include_str!("../../README.md");

/// The YAML blocks, without the indentation of a list that they may stand in.
fn configurations() -> Vec<String> {
    let blocks = README.split("```yaml\n").skip(1);
    let blocks = blocks
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block);
    let dedented = blocks.map(|block| {
        let lines = block.lines().filter(|line| !line.trim().is_empty());
        let indentation = lines
            .clone()
            .map(|line| line.len() - line.trim_start().len())
            .min();
        lines
            .map(|line| format!("{}\n", &line[indentation.unwrap_or(0)..]))
            .collect::<String>()
    });
    dedented.filter(|block| block.contains("destinations:")).collect()
}

#[test]
fn every_configuration_is_sound() {
    let configurations = configurations();
    assert!(configurations.len() >= 11, "{}", configurations.len());
    for text in configurations {
        let config =
            Config::parse(&text, "README.md").unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Policy::compile(&config).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(config.destinations.len(), 1);
        assert!(text.lines().count() <= 14, "longer than promised:\n{text}");
    }
}

#[test]
fn every_key_that_does_not_work_yet_is_named_and_no_other() {
    let (_, rest) = README
        .split_once("## What does not work yet")
        .expect("the section");
    let (section, _) = rest.split_once("\n\nSo: ").expect("its end");
    let mut named: Vec<&str> = (section.split('`').skip(1).step_by(2))
        .map(|key| key.split([':', ' ']).next().unwrap_or(key))
        .map(|key| key.rsplit('.').next().unwrap_or(key))
        // Here only one of the values does not work, or a key stands for where the next ones are.
        .filter(|key| !matches!(*key, "default" | "client_certificate" | "auth"))
        .collect();
    let schema = schema();
    let mut later = Vec::new();
    collect(&schema, &|text| text.starts_with("Does not work yet"), &mut later);

    named.sort_unstable();
    later.sort_unstable();
    // A kind of credential stands in several places.
    later.dedup();
    named.dedup();
    assert_eq!(named, later);
}

#[test]
fn what_causes_interception_is_named_and_nothing_else() {
    let (_, rest) = README
        .split_once("\"Must see requests\" is ")
        .expect("the sentence");
    let (sentence, _) = rest.split_once(". ").expect("its end");
    let named: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
    let mut keys: Vec<_> = MUST_SEE.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    assert_eq!(named, keys);
}

/// Each key has its place in a document, as code.
#[test]
fn every_key_is_in_the_documents() {
    let documents = [
        README,
        include_str!("../../docs/limits.md"),
        include_str!("../../sidecar/README.md"),
    ];
    let code: Vec<&str> = documents
        .iter()
        .flat_map(|text| text.split('`').skip(1).step_by(2))
        .collect();
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let words: HashSet<&str> = code
        .iter()
        .flat_map(|code| code.split(|c| !is_of_word(c)))
        .collect();
    let schema = schema();
    let mut keys = Vec::new();
    collect(&schema, &|_| true, &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    keys.retain(|key| !words.contains(key));
    assert!(
        keys.is_empty(),
        "give each a line in README.md or docs/: {keys:?}"
    );
}

/// The keys of the schema whose description is `wanted`.
fn collect<'s>(schema: &'s Value, wanted: &impl Fn(&str) -> bool, keys: &mut Vec<&'s str>) {
    let children: Vec<&Value> = match schema {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
    };
    for (name, key) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let description = key.get("description").and_then(Value::as_str);
        if description.is_some_and(wanted) {
            keys.push(name);
        }
    }
    children
        .into_iter()
        .for_each(|child| collect(child, wanted, keys));
}
