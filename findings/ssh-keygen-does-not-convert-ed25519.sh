#!/usr/bin/env bash
# ssh-keygen says that it has saved an Ed25519 key in PKCS#8, and leaves it in OpenSSH's own form.
#
# Versions: OpenSSH 9.2p1 (openssh-client of Debian 12), OpenSSL 3.0.
# Behaviour: `ssh-keygen -p -m PKCS8 -f KEY`, the command by which keys of OpenSSH become readable for other programs, ends
#   with 0 and "Your identification has been saved" for every kind of key. RSA and ECDSA keys are PKCS#8 then. An Ed25519 key
#   begins with BEGIN OPENSSH PRIVATE KEY as before, and OpenSSL still cannot read it, though it knows Ed25519.
# Guess that was wrong: the one command converts every key, or fails.
# Output seen:
#   rsa: exit 0, BEGIN PRIVATE KEY, read by openssl
#   ecdsa: exit 0, BEGIN PRIVATE KEY, read by openssl
#   ed25519: exit 0, BEGIN OPENSSH PRIVATE KEY, not read by openssl
#
# Needs ssh-keygen and openssl. Everything is in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
ssh -V 2>&1
for kind in rsa ecdsa ed25519; do
  ssh-keygen -q -t $kind -N '' -C '' -f "$tmp/$kind"
  status=0
  ssh-keygen -p -m PKCS8 -P '' -N '' -f "$tmp/$kind" >"$tmp/said" || status=$?
  grep -q 'has been saved' "$tmp/said"
  label=$(head -n 1 "$tmp/$kind" | tr -d -)
  read='read'
  openssl pkey -in "$tmp/$kind" -noout 2>/dev/null || read='not read'
  echo "$kind: exit $status, $label, $read by openssl" | tee -a "$tmp/seen"
done
diff - "$tmp/seen" <<'SEEN'
rsa: exit 0, BEGIN PRIVATE KEY, read by openssl
ecdsa: exit 0, BEGIN PRIVATE KEY, read by openssl
ed25519: exit 0, BEGIN OPENSSH PRIVATE KEY, not read by openssl
SEEN
