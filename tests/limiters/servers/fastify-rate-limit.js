// fastify-rate-limit.js PORT: five in six seconds.
const fastify = require('fastify');

const port = Number(process.argv[2]);
const app = fastify();
app.register(require('@fastify/rate-limit'), { max: 5, timeWindow: 6000 });
app.after(() => app.get('/search', async () => 'ok'));
app.listen({ port, host: '127.0.0.1' });
