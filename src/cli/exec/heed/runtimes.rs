//! The runtimes that are known to `exec --check`, and a program of one line for each.

/// A program that runs or sends requests, and what it heeds.
pub(super) struct Runtime {
    pub(super) name: &'static str,
    /// How the name of the program begins; a version may follow.
    pub(super) programs: &'static [&'static str],
    pub(super) version: &'static [&'static str],
    pub(super) ask: Ask,
    pub(super) heeds: &'static str,
    pub(super) ignores: &'static str,
}

/// How it is made to send a request for a URL, which comes last.
pub(super) enum Ask {
    Arguments(&'static [&'static str]),
    /// Arguments, the name of a file, and what to write there.
    File(&'static [&'static str], &'static str, &'static str),
    /// It cannot be.
    No(&'static str),
}

const NODE: &str = "const url = process.argv[1]; require(url.split(':')[0]).get(url, (answer) => answer.pipe(process.stdout)).on('error', \
    (error) => console.error(error.message))";
const PHP: &str = "$c = curl_init($argv[1]); curl_exec($c); echo curl_error($c);";
const PYTHON: &str = "import sys, urllib.request, urllib.error\ntry: urllib.request.urlopen(sys.argv[1])\n\
    except urllib.error.URLError as error: print(error)";
const PERL: &str = "use HTTP::Tiny; print HTTP::Tiny->new->get($ARGV[0])->{content}";
const R: &str = "tryCatch(cat(readLines(url(tail(commandArgs(TRUE), 1)))), warning = function(w) cat(conditionMessage(w)), error = \
    function(e) cat(conditionMessage(e)))";
const RUBY: &str = "require 'net/http'; begin; puts Net::HTTP.get(URI(ARGV[0])); rescue StandardError => e; puts e.message; end";
const FETCH: &str = "const url = globalThis.Deno ? Deno.args[0] : process.argv[2];\n\
    try { console.log(await (await fetch(url)).text()); } catch (error) { console.log(String(error)); }\n";
const JAVA: &str = "class Check {\n\
    public static void main(String[] urls) throws Exception {\n\
        var request = java.net.http.HttpRequest.newBuilder(java.net.URI.create(urls[0])).build();\n\
        var client = java.net.http.HttpClient.newHttpClient();\n\
        try {\n\
            System.out.println(client.send(request, java.net.http.HttpResponse.BodyHandlers.ofString()).body());\n\
        } catch (java.io.IOException error) {\n\
            System.out.println(error);\n\
        }\n\
        System.exit(0);\n\
    }\n\
}\n";
const GO_SOURCE: &str = "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n\t\"os\"\n)\n\nfunc main() {\n\
    \t_, err := http.Get(os.Args[1])\n\tfmt.Println(err)\n}\n";

pub(super) const GO: Runtime = Runtime {
    name: "a Go program",
    programs: &[],
    version: &[],
    ask: Ask::No(
        "a compiled program sends what it is made to send: run it under `outrider exec`, and look for it in the log",
    ),
    heeds: "net/http's default transport: the proxy variables, SSL_CERT_FILE",
    ignores: "them in a Transport without Proxy: http.ProxyFromEnvironment, or with RootCAs",
};

