# A machine may have npm settings of its own. With `cafile`, the npmrc of all users names another bundle.
export npm_config_globalconfig=/dev/null
here=$(mktemp -d) && trap 'rm -rf "$here"' EXIT
if [ "$1" = cafile ]; then
  shift
  npm_config_globalconfig=$here/npmrc
  echo "cafile=/etc/ssl/certs/ca-certificates.crt" >"$npm_config_globalconfig"
fi
if [ "$1" = variable ]; then
  shift
  export npm_config_cafile="$SSL_CERT_FILE"
fi
for c; do echo "== ${c%%=*}"; npm view hello description --fetch-retries=0 --registry "${c#*=}" --cache "$here" 2>&1; done
