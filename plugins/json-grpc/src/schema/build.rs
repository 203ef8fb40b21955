//! Makes the schema of a descriptor set: names are resolved, features inherited, and what cannot be converted is said here rather
//! than in the middle of an exchange.

use super::{ByName, Enum, EnumId, Field, Form, Kind, Message, MessageId, Method, Presence, Schema, Shape};
use crate::descriptor::{self, EnumType, FeatureSet, FileSet, MessageType};
use std::collections::HashMap;

/// Numbers below this are found by their place, the rest by binary search.
const SMALL_NUMBERS: u32 = 1024;
/// `google.protobuf.Edition`: the last one that is no edition yet.
const EDITION_PROTO3: i32 = 999;

/// Which names the fields have in the JSON that is written. Both are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// `lowerCamelCase`, or what `json_name` says.
    Json,
    /// As in the source.
    Proto,
}

/// What fields of a scope are like unless they say otherwise.
#[derive(Debug, Clone, Copy)]
struct Features {
    presence: Presence,
    packed: bool,
    delimited: bool,
}

/// A type by its full name, with the leading dot that references have.
#[derive(Debug, Clone, Copy)]
enum TypeId {
    Message(MessageId),
    Enum(EnumId),
}

/// Collects the types' names first, then their fields, since types refer to each other in any order.
#[derive(Default)]
struct Builder<'a> {
    types: HashMap<String, TypeId>,
    messages: Vec<(String, &'a MessageType, Features)>,
    enums: Vec<Enum>,
    /// What fields messages get from `extend` blocks: the scope of the block, the field.
    extensions: Vec<(String, &'a descriptor::Field, Features)>,
}

impl Schema {
    /// The error says what is wrong with the set, and what to do.
    pub(crate) fn build(set: &FileSet, services: Option<&[String]>, names: Names) -> Result<Self, String> {
        let mut builder = Builder::default();
        let files = without_repetitions(set)?;
        for file in &files {
            let scope = if file.package.is_empty() { String::new() } else { format!(".{}", file.package) };
            let features = Features::of_file(file)?;
            file.messages.iter().try_for_each(|message| builder.message(&scope, message, features))?;
            file.enums.iter().try_for_each(|enumeration| builder.enumeration(&scope, enumeration))?;
            builder.extensions.extend(file.extensions.iter().map(|field| (scope.clone(), field, features)));
        }
        let mut methods = Vec::new();
        for file in &files {
            for service in &file.services {
                let name =
                    if file.package.is_empty() { service.name.clone() } else { format!("{}.{}", file.package, service.name) };
                if services.is_none_or(|services| services.contains(&name)) {
                    methods.extend(builder.methods(&name, service)?);
                }
            }
        }
        builder.finish(methods, names)
    }
}

impl<'a> Builder<'a> {
    fn message(&mut self, scope: &str, message: &'a MessageType, outer: Features) -> Result<(), String> {
        let name = format!("{scope}.{}", message.name);
        let features = outer.with(message.options.as_ref().and_then(|options| options.features.as_ref()));
        let id = MessageId(self.messages.len() as u32);
        self.declare(&name, TypeId::Message(id))?;
        self.extensions.extend(message.extensions.iter().map(|field| (name.clone(), field, features)));
        self.messages.push((name.clone(), message, features));
        message.nested.iter().try_for_each(|nested| self.message(&name, nested, features))?;
        message.enums.iter().try_for_each(|enumeration| self.enumeration(&name, enumeration))
    }

    fn enumeration(&mut self, scope: &str, enumeration: &EnumType) -> Result<(), String> {
        let name = format!("{scope}.{}", enumeration.name);
        self.declare(&name, TypeId::Enum(EnumId(self.enums.len() as u32)))?;
        let mut numbers: Vec<(i32, Box<str>)> =
            enumeration.values.iter().map(|value| (value.number, value.name.as_str().into())).collect();
        numbers.sort_by_key(|(number, _)| *number);
        numbers.dedup_by_key(|(number, _)| *number);
        let names = enumeration.values.iter().map(|value| (value.name.as_str().into(), value.number)).collect();
        let name: Box<str> = name.trim_start_matches('.').into();
        let is_null = &*name == "google.protobuf.NullValue";
        self.enums.push(Enum { name, numbers, names, is_null });
        Ok(())
    }

    fn declare(&mut self, name: &str, id: TypeId) -> Result<(), String> {
        match self.types.insert(name.to_owned(), id) {
            None => Ok(()),
            Some(_) => Err(format!("{} is declared twice", name.trim_start_matches('.'))),
        }
    }

    fn methods(&self, name: &str, service: &descriptor::Service) -> Result<Vec<Method>, String> {
        let one = |method: &descriptor::Method| {
            let path = format!("/{name}/{}", method.name);
            Ok(Method {
                input: self.message_of(&method.input, &path)?,
                output: self.message_of(&method.output, &path)?,
                client_streaming: method.client_streaming,
                server_streaming: method.server_streaming,
                rule: method.options.as_ref().and_then(|options| options.http.clone()),
                path: path.into(),
            })
        };
        service.methods.iter().map(one).collect()
    }

    fn message_of(&self, reference: &str, by: &str) -> Result<MessageId, String> {
        match self.types.get(reference) {
            Some(TypeId::Message(id)) => Ok(*id),
            Some(TypeId::Enum(_)) => Err(format!("{by} refers to {reference}, which is an enum where a message is needed")),
            None => Err(missing(reference, by)),
        }
    }

    fn finish(self, methods: Vec<Method>, names: Names) -> Result<Schema, String> {
        let mut extensions: HashMap<&str, Vec<(Field, &str)>> = HashMap::new();
        for (scope, field, features) in &self.extensions {
            let name = format!("[{}.{}]", scope.trim_start_matches('.'), field.name).replace("[.", "[");
            let built = self.field(&name, field, *features, names, Origin::Extension)?;
            extensions.entry(&field.extendee).or_default().push((built, &field.name));
        }
        let mut messages = Vec::with_capacity(self.messages.len());
        for (name, message, features) in &self.messages {
            let mut fields = Vec::with_capacity(message.fields.len());
            for field in &message.fields {
                fields.push(self.field(
                    &format!("{}.{}", name.trim_start_matches('.'), field.name),
                    field,
                    *features,
                    names,
                    Origin::Field,
                )?);
            }
            fields.extend(extensions.remove(name.as_str()).into_iter().flatten().map(|(field, _)| field));
            messages.push(finished(name.trim_start_matches('.'), message, fields)?);
        }
        let by_name = messages.iter().zip(0..).map(|(message, id)| (message.name.clone(), MessageId(id))).collect();
        Ok(Schema { messages, enums: self.enums, by_name, methods })
    }

    fn field(
        &self,
        full_name: &str,
        field: &descriptor::Field,
        scope: Features,
        names: Names,
        origin: Origin,
    ) -> Result<Field, String> {
        let options = field.options.as_ref();
        let features = scope.with(options.and_then(|options| options.features.as_ref()));
        let number = u32::try_from(field.number).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| format!("{full_name} has the impossible number {}", field.number))?;
        let kind = self.kind(full_name, field, features)?;
        let shape = self.shape(field, kind, options.and_then(|options| options.packed).unwrap_or(features.packed));
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional).and_then(|index| u16::try_from(index).ok());
        let is_message = matches!(kind, Kind::Message(_) | Kind::Group(_));
        let explicit = is_message || oneof.is_some() || field.proto3_optional || origin == Origin::Extension;
        let json_name = match origin {
            Origin::Extension => full_name.to_owned(),
            Origin::Field if field.json_name.is_empty() => lower_camel(&field.name),
            Origin::Field => field.json_name.clone(),
        };
        let name = if origin == Origin::Extension { full_name } else { &field.name };
        let shown = if names == Names::Json { &json_name } else { name };
        let key = serde_json::to_string(shown).map_err(|error| error.to_string())? + ":";
        Ok(Field {
            number,
            kind,
            shape,
            presence: if explicit { Presence::Explicit } else { features.presence },
            oneof,
            name: name.into(),
            json_name: json_name.into(),
            key: key.into(),
        })
    }

    fn kind(&self, full_name: &str, field: &descriptor::Field, features: Features) -> Result<Kind, String> {
        Ok(match field.kind {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            10 => Kind::Group(self.message_of(&field.type_name, full_name)?),
            11 => {
                let id = self.message_of(&field.type_name, full_name)?;
                if features.delimited && !self.is_map_entry(id) { Kind::Group(id) } else { Kind::Message(id) }
            }
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => match self.types.get(&field.type_name) {
                Some(TypeId::Enum(id)) => Kind::Enum(*id),
                Some(TypeId::Message(_)) => {
                    return Err(format!("{full_name} is an enum, but {} is a message", field.type_name));
                }
                None => return Err(missing(&field.type_name, full_name)),
            },
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            other => return Err(format!("{full_name} has the unknown type {other}")),
        })
    }

    fn shape(&self, field: &descriptor::Field, kind: Kind, packed: bool) -> Shape {
        match kind {
            _ if field.label != descriptor::REPEATED => Shape::One,
            Kind::Message(id) if self.is_map_entry(id) => Shape::Map,
            Kind::Message(_) | Kind::Group(_) | Kind::String | Kind::Bytes => Shape::List { packed: false },
            _ => Shape::List { packed },
        }
    }

    fn is_map_entry(&self, id: MessageId) -> bool {
        let options = self.messages.get(id.0 as usize).and_then(|(_, message, _)| message.options.as_ref());
        options.is_some_and(|options| options.map_entry)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Field,
    Extension,
}

