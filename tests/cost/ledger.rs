//! The ledger, `tests/ledger.txt`: what outrider costs, a line a figure, compared with what is measured now.
//!
//! `tests/ledger --update` sets `OUTRIDER_UPDATE_LEDGER`, and the file is written instead.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ledger.txt");

/// The head of the file.
const HEAD: &str = "\
# What outrider costs, a line a figure: name, figure, unit, and the slack within which a new measurement is the same.
# `tests/ledger` compares, `tests/ledger --update` writes. docs/performance.md says how to read it.

# Instructions, memory and the sizes of futures are those of:
";

/// Begins a line that names a part of the toolchain.
const PART: &str = "#   ";

/// The slack of a new line, in per cent.
const SLACK: f64 = 1.0;

/// One test at a time reads and writes the file.
static ALONE: Mutex<()> = Mutex::new(());

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(dead_code, reason = "each of two test programs has some of them")]
pub(crate) enum Unit {
    /// Instructions in user space.
    Instructions,
    Allocations,
    /// System calls.
    Calls,
    Bytes,
    /// The size of a type in bytes, which the compiler lays out.
    BytesOfType,
    /// Resident memory.
    Kilobytes,
}

/// The file's content.
#[derive(Default)]
struct Ledger {
    toolchain: BTreeMap<String, String>,
    /// By name and unit.
    lines: BTreeMap<(String, String), Line>,
}

#[derive(Clone, Debug)]
struct Line {
    figure: f64,
    /// In per cent of the figure.
    slack: f64,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
            Self::Calls => "system calls",
            Self::Bytes | Self::BytesOfType => "bytes",
            Self::Kilobytes => "KB",
        }
    }

    /// The parts of the toolchain on which such a figure depends.
    fn depends(self) -> &'static [&'static str] {
        match self {
            Self::Instructions => &["compiler", "libraries", "processor", "valgrind"],
            Self::Kilobytes => &["compiler", "libraries", "processor"],
            Self::BytesOfType => &["compiler"],
            Self::Allocations | Self::Bytes | Self::Calls => &[],
        }
    }
}

/// Compares figures with their lines in the ledger.
///
/// # Panics
///
/// Where one of them is off by more than its line's slack.
#[track_caller]
pub(crate) fn keep(figures: &[(&str, f64, Unit)]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ledger = Ledger::parse(&fs::read_to_string(FILE).unwrap());
    if std::env::var_os("OUTRIDER_UPDATE_LEDGER").is_some() {
        for &(name, figure, unit) in figures {
            ledger.set(name, figure, unit, &here(unit));
        }
        fs::write(FILE, ledger.to_string()).unwrap();
        return;
    }
    let mut wrong = String::new();
    for &(name, figure, unit) in figures {
        match ledger.judge(name, figure, unit, &here(unit)) {
            Ok(told) => {
                // Past the capture of the test's output: what is not compared must not look like what is.
                let _ = std::io::stderr().write_all(told.as_bytes());
            }
            Err(what) => wrong.push_str(&what),
        }
    }
    if !wrong.is_empty() {
        // A proxy in this process reports a panic without its words, so they are told before.
        eprintln!("{wrong}");
        panic!("\n{wrong}");
    }
}

/// Returns the parts of this machine's toolchain on which figures of this unit depend.
fn here(unit: Unit) -> BTreeMap<String, String> {
    (unit.depends().iter())
        .map(|&part| (part.to_owned(), part_here(part)))
        .collect()
}

fn part_here(part: &str) -> String {
    match part {
        "compiler" => said("rustc", &["--version"]),
        "libraries" => {
            let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
            let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
            let libc = said("getconf", &["GNU_LIBC_VERSION"]);
            format!("{}, {libc}", name.unwrap_or("unknown").trim_matches('"'))
        }
        // What valgrind passes on of the processor's abilities; what it does not know, no program sees there.
        "processor" => {
            let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let abilities = ["avx2", "f16c", "rdrand", "rdseed"].into_iter();
            let found = abilities.filter(|ability| cpu.split_whitespace().any(|word| word == *ability));
            [std::env::consts::ARCH]
                .into_iter()
                .chain(found)
                .collect::<Vec<_>>()
                .join(" ")
        }
        _ => said(part, &["--version"]),
    }
}

