// better-auth.js PORT: five in six seconds. In development it counts requests without X-Forwarded-For as one caller's.
process.env.NODE_ENV = 'development';
const { createServer } = require('node:http');
const { betterAuth } = require('better-auth');
const { toNodeHandler } = require('better-auth/node');

const port = Number(process.argv[2]);
const auth = betterAuth({
  baseURL: `http://127.0.0.1:${port}`,
  secret: 'only for these tests, and long enough',
  rateLimit: { enabled: true, window: 6, max: 5 },
  logger: { disabled: true },
});
createServer(toNodeHandler(auth)).listen(port, '127.0.0.1');