impl Features {
    fn of_file(file: &descriptor::File) -> Result<Self, String> {
        let legacy = match file.syntax.as_str() {
            "" | "proto2" => Self { presence: Presence::Explicit, packed: false, delimited: false },
            "proto3" => Self { presence: Presence::Implicit, packed: true, delimited: false },
            "editions" if file.edition > EDITION_PROTO3 => {
                Self { presence: Presence::Explicit, packed: true, delimited: false }
            }
            other => return Err(format!("{} is written in the unknown syntax {other:?}", file.name)),
        };
        Ok(legacy.with(file.options.as_ref().and_then(|options| options.features.as_ref())))
    }

    fn with(self, features: Option<&FeatureSet>) -> Self {
        let Some(features) = features else { return self };
        Self {
            presence: match features.field_presence {
                0 => self.presence,
                2 => Presence::Implicit,
                _ => Presence::Explicit,
            },
            packed: match features.repeated_field_encoding {
                0 => self.packed,
                encoding => encoding == 1,
            },
            delimited: match features.message_encoding {
                0 => self.delimited,
                encoding => encoding == 2,
            },
        }
    }
}

/// A set that was put together from several may have a file more than once.
fn without_repetitions(set: &FileSet) -> Result<Vec<&descriptor::File>, String> {
    let mut seen: HashMap<&str, &descriptor::File> = HashMap::new();
    let mut files = Vec::with_capacity(set.files.len());
    for file in &set.files {
        match seen.insert(&file.name, file) {
            None => files.push(file),
            Some(first) if first == file => {}
            Some(_) => return Err(format!("{} is in the set twice, and the two differ", file.name)),
        }
    }
    Ok(files)
}

