//! The classes of networks, and the IPv4 addresses that hide in IPv6 ones.
//!
//! The tables follow the special-purpose registries of IANA (RFC 6890) and what cloud providers document as their
//! metadata services. All of IPv6 that is neither global unicast nor in another class counts as reserved.
//!
//! Which class is denied is decided in [`super::egress`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::NetworkClass;

#[cfg(test)]
mod tests;

const COMPATIBLE: Ipv6Net = v6(&[], &[], 96);
const MAPPED: Ipv6Net = v6(&[], &[0xffff, 0, 0], 96);
const NAT64: Ipv6Net = v6(&[0x64, 0xff9b], &[], 96);
const NAT64_LOCAL: Ipv6Net = v6(&[0x64, 0xff9b, 1], &[], 48);
const SIIT: Ipv6Net = v6(&[], &[0xffff, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6(&[0x2002], &[], 16);
const TEREDO: Ipv6Net = v6(&[0x2001], &[], 32);

const LINK_LOCAL: &[IpNet] = &[v4([169, 254, 0, 0], 16), n6(&[0xfe80], &[], 10)];

const LOOPBACK: &[IpNet] = &[v4([127, 0, 0, 0], 8), n6(&[], &[1], 128)];

const METADATA: &[IpNet] = &[
    v4([169, 254, 169, 254], 32), // AWS, Azure, Google, Oracle, OpenStack and most others
    v4([169, 254, 170, 2], 32),   // AWS container credentials
    v4([169, 254, 170, 23], 32),  // AWS pod identity
    v4([169, 254, 42, 42], 32),   // Scaleway
    v4([169, 254, 0, 23], 32),    // Tencent
    v4([168, 63, 129, 16], 32),   // Azure's wire server, a public address
    v4([192, 0, 0, 192], 32),     // Oracle Classic
    v4([100, 100, 100, 200], 32), // Alibaba
    v4([100, 96, 0, 96], 32),     // Volcengine
    n6(&[0xfd00, 0xec2], &[0x254], 128), // AWS
    n6(&[0xfd00, 0xec2], &[0x23], 128), // AWS pod identity
    n6(&[0xfd20, 0xce], &[0x254], 128), // Google
    n6(&[0xfd00, 0xc1], &[0xa9fe, 0xa9fe], 128), // Oracle
    n6(&[0xfd00, 0x42], &[0x42], 128), // Scaleway
    n6(&[0xfe80], &[0xa9fe, 0xa9fe], 128), // OpenStack
];

const MULTICAST: &[IpNet] = &[v4([224, 0, 0, 0], 4), n6(&[0xff00], &[], 8)];

const PRIVATE: &[IpNet] = &[
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10), // shared by carriers and clouds
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    n6(&[0xfc00], &[], 7),
    n6(&[0xfec0], &[], 10), // site-local, deprecated, still routed here and there
];

const RESERVED: &[IpNet] = &[
    v4([0, 0, 0, 0], 8),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([240, 0, 0, 0], 4),
    n6(&[], &[], 3),        // special forms and unallocated
    n6(&[0x2001], &[], 23), // protocol assignments, Teredo among them
    n6(&[0x2001, 0xdb8], &[], 32),
    n6(&[0x2002], &[], 16), // 6to4, whose relays are gone
    n6(&[0x3fff], &[], 20),
    n6(&[0x4000], &[], 2), // unallocated
    n6(&[0x8000], &[], 1),
];

/// Parts of the blocks of [`RESERVED`] that are not reserved: other classes, and globally reachable addresses.
const NOT_RESERVED: &[IpNet] = &[
    n6(&[], &[1], 128),
    n6(&[0x64, 0xff9b], &[], 96),
    n6(&[0x2001, 1], &[1], 128),
    n6(&[0x2001, 1], &[2], 128),
    n6(&[0x2001, 1], &[3], 128),
    n6(&[0x2001, 3], &[], 32),
    n6(&[0x2001, 4, 0x112], &[], 48),
    n6(&[0x2001, 0x20], &[], 28),
    n6(&[0x2001, 0x30], &[], 28),
    n6(&[0xfc00], &[], 7),
    n6(&[0xfe80], &[], 10),
    n6(&[0xfec0], &[], 10),
    n6(&[0xff00], &[], 8),
];

/// Whether `address` belongs to `class`. Metadata services also belong to the network they live in.
pub(super) fn contains(class: NetworkClass, address: IpAddr) -> bool {
    blocks(class).iter().any(|block| block.contains(&address))
        && !(class == NetworkClass::Reserved && NOT_RESERVED.iter().any(|block| block.contains(&address)))
}

/// Whether all of `network` belongs to `class`.
pub(super) fn covers(class: NetworkClass, network: &IpNet) -> bool {
    blocks(class).iter().any(|block| block.contains(network))
        && !(class == NetworkClass::Reserved
            && NOT_RESERVED
                .iter()
                .any(|block| block.contains(network) || network.contains(block)))
}

/// Whether some address of `network` belongs to `class`.
pub(super) fn touches(class: NetworkClass, network: &IpNet) -> bool {
    blocks(class)
        .iter()
        .any(|block| block.contains(network) || network.contains(block))
}

/// Returns the IPv4 addresses that a translator, tunnel or relay could make of `address`. IPv4-mapped addresses are left
/// out: they are IPv4 addresses in another spelling, and canonical before anything is judged.
pub(super) fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let bytes = address.octets();
    let quad = move |at: [usize; 4]| Ipv4Addr::from(at.map(|i| bytes[i]));
    let low = quad([12, 13, 14, 15]);
    let inside = |block: Ipv6Net| block.contains(&address);

    let compatible = inside(COMPATIBLE) && !address.is_unspecified() && !address.is_loopback();
    let isatap = matches!(bytes[8..12], [0 | 2, 0, 0x5e, 0xfe]);
    let at_the_end = compatible || isatap || inside(SIIT) || inside(NAT64) || inside(NAT64_LOCAL);
    let teredo_client = Ipv4Addr::from(!u32::from(low));

    // RFC 6052 lets an operator cut the local-use prefix at /48, /56, /64 or /96, so each reading counts. A reading in
    // 0.0.0.0/8 means that the cut is elsewhere: nothing can be reached there.
    let cuts = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]]
        .map(|at| (inside(NAT64_LOCAL) && bytes[at[0]] != 0).then(|| quad(at)));

    [
        at_the_end.then_some(low),
        inside(SIX_TO_FOUR).then(|| quad([2, 3, 4, 5])),
        inside(TEREDO).then_some(teredo_client),
        inside(TEREDO).then(|| quad([4, 5, 6, 7])),
    ]
    .into_iter()
    .chain(cuts)
    .flatten()
}

