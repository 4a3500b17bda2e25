//! The classes of networks, and the IPv4 addresses that hide in IPv6 ones.
//!
//! The tables follow the special-purpose registries of IANA (RFC 6890) and what cloud providers document as their
//! metadata services. All of IPv6 that is neither global unicast nor in a class of its own counts as reserved.
//!
//! Which class is denied is decided in [`super::egress`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::NetworkClass;

/// The word of a class, as the configuration writes it.
pub(super) const fn name(class: NetworkClass) -> &'static str {
    match class {
        NetworkClass::LinkLocal => "link-local",
        NetworkClass::Loopback => "loopback",
        NetworkClass::Metadata => "metadata",
        NetworkClass::Multicast => "multicast",
        NetworkClass::Private => "private",
        NetworkClass::Reserved => "reserved",
    }
}

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

/// The IPv4 addresses that a translator, tunnel or relay could make of `address`. Not the IPv4-mapped ones: these
/// are IPv4 addresses by another spelling and are made canonical before anything is judged.
pub(super) fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let bytes = address.octets();
    let quad = move |at: [usize; 4]| Ipv4Addr::from(at.map(|i| bytes[i]));
    let low = quad([12, 13, 14, 15]);
    let inside = |block: Ipv6Net| block.contains(&address);

    let compatible = inside(COMPATIBLE) && !address.is_unspecified() && !address.is_loopback();
    let isatap = matches!(bytes[8..12], [0 | 2, 0, 0x5e, 0xfe]);
    let at_the_end = compatible || isatap || inside(SIIT) || inside(NAT64) || inside(NAT64_LOCAL);
    let teredo_client = Ipv4Addr::from(!u32::from(low));

    // RFC 6052 lets an operator cut the local-use prefix at /48, /56, /64 or /96, so each reading counts. A reading
    // in 0.0.0.0/8 is one where the cut is elsewhere: nothing can be reached there.
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

/// The IPv4 block that an IPv4-mapped block spells.
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

