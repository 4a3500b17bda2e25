#!/usr/bin/env bash
# Mbed TLS cannot load a root certificate that has critical name constraints, which is how RFC 5280 wants them marked.
#
# Versions: python-mbedtls 2.10.1 (Mbed TLS 2.28.8), OpenSSL 3 to make the certificates.
# Behaviour: parsing such a certificate fails ("ASN1 tag was of an unexpected value"), so that the whole trust file is of no
#   use. The same certificate with the extension not marked critical loads, and the constraints are then not looked at.
# Guess that was wrong: an authority that is confined to some hosts is at worst one whose confinement a client ignores.
# Output seen:
#   critical: error
#   not critical: loaded
#   no constraints: loaded
#
# Needs python3 with venv, and openssl. Nothing is sent anywhere but the download, and all files are in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check python-mbedtls==2.10.1
cd "$tmp"
openssl ecparam -genkey -name prime256v1 -noout -out key.pem

# Makes a root with this line among its extensions, and says whether Mbed TLS loads it.
load() {
  printf '%s\n' '[req]' 'distinguished_name = dn' 'prompt = no' '[dn]' 'CN = root' '[root]' \
    'basicConstraints = critical, CA:true' 'keyUsage = critical, keyCertSign' "$1" >openssl.cnf
  openssl req -x509 -new -key key.pem -config openssl.cnf -extensions root -days 5 -out root.pem
  openssl verify -CAfile root.pem root.pem >/dev/null
  venv/bin/python - <<'PY'
from mbedtls import x509
try:
    x509.CRT.from_PEM(open("root.pem").read())
    print("loaded")
except Exception:
    print("error")
PY
}

critical=$(load 'nameConstraints = critical, permitted;DNS:partner.test')
lenient=$(load 'nameConstraints = permitted;DNS:partner.test')
none=$(load 'subjectKeyIdentifier = hash')
echo "critical: $critical"
echo "not critical: $lenient"
echo "no constraints: $none"
[ "$critical $lenient $none" = "error loaded loaded" ]
