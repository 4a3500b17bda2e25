//! Stores, keys, certificates and lists that are broken in every place: an answer in time, never a panic.
//!
//! What is guarded elsewhere is called here without its guard: a panic is a fault that the guard only hides.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::locked::{KINDS, OpenSsl, password};
use super::*;

/// Lengths that are larger than any file, or none at all.
const LENGTHS: &[&[u8]] = &[
    &[0x80],
    &[0xff],
    &[0x84, 0xff, 0xff, 0xff, 0xff],
    &[0x84, 0x7f, 0xff, 0xff, 0xff],
    &[0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    // With the position added to it, an eight-byte number is small again.
    &[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80],
    &[0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0],
];

/// Returns `whole` broken at every byte.
pub(super) fn broken(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..whole.len()).flat_map(|position| broken_at(whole, position))
}

/// Returns `whole` cut short at this byte, with each of its bits flipped, and with it replaced by each of [`LENGTHS`], also
/// so that what is around it stays as long as it was.
pub(crate) fn broken_at(whole: &[u8], position: usize) -> impl Iterator<Item = Vec<u8>> {
    let flipped = (0..8).map(move |bit| {
        let mut bytes = whole.to_vec();
        bytes[position] ^= 1 << bit;
        bytes
    });
    let with = move |length: &&[u8]| [&whole[..position], length, &whole[position + 1..]].concat();
    let over = move |length: &&[u8]| {
        let room = &whole[position.saturating_add(length.len()).min(whole.len())..];
        [&whole[..position], length, room].concat()
    };
    let replaced = LENGTHS.iter().map(with).chain(LENGTHS.iter().map(over));
    std::iter::once(whole[..position].to_vec())
        .chain(flipped)
        .chain(replaced)
}

/// Does `work`, which may hang, and fails if it takes longer than a busy machine needs.
#[track_caller]
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(120));
    if ended.is_err() && !thread.is_finished() {
        panic!("it hangs");
    }
    thread.join().unwrap();
}

fn bytes(bytes: Vec<u8>) -> Secret {
    Secret::whole(Zeroizing::new(bytes))
}

#[test]
fn a_broken_store_is_refused_and_never_panics_or_hangs() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let with_password = ["-passout", "env:PASSWORD", "-iter", "1"];
    // Without a proof and a lock, what is broken inside is met, too.
    let open = ["-certpbe", "NONE", "-keypbe", "NONE", "-nomac"];
    for form in [&[][..], &["-legacy"], &["-nomac"], &open] {
        let whole = openssl.export(&[&with_password, form].concat());
        let wanted = pkcs12::opened(&whole, Some(&password())).unwrap().key;
        let is_proven = !form.contains(&"-nomac");
        in_time(move || {
            for broken in broken(whole.expose()) {
                let told = broken.clone();
                // Where there is no proof, what was locked is told from noise by its form alone.
                if let Ok(bundle) = pkcs12::opened(&bytes(broken), Some(&password()))
                    && is_proven
                {
                    assert_eq!(bundle.key, wanted, "{told:x?}");
                }
            }
        });
    }
}

#[test]
fn a_broken_encrypted_key_is_refused_and_never_panics_or_hangs() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let locked =
        "pkcs8 -topk8 -in key.pem -outform DER -out key.der -passout env:PASSWORD -iter 1 -v2 aes-256-cbc";
    openssl.run(&locked.split(' ').collect::<Vec<_>>());
    let whole = openssl.read("key.der");
    let open = |der: &[u8]| pkcs8::unlock(der, &pbe::Password::new(password().expose()));
    open(whole.expose()).unwrap();
    let scrypt =
        "pkcs8 -topk8 -in key.pem -outform DER -out scrypt.der -passout env:PASSWORD -scrypt -scrypt_N 2";
    openssl.run(&scrypt.split(' ').collect::<Vec<_>>());
    let scrypt = openssl.read("scrypt.der");
    open(scrypt.expose()).unwrap();
    in_time(move || {
        for broken in broken(whole.expose()).chain(broken(scrypt.expose())) {
            drop(open(&broken));
        }
    });
}

