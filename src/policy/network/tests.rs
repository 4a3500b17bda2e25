use super::*;
use crate::config::Word as _;

fn classes(address: &str) -> Vec<&'static str> {
    let address = address.parse().unwrap();
    let classes = NetworkClass::CHOICES.iter();
    let mut found: Vec<_> = classes
        .filter(|(_, class)| contains(*class, address))
        .map(|(name, _)| *name)
        .collect();
    found.sort_unstable();
    found
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
