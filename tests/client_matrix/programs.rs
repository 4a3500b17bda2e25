//! Which clients are in the matrix, and how each is started.

/// The way in which a URL is asked.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Clear,
    Upgrade,
    Tls,
    Mutual,
}

/// A row of the page.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) name: &'static str,
    /// A line for the shell that prints its version.
    pub(super) version: &'static str,
    /// The words of its start; the questions follow.
    pub(super) command: &'static str,
    /// What a user can do about what is not `ok`.
    pub(super) remedy: &'static str,
    /// Whether its reading of NO_PROXY is asked as well.
    pub(super) has_forms: bool,
    /// Whether it sends a message and gets it back, besides the greeting.
    pub(super) echoes: bool,
    pub(super) is_grpc: bool,
    /// Whether `exec --no-password` is needed.
    pub(super) is_without_password: bool,
}

pub(super) const fn client(
    name: &'static str,
    version: &'static str,
    command: &'static str,
    remedy: &'static str,
) -> Client {
    Client {
        name,
        version,
        command,
        remedy,
        has_forms: true,
        echoes: false,
        is_grpc: false,
        is_without_password: false,
    }
}

/// One that never asks the proxy, so that NO_PROXY says nothing to it.
pub(super) const fn past(
    name: &'static str,
    version: &'static str,
    command: &'static str,
    remedy: &'static str,
) -> Client {
    Client {
        has_forms: false,
        ..client(name, version, command, remedy)
    }
}

const fn grpc(name: &'static str, version: &'static str, command: &'static str) -> Client {
    Client {
        echoes: true,
        is_grpc: true,
        ..client(name, version, command, "")
    }
}

impl Client {
    pub(super) const fn without_password(self) -> Self {
        Self {
            is_without_password: true,
            ..self
        }
    }

    /// Without the questions about NO_PROXY.
    pub(super) const fn without_forms(self) -> Self {
        Self {
            has_forms: false,
            ..self
        }
    }

    pub(super) const fn echoing(self) -> Self {
        Self { echoes: true, ..self }
    }
}

const AGENT: &str = "an agent in code: the row *with agent*; or Node 22.21 and later";

pub(super) const NO_PASSWORD: &str = "`exec --no-password`, as here";
const CHROMIUM: &str = "`exec --no-password`, and outrider's authority, the first certificate of the file in SSL_CERT_FILE: \
    `certutil -d sql:$HOME/.pki/nssdb -A -n outrider -t C,, -a`, the next row; or `http://` to a destination with `tls`";

// Each of these starts a process a question: the wider set asks for their NO_PROXY.
pub(super) const NPM: Client = client("npm", "npm --version", "sh @CLIENTS@/npm.sh", "");
pub(super) const YARN: Client = client(
    "yarn 4",
    "grep '\"version\"' @TOOLS@/clients/node_modules/@yarnpkg/cli-dist/package.json",
    "sh @CLIENTS@/yarn.sh",
    "",
);
pub(super) const PIP: Client = client(
    "pip",
    "@TOOLS@/venv/bin/python -m pip --version",
    "sh @CLIENTS@/pip.sh",
    "",
);

