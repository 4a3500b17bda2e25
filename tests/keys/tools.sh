# What the commands of tools.txt share. Sourced in a folder of its own.

OLD='-provider legacy -provider default'

openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.key
openssl genpkey -algorithm RSA -out rsa.key
for kind in ec rsa; do openssl req -x509 -days 30 -key $kind.key -subj /CN=app -out $kind.crt; done

# p12 KIND FILE OPTION...
p12() {
  kind=$1 file=$2
  shift 2
  openssl pkcs12 -export -name app -inkey "$kind.key" -in "$kind.crt" -passout env:PASSWORD -out "$file" "$@"
}

# p8 KIND FILE OPTION...
p8() {
  kind=$1 file=$2
  shift 2
  # shellcheck disable=SC2086 # two options
  openssl pkcs8 -topk8 -in "$kind.key" -passout env:PASSWORD -out "$file" $OLD "$@"
}

# A pair with a key of its own kind: x.key, x.crt.
own() { openssl genpkey -out x.key "$@" && own_crt; }

own_crt() { openssl req -x509 -days 30 -key x.key -passin env:PASSWORD -subj /CN=app -out x.crt; }

to_p12() { certtool --to-p12 --load-privkey ec.key --load-certificate ec.crt --p12-name app --outfile x.p12 "$@"; }

# A database of NSS with a pair, which is exported: nss OPTION...
nss() {
  p12 rsa in.p12
  mkdir db
  printf '%s\n' "$PASSWORD" > password
  certutil -N -d sql:db -f password
  pk12util -i in.p12 -d sql:db -k password -w password
  pk12util -o x.p12 -n app -d sql:db -k password -w password "$@"
}

# A keyring of gpgsm with a pair: $id. gpgsm reads no PBES2 before 2.4, and derives a wrong key for one salt in sixty:
# another salt helps.
ring() {
  chmod 700 .
  echo allow-loopback-pinentry > gpg-agent.conf
  trap 'gpgconf --kill gpg-agent' EXIT
  gpgsm='gpgsm --batch --disable-dirmngr --pinentry-mode loopback --passphrase-fd 0'
  for _ in 1 2 3 4 5; do
    p12 rsa in.p12 -legacy -macalg sha1 -certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES
    echo "$PASSWORD" | $gpgsm --import in.p12 && break
  done
  id=$(gpgsm --list-keys --with-colons | sed -n 's/^fpr:*\([^:]*\):.*/\1/p' | head -n 1)
}

# Exports the pair of the ring: ring_p12 OPTION... One file in sixty cannot be decrypted: another is made then.
ring_p12() {
  for _ in 1 2 3 4 5; do
    rm -f x.p12
    echo "$PASSWORD" | $gpgsm "$@" --output x.p12 --export-secret-key-p12 "$id"
    if grep -q -e '-----BEGIN' x.p12; then
      sed '1,/^-----BEGIN/d; /^-----END/d' x.p12 | base64 -d > binary.p12
    else
      cp x.p12 binary.p12
    fi
    openssl pkcs12 -legacy -in binary.p12 -passin env:PASSWORD -nodes -out /dev/null && break
  done
}

# A keystore of Java with a pair: store TYPE OPTION...
store() {
  type=$1
  shift
  p12 rsa in.p12
  keytool -importkeystore -srckeystore in.p12 -srcstoretype PKCS12 -srcstorepass "$PASSWORD" \
    -destkeystore x.store -deststoretype "$type" -deststorepass "$PASSWORD" "$@"
}

trusted() {
  keytool -importcert -noprompt -file ec.crt -alias ca -keystore x.store -storetype "$1" -storepass "$PASSWORD"
}

python() {
  cat > x.py <<END
import os
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import *
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
key = load_pem_private_key(open('rsa.key', 'rb').read(), None)
cert = x509.load_pem_x509_certificate(open('rsa.crt', 'rb').read())
password = os.environ['PASSWORD'].encode()
best = BestAvailableEncryption(password)
def write(data):
    open('x.out', 'wb').write(data)
$1
END
  "$PYTHON" x.py
}

script() {
  "$NODE" -e "const fs = require('fs'), crypto = require('crypto'), passphrase = process.env.PASSWORD
    const key = crypto.createPrivateKey(fs.readFileSync('rsa.key')), write = data => fs.writeFileSync('x.out', data)
    $1"
}

forge() {
  "$NODE" -e "const fs = require('fs'), forge = require('node-forge'), passphrase = process.env.PASSWORD
    const read = name => fs.readFileSync(name, 'utf8'), write = data => fs.writeFileSync('x.out', data, 'binary')
    const key = forge.pki.privateKeyFromPem(read('rsa.key')), cert = forge.pki.certificateFromPem(read('rsa.crt'))
    const der = asn1 => forge.asn1.toDer(asn1).getBytes()
    $1"
}
