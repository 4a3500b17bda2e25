// @node-oauth/oauth2-server below express, which reads client_secret_basic as it is. One JSON argument: packages, id,
// secret. Prints `ready PORT`, then `asked` for each token request.
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

const given = JSON.parse(process.argv[2]);
const require = createRequire(given.packages + '/');
const express = require('express');
const OAuth2Server = require('@node-oauth/oauth2-server');

const client = { id: given.id, grants: ['client_credentials'] };
const oauth = new OAuth2Server({
  model: {
    generateAccessToken: async () => randomUUID(),
    getClient: async (id, secret) => id === given.id && secret === given.secret && client,
    getUserFromClient: async () => ({}),
    saveToken: async (token, client, user) => ({ ...token, client, user }),
    validateScope: async () => ['read'],
  },
});

const app = express();
app.use(express.urlencoded({ extended: false }));
app.post('/token', async (request, response) => {
  console.log('asked');
  const answer = new OAuth2Server.Response(response);
  await oauth.token(new OAuth2Server.Request(request), answer).catch(() => {});
  response.status(answer.status).set(answer.headers).send(answer.body);
});
const server = app.listen(0, '127.0.0.1', () => console.log(`ready ${server.address().port}`));
