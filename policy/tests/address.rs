//! The address guard, by the IANA registries and by what IPv6 addresses embed.

use ipnet::IpNet;
use std::net::IpAddr;
use tidegate_policy::address::{Class, classify, describe, guard};

const OK: &str = "globally reachable";
const DOCUMENTATION: &str = "for documentation";
const BENCHMARKING: &str = "for benchmarking";
const THIS: &str = "of this network (0.0.0.0/8)";
const SHARED: &str = "shared by carriers (100.64.0.0/10)";
const PROTOCOLS4: &str = "reserved for protocols (192.0.0.0/24)";
const PROTOCOLS6: &str = "reserved for protocols (2001::/23)";
const LOCAL_NAT64: &str = "translated by the local network (64:ff9b:1::/48)";

#[rustfmt::skip]
const TABLE: &[(&str, &str)] = &[
    // IPv4: global, and the edges of every block.
    ("1.1.1.1", OK), ("8.8.8.8", OK), ("9.255.255.255", OK), ("11.0.0.0", OK), ("93.184.216.34", OK),
    ("0.0.0.0", "unspecified"), ("0.0.0.1", THIS), ("0.255.255.255", THIS), ("1.0.0.0", OK),
    ("10.0.0.0", "private"), ("10.255.255.255", "private"),
    ("100.63.255.255", OK), ("100.64.0.0", SHARED), ("100.127.255.255", SHARED), ("100.128.0.0", OK),
    ("126.255.255.255", OK), ("127.0.0.1", "loopback"), ("127.255.255.254", "loopback"), ("128.0.0.0", OK),
    ("169.253.255.255", OK), ("169.254.0.0", "link-local"), ("169.254.169.254", "link-local"), ("169.255.0.0", OK),
    ("172.15.255.255", OK), ("172.16.0.0", "private"), ("172.31.255.255", "private"), ("172.32.0.0", OK),
    ("191.255.255.255", OK), ("192.0.0.0", PROTOCOLS4), ("192.0.0.8", PROTOCOLS4), ("192.0.0.9", OK), ("192.0.0.10", OK),
    ("192.0.0.11", PROTOCOLS4), ("192.0.0.170", PROTOCOLS4), ("192.0.0.192", PROTOCOLS4), ("192.0.1.0", OK),
    ("192.0.2.1", DOCUMENTATION), ("192.0.3.0", OK), ("198.51.100.7", DOCUMENTATION), ("203.0.113.255", DOCUMENTATION),
    ("203.0.114.0", OK), ("192.31.196.1", OK), ("192.52.193.1", OK), ("192.175.48.1", OK),
    ("192.88.99.1", "a deprecated 6to4 relay (192.88.99.0/24)"), ("192.88.98.255", OK), ("192.88.100.0", OK),
    ("192.167.255.255", OK), ("192.168.0.1", "private"), ("192.168.255.255", "private"), ("192.169.0.0", OK),
    ("198.17.255.255", OK), ("198.18.0.0", BENCHMARKING), ("198.19.255.255", BENCHMARKING), ("198.20.0.0", OK),
    ("223.255.255.255", OK), ("224.0.0.1", "multicast"), ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"), ("255.255.255.254", "reserved"), ("255.255.255.255", "broadcast"),
    // IPv6.
    ("::", "unspecified"), ("::1", "loopback"), ("2606:4700:4700::1111", OK), ("2a00:1450:4001::1", OK), ("2620:4f:8000::1", OK),
    ("1fff:ffff::1", "reserved"), ("4000::1", "reserved"), ("e000::1", "reserved"), ("0:1::1", "reserved"), ("200::1", "reserved"),
    ("100::1", "discarded (100::/64)"), ("100:0:0:1::1", "a dummy prefix (100:0:0:1::/64)"), ("100:0:0:2::1", "reserved"),
    ("2001:1::1", OK), ("2001:1::2", OK), ("2001:1::3", OK), ("2001:1::4", PROTOCOLS6), ("2001:1:0:1::1", PROTOCOLS6),
    ("2001:2::1", BENCHMARKING), ("2001:2:1::1", PROTOCOLS6), ("2001:3::1", OK), ("2001:4:112::1", OK), ("2001:4:113::1", PROTOCOLS6),
    ("2001:5::1", PROTOCOLS6), ("2001:10::1", "a deprecated ORCHID (2001:10::/28)"), ("2001:20::1", OK), ("2001:30::1", OK),
    ("2001:40::1", PROTOCOLS6), ("2001:1ff::1", PROTOCOLS6), ("2001:200::1", OK), ("2001:4860:4860::8888", OK),
    ("2001:db8::1", DOCUMENTATION), ("2001:db9::1", OK), ("3fff::1", DOCUMENTATION), ("3fff:fff::1", DOCUMENTATION), ("3fff:1000::1", OK),
    ("5f00::1", "a segment routing identifier (5f00::/16)"), ("5f01::1", "reserved"),
    ("fbff::1", "reserved"), ("fc00::1", "unique-local"), ("fd12:3456::1", "unique-local"), ("fdff:ffff::1", "unique-local"),
    ("fe00::1", "reserved"), ("fe80::1", "link-local"), ("febf::1", "link-local"), ("fec0::1", "site-local"), ("feff::1", "site-local"),
    ("ff02::1", "multicast"), ("ff0e::1", "multicast"),
    // What embeds an IPv4 address is what it embeds.
    ("::ffff:127.0.0.1", "loopback"), ("::ffff:169.254.169.254", "link-local"), ("::ffff:10.0.0.1", "private"),
    ("::ffff:0.0.0.0", "unspecified"), ("::ffff:8.8.8.8", OK), ("::127.0.0.1", "loopback"), ("::10.1.2.3", "private"),
    ("::0.0.0.2", THIS), ("::8.8.8.8", OK), ("::ffff:0:127.0.0.1", "loopback"), ("::ffff:0:192.168.0.1", "private"),
    ("::ffff:0:8.8.8.8", OK), ("64:ff9b::127.0.0.1", "loopback"), ("64:ff9b::a9fe:a9fe", "link-local"), ("64:ff9b::8.8.8.8", OK),
    ("64:ff9b::1:0:0", "reserved"), ("64:ff9b:1::8.8.8.8", LOCAL_NAT64), ("64:ff9b:1::127.0.0.1", LOCAL_NAT64), ("64:ff9b:2::1", "reserved"),
    ("2002:7f00:1::1", "loopback"), ("2002:a9fe:a9fe::", "link-local"), ("2002:c0a8:101::1", "private"), ("2002:808:808::1", OK),
    // Teredo: server 8.8.8.8 or 10.0.0.1, client 8.8.4.4 or 127.0.0.1 with every bit turned.
    ("2001:0:808:808:0:0:f7f7:fbfb", OK), ("2001:0:808:808:0:0:80ff:fffe", "loopback"), ("2001:0:a00:1:0:0:f7f7:fbfb", "private"),
    // ISATAP, under any prefix, with and without the universal bit.
    ("2606:4700::5efe:10.0.0.1", "private"), ("2606:4700::200:5efe:127.0.0.1", "loopback"), ("2606:4700::5efe:8.8.8.8", OK),
    ("2606:4700:0:1:0:5efe:a9fe:a9fe", "link-local"), ("fe80::5efe:8.8.8.8", "link-local"), ("2002:808:808::5efe:10.0.0.1", "private"),
    ("2606:4700::100:5efe:10.0.0.1", OK),
];

