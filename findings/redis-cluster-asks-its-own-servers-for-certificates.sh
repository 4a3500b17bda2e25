#!/usr/bin/env bash
# A Redis cluster that asks clients for no certificates asks its own servers for them, and names ports without TLS.
#
# Version: Redis 7.0.15 (Debian 12).
# Behaviour: `tls-auth-clients no` does not reach the cluster bus. There each server demands a certificate of the others,
#   and one that is for servers alone (extendedKeyUsage serverAuth), as public authorities issue, is refused: with
#   `tls-cluster yes` the servers never meet, and nothing but the log says why. Without `tls-cluster` they meet, but
#   CLUSTER SLOTS and MOVED name the port without TLS, also to a client that has come over TLS.
# Guesses that were wrong: with `tls-auth-clients no` a server certificate is enough; a client on TLS is led to TLS.
# Output seen:
#   tls-cluster yes, serverAuth: known 1
#   tls-cluster yes, serverAuth and clientAuth: known 2, names the TLS port
#   tls-cluster no, serverAuth: known 2, names the plain port
#
# Needs redis-server and redis-cli with TLS, and openssl. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
servers=()
stop() {
  [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
  wait
  servers=()
}
trap 'stop; rm -rf "$tmp"' EXIT
cd "$tmp"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=root -days 5 -keyout ca.key -out ca.pem \
  2>/dev/null

# Makes a certificate with these extended key usages.
issue() {
  printf 'subjectAltName = IP:127.0.0.1\nextendedKeyUsage = %s\n' "$1" >extensions
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout server.key -out server.csr \
    2>/dev/null
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 5 -extfile extensions -out server.pem \
    2>/dev/null
}

# Starts two servers with `tls-cluster $1`, lets them meet, and says what the first one knows after $2 tenths of a second.
cluster() {
  local node base known=0 port
  base=$((12000 + RANDOM % 8000))
  for node in 0 1; do
    mkdir -p "$base/$node"
    redis-server --bind 127.0.0.1 --port $((base + node)) --tls-port $((base + 2 + node)) \
      --cluster-enabled yes --cluster-port $((base + 4 + node)) --tls-cluster "$1" --tls-auth-clients no \
      --tls-cert-file "$tmp/server.pem" --tls-key-file "$tmp/server.key" --tls-ca-cert-file "$tmp/ca.pem" \
      --save '' --dir "$base/$node" >/dev/null 2>&1 &
    servers+=($!)
  done
  for node in 0 1; do
    for _ in $(seq 100); do
      redis-cli -p $((base + node)) ping >/dev/null 2>&1 && break
      sleep 0.1
    done
  done
  redis-cli -p "$base" cluster addslotsrange 0 16383 >/dev/null
  [ "$1" = yes ] && port=$((base + 2)) || port=$base
  redis-cli -p $((base + 1)) cluster meet 127.0.0.1 "$port" $((base + 4)) >/dev/null
  for _ in $(seq "$2"); do
    known=$(redis-cli -p "$base" cluster info | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')
    [ "$known" = 2 ] && break
    sleep 0.1
  done
  if [ "$known" != 2 ]; then
    echo "known $known"
    return
  fi
  # The second one needs the first one's slots.
  for _ in $(seq 50); do
    port=$(redis-cli --tls --cacert ca.pem -p $((base + 3)) cluster slots | sed -n 4p)
    [ -n "$port" ] && break
    sleep 0.1
  done
  case $((port - base)) in
    0) echo "known 2, names the plain port" ;;
    2) echo "known 2, names the TLS port" ;;
    *) echo "known 2, names $port" ;;
  esac
}

issue serverAuth
one=$(cluster yes 30; stop)
issue serverAuth,clientAuth
both=$(cluster yes 100; stop)
issue serverAuth
plain=$(cluster no 100; stop)
seen="tls-cluster yes, serverAuth: $one
tls-cluster yes, serverAuth and clientAuth: $both
tls-cluster no, serverAuth: $plain"
echo "$seen"
[ "$seen" = "tls-cluster yes, serverAuth: known 1
tls-cluster yes, serverAuth and clientAuth: known 2, names the TLS port
tls-cluster no, serverAuth: known 2, names the plain port" ] || { echo "it behaves otherwise now" >&2; exit 1; }
