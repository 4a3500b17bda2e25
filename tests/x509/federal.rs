//! A federal hierarchy as such are made: a common root, a bridge that maps its policies to those of an agency,
//! and the agency's own authorities. Made by openssl; judged by its client and by curl as well.

use std::path::{Path, PathBuf};

use super::{Accepted, Case, Expected, Refused, judge};
use crate::support::authorities::Authorities;
use crate::support::programs::clean;
use crate::support::run;

/// Who is below whom, from the root on.
const LADDER: [&str; 5] = [
    "Common Root",
    "Bridge CA",
    "Agency CA",
    "Issuing CA",
    "The Partner",
];

/// What their certificates say. FED and AGENCY are policies of the bridge and of the agency.
const SAID: [&str; 5] = [
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign",
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
     certificatePolicies=critical,FED.1,FED.2\npolicyConstraints=critical,requireExplicitPolicy:0",
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
     certificatePolicies=critical,FED.1,FED.2\npolicyMappings=critical,FED.1:AGENCY.1,FED.2:AGENCY.2\n\
     nameConstraints=critical,permitted;DNS:partner.test\ninhibitAnyPolicy=critical,0",
    "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
     certificatePolicies=critical,AGENCY.1,@cps\n[cps]\npolicyIdentifier=AGENCY.2\nCPS.1=https://agency.test/cps",
    "subjectAltName=DNS:partner.test\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n\
     certificatePolicies=critical,AGENCY.1",
];

/// The keys of the hierarchy: a sibling differs in what a certificate says, not in keys and names.
struct Federal<'w> {
    authorities: &'w Authorities,
    /// The agency's own root, which nobody here trusts and which the server sends along.
    own: String,
}

impl<'w> Federal<'w> {
    fn new(authorities: &'w Authorities) -> Self {
        let mut federal = Self {
            authorities,
            own: String::new(),
        };
        for name in LADDER {
            let (key, request) = (federal.file(name, "key"), federal.file(name, "csr"));
            let mut ask = clean("openssl");
            ask.args([
                "req",
                "-new",
                "-nodes",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ]);
            ask.args(["-subj", &format!("/CN={name}"), "-keyout"]).arg(key);
            run(ask.arg("-out").arg(request)).succeeded();
        }
        federal.own = federal.certificate("Agency CA", "Agency CA", SAID[0]);
        federal
    }

    fn file(&self, name: &str, end: &str) -> PathBuf {
        self.authorities
            .path(&format!("{}.{end}", name.replace(' ', "-")))
    }

    /// Makes a certificate of `name` by `issuer`, in PEM.
    fn certificate(&self, name: &str, issuer: &str, said: &str) -> String {
        let extensions = self.file(name, "ext");
        let said = said
            .replace("FED", "2.16.840.1.101.3.2.1.3")
            .replace("AGENCY", "1.3.6.1.4.1.99999.3");
        let authority = "authorityKeyIdentifier=keyid";
        let said = format!(
            "subjectKeyIdentifier=hash\n{}{said}",
            if name == issuer {
                String::new()
            } else {
                format!("{authority}\n")
            }
        );
        std::fs::write(&extensions, said).unwrap();
        let mut sign = clean("openssl");
        sign.args(["x509", "-req", "-days", "9", "-sha256", "-in"])
            .arg(self.file(name, "csr"));
        sign.arg("-extfile").arg(extensions);
        if name == issuer {
            sign.arg("-signkey").arg(self.file(name, "key"))
        } else {
            let certificate = self.file(issuer, "crt");
            sign.arg("-CA")
                .arg(certificate)
                .arg("-CAkey")
                .arg(self.file(issuer, "key"))
        };
        let made = run(&mut sign);
        let pem = made.succeeded().stdout.clone();
        std::fs::write(self.file(name, "crt"), &pem).unwrap();
        pem
    }

