//! A unified diff of two texts that differ in one place.

use std::fmt::Write as _;

/// Lines around the change.
const CONTEXT: usize = 3;

/// Returns the diff as `diff -u` and `git diff` write it.
pub(super) fn unified(old: &str, new: &str, name: &str) -> String {
    let before: Vec<&str> = old.split_inclusive('\n').collect();
    let after: Vec<&str> = new.split_inclusive('\n').collect();
    let head = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&before[head..], &after[head..]);
    let backwards = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = backwards.take_while(|(a, b)| a == b).count();
    let start = head.saturating_sub(CONTEXT);
    let below = tail.min(CONTEXT);
    let (removed, added) = (
        &old_rest[..old_rest.len() - tail],
        &new_rest[..new_rest.len() - tail],
    );
    let from = if old.is_empty() { "/dev/null" } else { name };
    let mut diff = format!("--- {from}\n+++ {name}\n");
    let length = |changed: &[&str]| head - start + changed.len() + below;
    let (was, is) = (length(removed), length(added));
    let line = |length| if length == 0 { 0 } else { start + 1 };
    // Writing to a string cannot fail.
    let _ = writeln!(diff, "@@ -{},{was} +{},{is} @@", line(was), line(is));
    let below = &old_rest[old_rest.len() - tail..][..below];
    for (sign, lines) in [
        (' ', &before[start..head]),
        ('-', removed),
        ('+', added),
        (' ', below),
    ] {
        for line in lines {
            diff.push(sign);
            diff.push_str(line);
            if !line.ends_with('\n') {
                diff.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    diff
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The real `git apply` makes the new text of the old one.
    #[test]
    fn patch_applies_the_diff() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yml");
        let long: String = (0..20).map(|number| format!("line {number}\n")).collect();
        for (old, new) in [
            ("", "a\nb\n".to_owned()),
            ("a\n", "a\nb\n".to_owned()),
            ("a", "a\nb\n".to_owned()),
            ("a\n", "b\na\n".to_owned()),
            ("a\r\nb\r\n", "a\r\nc\r\nb\r\n".to_owned()),
            ("x: {} # c\ny: 1\n", "x: # c\n  z: 2\ny: 1\n".to_owned()),
            (&*long, long.replace("line 9\n", "line 9\nnew\nnew\n")),
            (&*long, long.replace("line 19\n", "line 19\nnew\n")),
            ("a\na\na\n", "a\na\na\na\n".to_owned()),
        ] {
            std::fs::write(&file, old).unwrap();
            let diff = unified(old, &new, "a.yml");
            let patch = folder.path().join("patch");
            std::fs::write(&patch, &diff).unwrap();
            let mut command = Command::new("git");
            command
                .current_dir(folder.path())
                .args(["apply", "--unsafe-paths", "-p0"]);
            if old.is_empty() {
                std::fs::remove_file(&file).unwrap();
            }
            let output = command.arg(&patch).output().unwrap();
            assert!(
                output.status.success(),
                "{diff}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), new, "{diff}");
        }
    }
}
