//! Commands under `exec`, with real SDKs.

use std::collections::HashMap;
use std::process::Command;

use super::KEY_IN_JSON;
use crate::support::origin::ok;
use crate::support::programs::{outrider, python};
use crate::support::proxy::configuration;
use crate::support::verifier::Verifier;
use crate::support::{Origin, Pki, Wire, leak, run};

/// Runs a command under `exec`, with an upstream that records what it gets.
struct Exec {
    folder: tempfile::TempDir,
    partner: Origin,
    _pki: Pki,
}

impl Exec {
    fn new(config: &str, script: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
        let partner = Origin::https(pki.accepting(&pki.server("partner.test")), script);
        let hosts = format!(
            "hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}",
            partner.authority(),
            pki.ca().display()
        );
        let yaml = configuration(&config.replace("HOSTS", &hosts), folder.path());
        std::fs::write(folder.path().join("outrider.yml"), yaml).unwrap();
        Self {
            folder,
            partner,
            _pki: pki,
        }
    }

    fn command(&self, options: &[&str], variables: &[(&str, &str)], command: &Command) -> Command {
        let mut exec = outrider(["exec", "--config", "outrider.yml"]);
        exec.args(options)
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            exec.env(name, value.unwrap_or_default());
        }
        exec.current_dir(self.folder.path());
        exec.envs(variables.iter().copied());
        exec
    }

    /// Runs a script of Python with the variable `BASE`, the URL of the upstream.
    fn python(&self, script: &str, variables: &[(&str, &str)]) -> String {
        let mut command = self.command(&[], variables, &python(script));
        command.env("BASE", format!("https://{}", self.partner.authority()));
        let output = run(&mut command);
        output.succeeded();
        assert_eq!(leak(&format!("{} {}", output.stdout, output.stderr)), None);
        output.stdout
    }
}

/// Everything that the command can read of its environment.
fn environment(exec: &Exec, options: &[&str], variables: &[(&str, &str)]) -> HashMap<String, String> {
    let script = "import os, json; print(json.dumps(dict(os.environ)))";
    let output = run(&mut exec.command(options, variables, &python(script)));
    serde_json::from_str(&output.succeeded().stdout).unwrap()
}

#[test]
fn the_environment_of_the_command_shows_no_secret() {
    let exec = Exec::new(
        "destinations:\n  p:\n    hosts: [partner.test]\n    auth:\n      - { match: { path: /a }, basic: { username: env:NAME, password: env:PASSWORD } }\n      \
         - { match: { path: /b }, aws_sigv4: { service: s3, region: x, access_key_id: vcap:store/id, secret_access_key: vcap:store/key } }\n      \
         - { bearer: env:TOKEN }\n    headers: { set: { X-One: env:ONE } }\n\
         placeholders: { keep: [env:KEPT], remove: [env:ONE], shapes: { env:TOKEN: { prefix: sk-, length: 51 }, vcap:store/id: { prefix: AKIA, length: 20, characters: upper } } }\n",
        ok,
    );
    let services = format!(
        "{{\"user-provided\": [{{\"name\": \"store\", \"credentials\": {{\"id\": \"AKIA1\", \"key\": \"{KEY_IN_JSON}\", \
         \"uri\": \"s3://x:canary-2f6b-own%2Bkey%2F%221%22@h\", \"host\": \"h\"}}}}]}}"
    );
    let given = [
        ("NAME", "app"),
        ("PASSWORD", "canary-2f6b-pass word"),
        ("TOKEN", "canary-2f6b-token"),
        ("ONE", "canary-2f6b-one"),
        ("KEPT", "kept-as-it-is"),
        ("VCAP_SERVICES", &services),
        (
            "DATABASE_URL",
            "postgres://app:canary-2f6b-pass%20word@db.test/app?a=canary-2f6b-token",
        ),
        ("JAVA_TOOL_OPTIONS", "-Dtoken=canary-2f6b-token"),
        ("PLAIN", "application"),
    ];
    let seen = environment(&exec, &[], &given);
    assert_eq!(leak(&format!("{seen:?}")), None);
    assert!(seen["NAME"].starts_with("outrider-NAME-"), "{seen:?}");
    assert!(seen["PASSWORD"].starts_with("outrider-PASSWORD-"));
    assert!(
        seen["TOKEN"].starts_with("sk-outrider") && seen["TOKEN"].len() == 51,
        "{}",
        seen["TOKEN"]
    );
    assert!(!seen.contains_key("ONE"));
    assert_eq!(
        (&*seen["KEPT"], &*seen["PLAIN"]),
        ("kept-as-it-is", "application")
    );
    assert_eq!(
        seen["DATABASE_URL"],
        format!(
            "postgres://app:{}@db.test/app?a={}",
            seen["PASSWORD"], seen["TOKEN"]
        )
    );
    assert!(seen["JAVA_TOOL_OPTIONS"].starts_with(&format!("-Dtoken={} ", seen["TOKEN"])));
    let services: serde_json::Value = serde_json::from_str(&seen["VCAP_SERVICES"]).unwrap();
    let credentials = &services["user-provided"][0]["credentials"];
    let key = credentials["key"].as_str().unwrap();
    assert!(key.starts_with("outrider-store_key-"), "{key}");
    assert_eq!(credentials["uri"], format!("s3://x:{key}@h"));
    assert_eq!(credentials["host"], "h");
    let id = credentials["id"].as_str().unwrap();
    assert!(id.starts_with("AKIA") && id.len() == 20, "{id}");

    // Each run has others: nothing is derived from the secret.
    let again = environment(&exec, &[], &given);
    assert_ne!(again["TOKEN"], seen["TOKEN"]);
    // And off.
    let kept = environment(&exec, &["--keep-secrets"], &given);
    for (name, value) in given.iter().filter(|(name, _)| *name != "JAVA_TOOL_OPTIONS") {
        assert_eq!(kept[*name], *value);
    }
}

