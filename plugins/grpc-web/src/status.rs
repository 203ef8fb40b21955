//! gRPC's statuses, for what goes wrong between the two sides.

/// A status with a message for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// The codes that are needed here, with their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    PermissionDenied = 7,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What a service that did not answer in gRPC said by HTTP's status (gRPC's `http-grpc-status-mapping.md`).
    pub(crate) fn of_http(status: u16) -> Self {
        let code = match status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502..=504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        Self::new(code, format!("the service did not answer in gRPC, but with HTTP status {status}"))
    }

    /// As headers or trailers.
    pub(crate) fn fields(&self) -> [(&'static str, String); 2] {
        [("grpc-status", (self.code as u8).to_string()), ("grpc-message", percent_encoded(&self.message))]
    }
}

/// gRPC writes messages with everything outside of printable ASCII, and `%`, percent-encoded.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_as_grpc_reads_them() {
        let fields = Status::new(Code::Internal, "100 %\né").fields();
        assert_eq!(fields, [("grpc-status", "13".to_owned()), ("grpc-message", "100 %25%0A%C3%A9".to_owned())]);
    }

    #[test]
    fn statuses_of_http_have_one_of_grpc() {
        let rows = [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (503, Code::Unavailable),
            (500, Code::Unknown),
            (200, Code::Unknown),
            (302, Code::Unknown),
        ];
        for (status, code) in rows {
            assert_eq!(Status::of_http(status).code, code, "{status}");
        }
    }
}
