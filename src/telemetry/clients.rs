//! The metrics of one client of the listener. Its name is one of the configuration, so there are not more series than clients.

use std::fmt;
use std::sync::Arc;

use prometheus::IntCounter;

use super::families::Families;

/// Counts the requests of one client.
pub(crate) struct ClientCounters {
    pub(super) name: Arc<str>,
    refused: IntCounter,
    served: IntCounter,
}

impl ClientCounters {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        Self {
            name: name.into(),
            refused: families.client_requests(name, "refused"),
            served: families.client_requests(name, "served"),
        }
    }

    /// Counts a request. `is_refused`: the client may not use the destination.
    pub(super) fn request(&self, is_refused: bool) {
        if is_refused {
            self.refused.inc();
        } else {
            self.served.inc();
        }
    }
}

impl fmt::Debug for ClientCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCounters").field(&self.name).finish()
    }
}