/// Returns the first line that a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| format!("no {program}"))
}

fn key(name: &str, unit: Unit) -> (String, String) {
    (name.to_owned(), unit.name().to_owned())
}

impl Ledger {
    fn parse(text: &str) -> Self {
        let mut ledger = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((part, value)) = line.strip_prefix(PART).and_then(|part| part.split_once(": ")) {
                ledger.toolchain.insert(part.to_owned(), value.to_owned());
            }
            if line.starts_with('#') {
                continue;
            }
            let mut cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            let mut cell = || {
                cells
                    .next()
                    .unwrap_or_else(|| panic!("{FILE}: a cell is missing: {line}"))
            };
            let (name, figure, unit, slack) = (cell(), cell(), cell(), cell());
            let number = |text: &str| {
                let plain = text.replace(',', "");
                plain
                    .parse()
                    .unwrap_or_else(|_| panic!("{FILE}: {text} is no number: {line}"))
            };
            let read = Line {
                figure: number(figure),
                slack: number(slack.trim_start_matches('±').trim_end_matches('%').trim()),
            };
            ledger.lines.insert((name.to_owned(), unit.to_owned()), read);
        }
        ledger
    }

    /// Returns what is to be told of a figure, or what is wrong with it.
    fn judge(
        &self,
        name: &str,
        figure: f64,
        unit: Unit,
        here: &BTreeMap<String, String>,
    ) -> Result<String, String> {
        let now = format!("{} {}", grouped(figure), unit.name());
        let Some(line) = self.lines.get(&key(name, unit)) else {
            return Err(format!(
                "{name}: {now}, and tests/ledger.txt has no such line. Run `tests/ledger --update` in the commit that adds it.\n"
            ));
        };
        let other = here
            .iter()
            .find(|(part, value)| self.toolchain.get(*part) != Some(value));
        if let Some((part, value)) = other {
            let theirs = self.toolchain.get(part).map_or("unknown", String::as_str);
            return Ok(format!(
                "SKIPPED: another toolchain than the ledger's: figures told, not compared. {name}: {now}, in the ledger {} \
                 ({part} {value}, in the ledger {theirs})\n",
                grouped(line.figure)
            ));
        }
        let change = (figure - line.figure) / line.figure * 100.0;
        if line.holds_within(figure, line.slack) {
            return Ok(String::new());
        }
        let (way, remedy) = if figure > line.figure {
            (
                "above",
                "Explain or undo it. A wanted rise: run `tests/ledger --update` in the commit that explains it.",
            )
        } else {
            (
                "below",
                "Run `tests/ledger --update` in the commit that earned it, so that it is kept.",
            )
        };
        Err(format!(
            "{name}: {now}, {:.1} % {way} the {} of tests/ledger.txt. {remedy}\n",
            change.abs(),
            grouped(line.figure)
        ))
    }

    /// Takes a figure over, unless it is the same but for a tenth of the slack.
    fn set(&mut self, name: &str, figure: f64, unit: Unit, here: &BTreeMap<String, String>) {
        let is_elsewhere = here
            .iter()
            .any(|(part, value)| self.toolchain.get(part) != Some(value));
        let before = self.lines.get(&key(name, unit));
        let slack = before.map_or(SLACK, |line| line.slack);
        let is_same = before.is_some_and(|line| line.holds_within(figure, slack / 10.0));
        if is_elsewhere || !is_same {
            self.lines.insert(key(name, unit), Line { figure, slack });
        }
        self.toolchain.extend(here.clone());
    }
}

