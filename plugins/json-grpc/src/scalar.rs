//! Numbers of every scalar type: from JSON's numbers and strings to what stands on the wire, with nothing lost and nothing rounded
//! into a range that it does not have.

use crate::schema::Kind;
use crate::wire::{WireType, put_varint, zigzag};

/// A number as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
}

impl Scalar {
    /// The type's default value. Minus zero is not.
    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Self::Varint(0) | Self::Fixed32(0) | Self::Fixed64(0))
    }

    /// Appends it, as the field of this number, or bare where a packed list has it.
    pub(crate) fn put(self, out: &mut Vec<u8>, number: Option<u32>) {
        let wire_type = match self {
            Self::Varint(_) => WireType::Varint,
            Self::Fixed32(_) => WireType::Fixed32,
            Self::Fixed64(_) => WireType::Fixed64,
        };
        if let Some(number) = number {
            put_varint(out, u64::from(wire_type.tag(number)));
        }
        match self {
            Self::Varint(value) => put_varint(out, value),
            Self::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }
}

/// Why a value is not of the type: a sentence that goes on after the value.
pub(crate) type Misfit = &'static str;

const NOT_WHOLE: Misfit = "is not a whole number";
const OUT_OF_RANGE: Misfit = "is out of the type's range";
const NOT_A_NUMBER: Misfit = "is not a number";

/// Two to the 64th: doubles below it are exact as 128-bit integers.
const LIMIT: f64 = 18_446_744_073_709_551_616.0;
/// Two to the 53rd: below it a double says exactly which whole number was written.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number as this type has it. `kind` is one of the number types.
pub(crate) fn integer(kind: Kind, value: i128) -> Result<Scalar, Misfit> {
    let scalar = match kind {
        Kind::Double => Some(Scalar::Fixed64((value as f64).to_bits())),
        Kind::Float => Some(Scalar::Fixed32((value as f32).to_bits())),
        Kind::Int32 | Kind::Enum(_) => i32::try_from(value).ok().map(|value| Scalar::Varint(i64::from(value) as u64)),
        Kind::Int64 => i64::try_from(value).ok().map(|value| Scalar::Varint(value as u64)),
        Kind::Uint32 => u32::try_from(value).ok().map(|value| Scalar::Varint(u64::from(value))),
        Kind::Uint64 => u64::try_from(value).ok().map(Scalar::Varint),
        Kind::Sint32 => i32::try_from(value).ok().map(|value| Scalar::Varint(zigzag(i64::from(value)))),
        Kind::Sint64 => i64::try_from(value).ok().map(|value| Scalar::Varint(zigzag(value))),
        Kind::Fixed32 => u32::try_from(value).ok().map(Scalar::Fixed32),
        Kind::Fixed64 => u64::try_from(value).ok().map(Scalar::Fixed64),
        Kind::Sfixed32 => i32::try_from(value).ok().map(|value| Scalar::Fixed32(value as u32)),
        Kind::Sfixed64 => i64::try_from(value).ok().map(|value| Scalar::Fixed64(value as u64)),
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Group(_) => None,
    };
    scalar.ok_or(OUT_OF_RANGE)
}

/// A number with a fraction or an exponent as this type has it: `1e3` and `5.0` are whole numbers too.
pub(crate) fn float(kind: Kind, value: f64) -> Result<Scalar, Misfit> {
    match kind {
        Kind::Double => Ok(Scalar::Fixed64(value.to_bits())),
        Kind::Float => {
            let narrow = value as f32;
            let overflows = narrow.is_infinite() && value.is_finite();
            if overflows { Err(OUT_OF_RANGE) } else { Ok(Scalar::Fixed32(narrow.to_bits())) }
        }
        _ if value.fract() != 0.0 => Err(NOT_WHOLE),
        _ if value.abs() >= LIMIT => Err(OUT_OF_RANGE),
        _ => integer(kind, value as i128),
    }
}

