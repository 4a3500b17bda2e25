//! Real programs as parent proxies, each with the smallest configuration that makes it one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::programs::{ServerProcess, clean, node, run, tool, wait};
use super::{CANARY, Identity, closed_port, eventually};

/// The user that parents know where they ask for one.
pub(crate) const USER: &str = "app";

/// A running parent on a free port; it ends with the test.
pub(crate) struct ParentProgram {
    pub(crate) port: u16,
    scheme: &'static str,
    has_users: bool,
    /// Declared before its folder, so that it ends first.
    server: ServerProcess,
    _folder: TempDir,
}

impl Drop for ParentProgram {
    fn drop(&mut self) {
        self.end();
    }
}

/// The password of [`USER`].
pub(crate) fn password() -> String {
    format!("{CANARY}-parent")
}

impl ParentProgram {
    fn start(scheme: &'static str, has_users: bool, command: impl FnOnce(u16, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Some of them run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let port = closed_port();
        let mut command = command(port, folder.path());
        // Those of several processes end as a group.
        command.process_group(0);
        Self {
            port,
            scheme,
            has_users,
            server: ServerProcess::start(&mut command, port),
            _folder: folder,
        }
    }

    /// Returns its URL, with the credentials that it wants.
    pub(crate) fn url(&self) -> String {
        let password = password();
        if self.has_users {
            return self.url_with(&format!("{USER}:{password}@"));
        }
        self.url_with("")
    }

    /// Returns its URL with this in front of the host.
    pub(crate) fn url_with(&self, userinfo: &str) -> String {
        format!("{}://{userinfo}127.0.0.1:{}", self.scheme, self.port)
    }

    pub(crate) fn has_users(&self) -> bool {
        self.has_users
    }

    /// Ends it, with the processes that it has started.
    pub(crate) fn stop(&mut self) {
        self.end();
        let is_free = || TcpListener::bind(("127.0.0.1", self.port)).is_ok();
        eventually("nobody listens there any more", is_free);
    }

    /// Ends it, with what is left of its group: processes that serve the connections which they have.
    fn end(&mut self) {
        let group = Pid::from_child(&self.server.0);
        let _ = kill_process(group, Signal::TERM);
        let _ = wait(&mut self.server.0, Duration::from_secs(3));
        let _ = kill_process_group(group, Signal::KILL);
    }

    /// `tls`: squid's https_port instead of its http_port.
    pub(crate) fn squid(has_users: bool, tls: Option<&Identity>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        Self::start(scheme, has_users, |port, folder| {
            let password = password();
            let hash = run(Command::new("openssl").args(["passwd", "-apr1", &password])).stdout;
            write(folder, "passwd", &format!("{USER}:{hash}"));
            let listen = match tls {
                None => format!("http_port 127.0.0.1:{port}"),
                Some(identity) => {
                    let (cert, key) = (
                        write(folder, "cert.pem", &identity.cert),
                        write(folder, "key.pem", &identity.key),
                    );
                    format!("https_port 127.0.0.1:{port} tls-cert={cert} tls-key={key}")
                }
            };
            let users = if has_users {
                format!(
                    "auth_param basic program /usr/lib/squid/basic_ncsa_auth {}\nacl known proxy_auth REQUIRED\n\
                     http_access allow known\nhttp_access deny all",
                    folder.join("passwd").display()
                )
            } else {
                "http_access allow all".to_owned()
            };
            let conf = write(
                folder,
                "squid.conf",
                &format!(
                    "{listen}\npid_filename none\naccess_log none\ncache_log /dev/null\ncache deny all\nmemory_pools off\n\
                     pinger_enable off\nshutdown_lifetime 0 seconds\nconnect_timeout 2 seconds\ndns_timeout 2 seconds\n\
                     acl bad dstdomain denied.test\nhttp_access deny bad\n{users}\n"
                ),
            );
            let mut command = clean("squid");
            // A name for its shared memory, which another squid may have under the usual one.
            command.args(["-N", "-n", &format!("t{port}"), "-f", &conf]);
            command
        })
    }

