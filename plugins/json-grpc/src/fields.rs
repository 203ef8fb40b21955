//! Paths to fields, such as `book.author.name`: what path templates and query parameters have for names. Resolved against the
//! schema; a value is written under the messages that hold its field, which the reader merges with what came before.

use crate::request::write::{Draft, Part};
use crate::schema::{Field, Form, MessageId, Schema, Shape};
use crate::wire::{Span, WireType};

/// A field within a message, with the messages on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldPath {
    /// Where each field is: its message, its place there. Never empty.
    steps: Vec<(MessageId, u16)>,
}

impl FieldPath {
    /// Finds the field of this path that a string can be the value of.
    pub(crate) fn resolve(schema: &Schema, root: MessageId, path: &str) -> Result<Self, String> {
        let mut steps: Vec<(MessageId, u16)> = Vec::new();
        let mut message = Some(root);
        for name in path.split('.') {
            let id = message.ok_or_else(|| {
                let before: Vec<_> = path.split('.').take(steps.len()).collect();
                format!("there is nothing within {}", before.join("."))
            })?;
            let index = schema.message(id).by_name(name);
            let index = index.ok_or_else(|| format!("{} has no field {name:?}", schema.message(id).name))?;
            let field = schema.message(id).field(index);
            steps.push((id, index));
            let plain = field.message().filter(|inner| schema.message(*inner).form == Form::Plain);
            message = plain.filter(|_| field.shape == Shape::One);
        }
        let path = Self { steps };
        let field = path.field(schema);
        match (field.shape, field.message().map(|id| schema.message(id).form)) {
            (Shape::Map, _) => Err(format!("{} is a map, which only a body can have", field.name)),
            (_, None | Some(Form::Timestamp | Form::Duration | Form::FieldMask | Form::Wrapper)) => Ok(path),
            (_, Some(_)) => Err(format!("{} is a message, which only a body can have: name a field within it", field.name)),
        }
    }

    /// The field at its end.
    pub(crate) fn field<'s>(&self, schema: &'s Schema) -> &'s Field {
        // A path that resolved has at least one step.
        let (message, index) = self.steps[self.steps.len() - 1];
        schema.message(message).field(index)
    }

    /// The place in the root message of the field that it begins with.
    pub(crate) fn root(&self) -> u16 {
        self.steps[0].1
    }

    /// Whether both are members of one oneof of the same message, on the way or at the end.
    pub(crate) fn excludes(&self, other: &Self, schema: &Schema) -> bool {
        let differing = self.steps.iter().zip(&other.steps).find(|(one, another)| one != another);
        differing.is_some_and(|(one, another)| {
            let oneof = |(message, index): (MessageId, u16)| schema.message(message).field(index).oneof;
            one.0 == another.0 && oneof(*one).is_some() && oneof(*one) == oneof(*another)
        })
    }

    /// Writes the value, within as many messages as it takes.
    pub(crate) fn put(&self, draft: &mut Draft<'_>, part: Part, text: &str) -> Result<(), String> {
        self.put_from(draft, 0, part, text)
    }

    fn put_from(&self, draft: &mut Draft<'_>, step: usize, part: Part, text: &str) -> Result<(), String> {
        let (message, index) = self.steps[step];
        let field = draft.schema.message(message).field(index);
        if step + 1 == self.steps.len() {
            return draft.text(field, part, text).map(drop);
        }
        if let crate::schema::Kind::Group(_) = field.kind {
            draft.tag(field, WireType::StartGroup);
            self.put_from(draft, step + 1, part, text)?;
            draft.tag(field, WireType::EndGroup);
        } else {
            draft.tag(field, WireType::Bytes);
            let span = Span::open(&mut draft.out);
            self.put_from(draft, step + 1, part, text)?;
            span.close(&mut draft.out);
        }
        Ok(())
    }
}
