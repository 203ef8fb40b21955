//! However a stream is cut, it is masked as the whole is: over many made-up texts, each cut in many ways.

use detection::{Detectors, FormMasker, JsonMasker, LONGEST, Mask, Setting, TextMasker};
use serde_json::{Value, json};

/// Numbers that follow from a seed (SplitMix64), so that a failure can be repeated.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// What the texts are made of: things to be found, things that nearly are, and things between.
const PARTS: &[&str] = &[
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1112",
    "5555555555554444",
    "41111",
    "9",
    "0.",
    "-",
    " ",
    "\n",
    " xoxb-1234567890",
    "sk_live_",
    " AIzaa1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R",
    "bob@example.com",
    "bob",
    "@",
    "example.com",
    ".",
    "a.b+c@mail.example.co.uk",
    "AKIAABCDEFGH12345678",
    "AKIA",
    "ghp_",
    "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "eyJ",
    "Bearer ",
    "bearer",
    "-----BEGIN RSA PRIVATE KEY-----\n",
    "-----BEGIN ",
    "PRIVATE KEY-----",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n",
    "-----END ",
    "RSA PRIVATE KEY-----",
    "EMP-",
    "123456",
    "EMP-654321",
    "é",
    "€uro",
    "😀",
    "\"",
    "\\",
    "naïve",
    "x",
    "cat",
    " cat ",
    "(",
    "</p>",
];

fn detectors() -> Detectors {
    let own = json!([
        "card", "email", "keys",
        {"name": "employee", "pattern": "EMP-[0-9]{6}"},
        {"name": "cat", "pattern": r"\bcat\b"},
        {"name": "odd", "pattern": "[^a-z]x.{0,3}"},
        {"name": "long", "pattern": "(?:[0-9]{1,6}[ -]){1,4}[a-z]"},
    ]);
    serde_json::from_value::<Setting>(own).expect("a setting").check("").expect("detectors")
}

fn builtin() -> Detectors {
    Setting::all().check("").expect("detectors")
}

fn text(seed: &mut Seed) -> String {
    (0..seed.below(24)).map(|_| seed.one_of(PARTS)).collect()
}

/// Feeds `bytes` in pieces whose sizes the seed says, and returns what came out.
fn cut(seed: &mut Seed, bytes: &[u8], mut feed: impl FnMut(&[u8], bool)) {
    let largest = 1 + seed.below(40);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(seed.below(largest + 1).min(rest.len()));
        feed(piece, after.is_empty() && seed.below(2) == 0);
        rest = after;
        if rest.is_empty() {
            return feed(&[], true);
        }
    }
    feed(&[], true);
}

/// Feeds `text` whole and cut, to the same effect, and returns how much was found.
fn masked_alike(detectors: &Detectors, seed: &mut Seed) -> u32 {
    let text = &text(seed);
    let mask = Mask::new("<{detector}>", detectors);
    let (mut whole, mut at_once) = (TextMasker::default(), Vec::new());
    whole.feed(detectors, &mask, text.as_bytes(), true, &mut at_once);
    for _ in 0..6 {
        let (mut masker, mut out) = (TextMasker::default(), Vec::new());
        cut(seed, text.as_bytes(), |piece, end| {
            masker.feed(detectors, &mask, piece, end, &mut out);
            assert!(masker.held() <= LONGEST);
        });
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&at_once), "{text:?}");
        assert_eq!(masker.counts(), whole.counts(), "{text:?}");
    }
    assert!(String::from_utf8(at_once).is_ok(), "no character is cut: {text:?}");
    whole.counts().iter().sum()
}

#[test]
fn text_is_masked_alike_however_it_is_cut() {
    let detectors = detectors();
    let hits: u32 = (0..1000).map(Seed).map(|mut seed| masked_alike(&detectors, &mut seed)).sum();
    assert!(hits > 1000, "{hits}");
}

