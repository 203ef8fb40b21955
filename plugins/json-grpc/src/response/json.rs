//! Messages as JSON objects, field by field: in the order of their numbers, the last value of a field that came twice, messages
//! that came in parts put together.

use super::{Absent, Enums, Style};
use crate::schema::{Field, Form, Kind, Message, MessageId, Presence, Schema, Shape};
use crate::wire::{DEPTH, Malformed, Raw, Reader, from_zigzag};
use base64::Engine;
use std::collections::BTreeMap;

/// Most fields that are noted at once, of all messages that are open: far more than real messages have, and a bound on the memory
/// that a message of nothing but tags can take.
const FIELDS: usize = 200_000;
/// Most JSON that is made at a time, whatever the configuration allows: a filter has little memory. A list of enum values or empty
/// messages can grow forty-fold.
pub(crate) const JSON_BYTES: usize = 8 << 20;

/// Where a field is on the wire.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    /// Its place in the message.
    field: u16,
    raw: Raw<'a>,
}

/// JSON on its way to the caller.
#[derive(Debug)]
pub(super) struct Writer<'s, 'a> {
    pub(super) schema: &'s Schema,
    pub(super) style: Style,
    pub(super) out: Vec<u8>,
    /// Where in it the message begins.
    start: usize,
    /// Of all messages that are open, the innermost last.
    entries: Vec<Entry<'a>>,
    pub(super) depth: u32,
    /// Where a mistake is, the innermost name first: filled while an error returns.
    pub(super) path: Vec<String>,
}

/// Takes what is written, as far as to an end: escapes can make a text six times as long.
struct Bounded<'o> {
    out: &'o mut Vec<u8>,
    end: usize,
}

impl std::io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.out.len() + bytes.len() > self.end {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A sentence about what is wrong.
pub(super) type Written = Result<(), String>;

impl From<Malformed> for String {
    fn from(malformed: Malformed) -> Self {
        malformed.0.to_owned()
    }
}

impl<'s, 'a> Writer<'s, 'a> {
    pub(super) fn new(schema: &'s Schema, style: Style, out: Vec<u8>) -> Self {
        let start = out.len();
        Self { schema, style, out, start, entries: Vec::new(), depth: 0, path: Vec::new() }
    }

