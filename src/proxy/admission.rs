//! Which client sends a request, and whether it may use the destination.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Error, Live};
use crate::clients::{Client, ClientRefusal, Clients, KeptShown, Peer, Shown};
use crate::message::Request;
use crate::policy::Destination;
use crate::telemetry::Exchange;

/// The sender of a request for a tunnel, under the configuration of that moment.
pub(super) struct TunnelSender {
    pub(super) client: Option<Arc<Client>>,
    pub(super) live: Arc<Live>,
    /// What it has shown, for the requests inside the tunnel. `None`: nobody is asked.
    pub(super) shown: Option<KeptShown>,
}

impl TunnelSender {
    /// Finds out who has shown this.
    pub(super) fn of(live: Arc<Live>, shown: Shown<'_>, exchange: &mut Exchange) -> Result<Self, Error> {
        let client = match &live.clients {
            None => None,
            Some(clients) => admit(clients, shown, exchange)?,
        };
        let shown = client.is_some().then(|| shown.keep());
        Ok(Self { client, live, shown })
    }

    /// Finds out again who it is where `live` is another configuration.
    pub(super) fn under(self, live: Arc<Live>, exchange: &mut Exchange) -> Result<Self, Error> {
        if Arc::ptr_eq(&live, &self.live) {
            return Ok(self);
        }
        let client = inside(&live, self.shown.as_ref(), exchange)?;
        let shown = self.shown.filter(|_| client.is_some());
        Ok(Self { client, live, shown })
    }
}

/// Finds the client that sends a request; `None`: nobody is asked.
pub(super) fn of_request<B>(
    clients: &Clients,
    request: &Request<B>,
    exchange: &mut Exchange,
) -> Result<Option<Arc<Client>>, Error> {
    admit(clients, shown_by(clients, request)?, exchange)
}

/// Reads what a request shows of its sender.
pub(super) fn shown_by<'r, B>(clients: &Clients, request: &'r Request<B>) -> Result<Shown<'r>, Error> {
    if !clients.asks() {
        return Ok(Shown::default());
    }
    let peer = request.extensions().get::<Arc<Peer>>();
    Shown::of(request.headers(), peer).ok_or_else(|| clients.without().into())
}

/// Finds the client that opened a tunnel, for a request inside. It may have been removed since.
pub(super) fn inside(
    live: &Live,
    shown: Option<&KeptShown>,
    exchange: &mut Exchange,
) -> Result<Option<Arc<Client>>, Error> {
    let Some(clients) = &live.clients else {
        return Ok(None);
    };
    let shown = shown.map_or_else(Shown::default, KeptShown::shown);
    admit(clients, shown, exchange).map_err(|error| match error {
        // A challenge of the proxy could not be answered here.
        Error::Client(refusal) if refusal.reason().is_none() => ClientRefusal::Removed.into(),
        other => other,
    })
}

/// Refuses a destination that is not one of the client's.
pub(super) fn check(client: Option<&Arc<Client>>, destination: &Destination) -> Result<(), Error> {
    let Some(client) = client else { return Ok(()) };
    client.check(&destination.name).map_err(Error::Client)
}

fn admit(clients: &Clients, shown: Shown<'_>, exchange: &mut Exchange) -> Result<Option<Arc<Client>>, Error> {
    let client = clients.admit(shown, SystemTime::now())?;
    if let Some(client) = client {
        exchange.set_client(&client.counters);
    }
    Ok(client.cloned())
}
