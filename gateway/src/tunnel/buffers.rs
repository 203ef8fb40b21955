//! Memory for the bytes of tunnels that are copied.

use std::cell::RefCell;

/// Most bytes held for one direction; a ClientHello must fit. 64 KiB are four TLS records: more has not made copies
/// cheaper.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that one worker keeps for its tunnels' next bytes: 4 MiB.
const SPARE_BUFFERS: usize = 64;

/// A worker's spare buffers. A direction holds one only while it has bytes on their way, so that tunnels at rest cost no
/// memory.
#[derive(Debug, Default)]
pub struct Buffers(RefCell<Vec<Box<[u8]>>>);

impl Buffers {
    pub(super) fn take(&self) -> Box<[u8]> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    pub(super) fn give(&self, buffer: Box<[u8]>) {
        let mut spare = self.0.borrow_mut();
        if buffer.len() == BUFFER_BYTES && spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    }
}