/// What lies within the blocks of [`RESERVED`] and is not: classes of their own, and what is globally reachable.
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

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [NetworkClass; 6] = [
        NetworkClass::LinkLocal,
        NetworkClass::Loopback,
        NetworkClass::Metadata,
        NetworkClass::Multicast,
        NetworkClass::Private,
        NetworkClass::Reserved,
    ];

    fn classes(address: &str) -> Vec<&'static str> {
        let address = address.parse().unwrap();
        ALL.into_iter()
            .filter(|class| contains(*class, address))
            .map(name)
            .collect()
    }

    #[test]
    fn special_addresses_have_their_class() {
        for (address, expected) in [
            ("0.0.0.0", &["reserved"][..]),
            ("0.255.255.255", &["reserved"]),
            ("1.0.0.0", &[]),
            ("9.255.255.255", &[]),
            ("10.0.0.0", &["private"]),
            ("10.255.255.255", &["private"]),
            ("11.0.0.0", &[]),
            ("100.63.255.255", &[]),
            ("100.64.0.0", &["private"]),
            ("100.100.100.200", &["metadata", "private"]),
            ("100.127.255.255", &["private"]),
            ("100.128.0.0", &[]),
            ("126.255.255.255", &[]),
            ("127.0.0.1", &["loopback"]),
            ("127.255.255.255", &["loopback"]),
            ("168.63.129.16", &["metadata"]),
            ("169.254.0.0", &["link-local"]),
            ("169.254.169.254", &["link-local", "metadata"]),
            ("169.254.170.2", &["link-local", "metadata"]),
            ("169.255.0.0", &[]),
            ("172.15.255.255", &[]),
            ("172.16.0.0", &["private"]),
            ("172.31.255.255", &["private"]),
            ("172.32.0.0", &[]),
            ("192.0.0.8", &["reserved"]),
            ("192.0.0.192", &["metadata", "reserved"]),
            ("192.0.1.0", &[]),
            ("192.0.2.1", &["reserved"]),
            ("192.88.99.1", &["reserved"]),
            ("192.168.0.1", &["private"]),
            ("198.17.255.255", &[]),
            ("198.18.0.0", &["reserved"]),
            ("198.19.255.255", &["reserved"]),
            ("198.20.0.0", &[]),
            ("198.51.100.1", &["reserved"]),
            ("203.0.113.1", &["reserved"]),
            ("223.255.255.255", &[]),
            ("224.0.0.1", &["multicast"]),
            ("239.255.255.255", &["multicast"]),
            ("240.0.0.0", &["reserved"]),
            ("255.255.255.255", &["reserved"]),
            ("::", &["reserved"]),
            ("::1", &["loopback"]),
            ("::2", &["reserved"]),
            ("::7f00:1", &["reserved"]),
            ("::ffff:0:7f00:1", &["reserved"]),
            ("64:ff9b::808:808", &[]),
            ("64:ff9b:1::1", &["reserved"]),
            ("100::1", &["reserved"]),
            ("100:0:0:1::1", &["reserved"]),
            ("2000::1", &[]),
            ("2001::1", &["reserved"]),
            ("2001:1::1", &[]),
            ("2001:2::1", &["reserved"]),
            ("2001:10::1", &["reserved"]),
            ("2001:200::1", &[]),
            ("2001:4860:4860::8888", &[]),
            ("2001:db8::1", &["reserved"]),
            ("2002::1", &["reserved"]),
            ("2620:4f:8000::1", &[]),
            ("3fff::1", &["reserved"]),
            ("3fff:1000::1", &[]),
            ("4000::1", &["reserved"]),
            ("5f00::1", &["reserved"]),
            ("fbff::1", &["reserved"]),
            ("fc00::1", &["private"]),
            ("fd00:ec2::254", &["metadata", "private"]),
            ("fd20:ce::254", &["metadata", "private"]),
            ("fe00::1", &["reserved"]),
            ("fe80::1", &["link-local"]),
            ("fe80::a9fe:a9fe", &["link-local", "metadata"]),
            ("febf::1", &["link-local"]),
            ("fec0::1", &["private"]),
            ("ff02::1", &["multicast"]),
        ] {
            assert_eq!(classes(address), expected, "{address}");
        }
    }

    /// D2: every form in which IPv6 carries an IPv4 address gives it up.
    #[test]
    fn embedded_addresses_are_found() {
        for (address, expected) in [
            ("::10.1.2.3", &["10.1.2.3"][..]),
            ("::ffff:0:10.1.2.3", &["10.1.2.3"]),
            ("64:ff9b::10.1.2.3", &["10.1.2.3"]),
            ("64:ff9b:1::10.1.2.3", &["10.1.2.3"]),
            (
                "64:ff9b:1:a01:2:300::",
                &["0.0.0.0", "10.1.2.3", "1.2.3.0", "2.3.0.0"],
            ),
            ("64:ff9b:1:a:1:203::", &["0.0.0.0", "10.1.2.3", "1.2.3.0"]),
            ("64:ff9b:1:0:a:102:300::", &["3.0.0.0", "10.1.2.3"]),
            ("2002:a01:203::1", &["10.1.2.3"]),
            ("2001:0:808:808:0:0:f5fe:fdfc", &["10.1.2.3", "8.8.8.8"]),
            ("2001:4860::5efe:10.1.2.3", &["10.1.2.3"]),
            ("fe80::200:5efe:10.1.2.3", &["10.1.2.3"]),
            ("::", &[]),
            ("::1", &[]),
            ("2001:4860:4860::8888", &[]),
            ("fe80::1", &[]),
        ] {
            let mut found: Vec<_> = embedded(address.parse().unwrap())
                .map(|v4| v4.to_string())
                .collect();
            found.sort();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{address}");
        }
    }
}
