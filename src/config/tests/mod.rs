//! The language, what is wrong in it, and what is hostile.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use http::Method;

use super::declare::Section as _;
use super::*;
use crate::host::{Host, HostPattern};

mod declared;
mod hostile;
mod identity;
mod language;
mod route_service;
mod trust;
mod wrong;

fn look_up(name: &str) -> Option<OsString> {
    match name {
        "HOME" => Some("/home/vcap/app".into()),
        "CERTS" => Some("certs".into()),
        _ => None,
    }
}

/// Reads a text as the file `a.yml`, in an environment where only HOME and CERTS are set.
fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse_in(text, "a.yml", Environment::new(&look_up))
}

/// The one destination of a text.
fn destination(keys: &str) -> DestinationKeys {
    let text = format!("destinations: {{ d: {{ hosts: [a.test], {keys} }} }}");
    let config = parse(&text).map_err(|problems| problems.to_string());
    DestinationKeys::clone(&config.unwrap().destinations[0])
}

#[test]
fn the_embedded_default_tunnels_what_is_not_private() {
    let config = Config::embedded();
    assert_eq!(config.egress.default, EgressDefault::Tunnel);
    assert_eq!(config.egress.deny_networks.len(), 6);
    assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:3128".parse().unwrap())]);
    assert!(config.destinations.is_empty());
}

#[test]
fn a_file_is_named_in_its_problems() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outrider.yml");
    let name = path.display().to_string();
    let load = || {
        Config::load(&path)
            .map(drop)
            .map_err(|problems| problems.to_string().replace(&name, "FILE"))
    };

    let missing = load().unwrap_err();
    assert!(
        missing.starts_with("FILE: cannot be read: No such file"),
        "{missing}"
    );
    for (bytes, told) in [
        (&b"drain: 5s\n"[..], Ok(())),
        (b"\xef\xbb\xbfdrain: 5s\r\n", Ok(())),
        (
            b"",
            Err("FILE: nothing is written in this file; write at least `egress: { default: deny }`"),
        ),
        (
            b"drain: 5s\n# \xff\n",
            Err("FILE:2:1: not UTF-8 text; save the file as UTF-8"),
        ),
        (
            b"\xff\xfed\0r\0",
            Err("FILE:1:1: not UTF-8 text; save the file as UTF-8"),
        ),
        (
            &[b'#'; node::LARGEST + 1],
            Err("FILE: larger than 1 MiB; a configuration of this size is a mistake"),
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(load(), told.map_err(str::to_owned));
    }
    let folder = Config::load(folder.path()).unwrap_err().to_string();
    assert!(folder.ends_with("; name a file in it"), "{folder}");
}

#[test]
fn problems_that_know_only_a_path_get_their_line() {
    let config = parse("drain: 5s\ndestinations:\n  d:\n    hosts: [a.test, b.test]\n").unwrap();
    let mut problems = Problems::default();
    problems.add("destinations.d.hosts[1]", "named twice", "keep one");
    problems.add("destinations.d.mode", "of no use", "");
    let told = problems.located(&config.locations).to_string();
    assert_eq!(
        told,
        "a.yml:4:5: destinations.d.mode: of no use\na.yml:4:21: destinations.d.hosts[1]: named twice; keep one"
    );
}