/// Slow ones first: the end does not wait for one.
pub(super) const CLIENTS: &[Client] = &[
    client(
        "Chromium",
        "chromium --version",
        "sh @CLIENTS@/chromium.sh",
        CHROMIUM,
    )
    .without_password(),
    client(
        "Chromium with the authority",
        "chromium --version",
        "sh @CLIENTS@/chromium.sh trusted",
        NO_PASSWORD,
    )
    .without_password(),
    NPM.without_forms(),
    YARN.without_forms(),
    PIP.without_forms(),
    client("cargo", "@CARGO@ --version", "sh @CLIENTS@/cargo.sh", ""),
    client("Go net/http", "go version", "go run @CLIENTS@/client.go", ""),
    client(
        "Java HttpClient",
        "java -version",
        "java @CLIENTS@/Client.java HttpClient",
        NO_PASSWORD,
    )
    .without_password(),
    client(
        "Java URLConnection",
        "java -version",
        "java @CLIENTS@/Client.java HttpsURLConnection",
        NO_PASSWORD,
    )
    .without_password(),
    client("curl", "curl --version", "sh @CLIENTS@/curl.sh", ""),
    client("wget", "wget --version", "sh @CLIENTS@/wget.sh", ""),
    client("git", "git --version", "sh @CLIENTS@/git.sh", ""),
    client(
        "Python urllib",
        "@TOOLS@/venv/bin/python --version",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py urllib",
        "",
    ),
    client(
        "Python requests",
        "@TOOLS@/venv/bin/python -c 'import requests; print(requests.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py requests",
        "",
    ),
    client(
        "Python httpx",
        "@TOOLS@/venv/bin/python -c 'import httpx; print(httpx.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py httpx",
        "",
    ),
    past(
        "Python aiohttp",
        "@TOOLS@/venv/bin/python -c 'import aiohttp; print(aiohttp.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py aiohttp",
        "`ClientSession(trust_env=True)`: the next row",
    ),
    client(
        "aiohttp `trust_env`",
        "@TOOLS@/venv/bin/python -c 'import aiohttp; print(aiohttp.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py aiohttp-env",
        "",
    ),
    past(
        "Python urllib3",
        "@TOOLS@/venv/bin/python -c 'import urllib3; print(urllib3.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py urllib3",
        "`ProxyManager`: the next row",
    ),
    client(
        "urllib3 `ProxyManager`",
        "@TOOLS@/venv/bin/python -c 'import urllib3; print(urllib3.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py urllib3-manager",
        "",
    ),
    client(
        "boto3",
        "@TOOLS@/venv/bin/python -c 'import boto3; print(boto3.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py boto3",
        "",
    ),
    client(
        "Python websockets",
        "@TOOLS@/venv/bin/python -c 'import websockets; print(websockets.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py websockets",
        "",
    )
    .echoing(),
    grpc(
        "grpcio",
        "@TOOLS@/venv/bin/python -c 'import grpc; print(grpc.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py grpcio",
    ),
    grpc(
        "grpc-js",
        "grep '\"version\"' @TOOLS@/clients/node_modules/@grpc/grpc-js/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js grpc-js",
    ),
    past(
        "Node 20 fetch",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js fetch",
        "undici's `EnvHttpProxyAgent`: the row *with undici*",
    ),
    client(
        "Node 20 fetch with undici",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js undici",
        "",
    ),
    past(
        "Node 20 http",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js http",
        AGENT,
    ),
    client(
        "Node 20 http with agent",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js http-agent",
        "",
    ),
    past(
        "Node 20 AWS SDK v3",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js aws-sdk",
        AGENT,
    ),
    client(
        "Node 20 AWS SDK v3 with agent",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js aws-sdk-agent",
        "",
    ),
    client(
        "Node 22 fetch",
        "@TOOLS@/nodes/node_modules/node22/bin/node --version",
        "@TOOLS@/nodes/node_modules/node22/bin/node @CLIENTS@/node.js fetch",
        "",
    ),
    client(
        "Node 22 http",
        "@TOOLS@/nodes/node_modules/node22/bin/node --version",
        "@TOOLS@/nodes/node_modules/node22/bin/node @CLIENTS@/node.js http",
        "",
    ),
    client(
        "Node 22 AWS SDK v3",
        "@TOOLS@/nodes/node_modules/node22/bin/node --version",
        "@TOOLS@/nodes/node_modules/node22/bin/node @CLIENTS@/node.js aws-sdk",
        "",
    ),
    client(
        "Node 22 OTLP exporter",
        "@TOOLS@/nodes/node_modules/node22/bin/node --version",
        "@TOOLS@/nodes/node_modules/node22/bin/node @CLIENTS@/node.js otlp",
        "",
    )
    .without_forms(),
    client(
        "Node 24 fetch",
        "@TOOLS@/node_modules/node/bin/node --version",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js fetch",
        "",
    ),
    client(
        "Node 24 http",
        "@TOOLS@/node_modules/node/bin/node --version",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js http",
        "",
    ),
    client(
        "Node 24 AWS SDK v3",
        "@TOOLS@/node_modules/node/bin/node --version",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js aws-sdk",
        "",
    ),
    client(
        "Node 24 OTLP exporter",
        "@TOOLS@/node_modules/node/bin/node --version",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js otlp",
        "",
    )
    .without_forms(),
    client(
        "Node 26 fetch",
        "@TOOLS@/nodes/node_modules/node26/bin/node --version",
        "@TOOLS@/nodes/node_modules/node26/bin/node @CLIENTS@/node.js fetch",
        "",
    ),
    client(
        "Node 26 http",
        "@TOOLS@/nodes/node_modules/node26/bin/node --version",
        "@TOOLS@/nodes/node_modules/node26/bin/node @CLIENTS@/node.js http",
        "",
    ),
    client(
        "Node 26 AWS SDK v3",
        "@TOOLS@/nodes/node_modules/node26/bin/node --version",
        "@TOOLS@/nodes/node_modules/node26/bin/node @CLIENTS@/node.js aws-sdk",
        "",
    ),
    client(
        "Node 26 OTLP exporter",
        "@TOOLS@/nodes/node_modules/node26/bin/node --version",
        "@TOOLS@/nodes/node_modules/node26/bin/node @CLIENTS@/node.js otlp",
        "",
    )
    .without_forms(),
    client(
        "Deno fetch",
        "@TOOLS@/clients/node_modules/deno/deno --version",
        "@TOOLS@/clients/node_modules/deno/deno run --allow-all --no-config @CLIENTS@/fetch.js",
        "",
    ),
    client(
        "Bun fetch",
        "@TOOLS@/clients/node_modules/bun/bin/bun.exe --version",
        "@TOOLS@/clients/node_modules/bun/bin/bun.exe @CLIENTS@/fetch.js",
        "",
    ),
    client(
        "Ruby Net::HTTP",
        "ruby --version",
        "ruby @CLIENTS@/ruby.rb net",
        "",
    ),
    client("PHP curl", "php --version", "php @CLIENTS@/php.php curl", ""),
    client("PHP Guzzle", "php --version", "php @CLIENTS@/php.php guzzle", ""),
    past(
        "PHP streams",
        "php --version",
        "php @CLIENTS@/php.php streams",
        "a stream context: the next row",
    ),
    client(
        "PHP streams with context",
        "php --version",
        "php @CLIENTS@/php.php context",
        "",
    ),
    client(
        "Perl LWP",
        "perl -MLWP -e 'print LWP->VERSION'",
        "perl @CLIENTS@/perl.pl lwp",
        "",
    ),
    client(
        "Perl HTTP::Tiny",
        "perl -MHTTP::Tiny -e 'print HTTP::Tiny->VERSION'",
        "perl @CLIENTS@/perl.pl tiny",
        "",
    ),
    client(
        "R download.file",
        "Rscript --version",
        "Rscript @CLIENTS@/r.R download",
        "",
    ),
    client(
        "R curl",
        "Rscript -e 'cat(as.character(packageVersion(\"curl\")))'",
        "Rscript @CLIENTS@/r.R curl",
        "`new_handle(cainfo = …)`: the next row; or `http://` to a destination with `tls`",
    ),
    client(
        "R curl with cainfo",
        "Rscript -e 'cat(as.character(packageVersion(\"curl\")))'",
        "Rscript @CLIENTS@/r.R curl-cainfo",
        "",
    ),
];
