//! What a snapshot keeps.

use super::*;

/// So a certificate and its key are of one moment, and a fingerprint is of the bytes that are used.
#[test]
fn a_snapshot_reads_a_file_once() {
    let folder = TempDir::new().unwrap();
    let [file, document] = ["token", "services.json"].map(|name| folder.path().join(name));
    let write = |token: &str| {
        let services =
            format!(r#"{{"user-provided":[{{"name":"partner","credentials":{{"token":"{token}"}}}}]}}"#);
        fs::write(&file, token).unwrap();
        fs::write(&document, services).unwrap();
    };
    let references = [SecretRef::File(file.clone()), vcap("partner/token")];
    let take = || Snapshot::of_variables([("VCAP_SERVICES_FILE_PATH", &document)]);
    write("old");
    let before = take();
    let fingerprint = before.fingerprint(&references);
    write("new");
    let after = take();
    for reference in &references {
        assert_eq!(text(before.read(reference)), "old");
        assert_eq!(text(after.read(reference)), "new");
    }
    assert_eq!(before.fingerprint(&references), fingerprint);
    assert_ne!(after.fingerprint(&references), fingerprint);
    write("old");
    assert_eq!(take().fingerprint(&references), fingerprint);
    fs::remove_file(&file).unwrap();
    assert_ne!(take().fingerprint(&references), fingerprint);
    assert_eq!(text(before.read(&references[0])), "old");
}
