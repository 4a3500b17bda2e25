#!/usr/bin/env bash
# BoringSSL (in gRPC) refuses a certificate for an address that the name constraints of its root permit.
#
# Versions: grpcio 1.85.3, OpenSSL 3 to make the certificates and as the second judge.
# Behaviour: BoringSSL knows no constraints of the type iPAddress. A leaf for 127.0.0.1 under a root that permits 127.0.0.0/8
#   is refused with the alert certificate_unknown, whose words would do for any other fault. Where the constraints of the
#   same root are about DNS names only, the leaf is accepted, although an address is then not constrained at all.
# Guess that was wrong: a leaf that openssl verify accepts under constraints is accepted by what descends from OpenSSL.
# Output seen:
#   permitted 127.0.0.0/8: openssl ok, grpc refused
#   permitted a DNS name only: openssl ok, grpc ready
#
# Needs python3 with venv, and openssl. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
cd "$tmp"
openssl ecparam -genkey -name prime256v1 -noout -out root.key
openssl ecparam -genkey -name prime256v1 -noout -out leaf.key

# Makes a root with these constraints and a leaf for 127.0.0.1, and says what two clients make of it.
judge() {
  printf '%s\n' '[req]' 'distinguished_name = dn' 'prompt = no' '[dn]' 'CN = root' '[root]' \
    'basicConstraints = critical, CA:true' 'keyUsage = critical, keyCertSign' "nameConstraints = critical, $1" \
    '[leaf]' 'subjectAltName = IP:127.0.0.1' 'basicConstraints = critical, CA:false' >openssl.cnf
  openssl req -x509 -new -key root.key -config openssl.cnf -extensions root -days 5 -out root.pem
  openssl req -new -key leaf.key -config openssl.cnf -subj /CN=leaf -out leaf.csr
  openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile openssl.cnf -extensions leaf \
    -days 5 -out leaf.pem 2>/dev/null
  local openssl=refused
  openssl verify -CAfile root.pem leaf.pem >/dev/null 2>&1 && openssl=ok
  echo "openssl $openssl, grpc $(venv/bin/python judge.py 2>/dev/null)"
}

cat >judge.py <<'PY'
from concurrent import futures
import grpc

read = lambda name: open(name, "rb").read()
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(read("leaf.key"), read("leaf.pem"))]))
server.start()
channel = grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(read("root.pem")))
try:
    grpc.channel_ready_future(channel).result(timeout=5)
    print("ready")
except grpc.FutureTimeoutError:
    print("refused")
server.stop(0)
PY

address=$(judge 'permitted;IP:127.0.0.0/255.0.0.0')
name=$(judge 'permitted;DNS:partner.test')
echo "permitted 127.0.0.0/8: $address"
echo "permitted a DNS name only: $name"
[ "$address" = "openssl ok, grpc refused" ] && [ "$name" = "openssl ok, grpc ready" ]
