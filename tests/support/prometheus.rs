//! The real Prometheus, on a configuration of the test's.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::programs::{ServerProcess, clean, curl};
use super::{closed_port, run};

/// A running Prometheus; it ends with the test.
pub(crate) struct Prometheus {
    _server: ServerProcess,
    _folder: TempDir,
    pub(crate) listen: String,
}

impl Prometheus {
    /// Scrapes each of these jobs' targets once a second, and evaluates `rules` as often.
    #[track_caller]
    pub(crate) fn start(jobs: &[(&str, &[String])], rules: Option<&std::path::Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("127.0.0.1:{}", closed_port());
        let mut text =
            "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\nscrape_configs:\n"
                .to_owned();
        for (job, targets) in jobs {
            let targets = if targets.is_empty() {
                std::slice::from_ref(&listen)
            } else {
                targets
            };
            text.push_str(&format!(
                "- {{ job_name: {job}, static_configs: [{{ targets: {targets:?} }}] }}\n"
            ));
        }
        if let Some(rules) = rules {
            text.push_str(&format!("rule_files: [{:?}]\n", rules.display().to_string()));
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, text).unwrap();
        let child = clean("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={listen}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus; tests/run --tools installs it");
        Self {
            _server: ServerProcess(child),
            _folder: folder,
            listen,
        }
    }

    /// Returns the answer of an API call, or null if there is no answer yet.
    pub(crate) fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut command = curl(["-s", "-G"]);
        for (name, value) in parameters {
            command.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let told = run(command.arg(format!("http://{}/api/v1/{path}", self.listen))).stdout;
        serde_json::from_str(&told).unwrap_or(Value::Null)
    }

    /// Returns the result of a query at this moment, or the reason of a failure.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self.api("query", &[("query", query)]);
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer.to_string()),
        }
    }
}
