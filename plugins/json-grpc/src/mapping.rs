//! Tests of the JSON mapping, both ways, beside another implementation of it (prost-reflect) that reads what is written here and
//! writes what is read here.

use crate::request::{self, Place, Refusal, write::Unknown};
use crate::response::{self, Absent, Enums, Extract, Style, Unwritable};
use crate::samples;
use crate::schema::{MessageId, Schema};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};

struct Mapping {
    schema: Schema,
    id: MessageId,
    reference: MessageDescriptor,
}

impl Mapping {
    fn of(file: &str, message: &str) -> Self {
        let set = samples::set(file);
        let pool = DescriptorPool::decode(set.as_slice()).unwrap();
        let schema = samples::schema_of(&set);
        let id = schema.named(message).unwrap();
        Self { schema, id, reference: pool.get_message_by_name(message).unwrap() }
    }

    fn wire(&self, json: &str) -> Result<Vec<u8>, Refusal> {
        request::message(&self.schema, self.id, Unknown::Refuse, json.as_bytes())
    }

    fn json_in(&self, style: Style, wire: &[u8]) -> Result<String, Unwritable> {
        let mut out = b"before".to_vec();
        let converted = response::convert(&self.schema, style, self.id, Extract::All, wire, &mut out);
        let text = String::from_utf8(out).unwrap();
        let text = text.strip_prefix("before").unwrap().to_owned();
        assert!(converted.is_ok() || text.is_empty(), "half of it was written: {text}");
        converted.map(|()| text)
    }

    fn json(&self, wire: &[u8]) -> Result<String, Unwritable> {
        self.json_in(Style::default(), wire)
    }

    fn mistake(&self, json: &str) -> (String, String) {
        let refusal = self.wire(json).expect_err(json);
        let Place::Body(pointer) = refusal.place else { panic!("{refusal:?}") };
        (pointer, refusal.detail)
    }
}

