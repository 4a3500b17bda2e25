//! Slots, the map of a cluster, and redirections.

use crate::store::resp::{self, RedisReply};
use crate::store::tests::node;
use crate::store::topology::{Topology, redirection, slot_of};

fn reply(bytes: &str) -> RedisReply {
    let (reply, length) = resp::read(bytes.as_bytes()).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    reply
}

/// The first three are in the specification, the others are what CLUSTER KEYSLOT answers.
#[test]
fn a_slot_comes_from_the_checksum_of_the_hash_tag() {
    for (key, slot) in [
        ("123456789", 0x31c3),
        ("foo", 12182),
        ("{user1000}.following", slot_of("{user1000}.followers")),
        ("{user1000}.following", 3443),
        ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015),
        ("foo{bar}{zap}", 5061),
        ("", 0),
    ] {
        assert_eq!(slot_of(key), slot, "{key}");
    }
}

#[test]
fn the_map_of_a_cluster_is_read() {
    let asked = node("10.0.0.9", 7000);
    let map = reply(
        "*3\r\n\
         *4\r\n:0\r\n:5460\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n*2\r\n$8\r\nhostname\r\n$1\r\nx\r\n\
         *3\r\n$9\r\n127.0.0.1\r\n:7009\r\n$2\r\nid\r\n\
         *3\r\n:5461\r\n:5461\r\n*3\r\n$-1\r\n:7002\r\n$2\r\nid\r\n\
         *3\r\n:6000\r\n:16383\r\n*3\r\n$3\r\n::1\r\n:7003\r\n$2\r\nid\r\n",
    );
    let mut map = Topology::read(&map, &asked).unwrap();
    let owner = |map: &Topology, slot| map.owner(slot).map(ToString::to_string);
    assert_eq!(owner(&map, 0).as_deref(), Some("127.0.0.1:7001"));
    assert_eq!(
        owner(&map, 5461).as_deref(),
        Some("10.0.0.9:7002"),
        "no host: the one asked"
    );
    assert_eq!(owner(&map, 5462), None);
    assert_eq!(owner(&map, 16383).as_deref(), Some("[::1]:7003"));
    assert_eq!(map.nodes().len(), 3);
    map.apply(5462, redirection("MOVED 5462 redis.test:7004", &asked).unwrap());
    assert_eq!(owner(&map, 5462).as_deref(), Some("redis.test:7004"));
    assert_eq!(map.nodes().len(), 4);
    for wrong in [
        ":1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n$1\r\nh\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nh\r\n:65536\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$3\r\na b\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*0\r\n",
    ] {
        Topology::read(&reply(wrong), &asked).unwrap_err();
    }
    let nameless = reply("*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\n?\r\n:7001\r\n");
    let error = Topology::read(&nameless, &asked).unwrap_err();
    assert!(error.to_string().contains("cluster-announce-hostname"), "{error}");
}

#[test]
fn a_redirection_names_a_server() {
    let asked = node("10.0.0.9", 7000);
    for (error, to) in [
        ("MOVED 3999 127.0.0.1:6381", "127.0.0.1:6381"),
        ("ASK 0 ::1:6381", "[::1]:6381"),
        ("MOVED 1 :6381", "10.0.0.9:6381"),
    ] {
        assert_eq!(redirection(error, &asked).unwrap().to_string(), to, "{error}");
    }
    for error in [
        "MOVED",
        "MOVED 1",
        "MOVED 1 h",
        "MOVED 1 h:0",
        "MOVED 1 h:65536",
        "MOVED 1 a/b:1",
        "MOVED 1 ?:6381",
    ] {
        redirection(error, &asked).unwrap_err();
    }
}
