//! What is told: controls, the facts about each, and what proves a fact.
//!
//! Facts are gathered once, here and in [`super::flows`], [`super::boundary`], [`super::channels`],
//! [`super::cryptography`], [`super::identities`] and [`super::records`]; the writers only lay them out. A fact is about
//! this configuration and this build. What a control asks of people and of the rest of a system is in [`Control::left`].
//!
//! Texts are Markdown of one line; what comes from the configuration stands in code spans ([`code`]).

use std::time::SystemTime;

use crate::config::Config;
use crate::policy::{Destination, Policy};
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;

use super::{boundary, channels, cryptography, flows, identities, records};

/// How a fact stands to its control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Met,
    /// What the control asks for does not hold here.
    Gap,
    /// It cannot be told from the configuration and the build.
    Unknown,
    /// Neither fulfils the control nor contradicts it, and its reader should know it.
    Note,
}

/// What proves a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FactProof {
    /// It is so in every build, whatever the configuration says; the page has the details.
    Always(&'static str),
    Build(&'static str),
    LogField(&'static str),
    Metric(&'static str),
    /// What a reference led to when it was read.
    Read(String),
    /// A key of the configuration, and its line; without one its default holds.
    Setting(String, Option<usize>),
}

/// One thing that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// The part of the control, as its catalogue calls it: `au-3_smt.a`.
    pub(super) part: &'static str,
    pub(super) standing: Standing,
    /// Whom it is about; empty where that is outrider as a whole.
    pub(super) subjects: Vec<String>,
    pub(super) text: String,
    pub(super) proofs: Vec<FactProof>,
}

/// A control of NIST SP 800-53, revision 5, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What the control asks that no proxy can do.
    pub(super) left: &'static str,
    pub(super) facts: Vec<Fact>,
}

/// What the facts are about.
pub(super) struct Subject<'s> {
    pub(super) config: &'s Config,
    pub(super) policy: &'s Policy,
    /// There is no file: the built-in default holds.
    pub(super) is_built_in: bool,
    /// `None`: the secrets are elsewhere.
    pub(super) secrets: Option<ReadableSecrets<'s>>,
}

/// Where secrets are read, to learn when they end.
pub(super) struct ReadableSecrets<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) roots: &'s SystemRoots,
    pub(super) now: SystemTime,
}

/// Collects the facts of one control.
pub(super) struct Gathered<'s> {
    subject: &'s Subject<'s>,
    facts: Vec<Fact>,
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Gap => "gap",
            Self::Unknown => "not known",
            Self::Note => "note",
        }
    }
}

impl Fact {
    /// Returns the sentence with those it is about.
    pub(super) fn sentence(&self) -> String {
        if self.subjects.is_empty() {
            return self.text.clone();
        }
        format!("{}: {}", listed(&self.subjects), self.text)
    }
}

impl Control {
    /// Returns it as the catalogue writes it: `AC-4`.
    pub(super) fn label(&self) -> String {
        self.id.to_ascii_uppercase()
    }

    pub(super) fn count(&self, standing: Standing) -> usize {
        self.facts.iter().filter(|fact| fact.standing == standing).count()
    }

    fn of(
        subject: &Subject<'_>,
        id: &'static str,
        title: &'static str,
        left: &'static str,
        gather: &[fn(&mut Gathered<'_>)],
    ) -> Self {
        let mut gathered = Gathered {
            subject,
            facts: Vec::new(),
        };
        gather.iter().for_each(|gather| gather(&mut gathered));
        let mut facts = gathered.facts;
        // Stable: in a part they stay as they were gathered.
        facts.sort_by_key(|fact| fact.part);
        Self {
            id,
            title,
            left,
            facts,
        }
    }
}

/// Gathers the facts of all controls, in the order of the catalogue.
pub(super) fn gather(subject: &Subject<'_>) -> Vec<Control> {
    vec![
        Control::of(
            subject,
            "ac-4",
            "Information Flow Enforcement",
            "The policy itself: who approves which flows, and that apps have no way out but outrider.",
            flows::ENFORCEMENT,
        ),
        Control::of(
            subject,
            "au-2",
            "Event Logging",
            "Parts b, d and e: coordination, the rationale, and the review of the events that are logged.",
            records::EVENTS,
        ),
        Control::of(
            subject,
            "au-3",
            "Content of Audit Records",
            "The name of the app and its instance, which the platform adds to each line; keeping and protecting the records.",
            records::CONTENT,
        ),
        Control::of(
            subject,
            "ia-3",
            "Device Identification and Authentication",
            "Devices that do not speak through outrider.",
            identities::DEVICES,
        ),
        Control::of(
            subject,
            "ia-5",
            "Authenticator Management",
            "Parts a, b, d, e, h and i: who gives out, withdraws and changes authenticators; how long each may be used.",
            identities::AUTHENTICATORS,
        ),
        Control::of(
            subject,
            "sc-7",
            "Boundary Protection",
            "Part b: subnetworks. Part c, as far as the platform's own egress rules have to close every way past outrider.",
            boundary::BOUNDARY,
        ),
        Control::of(
            subject,
            "sc-8",
            "Transmission Confidentiality and Integrity",
            "What the app sends without outrider, and what parents and servers do behind the connections named here.",
            channels::TRANSMISSION,
        ),
        Control::of(
            subject,
            "sc-12",
            "Cryptographic Key Establishment and Management",
            "Making, escrowing and destroying the keys that references lead to.",
            cryptography::KEYS,
        ),
        Control::of(
            subject,
            "sc-13",
            "Cryptographic Protection",
            "Part a: which uses need which cryptography. Whether the module's certificate covers the operating system in use.",
            cryptography::CRYPTOGRAPHY,
        ),
        Control::of(
            subject,
            "si-4",
            "System Monitoring",
            "Parts d to g: who analyses the events, and who is told; the other monitoring devices of the system.",
            records::MONITORING,
        ),
    ]
}

impl<'s> Gathered<'s> {
    pub(super) fn config(&self) -> &'s Config {
        self.subject.config
    }

    pub(super) fn policy(&self) -> &'s Policy {
        self.subject.policy
    }

