//! Answers before the final one as real programs say and hear them.

use crate::support::partner::destination;
use crate::support::programs::{curl, node, python};
use crate::support::{Nginx, Origin, Pki, Proxy, TOKEN, ok, run};

/// Node as the origin, and Node as the app: all that its `http` can say and hear of it.
#[test]
fn node_hears_what_node_says() {
    let port = crate::support::closed_port();
    let proxy = Proxy::to(&format!("partner.test:{port}"), "");
    let script = format!(
        r#"
const http = require("node:http");
const assert = require("node:assert");
const server = http.createServer((request, response) => {{
  response.writeProcessing();
  response.writeEarlyHints({{ link: "</style.css>; rel=preload" }}, () => response.end("done"));
}});
server.on("checkContinue", (request, response) => {{
  if (request.url === "/no") return response.writeHead(401, {{ "content-length": 0 }}).end();
  response.writeContinue();
  let length = 0;
  request.on("data", (data) => (length += data.length)).on("end", () => response.end("" + length));
}});
const ask = (path, method, body) => new Promise((resolve, reject) => {{
  const heard = [];
  const headers = body ? {{ expect: "100-continue", "content-length": body.length }} : {{}};
  headers.host = "partner.test:{port}";
  const request = http.request({{
    host: "{ip}", port: {proxy_port}, method, headers, path: "http://partner.test:{port}" + path,
  }});
  request.on("information", (info) => heard.push(info.statusCode + " " + (info.headers.link ?? "")));
  request.on("continue", () => {{ heard.push("go on"); request.end(body); }});
  request.on("error", reject);
  request.on("response", (response) => {{
    let text = "";
    response.on("data", (data) => (text += data)).on("end", () => {{
      heard.push(response.statusCode + " " + text);
      request.destroy();
      resolve(heard);
    }});
  }});
  body ? request.flushHeaders() : request.end();
}});
server.listen({port}, "127.0.0.1", async () => {{
  assert.deepEqual(await ask("/", "GET"), ["102 ", "103 </style.css>; rel=preload", "200 done"]);
  assert.deepEqual(await ask("/yes", "POST", Buffer.alloc(300000)), ["go on", "100 ", "200 300000"]);
  assert.deepEqual(await ask("/no", "POST", Buffer.alloc(300000)), ["401 "]);
  console.log("all heard");
  process.exit(0);
}});
"#,
        ip = proxy.address().ip(),
        proxy_port = proxy.address().port(),
    );
    let done = run(&mut node(&script));
    assert_eq!(done.succeeded().stdout, "all heard\n", "{done:?}");
}

/// curl uploads nothing where nginx refuses at once, and all of it where nginx says 100.
#[test]
fn curl_uploads_to_nginx_only_what_is_wanted() {
    let pki = Pki::new();
    let nginx = Nginx::with(
        &pki,
        "location = /no { client_max_body_size 100m; return 401; }
         location /put/ { root .; dav_methods PUT; create_full_put_path on; client_max_body_size 100m; }
         location = /large { client_max_body_size 1k; proxy_pass http://127.0.0.1:1; }",
    );
    let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'x'; 4 << 20]).unwrap();
    let put = |path: &str| {
        run(
            curl(["--expect100-timeout", "10", "--header", "Expect: 100-continue"])
                .arg("--upload-file")
                .arg(&file)
                .args([
                    "--output",
                    "/dev/null",
                    "--write-out",
                    "%{http_code} %{size_upload}",
                ])
                .args(["--proxy", &format!("http://{}", proxy.address())])
                .arg(format!("http://{}{path}", nginx.authority())),
        )
    };
    assert_eq!(put("/no").succeeded().stdout, "401 0");
    assert_eq!(put("/large").succeeded().stdout, "413 0");
    assert_eq!(put("/put/a").succeeded().stdout, format!("201 {}", 4 << 20));
}

/// Python's server sends 100 by itself, or refuses in a handler.
#[test]
fn python_gives_leave_or_does_not() {
    let port = crate::support::closed_port();
    let proxy = Proxy::to(&format!("partner.test:{port}"), "");
    let script = format!(
        r#"
import http.server, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def handle_expect_100(self):
        if self.path == "/no":
            self.send_error(413)
            return False
        return super().handle_expect_100()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
def ask(path):
    wire = socket.create_connection(("{ip}", {proxy_port}), timeout=15)
    wire.sendall(b"POST http://partner.test:{port}" + path + b" HTTP/1.1\r\nHost: partner.test:{port}\r\n"
                 b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    first = wire.recv(9999)
    if first.startswith(b"HTTP/1.1 100 "):
        wire.sendall(b"hello")
        first = wire.recv(9999)
        while not first.endswith(b"hello"):
            first += wire.recv(9999)
    return first
assert ask(b"/").endswith(b"hello")
assert ask(b"/no").startswith(b"HTTP/1.1 413 ")
print("both")
"#,
        ip = proxy.address().ip(),
        proxy_port = proxy.address().port(),
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "both\n", "{done:?}");
}

/// The SDK of AWS waits for leave before it uploads to S3.
#[test]
fn botocore_uploads_only_what_is_wanted() {
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request_head() {
            assert_eq!(request.headers.get("expect"), Some("100-continue"));
            if request.target().starts_with("/no/") {
                let text = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
                wire.send(ok("Content-Type: application/xml\r\n", text).replacen(
                    "200 OK",
                    "403 Forbidden",
                    1,
                ));
                return;
            }
            wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            let length = request.headers.get("content-length").unwrap().parse().unwrap();
            let body = wire.read_exact(length).unwrap();
            wire.send(ok(&format!("ETag: \"{}\"\r\n", body.len()), ""));
        }
    });
    let proxy = origin.proxy("");
    let script = format!(
        r#"
import io, botocore.session
from botocore.config import Config
client = botocore.session.get_session().create_client(
    "s3", region_name="us-east-1", endpoint_url="http://{authority}", aws_access_key_id="a", aws_secret_access_key="b",
    config=Config(proxies={{"http": "http://{proxy}"}}, retries={{"max_attempts": 0}}, s3={{"addressing_style": "path"}},
                  request_checksum_calculation="when_required"))
body = lambda: io.BytesIO(b"x" * (2 << 20))
assert client.put_object(Bucket="yes", Key="k", Body=body())["ETag"] == '"%d"' % (2 << 20)
try:
    client.put_object(Bucket="no", Key="k", Body=body())
    raise SystemExit("was not refused")
except client.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "AccessDenied", error
print("both")
"#,
        authority = origin.authority(),
        proxy = proxy.address(),
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "both\n", "{done:?}");
    let sent: usize = origin.seen().iter().map(|seen| seen.bytes.len()).sum();
    assert!(
        sent < (2 << 20) + 10_000,
        "{sent}: nothing of the second one was uploaded"
    );
}