/// A number that is written in a string, in a path or in a query.
pub(crate) fn text(kind: Kind, text: &str) -> Result<Scalar, Misfit> {
    let floats = matches!(kind, Kind::Double | Kind::Float);
    if floats {
        match text {
            "NaN" => return float(kind, f64::NAN),
            "Infinity" => return float(kind, f64::INFINITY),
            "-Infinity" => return float(kind, f64::NEG_INFINITY),
            _ => {}
        }
    }
    // What Rust reads as a number is more than JSON has: "+1", "inf", "nan", ".5".
    if !text.strip_prefix('-').unwrap_or(text).starts_with(|first: char| first.is_ascii_digit()) {
        return Err(if floats { NOT_A_NUMBER } else { NOT_WHOLE });
    }
    if floats {
        let value: f64 = text.parse().map_err(|_| NOT_A_NUMBER)?;
        return if value.is_finite() { float(kind, value) } else { Err(OUT_OF_RANGE) };
    }
    if let Ok(value) = text.parse::<i128>() {
        return integer(kind, value);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Err(OUT_OF_RANGE);
    }
    let value: f64 = text.parse().map_err(|_| NOT_WHOLE)?;
    if value.abs() >= EXACT { Err(OUT_OF_RANGE) } else { float(kind, value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_their_ranges() {
        let ranges: [(Kind, i128, i128); 10] = [
            (Kind::Int32, i32::MIN.into(), i32::MAX.into()),
            (Kind::Sint32, i32::MIN.into(), i32::MAX.into()),
            (Kind::Sfixed32, i32::MIN.into(), i32::MAX.into()),
            (Kind::Uint32, 0, u32::MAX.into()),
            (Kind::Fixed32, 0, u32::MAX.into()),
            (Kind::Int64, i64::MIN.into(), i64::MAX.into()),
            (Kind::Sint64, i64::MIN.into(), i64::MAX.into()),
            (Kind::Sfixed64, i64::MIN.into(), i64::MAX.into()),
            (Kind::Uint64, 0, u64::MAX.into()),
            (Kind::Fixed64, 0, u64::MAX.into()),
        ];
        for (kind, low, high) in ranges {
            for good in [low, high, 0] {
                assert!(integer(kind, good).is_ok(), "{kind:?} {good}");
                assert_eq!(text(kind, &good.to_string()), integer(kind, good), "{kind:?} {good}");
            }
            for bad in [low - 1, high + 1] {
                assert_eq!(integer(kind, bad), Err(OUT_OF_RANGE), "{kind:?} {bad}");
                assert_eq!(text(kind, &bad.to_string()), Err(OUT_OF_RANGE), "{kind:?} {bad}");
            }
        }
    }

    #[test]
    fn a_double_is_a_whole_number_only_when_it_is_one() {
        assert_eq!(float(Kind::Int32, 1e3), Ok(Scalar::Varint(1000)));
        assert_eq!(float(Kind::Int32, 1.5), Err(NOT_WHOLE));
        assert_eq!(float(Kind::Int32, f64::NAN), Err(NOT_WHOLE));
        assert_eq!(float(Kind::Int64, 9_223_372_036_854_775_808.0), Err(OUT_OF_RANGE), "two to the 63rd");
        assert_eq!(float(Kind::Int64, -9_223_372_036_854_775_808.0), Ok(Scalar::Varint(1 << 63)));
        assert_eq!(float(Kind::Uint64, LIMIT), Err(OUT_OF_RANGE));
        assert_eq!(float(Kind::Uint64, 1e300), Err(OUT_OF_RANGE));
        assert_eq!(float(Kind::Float, 1e39), Err(OUT_OF_RANGE));
        assert_eq!(float(Kind::Float, f64::INFINITY), Ok(Scalar::Fixed32(f32::INFINITY.to_bits())));
    }

    #[test]
    fn strings_are_read_as_json_would_write_numbers() {
        for good in ["7", "7.0", "70e-1", "007"] {
            assert_eq!(text(Kind::Int32, good), Ok(Scalar::Varint(7)), "{good}");
        }
        for bad in ["", "+7", " 7", "7 ", "0x7", "seven", "7.5", "NaN", "--7", "-"] {
            assert!(text(Kind::Int32, bad).is_err(), "{bad:?}");
        }
        for bad in ["", "inf", "nan", "infinity", "+1", ".5", "1e400", "1_000"] {
            assert!(text(Kind::Double, bad).is_err(), "{bad:?}");
        }
        assert_eq!(text(Kind::Double, "-Infinity"), Ok(Scalar::Fixed64(f64::NEG_INFINITY.to_bits())));
        assert_eq!(text(Kind::Double, "0.1"), Ok(Scalar::Fixed64(0.1f64.to_bits())));
        assert_eq!(text(Kind::Int64, "9007199254740993.0"), Err(OUT_OF_RANGE), "a double would say another number");
    }

    #[test]
    fn minus_zero_is_not_the_default() {
        assert!(!text(Kind::Double, "-0").is_ok_and(Scalar::is_zero));
        assert!(text(Kind::Double, "0").is_ok_and(Scalar::is_zero));
        assert!(text(Kind::Int32, "-0").is_ok_and(Scalar::is_zero));
    }
}
