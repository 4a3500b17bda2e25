// A real authorization server (oidc-provider) and a resource server that takes only its tokens, or ones that their
// client has signed itself (jose). One JSON argument: where packages lie, certificates, the clients' public keys.
// Prints `ready` and where everything listens. Steered over plain HTTP: see `control`.
import { createHash, createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const given = JSON.parse(process.argv[2]);
const require = createRequire(given.packages + '/');
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { default: Provider, errors } = await load('oidc-provider');
const jose = await load('jose');

const tls = {
  cert: readFileSync(given.cert),
  key: readFileSync(given.key),
  ca: readFileSync(given.ca),
  requestCert: true,
  rejectUnauthorized: false,
};
const listen = (server, port = 0) =>
  new Promise((done, failed) => server.once('error', failed).listen(port, '127.0.0.1', () => done(server.address().port)));
const json = (response, status, body) =>
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));

const state = { api: [], held: [], lifetime: 3600, mode: 'ok', requests: [], tokens: new Set() };

const door = https.createServer(tls);
const port = await listen(door);
const issuer = `https://login.test:${port}`;
const grants = {
  exchange: 'urn:ietf:params:oauth:grant-type:token-exchange',
  bearer: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
};
const keys = Object.entries(given.keys).map(([alg, pem]) => [alg, createPublicKey(pem)]);
const client = (client_id, token_endpoint_auth_method, more) => ({
  client_id,
  token_endpoint_auth_method,
  redirect_uris: [],
  response_types: [],
  grant_types: ['client_credentials'],
  scope: 'read write',
  ...more,
});
const provider = new Provider(issuer, {
  clients: [
    client('app basic', 'client_secret_basic', { client_secret: given.secret }),
    client('post', 'client_secret_post', { client_secret: given.secret }),
    ...keys.map(([alg, key]) =>
      client(`signed-${alg}`, 'private_key_jwt', {
        token_endpoint_auth_signing_alg: alg,
        jwks: { keys: [{ ...key.export({ format: 'jwk' }), kid: `key-${alg}`, use: 'sig' }] },
      })),
    client('certificate', 'tls_client_auth', {
      tls_client_auth_subject_dn: 'CN=app',
      tls_client_certificate_bound_access_tokens: true,
    }),
    client('refresh', 'client_secret_basic', {
      client_secret: given.secret,
      redirect_uris: ['https://app.test/back'],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid offline_access read',
    }),
    client('exchange', 'client_secret_basic', { client_secret: given.secret, grant_types: [grants.exchange] }),
    client('bearer', 'none', { grant_types: [grants.bearer] }),
  ],
  scopes: ['openid', 'offline_access', 'read', 'write'],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth', 'none'],
  enabledJWA: { clientAuthSigningAlgValues: [...keys.map(([alg]) => alg), 'Ed25519'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      certificateBoundAccessTokens: true,
      getCertificate: (ctx) => {
        const { raw } = ctx.req.socket.getPeerCertificate();
        return raw && new X509Certificate(raw);
      },
      certificateAuthorized: (ctx) => ctx.req.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) => {
        const { raw } = ctx.req.socket.getPeerCertificate();
        return property === 'tls_client_auth_subject_dn' && new X509Certificate(raw).subject === expected;
      },
    },
  },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  rotateRefreshToken: () => true,
  ttl: {
    AccessToken: () => state.lifetime,
    ClientCredentials: () => state.lifetime,
    Grant: 86400,
    RefreshToken: 86400,
  },
});

// A token of the client for what `check` finds in the request.
const issue = (check) => async (ctx) => {
  const { client } = ctx.oidc;
  const subject = await check(ctx.oidc.params).catch((cause) => {
    throw new errors.InvalidGrant('not valid', undefined, { cause });
  });
  const token = new provider.ClientCredentials({ client, scope: ctx.oidc.params.scope });
  token.extra = { subject };
  const access_token = await token.save();
  ctx.body = { access_token, expires_in: token.expiration, token_type: 'Bearer', issued_token_type: given.type };
};
provider.registerGrantType(
  grants.bearer,
  issue(async ({ assertion }) => {
    const key = keys.find(([alg]) => alg === 'RS256')[1];
    const { payload } = await jose.jwtVerify(assertion, key, { audience: `${issuer}/token`, issuer: 'app@service.test' });
    if (payload.jti === undefined || payload.scope !== 'read') throw new Error('no jti or scope');
    return payload.iss;
  }),
  new Set(['assertion', 'scope']),
);
provider.registerGrantType(
  grants.exchange,
  issue(async ({ subject_token, subject_token_type, resource }) => {
    if (subject_token !== given.subject || subject_token_type !== given.type) throw new Error('not the token');
    if (resource !== 'https://api.test/') throw new Error('not the resource');
    return 'exchanged';
  }),
  new Set(['subject_token', 'subject_token_type', 'requested_token_type', 'resource', 'audience', 'scope']),
);

