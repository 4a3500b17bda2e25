// Written by outrider. With NODE_USE_ENV_PROXY, Node's own agents heed the proxy variables; this makes those heed them
// that a library creates. It does nothing where Node cannot (before 22.21 and 24.5), and leaves alone every agent that
// opens connections in a way of its own.
'use strict';
const [major, minor] = process.versions.node.split('.').map(Number);
const knows = major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21);
if (knows && process.env.NODE_USE_ENV_PROXY === '1' && !process.versions.bun && !process.versions.deno) {
  const opens = ['addRequest', 'createConnection', 'createSocket'];
  // Not `require`: under the permission model this is the text of an --import, not a file.
  const load = process.getBuiltinModule;
  for (const library of [load('node:http'), load('node:https')]) {
    const own = library.Agent;
    const isPlain = (prototype) => opens.every((name) => prototype[name] === own.prototype[name]);
    const heeding = ([options, ...rest]) => [{ proxyEnv: process.env, ...options }, ...rest];
    library.Agent = new Proxy(own, {
      construct: (_, args, made) => Reflect.construct(own, isPlain(made.prototype) ? heeding(args) : args, made),
      apply(_, self, args) {
        if (!(self instanceof own)) return new library.Agent(...args);
        return Reflect.apply(own, self, isPlain(self) ? heeding(args) : args);
      },
    });
    own.prototype.constructor = library.Agent;
  }
  load('node:module').syncBuiltinESMExports();
}
