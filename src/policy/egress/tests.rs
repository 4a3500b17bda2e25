use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::EgressRules;
use crate::config::Config;
use crate::policy::{Denial, Policy};

fn egress(text: &str) -> EgressRules {
    let config = Config::parse(&format!("egress: {text}"), "test.yml").unwrap();
    Policy::compile(&config).unwrap().egress.as_ref().clone()
}

fn default() -> EgressRules {
    egress("{ default: deny }")
}

/// `None` where it may be dialled, else the class.
fn class(egress: &EgressRules, address: &str) -> Option<&'static str> {
    match egress.approve(&[address.parse().unwrap()], 443) {
        Ok(approved) => {
            assert_eq!(approved.addresses().len(), 1, "{address}");
            None
        }
        Err(Denial::Network { class, .. }) => Some(class),
        Err(denial) => panic!("{address}: {denial}"),
    }
}

/// Every form in which IPv6 carries `address`, except the mapped one, which is read as IPv4.
fn carriers(address: Ipv4Addr, other: Ipv4Addr) -> Vec<Ipv6Addr> {
    let low = u128::from(u32::from(address));
    let other = u128::from(u32::from(other));
    let cut = |before: u32| {
        // RFC 6052: the address goes round bits 64 to 71.
        let local = 0x0064_ff9b_0001_u128 << 80;
        let above = u32::from(address).checked_shr(32 - (64 - before)).unwrap_or(0);
        let below = u32::from(address) & u32::MAX.checked_shr(64 - before).unwrap_or(0);
        let below = u128::from(below) << (56 - (32 - (64 - before)));
        local | (u128::from(above) << 64) | below
    };
    [
        low,
        (0xffff_u128 << 48) | low,
        (0x0064_ff9b_u128 << 96) | low,
        (0x0064_ff9b_0001_u128 << 80) | low,
        cut(48),
        cut(56),
        cut(64),
        (0x2002_u128 << 112) | (low << 80) | 1,
        (0x2001_u128 << 112) | (other << 64) | (!low & 0xffff_ffff),
        (0x2001_u128 << 112) | (low << 64) | (!other & 0xffff_ffff),
        (0x2606_4700_u128 << 96) | (0x0000_5efe_u128 << 32) | low,
        (0x2606_4700_u128 << 96) | (0x0200_5efe_u128 << 32) | low,
        (0xfe80_u128 << 112) | (0x0000_5efe_u128 << 32) | low,
    ]
    .map(Ipv6Addr::from_bits)
    .to_vec()
}

/// xorshift64*: the same numbers in every run.
fn numbers() -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    })
}