/// A table of scrypt is as large as the file says, up to a bound.
#[test]
fn scrypt_has_a_bound_of_memory_and_work() {
    let key = |cost: &[u8], block: &[u8], parallel: &[u8]| {
        let value = |tag: u8, parts: &[&[u8]]| {
            let content = parts.concat();
            [&[tag, u8::try_from(content.len()).unwrap()][..], &content].concat()
        };
        let numbers = [
            value(4, &[b"salt"]),
            value(2, &[cost]),
            value(2, &[block]),
            value(2, &[parallel]),
        ];
        let scrypt = value(6, &[&[0x2b, 6, 1, 4, 1, 0xda, 0x47, 4, 11]]);
        let derivation = value(0x30, &[&scrypt, &value(0x30, &[&numbers.concat()])]);
        let aes = value(6, &[&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a]]);
        let cipher = value(0x30, &[&aes, &value(4, &[&[0; 16]])]);
        let pbes2 = value(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13]]);
        let algorithm = value(0x30, &[&pbes2, &value(0x30, &[&derivation, &cipher])]);
        value(0x30, &[&algorithm, &value(4, &[&[0; 16]])])
    };
    let unlock = |key: &[u8]| pkcs8::unlock(key, &pbe::Password::new(b"a")).err().unwrap();
    assert_eq!(unlock(&key(&[2], &[8], &[1])), pbe::Error::Wrong);
    for (cost, block, parallel) in [
        (&[1, 0, 0, 0][..], &[8][..], &[1][..]),
        (&[0x40, 0, 0, 0], &[1], &[1]),
        (&[1, 0, 0, 0, 0, 0, 0, 0], &[8], &[1]),
        (&[2], &[0x7f, 0xff, 0xff, 0xff], &[1]),
        (&[2], &[8], &[0x7f, 0xff, 0xff, 0xff]),
        // Little memory, and much work.
        (&[0x40, 0], &[8], &[100]),
        // No power of two, and nothing at all.
        (&[3], &[8], &[1]),
        (&[0], &[8], &[1]),
        (&[2], &[0], &[1]),
    ] {
        let told = unlock(&key(cost, block, parallel));
        assert!(
            matches!(told, pbe::Error::Unsupported(ref what) if what.starts_with("scrypt")),
            "{cost:x?} {block:x?} {parallel:x?}: {told:?}"
        );
    }
}

/// As a stranger may make it: in what is read over, before any proof is looked at.
#[test]
fn a_length_beyond_the_file_is_damage_and_says_so() {
    let value = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        [&[tag, u8::try_from(content.len()).unwrap()][..], &content].concat()
    };
    let nothing = value(0x04, &[]);
    for length in LENGTHS {
        let algorithm = value(0x30, &[&[0x06, 0x01, 0x2a, 0x04], length, &[0]]);
        let content = value(0x30, &[&[0x06, 0x01, 0x2a], &value(0xa0, &[&nothing])]);
        let proof = value(0x30, &[&value(0x30, &[&algorithm, &nothing]), &nothing]);
        let store = value(0x30, &[&[0x02, 0x01, 0x03], &content, &proof]);
        let told = pkcs12::opened(&bytes(store), None).err();
        assert_eq!(told, Some(pkcs12::Error::Damaged), "{length:x?}");

        let key = value(0x30, &[&algorithm, &nothing]);
        let told = pkcs8::unlock(&key, &pbe::Password::new(b"a")).err();
        assert_eq!(told, Some(pbe::Error::Damaged), "{length:x?}");
    }
}

/// One derivation is bounded, and so are all of a file.
#[test]
fn iterations_have_a_bound_in_all() {
    let password = pbe::Password::new(b"a");
    assert!(password.spend(0).is_err());
    assert!(password.spend(5_000_001).is_err());
    for _ in 0..4 {
        password.spend(5_000_000).unwrap();
    }
    assert!(password.spend(1).is_err());
}

