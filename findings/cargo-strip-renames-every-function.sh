#!/usr/bin/env bash
# cargo gives all functions other names where the profile says `strip = false` instead of `strip = true`.
#
# Versions: cargo and rustc 1.95.0.
# Behaviour: `strip` is applied by the linker, after all code has been made. But cargo hashes the whole profile into the name of
#   the crate's instance, `strip` too, and rustc puts that into the hash at the end of each symbol. So the names of a build that
#   keeps its symbols (CARGO_PROFILE_RELEASE_STRIP=none) are not those that the linker saw in the release: a list of functions
#   made of it (for a linker script, a profile, a crash report) fits no release. The same flag given to rustc alone
#   (cargo rustc -- -C strip=none) leaves the names as they are.
# Guess that was wrong: a build without strip is the release, with its symbols.
# Output seen:
#   the linker of the release:    one name
#   by the flag of rustc:         the same
#   by the setting of the profile: another
#
# Needs Rust and nm. Nothing is fetched; everything is in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
[[ $(cargo --version) == "cargo 1.95.0 "* ]] || { echo "another cargo than 1.95.0: $(cargo --version)" >&2 && exit 1; }
mkdir src
printf '%s\n' '[package]' 'name = "probe"' 'version = "0.1.0"' 'edition = "2024"' '[profile.release]' 'strip = true' >Cargo.toml
printf '%s\n' '#[inline(never)]' 'fn greet(name: &str) { println!("hello {name}"); }' \
  'fn main() { greet(&std::env::args().next().unwrap_or_default()); }' >src/main.rs

# The hashes of `greet`, in a map of the linker or a list of symbols.
names() { grep -o 'probe5greet17h[0-9a-f]*E' | sort -u; }

export CARGO_TARGET_DIR=$tmp/target
cargo rustc -q --release -- -C link-arg=-Wl,-Map=probe.map
release=$(names <probe.map)
cargo rustc -q --release -- -C strip=none
by_flag=$(nm target/release/probe | names)
CARGO_PROFILE_RELEASE_STRIP=none cargo build -q --release
by_profile=$(nm target/release/probe | names)

compared() { [[ $1 == "$release" ]] && echo the same || echo another; }
[[ $(wc -l <<<"$release") == 1 && $release ]] && named="one name" || named="no name"
got=$(
  echo "the linker of the release:    $named"
  echo "by the flag of rustc:         $(compared "$by_flag")"
  echo "by the setting of the profile: $(compared "$by_profile")"
)
echo "$got"
[[ $got == "the linker of the release:    one name
by the flag of rustc:         the same
by the setting of the profile: another" ]]