    /// A message in its form.
    pub(super) fn message(&mut self, id: MessageId, bytes: &'a [u8]) -> Written {
        if self.depth >= DEPTH {
            return Err("messages are nested too deeply".to_owned());
        }
        self.depth += 1;
        let message = self.schema.message(id);
        if message.form == Form::Plain {
            self.out.push(b'{');
            self.fields(message, bytes)?;
            self.out.push(b'}');
        } else {
            self.well_known(message, bytes)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// The value of one field of a message.
    pub(super) fn only(&mut self, id: MessageId, index: u16, bytes: &'a [u8]) -> Written {
        let message = self.schema.message(id);
        let range = self.scan(message, bytes)?;
        let field = message.field(index);
        let entries: Vec<_> = self.entries[range].iter().filter(|entry| entry.field == index).copied().collect();
        if entries.is_empty() {
            self.absent(field);
            return Ok(());
        }
        self.entries = entries;
        self.value_of(field, 0, self.entries.len()).inspect_err(|_| self.path.push(field.json_name.to_string()))
    }

    /// The fields of a message, without braces.
    pub(super) fn fields(&mut self, message: &'s Message, bytes: &'a [u8]) -> Written {
        let range = self.scan(message, bytes)?;
        let (mut at, mut expected) = (range.start, 0u16);
        while let Some(entry) = self.entries.get(at).filter(|_| at < range.end).copied() {
            let same = self.entries[at..range.end].iter().take_while(|other| other.field == entry.field).count();
            self.absent_fields(message, expected..entry.field);
            let field = message.field(entry.field);
            self.field(field, at, at + same).inspect_err(|_| self.path.push(field.json_name.to_string()))?;
            at += same;
            expected = entry.field + 1;
        }
        self.absent_fields(message, expected..message.fields.len() as u16);
        self.entries.truncate(range.start);
        Ok(())
    }

    /// Notes where the message's fields are, in their order; unknown ones are passed over.
    fn scan(&mut self, message: &Message, bytes: &'a [u8]) -> Result<std::ops::Range<usize>, String> {
        let start = self.entries.len();
        let mut reader = Reader::new(bytes);
        let (mut last, mut ordered) = (0, true);
        while let Some((number, raw)) = reader.field()? {
            if let Some(field) = message.by_number(number) {
                ordered &= field >= last;
                last = field;
                if self.entries.len() == FIELDS {
                    return Err(format!("it has more than {FIELDS} fields"));
                }
                self.entries.push(Entry { field, raw });
            }
        }
        if message.has_oneofs {
            self.settle_oneofs(message, start);
        }
        if !ordered {
            self.entries[start..].sort_by_key(|entry| entry.field);
        }
        Ok(start..self.entries.len())
    }

    /// Of the members of a oneof the last one on the wire counts.
    fn settle_oneofs(&mut self, message: &Message, start: usize) {
        let mut winners: BTreeMap<u16, u16> = BTreeMap::new();
        let mut lost = false;
        for entry in self.entries[start..].iter().rev() {
            if let Some(oneof) = message.field(entry.field).oneof {
                lost |= *winners.entry(oneof).or_insert(entry.field) != entry.field;
            }
        }
        if lost {
            let kept = self.entries.split_off(start).into_iter().filter(|entry| {
                let oneof = message.field(entry.field).oneof;
                oneof.is_none_or(|oneof| winners.get(&oneof) == Some(&entry.field))
            });
            self.entries.extend(kept);
        }
    }

    fn field(&mut self, field: &'s Field, from: usize, to: usize) -> Written {
        if self.is_empty(field, from, to) {
            self.absent_field(field);
            return Ok(());
        }
        self.key(field);
        self.value_of(field, from, to)
    }

    /// Whether what is there is no more than what is not there.
    fn is_empty(&self, field: &Field, from: usize, to: usize) -> bool {
        match field.shape {
            Shape::One => {
                field.presence == Presence::Implicit
                    && matches!(self.entries[to - 1].raw, Raw::Varint(0) | Raw::Fixed32(0) | Raw::Fixed64(0) | Raw::Bytes([]))
            }
            Shape::List { .. } => {
                let packable = !matches!(field.kind, Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Group(_));
                packable && self.entries[from..to].iter().all(|entry| entry.raw == Raw::Bytes(&[]))
            }
            Shape::Map => false,
        }
    }

    fn value_of(&mut self, field: &'s Field, from: usize, to: usize) -> Written {
        match (field.shape, field.message()) {
            (Shape::List { .. }, _) => self.list(field, from, to),
            (Shape::Map, Some(entry)) => self.map(entry, from, to),
            (_, Some(message)) if to - from > 1 => self.merged(message, from, to),
            _ => self.value(field, self.entries[to - 1].raw),
        }
    }

    fn list(&mut self, field: &'s Field, from: usize, to: usize) -> Written {
        self.out.push(b'[');
        let mut index = 0usize;
        for at in from..to {
            match (self.entries[at].raw, field.kind) {
                (Raw::Bytes(packed), kind) if !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_)) => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        let raw = match kind.wire_type() {
                            crate::wire::WireType::Fixed32 => Raw::Fixed32(reader.fixed32()?),
                            crate::wire::WireType::Fixed64 => Raw::Fixed64(reader.fixed64()?),
                            _ => Raw::Varint(reader.varint()?),
                        };
                        self.element(field, raw, index)?;
                        index += 1;
                    }
                }
                (raw, _) => {
                    self.element(field, raw, index)?;
                    index += 1;
                }
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn element(&mut self, field: &'s Field, raw: Raw<'a>, index: usize) -> Written {
        if index > 0 {
            self.out.push(b',');
        }
        self.value(field, raw).inspect_err(|_| self.path.push(index.to_string()))
    }

    fn map(&mut self, entry: MessageId, from: usize, to: usize) -> Written {
        let (key_field, value_field) = self.schema.entry(entry);
        let mut values = BTreeMap::new();
        for at in from..to {
            let Raw::Bytes(bytes) = self.entries[at].raw else { return Err(mismatch(Kind::Message(entry))) };
            let (mut key, mut value) = (default_of(key_field.kind), default_of(value_field.kind));
            let mut reader = Reader::new(bytes);
            while let Some((number, raw)) = reader.field()? {
                match number {
                    1 => key = raw,
                    2 => value = raw,
                    _ => {}
                }
            }
            values.insert(key, value);
        }
        self.out.push(b'{');
        for (count, (key, value)) in values.into_iter().enumerate() {
            if count > 0 {
                self.out.push(b',');
            }
            let start = self.out.len();
            self.value(key_field, key)?;
            // Keys are strings, whatever their type.
            if self.out.get(start) != Some(&b'"') {
                self.out.insert(start, b'"');
                self.out.push(b'"');
            }
            let end = self.out.len();
            self.out.push(b':');
            if let Err(error) = self.value(value_field, value) {
                let name = serde_json::from_slice(&self.out[start..end]).unwrap_or_default();
                self.path.push(name);
                return Err(error);
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A message that came in parts.
    fn merged(&mut self, message: MessageId, from: usize, to: usize) -> Written {
        let mut whole = Vec::new();
        for entry in &self.entries[from..to] {
            match entry.raw {
                Raw::Bytes(bytes) | Raw::Group(bytes) => whole.extend_from_slice(bytes),
                _ => return Err(mismatch(Kind::Message(message))),
            }
        }
        let mut writer = Writer::new(self.schema, self.style, std::mem::take(&mut self.out));
        (writer.depth, writer.start) = (self.depth, self.start);
        let written = writer.message(message, &whole);
        self.path = writer.path;
        self.out = writer.out;
        written
    }

    /// One value.
    pub(super) fn value(&mut self, field: &'s Field, raw: Raw<'a>) -> Written {
        self.room(0)?;
        match (field.kind, raw) {
            (Kind::String, Raw::Bytes(bytes)) => return self.string(bytes),
            (Kind::Message(id), Raw::Bytes(bytes)) | (Kind::Group(id), Raw::Group(bytes)) => return self.message(id, bytes),
            (Kind::Int64, Raw::Varint(bits)) => self.quoted(bits as i64),
            (Kind::Uint64, Raw::Varint(bits)) => self.quoted(bits),
            (Kind::Sint64, Raw::Varint(bits)) => self.quoted(from_zigzag(bits)),
            (Kind::Fixed64, Raw::Fixed64(bits)) => self.quoted(bits),
            (Kind::Sfixed64, Raw::Fixed64(bits)) => self.quoted(bits as i64),
            // A 32-bit number may come with more bits, which do not count.
            (Kind::Int32, Raw::Varint(bits)) => self.number(bits as i32),
            (Kind::Uint32, Raw::Varint(bits)) => self.number(bits as u32),
            (Kind::Sint32, Raw::Varint(bits)) => self.number(from_zigzag(u64::from(bits as u32)) as i32),
            (Kind::Fixed32, Raw::Fixed32(bits)) => self.number(bits),
            (Kind::Sfixed32, Raw::Fixed32(bits)) => self.number(bits as i32),
            (Kind::Bool, Raw::Varint(bits)) => self.word(if bits == 0 { "false" } else { "true" }),
            (Kind::Double, Raw::Fixed64(bits)) => {
                let value = f64::from_bits(bits);
                return self.float(value, value);
            }
            (Kind::Float, Raw::Fixed32(bits)) => {
                let value = f32::from_bits(bits);
                return self.float(value, f64::from(value));
            }
            (Kind::Bytes, Raw::Bytes(bytes)) => return self.base64(bytes),
            (Kind::Enum(id), Raw::Varint(bits)) => {
                let enumeration = self.schema.enumeration(id);
                match enumeration.name_of(bits as i32) {
                    _ if enumeration.is_null => self.word("null"),
                    Some(name) if self.style.enums == Enums::Names => {
                        self.out.push(b'"');
                        self.word(name);
                        self.out.push(b'"');
                    }
                    _ => self.number(bits as i32),
                }
            }
            (kind, _) => return Err(mismatch(kind)),
        }
        Ok(())
    }

    /// Whether so many more bytes of JSON may be written.
    pub(super) fn room(&self, more: usize) -> Written {
        if self.out.len() + more <= self.end() { Ok(()) } else { Err(self.too_large()) }
    }

    /// Where what is written has to end.
    fn end(&self) -> usize {
        JSON_BYTES.min(self.start + self.style.most)
    }

    fn too_large(&self) -> String {
        match self.start + self.style.most {
            end if end <= JSON_BYTES => {
                format!("its JSON would be larger than the {} bytes of `max_response_bytes`", self.style.most)
            }
            _ => format!("its JSON would be larger than the {JSON_BYTES} bytes that are made at a time"),
        }
    }

    pub(super) fn string(&mut self, bytes: &[u8]) -> Written {
        let text = std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8")?;
        self.room(text.len() + 2)?;
        self.out.reserve(text.len() + 2);
        let end = self.end();
        serde_json::to_writer(Bounded { out: &mut self.out, end }, text).map_err(|_| self.too_large())
    }

    /// `value` as it is written, `wide` to see what it is.
    pub(super) fn float<T: serde::Serialize>(&mut self, value: T, wide: f64) -> Written {
        match wide {
            _ if wide.is_finite() => return serde_json::to_writer(&mut self.out, &value).map_err(|error| error.to_string()),
            _ if wide.is_nan() => self.word("\"NaN\""),
            _ if wide > 0.0 => self.word("\"Infinity\""),
            _ => self.word("\"-Infinity\""),
        }
        Ok(())
    }

    pub(super) fn base64(&mut self, bytes: &[u8]) -> Written {
        let length = base64::encoded_len(bytes.len(), true).unwrap_or_default();
        self.room(length + 2)?;
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + length, 0);
        // The room is what the encoding of that many bytes takes.
        let encoded = base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut self.out[start..]).unwrap_or_default();
        self.out.truncate(start + encoded);
        self.out.push(b'"');
        Ok(())
    }

    pub(super) fn word(&mut self, word: &str) {
        self.out.extend_from_slice(word.as_bytes());
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// As a string, since readers of JSON have doubles for numbers.
    fn quoted(&mut self, number: impl itoa::Integer) {
        self.out.push(b'"');
        self.number(number);
        self.out.push(b'"');
    }

    fn key(&mut self, field: &Field) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(field.key.as_bytes());
    }

    fn absent_fields(&mut self, message: &'s Message, range: std::ops::Range<u16>) {
        if self.style.absent == Absent::Write {
            for index in range {
                self.absent_field(message.field(index));
            }
        }
    }

    fn absent_field(&mut self, field: &Field) {
        let is_extension = field.name.starts_with('[');
        if self.style.absent == Absent::Write
            && (field.shape != Shape::One || field.presence == Presence::Implicit)
            && !is_extension
        {
            self.key(field);
            self.absent(field);
        }
    }

    /// What an absent field reads as.
    pub(super) fn absent(&mut self, field: &Field) {
        match (field.shape, field.kind) {
            (Shape::List { .. }, _) => self.word("[]"),
            (Shape::Map, _) => self.word("{}"),
            (_, Kind::Bool) => self.word("false"),
            (_, Kind::Double | Kind::Float) => self.word("0.0"),
            (_, Kind::String | Kind::Bytes) => self.word("\"\""),
            (_, Kind::Message(_) | Kind::Group(_)) => self.word("null"),
            (_, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64) => self.word("\"0\""),
            (_, Kind::Enum(id)) => {
                let enumeration = self.schema.enumeration(id);
                match enumeration.name_of(0).filter(|_| self.style.enums == Enums::Names) {
                    _ if enumeration.is_null => self.word("null"),
                    Some(name) => {
                        let quoted = format!("\"{name}\"");
                        self.word(&quoted);
                    }
                    None => self.word("0"),
                }
            }
            _ => self.word("0"),
        }
    }
}

/// What stands on the wire for a value that is absent.
pub(super) fn default_of(kind: Kind) -> Raw<'static> {
    use crate::wire::WireType;
    match kind.wire_type() {
        WireType::Fixed32 => Raw::Fixed32(0),
        WireType::Fixed64 => Raw::Fixed64(0),
        WireType::Bytes => Raw::Bytes(&[]),
        WireType::StartGroup | WireType::EndGroup => Raw::Group(&[]),
        WireType::Varint => Raw::Varint(0),
    }
}

pub(super) fn mismatch(kind: Kind) -> String {
    format!("what came is not {}: the descriptor set is not the one that the API was built with", kind.noun())
}