const callback = provider.callback();
door.on('request', async (request, response) => {
  if (request.url.startsWith('/token')) {
    state.requests.push(Date.now());
    if (state.mode === 'reset') return request.socket.destroy();
    if (state.mode === 'busy') return json(response.setHeader('retry-after', '1'), 503, { error: 'temporarily_unavailable' });
    if (state.mode === 'redirect') return response.writeHead(307, { location: `${issuer}/elsewhere` }).end();
    if (state.mode === 'echo') {
      let body = '';
      for await (const piece of request) body += piece;
      const authorization = Buffer.from((request.headers.authorization ?? '').slice(6), 'base64');
      return json(response, 400, { error: 'invalid_request', error_description: `${authorization} ${decodeURIComponent(body)}` });
    }
    if (state.mode === 'hold') await new Promise((go) => state.held.push(go));
  }
  callback(request, response);
});

// What a resource server does with a token: RFC 6750, and RFC 8705 for those that are bound to a certificate.
const api = https.createServer(tls, async (request, response) => {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  request.resume();
  if (token) state.tokens.add(token);
  const refuse = () => {
    state.api.push(401);
    response.setHeader('www-authenticate', 'Bearer error="invalid_token"');
    json(response, 401, { error: 'invalid_token' });
  };
  try {
    if (request.url.startsWith('/forbidden')) return refuse();
    if (request.url.startsWith('/signed/')) {
      const alg = request.url.split('/')[2];
      const key = keys.find(([own]) => own === alg)[1];
      const { payload, protectedHeader } = await jose.jwtVerify(token, key, { algorithms: [alg], audience: 'api.test' });
      state.api.push(200);
      return json(response, 200, { ...payload, kid: protectedHeader.kid, token: createHash('sha256').update(token).digest('hex') });
    }
    const found = (await provider.ClientCredentials.find(token)) ?? (await provider.AccessToken.find(token));
    const { raw } = request.socket.getPeerCertificate();
    const thumbprint = raw && createHash('sha256').update(raw).digest('base64url');
    if (!found?.isValid || (found['x5t#S256'] && found['x5t#S256'] !== thumbprint)) return refuse();
    state.api.push(200);
    json(response, 200, { client: found.clientId, scope: found.scope, jti: found.jti, bound: found['x5t#S256'] !== undefined });
  } catch {
    refuse();
  }
});
const apiPort = await listen(api);

// A refresh token as a person would have got it.
const grant = new provider.Grant({ accountId: 'ann', clientId: 'refresh' });
grant.addOIDCScope('openid offline_access read');
const refreshToken = new provider.RefreshToken({
  accountId: 'ann',
  client: await provider.Client.find('refresh'),
  expiresWithSession: false,
  grantId: await grant.save(),
  gty: 'authorization_code',
  scope: 'openid offline_access read',
});

const control = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://control');
  const value = url.searchParams.get('value');
  switch (url.pathname) {
    case '/state':
      break;
    case '/mode':
      state.mode = value;
      for (const go of state.held.splice(0)) go();
      break;
    case '/lifetime':
      state.lifetime = Number(value);
      break;
    case '/revoke':
      for (const value of state.tokens) {
        const token = (await provider.ClientCredentials.find(value)) ?? (await provider.AccessToken.find(value));
        await token?.destroy();
      }
      break;
    case '/close':
      await new Promise((done) => door.close(done).closeAllConnections());
      break;
    case '/open':
      await listen(door, port);
      break;
  }
  json(response, 200, { requests: state.requests, api: state.api, held: state.held.length, tokens: [...state.tokens] });
});
console.log(`ready ${JSON.stringify({ port, api: apiPort, control: await listen(control), refresh: await refreshToken.save() })}`);
