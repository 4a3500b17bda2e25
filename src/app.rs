//! Builds everything; the one loop where anything changes.
