//! The shapes of common keys and tokens, as their issuers document them.
//!
//! A long token is decided on its first bytes; the rest of it, of any length, is its tail and follows unread.

use crate::{
    bytes::{ByteSet, after},
    find::At,
};

static ALPHANUMERIC: ByteSet = ByteSet::alphanumeric_and(b"");
static WORD: ByteSet = ByteSet::alphanumeric_and(b"_");
static DASHED: ByteSet = ByteSet::alphanumeric_and(b"-");
static BASE64: ByteSet = ByteSet::alphanumeric_and(b"+/=");
static BASE64_URL: ByteSet = ByteSet::alphanumeric_and(b"_-");
static JWT: ByteSet = ByteSet::alphanumeric_and(b"_-.");
static BEARER: ByteSet = ByteSet::alphanumeric_and(b"._~+/=-");
static PEM: ByteSet = ByteSet::alphanumeric_and(b"+/= \r\n\t,:.-\\");

/// Longest header of a JSON Web Token that is read, in bytes of base64url.
pub(crate) const JWT_HEADER: usize = 2048;
/// Longest label between `-----BEGIN` and `PRIVATE KEY` (RFC 7468 section 3 names none longer than `ENCRYPTED`).
const PEM_LABEL: usize = 32;

/// A key that is a prefix with so many bytes of a set behind it.
#[derive(Debug)]
pub(crate) struct Shape {
    prefix: &'static [u8],
    bytes: &'static ByteSet,
    length: Length,
}

#[derive(Debug)]
enum Length {
    Exactly(usize),
    AtLeast(usize),
}

const fn shape(prefix: &'static [u8], bytes: &'static ByteSet, length: Length) -> Shape {
    Shape { prefix, bytes, length }
}

use Length::{AtLeast, Exactly};

pub(crate) static AWS: [Shape; 4] = [
    shape(b"AKIA", &ALPHANUMERIC, Exactly(16)),
    shape(b"ASIA", &ALPHANUMERIC, Exactly(16)),
    shape(b"ABIA", &ALPHANUMERIC, Exactly(16)),
    shape(b"ACCA", &ALPHANUMERIC, Exactly(16)),
];
pub(crate) static GITHUB: [Shape; 6] = [
    shape(b"ghp_", &ALPHANUMERIC, AtLeast(36)),
    shape(b"gho_", &ALPHANUMERIC, AtLeast(36)),
    shape(b"ghu_", &ALPHANUMERIC, AtLeast(36)),
    shape(b"ghs_", &WORD, AtLeast(36)),
    shape(b"ghr_", &ALPHANUMERIC, AtLeast(36)),
    shape(b"github_pat_", &WORD, AtLeast(22)),
];
pub(crate) static SLACK: [Shape; 8] = [
    shape(b"xoxa-", &DASHED, AtLeast(10)),
    shape(b"xoxb-", &DASHED, AtLeast(10)),
    shape(b"xoxe-", &DASHED, AtLeast(10)),
    shape(b"xoxo-", &DASHED, AtLeast(10)),
    shape(b"xoxp-", &DASHED, AtLeast(10)),
    shape(b"xoxr-", &DASHED, AtLeast(10)),
    shape(b"xoxs-", &DASHED, AtLeast(10)),
    shape(b"xapp-", &DASHED, AtLeast(10)),
];
pub(crate) static STRIPE: [Shape; 5] = [
    shape(b"sk_live_", &ALPHANUMERIC, AtLeast(16)),
    shape(b"sk_test_", &ALPHANUMERIC, AtLeast(16)),
    shape(b"rk_live_", &ALPHANUMERIC, AtLeast(16)),
    shape(b"rk_test_", &ALPHANUMERIC, AtLeast(16)),
    shape(b"whsec_", &BASE64, AtLeast(32)),
];
pub(crate) static GOOGLE: [Shape; 3] = [
    shape(b"AIza", &BASE64_URL, Exactly(35)),
    shape(b"GOCSPX-", &BASE64_URL, AtLeast(28)),
    shape(b"ya29.", &BASE64_URL, AtLeast(20)),
];

/// What follows a key that has been recognised and belongs to it still.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tail {
    /// Every byte of the set.
    Run(&'static ByteSet),
    /// The body of a PEM block, so many dashes after its last other byte, with so much of `END` behind them.
    PemBody { dashes: u8, matched: u8 },
    /// The last line of a PEM block, so many dashes after its label.
    PemEnd { dashes: u8 },
}

