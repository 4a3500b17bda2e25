//! SC-12 and SC-13: which keys there are, and by which cryptography they are used.

use super::facts::{FactProof, Gathered, Standing, code, codes, listed};
use crate::config::{
    Algorithm, Auth, ClientAuth, ClientCertificate, Constraints, Grant, ServerCertificate, Tls,
};
use crate::host::{Host, Pattern};
use crate::telemetry::CRYPTO;
use crate::upstream::tls::provider;

/// How the facts of SC-12 are gathered.
pub(super) const KEYS: &[fn(&mut Gathered<'_>)] = &[authority, kept_keys, session_keys, memory];

/// How the facts of SC-13 are gathered.
pub(super) const CRYPTOGRAPHY: &[fn(&mut Gathered<'_>)] =
    &[uses, module, offered, groups, algorithms, opened];

const MANAGED: &str = "sc-12_smt";
const USES: &str = "sc-13_smt.a";
const TYPES: &str = "sc-13_smt.b";

/// Returns the groups of the key exchange that are offered.
pub(super) fn offered_groups(tls: &Tls) -> String {
    if tls.groups.is_empty() {
        return listed(
            provider()
                .kx_groups
                .iter()
                .map(|one| format!("`{:?}`", one.name())),
        );
    }
    codes(&tls.groups)
}

/// Tells of the local authority.
fn authority(found: &mut Gathered<'_>) {
    let intercepted = found.policy().intercepted();
    let ca = &found.config().ca;
    if intercepted.is_empty() {
        let text =
            "No destination is intercepted, so the app is shown no certificate of the local authority.";
        let proofs = [found.setting("destinations")];
        return found.add(MANAGED, Standing::Note, text, proofs);
    }
    let lifetime = humantime::format_duration(ca.lifetime);
    let text = format!(
        "The key of the local authority (ECDSA on P-256) is made anew at every start and is in memory only; the certificates \
         that it signs for intercepted hosts are valid for `{lifetime}`."
    );
    let proofs = [
        found.setting("ca.lifetime"),
        FactProof::Metric("outrider_credential_expiry_timestamp_seconds{kind=\"local_ca\"}"),
    ];
    found.add(MANAGED, Standing::Met, text, proofs);
    let has_address = intercepted.iter().any(|host| {
        matches!(
            host.what,
            Pattern::Network(_) | Pattern::Host(Host::V4(_) | Host::V6(_))
        )
    });
    let (standing, text) = match ca.constraints {
        Constraints::NamesAndAddresses => (
            Standing::Met,
            "Name constraints confine the local authority to the intercepted hosts.",
        ),
        Constraints::Names if has_address => (
            Standing::Gap,
            "Name constraints confine the local authority to the intercepted names, and to no addresses: a stolen key would \
             be good for every address.",
        ),
        Constraints::Names => (
            Standing::Met,
            "Name constraints confine the local authority to the intercepted names.",
        ),
        Constraints::None => (
            Standing::Gap,
            "Nothing confines the local authority: a stolen key would be good for every host.",
        ),
    };
    let proofs = [found.setting("ca.constraints")];
    found.add(MANAGED, standing, text, proofs);
}

/// Tells where private keys and shared keys come from.
fn kept_keys(found: &mut Gathered<'_>) {
    for one in found.policy().destinations.iter().skip(1) {
        let place = one.place();
        if let Some(pair) = &one.tls.client_certificate {
            let path = format!("{place}.tls.client_certificate");
            client_key(found, &one.name, &path, pair);
        }
        for credential in one.auth.iter().flat_map(|rule| &rule.credentials) {
            let keys = credential.auth.references().into_iter();
            for (key, reference) in keys.filter(|(key, _)| key.ends_with(".key")) {
                let text = format!(
                    "a key for signatures is in {}; outrider keeps it in memory only",
                    code(&reference.to_string())
                );
                let proofs = [found.setting(format!("{place}.{}.{key}", credential.place))];
                found.add_of(&one.name, MANAGED, Standing::Met, text, proofs);
            }
        }
    }
    if let ServerCertificate::Pair(pair) = &found.config().listen_tls {
        client_key(found, "listen_tls", "listen_tls", pair);
    }
}

fn client_key(found: &mut Gathered<'_>, name: &str, path: &str, pair: &ClientCertificate) {
    let (text, key) = match pair {
        ClientCertificate::InstanceIdentity => (
            "the key is that of the platform's instance identity, which the platform renews every day"
                .to_owned(),
            path.to_owned(),
        ),
        ClientCertificate::Pem { key, passphrase, .. } => {
            let how = if passphrase.is_some() {
                ", encrypted with a passphrase"
            } else {
                ""
            };
            let text = format!("the private key is in {}{how}", code(&key.to_string()));
            (text, format!("{path}.key"))
        }
        ClientCertificate::Pkcs12 { file, .. } => {
            let text = format!(
                "the private key is in the PKCS#12 file {}",
                code(&file.to_string())
            );
            (text, format!("{path}.pkcs12"))
        }
    };
    let text =
        format!("{text}; key and certificate are taken over together, and only if they belong together");
    let proofs = [
        found.setting(key),
        FactProof::Metric("outrider_credential_refresh_total{kind=\"client_certificate\"}"),
    ];
    found.add_of(name, MANAGED, Standing::Met, text, proofs);
}

fn session_keys(found: &mut Gathered<'_>) {
    let text = "Keys of TLS connections come from an ephemeral key exchange, are made for each connection or resumed session, \
                and are never written anywhere; nothing writes a key log, and there is no early data.";
    found.add(
        MANAGED,
        Standing::Met,
        text,
        [FactProof::Always("docs/destinations.md#key-exchange")],
    );
}

fn memory(found: &mut Gathered<'_>) {
    let text = "Secrets are overwritten in memory when they are no longer used; no crash writes a core file, and no other \
                process of the same user can read outrider's memory (`PR_SET_DUMPABLE`).";
    let proofs = [FactProof::Always("docs/credentials.md#where-secrets-come-from")];
    found.add(MANAGED, Standing::Met, text, proofs);
}

/// Tells what cryptography is used for.
fn uses(found: &mut Gathered<'_>) {
    let mut uses = vec!["TLS to upstreams (`tls`)".to_owned()];
    if !found.policy().intercepted().is_empty() {
        uses.push("TLS with the app under the local authority (`ca`)".to_owned());
    }
    let mut kinds: Vec<_> = found
        .destinations()
        .flat_map(|one| one.auth.iter().flat_map(|rule| &rule.credentials))
        .filter(|one| !algorithms_of(&one.auth).is_empty())
        .map(|one| one.auth.kind())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    if !kinds.is_empty() {
        uses.push(format!("signatures of requests and tokens ({})", codes(kinds)));
    }
    let text = format!("Cryptography is used for: {}.", uses.join("; "));
    let proofs = [found.setting("destinations"), found.setting("ca")];
    found.add(USES, Standing::Note, text, proofs);
}

/// Tells which module does it.
fn module(found: &mut Gathered<'_>) {
    let version = aws_lc_rs::awslc_version();
    let proofs = || {
        [
            FactProof::Build("outrider --version"),
            FactProof::Metric("outrider_build_info{crypto}"),
        ]
    };
    if cfg!(feature = "fips") && provider().fips() {
        let text = format!(
            "All TLS and all keys go through the FIPS module of AWS-LC {} ({}), which is in its FIPS mode and tests itself at \
             each start; a build for FIPS whose module is not in that mode does not start.",
            code(version),
            code(CRYPTO)
        );
        found.add(TYPES, Standing::Met, text, proofs());
        let text = "Whether the CMVP lists a certificate for this version of the module, on this operating system, is to be \
                    looked up there.";
        found.add(
            TYPES,
            Standing::Unknown,
            text,
            [FactProof::Always("docs/fips.md")],
        );
    } else {
        let text = format!(
            "The cryptography is AWS-LC {} ({}), which is no module validated under FIPS 140. A build with the feature `fips` \
             has one.",
            code(version),
            code(CRYPTO)
        );
        found.add(TYPES, Standing::Gap, text, proofs());
    }
}

/// Tells which cipher suites and groups are offered.
fn offered(found: &mut Gathered<'_>) {
    let suites = provider().cipher_suites.iter();
    let suites: Vec<_> = suites.map(|suite| format!("{:?}", suite.suite())).collect();
    let groups: Vec<_> = provider()
        .kx_groups
        .iter()
        .map(|one| format!("{:?}", one.name()))
        .collect();
    let text = format!(
        "Cipher suites of TLS: {}. Groups of the key exchange, where a destination names none: {}. No others are spoken.",
        codes(&suites),
        codes(&groups)
    );
    let build = FactProof::Build("outrider --version");
    found.add(TYPES, Standing::Met, text, [build.clone()]);
    let is_other = |name: &&String| name.contains("CHACHA20") || *name == "X25519";
    let others: Vec<_> = suites.iter().chain(&groups).filter(is_other).collect();
    if !others.is_empty() {
        let text = format!(
            "These are among them, and FIPS 140 does not approve them: {}.",
            codes(others)
        );
        found.add(TYPES, Standing::Gap, text, [build]);
    }
}

/// Tells which destinations have their own groups.
fn groups(found: &mut Gathered<'_>) {
    for one in found.policy().destinations.iter().skip(1) {
        if one.tls.groups.is_empty() {
            continue;
        }
        let text = format!("groups of the key exchange: {}", codes(&one.tls.groups));
        let proofs = [found.setting(format!("{}.tls.groups", one.place()))];
        found.add_of(&one.name, TYPES, Standing::Note, text, proofs);
    }
}

/// Returns the algorithms by which a credential signs.
fn algorithms_of(auth: &Auth) -> Vec<Algorithm> {
    match auth {
        Auth::AwsSigV4(_) => vec![Algorithm::HmacSha256],
        Auth::Hmac(hmac) => vec![hmac.algorithm],
        Auth::HttpSignature(signature) => vec![signature.algorithm],
        Auth::Jwt(jwt) => vec![jwt.algorithm],
        Auth::OAuth2(oauth2) => {
            let grant = match &oauth2.grant {
                Grant::JwtBearer(jwt) => Some(jwt.algorithm),
                Grant::ClientCredentials | Grant::RefreshToken(_) | Grant::TokenExchange { .. } => None,
            };
            let client = match &oauth2.client_auth {
                ClientAuth::PrivateKeyJwt(jwt) => Some(jwt.algorithm),
                ClientAuth::None | ClientAuth::Basic(_) | ClientAuth::Post(_) | ClientAuth::Tls => None,
            };
            grant.into_iter().chain(client).collect()
        }
        Auth::Basic { .. } | Auth::Bearer(_) | Auth::Header { .. } | Auth::Query { .. } => Vec::new(),
    }
}

/// Tells by which algorithms credentials sign.
fn algorithms(found: &mut Gathered<'_>) {
    for one in found.destinations() {
        for credential in one.auth.iter().flat_map(|rule| &rule.credentials) {
            for algorithm in algorithms_of(&credential.auth) {
                let (standing, what) = match algorithm {
                    Algorithm::HmacSha1 => (Standing::Gap, "an old algorithm"),
                    _ => (Standing::Met, "the algorithm"),
                };
                let text = format!(
                    "{} signs with {what} {}",
                    code(credential.auth.kind()),
                    code(&algorithm.to_string())
                );
                let path = format!("destinations.{}.{}", one.name, credential.place);
                let proofs = [found.setting(path)];
                found.add_of(&one.name, TYPES, standing, text, proofs);
            }
        }
    }
}

/// Tells what opens files that a password protects.
fn opened(found: &mut Gathered<'_>) {
    for one in found.policy().destinations.iter().skip(1) {
        let has_password = match &one.tls.client_certificate {
            Some(ClientCertificate::Pem { passphrase, .. }) => passphrase.is_some(),
            Some(ClientCertificate::Pkcs12 { .. }) => true,
            Some(ClientCertificate::InstanceIdentity) | None => false,
        };
        if has_password {
            let text = "whether the password of its key file is applied by an approved algorithm depends on the file: old ones \
                        (3DES, RC2, Camellia, scrypt, MD5) are opened by code outside of the module";
            let proofs = [
                found.setting(format!("{}.tls.client_certificate", one.place())),
                FactProof::Always("docs/fips.md"),
            ];
            found.add_of(&one.name, TYPES, Standing::Unknown, text, proofs);
        }
    }
}
