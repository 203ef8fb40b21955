//! What messages look like, compiled once from the descriptor set: fields by number and by name, with everything that a conversion
//! asks for at hand. Read-only, and knows neither JSON nor HTTP.

mod build;

use crate::wire::WireType;
pub(crate) use build::Names;
use std::collections::HashMap;

/// Names to something, hashed fast: the names are the operator's, not an attacker's.
type ByName<T> = HashMap<Box<str>, T, foldhash::fast::FixedState>;

/// All messages, enums and methods of a descriptor set.
#[derive(Debug)]
pub(crate) struct Schema {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    /// Without a leading dot.
    by_name: ByName<MessageId>,
    methods: Vec<Method>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnumId(u32);

/// A message type.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its full name.
    pub(crate) name: Box<str>,
    pub(crate) form: Form,
    /// In the order of their numbers.
    pub(crate) fields: Vec<Field>,
    /// The place in `fields` of each small number.
    small_numbers: Vec<u16>,
    /// The place in `fields` of each name: the JSON one and the one in the source.
    names: ByName<u16>,
    pub(crate) has_oneofs: bool,
}

/// How a message is written in JSON: most as objects, the well-known types each in their own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// `google.protobuf.StringValue` and its like: written as what they wrap.
    Wrapper,
    /// `google.protobuf.Empty`: an object like others, but within an Any it is a `value`.
    Empty,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    pub(crate) presence: Presence,
    /// The oneof it belongs to, by its place among those of the message.
    pub(crate) oneof: Option<u16>,
    /// The name in the source.
    pub(crate) name: Box<str>,
    /// The name that JSON has for it.
    pub(crate) json_name: Box<str>,
    /// What stands before its value in JSON: the quoted name and a colon.
    pub(crate) key: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List {
        packed: bool,
    },
    /// Its kind is the message of the entries: the key is its first field, the value its second.
    Map,
}

/// Whether a field that has its type's default value differs from one that is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Explicit,
    Implicit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
    /// A message that stands between two tags (proto2's groups, and `DELIMITED` in editions).
    Group(MessageId),
}

/// An enum type.
#[derive(Debug)]
pub(crate) struct Enum {
    /// Its full name.
    pub(crate) name: Box<str>,
    /// In the order of their numbers; of several names for one number the first.
    numbers: Vec<(i32, Box<str>)>,
    names: ByName<i32>,
    /// `google.protobuf.NullValue`, which is `null` in JSON.
    pub(crate) is_null: bool,
}

/// A method of an exposed service.
#[derive(Debug)]
pub(crate) struct Method {
    /// `/package.Service/Method`.
    pub(crate) path: Box<str>,
    pub(crate) input: MessageId,
    pub(crate) output: MessageId,
    pub(crate) client_streaming: bool,
    pub(crate) server_streaming: bool,
    pub(crate) rule: Option<crate::descriptor::HttpRule>,
}

impl Schema {
    pub(crate) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    pub(crate) fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0 as usize]
    }

    /// The message of this full name, with no dot before it.
    pub(crate) fn named(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The fields of key and value of a map's entries.
    pub(crate) fn entry(&self, entry: MessageId) -> (&Field, &Field) {
        let fields = &self.message(entry).fields;
        (&fields[0], &fields[1])
    }
}

impl Message {
    /// The place of the field of this number.
    pub(crate) fn by_number(&self, number: u32) -> Option<u16> {
        match self.small_numbers.get(number as usize) {
            Some(&u16::MAX) => None,
            Some(&index) => Some(index),
            None => self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| index as u16),
        }
    }

    /// The place of the field of this name: the JSON one, or the one in the source.
    pub(crate) fn by_name(&self, name: &str) -> Option<u16> {
        self.names.get(name).copied()
    }

    pub(crate) fn field(&self, index: u16) -> &Field {
        &self.fields[usize::from(index)]
    }
}

impl Enum {
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.names.get(name).copied()
    }

    pub(crate) fn name_of(&self, number: i32) -> Option<&str> {
        let index = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.numbers.get(index).map(|(_, name)| &**name)
    }
}

impl Field {
    /// The message that a value of it is.
    pub(crate) fn message(&self) -> Option<MessageId> {
        match self.kind {
            Kind::Message(id) | Kind::Group(id) => Some(id),
            _ => None,
        }
    }
}

impl Kind {
    /// How one value of it stands on the wire.
    pub(crate) const fn wire_type(self) -> WireType {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => WireType::Fixed64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => WireType::Fixed32,
            Self::String | Self::Bytes | Self::Message(_) => WireType::Bytes,
            Self::Group(_) => WireType::StartGroup,
            _ => WireType::Varint,
        }
    }

    /// What it is called in messages to people.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Double => "a number (double)",
            Self::Float => "a number (float)",
            Self::Int32 => "a whole number (int32)",
            Self::Int64 => "a whole number (int64)",
            Self::Uint32 => "a whole number (uint32)",
            Self::Uint64 => "a whole number (uint64)",
            Self::Sint32 => "a whole number (sint32)",
            Self::Sint64 => "a whole number (sint64)",
            Self::Fixed32 => "a whole number (fixed32)",
            Self::Fixed64 => "a whole number (fixed64)",
            Self::Sfixed32 => "a whole number (sfixed32)",
            Self::Sfixed64 => "a whole number (sfixed64)",
            Self::Bool => "true or false",
            Self::String => "a string",
            Self::Bytes => "base64 in a string",
            Self::Enum(_) => "the name or number of an enum's value",
            Self::Message(_) | Self::Group(_) => "an object",
        }
    }
}
