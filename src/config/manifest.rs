//! A manifest of `cf push` as a tree whose every value knows its place.
//!
//! Only what the platform itself reads is given out here: values by their keys, with aliases resolved. A value that
//! `cf push` fills in, `((name))`, is not known. What a manifest should say is decided in `cli/check`.

use std::path::Path;

use super::node::{Content, Dialect, LineColumn, Node, join};
use super::{Environment, Locations, Problem, Problems, SecretRef, read_text};

/// A manifest that could be read.
#[derive(Debug)]
pub(crate) struct Manifest {
    root: Node,
    pub(crate) locations: Locations,
    /// Keys that stand twice.
    pub(crate) problems: Problems,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct ManifestValue<'m> {
    node: &'m Node,
    /// As in `applications[0].sidecars[1].command`.
    pub(crate) path: String,
}

/// A key, its place, and its value.
#[derive(Clone, Debug)]
pub(crate) struct ManifestEntry<'m> {
    pub(crate) key: &'m str,
    pub(crate) at: LineColumn,
    pub(crate) value: ManifestValue<'m>,
}

impl Manifest {
    pub(crate) fn load(path: &Path) -> Result<Self, Problems> {
        Self::parse(&read_text(path)?, &path.display().to_string())
    }

    /// Reads the text of a manifest; `name` is the file's name as problems print it.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, Problems> {
        let fail = |problem: Problem| Problems {
            file: name.to_owned(),
            all: vec![problem],
        };
        let mut root = Node::parse_as(Dialect::Manifest, text).map_err(|problem| match problem.at {
            None if text.trim().is_empty() => fail(Problem {
                right: "write `applications:` and an app below it".to_owned(),
                ..problem
            }),
            Some(_) | None => fail(problem),
        })?;
        let mut locations = Locations {
            file: name.to_owned(),
            ..Locations::default()
        };
        let mut twice = Vec::new();
        root.index("", &mut locations, &mut twice);
        Ok(Self {
            root,
            locations,
            problems: Problems {
                file: name.to_owned(),
                all: twice,
            },
        })
    }

    /// Returns the whole of it.
    pub(crate) fn root(&self) -> ManifestValue<'_> {
        ManifestValue {
            node: &self.root,
            path: String::new(),
        }
    }

    /// Returns the apps, as far as they are mappings.
    pub(crate) fn applications(&self) -> Vec<ManifestValue<'_>> {
        let apps = self.root().get("applications").and_then(|apps| apps.items());
        let mut apps = apps.unwrap_or_default();
        apps.retain(|app| app.entries().is_some());
        apps
    }
}

