//! Tries to write what filters never write.

use tidegate_sdk::{Headers, message, upstream};

const HEADERS: [(&str, &[u8]); 20] = [
    ("x-cr", b"a\rb"),
    ("x-lf", b"a\nb"),
    ("x-crlf", b"a\r\nx-smuggled: 1"),
    ("x-nul", b"a\0b"),
    ("x bad", b"v"),
    ("x-name\r\nx-smuggled", b"v"),
    ("", b"v"),
    (":path", b"/admin"),
    (":authority", b"other.example"),
    (":method", b"CONNECT"),
    (":status", b"200"),
    ("Host", b"other.example"),
    ("Content-Length", b"0"),
    ("Transfer-Encoding", b"chunked"),
    ("Connection", b"close"),
    ("TE", b"trailers"),
    ("Trailer", b"x-smuggled"),
    ("Upgrade", b"websocket"),
    ("Proxy-Authorization", b"Bearer stolen"),
    ("Via", b"none"),
];

pub(super) fn inject(headers: &mut Headers<'_>) {
    let mut accepted = 0;
    for (name, value) in HEADERS {
        accepted += u64::from(headers.insert(name, value).is_ok());
        accepted += u64::from(headers.append(name, value).is_ok());
        // One bad change refuses the good one before it.
        accepted += u64::from(headers.change().insert("x-good", "v").append(name, value).apply().is_ok());
    }
    for name in ["host", "content-length", "transfer-encoding", "via", ":path", "proxy-authorization"] {
        accepted += u64::from(headers.remove(name).is_ok());
    }
    super::report("injected", "accepted", accepted + lines() + secrets());
}

/// First lines that are two, or none. No route grants them either, so a test grants `/*` to see that they are not valid.
fn lines() -> u64 {
    let lines = [
        ("GET", "/ HTTP/1.1\r\nx-smuggled: 1\r\n\r\n"),
        ("GET", "/\nx"),
        ("GET", "/\0"),
        ("GET", "/ x"),
        ("GET", "//\r\n"),
        ("GET", "http://other.example/"),
        ("GET", "other"),
        ("GET", ""),
        ("GET /admin HTTP/1.1\r\n", "/"),
        ("", "/"),
        ("CONNECT", "other.example:443"),
    ];
    lines.iter().map(|(method, path)| u64::from(message::rewrite(method, path).is_ok())).sum()
}

fn secrets() -> u64 {
    let secrets =
        [("host", ""), (":path", ""), ("content-length", ""), ("x-a\r\nx-smuggled", ""), ("x-a", "a\r\nb: "), ("x-a", "\0")];
    let refused = |(header, prefix): &(&str, &str)| u64::from(upstream::inject_secret(header, "key", prefix).is_ok());
    secrets.iter().map(refused).sum()
}
