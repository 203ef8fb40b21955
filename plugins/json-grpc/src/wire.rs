//! The protobuf wire format, both ways: varints, tags, length-delimited spans. Knows no schema, copies no field, and never
//! trusts a length.

/// The types of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    StartGroup,
    EndGroup,
    Fixed32,
}

impl WireType {
    fn of(tag: u64) -> Option<Self> {
        Some(match tag & 7 {
            0 => Self::Varint,
            1 => Self::Fixed64,
            2 => Self::Bytes,
            3 => Self::StartGroup,
            4 => Self::EndGroup,
            5 => Self::Fixed32,
            _ => return None,
        })
    }

    /// The tag of the field of this number.
    pub(crate) const fn tag(self, number: u32) -> u32 {
        let bits = match self {
            Self::Varint => 0,
            Self::Fixed64 => 1,
            Self::Bytes => 2,
            Self::StartGroup => 3,
            Self::EndGroup => 4,
            Self::Fixed32 => 5,
        };
        (number << 3) | bits
    }
}

/// A value as it stands on the wire. The order is only there to find keys by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// What stands between the tags of a group.
    Group(&'a [u8]),
}

/// Why bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

const CUT_OFF: Malformed = Malformed("the message ends in the middle of a field");

/// Deepest nesting, the default of the protobuf libraries: what is deeper, the other side would refuse.
pub(crate) const DEPTH: u32 = 100;

/// Reads fields one after another.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and value, or nothing at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            WireType::Varint => Raw::Varint(self.varint()?),
            WireType::Fixed64 => Raw::Fixed64(self.fixed64()?),
            WireType::Bytes => Raw::Bytes(self.bytes()?),
            WireType::Fixed32 => Raw::Fixed32(self.fixed32()?),
            WireType::StartGroup => Raw::Group(self.group(number)?),
            WireType::EndGroup => return Err(Malformed("a group ends that did not begin")),
        };
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u32, WireType), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        match (number, WireType::of(tag)) {
            (Some(number), Some(wire_type)) => Ok((number, wire_type)),
            _ => Err(Malformed("a field has an impossible number or wire type")),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if index == 9 && *byte > 1 {
                    break;
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { CUT_OFF } else { Malformed("a number has more than 64 bits") })
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| CUT_OFF)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// What stands before the end of the group of this number, groups within it included. Counts rather than recurses.
    fn group(&mut self, number: u32) -> Result<&'a [u8], Malformed> {
        let start = self.rest;
        let mut open = vec![number];
        loop {
            let before = self.rest.len();
            if before == 0 {
                return Err(CUT_OFF);
            }
            let (number, wire_type) = self.tag()?;
            match wire_type {
                WireType::Varint => drop(self.varint()?),
                WireType::Fixed64 => drop(self.fixed64()?),
                WireType::Bytes => drop(self.bytes()?),
                WireType::Fixed32 => drop(self.fixed32()?),
                WireType::StartGroup if open.len() < DEPTH as usize => open.push(number),
                WireType::StartGroup => return Err(Malformed("groups are nested too deeply")),
                WireType::EndGroup => {
                    if open.pop() != Some(number) {
                        return Err(Malformed("a group ends that did not begin"));
                    }
                    if open.is_empty() {
                        return Ok(&start[..start.len() - before]);
                    }
                }
            }
        }
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(WireType::Bytes.tag(number)));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A length-delimited span that is being written: its length is known when it ends.
#[derive(Debug)]
#[must_use = "a span that was opened has to be closed"]
pub(crate) struct Span {
    start: usize,
}

impl Span {
    /// Leaves one byte for the length, which is enough for most.
    pub(crate) fn open(out: &mut Vec<u8>) -> Self {
        out.push(0);
        Self { start: out.len() }
    }

    /// Writes the length; where it takes more than the byte that was left, what follows moves.
    pub(crate) fn close(self, out: &mut Vec<u8>) {
        let length = out.len() - self.start;
        if length < 0x80 {
            out[self.start - 1] = length as u8;
            return;
        }
        let mut varint = Vec::with_capacity(10);
        put_varint(&mut varint, length as u64);
        out.splice(self.start - 1..self.start, varint);
    }

    /// Whether nothing has been written into it.
    pub(crate) fn is_empty(&self, out: &[u8]) -> bool {
        out.len() == self.start
    }
}

/// The signed number that `zigzag` stands for.
pub(crate) const fn from_zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// What stands for a signed number in the sint types.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u32, Raw<'_>)>, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.field()? {
            fields.push(field);
        }
        Ok(fields)
    }

    #[test]
    fn fields_are_read_one_after_another() {
        let bytes = [0x08, 0x96, 0x01, 0x15, 1, 0, 0, 0, 0x19, 2, 0, 0, 0, 0, 0, 0, 0, 0x22, 2, b'h', b'i'];
        let expected = [(1, Raw::Varint(150)), (2, Raw::Fixed32(1)), (3, Raw::Fixed64(2)), (4, Raw::Bytes(b"hi"))];
        assert_eq!(fields(&bytes).unwrap(), expected);
        for cut in [1, 2, 4, 6, 10, 18, 19, 20] {
            assert!(fields(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn groups_are_spans_too() {
        // field 1: a group of field 2 = 5 and of a group 3 that is empty.
        let bytes = [0x0b, 0x10, 5, 0x1b, 0x1c, 0x0c, 0x20, 1];
        assert_eq!(fields(&bytes).unwrap(), [(1, Raw::Group(&bytes[1..5])), (4, Raw::Varint(1))]);
        assert_eq!(fields(&[0x0b, 0x10, 5]), Err(CUT_OFF));
        assert!(fields(&[0x0b, 0x14]).is_err(), "another group's end");
        assert!(fields(&[0x0c]).is_err(), "an end without a start");
        assert!(fields(&[0x0b; 200]).is_err(), "too deep");
    }

    #[test]
    fn impossible_bytes_are_refused() {
        let cases: [(&str, &[u8]); 6] = [
            ("field number zero", &[0x00, 0x01]),
            ("wire type seven", &[0x0f, 0x01]),
            ("a field number of 33 bits", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x01]),
            ("a varint of 71 bits", &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            ("a varint without an end", &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            ("a length beyond the end", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (name, bytes) in cases {
            assert!(fields(bytes).is_err(), "{name}");
        }
    }

    #[test]
    fn spans_know_their_length() {
        for length in [0usize, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = vec![0x0a];
            let span = Span::open(&mut out);
            assert!(span.is_empty(&out));
            out.extend(std::iter::repeat_n(7, length));
            span.close(&mut out);
            out.extend([0x10, 1]);
            assert_eq!(fields(&out).unwrap(), [(1, Raw::Bytes(&vec![7; length])), (2, Raw::Varint(1))], "{length}");
        }
    }

    #[test]
    fn numbers_survive() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(Reader::new(&out).varint(), Ok(value));
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(from_zigzag(zigzag(value)), value);
        }
        assert_eq!(zigzag(-2), 3);
    }
}