/// Answers each path with JSON, as the stand-in of a service.
fn service(answers: &'static [(&'static str, &'static str)]) -> impl Fn(&mut Wire) + Send + Sync + 'static {
    move |wire| {
        while let Ok(request) = wire.request() {
            let found = answers.iter().find(|(path, _)| request.line.contains(path));
            let body = found.map_or("{}", |(_, body)| body);
            let length = body.len();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    }
}

const OPENAI: &str = r#"
import os, openai
key = os.environ['OPENAI_API_KEY']
assert key.startswith('sk-') and len(key) == 51, key
client = openai.OpenAI(base_url=os.environ['BASE'] + '/v1', max_retries=0)
answer = client.chat.completions.create(model='m', messages=[{'role': 'user', 'content': 'hello'}])
print(answer.choices[0].message.content)
try:
    openai.OpenAI(base_url='https://unlisted.test/v1', max_retries=0).models.list()
except openai.APIConnectionError as error:
    print('refused', '403' in repr(error.__cause__))
try:
    openai.OpenAI(base_url='http://unlisted.test/v1', max_retries=0).models.list()
except openai.PermissionDeniedError as error:
    print(error.response.json()['reason'])
"#;

const ANTHROPIC: &str = r#"
import anthropic, os
client = anthropic.Anthropic(base_url=os.environ['BASE'], max_retries=0)
answer = client.messages.create(model='m', max_tokens=5, messages=[{'role': 'user', 'content': 'hello'}])
print(answer.content[0].text)
"#;

const STRIPE: &str = r#"
import os, stripe
stripe.ca_bundle_path = os.environ['SSL_CERT_FILE']
client = stripe.StripeClient(os.environ['STRIPE_API_KEY'], base_addresses={'api': os.environ['BASE']}, max_network_retries=0)
print(client.v1.customers.create({'email': 'a@b.test'}).id)
"#;

#[test]
fn openai_anthropic_and_stripe_work_without_their_keys() {
    let secret = "canary-2f6b-sdk-key";
    let field = format!("authorization: bearer {secret}\r\n");
    for (variable, script, expected, path, json) in [
        (
            "OPENAI_API_KEY",
            OPENAI,
            "hi\nrefused True\nplaceholder\n",
            "/v1/chat/completions",
            r#"{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}]}"#,
        ),
        (
            "ANTHROPIC_API_KEY",
            ANTHROPIC,
            "hi\n",
            "/v1/messages",
            r#"{"id":"1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}"#,
        ),
        (
            "STRIPE_API_KEY",
            STRIPE,
            "cus_1\n",
            "/v1/customers",
            r#"{"id":"cus_1","object":"customer"}"#,
        ),
    ] {
        for auth in [
            format!("{{ bearer: env:{variable} }}"),
            // What the app sends is replaced, and not only overwritten: the credential is for another path.
            format!("[{{ match: {{ path: /elsewhere }}, bearer: env:{variable} }}]"),
        ] {
            let config = format!(
                "destinations: {{ p: {{ HOSTS, auth: {auth} }} }}\n\
                 placeholders: {{ shapes: {{ env:OPENAI_API_KEY: {{ prefix: sk-, length: 51 }}, env:STRIPE_API_KEY: {{ prefix: sk_test_, length: 42 }} }} }}\n"
            );
            let exec = Exec::new(&config, service(Box::leak(Box::new([(path, json)]))));
            assert_eq!(exec.python(script, &[(variable, secret)]), expected, "{config}");
            let seen = exec.partner.raw();
            assert!(seen.to_lowercase().contains(&field), "{config}: {seen}");
        }
    }
}

const BOTO3: &str = r#"
import boto3, os
from botocore.config import Config
assert os.environ['AWS_ACCESS_KEY_ID'].startswith('AKIA') and len(os.environ['AWS_ACCESS_KEY_ID']) == 20
client = boto3.client('s3', region_name='us-east-1', endpoint_url=os.environ['BASE'],
    config=Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 1}))
for body in (b'small', b'x' * 100000):
    print(client.put_object(Bucket='bucket', Key='a b', Body=body)['ResponseMetadata']['HTTPStatusCode'])
"#;

#[test]
fn boto3_signs_with_a_placeholder_and_we_sign_anew() {
    let id = "AKIDEXAMPLE";
    let verifier = Verifier::new(serde_json::json!({ "kind": "aws", "service": "s3" }));
    let exec = Exec::new(
        "destinations: { p: { HOSTS, auth: { aws_sigv4: { service: s3, region: us-east-1, access_key_id: env:AWS_ACCESS_KEY_ID, \
         secret_access_key: env:AWS_SECRET_ACCESS_KEY } } } }\n\
         placeholders: { shapes: { env:AWS_ACCESS_KEY_ID: { prefix: AKIA, length: 20, characters: upper }, \
         env:AWS_SECRET_ACCESS_KEY: { length: 40 } } }",
        move |wire| verifier.serve_s3(wire),
    );
    let told = exec.python(
        BOTO3,
        &[
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", "canary-2f6b-secret-key"),
        ],
    );
    assert_eq!(told, "200\n200\n");
    assert!(
        exec.partner.raw().contains(&format!("Credential={id}/")),
        "{}",
        exec.partner.raw()
    );
}
