#!/usr/bin/env bash
# nginx gives no leave to send a body over HTTP/2: `Expect: 100-continue` is never answered there.
#
# Versions: nginx 1.22.1 (Debian 12), Node 24.21.0 as the client.
# Behaviour: over HTTP/1.1 nginx answers `Expect: 100-continue` with 100 as soon as it wants the body. Over HTTP/2 the same
#   request to the same location gets nothing: nginx takes the body when it comes, and waits for it until then. A client
#   that waits for the 100 without a limit of its own waits for ever; RFC 9110 section 10.1.1 says that it should not.
# Guess that was wrong: what a server does with Expect does not depend on the version of HTTP.
# Output seen:
#   HTTP/1.1: 100, then 201
#   HTTP/2: silence for 3 s, then the body without leave, then 201
#
# Needs npm, and nginx from the system's packages. Everything is on loopback, in a temporary folder.
set -euo pipefail
PATH=$PATH:/usr/sbin
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$tmp"' EXIT
command -v nginx >/dev/null || { echo "nginx is missing: apt-get install nginx" >&2; exit 2; }
(cd "$tmp" && npm install --silent --no-audit --no-fund --no-save node@24.21.0)
node=$tmp/node_modules/node/bin/node
read -r old new < <("$node" -e '
const servers = [0, 0].map(() => require("net").createServer().listen(0, "127.0.0.1"));
Promise.all(servers.map((server) => new Promise((done) => server.on("listening", done)))).then(() => {
  console.log(servers.map((server) => server.address().port).join(" "));
  servers.forEach((server) => server.close());
});')
mkdir "$tmp/files"
cat >"$tmp/nginx.conf" <<CONF
daemon off;
master_process off;
pid $tmp/pid;
error_log stderr crit;
events {}
http {
  access_log off;
  client_body_temp_path $tmp/body;
  proxy_temp_path $tmp/proxy;
  fastcgi_temp_path $tmp/fastcgi;
  uwsgi_temp_path $tmp/uwsgi;
  scgi_temp_path $tmp/scgi;
  server {
    listen 127.0.0.1:$old;
    listen 127.0.0.1:$new http2;
    root $tmp/files;
    location / { dav_methods PUT; }
  }
}
CONF
nginx -p "$tmp" -c "$tmp/nginx.conf" -e stderr &
server=$!
cat >"$tmp/client.js" <<'JS'
const [old, fresh] = process.argv.slice(2).map(Number);
const { connect } = require("node:net");
const reach = (port) => new Promise((done) => {
  const socket = connect(port, "127.0.0.1", () => { socket.destroy(); done(true); });
  socket.on("error", () => done(false));
});
const said = (request, status, limit) => new Promise((resolve, reject) => {
  const heard = [];
  const timer = setTimeout(() => {
    heard.push(`silence for ${limit / 1000} s`, "the body without leave");
    request.end("hello");
  }, limit);
  request.on("continue", () => { clearTimeout(timer); heard.push("100"); request.end("hello"); });
  request.on("response", (response) => { clearTimeout(timer); heard.push(status(response)); resolve(heard.join(", then ")); });
  request.on("error", reject);
});
(async () => {
  for (let tries = 0; !(await reach(fresh)); tries++) {
    if (tries > 200) throw new Error("nginx does not listen");
    await new Promise((done) => setTimeout(done, 50));
  }
  const fields = { expect: "100-continue", "content-length": 5 };
  const first = require("node:http").request({ port: old, host: "127.0.0.1", method: "PUT", path: "/a", headers: fields });
  first.flushHeaders();
  const before = await said(first, (response) => response.statusCode, 3000);
  const session = require("node:http2").connect(`http://127.0.0.1:${fresh}`);
  const second = session.request({ ":method": "PUT", ":path": "/b", ...fields });
  const after = await said(second, (head) => head[":status"], 3000);
  console.log(`HTTP/1.1: ${before}\nHTTP/2: ${after}`);
  process.exit(before === "100, then 201" && after.startsWith("silence for 3 s, ") && after.endsWith("201") ? 0 : 1);
})();
JS
"$node" "$tmp/client.js" "$old" "$new"
