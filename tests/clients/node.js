const [kind, ...cells] = process.argv.slice(2);
const get = (module, url, options = {}) => new Promise((done, fail) =>
  require(module).get(url, { timeout: 10000, ...options }, answer => {
    let text = `${answer.statusCode} `; answer.on("data", part => text += part); answer.on("end", () => done(text));
  }).on("error", fail));
const s3 = async (endpoint, requestHandler) => {
  const { S3Client, GetObjectCommand } = require("@aws-sdk/client-s3");
  const credentials = { accessKeyId: "a", secretAccessKey: "b" };
  const client = new S3Client({ endpoint, credentials, region: "us-east-1", forcePathStyle: true, maxAttempts: 1, requestHandler });
  return (await client.send(new GetObjectCommand({ Bucket: "b", Key: "k" }))).Body.transformToString();
};
const ask = {
  fetch: async url => { const answer = await fetch(url); return `${answer.status} ${await answer.text()}`; },
  http: url => get(url.split(":")[0], url),
  "aws-sdk": url => s3(url),
  undici: async url => {
    const { fetch, EnvHttpProxyAgent } = require("undici");
    const answer = await fetch(url, { dispatcher: new EnvHttpProxyAgent() }); return `${answer.status} ${await answer.text()}`;
  },
  "aws-sdk-agent": url => {
    const { HttpProxyAgent } = require("http-proxy-agent"), { HttpsProxyAgent } = require("https-proxy-agent");
    return s3(url, { httpAgent: new HttpProxyAgent(process.env.HTTP_PROXY), httpsAgent: new HttpsProxyAgent(process.env.HTTPS_PROXY) });
  },
  "http-agent": url => {
    const { HttpProxyAgent } = require("http-proxy-agent"), { HttpsProxyAgent } = require("https-proxy-agent");
    const agent = url.startsWith("https") ? new HttpsProxyAgent(process.env.HTTPS_PROXY) : new HttpProxyAgent(process.env.HTTP_PROXY);
    return get(url.split(":")[0], url, { agent });
  },
  "grpc-js": url => new Promise((done, fail) => {
    const grpc = require("@grpc/grpc-js"), bytes = value => value;
    const credentials = url.startsWith("https") ? grpc.credentials.createSsl() : grpc.credentials.createInsecure();
    new grpc.Client(url.split("/")[2], credentials).makeUnaryRequest("/hello/hello", bytes, bytes, Buffer.alloc(0),
      { deadline: Date.now() + 10000 }, (error, value) => error ? fail(error) : done(String(value)));
  }),
}[kind];
(async () => {
  for (const cell of cells) {
    const at = cell.indexOf("=");
    console.log("==", cell.slice(0, at));
    try { console.log(await ask(cell.slice(at + 1))); }
    catch (error) { console.log(String(error), error.code ?? "", String(error.cause ?? ""), String(error.cause?.message ?? ""), error.$response?.statusCode ?? ""); }
  }
  process.exit(0);
})();
