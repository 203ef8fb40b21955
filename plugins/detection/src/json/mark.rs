//! The byte order mark that a text may begin with (RFC 8259 section 8.1 lets readers ignore it).

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of it has come.
#[derive(Debug, Default)]
pub(super) struct Mark(usize);

impl Mark {
    /// Whether the byte is the next one of the mark. Once one is not, none is.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        let takes = BYTE_ORDER_MARK.get(self.0) == Some(&byte);
        self.0 = if takes { self.0 + 1 } else { BYTE_ORDER_MARK.len() };
        takes
    }
}