#[test]
fn each_detector_alone_masks_alike_however_the_text_is_cut() {
    for name in builtin().names() {
        let setting = serde_json::from_value::<Setting>(json!([name])).expect("a setting");
        let alone = setting.check("").expect("a detector");
        let hits: u32 = (0..300).map(Seed).map(|mut seed| masked_alike(&alone, &mut seed)).sum();
        assert!(hits > 0, "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_are_masked_alike_however_they_are_cut() {
    let detectors = detectors();
    let mask = Mask::new("", &detectors);
    for number in 0..1000 {
        let mut seed = Seed(number);
        let choices: [&[u8]; 9] = [b"x", b"\x80", b"\xe2\x82", b"\xff", b" ", b"1", b"EMP-123456", b"\xf0\x9f\x98", b"a"];
        let bytes: Vec<u8> = (0..seed.below(40)).flat_map(|_| choices[seed.below(choices.len())].iter().copied()).collect();
        let mut at_once = Vec::new();
        TextMasker::default().feed(&detectors, &mask, &bytes, true, &mut at_once);
        let (mut masker, mut out) = (TextMasker::default(), Vec::new());
        cut(&mut seed, &bytes, |piece, end| masker.feed(&detectors, &mask, piece, end, &mut out));
        assert_eq!(out, at_once, "seed {number}: {bytes:?}");
    }
}

/// The text as a JSON string, some of its characters written as escapes.
fn written(seed: &mut Seed, text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        if seed.below(8) == 0 {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            let quoted = Value::from(character.to_string()).to_string();
            json.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
    json.push('"');
    json
}

fn value(seed: &mut Seed, depth: usize) -> String {
    let blank = seed.one_of(&["", " ", "\n  "]);
    match seed.below(if depth == 0 { 4 } else { 7 }) {
        0 => seed.one_of(&["4111111111111111", "12", "-1.5e3", "0", "4.111111111111111e15", "5555555555554444"]).to_owned(),
        1 => seed.one_of(&["true", "false", "null"]).to_owned(),
        2 | 3 => {
            let text = &text(seed);
            written(seed, text)
        }
        4 => {
            let values: Vec<_> = (0..seed.below(4)).map(|_| value(seed, depth - 1)).collect();
            format!("[{blank}{}]", values.join(","))
        }
        _ => {
            let mut fields = Vec::new();
            for index in 0..seed.below(4) {
                let key = Value::from(format!("{index}{}", seed.one_of(PARTS)));
                fields.push(format!("{key}:{blank}{}", value(seed, depth - 1)));
            }
            format!("{{{}}}{blank}", fields.join(","))
        }
    }
}

#[test]
fn json_is_masked_as_its_meaning_is_however_it_is_cut() {
    let detectors = detectors();
    let mask = Mask::new("<\"{detector}\">", &detectors);
    let mut hits = 0;
    for number in 0..1000 {
        let mut seed = Seed(number);
        let text = value(&mut seed, 3);
        let (mut whole, mut at_once) = (JsonMasker::default(), Vec::new());
        whole.feed(&detectors, &mask, text.as_bytes(), true, &mut at_once);
        hits += whole.counts().iter().sum::<u32>();
        let mut wanted: Value = serde_json::from_str(&text).unwrap();
        detectors.mask_value(&mask, &mut wanted);
        let masked: Value = serde_json::from_slice(&at_once).unwrap_or_else(|error| panic!("{error}: seed {number}: {text}"));
        assert_eq!(masked, wanted, "seed {number}: {text}");
        for _ in 0..6 {
            let (mut masker, mut out) = (JsonMasker::default(), Vec::new());
            cut(&mut seed, text.as_bytes(), |piece, end| {
                masker.feed(&detectors, &mask, piece, end, &mut out);
                assert!(masker.held() <= LONGEST + 12);
            });
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&at_once), "seed {number}: {text}");
            assert_eq!(masker.counts(), whole.counts(), "seed {number}: {text}");
        }
    }
    assert!(hits > 1000, "{hits}");
}

#[test]
fn json_that_is_broken_is_masked_alike_however_it_is_cut() {
    let detectors = detectors();
    let mask = Mask::new("*", &detectors);
    for number in 0..1000 {
        let mut seed = Seed(number);
        let mut text = value(&mut seed, 3).into_bytes();
        for _ in 0..=seed.below(3) {
            let at = seed.below(text.len() + 1);
            text.splice(
                at..(at + seed.below(2)).min(text.len()),
                seed.one_of(&["\"", "\\", "{", "]", "x", "\u{1}", ","]).bytes(),
            );
        }
        let mut at_once = Vec::new();
        let begun = if number % 2 == 0 { JsonMasker::default } else { JsonMasker::with_keys };
        begun().feed(&detectors, &mask, &text, true, &mut at_once);
        let (mut masker, mut out) = (begun(), Vec::new());
        cut(&mut seed, &text, |piece, end| {
            masker.feed(&detectors, &mask, piece, end, &mut out);
            assert!(masker.held() <= LONGEST + 12);
        });
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&at_once), "seed {number}");
    }
}

