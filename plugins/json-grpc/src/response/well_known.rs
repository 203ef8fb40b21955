//! The messages that JSON has a form of its own for.

use super::json::{Writer, Written, default_of, mismatch};
use crate::schema::{Form, Kind, Message};
use crate::time::{self, Time};
use crate::wire::{DEPTH, Raw, Reader};
use std::collections::BTreeMap;

impl<'s, 'a> Writer<'s, 'a> {
    pub(super) fn well_known(&mut self, message: &'s Message, bytes: &'a [u8]) -> Written {
        match message.form {
            Form::Plain => self.fields(message, bytes),
            Form::Empty => {
                self.word("{}");
                Ok(())
            }
            Form::Any => self.any(bytes),
            Form::Timestamp => self.time(bytes, time::put_timestamp),
            Form::Duration => self.time(bytes, time::put_duration),
            Form::FieldMask => self.mask(bytes),
            Form::Wrapper => {
                let field = message.field(0);
                let mut raw = default_of(field.kind);
                let mut reader = Reader::new(bytes);
                while let Some((number, value)) = reader.field()? {
                    if number == 1 {
                        raw = value;
                    }
                }
                self.value(field, raw)
            }
            Form::Struct => self.structure(bytes),
            Form::ListValue => self.list_value(bytes),
            Form::Value => self.any_value(bytes),
        }
    }

    fn time(&mut self, bytes: &[u8], put: fn(&mut String, Time) -> Result<(), &'static str>) -> Written {
        let mut time = Time::default();
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.field()? {
            match field {
                (1, Raw::Varint(bits)) => time.seconds = bits as i64,
                (2, Raw::Varint(bits)) => time.nanos = bits as i32,
                _ => {}
            }
        }
        let mut text = String::with_capacity(32);
        put(&mut text, time).map_err(|detail| format!("{}s and {}ns {detail}", time.seconds, time.nanos))?;
        self.out.push(b'"');
        self.word(&text);
        self.out.push(b'"');
        Ok(())
    }

    fn mask(&mut self, bytes: &[u8]) -> Written {
        let mut text = String::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.field()? {
            let (1, Raw::Bytes(path)) = (number, raw) else { continue };
            if !text.is_empty() {
                text.push(',');
            }
            let path = std::str::from_utf8(path).map_err(|_| "a field mask is not UTF-8")?;
            put_lower_camel(&mut text, path)?;
        }
        self.string(text.as_bytes())
    }

    pub(super) fn any(&mut self, bytes: &'a [u8]) -> Written {
        let (mut url, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.field()? {
            match field {
                (1, Raw::Bytes(bytes)) => url = bytes,
                (2, Raw::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        if url.is_empty() && value.is_empty() {
            self.word("{}");
            return Ok(());
        }
        self.word("{\"@type\":");
        self.string(url)?;
        let name = std::str::from_utf8(url).ok().and_then(|url| url.rsplit_once('/')).map(|(_, name)| name);
        match name.and_then(|name| self.schema.named(name)) {
            Some(id) if self.schema.message(id).form == Form::Plain => {
                if self.depth >= DEPTH {
                    return Err("messages are nested too deeply".to_owned());
                }
                self.depth += 1;
                self.fields(self.schema.message(id), value)?;
                self.depth -= 1;
            }
            Some(id) => {
                self.word(",\"value\":");
                self.message(id, value)?;
            }
            // A type that the descriptor set has not: whoever knows it can still read it.
            None => {
                self.word(",\"value\":");
                self.base64(value)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// An Any of which nothing could be read.
    pub(super) fn opaque(&mut self, bytes: &'a [u8]) -> Written {
        self.word("{\"value\":");
        self.base64(bytes)?;
        self.out.push(b'}');
        Ok(())
    }

    fn structure(&mut self, bytes: &'a [u8]) -> Written {
        let mut values: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.field()? {
            let (1, Raw::Bytes(entry)) = (number, raw) else { continue };
            let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
            let mut entry = Reader::new(entry);
            while let Some(field) = entry.field()? {
                match field {
                    (1, Raw::Bytes(bytes)) => key = bytes,
                    (2, Raw::Bytes(bytes)) => value = bytes,
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
            self.string(key)?;
            self.out.push(b':');
            self.any_value(value).inspect_err(|_| self.path.push(String::from_utf8_lossy(key).into_owned()))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn list_value(&mut self, bytes: &'a [u8]) -> Written {
        self.out.push(b'[');
        let mut index = 0usize;
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.field()? {
            let (1, Raw::Bytes(value)) = (number, raw) else { continue };
            if index > 0 {
                self.out.push(b',');
            }
            self.any_value(value).inspect_err(|_| self.path.push(index.to_string()))?;
            index += 1;
        }
        self.out.push(b']');
        Ok(())
    }

    fn any_value(&mut self, bytes: &'a [u8]) -> Written {
        if self.depth >= DEPTH {
            return Err("values are nested too deeply".to_owned());
        }
        self.room(0)?;
        // The kinds are a oneof: the last one counts.
        let mut last = None;
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.field()? {
            if (1..=6).contains(&number) {
                last = Some((number, raw));
            }
        }
        self.depth += 1;
        match last {
            None | Some((1, _)) => self.word("null"),
            Some((2, Raw::Fixed64(bits))) => {
                let number = f64::from_bits(bits);
                if !number.is_finite() {
                    return Err(format!("{number} is not a number that JSON has"));
                }
                self.float(number, number)?;
            }
            Some((3, Raw::Bytes(text))) => self.string(text)?,
            Some((4, Raw::Varint(bits))) => self.word(if bits == 0 { "false" } else { "true" }),
            Some((5, Raw::Bytes(structure))) => self.structure(structure)?,
            Some((6, Raw::Bytes(list))) => self.list_value(list)?,
            Some(_) => return Err(mismatch(Kind::Bytes)),
        }
        self.depth -= 1;
        Ok(())
    }
}

/// `display_name` becomes `displayName`, where that can be undone.
fn put_lower_camel(out: &mut String, path: &str) -> Written {
    let mut after_underscore = false;
    for character in path.chars() {
        match (character, after_underscore) {
            ('_', false) => after_underscore = true,
            ('a'..='z', true) => {
                out.push(character.to_ascii_uppercase());
                after_underscore = false;
            }
            ('a'..='z' | '0'..='9' | '.', false) => out.push(character),
            _ => return Err(format!("the field path {path:?} cannot be written in lowerCamelCase")),
        }
    }
    if after_underscore { Err(format!("the field path {path:?} cannot be written in lowerCamelCase")) } else { Ok(()) }
}
