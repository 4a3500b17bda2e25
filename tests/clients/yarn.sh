# Yarn of version 2 and later wants a project, and is one file for Node.
HOME=$(mktemp -d) && cd "$HOME" && export HOME YARN_ENABLE_TELEMETRY=0 YARN_HTTP_RETRY=0 YARN_UNSAFE_HTTP_WHITELIST='*'
echo '{"name":"here"}' >package.json && : >yarn.lock
for c; do
  echo "== ${c%%=*}"
  YARN_NPM_REGISTRY_SERVER=${c#*=} "$TOOLS/node_modules/node/bin/node" "$TOOLS/clients/node_modules/@yarnpkg/cli-dist/bin/yarn.js" \
    npm info hello --fields description 2>&1
done
rm -rf "$HOME"