/// Returns the IPv4 block of an IPv4-mapped block.
pub(super) fn unmapped(block: &IpNet) -> Option<Ipv4Net> {
    match block {
        IpNet::V6(block) if MAPPED.contains(block) => {
            let address = block.network().to_ipv4_mapped()?;
            Ipv4Net::new(address, block.prefix_len() - MAPPED.prefix_len()).ok()
        }
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}

const fn blocks(class: NetworkClass) -> &'static [IpNet] {
    match class {
        NetworkClass::LinkLocal => LINK_LOCAL,
        NetworkClass::Loopback => LOOPBACK,
        NetworkClass::Metadata => METADATA,
        NetworkClass::Multicast => MULTICAST,
        NetworkClass::Private => PRIVATE,
        NetworkClass::Reserved => RESERVED,
    }
}

const fn v4(address: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = address;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

/// The groups before `::` and those after it.
const fn v6(head: &[u16], tail: &[u16], length: u8) -> Ipv6Net {
    let mut bits: u128 = 0;
    let mut i = 0;
    while i < head.len() {
        bits |= (head[i] as u128) << (112 - 16 * i);
        i += 1;
    }
    let mut i = 0;
    while i < tail.len() {
        bits |= (tail[i] as u128) << (16 * (tail.len() - 1 - i));
        i += 1;
    }
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length)
}

const fn n6(head: &[u16], tail: &[u16], length: u8) -> IpNet {
    IpNet::V6(v6(head, tail, length))
}
