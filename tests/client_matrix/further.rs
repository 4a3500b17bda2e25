//! The wider set, which runs on request.

use super::programs::{Client, NO_PASSWORD, NPM, PIP, YARN, client, past};

/// Slow ones first: the end does not wait for one.
pub(super) const CLIENTS: &[Client] = &[
    NPM,
    YARN,
    PIP,
    client(
        "npm with `cafile`",
        "npm --version",
        "sh @CLIENTS@/npm.sh cafile",
        "`npm_config_cafile` with what SSL_CERT_FILE names: the next row; or take `cafile` out of the `npmrc`",
    )
    .without_forms(),
    client(
        "npm with `npm_config_cafile`",
        "npm --version",
        "sh @CLIENTS@/npm.sh cafile variable",
        "",
    )
    .without_forms(),
    client(
        "Playwright",
        "grep '\"version\"' @TOOLS@/further/node_modules/playwright-core/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js playwright",
        "`proxy` of `launch` takes the password, as here; trust as for Chromium",
    ),
    past(
        "Apache HttpClient `createDefault`",
        "dpkg-query -Wf '${Version}' libhttpclient-java",
        "java -cp @JARS@ @CLIENTS@/Further.java createDefault",
        "`HttpClients.createSystem()`: the next row",
    )
    .without_password(),
    client(
        "Apache HttpClient `createSystem`",
        "dpkg-query -Wf '${Version}' libhttpclient-java",
        "java -cp @JARS@ @CLIENTS@/Further.java createSystem",
        NO_PASSWORD,
    )
    .without_password(),
    client(
        "OkHttp",
        "dpkg-query -Wf '${Version}' libokhttp-java",
        "java -cp @JARS@ @CLIENTS@/Further.java OkHttp",
        NO_PASSWORD,
    )
    .without_password(),
    past(
        "Node 20 OTLP exporter",
        "@TOOLS@/nodes/node_modules/node20/bin/node --version",
        "@TOOLS@/nodes/node_modules/node20/bin/node @CLIENTS@/node.js otlp",
        "Node 22.21 and later; or `httpAgentOptions` of the exporter, a function that returns an agent",
    ),
    client(
        "aria2",
        "aria2c --version",
        "sh @CLIENTS@/further.sh aria2",
        "it heeds no trust variable: `--ca-certificate`; or `http://` to a destination with `tls`",
    ),
    client(
        "httpie",
        "@TOOLS@/further/venv/bin/python -m pip show httpie",
        "sh @CLIENTS@/further.sh httpie",
        "",
    ),
    client(
        "lftp",
        "lftp --version",
        "sh @CLIENTS@/further.sh lftp",
        "it heeds no trust variable: `set ssl:ca-file`; or `http://` to a destination with `tls`",
    ),
    client(
        "lynx",
        "lynx -version",
        "sh @CLIENTS@/further.sh lynx",
        NO_PASSWORD,
    )
    .without_password(),
    client(
        "rclone",
        "rclone version",
        "sh @CLIENTS@/further.sh rclone",
        "",
    ),
    past(
        "svn",
        "svn --version --quiet",
        "sh @CLIENTS@/further.sh svn",
        "`--config-option servers:global:http-proxy-host=…`, with `http-proxy-port` and `ssl-authority-files`",
    ),
    client(
        "w3m",
        "w3m -version",
        "sh @CLIENTS@/further.sh w3m",
        "",
    )
    .without_forms(),
    client(
        "axios",
        "grep '\"version\"' @TOOLS@/further/node_modules/axios/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js axios",
        "",
    ),
    client(
        "got",
        "grep '\"version\"' @TOOLS@/further/node_modules/got/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js got",
        "",
    ),
    client(
        "node-fetch",
        "grep '\"version\"' @TOOLS@/further/node_modules/node-fetch/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js node-fetch",
        "",
    ),
    client(
        "superagent",
        "grep '\"version\"' @TOOLS@/further/node_modules/superagent/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js superagent",
        "",
    ),
    client(
        "gaxios",
        "grep '\"version\"' @TOOLS@/further/node_modules/gaxios/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js gaxios",
        "",
    ),
    client(
        "Azure core-rest-pipeline",
        "grep '\"version\"' @TOOLS@/further/node_modules/@azure/core-rest-pipeline/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js azure",
        "",
    ),
    past(
        "elasticsearch for Node",
        "grep '\"version\"' @TOOLS@/further/node_modules/@elastic/elasticsearch/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js elasticsearch",
        "`proxy` of its `Client`, with the value of HTTPS_PROXY",
    ),
    past(
        "ws for Node",
        "grep '\"version\"' @TOOLS@/further/node_modules/ws/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js ws",
        "`agent`, of https-proxy-agent: the next row",
    )
    .echoing(),
    client(
        "ws for Node with agent",
        "grep '\"version\"' @TOOLS@/further/node_modules/ws/package.json",
        "@TOOLS@/node_modules/node/bin/node @CLIENTS@/node.js ws-agent",
        "",
    )
    .echoing(),
    client(
        "niquests",
        "@TOOLS@/further/venv/bin/python -m pip show niquests",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py niquests",
        "",
    ),
    client(
        "curl_cffi",
        "@TOOLS@/further/venv/bin/python -m pip show curl_cffi",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py curl_cffi",
        "",
    ),
    client(
        "pycurl",
        "@TOOLS@/further/venv/bin/python -m pip show pycurl",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py pycurl",
        "`CAINFO`: the next row; or `http://` to a destination with `tls`",
    ),
    client(
        "pycurl with CAINFO",
        "@TOOLS@/further/venv/bin/python -m pip show pycurl",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py pycurl-cainfo",
        "",
    ),
    past(
        "tornado",
        "@TOOLS@/further/venv/bin/python -m pip show tornado",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py tornado",
        "`AsyncHTTPClient.configure` with the curl client, and `proxy_host`, `proxy_port` and `ca_certs` of each fetch",
    ),
    past(
        "elasticsearch for Python",
        "@TOOLS@/further/venv/bin/python -m pip show elasticsearch",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py elasticsearch",
        "`node_class=\"requests\"`: the next row",
    ),
    client(
        "elasticsearch for Python with requests",
        "@TOOLS@/further/venv/bin/python -m pip show elasticsearch",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py elasticsearch-requests",
        "",
    ),
    past(
        "httplib2",
        "@TOOLS@/further/venv/bin/python -m pip show httplib2",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py httplib2",
        "PySocks beside it: the next row",
    ),
    client(
        "httplib2 with PySocks",
        "@TOOLS@/further/venv/bin/python -m pip show httplib2",
        "@TOOLS@/venv/bin/python @CLIENTS@/python.py httplib2",
        "",
    ),
    client(
        "websocket-client",
        "@TOOLS@/further/venv/bin/python -m pip show websocket-client",
        "@TOOLS@/further/venv/bin/python @CLIENTS@/python.py websocket-client",
        "",
    )
    .echoing(),
    client(
        "Ruby excon",
        "dpkg-query -Wf '${Version}' ruby-excon",
        "ruby @CLIENTS@/ruby.rb excon",
        "",
    ),
    client(
        "Ruby faraday",
        "dpkg-query -Wf '${Version}' ruby-faraday",
        "ruby @CLIENTS@/ruby.rb faraday",
        "",
    ),
    client(
        "Ruby httpclient",
        "dpkg-query -Wf '${Version}' ruby-httpclient",
        "ruby @CLIENTS@/ruby.rb httpclient",
        "",
    ),
    client(
        "Ruby typhoeus",
        "dpkg-query -Wf '${Version}' ruby-typhoeus",
        "ruby @CLIENTS@/ruby.rb typhoeus",
        "`cainfo`: the next row; or `http://` to a destination with `tls`",
    ),
    client(
        "Ruby typhoeus with cainfo",
        "dpkg-query -Wf '${Version}' ruby-typhoeus",
        "ruby @CLIENTS@/ruby.rb typhoeus-cainfo",
        "",
    ),
    client(
        "Perl Mojolicious",
        "dpkg-query -Wf '${Version}' libmojolicious-perl",
        "perl @CLIENTS@/perl.pl mojo",
        "",
    ),
    past(
        "Tcl http",
        "dpkg-query -Wf '${Version}' tcl",
        "tclsh @CLIENTS@/http.tcl http",
        "tcllib's `autoproxy`: the next row",
    ),
    client(
        "Tcl autoproxy",
        "dpkg-query -Wf '${Version}' tcllib",
        "tclsh @CLIENTS@/http.tcl autoproxy",
        "",
    ),
];
