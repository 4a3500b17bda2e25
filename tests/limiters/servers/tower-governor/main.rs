//! `limited PORT default|headers|one`: tower_governor with its own defaults (one each 500 ms, eight at once),
//! the same with its header option, and with a burst of one.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tower_governor::GovernorLayer;
use tower_governor::governor::{GovernorConfig, GovernorConfigBuilder};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let port: u16 = arguments[1].parse().expect("a port");
    let router = Router::new().route("/search", get(async || "ok"));
    let router = match arguments[2].as_str() {
        "default" => router.layer(GovernorLayer::new(GovernorConfig::default())),
        "headers" => router.layer(GovernorLayer::new(
            GovernorConfigBuilder::default().use_headers().finish().expect("valid"),
        )),
        "one" => router.layer(GovernorLayer::new(
            (GovernorConfigBuilder::default().burst_size(1).use_headers().finish()).expect("valid"),
        )),
        form => panic!("no form {form}"),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await.expect("to serve");
}
