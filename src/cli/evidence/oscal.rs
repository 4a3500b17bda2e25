//! Evidence as an OSCAL component definition (NIST, version 1.1).
//!
//! UUIDs are of version 5 (RFC 9562): those of the component, its controls and their parts are derived from their names, and
//! stay when the facts change; that of the document is derived from all of it, as OSCAL wants it.

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::Report;
use super::facts::{Control, Fact, Standing};
use super::markdown::proofs;

const VERSION: &str = "1.1.3";

/// NIST's catalogue, whose names of controls and parts are used.
const CATALOG: &str = "https://raw.githubusercontent.com/usnistgov/oscal-content/v1.3.0/nist.gov/SP800-53/rev5/json/\
                       NIST_SP-800-53_rev5_catalog.json";

/// The name space of our UUIDs and of our properties: made once, at random.
const NAMESPACE: [u8; 16] = [
    0x28, 0x00, 0x04, 0x5e, 0x23, 0xc4, 0x48, 0x2e, 0xaf, 0x86, 0xb7, 0xd5, 0xf4, 0x7f, 0xf5, 0xfe,
];

const DESCRIPTION: &str = "An outbound forward proxy beside an app: it decides which hosts the app may reach, speaks TLS to them, \
                           attaches credentials, keeps to limits, and records what happens.";

/// Writes the whole document.
pub(super) fn write(report: &Report) -> String {
    let mut definition = json!({
        "metadata": metadata(report),
        "components": [component(report)],
    });
    if let Some(file) = &report.file {
        definition["back-matter"] = json!({ "resources": [{
            "uuid": of(report, "configuration"),
            "title": "The configuration that is described",
            "rlinks": [{
                "href": file.name,
                "media-type": "application/yaml",
                "hashes": [{ "algorithm": "SHA-256", "value": file.hash }],
            }],
        }] });
    }
    definition["uuid"] = uuid(&definition.to_string()).into();
    format!("{:#}\n", json!({ "component-definition": definition }))
}

fn metadata(report: &Report) -> Value {
    let configuration = match &report.file {
        Some(file) => format!("configuration {}", &file.hash[..12]),
        None => "the built-in configuration".to_owned(),
    };
    let mut metadata = json!({
        "title": format!("Evidence about {} for NIST SP 800-53, revision 5", report.name),
        "last-modified": report.date(),
        "version": format!("outrider {}, {configuration}", env!("CARGO_PKG_VERSION")),
        "oscal-version": VERSION,
        "remarks": "Written by `outrider evidence`. Statements are about this configuration and this build, and about what goes \
                    through outrider. Those that do not hold are marked `gap`.",
    });
    if let Some(name) = &report.prepared_by {
        let party = of(report, &format!("party/{name}"));
        metadata["roles"] = json!([{ "id": "prepared-by", "title": "Prepared by" }]);
        metadata["parties"] = json!([{ "uuid": party, "type": "organization", "name": name }]);
        metadata["responsible-parties"] = json!([{ "role-id": "prepared-by", "party-uuids": [party] }]);
    }
    metadata
}

fn component(report: &Report) -> Value {
    let origin = report.origin.iter();
    let props: Vec<_> = origin
        .map(|(name, value)| own_prop(&name.replace(' ', "-"), value, None))
        .chain([json!({ "name": "version", "value": env!("CARGO_PKG_VERSION") })])
        .collect();
    let mut component = json!({
        "uuid": of(report, "component"),
        "type": "software",
        "title": report.name,
        "description": DESCRIPTION,
        "props": props,
        "control-implementations": [{
            "uuid": of(report, "controls"),
            "source": CATALOG,
            "description": "What outrider, with this configuration, does for each control, and what it does not.",
            "implemented-requirements": report
                .controls
                .iter()
                .map(|control| requirement(control, report))
                .collect::<Vec<_>>(),
        }],
    });
    if report.file.is_some() {
        let resource = format!("#{}", of(report, "configuration"));
        component["links"] = json!([{ "href": resource, "rel": "reference", "text": "The configuration" }]);
    }
    component
}

fn requirement(control: &Control, report: &Report) -> Value {
    let mut description = format!(
        "{} {}. Met: {}; gaps: {}; not known: {}.",
        control.label(),
        control.title,
        control.count(Standing::Met),
        control.count(Standing::Gap),
        control.count(Standing::Unknown),
    );
    description.push_str(&format!("\n\nLeft to the rest of the system: {}", control.left));
    let mut requirement = json!({
        "uuid": of(report, control.id),
        "control-id": control.id,
        "description": description,
        "statements": statements(control, report),
    });
    // Never more than a part: no control is about one proxy alone. Where nothing is met, no word of OSCAL fits.
    if control.count(Standing::Met) > 0 {
        requirement["props"] = json!([{ "name": "implementation-status", "value": "partial" }]);
    }
    requirement
}

/// Returns the parts of a control, each once; its facts are sorted by them.
fn statements(control: &Control, report: &Report) -> Vec<Value> {
    let parts = control.facts.chunk_by(|one, other| one.part == other.part);
    parts
        .map(|facts| {
            let part = facts[0].part;
            let lines: Vec<_> = facts
                .iter()
                .map(|fact| {
                    let proof = proofs(fact, report.file_name());
                    format!("- {}: {} (proof: {proof})", fact.standing.word(), fact.sentence())
                })
                .collect();
            let props: Vec<_> = facts.iter().map(|fact| prop(fact, report)).collect();
            json!({
                "statement-id": part,
                "uuid": of(report, part),
                "description": lines.join("\n"),
                "props": props,
            })
        })
        .collect()
}

/// Returns a fact as a property, with what proves it.
fn prop(fact: &Fact, report: &Report) -> Value {
    let name = fact.standing.word().replace(' ', "-");
    own_prop(&name, &fact.sentence(), Some(&proofs(fact, report.file_name())))
}

/// Returns a property in our name space.
fn own_prop(name: &str, value: &str, remarks: Option<&str>) -> Value {
    let mut prop = json!({ "name": name, "ns": format!("urn:uuid:{}", spelled(NAMESPACE)), "value": value });
    if let Some(remarks) = remarks {
        prop["remarks"] = remarks.into();
    }
    prop
}

/// Returns the UUID of something that belongs to the component.
fn of(report: &Report, what: &str) -> String {
    uuid(&format!("{}/{what}", report.name))
}

/// Returns the UUID of a name in our name space (RFC 9562, section 5.5).
fn uuid(name: &str) -> String {
    uuid_in(NAMESPACE, name)
}

fn uuid_in(space: [u8; 16], name: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&space);
    context.update(name.as_bytes());
    let hash = context.finish();
    let mut bytes = [0; 16];
    bytes
        .iter_mut()
        .zip(hash.as_ref())
        .for_each(|(byte, own)| *byte = *own);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    spelled(bytes)
}

fn spelled(bytes: [u8; 16]) -> String {
    let digits = data_encoding::HEXLOWER.encode(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9562, appendix A.4.
    #[test]
    fn a_name_has_the_uuid_of_the_standard() {
        let dns = [
            0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8,
        ];
        assert_eq!(
            uuid_in(dns, "www.example.com"),
            "2ed6657d-e927-568b-95e1-2665a8aea6a2"
        );
    }
}