    pub(super) fn is_built_in(&self) -> bool {
        self.subject.is_built_in
    }

    pub(super) fn secrets(&self) -> Option<&'s ReadableSecrets<'s>> {
        self.subject.secrets.as_ref()
    }

    /// Returns the destinations that requests can be sent to, those of `tcp` and of the route service left out.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &'s Destination> + use<'s> {
        let all = self.subject.policy.destinations.iter().skip(1);
        all.map(|one| &**one)
            .filter(|one| one.tcp.is_none() && !one.is_route_service && !one.deny)
    }

    /// Adds what is so of outrider as a whole.
    pub(super) fn add(
        &mut self,
        part: &'static str,
        standing: Standing,
        text: impl Into<String>,
        proofs: impl IntoIterator<Item = FactProof>,
    ) {
        self.facts.push(Fact {
            part,
            standing,
            subjects: Vec::new(),
            text: text.into(),
            proofs: proofs.into_iter().collect(),
        });
    }

    /// Adds what is so of one destination or the like; what is so of several becomes one fact.
    pub(super) fn add_of(
        &mut self,
        subject: &str,
        part: &'static str,
        standing: Standing,
        text: impl Into<String>,
        proofs: impl IntoIterator<Item = FactProof>,
    ) {
        let (subject, text) = (code(subject), text.into());
        let same = |fact: &&mut Fact| {
            !fact.subjects.is_empty() && fact.part == part && fact.standing == standing && fact.text == text
        };
        let Some(fact) = self.facts.iter_mut().find(same) else {
            return self.facts.push(Fact {
                part,
                standing,
                subjects: vec![subject],
                text,
                proofs: proofs.into_iter().collect(),
            });
        };
        if !fact.subjects.contains(&subject) {
            fact.subjects.push(subject);
        }
        for proof in proofs {
            if !fact.proofs.contains(&proof) {
                fact.proofs.push(proof);
            }
        }
    }

    /// Returns a key of the configuration as a proof, with its line where it is written.
    pub(super) fn setting(&self, path: impl Into<String>) -> FactProof {
        let mut path = path.into();
        // The name of a header field may be spelled otherwise in the file.
        if let Some((section, _)) = path.split_once(".headers.set.") {
            path = format!("{section}.headers.set");
        }
        let line = self.subject.config.locations.line_of(&path);
        FactProof::Setting(path, line)
    }
}

/// Returns a text of the configuration as a code span, whatever characters it has.
pub(super) fn code(text: &str) -> String {
    let is_sound = |c: char| !c.is_control() && c != '`' && !is_invisible(c);
    let text: String = text
        .chars()
        .map(|c| if is_sound(c) { c } else { '\u{fffd}' })
        .collect();
    // A span of nothing would not be one.
    match text.trim() {
        "" => "(empty)".to_owned(),
        text => format!("`{text}`"),
    }
}

/// Whether a character shows nothing, or turns the direction of what follows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns texts of the configuration as code spans, with commas.
pub(super) fn codes<T: ToString>(texts: impl IntoIterator<Item = T>) -> String {
    listed(texts.into_iter().map(|text| code(&text.to_string())))
}

pub(super) fn listed<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    items.join(", ")
}
