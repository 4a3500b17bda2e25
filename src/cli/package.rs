//! `outrider package`: the buildpack, as a zip file.
//!
//! The scripts of `sidecar/` are in the program, so the zip needs no checkout. Equal input makes equal bytes.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint;
use memchr::memmem;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{fail, print, write_file};
use crate::error::ErrorChain;

/// What every outrider has in it.
const MARK: &str = "OUTRIDER_CONFIG";

/// The minor version of glibc 2 in cflinuxfs4.
const STACK_GLIBC: u32 = 35;

/// A build with everything that helps to find faults has a third of it.
const LARGEST: u64 = 256 << 20;

const ELF_HEADER: usize = 64;

/// How programs of macOS begin: of 64 bits, and for several processors.
const MACH_O: [[u8; 4]; 2] = [[0xcf, 0xfa, 0xed, 0xfe], [0xca, 0xfe, 0xba, 0xbe]];

const REMEDY: &str = "name a portable outrider with --binary PATH, from a release or built on Linux";

/// Write the Cloud Foundry buildpack that puts outrider beside an app
///
/// The zip has this program, or the one that --binary names, and the scripts that register the sidecar and set the
/// variables of the app. Name it before the app's own buildpack.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  outrider package --binary outrider-x86_64
  cf create-buildpack outrider_buildpack outrider_buildpack.zip 99   # or serve it by https://, and name its URL")]
pub(super) struct Args {
    /// The program for the zip, built for Linux; else this one
    #[arg(short, long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    binary: Option<PathBuf>,

    /// Where to write it; what is there is replaced
    #[arg(short, long, value_name = "FILE", default_value = "outrider_buildpack.zip", value_hint = ValueHint::FilePath)]
    output: PathBuf,
}

/// Writes the zip and says what it has.
pub(super) fn run(args: &Args) -> ExitCode {
    match package(args) {
        Ok(text) => print(&text),
        Err(error) => fail(&ErrorChain(&error).to_string()),
    }
}

/// Why there is no zip.
#[derive(Debug, thiserror::Error)]
enum NoPackage {
    #[error("{path} is no program for Linux on x86_64 or aarch64: {why}; {REMEDY}")]
    Foreign { path: String, why: Foreign },

    #[error("{path} is larger than 256 MiB, which no outrider is; {REMEDY}")]
    Large { path: String },

    #[error("{path} is a program for Linux, but it is not outrider; {REMEDY}")]
    NotOutrider { path: String },

    #[error("the program {path} cannot be read")]
    Program { path: String, source: std::io::Error },

    #[error("{path} cannot be written; name a file in a folder that can be written with --output")]
    Unwritable { path: String, source: std::io::Error },

    #[error("the zip cannot be made")]
    Zip(#[from] zip::result::ZipError),
}

/// What a file is that no container of the platform can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Foreign {
    #[error("it is for another processor")]
    Machine,
    #[error("it is for macOS")]
    MacOs,
    #[error("it is no ELF executable")]
    NotElf,
    #[error("it is cut off")]
    Short,
}

fn package(args: &Args) -> Result<String, NoPackage> {
    let path = match &args.binary {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(|source| NoPackage::Program {
            path: "of this process".to_owned(),
            source,
        })?,
    };
    let shown = path.display().to_string();
    let program = read(&path).map_err(|source| NoPackage::Program {
        path: shown.clone(),
        source,
    })?;
    if program.len() as u64 > LARGEST {
        return Err(NoPackage::Large { path: shown });
    }
    let machine = machine(&program).map_err(|why| NoPackage::Foreign {
        path: shown.clone(),
        why,
    })?;
    if memmem::find(&program, MARK.as_bytes()).is_none() {
        return Err(NoPackage::NotOutrider { path: shown });
    }

    let zip = archive(&program)?;
    write_file(&args.output, &zip).map_err(|source| NoPackage::Unwritable {
        path: args.output.display().to_string(),
        source,
    })?;
    let mut told = format!(
        "Wrote {}: {:.1} MB, with the program {shown} for Linux on {machine} ({:.1} MB).\n",
        args.output.display(),
        megabytes(zip.len()),
        megabytes(program.len()),
    );
    match newest_glibc(&program) {
        Some(minor) if minor > STACK_GLIBC => told.push_str(&format!(
            "NOTE: the program needs glibc 2.{minor}, and the stack cflinuxfs4 has 2.{STACK_GLIBC}: it will not start \
             there; {REMEDY}.\n"
        )),
        Some(minor) => told.push_str(&format!("It runs where glibc is 2.{minor} or newer.\n")),
        None => {}
    }
    told.push_str("Next: name it before the app's own buildpack, and push.\n");
    Ok(told)
}

/// Reads a file, and of a larger one than a program has no more than tells that.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let data = file.metadata()?;
    // A device or a pipe may have no end. Reading a folder says itself what is wrong.
    if !data.is_file() && !data.is_dir() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut program = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut program)?;
    Ok(program)
}

