//! Which addresses may be dialled at all.

use std::net::{IpAddr, SocketAddr};

use super::Denial;

/// The network rules, compiled.
#[derive(Debug)]
pub(crate) struct Egress {
    // private
}

/// Addresses the egress rules have allowed. Nothing else can be dialled.
///
/// Only [`Egress::approve`] makes one, and only `upstream::dial` takes one, so an unchecked
/// connection does not compile.
#[derive(Clone, Debug)]
pub(crate) struct Approved(Vec<SocketAddr>);

impl Egress {
    /// Keeps the allowed ones of the addresses a name `resolved` to, in their order.
    pub(crate) fn approve(&self, resolved: &[IpAddr], port: u16) -> Result<Approved, Denial> {
        todo!("{resolved:?} {port}")
    }
}

impl Approved {
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}
