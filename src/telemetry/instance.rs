//! The build and the app instance: two metrics that are always 1.
//!
//! On Cloud Foundry `VCAP_APPLICATION` names the app, its space and organization, and `CF_INSTANCE_INDEX` the
//! instance. Elsewhere the second metric is absent.

use std::env;

use serde_json::Value;

use super::families::Families;
use super::{CRYPTO, REVISION};

/// Returns the index of this app instance, as the platform gives it.
pub(crate) fn instance_index() -> Option<String> {
    env::var("CF_INSTANCE_INDEX").ok()
}

/// Returns a name that no other running instance has: the app's, its index and the beginning of the container's, or the
/// host's.
pub(super) fn name() -> String {
    let application = env::var("VCAP_APPLICATION").ok();
    let instance = application.and_then(|json| Instance::of(&json, instance_index().as_deref()));
    let Some(Instance { app, index, .. }) = instance else {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        return host.trim().to_owned();
    };
    // While one instance replaces another, both have the index.
    let guid = env::var("CF_INSTANCE_GUID").unwrap_or_default();
    let beginning: String = guid.chars().take(8).collect();
    format!("{app}/{index}/{beginning}")
        .trim_end_matches('/')
        .to_owned()
}

/// Sets both metrics, from the build and from `VCAP_APPLICATION` and `CF_INSTANCE_INDEX`.
pub(super) fn set_info(families: &Families, application: Option<&str>, index: Option<&str>) {
    families
        .build_info(env!("CARGO_PKG_VERSION"), REVISION, CRYPTO)
        .set(1);
    if let Some(instance) = application.and_then(|json| Instance::of(json, index)) {
        let Instance {
            app,
            space,
            organization,
            index,
        } = &instance;
        families.instance_info(app, space, organization, index).set(1);
    }
}

/// The app instance, as the platform names it.
#[derive(Debug, PartialEq, Eq)]
struct Instance {
    app: String,
    space: String,
    organization: String,
    index: String,
}

impl Instance {
    /// Reads `VCAP_APPLICATION` and `CF_INSTANCE_INDEX`. Returns `None` if the first is not a JSON object;
    /// missing names are empty.
    fn of(application: &str, index: Option<&str>) -> Option<Self> {
        let application: Value = serde_json::from_str(application).ok()?;
        let application = application.as_object()?;
        let text = |key: &str| match application.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        Some(Self {
            app: text("application_name"),
            space: text("space_name"),
            organization: text("organization_name"),
            index: index.map_or_else(|| text("instance_index"), str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_names_the_instance() {
        let full = r#"{"application_name":"billing","space_name":"prod","organization_name":"agency","instance_index":2}"#;
        for (json, index, expected) in [
            (full, None, Some(["billing", "prod", "agency", "2"])),
            (full, Some("7"), Some(["billing", "prod", "agency", "7"])),
            (r#"{"application_name":["x"]}"#, None, Some(["", "", "", ""])),
            ("[]", None, None),
            ("not json", Some("0"), None),
        ] {
            let expected = expected.map(|[app, space, organization, index]| Instance {
                app: app.into(),
                space: space.into(),
                organization: organization.into(),
                index: index.into(),
            });
            assert_eq!(Instance::of(json, index), expected, "{json}");
        }
    }
}