/// Returns the processor that a program is for.
fn machine(program: &[u8]) -> Result<&'static str, Foreign> {
    let magic = program.first_chunk::<4>().ok_or(Foreign::Short)?;
    if MACH_O.contains(magic) {
        return Err(Foreign::MacOs);
    }
    if magic != b"\x7fELF" {
        return Err(Foreign::NotElf);
    }
    let header = program.first_chunk::<ELF_HEADER>().ok_or(Foreign::Short)?;
    // Of 64 bits, little-endian, and of System V or GNU: others are for other systems.
    let is_ours = header[4..6] == [2, 1] && matches!(header[7], 0 | 3);
    // An executable, or one whose address is chosen when it starts.
    if !is_ours || !matches!(header[16..18], [2 | 3, 0]) {
        return Err(Foreign::NotElf);
    }
    match header[18..20] {
        [62, 0] => Ok("x86_64"),
        [183, 0] => Ok("aarch64"),
        _ => Err(Foreign::Machine),
    }
}

/// Returns the highest minor version of glibc 2 whose symbols a program asks for.
fn newest_glibc(program: &[u8]) -> Option<u32> {
    let found = memmem::find_iter(program, b"\0GLIBC_2.").filter_map(|at| {
        let digits = program
            .get(at + 9..)?
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        digits.take(3).try_fold(0_u32, |minor, digit| {
            minor.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
        })
    });
    found.max()
}

fn archive(program: &[u8]) -> Result<Vec<u8>, zip::result::ZipError> {
    // Every entry is of 1980, whenever the zip is made.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(flate2::Compression::default().level().into()))
        .last_modified_time(zip::DateTime::default());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, text) in FILES {
        zip.start_file(*name, options.unix_permissions(*mode))?;
        zip.write_all(text.as_bytes())?;
    }
    zip.start_file("outrider", options.unix_permissions(0o755))?;
    zip.write_all(program)?;
    Ok(zip.finish()?.into_inner())
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// What the zip has beside the program: name, mode and text.
const FILES: &[(&str, u32, &str)] = &[
    ("bin/detect", 0o755, include_str!("../../sidecar/bin/detect")),
    ("bin/supply", 0o755, include_str!("../../sidecar/bin/supply")),
    ("outrider.yml", 0o644, include_str!("../../sidecar/outrider.yml")),
    (
        "profile.d/outrider.sh",
        0o644,
        include_str!("../../sidecar/profile.d/outrider.sh"),
    ),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn elf(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = vec![0; ELF_HEADER];
        bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        bytes[16] = 3;
        bytes[18] = 62;
        change(&mut bytes);
        bytes
    }

    #[test]
    fn only_a_program_for_linux_is_taken() {
        let cases = [
            (elf(|_| ()), Ok("x86_64")),
            (elf(|b| b[18] = 183), Ok("aarch64")),
            (elf(|b| b[7] = 3), Ok("x86_64")),
            (elf(|b| b[18] = 40), Err(Foreign::Machine)),
            (elf(|b| b[19] = 1), Err(Foreign::Machine)),
            (elf(|b| b[4] = 1), Err(Foreign::NotElf)),
            (elf(|b| b[5] = 2), Err(Foreign::NotElf)),
            (elf(|b| b[7] = 9), Err(Foreign::NotElf)),
            (elf(|b| b[16] = 1), Err(Foreign::NotElf)),
            (elf(|b| b.truncate(63)), Err(Foreign::Short)),
            (Vec::new(), Err(Foreign::Short)),
            (b"#!/bin/sh\n".to_vec(), Err(Foreign::NotElf)),
            (MACH_O[0].to_vec(), Err(Foreign::MacOs)),
            (MACH_O[1].to_vec(), Err(Foreign::MacOs)),
        ];
        for (program, expected) in cases {
            assert_eq!(machine(&program), expected, "{:x?}", program.get(..20));
        }
    }

    #[test]
    fn the_newest_glibc_is_told() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0"), Some(34));
        assert_eq!(newest_glibc(b"\0GLIBC_PRIVATE\0"), None);
        assert_eq!(newest_glibc(b"\0GLIBC_2."), Some(0));
    }

    #[test]
    fn equal_input_makes_equal_bytes() {
        assert_eq!(archive(b"program").unwrap(), archive(b"program").unwrap());
    }

    /// The zip has everything that is of the buildpack in sidecar/, with the right to be run where it has that there.
    #[test]
    fn the_zip_has_the_checkouts_files() {
        use std::os::unix::fs::PermissionsExt;

        let sidecar = Path::new(env!("CARGO_MANIFEST_DIR")).join("sidecar");
        let mut there = vec!["outrider.yml".to_owned()];
        for folder in ["bin", "profile.d"] {
            for entry in fs::read_dir(sidecar.join(folder)).unwrap() {
                there.push(format!(
                    "{folder}/{}",
                    entry.unwrap().file_name().to_str().unwrap()
                ));
            }
        }
        there.sort();
        assert_eq!(there, FILES.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
        for (name, mode, text) in FILES {
            let path = sidecar.join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), *text, "{name}");
            let is_run = fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0;
            assert_eq!(is_run, mode & 0o100 != 0, "{name}");
        }
    }
}
