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
const tools = `${process.env.TOOLS}/further/node_modules`;
const proxy = () => {
  const { origin, username, password } = new URL(process.env.HTTPS_PROXY);
  return { server: origin, username, password, bypass: process.env.NO_PROXY };
};
const echo = (url, options) => new Promise((done, fail) => {
  const socket = new (require("ws"))(url.replace("http", "ws"), options), heard = [];
  socket.on("error", fail).on("message", message => {
    if (heard.push(message) === 2) { socket.terminate(); done(heard.join(" ")); } else socket.send("and back");
  });
});
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
    new grpc.Client(url.split("/")[2], credentials).makeUnaryRequest("/hello/hello", bytes, bytes, Buffer.from("and back"),
      { deadline: Date.now() + 10000 }, (error, value) => error ? fail(error) : done(String(value)));
  }),
  // It has an agent of its own, and logs what the origin says of the spans.
  otlp: url => new Promise((done, fail) => {
    const { diag, DiagLogLevel } = require("@opentelemetry/api");
    const { BasicTracerProvider } = require("@opentelemetry/sdk-trace-base");
    const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-http");
    const none = () => {}, said = [];
    diag.setLogger({ error: none, info: none, debug: none, verbose: none, warn: (...words) => said.push(JSON.stringify(words)) },
      { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
    const exporter = new OTLPTraceExporter({ url: `${url}v1/traces`, timeoutMillis: 2000 });
    const onEnd = span => exporter.export([span], ({ error }) => error ? fail(error) : done(said.join("\n")));
    const processor = { onStart: none, onEnd, forceFlush: none, shutdown: none };
    new BasicTracerProvider({ spanProcessors: [processor] }).getTracer("matrix").startSpan("one").end();
  }),
  axios: async url => { const answer = await require("axios").get(url); return `${answer.status} ${answer.data}`; },
  got: async url => (await import(`${tools}/got/dist/source/index.js`)).got(url, { retry: { limit: 0 } }).text(),
  "node-fetch": async url => { const answer = await (await import(`${tools}/node-fetch/src/index.js`)).default(url); return `${answer.status} ${await answer.text()}`; },
  superagent: async url => (await require("superagent").get(url)).text,
  gaxios: async url => (await require("gaxios").request({ url, responseType: "text" })).data,
  azure: async url => {
    const { createPipelineRequest, createDefaultHttpClient, createPipelineFromOptions } = require("@azure/core-rest-pipeline");
    const request = createPipelineRequest({ url, allowInsecureConnection: true });
    const answer = await createPipelineFromOptions({ retryOptions: { maxRetries: 0 } }).sendRequest(createDefaultHttpClient(), request);
    return `${answer.status} ${answer.bodyAsText}`;
  },
  elasticsearch: async url => {
    const { Client } = require("@elastic/elasticsearch");
    const answer = await new Client({ node: url, maxRetries: 0 }).transport.request({ method: "GET", path: "/" }, { meta: true });
    return `${answer.statusCode} ${answer.body}`;
  },
  ws: url => echo(url),
  "ws-agent": url => echo(url, { agent: new (require("https-proxy-agent").HttpsProxyAgent)(process.env.HTTPS_PROXY) }),
  playwright: async url => {
    const browser = await require("playwright-core").chromium.launch({ executablePath: "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-dev-shm-usage"], proxy: proxy() });
    try {
      const page = await browser.newPage(), answer = await page.goto(url, { timeout: 15000 });
      return `${answer.status()} ${await answer.text()}`;
    } finally { await browser.close(); }
  },
}[kind];
(async () => {
  for (const cell of cells) {
    const at = cell.indexOf("=");
    console.log("==", cell.slice(0, at));
    try { console.log(await ask(cell.slice(at + 1))); }
    catch (error) { console.log(String(error), error.code ?? "", String(error.cause ?? ""), String(error.cause?.message ?? ""), error.$response?.statusCode ?? "", error.data ?? ""); }
  }
  process.exit(0);
})();