impl Tail {
    /// How many of these bytes belong to the key, and whether it ends behind them.
    pub(crate) fn swallow(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, byte) in bytes.iter().enumerate() {
            match self.step(*byte) {
                Step::Belongs => {}
                Step::Last => return (index + 1, true),
                Step::Beyond => return (index, true),
            }
        }
        (bytes.len(), false)
    }

    fn step(&mut self, byte: u8) -> Step {
        let belongs = match self {
            Self::Run(set) => set.contains(byte),
            Self::PemBody { .. } | Self::PemEnd { .. } => PEM.contains(byte),
        };
        if !belongs {
            return Step::Beyond;
        }
        *self = match (*self, byte) {
            (Self::PemEnd { dashes: 4 }, b'-') => return Step::Last,
            (Self::PemEnd { dashes }, b'-') => Self::PemEnd { dashes: dashes + 1 },
            (Self::PemEnd { .. }, _) => Self::PemEnd { dashes: 0 },
            (Self::PemBody { dashes, .. }, b'-') => Self::PemBody { dashes: dashes.saturating_add(1), matched: 0 },
            (Self::PemBody { dashes: 5.., matched: 2 }, b'D') => Self::PemEnd { dashes: 0 },
            (Self::PemBody { dashes: dashes @ 5.., matched: matched @ (0 | 1) }, byte)
                if byte == b"EN"[usize::from(matched)] =>
            {
                Self::PemBody { dashes, matched: matched + 1 }
            }
            (Self::PemBody { .. }, _) => Self::PemBody { dashes: 0, matched: 0 },
            (run @ Self::Run(_), _) => run,
        };
        Step::Belongs
    }
}

enum Step {
    Belongs,
    Last,
    Beyond,
}

/// What is known of a literal at a position.
enum Literal {
    Is,
    IsNot,
    MayBecome,
}

fn literal(text: &[u8], at: usize, expected: &[u8], end: bool) -> Literal {
    literal_as(<[u8]>::eq, text, at, expected, end)
}

fn literal_as(same: fn(&[u8], &[u8]) -> bool, text: &[u8], at: usize, expected: &[u8], end: bool) -> Literal {
    let there = text.get(at..).unwrap_or_default();
    let common = there.len().min(expected.len());
    match same(&there[..common], &expected[..common]) {
        true if common == expected.len() => Literal::Is,
        true if !end => Literal::MayBecome,
        _ => Literal::IsNot,
    }
}

/// Whether one of the shapes begins at `at`. Their prefixes exclude each other.
pub(crate) fn shapes(shapes: &[Shape], text: &[u8], at: usize, end: bool) -> At {
    if after(text, at, |byte| WORD.contains(byte)) {
        return At::Nothing;
    }
    for shape in shapes {
        let found = match literal(text, at, shape.prefix, end) {
            Literal::Is => body(shape, text, at, end),
            Literal::MayBecome => At::Incomplete,
            Literal::IsNot => At::Nothing,
        };
        if !matches!(found, At::Nothing) {
            return found;
        }
    }
    At::Nothing
}

fn body(shape: &Shape, text: &[u8], at: usize, end: bool) -> At {
    let from = at + shape.prefix.len();
    let (wanted, tail) = match shape.length {
        Exactly(wanted) => (wanted, None),
        AtLeast(wanted) => (wanted, Some(Tail::Run(shape.bytes))),
    };
    let length = shape.bytes.run(text, from, wanted + 1);
    let found = At::Found { span: at..from + wanted, tail };
    match shape.length {
        _ if length < wanted && from + length == text.len() && !end => At::Incomplete,
        _ if length < wanted => At::Nothing,
        AtLeast(_) => found,
        Exactly(_) if length > wanted => At::Nothing,
        Exactly(_) if from + length == text.len() && !end => At::Incomplete,
        Exactly(_) => found,
    }
}

/// Whether a JSON Web Token begins at `at` (RFC 7519: two JSON objects in base64url, `{"` being `eyJ`).
pub(crate) fn jwt(text: &[u8], at: usize, end: bool) -> At {
    const BEGIN: &[u8] = b"eyJ";
    if after(text, at, |byte| BASE64_URL.contains(byte)) {
        return At::Nothing;
    }
    match literal(text, at, BEGIN, end) {
        Literal::Is => {}
        Literal::IsNot => return At::Nothing,
        Literal::MayBecome => return At::Incomplete,
    }
    let header = BASE64_URL.run(text, at, JWT_HEADER + 1);
    let dot = at + header;
    match text.get(dot) {
        Some(b'.') if header >= 10 => {}
        None if !end && header <= JWT_HEADER => return At::Incomplete,
        _ => return At::Nothing,
    }
    match literal(text, dot + 1, BEGIN, end) {
        Literal::Is => At::Found { span: at..dot + 1 + BEGIN.len(), tail: Some(Tail::Run(&JWT)) },
        Literal::IsNot => At::Nothing,
        Literal::MayBecome => At::Incomplete,
    }
}

