//! The answers of the store as [`crate::fuzz`] reads them.

use super::resp;

/// Reads an answer, and returns whether it is whole. No beginning of it may be read as an answer or as an error.
pub(crate) fn reply(bytes: &[u8]) -> bool {
    let Ok(Some((reply, length))) = resp::read(bytes) else {
        return false;
    };
    for end in 0..length {
        assert_eq!(
            resp::read(&bytes[..end]),
            Ok(None),
            "the first {end} of {length} bytes"
        );
    }
    let (again, _) = resp::read(&bytes[..length])
        .ok()
        .flatten()
        .expect("it is all there");
    assert_eq!(again, reply);
    true
}
