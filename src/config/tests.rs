use super::*;

#[test]
fn the_embedded_default_tunnels() {
    let config = Config::embedded();
    assert_eq!(config.egress.default, EgressDefault::Tunnel);
}
