#!/usr/bin/env bash
# The Rust crate httpsig verifies a message signature only if its parameters stand in one order.
#
# Version: httpsig 0.0.24.
# Behaviour: RFC 9421 section 2.5 makes the signature base of the parameters as they stand in Signature-Input, in any
#   order. The crate reads them into a struct and writes them again: created, expires, nonce, alg, keyid, tag. A signature
#   with keyid before nonce, as in the RFC's own example B.2.1, is then one of another text, and is refused.
# Guess that was wrong: whatever order the standard allows, a verifier of the standard takes.
# Output seen:
#   created, nonce, keyid: verified
#   created, keyid, nonce: refused
#
# Needs cargo. Everything is in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/src"
cat >"$tmp/Cargo.toml" <<'TOML'
[package]
name = "order"
version = "0.0.0"
edition = "2021"
[dependencies]
base64 = "0.22"
httpsig = "=0.0.24"
TOML
cat >"$tmp/src/main.rs" <<'RUST'
use base64::{engine::general_purpose::STANDARD, Engine as _};
use httpsig::prelude::{message_component::HttpMessageComponent, *};

fn main() {
    let key = SharedKey::from_base64(&AlgorithmName::HmacSha256, &STANDARD.encode("a shared secret")).unwrap();
    for (order, parameters) in [
        ("created, nonce, keyid", r#"("@method");created=1618884473;nonce="n";keyid="k""#),
        ("created, keyid, nonce", r#"("@method");created=1618884473;keyid="k";nonce="n""#),
    ] {
        // RFC 9421 section 2.5.
        let base = format!("\"@method\": GET\n\"@signature-params\": {parameters}");
        let signature = STANDARD.encode(key.sign(base.as_bytes()).unwrap());
        let read = HttpSignatureHeaders::try_parse(&format!("sig=:{signature}:"), &format!("sig={parameters}")).unwrap();
        let its = HttpSignatureParams::try_from(parameters).unwrap();
        let lines = [HttpMessageComponent::try_from("\"@method\": GET").unwrap()];
        let verified = HttpSignatureBase::try_new(&lines, &its).unwrap().verify_signature_headers(&key, &read["sig"]);
        println!("{order}: {}", if verified.is_ok() { "verified" } else { "refused" });
    }
}
RUST
seen=$(cd "$tmp" && cargo run --quiet 2>&1)
echo "$seen"
[ "$seen" = "created, nonce, keyid: verified
created, keyid, nonce: refused" ] || { echo "it behaves otherwise now" >&2; exit 1; }