/// A request body, and what an API that echoes it answers.
#[expect(clippy::too_many_lines, reason = "a table")]
fn echoed() -> Vec<(Value, Value)> {
    let same = |value: Value| (value.clone(), value);
    vec![
        same(json!({})),
        same(json!({"aDouble": 1.5, "aFloat": 0.1, "aBool": true, "aString": "grüße\n\"\\\u{1}", "someBytes": "AP/+"})),
        same(json!({"anInt32": -1, "anInt64": "-1", "aUint32": 4_294_967_295u32, "aUint64": "18446744073709551615"})),
        same(json!({"aSint32": -2_147_483_648i32, "aSint64": "-9223372036854775808", "aFixed32": 7, "aFixed64": "7"})),
        same(json!({"aSfixed32": -7, "aSfixed64": "-7", "color": "BLUE"})),
        (json!({"an_int32": 1, "a_string": "x"}), json!({"anInt32": 1, "aString": "x"})),
        (json!({"anInt32": 0, "aString": "", "aBool": false, "color": "NONE", "someBytes": "", "aDouble": 0}), json!({})),
        (
            json!({"anInt32": null, "child": null, "doubles": null, "words": null, "timestamp": null, "any": null, "struct": null}),
            json!({}),
        ),
        same(json!({"maybe": 0, "perhaps": ""})),
        (json!({"maybe": null}), json!({})),
        (
            json!({"anInt32": "12", "anInt64": 12, "aUint64": 12, "aDouble": "2.5", "aFixed64": 1e3}),
            json!({"anInt32": 12, "anInt64": "12", "aUint64": "12", "aDouble": 2.5, "aFixed64": "1000"}),
        ),
        (json!({"aDouble": "NaN", "aFloat": "-Infinity"}), json!({"aDouble": "NaN", "aFloat": "-Infinity"})),
        (
            json!({"someBytes": "_-8", "blobs": ["/+8=", "/+8", "_-8="]}),
            json!({"someBytes": "/+8=", "blobs": ["/+8=", "/+8=", "/+8="]}),
        ),
        (
            json!({"color": "CRIMSON", "colors": [0, 1, -2, 99, "RED"]}),
            json!({"color": "RED", "colors": ["NONE", "RED", "BLUE", 99, "RED"]}),
        ),
        same(json!({"child": {"child": {"anInt32": 1}}, "children": [{}, {"aString": "x"}]})),
        same(json!({"doubles": [0.0, 1.5], "int32s": [0, -1, 300], "sint64s": ["-1"], "fixed32s": [1], "sfixed64s": ["-1"]})),
        same(json!({"bools": [true, false], "strings": ["", "a"], "spread": [1, 0, 2]})),
        (json!({"int32s": [], "strings": [], "words": {}}), json!({})),
        same(
            json!({"words": {"a": "1", "": ""}, "numbered": {"-1": {"anInt32": 1}, "0": {}}, "switches": {"true": "RED", "false": "NONE"}}),
        ),
        same(json!({"weights": {"-9": 0.5}, "values": {"n": null, "o": {"a": [1.0, "x", {}]}}})),
        same(json!({"text": ""})),
        same(json!({"number": 0})),
        same(json!({"nested": {}})),
        same(json!({"nothing": null})),
        (json!({"text": "x", "number": null}), json!({"text": "x"})),
        same(json!({"timestamp": "2026-11-21T09:12:10.500Z", "duration": "-3.000000001s", "mask": "a.bC,dEf2"})),
        (json!({"timestamp": "2026-11-21T10:12:10.5+01:00"}), json!({"timestamp": "2026-11-21T09:12:10.500Z"})),
        same(json!({"timestamp": "1970-01-01T00:00:00Z", "duration": "0s", "mask": "", "empty": {}})),
        same(json!({"struct": {"a": null, "b": [true, 1.5, "s", {"c": []}], "c": {}}, "value": null, "list": [null, 1.0]})),
        same(json!({"struct": {}, "list": []})),
        same(json!({"value": {"a": "b"}, "mixed": [null, 1.5, "x", [], {}]})),
        same(json!({"doubleValue": 0.0, "floatValue": 1.5, "int64Value": "0", "uint64Value": "1", "int32Value": 0})),
        same(json!({"uint32Value": 1, "boolValue": false, "stringValue": "", "bytesValue": ""})),
        (json!({"int32Value": "5", "stringValue": null}), json!({"int32Value": 5})),
        same(json!({"any": {"@type": "type.googleapis.com/kinds.Everything", "anInt32": 1, "words": {"a": "b"}}})),
        (
            json!({"any": {"anInt32": 1, "@type": "x/kinds.Everything"}}),
            json!({"any": {"@type": "x/kinds.Everything", "anInt32": 1}}),
        ),
        same(json!({"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}})),
        same(
            json!({"any": {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": "a/kinds.Everything", "aBool": true}}}),
        ),
        same(json!({"any": {}})),
        (
            json!({"any": {"@type": "a/google.protobuf.Empty"}}),
            json!({"any": {"@type": "a/google.protobuf.Empty", "value": {}}}),
        ),
        same(
            json!({"anys": [{"@type": "a/google.protobuf.Value", "value": [null]}, {"@type": "a/google.protobuf.Empty", "value": {}}]}),
        ),
        same(json!({"other-\"name\"": "x", "moments": ["2000-01-01T00:00:00Z"]})),
    ]
}

#[test]
fn what_is_sent_comes_back() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    for (sent, expected) in echoed() {
        let wire = mapping.wire(&sent.to_string()).unwrap_or_else(|refusal| panic!("{sent}: {refusal:?}"));
        let answer = mapping.json(&wire).unwrap_or_else(|unwritable| panic!("{sent}: {unwritable:?}"));
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{sent}: {answer}: {error}"));
        assert_eq!(answer, expected, "{sent}");
    }
}

#[test]
fn another_implementation_agrees() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let mut compared = 0;
    for (sent, _) in echoed() {
        let text = sent.to_string();
        // An Any within an Any and an empty one are beyond it.
        let Ok(theirs) = DynamicMessage::deserialize(mapping.reference.clone(), &mut serde_json::Deserializer::from_str(&text))
        else {
            continue;
        };
        let wire = mapping.wire(&text).unwrap();
        let ours = DynamicMessage::decode(mapping.reference.clone(), wire.as_slice()).unwrap();
        let read =
            |message: &DynamicMessage| -> Value { serde_json::from_str(&serde_json::to_string(message).unwrap()).unwrap() };
        assert_eq!(read(&ours), read(&theirs), "{text}");
        let answer: Value = serde_json::from_str(&mapping.json(&theirs.encode_to_vec()).unwrap()).unwrap();
        assert_eq!(answer, read(&theirs), "{text}");
        compared += 1;
    }
    assert!(compared > 35, "{compared}");
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn mistakes_are_pointed_at() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let cases = [
        (r#"{"anInt32": "x"}"#, "/anInt32", "\"x\" is not a whole number, and a whole number (int32) is needed"),
        (r#"{"anInt32": 1.5}"#, "/anInt32", "1.5 is not a whole number"),
        (r#"{"anInt32": 2147483648}"#, "/anInt32", "2147483648 is out of the type's range"),
        (r#"{"anInt32": true}"#, "/anInt32", "true stands where a whole number (int32) is needed"),
        (r#"{"anInt32": [1]}"#, "/anInt32", "a list stands where a whole number (int32) is needed"),
        (r#"{"anInt32": {}}"#, "/anInt32", "an object stands where a whole number (int32) is needed"),
        (r#"{"aUint64": -1}"#, "/aUint64", "-1 is out of the type's range"),
        (r#"{"aUint64": 18446744073709551616}"#, "/aUint64", "is out of the type's range"),
        (r#"{"aFloat": 1e39}"#, "/aFloat", "out of the type's range"),
        (r#"{"aString": 5}"#, "/aString", "5 stands where a string is needed"),
        (r#"{"aString": 1.5}"#, "/aString", "1.5 stands where a string is needed"),
        (r#"{"aBool": "true"}"#, "/aBool", "\"true\" stands where true or false is needed"),
        (r#"{"aBool": 1}"#, "/aBool", "1 stands where true or false is needed"),
        (r#"{"someBytes": "a b"}"#, "/someBytes", "\"a b\" is not base64"),
        (r#"{"color": "GREEN"}"#, "/color", "\"GREEN\" is not a value of the enum kinds.Color"),
        (r#"{"color": 1.5}"#, "/color", "1.5 is not a whole number"),
        (r#"{"child": {"children": [{}, {"words": {"a/b": 1}}]}}"#, "/child/children/1/words/a~1b", "1 stands where a string"),
        (r#"{"child": 5}"#, "/child", "invalid type: integer `5`, expected an object"),
        (r#"{"children": {}}"#, "/children", "an object stands where a list is needed"),
        (r#"{"children": [null]}"#, "/children/0", "null stands where a value is needed"),
        (r#"{"int32s": 1}"#, "/int32s", "a number stands where a list is needed"),
        (r#"{"int32s": [1, null]}"#, "/int32s/1", "null stands where a whole number"),
        (r#"{"int32s": [1, 2, "z"]}"#, "/int32s/2", "\"z\" is not a whole number"),
        (r#"{"words": []}"#, "/words", "a list stands where an object is needed"),
        (r#"{"words": {"a": null}}"#, "/words/a", "null stands where a string is needed"),
        (r#"{"words": {"a": "1", "b": "", "a": "2"}}"#, "/words/a", "the key is given twice"),
        (r#"{"numbered": {"x": {}}}"#, "/numbered/x", "the key \"x\" does not fit"),
        (r#"{"switches": {"yes": 1}}"#, "/switches/yes", "the key \"yes\" does not fit"),
        (r#"{"nope": 1}"#, "/nope", "kinds.Everything has no field of this name"),
        (r#"{"child": {"": 1}}"#, "/child/", "kinds.Everything has no field of this name"),
        (r#"{"anInt32": 1, "anInt32": 1}"#, "/anInt32", "the field is given twice"),
        (r#"{"anInt32": 1, "an_int32": 1}"#, "/anInt32", "the field is given twice"),
        (r#"{"text": "a", "number": 1}"#, "/number", "another field of the same oneof is given too"),
        (r#"{"timestamp": "yesterday"}"#, "/timestamp", "\"yesterday\" is not an RFC 3339 timestamp"),
        (r#"{"timestamp": 5}"#, "/timestamp", "expected an RFC 3339 timestamp in a string"),
        (r#"{"timestamp": {}}"#, "/timestamp", "an object stands where a string is needed"),
        (r#"{"moments": ["2000-01-01T00:00:00Z", "x"]}"#, "/moments/1", "not an RFC 3339 timestamp"),
        (r#"{"duration": "1"}"#, "/duration", "\"1\" is not a duration"),
        (r#"{"mask": "a_b"}"#, "/mask", "\"a_b\" is not a list of field paths"),
        (r#"{"mask": "a,,b"}"#, "/mask", "has an empty field path"),
        (r#"{"struct": []}"#, "/struct", "something else stands where an object is needed"),
        (r#"{"struct": {"a": 1, "a": 2}}"#, "/struct/a", "the name is given twice"),
        (r#"{"list": {}}"#, "/list", "something else stands where a list is needed"),
        (r#"{"list": 1}"#, "/list", "something else stands where a list is needed"),
        (r#"{"empty": {"a": 1}}"#, "/empty/a", "google.protobuf.Empty has no field of this name"),
        (r#"{"int32Value": "x"}"#, "/int32Value", "\"x\" is not a whole number"),
        (r#"{"boolValue": {}}"#, "/boolValue", "an object stands where true or false is needed"),
        (r#"{"any": {"a": 1}}"#, "/any/@type", "an Any needs the type"),
        (r#"{"any": {"@type": "kinds.Everything"}}"#, "/any/@type", "is not the URL of a type that the API knows"),
        (r#"{"any": {"@type": "a/b.C"}}"#, "/any/@type", "\"a/b.C\" is not the URL of a type"),
        (r#"{"any": {"@type": "a/kinds.Everything", "anInt32": "x"}}"#, "/any/anInt32", "\"x\" is not a whole number"),
        (r#"{"any": {"@type": "a/google.protobuf.Duration"}}"#, "/any/value", "needs a value"),
        (r#"{"any": {"@type": "a/google.protobuf.Duration", "value": "1s", "x": 1}}"#, "/any/x", "only @type and one value"),
        (r#"{"any": {"@type": "a/google.protobuf.Duration", "value": 1}}"#, "/any/value", "expected a duration"),
        (r#"{"any": {"@type": "a/kinds.Everything", "@type": "a/kinds.Everything"}}"#, "/any", "@type is given twice"),
        (r#"{"any": 1}"#, "/any", "expected an object with an @type"),
        ("5", "", "expected an object"),
        ("null", "", "null stands where a value is needed"),
        (r#"{"anInt32": 1} x"#, "", "the body is not JSON: trailing characters at line 1 column 16"),
        (r#"{"anInt32": 1"#, "", "the body is not JSON: EOF while parsing an object at line 1 column 13"),
        (r#"{"child": {"aString": "abc"#, "/child/aString", "the body is not JSON: EOF while parsing a string"),
        (r#"{"anInt32": 01}"#, "/anInt32", "the body is not JSON: invalid number"),
        ("{\"aString\": \"\u{1}\"}", "/aString", "the body is not JSON: control character"),
    ];
    for (sent, pointer, detail) in cases {
        let (at, said) = mapping.mistake(sent);
        assert_eq!(at, pointer, "{sent}: {said}");
        assert!(said.contains(detail), "{sent}: {said}");
    }
    let refusal = request::message(&mapping.schema, mapping.id, Unknown::Refuse, b"{\"aString\": \"\xff\"}").unwrap_err();
    assert!(refusal.detail.contains("the body is not JSON: invalid unicode"), "{refusal:?}");
    let (_, said) = mapping.mistake(&format!("{{\"anInt32\": \"{}\"}}", "9".repeat(5000)));
    assert!(said.len() < 200, "{said}");
}

#[test]
fn depth_is_bounded_both_ways() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let nested = |depth: usize| format!("{}{}", "{\"child\":".repeat(depth), "{}".to_owned() + &"}".repeat(depth));
    let deep = mapping.wire(&nested(99)).unwrap();
    assert_eq!(mapping.json(&deep).unwrap(), nested(99));
    assert!(mapping.mistake(&nested(101)).1.contains("nested too deeply"));
    let lists = |depth: usize| format!("{{\"value\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(mapping.wire(&lists(90)).is_ok());
    assert!(mapping.mistake(&lists(101)).1.contains("nested too deeply"));
    assert!(mapping.wire(&lists(100_000)).is_err(), "and the stack is left alone");
    let any = |depth: usize| {
        format!("{}{{}}{}", "{\"any\":{\"@type\":\"a/kinds.Everything\",\"child\":".repeat(depth), "}}".repeat(depth))
    };
    assert!(mapping.mistake(&any(60)).1.contains("nested too deeply"));
    let mut wire = deep;
    for _ in 0..300 {
        let mut outer = Vec::new();
        crate::wire::put_bytes(&mut outer, 17, &wire);
        wire = outer;
    }
    assert!(mapping.json(&wire).unwrap_err().detail.contains("nested too deeply"));
}

#[test]
fn unknown_names_are_passed_over_where_that_is_wanted() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let lenient = |json: &str| request::message(&mapping.schema, mapping.id, Unknown::Ignore, json.as_bytes()).unwrap();
    let json =
        r#"{"nope": [{"a": 1}], "color": "GREEN", "colors": ["RED", "GREEN"], "switches": {"true": "GREEN"}, "anInt32": 1}"#;
    assert_eq!(mapping.json(&lenient(json)).unwrap(), r#"{"anInt32":1,"colors":["RED"]}"#);
    assert_eq!(mapping.json(&lenient(r#"{"color": "GREEN"}"#)).unwrap(), "{}");
}

/// What servers may send that no writer of JSON makes.
#[test]
fn the_wire_is_read_as_it_may_come() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let cases: [(&str, &[u8], &str); 14] = [
        ("the last of two", &[0x18, 1, 0x18, 2], r#"{"anInt32":2}"#),
        ("fields in any order", &[0x72, 1, b'x', 0x18, 1], r#"{"anInt32":1,"aString":"x"}"#),
        ("messages in parts", &[0x8a, 1, 2, 0x18, 1, 0x8a, 1, 3, 0x72, 1, b'x'], r#"{"child":{"anInt32":1,"aString":"x"}}"#),
        (
            "lists in parts, packed and not",
            &[0xb2, 1, 2, 1, 2, 0xb0, 1, 3, 0x18, 1, 0xb2, 1, 1, 4],
            r#"{"anInt32":1,"int32s":[1,2,3,4]}"#,
        ),
        ("packed where it need not be", &[0xfa, 1, 2, 1, 2], r#"{"spread":[1,2]}"#),
        ("an empty packed list", &[0xb2, 1, 0], "{}"),
        ("zero, which is no presence", &[0x18, 0, 0x72, 0], "{}"),
        ("zero with presence", &[0x90, 1, 0], r#"{"maybe":0}"#),
        ("unknown fields", &[0xf8, 0x7f, 1, 0xfb, 0x7f, 0x08, 1, 0xfc, 0x7f, 0x18, 1], r#"{"anInt32":1}"#),
        ("the last of a oneof", &[0x9a, 3, 1, b'x', 0xa0, 3, 5], r#"{"number":5}"#),
        ("a oneof's return", &[0xa0, 3, 5, 0x18, 1, 0x9a, 3, 1, b'x'], r#"{"anInt32":1,"text":"x"}"#),
        ("a map's key twice", &[0xca, 2, 3, 0x0a, 1, b'a', 0xca, 2, 6, 0x0a, 1, b'a', 0x12, 1, b'b'], r#"{"words":{"a":"b"}}"#),
        ("an entry with nothing in it", &[0xd2, 2, 0], r#"{"numbered":{"0":{}}}"#),
        (
            "32-bit numbers with more bits",
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            r#"{"anInt32":-1}"#,
        ),
    ];
    for (name, wire, expected) in cases {
        assert_eq!(mapping.json(wire).as_deref(), Ok(expected), "{name}");
    }
}

#[test]
fn what_cannot_be_written_is_pointed_at_and_nothing_of_it_is_left() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let cases: [(&str, &[u8], &str, &str); 9] = [
        ("cut off", &[0x18], "", "ends in the middle of a field"),
        ("cut off within", &[0x18, 1, 0x8a, 1, 2, 0x72, 5], "/child", "ends in the middle of a field"),
        ("not UTF-8", &[0x8a, 1, 3, 0x72, 1, 0xff], "/child/aString", "not UTF-8"),
        ("not UTF-8 in a list", &[0xda, 1, 1, b'a', 0xda, 1, 1, 0xff], "/strings/1", "not UTF-8"),
        ("another type", &[0x1a, 1, 0], "/anInt32", "the descriptor set is not the one"),
        ("another type in a map", &[0xca, 2, 5, 0x0a, 1, b'k', 0x10, 1], "/words/k", "the descriptor set is not the one"),
        ("nanoseconds out of range", &[0xf2, 3, 6, 0x10, 0x80, 0x94, 0xeb, 0xdc, 0x03], "/timestamp", "outside the years"),
        ("a mask that has no form", &[0x82, 4, 3, 0x0a, 1, b'A'], "/mask", "cannot be written in lowerCamelCase"),
        (
            "a number that JSON has not",
            &[0x92, 4, 9, 0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f],
            "/value",
            "not a number that JSON has",
        ),
    ];
    for (name, wire, pointer, detail) in cases {
        let unwritable = mapping.json(wire).expect_err(name);
        assert_eq!(unwritable.pointer, pointer, "{name}: {unwritable:?}");
        assert!(unwritable.detail.contains(detail), "{name}: {unwritable:?}");
    }
}

#[test]
fn what_grows_beyond_measure_is_refused() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let one = |number: u32, payload: &[u8]| {
        let mut wire = Vec::new();
        crate::wire::put_bytes(&mut wire, number, payload);
        wire
    };
    let enums = one(29, &vec![1; 2 << 20]);
    assert!(mapping.json(&enums).unwrap_err().detail.contains("its JSON would be larger"));
    let empty_messages = one(30, &[]).repeat(200_001);
    assert!(mapping.json(&empty_messages).unwrap_err().detail.contains("more than 200000 fields"));
    assert!(mapping.json(&one(30, &[]).repeat(100_000)).is_ok());
}

/// A fault in a filter costs every exchange that is open on its instance, so no bytes whatever may be one.
#[test]
fn damaged_input_is_refused_or_read_but_never_a_fault() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for (sent, _) in echoed() {
        let (text, wire) = (sent.to_string().into_bytes(), mapping.wire(&sent.to_string()).unwrap());
        for _ in 0..300 {
            let mut damaged = [text.clone(), wire.clone()];
            for bytes in &mut damaged {
                for _ in 0..=next(3) {
                    let at = next(bytes.len() + 1);
                    match next(3) {
                        0 => bytes.truncate(at),
                        1 => bytes.insert(at, next(256) as u8),
                        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = next(256) as u8),
                    }
                }
            }
            let converted = request::message(&mapping.schema, mapping.id, Unknown::Refuse, &damaged[0]);
            let written = mapping.json(&damaged[1]);
            for good in
                [converted.as_ref().ok().and_then(|wire| mapping.json(wire).ok()), written.clone().ok()].into_iter().flatten()
            {
                serde_json::from_str::<serde::de::IgnoredAny>(&good).unwrap_or_else(|error| panic!("{error}: {good}"));
            }
            read += u32::from(written.is_ok());
            refused += u32::from(converted.is_err());
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} {refused}: there is some of both");
}

#[test]
fn an_any_of_an_unknown_type_stays_as_it_came() {
    let mapping = Mapping::of("everything.proto", "kinds.Everything");
    let mut any = Vec::new();
    crate::wire::put_bytes(&mut any, 1, b"a/b.C");
    crate::wire::put_bytes(&mut any, 2, &[8, 1]);
    let mut wire = Vec::new();
    crate::wire::put_bytes(&mut wire, 61, &any);
    assert_eq!(mapping.json(&wire).unwrap(), r#"{"any":{"@type":"a/b.C","value":"CAE="}}"#);
}

#[test]
fn absent_fields_and_enums_can_be_written_otherwise() {
    let mapping = Mapping::of("shop.proto", "shop.v1.Order");
    let wire = mapping.wire(r#"{"state": "PAID", "customer": {}}"#).unwrap();
    let style = Style { absent: Absent::Write, enums: Enums::Numbers, ..Style::default() };
    let expected = r#"{"name":"","state":2,"totalMinor":"0","items":[],"labels":{},"customer":{"name":""}}"#;
    assert_eq!(mapping.json_in(style, &wire).unwrap(), expected);
    let style = Style { absent: Absent::Write, enums: Enums::Names, ..Style::default() };
    let expected = r#"{"name":"","state":"STATE_UNSPECIFIED","totalMinor":"0","items":[],"labels":{}}"#;
    assert_eq!(mapping.json_in(style, &[]).unwrap(), expected);
    let everything = Mapping::of("everything.proto", "kinds.Everything");
    let theirs = DynamicMessage::new(everything.reference.clone());
    let options = prost_reflect::SerializeOptions::new().skip_default_fields(false);
    let mut theirs: Value = theirs.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
    // They also write null for fields with presence that are absent.
    theirs.as_object_mut().unwrap().retain(|name, value| !value.is_null() || name == "nullValue");
    let ours: Value = serde_json::from_str(&everything.json_in(style, &[]).unwrap()).unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn groups_and_extensions_of_proto2_are_known() {
    let mapping = Mapping::of("old.proto", "old.Record");
    let sent = json!({
        "id": 0, "name": "n", "detail": {"note": "x", "inner": {"name": "", "detail": {}}},
        "line": [{"amount": 0}, {}], "numbers": [1, 2], "[old.remark]": "r",
    });
    let wire = mapping.wire(&sent.to_string()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&mapping.json(&wire).unwrap()).unwrap(), sent);
    let theirs = DynamicMessage::deserialize(mapping.reference.clone(), sent.clone()).unwrap();
    assert_eq!(DynamicMessage::decode(mapping.reference.clone(), wire.as_slice()).unwrap(), theirs);
    assert_eq!(serde_json::from_str::<Value>(&mapping.json(&theirs.encode_to_vec()).unwrap()).unwrap(), sent);
    assert_eq!(mapping.mistake(r#"{"line": [{}, {"amount": "x"}]}"#).0, "/line/1/amount");
}