    /// Returns the hierarchy with `changes` to what its certificates say: of which one, what, and what instead.
    fn case(&self, name: &'static str, changes: &[(usize, &str, &str)], wanted: Expected) -> Case {
        let mut pems: Vec<String> = LADDER
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let mut said = SAID[place].to_owned();
                for (_, what, instead) in changes.iter().filter(|(of, ..)| *of == place) {
                    assert!(said.contains(what), "{name}: {what}");
                    said = said.replace(what, instead);
                }
                self.certificate(name, LADDER[place.saturating_sub(1)], &said)
            })
            .collect();
        let root = pems.remove(0);
        pems.reverse();
        // The cross-signed one before the agency's own.
        pems.push(self.own.clone());
        let key = std::fs::read_to_string(self.file("The Partner", "key")).unwrap();
        Case {
            trusts: Some(root),
            ..Case::new(name, self.authorities.write(pems.concat(), key), wanted)
        }
    }
}

/// Each sibling of the hierarchy that is broken in one place, and whether curl takes it: curl does not look at
/// policies.
fn siblings(federal: &Federal<'_>) -> Vec<(Case, bool)> {
    let policy = |words| Refused("certificate_policy", words);
    let of = |name, changes: &[_], wanted, curl_takes| (federal.case(name, changes, wanted), curl_takes);
    let (bridge, agency, issuing, leaf) = (1, 2, 3, 4);
    let one = "certificatePolicies=critical,AGENCY.1";
    let takes = true;
    vec![
        of("as it should be", &[], Accepted, takes),
        of(
            "nothing critical",
            &[
                (bridge, "Policies=critical,", "Policies="),
                (bridge, "Constraints=critical,require", "Constraints=require"),
                (agency, "Policies=critical,", "Policies="),
                (agency, "Mappings=critical,", "Mappings="),
                (agency, "AnyPolicy=critical,", "AnyPolicy="),
                (leaf, "Policies=critical,", "Policies="),
            ],
            Accepted,
            takes,
        ),
        of(
            "under the other policy",
            &[(leaf, "AGENCY.1", "AGENCY.2")],
            Accepted,
            takes,
        ),
        of(
            "under a policy of nobody",
            &[(leaf, "AGENCY.1", "AGENCY.9")],
            policy(&[
                "The Partner names no policy that the authorities above it allow",
                "Bridge CA demands",
            ]),
            takes,
        ),
        of(
            "demanded without being critical",
            &[(bridge, "=critical,require", "=require"), (leaf, one, "")],
            policy(&["The Partner names no policy;", "Bridge CA demands"]),
            takes,
        ),
        of(
            "under no policy",
            &[(leaf, one, "")],
            policy(&["The Partner names no policy;", "requireExplicitPolicy"]),
            takes,
        ),
        of(
            "under no policy, and none demanded",
            &[
                (leaf, one, ""),
                (bridge, "policyConstraints=critical,requireExplicitPolicy:0", ""),
            ],
            Accepted,
            takes,
        ),
        of(
            "demanded below the server only",
            &[(leaf, one, ""), (bridge, "Policy:0", "Policy:4")],
            Accepted,
            takes,
        ),
        of(
            "demanded by the server's certificate itself",
            &[
                (leaf, one, "policyConstraints=critical,requireExplicitPolicy:0"),
                (bridge, "policyConstraints=critical,requireExplicitPolicy:0", ""),
            ],
            policy(&["which The Partner demands", "The Partner names no policy;"]),
            takes,
        ),
        of(
            "an authority under no policy",
            &[(issuing, "certificatePolicies=critical,AGENCY.1,@cps", "")],
            policy(&["Issuing CA names no policy;", "Bridge CA demands"]),
            takes,
        ),
        of(
            "a bridge that maps nothing",
            &[(
                agency,
                "policyMappings=critical,FED.1:AGENCY.1,FED.2:AGENCY.2",
                "",
            )],
            policy(&["Issuing CA names no policy that the authorities above it allow"]),
            takes,
        ),
        of(
            "a bridge that maps what it does not have",
            &[(
                agency,
                "FED.1:AGENCY.1,FED.2:AGENCY.2",
                "FED.8:AGENCY.1,FED.9:AGENCY.2",
            )],
            policy(&["Issuing CA names no policy that the authorities above it allow"]),
            takes,
        ),
        of(
            "a bridge that may not map",
            &[(
                bridge,
                "requireExplicitPolicy:0",
                "requireExplicitPolicy:0,inhibitPolicyMapping:0",
            )],
            policy(&["Agency CA maps its policies to others", "inhibitPolicyMapping"]),
            takes,
        ),
        of(
            "a bridge that maps anyPolicy",
            &[(agency, "FED.2:AGENCY.2", "2.5.29.32.0:AGENCY.2")],
            policy(&["a certificate of Agency CA with policyMappings from or to anyPolicy"]),
            takes,
        ),
        of(
            "under anyPolicy, which is forbidden",
            &[(leaf, "AGENCY.1", "2.5.29.32.0")],
            policy(&["The Partner names only anyPolicy", "inhibitAnyPolicy"]),
            takes,
        ),
        of(
            "under anyPolicy, which is not forbidden yet",
            &[
                (leaf, "AGENCY.1", "2.5.29.32.0"),
                (agency, "AnyPolicy=critical,0", "AnyPolicy=critical,2"),
            ],
            Accepted,
            takes,
        ),
        of(
            "a policy twice",
            &[(leaf, "AGENCY.1", "AGENCY.1,AGENCY.1")],
            policy(&["certificatePolicies that name a policy twice"]),
            takes,
        ),
        of(
            "for a name that the bridge does not allow",
            &[(agency, "DNS:partner.test", "DNS:agency.test")],
            Refused(
                "certificate_constraint",
                &["for partner.test, which Agency CA may not issue"],
            ),
            !takes,
        ),
        of(
            "more authorities than one allows",
            &[(bridge, "CA:TRUE", "CA:TRUE,pathlen:1")],
            Refused("certificate_chain", &["more authorities below Bridge CA"]),
            !takes,
        ),
        of(
            "an extension that is not known beside the policies",
            &[(
                issuing,
                "keyUsage",
                "1.3.6.1.4.1.99999.7=critical,ASN1:NULL\nkeyUsage",
            )],
            Refused("certificate_extension", &["of Issuing CA", "1.3.6.1.4.1.99999.7"]),
            !takes,
        ),
        of(
            "a root that demands a policy: its own extensions do not count",
            &[
                (
                    0,
                    "keyUsage",
                    "policyConstraints=critical,requireExplicitPolicy:0\nkeyUsage",
                ),
                (bridge, "policyConstraints=critical,requireExplicitPolicy:0", ""),
                (leaf, one, ""),
            ],
            Accepted,
            takes,
        ),
    ]
}

/// Returns whether curl accepts the chain of a server on `port`.
fn is_good_for_curl(port: u16, trusted: &Path) -> bool {
    let mut curl = clean("curl");
    curl.args(["-sS", "-o", "/dev/null", "--max-time", "20", "--cacert"])
        .arg(trusted);
    curl.args(["--resolve", &format!("partner.test:{port}:127.0.0.1")]);
    curl.arg(format!("https://partner.test:{port}/"));
    let output = curl.output().unwrap();
    let code = output.status.code();
    // 60: the certificate is not accepted.
    assert!(
        matches!(code, Some(0 | 60)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    code == Some(0)
}

/// A chain as every bridged hierarchy has it is accepted, and refused with what is wrong where a part of it is
/// broken.
#[test]
fn a_federal_chain_is_accepted_and_its_broken_siblings_are_not() {
    let authorities = Authorities::new();
    let federal = Federal::new(&authorities);
    let (cases, by_curl): (Vec<_>, Vec<_>) = siblings(&federal).into_iter().unzip();
    judge(&authorities, &cases, |i, port, trusted| {
        assert_eq!(
            is_good_for_curl(port, trusted),
            by_curl[i],
            "{}: curl",
            cases[i].name
        );
    });
}