impl<'m> ManifestValue<'m> {
    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let entries = self.entries()?;
        entries
            .into_iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value)
    }

    /// Returns the value of a key of an app or a process, where the platform takes hyphens for underscores.
    pub(crate) fn setting(&self, key: &str) -> Option<Self> {
        let entries = self.entries()?;
        entries
            .into_iter()
            .find(|entry| entry.key.replace('-', "_") == key)
            .map(|entry| entry.value)
    }

    /// Returns the entries of a mapping, in the order of the file; `None` if it is something else.
    pub(crate) fn entries(&self) -> Option<Vec<ManifestEntry<'m>>> {
        let Content::Map(entries) = &self.node.value else {
            return None;
        };
        let entry = |entry: &'m super::node::MapEntry| ManifestEntry {
            key: &entry.key,
            at: entry.at,
            value: ManifestValue {
                node: &entry.node,
                path: join(&self.path, &entry.key),
            },
        };
        Some(entries.iter().map(entry).collect())
    }

    /// Returns the items of a list; `None` if it is something else.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        let Content::List(items) = &self.node.value else {
            return None;
        };
        let item = |(i, node)| ManifestValue {
            node,
            path: format!("{}[{i}]", self.path),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Returns the text of a value that is written out.
    pub(crate) fn text(&self) -> Option<&'m str> {
        match &self.node.value {
            Content::Scalar { text, .. } if !self.node.is_null() && !self.is_open() => Some(text),
            Content::Scalar { .. } | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// Returns a value as it is written, also where `cf push` fills variables in.
    pub(crate) fn scalar(&self) -> Option<&'m str> {
        match &self.node.value {
            Content::Scalar { text, .. } => Some(text),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// Whether `cf push` fills a variable in, `((name))`, so that the value is not known here.
    pub(crate) fn is_open(&self) -> bool {
        match &self.node.value {
            Content::Scalar { text, .. } => text.contains("((") && text.contains("))"),
            Content::List(_) | Content::Map(_) => false,
        }
    }

    /// Returns the kind of value, in words.
    pub(crate) fn kind(&self) -> &'static str {
        self.node.kind()
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.is_null()
    }
}

/// Returns the bound services to which a configuration refers, each with the path where it first does. Those that the
/// app alone needs (`placeholders`) are left out.
pub(crate) fn needed_services(text: &str) -> Vec<(String, String)> {
    fn walk(node: &Node, path: &str, found: &mut Vec<(String, String)>) {
        match &node.value {
            Content::Scalar { text, .. } => {
                if let Some(Ok(SecretRef::Vcap { service, .. })) =
                    SecretRef::parse(text, Environment::elsewhere())
                    && !found.iter().any(|(_, known)| *known == service)
                {
                    found.push((path.to_owned(), service));
                }
            }
            Content::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    walk(item, &format!("{path}[{i}]"), found);
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    if path != "placeholders" {
                        walk(&entry.node, &path, found);
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    if let Ok(root) = Node::parse(text) {
        walk(&root, "", &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_and_merge_keys_are_resolved_where_cf_push_resolves_them() {
        let text = "\
common: &common
  memory: 1G
  env: &env { A: one }
applications:
- <<: *common
  name: a
  memory: 2G
- name: b
  <<: [{ stack: s }, *common]
  env: *env
";
        let manifest = Manifest::parse(text, "m.yml").unwrap();
        let apps = manifest.applications();
        let text_of = |app: usize, key: &str| {
            apps[app]
                .get(key)
                .and_then(|value| value.text().map(str::to_owned))
        };
        assert_eq!(text_of(0, "memory").as_deref(), Some("2G"));
        assert_eq!(text_of(1, "memory").as_deref(), Some("1G"));
        assert_eq!(text_of(1, "stack").as_deref(), Some("s"));
        let env = apps[1].get("env").unwrap().get("A").unwrap();
        assert_eq!((env.text(), &*env.path), (Some("one"), "applications[1].env.A"));
        // The place is that of the anchor, where a person would change it.
        assert_eq!(manifest.locations.of(&env.path), Some((3, 18)));
    }

    #[test]
    fn bombs_and_loops_meet_a_limit() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{below}]\n");
        }
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for level in 1..200 {
            deep += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        for (text, what) in [
            (&*bomb, "too many values"),
            (&*deep, "nested too deep"),
            ("a: &a [*a]\n", "an alias inside of what it repeats"),
            ("a: &a { b: *a }\n", "an alias inside of what it repeats"),
        ] {
            let problems = Manifest::parse(text, "m.yml").unwrap_err().to_string();
            assert!(problems.contains(what), "{problems}");
        }
    }

    #[test]
    fn values_that_cf_push_fills_in_are_not_known() {
        let manifest = Manifest::parse("a: ((name))\nb: x-((name)).test\nc: (x)\nd:\n", "m.yml").unwrap();
        for (key, open, text) in [
            ("a", true, None),
            ("b", true, None),
            ("c", false, Some("(x)")),
            ("d", false, None),
        ] {
            let value = manifest.root().get(key).unwrap();
            assert_eq!((value.is_open(), value.text()), (open, text), "{key}");
        }
    }

    #[test]
    fn services_are_found_wherever_a_reference_stands() {
        let text = "\
egress: { parent: ['vcap:egress-proxy/https_uri'] }
destinations:
  a: { hosts: [a.test], auth: { bearer: vcap:partner/token }, headers: { set: { X-A: vcap:more/a/b } } }
  b: { hosts: [b.test], auth: { bearer: vcap:partner/other } }
placeholders: { keep: [vcap:own/password] }
";
        let found = needed_services(text);
        let names: Vec<_> = found.iter().map(|(_, service)| service.as_str()).collect();
        assert_eq!(names, ["egress-proxy", "partner", "more"]);
        assert_eq!(found[1].0, "destinations.a.auth.bearer");
    }
}