/// D3: what is special is denied by default, under its name.
#[test]
fn special_networks_are_denied_by_default() {
    let egress = default();
    for (address, expected) in [
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:a9fe:a9fe", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("127.0.0.1", "loopback"),
        ("127.1.2.3", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("64:ff9b::10.0.0.1", "private"),
        ("2606:4700::5efe:10.0.0.1", "private"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "reserved"),
        ("0.1.2.3", "reserved"),
        ("192.0.0.1", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("198.51.100.1", "reserved"),
        ("203.0.113.1", "reserved"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "reserved"),
        ("::10.0.0.1", "reserved"),
        ("::ffff:0:8.8.8.8", "reserved"),
        ("64:ff9b:1::8.8.8.8", "reserved"),
        ("2001:db8::1", "reserved"),
        ("2002:0808:0808::1", "reserved"),
        ("100::1", "reserved"),
        ("3fff::1", "reserved"),
    ] {
        assert_eq!(class(&egress, address), Some(expected), "{address}");
    }
    for address in [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700::1111",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(class(&egress, address), None, "{address}");
    }
}

/// Dialling 0.0.0.0 or :: reaches loopback, so that opening them does not open more than loopback is open.
#[test]
fn an_unspecified_address_is_no_way_to_loopback() {
    for (rules, is_open) in [
        ("{ allow_networks: [reserved] }", false),
        ("{ allow_networks: [\"0.0.0.0/32\", \"::/128\"] }", false),
        (
            "{ allow_networks: [\"0.0.0.0/0\", \"::/0\"], deny_networks: [\"127.0.0.0/8\", \"::1\"] }",
            false,
        ),
        ("{ allow_networks: [reserved, loopback] }", true),
    ] {
        for address in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert_eq!(
                class(&egress(rules), address).is_none(),
                is_open,
                "{rules} {address}"
            );
        }
    }
}

/// D2: a denied IPv4 address stays denied in every IPv6 form, whatever is opened for IPv6.
#[test]
fn denied_stays_denied_in_every_form() {
    let strict = default();
    let open = egress("{ allow_networks: [\"::/0\"] }");
    let mut numbers = numbers();
    let mut denied = 0;
    for round in 0..8_000_u32 {
        let number = numbers.next().unwrap();
        // Half of them from the special networks, where there is something to slip past.
        let address = Ipv4Addr::from(match round % 8 {
            0 => 0x7f00_0000 | number >> 8,
            1 => 0x0a00_0000 | number >> 8,
            2 => 0xa9fe_a9fe,
            3 => 0xc0a8_0000 | number >> 16,
            _ => number,
        });
        let other = Ipv4Addr::from(0x0101_0101 | numbers.next().unwrap() & 0x0002_0202);
        let address_is_denied = strict.denied(address.into()).is_some();
        denied += u32::from(address_is_denied);
        let mapped = IpAddr::V6(address.to_ipv6_mapped());
        assert_eq!(
            strict.approve(&[mapped], 443).is_err(),
            address_is_denied,
            "{mapped}"
        );
        assert_eq!(
            open.approve(&[mapped], 443).is_err(),
            address_is_denied,
            "{mapped}"
        );
        // Nothing is reached in 0.0.0.0/8 through the cuts of RFC 6052; see `network::embedded`.
        if address_is_denied && address.octets()[0] != 0 {
            for carrier in carriers(address, other) {
                assert!(
                    strict.approve(&[carrier.into()], 443).is_err(),
                    "{carrier} carries {address}"
                );
                assert!(
                    open.approve(&[carrier.into()], 443).is_err(),
                    "{carrier} carries {address}"
                );
            }
        }
    }
    assert!(denied > 4_000, "{denied} of the addresses were denied");
}

/// Opening the carrier does not open the carried, nor the other way round; opening both does.
#[test]
fn an_exception_opens_what_it_names_and_nothing_else() {
    for (allow, opened, closed) in [
        ("10.0.0.0/8", "10.1.2.3", "64:ff9b::10.1.2.3"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "2606:4700::5efe:10.1.2.3"),
        ("private", "10.1.2.3", "64:ff9b::10.1.2.3"),
        ("private", "fd00::1", "169.254.0.1"),
        ("private", "100.64.0.1", "100.100.100.200"),
        ("private", "fd00:ec2::1", "fd00:ec2::254"),
        ("link-local", "169.254.0.1", "169.254.169.254"),
        ("169.254.0.0/16", "169.254.0.1", "169.254.169.254"),
        ("0.0.0.0/0", "10.1.2.3", "169.254.169.254"),
        ("169.254.169.254/32", "169.254.169.254", "169.254.170.2"),
        ("metadata", "169.254.169.254", "169.254.0.1"),
        ("metadata", "fd00:ec2::254", "fd00:ec2::253"),
        ("loopback", "127.0.0.1", "64:ff9b::127.0.0.1"),
        ("loopback", "::1", "::127.0.0.1"),
        ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1"),
        ("64:ff9b:1::/48", "64:ff9b:1::8.8.8.8", "64:ff9b:1::10.0.0.1"),
        ("2002::/16", "2002:808:808::1", "2002:a00:1::1"),
        ("reserved", "192.0.2.1", "::10.0.0.1"),
        (
            "\"64:ff9b::/96\", 10.0.0.0/8",
            "64:ff9b::10.0.0.1",
            "64:ff9b::127.0.0.1",
        ),
        (
            "private, \"64:ff9b::a00:1/128\"",
            "64:ff9b::10.0.0.1",
            "64:ff9b::10.0.0.2",
        ),
    ] {
        let allow = if allow.contains(',') {
            allow.to_owned()
        } else {
            format!("\"{allow}\"")
        };
        let egress = egress(&format!("{{ allow_networks: [{allow}] }}"));
        assert_eq!(class(&egress, opened), None, "{allow} opens {opened}");
        assert!(class(&egress, closed).is_some(), "{allow} does not open {closed}");
    }
}

/// However the list is written, it takes no class away: nobody opens the metadata services by naming a block.
#[test]
fn a_list_adds_to_the_classes() {
    let special = [
        "127.0.0.1",
        "169.254.169.254",
        "169.254.0.1",
        "10.0.0.1",
        "::1",
        "fd00::1",
        "224.0.0.1",
        "192.0.2.1",
        "64:ff9b::10.0.0.1",
        "::ffff:127.0.0.1",
    ];
    for (list, more) in [
        ("[]", &[][..]),
        ("[8.8.8.0/24]", &["8.8.8.8", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]),
        ("[8.8.8.8]", &["8.8.8.8"]),
        ("[10.0.0.0/8]", &[]),
        ("[0.0.0.0/0, '::/0']", &["8.8.8.8", "2606:4700::1111"]),
        ("[private]", &[]),
        ("[metadata]", &[]),
        ("[link-local, reserved, 8.8.8.0/24]", &["8.8.8.8"]),
        ("[8.8.8.0/24, private]", &["8.8.8.8"]),
        (
            "[private, link-local, loopback, multicast, metadata, reserved]",
            &[],
        ),
        ("[private, private]", &[]),
    ] {
        let egress = egress(&format!("{{ deny_networks: {list} }}"));
        for address in special.iter().chain(more) {
            assert!(class(&egress, address).is_some(), "{list}: {address}");
        }
        let open = ["8.8.8.8", "8.8.9.8", "1.1.1.1", "2606:4700::1111"];
        for address in open.iter().filter(|address| !more.contains(address)) {
            let is_open = class(&egress, address).is_none();
            assert!(is_open || list.contains("/0"), "{list}: {address}");
        }
    }
}

/// A class is opened by its own word, also where a list names it or leaves it out.
#[test]
fn a_class_is_taken_away_by_an_exception_alone() {
    for deny in ["[]", "[private]", "[loopback, metadata]", "[8.8.8.0/24]"] {
        let egress = egress(&format!("{{ deny_networks: {deny}, allow_networks: [private] }}"));
        assert_eq!(class(&egress, "10.1.2.3"), None, "{deny}");
        for closed in ["127.0.0.1", "169.254.169.254", "100.100.100.200", "169.254.0.1"] {
            assert!(class(&egress, closed).is_some(), "{deny}: {closed}");
        }
    }
}

/// Of an opened network a part can stay denied, and of a denied one a part be opened.
#[test]
fn the_smaller_block_counts() {
    for (deny, allow, open, closed) in [
        ("10.1.0.0/16", "private", "10.2.0.1", "10.1.0.1"),
        ("10.1.0.0/16", "10.0.0.0/8", "10.2.0.1", "10.1.0.1"),
        ("10.0.0.0/8", "10.1.0.0/16", "10.1.0.1", "10.2.0.1"),
        ("8.0.0.0/8", "8.8.8.8", "8.8.8.8", "8.8.8.9"),
        ("8.8.8.8", "8.0.0.0/8", "8.8.8.9", "8.8.8.8"),
        ("127.0.0.2", "loopback", "127.0.0.1", "127.0.0.2"),
        ("fd00:1::/32", "private", "fd00:2::1", "fd00:1::1"),
        // An exception is one from the very same block, too.
        ("8.8.8.0/24", "8.8.8.0/24", "8.8.8.8", "127.0.0.1"),
        ("169.254.169.254", "metadata", "169.254.170.2", "169.254.169.254"),
    ] {
        let egress = egress(&format!(
            "{{ deny_networks: ['{deny}'], allow_networks: ['{allow}'] }}"
        ));
        assert_eq!(class(&egress, open), None, "{deny} {allow}");
        assert!(class(&egress, closed).is_some(), "{deny} {allow}");
    }
}

/// D4: of mixed answers only the good ones are kept, in their order; mapped ones are dialled as IPv4.
#[test]
fn mixed_answers_lose_their_bad_ones() {
    let resolved = [
        "10.0.0.1",
        "2606:4700::1111",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "127.0.0.1",
        "1.1.1.1",
    ]
    .map(|address| address.parse().unwrap());
    let approved = default().approve(&resolved, 8443).unwrap();
    let kept: Vec<_> = approved.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(kept, ["[2606:4700::1111]:8443", "8.8.8.8:8443", "1.1.1.1:8443"]);

    let denial = default().approve(&resolved[..1], 443).unwrap_err();
    assert_eq!(
        denial,
        Denial::Network {
            address: resolved[0],
            class: "private"
        }
    );
    assert_eq!(denial.reason(), "network");
    let sentence = denial.to_string();
    assert!(
        sentence.contains("10.0.0.1") && sentence.contains("private"),
        "{sentence}"
    );
    assert!(sentence.contains("egress.allow_networks"), "{sentence}");
    assert!(default().approve(&[], 443).unwrap().addresses().is_empty());
}

/// D9: our own doors are never dialled, even where loopback is open.
#[test]
fn our_own_listeners_are_not_dialled() {
    let listeners =
        ["127.0.0.1:3128", "0.0.0.0:9901", "[::]:9902", "10.0.0.5:3128"].map(|own| own.parse().unwrap());
    let egress =
        egress("{ allow_networks: [private, link-local, loopback, reserved] }").with_own(listeners.to_vec());
    for own in [
        "127.0.0.1:3128",
        "0.0.0.0:3128",
        "[::]:3128",
        "[::ffff:127.0.0.1]:3128",
        "[64:ff9b::7f00:1]:3128",
        "127.0.0.1:9901",
        "127.8.8.8:9901",
        "[::1]:9901",
        "127.0.0.1:9902",
        "[::1]:9902",
        "10.0.0.5:3128",
    ] {
        let own: std::net::SocketAddr = own.parse().unwrap();
        let denial = egress.approve(&[own.ip()], own.port()).unwrap_err();
        assert_eq!(denial.reason(), "loop", "{own}");
    }
    for other in ["127.0.0.1:3129", "10.0.0.6:3128", "10.0.0.5:9903", "8.8.8.8:9901"] {
        let other: std::net::SocketAddr = other.parse().unwrap();
        assert!(egress.approve(&[other.ip()], other.port()).is_ok(), "{other}");
    }
    let mixed = egress
        .approve(&["127.0.0.1".parse().unwrap(), "8.8.8.8".parse().unwrap()], 3128)
        .unwrap();
    assert_eq!(mixed.addresses().len(), 1);
}

#[test]
fn an_ipv4_mapped_block_is_a_problem() {
    let text = "egress: { allow_networks: [\"::ffff:0:0/96\", \"::ffff:10.0.0.0/104\"], deny_networks: [\"::ffff:1.2.3.4/128\"] }";
    let config = Config::parse(text, "test.yml").unwrap();
    let problems = Policy::compile(&config).unwrap_err().to_string();
    for expected in [
        "allow_networks[0]",
        "write 0.0.0.0/0",
        "allow_networks[1]",
        "write 10.0.0.0/8",
        "write 1.2.3.4/32",
    ] {
        assert!(problems.contains(expected), "{expected}: {problems}");
    }
}
