//! The one canonical form of hosts and authorities.

use tidegate_policy::{Host, HostPattern, host::authority};

#[rustfmt::skip]
const ACCEPTED: &[(&str, &str)] = &[
    ("api.example.com", "api.example.com"), ("API.Example.COM", "api.example.com"), ("api.example.com.", "api.example.com"),
    ("API.EXAMPLE.COM.", "api.example.com"), ("localhost", "localhost"), ("_dmarc.example.com", "_dmarc.example.com"),
    ("my_service.internal", "my_service.internal"), ("r3---sn-4g5e.example.net", "r3---sn-4g5e.example.net"),
    ("1e100.net", "1e100.net"), ("1.2.3.4.example", "1.2.3.4.example"), ("0x7f.example", "0x7f.example"), ("0xg", "0xg"),
    ("bücher.example", "xn--bcher-kva.example"), ("BÜCHER.example", "xn--bcher-kva.example"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ("straße.example", "xn--strae-oqa.example"), ("例え.jp", "xn--r8jz45g.jp"), ("api。example。com", "api.example.com"),
    ("ＡＰＩ.example.com", "api.example.com"), ("api\u{ad}.example.com", "api.example.com"),
    ("192.0.2.1", "192.0.2.1"), ("192.0.2.1.", "192.0.2.1"), ("255.255.255.255", "255.255.255.255"),
    ("::1", "::1"), ("[::1]", "::1"), ("2001:DB8::A", "2001:db8::a"), ("[2001:0db8:0:0::a]", "2001:db8::a"),
    ("[::ffff:127.0.0.1]", "127.0.0.1"), ("::ffff:7f00:1", "127.0.0.1"), ("[::127.0.0.1]", "::7f00:1"),
];

#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "", ".", "..", "a..b", ".a", "a..", "a.b..", " ", "a b", "a\tb", "a\n", "a\0b", "a/b", "a\\b", "a?b", "a#b", "a:80", "a%2eb", "%61",
    "user@host", "user:secret@host", "@host", "a,b", "a*b", "*", "*.example.com", "a;b", "a|b", "a\"b", "a<b", "a'b", "(a)", "a~b", "a!b", "a=b",
    "[a]", "[api.example.com]", "[127.0.0.1]", "[::1", "::1]", "[]", "[[::1]]", "[::1].", "[::1%eth0]", "::1%25eth0", "fe80::1%1", "[::1]x",
    // Whatever inet_aton would read as an address, and whatever ends in a number.
    "127.1", "127.0.1", "2130706433", "0", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0x7F.1", "127.0.0.0x1", "0x",
    "127.0.0.01", "127.0.0.1.1", "256.0.0.1", "1.2.3.256", "1.2.3", "127.0.0.1..", "foo.1", "example.0x10", "foo.00",
    "１２７.0.0.1", "127。0。0。1", "１２７.１", "٣.example.1", "127.0.0.１",
    // Hyphens, and what IDNA refuses.
    "-a.example", "a-.example", "a.-", "xn--.example", "xn--a.example", "xn--\u{fc}.example", "\u{200b}", "a．．b",
    "\u{fdd0}.example", "a\u{ff0f}b.example", "a\u{ff20}b.example", "xn--zzzzzzzzzzzzzzzzzz9999.example",
];

#[test]
fn hosts_have_one_form() {
    for (text, canonical) in ACCEPTED {
        let host: Host = text.parse().unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert_eq!(host.to_string(), *canonical, "{text:?}");
        assert_eq!(host.to_string().parse::<Host>(), Ok(host), "{text:?} is not stable");
    }
    let wrong: Vec<_> = REFUSED.iter().filter_map(|text| Some((text, text.parse::<Host>().ok()?))).collect();
    assert!(wrong.is_empty(), "these must be refused: {wrong:?}");
}

#[test]
fn lengths_are_limited_exactly() {
    let label = "a".repeat(63);
    assert!(label.parse::<Host>().is_ok());
    assert!(format!("{label}a").parse::<Host>().is_err());
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(longest.parse::<Host>().is_ok());
    assert!(format!("{longest}.").parse::<Host>().is_ok());
    assert!(format!("{longest}a").parse::<Host>().is_err());
    assert!("ü".repeat(100_000).parse::<Host>().is_err());
}

#[test]
fn patterns_hold_what_is_below_them() {
    let pattern = |text: &str| text.parse::<HostPattern>();
    let suffix = pattern("*.Example.COM.").expect("a pattern");
    assert_eq!(suffix.to_string(), "*.example.com");
    for (host, held) in [
        ("a.example.com", true),
        ("b.a.example.com", true),
        ("example.com", false),
        ("aexample.com", false),
        ("example.com.evil.net", false),
        ("192.0.2.1", false),
    ] {
        assert_eq!(suffix.matches(&host.parse().expect(host)), held, "{host}");
    }
    for text in
        ["*", "*.", "*a.example", "a.*.example", "**.example", "*.*.example", "*.1.2.3.4", "*.[::1]", ".example.com", "a*"]
    {
        assert!(pattern(text).is_err(), "{text:?}");
    }
    assert!(pattern("[::1]").expect("an address").matches(&"::1".parse().expect("an address")));
}

#[test]
fn authorities_are_a_host_and_a_port() {
    for (text, host, port) in [
        ("api.example.com", "api.example.com", 443),
        ("api.example.com:8443", "api.example.com", 8443),
        ("API.example.com.:", "api.example.com", 443),
        ("[::1]", "::1", 443),
        ("[::1]:80", "::1", 80),
        ("[::1]:", "::1", 443),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("a:00080", "a", 80),
    ] {
        let read = authority(text, 443).unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert_eq!(read, (host.parse().expect(host), port), "{text:?}");
    }
    for text in [
        "",
        ":",
        ":80",
        "a:0",
        "a:65536",
        "a:+80",
        "a:-1",
        "a:8o",
        "a: 80",
        "a :80",
        "a:80:80",
        "::1",
        "::1:80",
        "[::1]80",
        "[::1",
        "[a]:80",
        "u@a",
        "u:p@a:80",
        "a:80@b",
        "a/b",
        "a:80/",
        "a:000080",
        "a:٨٠",
        "[127.0.0.1]:80",
        "127.1:80",
        "[::1%25lo]:80",
        "a?:80",
        "a#@b",
    ] {
        assert!(authority(text, 443).is_err(), "{text:?} became {:?}", authority(text, 443));
    }
}
