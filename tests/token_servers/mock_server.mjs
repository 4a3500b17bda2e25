// oauth2-mock-server, which takes any client. One JSON argument: packages. Prints `ready PORT`, then `asked` for each token request.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { packages } = JSON.parse(process.argv[2]);
const require = createRequire(packages + '/');
const { OAuth2Server } = await import(pathToFileURL(require.resolve('oauth2-mock-server')));

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
server.service.on('beforeResponse', () => console.log('asked'));
await server.start(0, '127.0.0.1');
console.log(`ready ${server.address().port}`);
