//! README.md holds: its configurations are sound, and what it says does not work does not.

use serde_json::Value;

use crate::config::{Config, schema};
use crate::policy::Policy;

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
    collect(&schema, &mut later);

    named.sort_unstable();
    later.sort_unstable();
    // A kind of credential stands in several places.
    later.dedup();
    named.dedup();
    assert_eq!(named, later);
}

/// The keys of which the schema says that they do not work yet.
fn collect<'s>(schema: &'s Value, later: &mut Vec<&'s str>) {
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
        if description.is_some_and(|text| text.starts_with("Does not work yet")) {
            later.push(name);
        }
    }
    children.into_iter().for_each(|child| collect(child, later));
}
