// nestjs-throttler.js PORT default|named: two handlers. `default` counts five in six seconds, `named` also thirty in a
// minute, each under its name.
require('reflect-metadata');
const { Controller, Get, Module } = require('@nestjs/common');
const { APP_GUARD, NestFactory } = require('@nestjs/core');
const { ThrottlerGuard, ThrottlerModule } = require('@nestjs/throttler');

const [port, form] = process.argv.slice(2);
const throttlers =
  form === 'named'
    ? [
        { name: 'short', ttl: 6000, limit: 5 },
        { name: 'long', ttl: 60000, limit: 30 },
      ]
    : [{ ttl: 6000, limit: 5 }];

class Routes {
  search() {
    return 'ok';
  }
  items() {
    return 'ok';
  }
}
// What TypeScript makes of the decorators.
for (const name of ['search', 'items']) {
  Get(name)(Routes.prototype, name, Object.getOwnPropertyDescriptor(Routes.prototype, name));
}
Controller()(Routes);

class App {}
Module({
  imports: [ThrottlerModule.forRoot(throttlers)],
  controllers: [Routes],
  providers: [{ provide: APP_GUARD, useClass: ThrottlerGuard }],
})(App);

NestFactory.create(App, { logger: ['error'] }).then((app) => app.listen(Number(port), '127.0.0.1'));
