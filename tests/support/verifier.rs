//! Independent programs that verify a signature.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::programs::{ServerProcess, clean, tool};
use super::{Request, Wire};

/// `verifier.py`, which ends with the test.
pub(crate) struct Verifier {
    _server: ServerProcess,
    /// The settings that go with every request.
    settings: Value,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Verifier {
    /// Starts the verifier; `settings` are `kind` and its parameters.
    #[track_caller]
    pub(crate) fn new(settings: Value) -> Arc<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/verifier.py");
        let mut child = clean(tool("venv/bin/python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let pipes = Mutex::new((child.stdin.take().unwrap(), stdout));
        Arc::new(Self {
            _server: ServerProcess(child),
            settings,
            pipes,
        })
    }

    /// Returns `ok`, or what is wrong with a request.
    pub(crate) fn judge(&self, request: &Request) -> String {
        let mut said = self.settings.clone();
        said["method"] = json!(request.line.split(' ').next());
        said["target"] = json!(request.target());
        said["authority"] = json!(request.headers.get("host"));
        said["headers"] = json!(request.headers.0);
        said["body"] = json!(BASE64.encode(&request.body));
        let mut pipes = self.pipes.lock().unwrap();
        let (stdin, stdout) = &mut *pipes;
        writeln!(stdin, "{said}").unwrap();
        let mut verdict = String::new();
        stdout.read_line(&mut verdict).unwrap();
        verdict.trim().to_owned()
    }

    /// Answers requests with 200 or 403, and the verdict as body.
    pub(crate) fn serve(&self, wire: &mut Wire) {
        while let Ok(request) = wire.request() {
            let verdict = self.judge(&request);
            let status = if verdict == "ok" {
                "200 OK"
            } else {
                "403 Forbidden"
            };
            let length = verdict.len();
            wire.send(format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{verdict}"
            ));
        }
    }

    /// Answers as S3 does, which says nothing in a body where all is well: an SDK takes anything else for a failure.
    pub(crate) fn serve_s3(&self, wire: &mut Wire) {
        while let Ok(request) = wire.request() {
            let answer = match self.judge(&request).as_str() {
                "ok" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
                wrong => format!(
                    "HTTP/1.1 403 No\r\nContent-Length: {}\r\n\r\n{wrong}",
                    wrong.len()
                ),
            };
            wire.send(answer);
        }
    }
}