#[test]
fn every_address_is_what_the_registries_say() {
    assert!(TABLE.len() >= 110, "the table has shrunk to {}", TABLE.len());
    for (text, word) in TABLE {
        let address: IpAddr = text.parse().expect(text);
        assert_eq!(classify(address).as_str(), *word, "{text}");
        assert_eq!(guard(address, &[]).is_ok(), *word == OK, "{text}");
        assert_eq!(classify(address) == Class::Global, *word == OK, "{text}");
    }
}

#[test]
fn a_listed_network_lets_its_own_addresses_through_and_no_others() {
    let table: &[(&str, &str, bool)] = &[
        ("10.20.0.1", "10.20.0.0/16", true),
        ("10.21.0.1", "10.20.0.0/16", false),
        ("127.0.0.1", "127.0.0.1/32", true),
        ("::ffff:10.20.0.1", "10.20.0.0/16", true),
        ("64:ff9b::10.20.0.1", "10.20.0.0/16", true),
        ("2002:a14:1::1", "10.20.0.0/16", true),
        ("::ffff:10.21.0.1", "10.20.0.0/16", false),
        ("fd00::1", "fd00::/8", true),
        ("::1", "::1/128", true),
        ("::1", "0.0.0.1/32", false),
        // Under a prefix that is refused itself, a listed embedded address does not help.
        ("fe80::5efe:10.20.0.1", "10.20.0.0/16", false),
        ("64:ff9b:1::10.20.0.1", "10.20.0.0/16", false),
        ("64:ff9b:1::10.20.0.1", "64:ff9b:1::/48", true),
        // Teredo's server is private and listed, its client is loopback and is not.
        ("2001:0:a14:1:0:0:80ff:fffe", "10.20.0.0/16", false),
        ("2001:0:a14:1:0:0:f7f7:fbfb", "10.20.0.0/16", true),
    ];
    for (address, network, passes) in table {
        let networks: [IpNet; 1] = [network.parse().expect(network)];
        assert_eq!(guard(address.parse().expect(address), &networks).is_ok(), *passes, "{address} for {network}");
    }
}

#[test]
fn the_class_is_said_in_words() {
    let said = |text: &str| describe(text.parse().expect(text));
    assert_eq!(said("169.254.169.254"), "169.254.169.254 is link-local");
    assert_eq!(said("64:ff9b::7f00:1"), "64:ff9b::7f00:1 is loopback, since it embeds 127.0.0.1");
    assert_eq!(said("8.8.8.8"), "8.8.8.8 is globally reachable");
}
