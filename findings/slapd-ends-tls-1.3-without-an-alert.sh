#!/usr/bin/env bash
# slapd of Debian, which is built with GnuTLS, ends TLS 1.3 without an alert where a client has no certificate.
#
# Version: slapd 2.5.13 (Debian 12).
# Behaviour: with `TLSVerifyClient demand` the handshake succeeds for a client without a certificate, and then slapd closes
#   the connection: no alert certificate_required (RFC 8446 section 4.4.2.4), no close_notify. Redis and Mosquitto, on
#   OpenSSL, send the alert. So "closed without a word right behind the handshake" has to be read as a refusal.
# Guess that was wrong: every server that demands a certificate says so by an alert.
# Output seen:
#   without a certificate: the handshake is over, no alert, closed
#   with a certificate: the connection stays
#
# Needs slapd and openssl. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$tmp"' EXIT
cd "$tmp"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=root -days 5 -keyout ca.key -out ca.pem \
  2>/dev/null
issue() {
  printf 'subjectAltName = IP:127.0.0.1\nextendedKeyUsage = %s\n' "$2" >extensions
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 5 -extfile extensions -out "$1.pem" 2>/dev/null
}
issue server serverAuth
issue client clientAuth
mkdir db
cat >slapd.conf <<CONF
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_ldif
TLSCACertificateFile $tmp/ca.pem
TLSCertificateFile $tmp/server.pem
TLSCertificateKeyFile $tmp/server.key
TLSVerifyClient demand
database ldif
suffix dc=test
directory $tmp/db
CONF
port=$((RANDOM % 20000 + 10000))
PATH=$PATH:/usr/sbin slapd -d 0 -f slapd.conf -h "ldaps://127.0.0.1:$port" &
server=$!
for _ in {1..100}; do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done

# An anonymous bind, and what openssl says of the connection; it is given two seconds.
ask() {
  { printf '\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00' && sleep 2; } |
    timeout 10 openssl s_client -connect "127.0.0.1:$port" -tls1_3 -CAfile ca.pem -msg "$@" 2>&1 | tr -d '\0' || true
}

# Whether the server has sent application data: the type of a record is its last byte.
answered() { grep -A1 '^<<< TLS 1.3, InnerContent' <<<"$1" | grep -q '^    17'; }
bare=$(ask)
grep -q 'Verify return code: 0' <<<"$bare" || { echo "no handshake: $bare" && exit 1; }
if grep -q '<<< .*Alert' <<<"$bare"; then
  echo "it sends an alert now: $(grep '<<< .*Alert' <<<"$bare")"
  exit 1
fi
if answered "$bare"; then
  echo "it answers a client without a certificate"
  exit 1
fi
echo "without a certificate: the handshake is over, no alert, closed"
shown=$(ask -cert client.pem -key client.key)
answered "$shown" || { echo "no answer: $shown" && exit 1; }
echo "with a certificate: the connection stays"