fn finished(name: &str, message: &MessageType, mut fields: Vec<Field>) -> Result<Message, String> {
    fields.sort_by_key(|field| field.number);
    if let Some(pair) = fields.windows(2).find(|pair| pair[0].number == pair[1].number) {
        return Err(format!("{name} has two fields of the number {}: {} and {}", pair[0].number, pair[0].name, pair[1].name));
    }
    if fields.len() >= usize::from(u16::MAX) {
        return Err(format!("{name} has more fields than the {} that can be converted", u16::MAX - 1));
    }
    let is_entry = message.options.as_ref().is_some_and(|options| options.map_entry);
    if is_entry && !fields.iter().map(|field| field.number).eq([1, 2]) {
        return Err(format!("{name} is the entry of a map, but has not the two fields of one"));
    }
    let smallest = fields.iter().map(|field| field.number).take_while(|number| *number < SMALL_NUMBERS).last();
    let mut small_numbers = vec![u16::MAX; smallest.map_or(0, |number| number as usize + 1)];
    let mut names = ByName::default();
    for (field, index) in fields.iter().zip(0u16..) {
        names.entry(field.name.clone()).or_insert(index);
        if let Some(place) = small_numbers.get_mut(field.number as usize) {
            *place = index;
        }
    }
    names.extend(fields.iter().zip(0u16..).map(|(field, index)| (field.json_name.clone(), index)));
    Ok(Message {
        name: name.into(),
        form: form(name, &fields),
        has_oneofs: fields.iter().any(|field| field.oneof.is_some()),
        fields,
        small_numbers,
        names,
    })
}

