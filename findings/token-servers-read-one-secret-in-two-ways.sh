#!/usr/bin/env bash
# Two token servers of Node want the same client secret in forms that exclude each other.
#
# Versions: oidc-provider 9.13.3, @node-oauth/oauth2-server 5.3.0 (with express 5.3.0), node 24.
# Behaviour: for client_secret_basic RFC 6749 section 2.3.1 has name and secret form-encoded before they are joined.
#   oidc-provider decodes them, and a secret with a stray % that was not encoded is a 400 invalid_request, not an
#   invalid_client. @node-oauth/oauth2-server takes both as they are, so that an encoded secret is a 401 invalid_client.
#   For a secret such as `a+b/c%` no form is right for both. A secret with a letter outside of ASCII is right for neither:
#   both refuse it as invalid_request in every form (RFC 6749 appendix A.2).
# Guess that was wrong: a client that keeps to the standard, or to what most do, is understood by either server.
# Output seen:
#   oidc-provider, encoded: 200
#   oidc-provider, plain: 400 invalid_request
#   oauth2-server, encoded: 401 invalid_client
#   oauth2-server, plain: 200
#
# Needs npm and curl. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$tmp"' EXIT
cd "$tmp"
npm install --silent --no-audit --no-fund --no-save \
  node@24 oidc-provider@9.13.3 @node-oauth/oauth2-server@5.3.0 express@5.3.0
cat >servers.mjs <<'JS'
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import OAuth2Server from '@node-oauth/oauth2-server';
import express from 'express';
import Provider from 'oidc-provider';

const client = { client_id: 'app', client_secret: 'a+b/c%', grant_types: ['client_credentials'] };
const strict = http.createServer();
strict.listen(0, '127.0.0.1', () => {
  const provider = new Provider(`http://127.0.0.1:${strict.address().port}`, {
    clients: [{ ...client, redirect_uris: [], response_types: [] }],
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
  });
  strict.on('request', provider.callback());
  const oauth = new OAuth2Server({
    model: {
      generateAccessToken: async () => randomUUID(),
      getClient: async (id, secret) =>
        id === client.client_id && secret === client.client_secret && { id, grants: client.grant_types },
      getUserFromClient: async () => ({}),
      saveToken: async (token, client, user) => ({ ...token, client, user }),
      validateScope: async () => ['read'],
    },
  });
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post('/token', async (request, response) => {
    const answer = new OAuth2Server.Response(response);
    await oauth.token(new OAuth2Server.Request(request), answer).catch(() => {});
    response.status(answer.status).set(answer.headers).send(answer.body);
  });
  const plain = app.listen(0, '127.0.0.1', () =>
    console.log(`ready ${strict.address().port} ${plain.address().port}`));
});
JS
node_modules/node/bin/node --no-warnings servers.mjs >log 2>&1 &
server=$!
for _ in $(seq 100); do
  grep -q '^ready' log && break
  sleep 0.1
done
read -r _ strict plain < <(grep '^ready' log)
ask() {
  local status code
  status=$(curl -s -o answer -w '%{http_code}' -u "$2" -d grant_type=client_credentials "http://127.0.0.1:$1/token")
  code=$(sed -n 's/.*"error":"\([a-z_]*\)".*/\1/p' answer)
  echo "$status${code:+ $code}"
}
seen=$(
  echo "oidc-provider, encoded: $(ask "$strict" 'app:a%2Bb%2Fc%25')"
  echo "oidc-provider, plain: $(ask "$strict" 'app:a+b/c%')"
  echo "oauth2-server, encoded: $(ask "$plain" 'app:a%2Bb%2Fc%25')"
  echo "oauth2-server, plain: $(ask "$plain" 'app:a+b/c%')"
)
echo "$seen"
[ "$seen" = "oidc-provider, encoded: 200
oidc-provider, plain: 400 invalid_request
oauth2-server, encoded: 401 invalid_client
oauth2-server, plain: 200" ] || { echo "they behave otherwise now" >&2; exit 1; }