/// Whether a private key in PEM begins at `at` (RFC 7468; OpenPGP's armour too, RFC 9580 section 6.2).
pub(crate) fn private_key(text: &[u8], at: usize, end: bool) -> At {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const KEY: &[u8] = b"PRIVATE KEY";
    match literal(text, at, BEGIN, end) {
        Literal::Is => {}
        Literal::IsNot => return At::Nothing,
        Literal::MayBecome => return At::Incomplete,
    }
    let from = at + BEGIN.len();
    for position in from..=from + PEM_LABEL {
        match literal(text, position, KEY, end) {
            Literal::Is => {
                let tail = Tail::PemBody { dashes: 0, matched: 0 };
                return At::Found { span: at..position + KEY.len(), tail: Some(tail) };
            }
            Literal::MayBecome => return At::Incomplete,
            Literal::IsNot => {}
        }
        if !text.get(position).is_some_and(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ') {
            break;
        }
    }
    At::Nothing
}

/// Whether a bearer token is named at `at` (RFC 6750 section 2.1). The word itself is not part of what is found.
pub(crate) fn bearer(text: &[u8], at: usize, end: bool) -> At {
    const WORD: &[u8] = b"bearer";
    /// Most blanks before the token.
    const BLANKS: usize = 8;
    /// Fewest bytes of a token: shorter ones are words of a sentence.
    const TOKEN: usize = 20;
    if after(text, at, |byte| byte.is_ascii_alphanumeric()) {
        return At::Nothing;
    }
    match literal_as(<[u8]>::eq_ignore_ascii_case, text, at, WORD, end) {
        Literal::Is => {}
        Literal::IsNot => return At::Nothing,
        Literal::MayBecome => return At::Incomplete,
    }
    let blanks = text[at + WORD.len()..].iter().take(BLANKS + 1).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let from = at + WORD.len() + blanks;
    if blanks > BLANKS || (blanks == 0 && from < text.len()) {
        return At::Nothing;
    }
    let length = BEARER.run(text, from, TOKEN);
    if blanks > 0 && length == TOKEN {
        return At::Found { span: from..from + TOKEN, tail: Some(Tail::Run(&BEARER)) };
    }
    if from + length == text.len() && !end { At::Incomplete } else { At::Nothing }
}

#[cfg(test)]
mod tests {
    use crate::find::tests::found;

    #[test]
    fn keys_are_found() {
        let long = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0";
        let rows = [
            ("aws_key", format!("AKIA{}", "ABCDEFGH12345678")),
            ("github_token", format!("ghp_{long}")),
            ("github_token", format!("github_pat_{long}_{long}")),
            ("slack_token", format!("xoxb-123456789012-{long}")),
            ("stripe_key", format!("sk_live_{long}")),
            ("stripe_key", format!("whsec_{long}")),
            ("google_key", format!("AIza{}", &long[..35])),
            ("google_key", format!("ya29.{long}")),
            ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl".to_owned()),
        ];
        for (detector, key) in rows {
            for text in [key.clone(), format!("key={key}&b=1"), format!("\"{key}\""), format!("the key {key} is mine")] {
                assert_eq!(found(detector, &text), [key.as_str()], "{text}");
            }
        }
    }

    #[test]
    fn a_bearer_token_is_found_without_its_word() {
        for text in ["Authorization: Bearer abcdefghij0123456789~/+==", "bearer\tabcdefghij0123456789~/+==, x"] {
            assert_eq!(found("bearer_token", text), ["abcdefghij0123456789~/+=="], "{text}");
        }
        for text in
            ["the bearer of this letter", "Bearer short", "forbearer abcdefghij0123456789", "Bearerabcdefghij0123456789"]
        {
            assert!(found("bearer_token", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_private_key_is_found_to_its_last_line() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n".repeat(30);
        for label in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
            let key = format!("-----BEGIN {label}PRIVATE KEY-----\n{body}-----END {label}PRIVATE KEY-----");
            assert_eq!(found("private_key", &format!("a {key} b")), [key.as_str()], "{label}");
        }
        let armour = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nComment: x\n\nabc=\n-----END PGP PRIVATE KEY BLOCK-----";
        assert_eq!(found("private_key", &format!("{armour} after")), [armour]);
        let open = "-----BEGIN PRIVATE KEY-----\nMIIE";
        assert_eq!(found("private_key", &format!("{open}\" quoted")), [open], "half a key is found as far as it goes");
        assert!(found("private_key", "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----").is_empty());
        assert!(found("private_key", "-----BEGIN PUBLIC KEY-----\nMIIE").is_empty());
    }

    #[test]
    fn what_only_resembles_a_key_is_left_alone() {
        let rows = [
            ("aws_key", "AKIAABCDEFGH1234567"),
            ("aws_key", "AKIAABCDEFGH123456789"),
            ("aws_key", "xAKIAABCDEFGH12345678"),
            ("github_token", "ghp_short"),
            ("slack_token", "xoxb-1"),
            ("stripe_key", "pk_live_a1B2c3D4e5F6g7H8i9J0"),
            ("google_key", "AIzaShort"),
            ("jwt", "eyJhbGciOiJIUzI1NiJ9.abc.def"),
            ("jwt", "eyJhbGciOiJIUzI1NiJ9"),
            ("jwt", "eyJ.eyJ.x"),
        ];
        for (detector, text) in rows {
            assert!(found(detector, text).is_empty(), "{text}");
        }
    }
}
