//! Credentials of bound services, in the three forms in which Cloud Foundry hands them to an app.
//!
//! `VCAP_SERVICES_FILE_PATH` names a JSON file, `SERVICE_BINDING_ROOT` a folder with a folder for each binding and a
//! file for each key, and `VCAP_SERVICES` is the JSON itself. The platform sets one of them; the first that is set
//! counts, in this order. A service is found by its instance name or binding name, else by a tag, never by
//! position.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::snapshot::{LARGEST, Snapshot};
use super::{Error, NameList};
use crate::config::SecretRef;

/// The key of a reference to credentials in CredHub, which the platform's launcher replaces by the credentials.
const CREDHUB: &str = "credhub-ref";

/// Reads `keys` of the bound service that answers to `service`. A number or a boolean is rendered as in JSON.
pub(super) fn read(
    snapshot: &Snapshot,
    service: &str,
    keys: &[String],
    reference: &SecretRef,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    match BoundServices::of(snapshot) {
        None => Err(Error::Unbound {
            reference: reference.clone(),
        }),
        Some(BoundServices::Folder(root)) => read_folder(snapshot, &root, service, keys, reference),
        Some(BoundServices::File(path)) => {
            let text = snapshot.file(&path, LARGEST, reference)?;
            read_document(&text, &path.display().to_string(), service, keys, reference)
        }
        Some(BoundServices::Variable(text)) => {
            read_document(&text, "VCAP_SERVICES", service, keys, reference)
        }
    }
}

/// Returns the files that [`read`] reads.
pub(super) fn files(
    snapshot: &Snapshot,
    service: &str,
    keys: &[String],
    reference: &SecretRef,
) -> Vec<PathBuf> {
    match BoundServices::of(snapshot) {
        None | Some(BoundServices::Variable(_)) => Vec::new(),
        Some(BoundServices::File(path)) => vec![path],
        Some(BoundServices::Folder(root)) => {
            let bindings = bindings(snapshot, &root, reference).unwrap_or_default();
            let found = choose(&bindings, service).unwrap_or_default();
            let key = keys.first().filter(|key| is_file_name(key));
            found
                .iter()
                .filter_map(|binding| Some(root.join(&binding.folder).join(key?)))
                .collect()
        }
    }
}

/// Where the platform put the bound services.
enum BoundServices {
    File(PathBuf),
    Folder(PathBuf),
    Variable(Zeroizing<Vec<u8>>),
}

impl BoundServices {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        use std::os::unix::ffi::OsStringExt;

        let variable = |name| snapshot.variable(name);
        (variable("VCAP_SERVICES_FILE_PATH").map(|path| Self::File(path.into())))
            .or_else(|| variable("SERVICE_BINDING_ROOT").map(|path| Self::Folder(path.into())))
            .or_else(|| variable("VCAP_SERVICES").map(|text| Self::Variable(Zeroizing::new(text.into_vec()))))
    }
}

/// A bound service as it may be asked for. `folder` is its place under SERVICE_BINDING_ROOT, else its position.
#[derive(Debug, Default)]
struct Binding {
    folder: String,
    names: Vec<String>,
    tags: Vec<String>,
}

/// Returns the bindings that `service` names; by tag only where none has the name.
fn choose<'b>(bindings: &'b [Binding], service: &str) -> Option<Vec<&'b Binding>> {
    let by = |wanted: fn(&Binding) -> &[String]| {
        let found: Vec<_> = bindings
            .iter()
            .filter(|binding| wanted(binding).iter().any(|word| word == service))
            .collect();
        (!found.is_empty()).then_some(found)
    };
    by(|binding| &binding.names).or_else(|| by(|binding| &binding.tags))
}

/// Returns the one binding that `service` names.
fn choose_one<'b>(
    bindings: &'b [Binding],
    service: &str,
    reference: &SecretRef,
) -> Result<&'b Binding, Error> {
    let names = |bindings: &mut dyn Iterator<Item = &Binding>| {
        NameList(
            bindings
                .filter_map(|binding| binding.names.first().cloned())
                .collect(),
        )
    };
    match choose(bindings, service).as_deref() {
        Some([one]) => Ok(one),
        Some(several) => Err(Error::Ambiguous {
            reference: reference.clone(),
            service: service.to_owned(),
            services: names(&mut several.iter().copied()),
        }),
        None => Err(Error::UnknownService {
            reference: reference.clone(),
            known: names(&mut bindings.iter()),
        }),
    }
}

pub(super) fn read_document(
    text: &[u8],
    place: &str,
    service: &str,
    keys: &[String],
    reference: &SecretRef,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let document = Document::parse(text, place, reference)?;
    let not_services = || Error::NotServices {
        reference: reference.clone(),
        place: place.to_owned(),
        line: 1,
        column: 1,
    };
    let labels = document.0.as_object().ok_or_else(not_services)?;
    let entries: Vec<_> = labels.values().filter_map(Value::as_array).flatten().collect();
    let bindings: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| Binding::of_entry(i, entry))
        .collect();
    let chosen = choose_one(&bindings, service, reference)?;

    let credentials = (bindings.iter().zip(&entries))
        .find(|(binding, _)| binding.folder == chosen.folder)
        .and_then(|(_, entry)| entry.get("credentials"))
        .unwrap_or(&Value::Null);
    let is_asked = keys.first().is_some_and(|key| key == CREDHUB);
    if credentials.get(CREDHUB).is_some() && !is_asked {
        return Err(Error::InCredHub {
            reference: reference.clone(),
        });
    }
    walk(credentials, keys, reference)
}