/// The text as the value of a form, some of its bytes written as escapes that need none.
fn encoded(seed: &mut Seed, text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b' ' if seed.below(2) == 0 => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() && seed.below(8) > 0 => char::from(byte).to_string(),
        byte => format!("%{byte:02x}"),
    });
    bytes.collect()
}

fn decoded(form: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = form.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two digits")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("text")
}

#[test]
fn forms_are_masked_as_their_meaning_is_however_they_are_cut() {
    let detectors = detectors();
    let mask = Mask::new("<{detector}>", &detectors);
    for number in 0..1000 {
        let mut seed = Seed(number);
        let text = text(&mut seed);
        let form = encoded(&mut seed, &text);
        let (mut masker, mut out) = (FormMasker::default(), Vec::new());
        cut(&mut seed, form.as_bytes(), |piece, end| {
            masker.feed(&detectors, &mask, piece, end, &mut out);
            assert!(masker.held() <= LONGEST + 2);
        });
        let out = String::from_utf8(out).expect("a form is ASCII");
        assert_eq!(decoded(&out), detectors.masked(&mask, &text), "seed {number}: {form}");
    }
}

#[test]
fn forms_that_are_broken_are_masked_alike_however_they_are_cut() {
    let detectors = detectors();
    let mask = Mask::new("*", &detectors);
    for number in 0..1000 {
        let mut seed = Seed(number);
        let text = text(&mut seed);
        let mut form = encoded(&mut seed, &text).into_bytes();
        for _ in 0..=seed.below(3) {
            let at = seed.below(form.len() + 1);
            form.splice(at..(at + seed.below(2)).min(form.len()), seed.one_of(&["%", "%4", "%zz", "&", "=", "é"]).bytes());
        }
        let mut at_once = Vec::new();
        FormMasker::default().feed(&detectors, &mask, &form, true, &mut at_once);
        let (mut masker, mut out) = (FormMasker::default(), Vec::new());
        cut(&mut seed, &form, |piece, end| masker.feed(&detectors, &mask, piece, end, &mut out));
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&at_once), "seed {number}");
    }
}

#[test]
fn texts_without_findings_go_on_byte_for_byte() {
    let nothing = serde_json::from_value::<Setting>(json!([{"name": "never", "pattern": "never to be found"}])).unwrap();
    let nothing = nothing.check("").unwrap();
    let mask = Mask::new("*", &nothing);
    for number in 0..1000 {
        let mut seed = Seed(number);
        let json = value(&mut seed, 3);
        let (mut masker, mut out) = (JsonMasker::default(), Vec::new());
        cut(&mut seed, json.as_bytes(), |piece, end| masker.feed(&nothing, &mask, piece, end, &mut out));
        assert_eq!(out, json.as_bytes(), "seed {number}");
    }
}

#[test]
fn long_tokens_are_hidden_whole_and_held_back_by_little() {
    let detectors = builtin();
    let mask = Mask::new("<{detector}>", &detectors);
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n".repeat(4000);
    let key = format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----");
    let token = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0{}.c2ln", "abcd".repeat(50_000));
    for (secret, name) in [(key, "private_key"), (token, "jwt")] {
        let text = format!("before {secret} (after)");
        let (mut masker, mut out) = (TextMasker::default(), Vec::new());
        for piece in text.as_bytes().chunks(1000) {
            masker.feed(&detectors, &mask, piece, false, &mut out);
            assert!(masker.held() <= LONGEST);
        }
        masker.feed(&detectors, &mask, &[], true, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before <{name}> (after)"));
        assert_eq!(masker.counts().iter().sum::<u32>(), 1);
    }
}

#[test]
fn lines_of_a_live_stream_are_not_held_back() {
    let detectors = builtin();
    let mask = Mask::new("<{detector}>", &detectors);
    let mut masker = TextMasker::default();
    for event in ["data: {\"text\": \"hello\"}\n\n", "data: mail bob@example.com.\n\n", "data: [DONE]\n\n"] {
        let mut out = Vec::new();
        masker.feed(&detectors, &mask, event.as_bytes(), false, &mut out);
        assert_eq!(masker.held(), 0, "{event:?}");
        assert_eq!(String::from_utf8(out).unwrap(), event.replace("bob@example.com", "<email>"));
    }
}
