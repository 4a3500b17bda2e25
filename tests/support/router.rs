//! A route that is bound to outrider as its route service: a stand-in of the platform's router, and the app behind it.

use super::programs::{ServerProcess, clean, tool};
use super::{CANARY, Origin, Pki, Proxy, Response, Wire, closed_port, eventually};

/// The router, on both of its ports. Every signature contains the canary, so that no test may leave one anywhere.
pub(crate) struct Router {
    pub(crate) clear: u16,
    pub(crate) tls: u16,
    _process: ServerProcess,
}

/// A route with its app, its route service and the router between them.
pub(crate) struct BoundRoute {
    pub(crate) app: Origin,
    /// Has the files that the configuration names.
    _pki: Pki,
    pub(crate) proxy: Proxy,
    pub(crate) router: Router,
    yaml: String,
}

impl Router {
    /// Starts the router of a route to `app`, bound to the service on `service`.
    pub(crate) fn start(pki: &Pki, tls: u16, service: u16, app: u16) -> Self {
        let clear = closed_port();
        let own = pki.server("partner.test");
        let mut command = clean(tool("venv/bin/python"));
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/router.py"))
            .args([clear, tls, service, app].map(|port| port.to_string()))
            .args([&own.cert_path, &own.key_path])
            .arg(CANARY);
        Self {
            clear,
            tls,
            _process: ServerProcess::start(&mut command, clear),
        }
    }
}

impl BoundRoute {
    /// Binds a route to a service with these settings.
    #[track_caller]
    pub(crate) fn with(settings: &str) -> Self {
        Self::to(Origin::http(answer), settings, &[])
    }

    #[track_caller]
    pub(crate) fn to(app: Origin, settings: &str, env: &[(&str, &str)]) -> Self {
        Self::beside("", app, settings, env)
    }

    /// The same, with `more` sections in the configuration.
    #[track_caller]
    pub(crate) fn beside(more: &str, app: Origin, settings: &str, env: &[(&str, &str)]) -> Self {
        let (pki, tls) = (Pki::new(), closed_port());
        let yaml = format!("{}\n{more}", configuration(&pki, tls));
        let proxy = Proxy::start_with(&yaml.replace("SETTINGS", settings), env);
        let router = Router::start(&pki, tls, service_port(&proxy), app.port());
        Self {
            app,
            _pki: pki,
            proxy,
            router,
            yaml,
        }
    }

    /// Sends a GET through the route; `fields` are whole lines.
    #[track_caller]
    pub(crate) fn get(&self, fields: &str) -> Response {
        let request = format!("GET /a?b=1 HTTP/1.1\r\nHost: partner.test\r\n{fields}\r\n");
        self.wire().ask(request)
    }

    /// Connects to the router as a client does.
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(([127, 0, 0, 1], self.router.clear).into())
    }

    /// Sends these bytes to the service, past the router.
    #[track_caller]
    pub(crate) fn directly(&self, bytes: impl AsRef<[u8]>) -> Response {
        Wire::connect(([127, 0, 0, 1], service_port(&self.proxy)).into()).ask(bytes)
    }

    /// Writes other settings over the configuration.
    pub(crate) fn rewrite(&self, settings: &str) {
        self.proxy.rewrite(&self.yaml.replace("SETTINGS", settings));
    }
}

/// Returns a configuration in which `SETTINGS` are those of the service.
pub(crate) fn configuration(pki: &Pki, tls: u16) -> String {
    format!(
        "route_service: {{ listen: \"127.0.0.1:0\", to: [\"partner.test:{tls}\"], tls: {{ ca: \"file:{}\" }}, SETTINGS }}",
        pki.ca().display()
    )
}

/// Returns the port that the log says the route service has.
#[track_caller]
pub(crate) fn service_port(proxy: &Proxy) -> u16 {
    let mut port = None;
    eventually("the log names the port of the route service", || {
        let log = proxy.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("the route service is open"));
        let rest = line.and_then(|line| line.split_once("\"listen\":\"127.0.0.1:"));
        port = rest.and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
        port.is_some()
    });
    port.unwrap()
}

/// Answers as an app that repeats what it must not, and closes.
fn answer(wire: &mut Wire) {
    if let Ok(request) = wire.request() {
        let length = request.body.len();
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nX-CF-Proxy-Signature: {CANARY}\r\nX-CF-Proxy-Metadata: {CANARY}\r\n\
             X-CF-Forwarded-Url: https://a.test/\r\nSet-Cookie: a=1; Secure\r\nContent-Length: {length}\r\n\r\n"
        ))
        .send(request.body);
    }
}
