// express-rate-limit.js PORT FORM [WHAT]: two routes, and a limiter of its own for each, five in six seconds. FORM says
// which fields it sends: `default`, `draft-6`, `draft-7` or `draft-8`. WHAT is `user`: each Authorization is counted
// apart; `host`: each host name is; or `hour`: five in an hour, and the second route has no limit.
const express = require('express');
const { rateLimit } = require('express-rate-limit');

const [port, form, what] = process.argv.slice(2);
const options = { windowMs: what === 'hour' ? 3600000 : 6000, limit: 5 };
if (form !== 'default') options.standardHeaders = form;
if (what === 'user') options.keyGenerator = (request) => request.get('authorization') ?? '';
if (what === 'host') options.keyGenerator = (request) => request.hostname;

const app = express();
const ok = (request, response) => response.send('ok');
app.get('/search', rateLimit(options), ok);
app.get('/items', ...(what === 'hour' ? [] : [rateLimit(options)]), ok);
app.listen(Number(port), '127.0.0.1');
