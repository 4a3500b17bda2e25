#!/usr/bin/env bash
# gpgsm refuses one or two of a hundred PKCS#12 files that hold the same pair under the same password.
#
# Versions: gpgsm 2.2.40, OpenSSL 3.0.19 (both Debian 12).
# Behaviour: one key, one certificate and one password are written 300 times as PKCS#12 (PBE-SHA1-3DES, MAC of SHA-1), so
#   the files differ in nothing but their random salts. OpenSSL reads all of them. gpgsm reads most; for the others it tries
#   one character set of the password after the other, says "error parsing or decrypting the PKCS#12 file" and ends with 2.
#   The certificate is in its keyring then ("imported: 1"), and the key is not.
# Guess that was wrong: a reader that takes a file takes it with another salt, too.
# Output seen:
#   300 files: openssl reads 300, gpgsm refuses 3 (another run: 6)
#
# Needs openssl and gpgsm from the system's packages. Everything is in a temporary folder.
set -euo pipefail
for command in openssl gpgsm; do
  command -v $command >/dev/null || { echo "$command is missing: apt-get install $command" >&2; exit 2; }
done
tmp=$(mktemp -d)
export GNUPGHOME=$tmp PASSWORD=sesame
trap 'gpgconf --kill gpg-agent; rm -rf "$tmp"' EXIT
cd "$tmp"
echo allow-loopback-pinentry >gpg-agent.conf
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -days 30 -subj /CN=app -out cert.pem 2>/dev/null
files=300 read=0 refused=0
for _ in $(seq $files); do
  openssl pkcs12 -export -inkey key.pem -in cert.pem -passout env:PASSWORD -out pair.p12 \
    -legacy -macalg sha1 -certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES
  openssl pkcs12 -in pair.p12 -passin env:PASSWORD -legacy -nodes -out /dev/null 2>/dev/null && read=$((read + 1))
  status=0
  echo $PASSWORD | gpgsm --batch --disable-dirmngr --pinentry-mode loopback --passphrase-fd 0 --import pair.p12 \
    >out 2>&1 || status=$?
  if [ $status = 2 ] && grep -q "error parsing or decrypting the PKCS#12 file" out; then refused=$((refused + 1)); fi
done
echo "$files files: openssl reads $read, gpgsm refuses $refused"
[ $read = $files ] && [ $refused -gt 0 ] && [ $refused -lt 40 ]