pub(super) const RUNTIMES: &[Runtime] = &[
    Runtime {
        name: "Node",
        programs: &["node", "nodejs"],
        version: &["--version"],
        ask: Ask::Arguments(&["-e", NODE]),
        heeds: "http and https from 22.21 and 24.5 on, with agents that a library creates (AWS SDK, OTLP, superagent); fetch \
                from 24 on; NODE_EXTRA_CA_CERTS",
        ignores: "everything before 22.21 (give its client a proxy agent); ws, WebSocket and undici's own Pool; `ca` in the \
                  code replaces the bundle",
    },
    Runtime {
        name: "Deno",
        programs: &["deno"],
        version: &["--version"],
        ask: Ask::File(&["run", "--allow-all", "--no-config"], "check.mjs", FETCH),
        heeds: "fetch, node:http and node:https; DENO_CERT",
        ignores: "the npm package ws",
    },
    Runtime {
        name: "Bun",
        programs: &["bun"],
        version: &["--version"],
        ask: Ask::File(&[], "check.mjs", FETCH),
        heeds: "fetch, node:https; NODE_EXTRA_CA_CERTS",
        ignores: "WebSocket and ws; certificates for addresses",
    },
    Runtime {
        name: "Python",
        programs: &["python"],
        version: &["--version"],
        ask: Ask::Arguments(&["-c", PYTHON]),
        heeds: "urllib, requests, httpx, boto3, grpcio, websockets; SSL_CERT_FILE, REQUESTS_CA_BUNDLE, AWS_CA_BUNDLE",
        ignores: "aiohttp without trust_env=True, urllib3 and http.client alone, tornado, elasticsearch, minio; pycurl heeds \
                  the proxy and not the bundle",
    },
    Runtime {
        name: "Java",
        programs: &["java"],
        version: &["-version"],
        ask: Ask::File(&[], "Check.java", JAVA),
        heeds: "HttpURLConnection, HttpClient and OkHttp, by JAVA_TOOL_OPTIONS",
        ignores: "Apache HttpClient's createDefault (createSystem heeds them); the password of `exec` (use --no-password)",
    },
    Runtime {
        name: "Ruby",
        programs: &["ruby"],
        version: &["--version"],
        ask: Ask::Arguments(&["-e", RUBY]),
        heeds: "Net::HTTP, faraday, httpclient, excon; SSL_CERT_FILE",
        ignores: "http.rb; typhoeus heeds the proxy and not the bundle",
    },
    Runtime {
        name: "PHP",
        programs: &["php"],
        version: &["--version"],
        ask: Ask::Arguments(&["-r", PHP, "--"]),
        heeds: "the curl extension, Guzzle, Symfony HttpClient; the .ini in PHP_INI_SCAN_DIR",
        ignores: "streams (file_get_contents, fopen); under php-fpm everything, unless clear_env = no",
    },
    Runtime {
        name: "Perl",
        programs: &["perl"],
        version: &["-e", "print $^V"],
        ask: Ask::Arguments(&["-e", PERL]),
        heeds: "LWP, HTTP::Tiny, Mojolicious; PERL_LWP_SSL_CA_FILE, SSL_CERT_FILE",
        ignores: "LWP::UserAgent with env_proxy => 0",
    },
    Runtime {
        name: "curl",
        programs: &["curl"],
        version: &["--version"],
        ask: Ask::Arguments(&["--silent", "--show-error", "--max-time", "10"]),
        heeds: "the proxy variables and CURL_CA_BUNDLE",
        ignores: "them where ~/.curlrc says otherwise",
    },
    Runtime {
        name: "wget",
        programs: &["wget"],
        version: &["--version"],
        ask: Ask::Arguments(&["--no-verbose", "--output-document=-", "--tries=1", "--timeout=10"]),
        heeds: "the proxy variables and SYSTEM_WGETRC",
        ignores: "them where ~/.wgetrc says otherwise; wget2 ignores the file",
    },
    Runtime {
        name: "git",
        programs: &["git"],
        version: &["--version"],
        ask: Ask::Arguments(&["ls-remote"]),
        heeds: "the proxy variables and GIT_SSL_CAINFO",
        ignores: "them where http.proxy is configured; ssh:// and git://",
    },
    Runtime {
        name: "R",
        programs: &["Rscript", "R"],
        version: &["--version"],
        ask: Ask::Arguments(&["--no-save", "--no-echo", "-e", R, "--args"]),
        heeds: "the proxy variables",
        ignores: "the bundle, in the packages curl and httr: ask for http:// with `upgrade`",
    },
    Runtime {
        name: "Go",
        programs: &["go"],
        version: &["version"],
        ask: Ask::File(&["run"], "check.go", GO_SOURCE),
        heeds: GO.heeds,
        ignores: GO.ignores,
    },
];
