#!/usr/bin/env bash
# gpgsm derives another key than everybody else for one salt in sixty, when it reads PKCS#12 and when it writes it.
#
# Versions: gpgsm 2.2.40, OpenSSL 3.0.19 (both Debian 12).
# Behaviour: one key, one certificate and one password are written 300 times as PKCS#12 (PBE-SHA1-3DES, MAC of SHA-1), so
#   the files differ in nothing but their random salts.
#   Written by OpenSSL, OpenSSL reads all. gpgsm tries one character set of the password after the other for some of them,
#   says "error parsing or decrypting the PKCS#12 file" and ends with 2; the certificate is in its keyring then
#   ("imported: 1"), and the key is not.
#   Written by gpgsm, gpgsm reads all. OpenSSL finds the MAC of some right and cannot decrypt their content, or finds the
#   MAC wrong: who copies such a file to a server is told that the password is wrong, and it is not.
# Guess that was wrong: a password that opens one file of a tool opens the next one that it writes.
# Output seen:
#   300 files of openssl: openssl reads 300, gpgsm 296 (other runs: 294, 297)
#   300 files of gpgsm: openssl reads 295, gpgsm reads the other 5
#
# Needs openssl and gpgsm from the system's packages. Everything is in a temporary folder.
set -euo pipefail
for command in openssl gpgsm; do
  command -v $command >/dev/null || { echo "$command is missing: apt-get install $command" >&2; exit 2; }
done
tmp=$(mktemp -d)
export PASSWORD=sesame GNUPGHOME=$tmp/ring
end() { GNUPGHOME=$1 gpgconf --kill gpg-agent; }
trap 'end $tmp/ring; end $tmp/other; rm -rf "$tmp"' EXIT
cd "$tmp"
for ring in ring other; do
  mkdir -m 700 $ring
  echo allow-loopback-pinentry >$ring/gpg-agent.conf
done
gpgsm() { echo $PASSWORD | command gpgsm --batch --disable-dirmngr --pinentry-mode loopback --passphrase-fd 0 "$@" 2>out; }
opens() { openssl pkcs12 -in "$1" -passin env:PASSWORD -legacy -nodes -out /dev/null 2>/dev/null; }
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -days 30 -subj /CN=app -out cert.pem 2>/dev/null

files=300 openssl=0 gpgsm=0
for _ in $(seq $files); do
  openssl pkcs12 -export -inkey key.pem -in cert.pem -passout env:PASSWORD -out pair.p12 \
    -legacy -macalg sha1 -certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES
  opens pair.p12 && openssl=$((openssl + 1))
  if gpgsm --import pair.p12; then gpgsm=$((gpgsm + 1)); else grep -q "error parsing or decrypting the PKCS#12 file" out; fi
done
echo "$files files of openssl: openssl reads $openssl, gpgsm $gpgsm"

id=$(gpgsm --list-keys --with-colons | sed -n 's/^fpr:*\([^:]*\):.*/\1/p' | head -n 1)
written=0 others=0
for _ in $(seq $files); do
  rm -f pair.p12
  gpgsm --output pair.p12 --export-secret-key-p12 "$id"
  if opens pair.p12; then
    written=$((written + 1))
  elif GNUPGHOME=$tmp/other gpgsm --import pair.p12; then
    others=$((others + 1))
  fi
done
echo "$files files of gpgsm: openssl reads $written, gpgsm reads the other $others"
[ $openssl = $files ] && [ $gpgsm -lt $files ] && [ $gpgsm -gt 260 ] &&
  [ $written -lt $files ] && [ $written -gt 260 ] && [ $((written + others)) = $files ]
