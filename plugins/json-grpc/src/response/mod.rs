//! gRPC messages as JSON: one pass over the wire that notes where each field is, one over the notes that writes.

mod json;
mod well_known;

use crate::schema::{MessageId, Schema};
pub(crate) use json::JSON_BYTES;
use json::Writer;

/// How JSON is written where the mapping leaves a choice, and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) absent: Absent,
    pub(crate) enums: Enums,
    /// Most bytes that are made of one message.
    pub(crate) most: usize,
}

#[cfg(test)]
impl Default for Style {
    fn default() -> Self {
        Self { absent: Absent::Omit, enums: Enums::Names, most: JSON_BYTES }
    }
}

/// Fields without presence that have their type's default value, empty lists and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Absent {
    #[default]
    Omit,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Enums {
    #[default]
    Names,
    Numbers,
}

/// Which part of a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extract {
    All,
    /// The value of the field at this place.
    Field(u16),
}

/// Why a message cannot be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unwritable {
    /// Where, as a JSON pointer into what would have been written.
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

/// Appends the message as JSON. When it fails, what was appended is taken back.
pub(crate) fn convert(
    schema: &Schema,
    style: Style,
    message: MessageId,
    extract: Extract,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let start = out.len();
    let mut writer = Writer::new(schema, style, std::mem::take(out));
    let written = match extract {
        Extract::All => writer.message(message, bytes),
        Extract::Field(index) => writer.only(message, index, bytes),
    };
    // What closes it counts, too.
    let written = written.and_then(|()| writer.room(0));
    let path = std::mem::take(&mut writer.path);
    *out = writer.out;
    written.map_err(|detail| {
        out.truncate(start);
        let names = path.iter().rev().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")));
        Unwritable { pointer: names.collect(), detail }
    })
}

/// Appends an Any as JSON. One that cannot be read, because the descriptor set does not fit, stays as it came; one that is too
/// large for that is empty.
pub(crate) fn any(schema: &Schema, style: Style, bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    for write in [Writer::any, Writer::opaque] {
        let mut writer = Writer::new(schema, style, std::mem::take(out));
        let written = write(&mut writer, bytes);
        *out = writer.out;
        if written.is_ok() {
            return;
        }
        out.truncate(start);
    }
    out.extend_from_slice(b"{}");
}