#[test]
fn broken_pem_is_refused_and_never_panics_or_hangs() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    fs::write(openssl.path().join("index"), "").unwrap();
    fs::write(openssl.path().join("number"), "01\n").unwrap();
    let settings = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\ncrlnumber = number\ndefault_md = sha256\n\
                    default_crl_days = 1\n";
    fs::write(openssl.path().join("ca.cnf"), settings).unwrap();
    let list = "ca -gencrl -config ca.cnf -cert cert.pem -keyfile key.pem -out list.pem";
    openssl.run(&list.split(' ').collect::<Vec<_>>());
    for arguments in [
        "crl2pkcs7 -nocrl -certfile cert.pem -outform DER -out bundle.p7b",
        "crl2pkcs7 -in list.pem -certfile cert.pem -out bundle.pem",
        "x509 -in cert.pem -trustout -addtrust clientAuth -out trusted.pem",
        "x509 -in cert.pem -outform DER -out cert.der",
        "pkey -in key.pem -outform DER -out key.der",
        "ec -in key.pem -aes256 -passout env:PASSWORD -out old.pem",
    ] {
        openssl.run(&arguments.split(' ').collect::<Vec<_>>());
    }
    let generated = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(openssl.path().join("ssh"))
        .status();
    assert!(generated.unwrap().success());
    for name in [
        "cert.pem",
        "key.pem",
        "list.pem",
        "bundle.p7b",
        "bundle.pem",
        "trusted.pem",
        "cert.der",
        "key.der",
        "old.pem",
        "ssh",
    ] {
        let whole = openssl.read(name);
        in_time(move || {
            for broken in broken(whole.expose()) {
                let broken = bytes(broken);
                drop(pem::certificates(&broken));
                drop(pem::private_key(&broken));
                drop(pem::unlocked_key(&broken, Some(&password())));
                drop(pem::revocation_lists(&broken));
            }
        });
    }
}

#[test]
fn broken_services_are_refused_and_never_panic() {
    let text = r#"{"user-provided":[{"name":"api","tags":["a"],"credentials":{"key":{"deep":["v",1]}}}]}"#;
    let reference = vcap("api/key/deep/0");
    let read = |text: &[u8]| {
        let text = OsString::from_vec(text.to_vec());
        Snapshot::of_variables([("VCAP_SERVICES", text)]).read(&reference)
    };
    assert_eq!(read(text.as_bytes()).unwrap().expose(), b"v");
    for broken in broken(text.as_bytes()) {
        drop(read(&broken));
    }
    for deep in ["[".repeat(100_000), r#"{"a":"#.repeat(100_000)] {
        assert!(matches!(read(deep.as_bytes()), Err(Error::NotServices { .. })));
    }
}

/// A path may lead to something that blocks when it is opened, or never ends.
#[test]
fn only_files_of_a_bounded_size_are_read() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = Command::new("mkfifo").arg(path("pipe")).status().unwrap();
    assert!(made.success());
    symlink("/dev/zero", path("endless")).unwrap();
    symlink(path("pipe"), path("link")).unwrap();
    symlink(path("loop"), path("loop")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    let large = fs::File::create(path("large")).unwrap();
    // Sparse: it takes no room.
    large.set_len(1 << 40).unwrap();
    let snapshot = Snapshot::of_process();
    for (name, wanted) in [
        ("pipe", "not a regular file"),
        ("link", "not a regular file"),
        ("endless", "not a regular file"),
        ("folder", "not a regular file"),
        ("loop", "cannot be read"),
        ("large", "larger than"),
    ] {
        let reference = SecretRef::File(path(name));
        for read in [
            snapshot.read(&reference),
            snapshot.read_binary(&reference),
            snapshot.read_list(&reference),
        ] {
            let told = read.unwrap_err().to_string();
            assert!(told.contains(wanted), "{name}: {told}");
        }
    }
}

/// A binding's folder is looked through by name: what hangs there must not hang us.
#[test]
fn a_binding_with_a_pipe_in_it_is_passed_by() {
    let root = TempDir::new().unwrap();
    for name in ["good", "sick"] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join("key"), name).unwrap();
    }
    let pipe = root.path().join("sick/tags");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let snapshot = Snapshot::of_variables([("SERVICE_BINDING_ROOT", root.path())]);
    in_time(move || {
        for name in ["good", "sick"] {
            let reference = vcap(&format!("{name}/key"));
            assert_eq!(snapshot.read(&reference).unwrap().expose(), name.as_bytes());
        }
    });
}