    pub(crate) fn tinyproxy(has_users: bool) -> Self {
        Self::start("http", has_users, |port, folder| {
            let filter = write(folder, "filter", "denied\\.test\n");
            let users = if has_users {
                format!("BasicAuth {USER} {}\n", password())
            } else {
                String::new()
            };
            let conf = write(
                folder,
                "tinyproxy.conf",
                &format!("Port {port}\nListen 127.0.0.1\nTimeout 5\nFilter \"{filter}\"\n{users}"),
            );
            let mut command = clean("tinyproxy");
            command.args(["-d", "-c", &conf]);
            command
        })
    }

    /// Denies port 9 in a CONNECT.
    pub(crate) fn apache(has_users: bool) -> Self {
        Self::start("http", has_users, |port, folder| {
            let password = password();
            let hash = run(Command::new("openssl").args(["passwd", "-apr1", &password])).stdout;
            let file = write(folder, "passwd", &format!("{USER}:{hash}"));
            let users = if has_users {
                format!("AuthType Basic\nAuthName parent\nAuthUserFile {file}\nRequire valid-user")
            } else {
                "Require all granted".to_owned()
            };
            let modules = [
                "mpm_event",
                "authn_core",
                "authz_core",
                "authz_user",
                "auth_basic",
                "authn_file",
                "proxy",
                "proxy_http",
                "proxy_connect",
            ]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .concat();
            let root = folder.display();
            let conf = write(
                folder,
                "apache.conf",
                &format!(
                    "ServerRoot {root}\nListen 127.0.0.1:{port}\nPidFile {root}/pid\nErrorLog /dev/null\nMutex pthread\n\
                     User www-data\nGroup www-data\n{modules}StartServers 1\nServerName parent.test\nProxyRequests On\n\
                     AllowCONNECT 10-65535\nProxyTimeout 4\n<Proxy *>\n{users}\n</Proxy>\n"
                ),
            );
            let mut command = Command::new("apache2");
            command.args(["-X", "-f", &conf]);
            command
        })
    }

