// koa-ratelimit.js PORT: five in six seconds, kept in memory.
const Koa = require('koa');
const limit = require('koa-ratelimit');

const app = new Koa();
app.use(limit({ driver: 'memory', db: new Map(), duration: 6000, max: 5 }));
app.use((context) => {
  context.body = 'ok';
});
app.listen(Number(process.argv[2]), '127.0.0.1');
