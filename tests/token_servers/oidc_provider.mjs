// oidc-provider, which reads client_secret_basic form-encoded. One JSON argument: packages, id, secret.
// Prints `ready PORT`, then `asked` for each token request.
import http from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { packages, id, secret } = JSON.parse(process.argv[2]);
const require = createRequire(packages + '/');
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      { client_id: id, client_secret: secret, redirect_uris: [], response_types: [], grant_types: ['client_credentials'] },
    ],
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
  });
  const callback = provider.callback();
  server.on('request', (request, response) => {
    console.log('asked');
    callback(request, response);
  });
  console.log(`ready ${port}`);
});
