//! Tells the linker where the code of a start goes: see `start.ld`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=.cargo/start.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|given| given == value);
    // Other linkers read no such scripts, and other profiles have other functions.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bin=outrider=-T{folder}/.cargo/start.ld");
    }
}
