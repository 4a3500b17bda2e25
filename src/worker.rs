//! One thread, one runtime, one share of the connections.
