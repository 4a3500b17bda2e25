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
    pub(super) is_grpc: bool,
    /// Whether `exec --no-password` is needed.
    pub(super) is_without_password: bool,
}

const fn client(
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
        is_grpc: false,
        is_without_password: false,
    }
}

/// One process a question: its NO_PROXY is not asked.
const fn slow(
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
        is_grpc: true,
        ..slow(name, version, command, "")
    }
}

const fn java(name: &'static str, command: &'static str) -> Client {
    Client {
        is_without_password: true,
        ..client(name, "java -version", command, "`exec --no-password`, as here")
    }
}

const fn browser(
    name: &'static str,
    version: &'static str,
    command: &'static str,
    remedy: &'static str,
) -> Client {
    Client {
        is_without_password: true,
        ..slow(name, version, command, remedy)
    }
}

const AGENT: &str = "an agent in code: the row *with agent*; or Node 22.21 and later";

/// Slow ones first: the end does not wait for one.
pub(super) const CLIENTS: &[Client] = &[
    browser(
        "Chromium",
        "chromium --version",
        "sh @CLIENTS@/chromium.sh",
        "`exec --no-password`, and `http://` to a destination with `tls`",
    ),
    slow("npm", "npm --version", "sh @CLIENTS@/npm.sh", ""),
    slow(
        "pip",
        "@TOOLS@/venv/bin/python -m pip --version",
        "sh @CLIENTS@/pip.sh",
        "",
    ),
    slow("cargo", "@CARGO@ --version", "sh @CLIENTS@/cargo.sh", ""),
    client("Go net/http", "go version", "go run @CLIENTS@/client.go", ""),
    java("Java HttpClient", "java @CLIENTS@/Client.java HttpClient"),
    java(
        "Java HttpsURLConnection",
        "java @CLIENTS@/Client.java HttpsURLConnection",
    ),
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
    slow(
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
    slow(
        "Python urllib3",
        "@TOOLS@/venv/bin/python -c 'import urllib3; print(urllib3.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py urllib3",
        "`ProxyManager`: the next row",
    ),
    slow(
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
    slow(
        "Python websockets",
        "@TOOLS@/venv/bin/python -c 'import websockets; print(websockets.__version__)'",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py websockets",
        "",
    ),
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
    client(
        "Node 20 fetch",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js fetch",
        "undici's `EnvHttpProxyAgent`: the row *with undici*",
    ),
    slow(
        "Node 20 fetch with undici",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js undici",
        "",
    ),
    client(
        "Node 20 http",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js http",
        AGENT,
    ),
    slow(
        "Node 20 http with agent",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js http-agent",
        "",
    ),
    client(
        "Node 20 AWS SDK v3",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js aws-sdk",
        AGENT,
    ),
    slow(
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
    client("Ruby Net::HTTP", "ruby --version", "ruby @CLIENTS@/ruby.rb", ""),
    client("PHP curl", "php --version", "php @CLIENTS@/php.php curl", ""),
    client("PHP Guzzle", "php --version", "php @CLIENTS@/php.php guzzle", ""),
    slow(
        "PHP streams",
        "php --version",
        "php @CLIENTS@/php.php streams",
        "a stream context: the next row",
    ),
    slow(
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
    slow(
        "R curl with cainfo",
        "Rscript -e 'cat(as.character(packageVersion(\"curl\")))'",
        "Rscript @CLIENTS@/r.R curl-cainfo",
        "",
    ),
];
