//! How a gRPC call ended: its status from headers and trailers, and what a caller of HTTP is told of it.

use crate::response::{self, JSON_BYTES, Style};
use crate::schema::Schema;
use crate::wire::{Raw, Reader};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Senders of binary metadata pad or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The numbers of `google.rpc.Code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const UNKNOWN: Self = Self(2);
    pub(crate) const INTERNAL: Self = Self(13);
    pub(crate) const UNAVAILABLE: Self = Self(14);

    /// What HTTP says for it, as `google/rpc/code.proto` has it.
    pub(crate) const fn http(self) -> u16 {
        match self.0 {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        }
    }

    /// What a response stands for that came without a gRPC status, by its HTTP status (gRPC's http-grpc-status-mapping).
    const fn of_http(status: u16) -> Self {
        match status {
            400 => Self::INTERNAL,
            401 => Self(16),
            403 => Self(7),
            404 => Self(12),
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }
}

/// A status with what it says and what came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// A `google.rpc.Status` on the wire.
    details: Option<Vec<u8>>,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// What a server said in `grpc-status`, `grpc-message` and `grpc-status-details-bin`. Nothing where the first is missing.
    pub(crate) fn read(code: Option<&[u8]>, message: Option<&[u8]>, details: Option<&[u8]>) -> Option<Self> {
        let code = std::str::from_utf8(code?).ok().and_then(|text| text.trim().parse().ok());
        let message = percent_encoding::percent_decode(message.unwrap_or_default()).decode_utf8_lossy().into_owned();
        // Details that cannot be read are left out: the status itself still says what happened.
        let details = details.and_then(|details| BASE64.decode(details.trim_ascii()).ok());
        Some(Self { code: Code(code.unwrap_or(Code::UNKNOWN.0)), message, details })
    }

    /// What a response is worth that is not gRPC's at all.
    pub(crate) fn of_http(status: u16) -> Self {
        Self::new(Code::of_http(status), format!("the API answered HTTP {status} and no gRPC status"))
    }

    /// As `google.rpc.Status` in JSON: `code`, `message` and `details`, always all of them.
    pub(crate) fn json(&self, schema: &Schema, style: Style) -> Vec<u8> {
        // Code and message are those of the trailers, which every server sets; the details come from the third one.
        let mut out = format!("{{\"code\":{},\"message\":", self.code.0).into_bytes();
        let quoted = serde_json::to_string(&self.message).unwrap_or_else(|_| "\"\"".to_owned());
        out.extend_from_slice(quoted.as_bytes());
        out.extend_from_slice(b",\"details\":[");
        // They have come in a header, which is small; the limit on answers is not theirs.
        let style = Style { most: JSON_BYTES, ..style };
        for (index, detail) in self.details().into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            response::any(schema, style, detail, &mut out);
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// The details, each an Any on the wire.
    fn details(&self) -> Vec<&[u8]> {
        const DETAILS: u32 = 3;
        let mut details = Vec::new();
        let mut reader = Reader::new(self.details.as_deref().unwrap_or_default());
        while let Ok(Some((number, raw))) = reader.field() {
            if let (DETAILS, Raw::Bytes(detail)) = (number, raw) {
                details.push(detail);
            }
        }
        details
    }
}

/// A `google.rpc.Status` on the wire.
#[cfg(test)]
pub(crate) fn wire(code: u32, message: &str, details: &[(&str, &[u8])]) -> Vec<u8> {
    use crate::wire::{put_bytes, put_varint};
    let mut out = vec![0x08];
    put_varint(&mut out, u64::from(code));
    put_bytes(&mut out, 2, message.as_bytes());
    for (url, value) in details {
        let mut any = Vec::new();
        put_bytes(&mut any, 1, url.as_bytes());
        put_bytes(&mut any, 2, value);
        put_bytes(&mut out, 3, &any);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn codes_are_what_http_says_for_them() {
        let expected = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, 500];
        for (code, http) in (0..).zip(expected) {
            assert_eq!(Code(code).http(), http, "{code}");
        }
    }

    #[test]
    fn a_response_without_a_status_has_one() {
        let cases = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14), (500, 2), (302, 2)];
        for (http, code) in cases {
            assert_eq!(Status::of_http(http).code, Code(code), "{http}");
        }
        assert_eq!(Status::of_http(503).message, "the API answered HTTP 503 and no gRPC status");
    }

    #[test]
    fn trailers_are_read() {
        let cases: [(&[u8], &[u8], u32, &str); 5] = [
            (b"0", b"", 0, ""),
            (b"5", b"no%20such %E2%82%AC order", 5, "no such € order"),
            (b"77", b"100%", 77, "100%"),
            (b"x", b"%ff", 2, "\u{fffd}"),
            (b"-1", b"", 2, ""),
        ];
        for (code, message, number, text) in cases {
            let status = Status::read(Some(code), Some(message), None).unwrap();
            assert_eq!((status.code, status.message.as_str()), (Code(number), text));
        }
        assert_eq!(Status::read(None, Some(b"x"), None), None);
    }

    #[test]
    fn details_are_shown_as_what_they_are() {
        let (schema, order) = samples::message("shop.proto", "shop.v1.Item");
        let item = crate::request::message(&schema, order, crate::request::write::Unknown::Refuse, br#"{"sku": "a"}"#).unwrap();
        let known = ("type.googleapis.com/shop.v1.Item", item.as_slice());
        let wire = wire(5, "ignored", &[known, ("type.googleapis.com/other.Type", &[8, 1]), ("a/shop.v1.Item", &[0xff])]);
        for encoded in [
            base64::engine::general_purpose::STANDARD.encode(&wire),
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(&wire),
        ] {
            let status = Status::read(Some(b"5"), Some(b"gone \"away\""), Some(encoded.as_bytes())).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&status.json(&schema, Style::default())).unwrap();
            assert_eq!((&json["code"], &json["message"]), (&5.into(), &"gone \"away\"".into()));
            let details = json["details"].as_array().unwrap();
            assert_eq!(details[0], serde_json::json!({"@type": "type.googleapis.com/shop.v1.Item", "sku": "a"}));
            assert_eq!(details[1], serde_json::json!({"@type": "type.googleapis.com/other.Type", "value": "CAE="}));
            assert_eq!(details[2].as_object().unwrap().keys().collect::<Vec<_>>(), ["value"]);
        }
        for broken in [&b"!!!"[..], b"/////w=="] {
            let status = Status::read(Some(b"5"), None, Some(broken)).unwrap();
            assert_eq!(status.json(&schema, Style::default()), br#"{"code":5,"message":"","details":[]}"#);
        }
    }
}