    /// Denies port 9 in a CONNECT.
    pub(crate) fn traffic_server() -> Self {
        Self::start("http", false, |port, folder| {
            let root = folder.display();
            for name in ["etc", "run", "log", "cache"] {
                fs::create_dir(folder.join(name)).unwrap();
                fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o777)).unwrap();
            }
            let etc = folder.join("etc");
            for entry in fs::read_dir("/etc/trafficserver").unwrap().flatten() {
                if entry.path().is_file() {
                    fs::copy(entry.path(), etc.join(entry.file_name())).unwrap();
                }
            }
            write(&etc, "storage.config", &format!("{root}/cache 16M\n"));
            write(
                &etc,
                "records.config",
                &format!(
                    "CONFIG proxy.config.http.server_ports STRING {port}:ip-in=127.0.0.1\n\
                     CONFIG proxy.config.url_remap.remap_required INT 0\n\
                     CONFIG proxy.config.reverse_proxy.enabled INT 0\n\
                     CONFIG proxy.config.http.connect_ports STRING 10-65535\n\
                     CONFIG proxy.config.http.cache.http INT 0\n\
                     CONFIG proxy.config.http.connect_attempts_max_retries INT 0\n\
                     CONFIG proxy.config.http.connect_attempts_timeout INT 4\n\
                     CONFIG proxy.config.admin.user_id STRING nobody\n"
                ),
            );
            let layout = write(
                folder,
                "runroot.yaml",
                &format!(
                    "prefix: {root}\nexec_prefix: {root}\nbindir: /usr/bin\nsbindir: /usr/sbin\nsysconfdir: {root}/etc\n\
                     datadir: {root}/run\nincludedir: /usr/include\nlibdir: /usr/lib\n\
                     libexecdir: /usr/lib/trafficserver/modules\nlocalstatedir: {root}/run\nruntimedir: {root}/run\n\
                     logdir: {root}/log\ncachedir: {root}/cache\nmandir: {root}/run\ninfodir: {root}/run\n"
                ),
            );
            let mut command = clean("traffic_server");
            command.arg(format!("--run-root={layout}"));
            command
        })
    }

    pub(crate) fn mitmproxy(has_users: bool) -> Self {
        Self::start("http", has_users, |port, folder| {
            let mut command = clean(tool("parents/bin/mitmdump"));
            command.args([
                "-q",
                "--listen-host",
                "127.0.0.1",
                "--ignore-hosts",
                ".*",
                "-p",
                &port.to_string(),
            ]);
            command.args(["--set", &format!("confdir={}", folder.display())]);
            if has_users {
                command.args(["--proxyauth", &format!("{USER}:{}", password())]);
            }
            command
        })
    }

    pub(crate) fn proxy_py(has_users: bool) -> Self {
        Self::start("http", has_users, |port, folder| {
            let mut command = clean(tool("parents/bin/proxy"));
            command.args([
                "--hostname",
                "127.0.0.1",
                "--num-workers",
                "1",
                "--num-acceptors",
                "1",
            ]);
            command.args(["--log-level", "CRITICAL", "--port", &port.to_string()]);
            command.arg("--data-dir").arg(folder);
            if has_users {
                command.args(["--basic-auth", &format!("{USER}:{}", password())]);
            }
            command
        })
    }

    pub(crate) fn pproxy(scheme: &'static str, has_users: bool) -> Self {
        Self::start(scheme, has_users, |port, _| {
            let users = if has_users {
                format!("#{USER}:{}", password())
            } else {
                String::new()
            };
            let mut command = clean(tool("parents/bin/pproxy"));
            // Else it knows an address for a while after it has logged in once.
            command.args([
                "--auth",
                "0",
                "-l",
                &format!("{scheme}://127.0.0.1:{port}{users}"),
            ]);
            command
        })
    }

    pub(crate) fn proxy_chain(has_users: bool) -> Self {
        Self::start("http", has_users, |port, _| {
            let script = PROXY_CHAIN
                .replace("@PORT@", &port.to_string())
                .replace("@USERS@", if has_users { "true" } else { "false" })
                .replace("@USER@", USER)
                .replace("@PASSWORD@", &password());
            let mut command = node(&script);
            command.env("NODE_PATH", tool("parents/npm/node_modules"));
            command
        })
    }

    pub(crate) fn envoy() -> Self {
        Self::start("http", false, |port, folder| {
            let conf = write(folder, "envoy.yaml", &ENVOY.replace("@PORT@", &port.to_string()));
            let mut command = clean(tool("parents/bin/envoy"));
            command.args([
                "-l",
                "off",
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
                "-c",
                &conf,
            ]);
            command
        })
    }

    /// Denies port 9.
    pub(crate) fn dante() -> Self {
        Self::start("socks5", false, |port, folder| {
            let conf = write(
                folder,
                "danted.conf",
                &format!(
                    "logoutput: /dev/null\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nsocksmethod: none\n\
                     clientmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\ntimeout.connect: 4\n\
                     client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
                     socks block {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = 9 }}\n\
                     socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 protocol: tcp }}\n"
                ),
            );
            let mut command = clean("danted");
            command.args([
                "-N",
                "1",
                "-p",
                &folder.join("pid").display().to_string(),
                "-f",
                &conf,
            ]);
            command
        })
    }

    pub(crate) fn microsocks(has_users: bool) -> Self {
        Self::start("socks5", has_users, |port, _| {
            let mut command = clean("microsocks");
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            if has_users {
                command.args(["-u", USER, "-P", &password()]);
            }
            command
        })
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path.display().to_string()
}

const PROXY_CHAIN: &str = "
const { Server, RequestError } = require('proxy-chain');
new Server({
  port: @PORT@, host: '127.0.0.1',
  prepareRequestFunction: ({ username, password, hostname }) => {
    if (hostname === 'denied.test') throw new RequestError('no', 403);
    return { requestAuthentication: @USERS@ && !(username === '@USER@' && password === '@PASSWORD@') };
  },
}).listen();
";

const ENVOY: &str = "
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: @PORT@ } }
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: parent
          upgrade_configs: [{ upgrade_type: CONNECT }]
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: { connect_matcher: {} }
                route: { cluster: forward, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] }
              - match: { prefix: / }
                route: { cluster: forward }
          http_filters:
          - name: rbac
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: DENY
                policies:
                  bad:
                    principals: [{ any: true }]
                    permissions: [{ header: { name: ':authority', string_match: { prefix: denied.test } } }]
          - name: forward
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
              dns_cache_config: &cache { name: cache, dns_lookup_family: V4_ONLY }
          - name: router
            typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: forward
    connect_timeout: 4s
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: forward
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
        dns_cache_config: *cache
";