impl Line {
    fn holds_within(&self, figure: f64, slack: f64) -> bool {
        (figure - self.figure).abs() <= self.figure * slack / 100.0
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HEAD)?;
        for (part, value) in &self.toolchain {
            writeln!(f, "{PART}{part}: {value}")?;
        }
        f.write_char('\n')?;
        let width = self
            .lines
            .keys()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or_default();
        for ((name, unit), line) in &self.lines {
            let figure = grouped(line.figure);
            writeln!(f, "{name:width$}  {figure:>11}  {unit:12}  ±{} %", line.slack)?;
        }
        Ok(())
    }
}

/// Returns a number with a comma before each group of three digits, and with two places behind the point if it is small.
fn grouped(number: f64) -> String {
    let text = format!("{number:.*}", if number < 1_000.0 { 2 } else { 0 });
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# What: of the head this is no part.
#   compiler: rustc 1.0

request  10,000  instructions  ±1 %
request  7  allocations  ±0.5 %
";

    fn compiler(version: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("compiler".to_owned(), version.to_owned())])
    }

    fn judged(figure: f64) -> Result<String, String> {
        Ledger::parse(TEXT).judge("request", figure, Unit::Instructions, &compiler("rustc 1.0"))
    }

    #[test]
    fn a_figure_within_the_slack_is_the_same() {
        assert_eq!(judged(10_100.0), Ok(String::new()));
        assert_eq!(judged(9_900.0), Ok(String::new()));
    }

    #[test]
    fn a_rise_says_what_rose_by_how_much_and_what_to_do() {
        let said = judged(10_250.0).unwrap_err();
        assert!(
            said.starts_with("request: 10,250 instructions, 2.5 % above the 10,000"),
            "{said}"
        );
        assert!(
            said.contains("Explain or undo it") && said.contains("tests/ledger --update"),
            "{said}"
        );
    }

    #[test]
    fn what_is_earned_is_to_be_written() {
        let said = judged(9_000.0).unwrap_err();
        assert!(
            said.contains("10.0 % below") && said.contains("tests/ledger --update"),
            "{said}"
        );
    }

    #[test]
    fn a_figure_without_a_line_fails() {
        let said = Ledger::parse(TEXT)
            .judge("request", 1.0, Unit::Calls, &BTreeMap::new())
            .unwrap_err();
        assert!(said.contains("no such line"), "{said}");
    }

    /// It is told as skipped, which `tests/run` counts; what does not depend on the toolchain is compared.
    #[test]
    fn figures_of_another_toolchain_are_told() {
        let ledger = Ledger::parse(TEXT);
        let other = compiler("rustc 2.0");
        let told = ledger
            .judge("request", 20_000.0, Unit::Instructions, &other)
            .unwrap();
        assert!(
            told.starts_with("SKIPPED: another toolchain than the ledger's"),
            "{told}"
        );
        assert!(told.contains("20,000") && told.contains("rustc 1.0"), "{told}");
        assert!(
            ledger
                .judge("request", 8.0, Unit::Allocations, &BTreeMap::new())
                .is_err()
        );
    }

    #[test]
    fn an_update_writes_what_moved_and_leaves_the_rest() {
        let mut ledger = Ledger::parse(TEXT);
        ledger.set("request", 10_005.0, Unit::Instructions, &compiler("rustc 1.0"));
        ledger.set("request", 8.0, Unit::Allocations, &BTreeMap::new());
        ledger.set("tunnel", 1_234_567.891, Unit::Bytes, &BTreeMap::new());
        let written = ledger.to_string();
        assert_eq!(Ledger::parse(&written).to_string(), written);
        let lines: Vec<Vec<&str>> = (written.lines().filter(|line| line.contains('±')))
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(
            lines,
            [
                ["request", "8", "allocations", "±0.5 %"],
                ["request", "10,000", "instructions", "±1 %"],
                ["tunnel", "1,234,568", "bytes", "±1 %"],
            ]
        );
        ledger.set("request", 10_005.0, Unit::Instructions, &compiler("rustc 2.0"));
        assert!(ledger.to_string().contains("10,005") && ledger.to_string().contains("rustc 2.0"));
    }
}
