//! Host functions as the ABI has them, with their statuses: those that the SDK has no word for, and those of which it accepts one
//! status alone.
#![expect(unsafe_code, reason = "imports of a host are foreign functions")]

use proxy_wasm::types::{BufferType, MapType, StreamType};

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_size(map: u32, size: *mut usize) -> u32;
    fn proxy_get_buffer_status(buffer: u32, length: *mut usize, flags: *mut u32) -> u32;
    fn proxy_add_header_map_value(map: u32, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> u32;
    fn proxy_replace_header_map_value(map: u32, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_len: usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, pairs: *const u8, len: usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, pairs: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_get_header_map_value(map: u32, key: *const u8, key_len: usize, value: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, length: usize, data: *const u8, data_len: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_get_property(path: *const u8, path_len: usize, value: *mut *mut u8, value_len: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_len: usize, value: *const u8, value_len: usize) -> u32;
    fn proxy_done() -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_grpc_cancel(call: u32) -> u32;
    fn proxy_grpc_close(call: u32) -> u32;
    fn proxy_grpc_send(call: u32, message: *const u8, message_len: usize, end: u32) -> u32;
    fn proxy_get_metric(metric: u32, value: *mut u64) -> u32;
    fn proxy_increment_metric(metric: u32, offset: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_enqueue_shared_queue(queue: u32, value: *const u8, value_len: usize) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc_status: i32,
    ) -> u32;
}

/// A status with the bytes that came along; they are the filter's own from here on.
pub(crate) type Bytes = (u32, Option<Vec<u8>>);

/// The status of a getter, and what it gave.
fn given(get: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Bytes {
    let (mut data, mut len) = (std::ptr::null_mut(), 0);
    let status = get(&raw mut data, &raw mut len);
    // SAFETY: a host returns what the module's allocator made, `len` bytes long, once.
    (status, (!data.is_null()).then(|| unsafe { Vec::from_raw_parts(data, len, len) }))
}

pub(crate) fn map_size(map: MapType) -> (u32, usize) {
    let mut size = 0;
    // SAFETY: the host writes one word.
    (unsafe { proxy_get_header_map_size(map as u32, &raw mut size) }, size)
}

pub(crate) fn buffer_status(buffer: BufferType) -> (u32, usize, u32) {
    let (mut length, mut flags) = (0, 0);
    // SAFETY: the host writes two words.
    let status = unsafe { proxy_get_buffer_status(buffer as u32, &raw mut length, &raw mut flags) };
    (status, length, flags)
}

pub(crate) fn add(map: u32, key: &str, value: &str) -> u32 {
    // SAFETY: both slices live through the call; likewise below.
    unsafe { proxy_add_header_map_value(map, key.as_ptr(), key.len(), value.as_ptr(), value.len()) }
}

pub(crate) fn replace(map: u32, key: &str, value: &str) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_replace_header_map_value(map, key.as_ptr(), key.len(), value.as_ptr(), value.len()) }
}

pub(crate) fn remove(map: u32, key: &str) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_remove_header_map_value(map, key.as_ptr(), key.len()) }
}

pub(crate) fn set_pairs(map: u32, bytes: &[u8]) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_set_header_map_pairs(map, bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn pairs(map: u32) -> Bytes {
    // SAFETY: the host writes a pointer and a length.
    given(|data, len| unsafe { proxy_get_header_map_pairs(map, data, len) })
}

pub(crate) fn value(map: u32, key: &str) -> Bytes {
    // SAFETY: the slice lives through the call, and the host writes a pointer and a length.
    given(|data, len| unsafe { proxy_get_header_map_value(map, key.as_ptr(), key.len(), data, len) })
}

pub(crate) fn write(buffer: u32, start: usize, length: usize, bytes: &[u8]) -> u32 {
    // SAFETY: the slice lives through the call.
    unsafe { proxy_set_buffer_bytes(buffer, start, length, bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn read(buffer: u32, start: usize, max: usize) -> Bytes {
    // SAFETY: the host writes a pointer and a length.
    given(|data, len| unsafe { proxy_get_buffer_bytes(buffer, start, max, data, len) })
}

pub(crate) fn property(path: &[u8]) -> Bytes {
    // SAFETY: the slice lives through the call, and the host writes a pointer and a length.
    given(|data, len| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, len) })
}

pub(crate) fn set_property(path: &[u8], value: &[u8]) -> u32 {
    // SAFETY: both slices live through the call.
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

pub(crate) fn done() -> u32 {
    // SAFETY: it takes nothing.
    unsafe { proxy_done() }
}

pub(crate) fn resume(stream: StreamType) -> u32 {
    // SAFETY: numbers alone; likewise below.
    unsafe { proxy_continue_stream(stream as u32) }
}

pub(crate) fn close(stream: StreamType) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_close_stream(stream as u32) }
}

pub(crate) fn grpc_cancel(call: u32) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_grpc_cancel(call) }
}

pub(crate) fn grpc_close(call: u32) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_grpc_close(call) }
}

pub(crate) fn grpc_send(call: u32, message: &[u8], end: bool) -> u32 {
    // SAFETY: the slice lives through the call.
    unsafe { proxy_grpc_send(call, message.as_ptr(), message.len(), u32::from(end)) }
}

pub(crate) fn metric(metric: u32) -> (u32, u64) {
    let mut value = 0;
    // SAFETY: the host writes eight bytes.
    (unsafe { proxy_get_metric(metric, &raw mut value) }, value)
}

pub(crate) fn increment(metric: u32, offset: i64) -> u32 {
    // SAFETY: numbers alone; likewise below.
    unsafe { proxy_increment_metric(metric, offset) }
}

pub(crate) fn record(metric: u32, value: u64) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_record_metric(metric, value) }
}

pub(crate) fn effective(context: u32) -> u32 {
    // SAFETY: as above.
    unsafe { proxy_set_effective_context(context) }
}

pub(crate) fn enqueue(queue: u32, value: &[u8]) -> u32 {
    // SAFETY: the slice lives through the call.
    unsafe { proxy_enqueue_shared_queue(queue, value.as_ptr(), value.len()) }
}

/// A local response with everything that one may have; `grpc_status` -1 is none.
pub(crate) fn reply(status: u32, details: &str, body: &str, headers: &[u8], grpc_status: i32) -> u32 {
    // SAFETY: the slices live through the call.
    unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    }
}

/// `pairs` as the ABI writes a map.
pub(crate) fn map_bytes(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}
