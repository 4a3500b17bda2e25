use super::*;

#[test]
fn the_hybrid_key_exchange_comes_first() {
    assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
}