fn form(name: &str, fields: &[Field]) -> Form {
    match name.strip_prefix("google.protobuf.") {
        Some("Any") => Form::Any,
        Some("Timestamp") => Form::Timestamp,
        Some("Duration") => Form::Duration,
        Some("FieldMask") => Form::FieldMask,
        Some("Empty") => Form::Empty,
        Some("Struct") => Form::Struct,
        Some("Value") => Form::Value,
        Some("ListValue") => Form::ListValue,
        Some(
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
            | "StringValue" | "BytesValue",
        ) if matches!(fields, [Field { number: 1, shape: Shape::One, .. }]) => Form::Wrapper,
        _ => Form::Plain,
    }
}

fn missing(reference: &str, by: &str) -> String {
    let reference = reference.trim_start_matches('.');
    format!("{by} refers to {reference}, which is not in the set: make it with its imports (protoc --include_imports)")
}

/// What a protobuf compiler makes of a name that says no `json_name`.
fn lower_camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut after_underscore = false;
    for character in name.chars() {
        match character {
            '_' => after_underscore = true,
            _ if after_underscore => {
                camel.push(character.to_ascii_uppercase());
                after_underscore = false;
            }
            _ => camel.push(character),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{self as d, FeatureSet};
    use crate::request::{self, write::Unknown};
    use crate::response::{self, Extract, Style};
    use crate::samples;
    use prost::Message as _;

    fn field(name: &str, number: i32, kind: i32) -> d::Field {
        d::Field { name: name.to_owned(), number, kind, label: 1, ..d::Field::default() }
    }

    fn file(messages: Vec<MessageType>) -> d::File {
        d::File {
            name: "a.proto".to_owned(),
            package: "a".to_owned(),
            syntax: "proto3".to_owned(),
            messages,
            ..d::File::default()
        }
    }

    fn message(fields: Vec<d::Field>) -> MessageType {
        MessageType { name: "M".to_owned(), fields, ..MessageType::default() }
    }

    fn error(files: Vec<d::File>) -> String {
        Schema::build(&FileSet { files }, None, Names::Json).unwrap_err()
    }

    #[test]
    fn what_is_wrong_with_a_set_is_said() {
        let of_type = |kind: i32, type_name: &str| d::Field { type_name: type_name.to_owned(), ..field("f", 1, kind) };
        let cases = [
            (
                file(vec![message(vec![of_type(11, ".b.N")])]),
                "a.M.f refers to b.N, which is not in the set: make it with its imports",
            ),
            (file(vec![message(vec![of_type(14, ".b.E")])]), "a.M.f refers to b.E, which is not in the set"),
            (file(vec![message(vec![of_type(14, ".a.M")])]), "a.M.f is an enum, but .a.M is a message"),
            (file(vec![message(vec![field("f", 0, 5)])]), "a.M.f has the impossible number 0"),
            (file(vec![message(vec![field("f", 1 << 29, 5)])]), "a.M.f has the impossible number"),
            (file(vec![message(vec![field("f", 1, 5), field("g", 1, 5)])]), "a.M has two fields of the number 1: f and g"),
            (file(vec![message(vec![field("f", 1, 99)])]), "a.M.f has the unknown type 99"),
            (file(vec![message(Vec::new()), message(Vec::new())]), "a.M is declared twice"),
            (
                d::File { syntax: "proto4".to_owned(), ..file(Vec::new()) },
                "a.proto is written in the unknown syntax \"proto4\"",
            ),
        ];
        for (file, expected) in cases {
            let error = error(vec![file]);
            assert!(error.contains(expected), "{error}");
        }
        let other = d::File { package: "b".to_owned(), ..file(Vec::new()) };
        assert!(error(vec![file(Vec::new()), other]).contains("a.proto is in the set twice, and the two differ"));
    }

    #[test]
    fn sets_may_be_put_together() {
        let one = samples::set("shop.proto");
        let two = [one.clone(), samples::set("everything.proto")].concat();
        let schema = samples::schema_of(&two);
        assert!(schema.named("shop.v1.Order").is_some() && schema.named("kinds.Everything").is_some());
        assert_eq!(schema.methods().len(), samples::schema_of(&one).methods().len());
    }

    #[test]
    fn editions_say_by_features_what_syntax_said() {
        let feature = |presence: i32, encoding: i32, delimited: i32| FeatureSet {
            field_presence: presence,
            repeated_field_encoding: encoding,
            message_encoding: delimited,
        };
        let with = |field: d::Field, features: FeatureSet| d::Field {
            options: Some(d::FieldOptions { packed: None, features: Some(features) }),
            ..field
        };
        let list = |field: d::Field| d::Field { label: d::REPEATED, ..field };
        let mut inner = with(field("inner", 5, 11), feature(0, 0, 2));
        inner.type_name = ".a.M".to_owned();
        let fields = vec![
            field("explicit", 1, 5),
            with(field("implicit", 2, 5), feature(2, 0, 0)),
            list(field("packed", 3, 5)),
            with(list(field("expanded", 4, 5)), feature(0, 2, 0)),
            inner,
        ];
        let file = d::File { syntax: "editions".to_owned(), edition: 1000, ..file(vec![message(fields)]) };
        let schema = samples::schema_of(&FileSet { files: vec![file] }.encode_to_vec());
        let id = schema.named("a.M").unwrap();
        let json = br#"{"explicit":0,"implicit":0,"packed":[1],"expanded":[1],"inner":{"explicit":1}}"#;
        let wire = request::message(&schema, id, Unknown::Refuse, json).unwrap();
        assert_eq!(wire, [0x08, 0, 0x1a, 1, 1, 0x20, 1, 0x2b, 0x08, 1, 0x2c]);
        let mut out = Vec::new();
        response::convert(&schema, Style::default(), id, Extract::All, &wire, &mut out).unwrap();
        let expected = r#"{"explicit":0,"packed":[1],"expanded":[1],"inner":{"explicit":1}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_name_that_says_no_json_name_gets_one() {
        let fields = vec![field("some_long_name_2", 1, 5), field("_x", 2, 5)];
        let schema = samples::schema_of(&FileSet { files: vec![file(vec![message(fields)])] }.encode_to_vec());
        let message = schema.message(schema.named("a.M").unwrap());
        assert_eq!(&*message.field(0).json_name, "someLongName2");
        assert_eq!(&*message.field(1).json_name, "X");
    }
}
