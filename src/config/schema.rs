//! The JSON schema of the configuration, made from the declarations.
//!
//! An editor that knows it completes keys, shows what they mean and marks what `outrider check` would refuse. Some
//! rules are finer than a schema can express; `check` knows them all.

use serde_json::{Map, Value, json};

use super::Config;
use super::declare::{Declaration, Section, Status, Table, ValueKind};
use super::node::{self, Node};

/// Returns the schema, in JSON Schema draft 2020-12.
pub(crate) fn schema() -> Value {
    let mut schema = object(Config::KEYS);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("outrider.yml");
    schema["description"] = json!("The configuration of outrider, an outbound forward proxy beside an app.");
    schema
}

fn object(table: Table) -> Value {
    let properties: Map<_, _> = table
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<_> = table
        .iter()
        .filter(|key| key.required.is_some())
        .map(|key| key.name)
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Declaration) -> Value {
    let mut property = match &key.status {
        Status::Works => written(&key.kind),
        Status::Later([]) => json!({ "not": {} }),
        Status::Later(off) => json!({ "enum": off.iter().map(|text| value(text)).collect::<Vec<_>>() }),
    };
    if key.default == "{}" {
        // A section of which every line is commented out.
        property["type"] = json!(["object", "null"]);
    }
    if !key.default.is_empty() {
        property["default"] = value(key.default);
    }
    property["description"] = match &key.status {
        Status::Works => json!(key.doc),
        Status::Later(_) => json!(format!("Does not work yet in this version. {}", key.doc)),
    };
    property
}

fn written(kind: &ValueKind) -> Value {
    match kind {
        ValueKind::Address => json!({ "type": "string", "pattern": ":[0-9]+$" }),
        ValueKind::Any(kinds) => json!({ "anyOf": kinds.iter().map(written).collect::<Vec<_>>() }),
        ValueKind::Boolean => json!({ "type": "boolean" }),
        ValueKind::Choice(words) => {
            // `http: 2` is a number in YAML, and a word to us.
            let numbers = words.iter().map(|word| value(word)).filter(Value::is_number);
            let words = words.iter().map(|word| json!(word));
            json!({ "enum": words.chain(numbers).collect::<Vec<_>>() })
        }
        ValueKind::Duration => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        ValueKind::Filled(kind) => json!({ "type": "array", "items": written(kind), "minItems": 1 }),
        ValueKind::Json => json!({ "type": ["string", "number", "boolean", "array", "object"] }),
        ValueKind::List(kind) => json!({ "type": "array", "items": written(kind) }),
        ValueKind::Literal(text) => json!({ "const": value(text) }),
        ValueKind::Named("", kind) => json!({ "type": "object", "additionalProperties": written(kind) }),
        ValueKind::Named(names, kind) => json!({
            "type": "object",
            "propertyNames": { "pattern": names },
            "additionalProperties": written(kind),
        }),
        ValueKind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        ValueKind::OneOf(table) => {
            let mut one = object(table);
            one["minProperties"] = json!(1);
            one["maxProperties"] = json!(1);
            one
        }
        ValueKind::Rate => {
            json!({ "type": "string", "pattern": "^\\s*[0-9]+/(s|m|h|d)(\\s+burst\\s+[0-9]+)?\\s*$" })
        }
        ValueKind::Secret => json!({ "type": "string", "pattern": "^(env|file|vcap):" }),
        ValueKind::Size => json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|[KMGkmg])$" }),
        ValueKind::Table(table) => object(table),
        ValueKind::Text => json!({ "type": "string" }),
        ValueKind::Value => json!({ "type": ["string", "number", "boolean"] }),
    }
}

/// Returns a default as JSON.
fn value(text: &str) -> Value {
    Node::of_default(text).map_or_else(|| json!(text), |node| json_of(&node))
}

fn json_of(node: &Node) -> Value {
    match &node.value {
        node::Content::Scalar { .. } if node.is_null() => Value::Null,
        node::Content::Scalar { text, plain: true } => {
            let number = text.parse().ok().map(Value::Number);
            number
                .or_else(|| text.parse().ok().map(Value::Bool))
                .unwrap_or_else(|| json!(text))
        }
        node::Content::Scalar { text, plain: false } => json!(text),
        node::Content::List(items) => items.iter().map(json_of).collect(),
        node::Content::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json_of(&entry.node)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_descriptions_come_from_the_tables() {
        let schema = schema();
        for (pointer, value) in [
            ("/properties/listen/default", json!("127.0.0.1:3128")),
            ("/properties/drain/pattern", json!("^[0-9]+(ms|s|m|h|d)$")),
            ("/properties/egress/properties/ports/default", json!([80, 443])),
            ("/properties/limits/properties/connections/default", json!(10_000)),
            ("/properties/instances/default", json!("auto")),
            ("/properties/telemetry/properties/otlp/enum", json!([null])),
            (
                "/properties/destinations/additionalProperties/properties/retry/anyOf/0/properties/budget/default",
                json!("20%"),
            ),
            (
                "/properties/destinations/additionalProperties/required",
                json!(["hosts"]),
            ),
            (
                "/properties/destinations/additionalProperties/properties/auth/anyOf/0/maxProperties",
                json!(1),
            ),
            (
                "/properties/destinations/additionalProperties/properties/http/enum",
                json!(["auto", "1", "2", 1, 2]),
            ),
            (
                "/properties/destinations/additionalProperties/properties/tls/properties/min_version/default",
                json!("1.2"),
            ),
        ] {
            assert_eq!(schema.pointer(pointer), Some(&value), "{pointer}");
        }
    }

    /// Walks the whole schema: nothing that is not in a table may pass, and everything says what it means.
    #[test]
    fn every_mapping_is_closed_and_every_key_is_described() {
        fn walk(schema: &Value, path: &str) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                assert_eq!(schema["additionalProperties"], json!(false), "{path}");
                for (key, property) in properties {
                    let described = property["description"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty());
                    assert!(described, "{path}.{key}");
                }
            }
            let children: Vec<(String, &Value)> = match schema {
                Value::Array(items) => items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| (i.to_string(), item))
                    .collect(),
                Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), value)).collect(),
                _ => Vec::new(),
            };
            for (key, child) in children {
                walk(child, &format!("{path}/{key}"));
            }
        }
        walk(&schema(), "");
    }
}
