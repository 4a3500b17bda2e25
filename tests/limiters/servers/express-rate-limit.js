// express-rate-limit.js PORT FORM [user]: a limiter of its own for each of two routes, five in six seconds; FORM is
// `default`, `draft-7` or `draft-8`. With `user`, one limiter that counts each Authorization apart.
const express = require('express');
const { rateLimit } = require('express-rate-limit');

const [port, form, user] = process.argv.slice(2);
const options = { windowMs: 6000, limit: 5 };
if (form !== 'default') options.standardHeaders = form;
if (user) options.keyGenerator = (request) => request.get('authorization') ?? '';

const app = express();
for (const route of ['/search', '/items']) {
  app.get(route, rateLimit(options), (request, response) => response.send('ok'));
}
app.listen(Number(port), '127.0.0.1');