fn read_folder(
    snapshot: &Snapshot,
    root: &Path,
    service: &str,
    keys: &[String],
    reference: &SecretRef,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unreadable = |source| Error::Unreadable {
        reference: reference.clone(),
        path: root.to_owned(),
        source: Arc::new(source),
    };
    let bindings = bindings(snapshot, root, reference).map_err(unreadable)?;
    let folder = root.join(&choose_one(&bindings, service, reference)?.folder);

    let Some((key, within)) = keys.split_first() else {
        return Err(Error::NotText {
            reference: reference.clone(),
            key: service.to_owned(),
            what: "an object",
        });
    };
    let path = folder.join(key);
    if !is_file_name(key) || !path.is_file() {
        let known = file_names(&folder).map_err(unreadable)?;
        return Err(Error::UnknownKey {
            reference: reference.clone(),
            key: key.clone(),
            known: NameList(known),
        });
    }
    let text = snapshot.file(&path, LARGEST, reference)?;
    // A text is written to its file as it is, and may look like JSON; other values are written as JSON.
    match within {
        [] => Ok(text),
        within => walk(
            &Document::parse(&text, &path.display().to_string(), reference)?.0,
            within,
            reference,
        ),
    }
}

/// Follows `keys` into nested objects (and lists, by position) to a text.
fn walk(from: &Value, keys: &[String], reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut value = from;
    for key in keys {
        let next = match value {
            Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
            Value::Object(map) => map.get(key),
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => None,
        };
        value = next.ok_or_else(|| Error::UnknownKey {
            reference: reference.clone(),
            key: key.clone(),
            known: NameList(
                value
                    .as_object()
                    .map_or_else(Vec::new, |map| map.keys().cloned().collect()),
            ),
        })?;
    }
    let what = match value {
        Value::String(text) => return Ok(Zeroizing::new(text.clone().into_bytes())),
        Value::Bool(_) | Value::Number(_) => return Ok(Zeroizing::new(value.to_string().into_bytes())),
        Value::Array(_) => "a list",
        Value::Null => "null",
        Value::Object(_) => "an object",
    };
    let key = keys.last().cloned().unwrap_or_else(|| "credentials".to_owned());
    Err(Error::NotText {
        reference: reference.clone(),
        key,
        what,
    })
}

impl Binding {
    /// Of an entry of VCAP_SERVICES.
    fn of_entry(position: usize, entry: &Value) -> Self {
        let texts = |value: Option<&Value>| match value {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(items)) => items
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        let names = ["instance_name", "binding_name", "name"]
            .iter()
            .flat_map(|key| texts(entry.get(key)));
        Self {
            folder: position.to_string(),
            names: names.collect(),
            tags: texts(entry.get("tags")),
        }
    }

    /// Of a folder below SERVICE_BINDING_ROOT, whose name is the binding's, else the instance's.
    fn of_folder(snapshot: &Snapshot, folder: &Path, name: String, reference: &SecretRef) -> Self {
        let metadata = |key: &str| {
            // The platform writes underscores, its documentation says hyphens.
            let written = [key.to_owned(), key.replace('_', "-")];
            let read = |key| snapshot.file(&folder.join(key), LARGEST, reference).ok();
            let bytes = written.iter().find_map(read);
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
            text.map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let mut names: Vec<_> = ["instance_name", "binding_name", "name"]
            .iter()
            .filter_map(|key| metadata(key))
            .collect();
        names.push(name.clone());
        let tags = metadata("tags").unwrap_or_default();
        // A JSON list, as the platform writes it; a comma-separated line, as a hand does.
        let tags = serde_json::from_str::<Vec<String>>(&tags)
            .unwrap_or_else(|_| tags.split(',').map(|tag| tag.trim().to_owned()).collect());
        Self {
            folder: name,
            names,
            tags,
        }
    }
}

/// The bindings below SERVICE_BINDING_ROOT, by name.
fn bindings(snapshot: &Snapshot, root: &Path, reference: &SecretRef) -> std::io::Result<Vec<Binding>> {
    let mut bindings = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && !name.starts_with('.')
            && path.is_dir()
        {
            bindings.push(Binding::of_folder(snapshot, &path, name.to_owned(), reference));
        }
    }
    bindings.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(bindings)
}

/// The keys of a binding's folder. Names with a dot in front are the mount's own.
fn file_names(folder: &Path) -> std::io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

/// Whether a key names a file of its folder and nothing elsewhere.
fn is_file_name(key: &str) -> bool {
    !key.is_empty() && key != "." && key != ".." && !key.contains(['/', '\0'])
}

/// A parsed JSON document whose texts are zeroised on drop.
struct Document(Value);

impl Document {
    fn parse(text: &[u8], place: &str, reference: &SecretRef) -> Result<Self, Error> {
        // Only the position is kept: the parser's own message may quote the text.
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|error| Error::NotServices {
                reference: reference.clone(),
                place: place.to_owned(),
                line: error.line(),
                column: error.column(),
            })
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        fn wipe(value: &mut Value) {
            match value {
                Value::Array(items) => items.iter_mut().for_each(wipe),
                Value::Object(map) => map.values_mut().for_each(wipe),
                Value::String(text) => text.zeroize(),
                Value::Bool(_) | Value::Null | Value::Number(_) => {}
            }
        }
        wipe(&mut self.0);
    }
}
