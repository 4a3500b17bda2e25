//! The door for the operator: /metrics, /healthz, /readyz.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::drain::Drain;
use crate::telemetry::Telemetry;

/// Serves the operator's pages until the task is dropped. `ready` is asked at each /readyz.
pub(crate) async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>, drain: Drain) -> io::Result<()> {
    todo!("{listener:?} {telemetry:?} {drain:?}")
}
