#!/usr/bin/env bash
# OpenSSL knows the critical extensions about policies and does not look at them; told to look, it wants a policy named.
#
# Version: OpenSSL 3.0.19 (Debian 12).
# Behaviour: a chain whose authority demands a policy (policyConstraints, critical, requireExplicitPolicy:0) and whose leaf
#   has none is verified, since X509_V_FLAG_POLICY_CHECK is off: in `openssl verify`, and so in curl and every client that
#   does not set it. With -policy_check alone a chain whose policies are all right is refused ("no explicit policy"): where
#   no policy is named, the user takes none, while RFC 5280 (6.1.1 c) starts from any-policy. With -policy 2.5.29.32.0
#   (anyPolicy) the verdicts are those of the RFC.
# Guess that was wrong: a verifier that accepts a critical extension processes it, and no policy asked for means any.
# Output seen:
#   with a policy: plain ok, -policy_check refused, with anyPolicy ok
#   without one: plain ok, -policy_check refused, with anyPolicy refused
#
# Needs openssl. Nothing is opened; all files are in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
policy='certificatePolicies = critical, 2.16.840.1.101.3.2.1.3.1'
printf '%s\n' '[root]' 'basicConstraints = critical, CA:true' '[ca]' 'basicConstraints = critical, CA:true' "$policy" \
  'policyConstraints = critical, requireExplicitPolicy:0' '[with]' "$policy" '[without]' 'basicConstraints = CA:false' \
  >extensions

# Makes the certificate of $1 by $2, with the extensions of $3.
issue() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" \
    2>/dev/null
  local by=(-CA "$2.pem" -CAkey "$2.key" -CAcreateserial)
  [ "$1" = "$2" ] && by=(-signkey "$1.key")
  openssl x509 -req -in "$1.csr" "${by[@]}" -days 5 -extfile extensions -extensions "$3" -out "$1.pem" 2>/dev/null
}

verdict() {
  openssl verify -CAfile root.pem -untrusted ca.pem "$@" >/dev/null 2>&1 && echo ok || echo refused
}

judge() {
  echo "plain $(verdict "$1"), -policy_check $(verdict -policy_check "$1")," \
    "with anyPolicy $(verdict -policy_check -policy 2.5.29.32.0 "$1")"
}

issue root root root
issue ca root ca
issue with ca with
issue without ca without
seen="with a policy: $(judge with.pem)
without one: $(judge without.pem)"
echo "$seen"
[ "$seen" = "with a policy: plain ok, -policy_check refused, with anyPolicy ok
without one: plain ok, -policy_check refused, with anyPolicy refused" ]
