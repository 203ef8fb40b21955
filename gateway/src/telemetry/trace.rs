//! Trace context: passed on or begun. Reads W3C Trace Context (`traceparent`, `tracestate`) and B3 (one header or
//! several) and writes the exchange's own span as the new parent into the forms that were there, W3C always.
//! It never exports anything: spans are built from the record when it closes.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Where an exchange stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zero.
    pub trace_id: [u8; 16],
    /// The exchange's own span.
    pub span_id: [u8; 8],
    /// The caller's span, where it sent one.
    pub parent: Option<[u8; 8]>,
    /// Whether the trace is being recorded.
    pub sampled: bool,
}

/// What a caller sent.
struct Incoming {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    /// None leaves the choice to the gateway, as B3 allows.
    sampled: Option<bool>,
}

thread_local! {
    /// State of the generator of ids. Ids must be unlikely to collide, not hard to guess.
    static RANDOM: Cell<u64> = Cell::new(std::hash::RandomState::new().build_hasher().finish());
    /// Traces begun on this thread are recorded when their id's last 63 bits are below this.
    static THRESHOLD: Cell<u64> = const { Cell::new(0) };
}

/// Sets the share of the traces begun on this thread that are recorded, 0 to 1. It is 0 until set.
pub fn sample(ratio: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let threshold = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
    THRESHOLD.with(|cell| cell.set(threshold));
}

/// Where a request with these headers stands: in the trace that they name, or in one begun here. What is not valid counts
/// as absent.
pub fn context(headers: &HeaderMap) -> TraceContext {
    let forms = Forms::of(headers);
    let incoming = (if forms.traceparent { traceparent(headers) } else { None })
        .or_else(|| if forms.b3 { b3_single(headers) } else { None })
        .or_else(|| if forms.b3_fields { b3_fields(headers) } else { None });
    match incoming {
        Some(incoming) => TraceContext {
            trace_id: incoming.trace_id,
            span_id: random_span(),
            parent: Some(incoming.span_id),
            sampled: incoming.sampled.unwrap_or_else(|| chosen(&incoming.trace_id)),
        },
        None => begin(b3_decision(headers, forms)),
    }
}

/// Passes `context` on: the exchange's own span becomes the new parent, in W3C's form and in those that came. `tracestate`
/// without a valid `traceparent` is removed (W3C Trace Context, section 3.3).
pub fn pass_on(headers: &mut HeaderMap, context: &TraceContext) {
    let forms = Forms::of(headers);
    if forms.tracestate && (!forms.traceparent || traceparent(headers).is_none()) {
        headers.remove(&TRACESTATE);
    }
    write(headers, context, forms);
}

/// What of trace context came, and in which forms. Looking at the names that are there costs less than asking for each that might be.
#[derive(Debug, Clone, Copy, Default)]
struct Forms {
    traceparent: bool,
    tracestate: bool,
    /// B3's one header.
    b3: bool,
    /// Any of B3's several that means something by itself.
    b3_fields: bool,
}

impl Forms {
    fn of(headers: &HeaderMap) -> Self {
        let mut forms = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "traceparent" => forms.traceparent = true,
                "tracestate" => forms.tracestate = true,
                "b3" => forms.b3 = true,
                "x-b3-traceid" | "x-b3-sampled" | "x-b3-flags" => forms.b3_fields = true,
                _ => {}
            }
        }
        forms
    }
}

fn begin(decision: Option<bool>) -> TraceContext {
    let mut trace_id = [0; 16];
    trace_id[..8].copy_from_slice(&random().to_be_bytes());
    trace_id[8..].copy_from_slice(&random().to_be_bytes());
    let sampled = decision.unwrap_or_else(|| chosen(&trace_id));
    TraceContext { trace_id, span_id: random_span(), parent: None, sampled }
}

/// Whether a trace that nobody has decided on is recorded: by its id, so that every gateway decides alike.
fn chosen(trace_id: &[u8; 16]) -> bool {
    let mut low = [0; 8];
    low.copy_from_slice(&trace_id[8..]);
    u64::from_be_bytes(low) >> 1 < THRESHOLD.with(Cell::get)
}

pub(super) fn random_span() -> [u8; 8] {
    random().to_be_bytes()
}

/// The next of a sequence of well-mixed numbers, never zero (an all-zero id is invalid).
fn random() -> u64 {
    RANDOM.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    })
}

/// The one value of a header; none where it is absent or repeated.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

fn traceparent(headers: &HeaderMap) -> Option<Incoming> {
    let text = single(headers, &TRACEPARENT)?;
    if text.len() < 55 || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return None;
    }
    let version = hex::<1>(&text[..2])?[0];
    let ends_well = match version {
        0xff => false,
        0 => text.len() == 55,
        _ => text.len() == 55 || text[55] == b'-',
    };
    let trace_id = hex::<16>(&text[3..35]).filter(|id| *id != [0; 16])?;
    let span_id = hex::<8>(&text[36..52]).filter(|id| *id != [0; 8])?;
    let flags = hex::<1>(&text[53..55])?[0];
    ends_well.then_some(Incoming { trace_id, span_id, sampled: Some(flags & 1 == 1) })
}

fn b3_single(headers: &HeaderMap) -> Option<Incoming> {
    let mut fields = single(headers, &B3)?.split(|&byte| byte == b'-');
    let trace_id = b3_trace_id(fields.next()?)?;
    let span_id = hex::<8>(fields.next()?).filter(|id| *id != [0; 8])?;
    let sampled = match fields.next() {
        None => None,
        Some(b"1" | b"d") => Some(true),
        Some(b"0") => Some(false),
        Some(_) => return None,
    };
    Some(Incoming { trace_id, span_id, sampled })
}

fn b3_fields(headers: &HeaderMap) -> Option<Incoming> {
    let trace_id = b3_trace_id(single(headers, &B3_TRACE)?)?;
    let span_id = hex::<8>(single(headers, &B3_SPAN)?).filter(|id| *id != [0; 8])?;
    Some(Incoming { trace_id, span_id, sampled: b3_sampled(headers) })
}

fn b3_sampled(headers: &HeaderMap) -> Option<bool> {
    if single(headers, &B3_FLAGS) == Some(b"1") {
        return Some(true);
    }
    match single(headers, &B3_SAMPLED)? {
        b"1" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// B3 lets a caller decide on sampling without beginning a trace.
fn b3_decision(headers: &HeaderMap, forms: Forms) -> Option<bool> {
    let one = if forms.b3 { single(headers, &B3) } else { None };
    match one {
        Some(b"0") => Some(false),
        Some(b"1" | b"d") => Some(true),
        _ if forms.b3_fields => b3_sampled(headers),
        _ => None,
    }
}

/// B3 trace ids have 16 or 32 digits; short ones are padded on the left.
fn b3_trace_id(text: &[u8]) -> Option<[u8; 16]> {
    let id = match text.len() {
        32 => hex::<16>(text)?,
        16 => {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&hex::<8>(text)?);
            id
        }
        _ => return None,
    };
    (id != [0; 16]).then_some(id)
}

/// Lower-case hexadecimal digits, exactly `2 * N` of them.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Writes `bytes` as lower-case hexadecimal digits over the start of `text`, which must be twice as long at least.
pub(crate) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.as_chunks_mut::<2>().0) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

fn write(headers: &mut HeaderMap, context: &TraceContext, forms: Forms) {
    let mut text = *b"00-................................-................-00";
    write_hex(&context.trace_id, &mut text[3..35]);
    write_hex(&context.span_id, &mut text[36..52]);
    text[54] = if context.sampled { b'1' } else { b'0' };
    put(headers, TRACEPARENT, &text);
    let sampled: &[u8] = if context.sampled { b"1" } else { b"0" };
    if forms.b3 {
        let mut single = [b'-'; 51];
        single[..32].copy_from_slice(&text[3..35]);
        single[33..49].copy_from_slice(&text[36..52]);
        single[50] = sampled[0];
        put(headers, B3, &single);
    }
    if forms.b3_fields {
        put(headers, B3_TRACE, &text[3..35]);
        put(headers, B3_SPAN, &text[36..52]);
        match context.parent {
            Some(parent) => {
                let mut digits = [0; 16];
                write_hex(&parent, &mut digits);
                put(headers, B3_PARENT, &digits);
            }
            None => drop(headers.remove(&B3_PARENT)),
        }
        if !headers.contains_key(&B3_FLAGS) {
            put(headers, B3_SAMPLED, sampled);
        }
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, digits: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(digits) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn text(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn propagate(headers: &mut HeaderMap) -> TraceContext {
        let context = context(headers);
        pass_on(headers, &context);
        context
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn a_w3c_context_is_passed_on_with_a_new_parent() {
        let mut sent = headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), ("tracestate", "vendor=1")]);
        let context = propagate(&mut sent);
        assert_eq!(text(&context.trace_id), TRACE);
        assert_eq!(context.parent.map(|span| text(&span)).as_deref(), Some(SPAN));
        assert!(context.sampled);
        assert_eq!(value(&sent, "traceparent"), format!("00-{TRACE}-{}-01", text(&context.span_id)));
        assert_eq!(value(&sent, "tracestate"), "vendor=1");
        assert!(!sent.contains_key("b3"), "only the forms that came are written, and W3C");
    }

    #[test]
    fn invalid_contexts_are_replaced_and_their_state_removed() {
        let wrong = [
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            "00-short".to_owned(),
        ];
        for parent in wrong {
            let mut sent = headers(&[("traceparent", &parent), ("tracestate", "vendor=1")]);
            let context = propagate(&mut sent);
            assert_ne!(text(&context.trace_id), TRACE, "{parent}");
            assert_eq!(context.parent, None, "{parent}");
            assert!(!sent.contains_key("tracestate"), "{parent}");
            assert_eq!(sent.get_all("traceparent").iter().count(), 1);
        }
        let mut twice = headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))]);
        twice.append("traceparent", HeaderValue::from_str(&format!("00-{TRACE}-{SPAN}-00")).unwrap());
        assert_eq!(propagate(&mut twice).parent, None);
        assert_eq!(twice.get_all("traceparent").iter().count(), 1);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let mut sent = headers(&[("traceparent", &format!("01-{TRACE}-{SPAN}-01-future"))]);
        assert_eq!(text(&propagate(&mut sent).trace_id), TRACE);
    }

    #[test]
    fn b3_is_passed_on_in_its_own_form_and_as_w3c() {
        let mut single = headers(&[("b3", &format!("{TRACE}-{SPAN}-0"))]);
        let context = propagate(&mut single);
        assert_eq!((text(&context.trace_id).as_str(), context.sampled), (TRACE, false));
        assert_eq!(value(&single, "b3"), format!("{TRACE}-{}-0", text(&context.span_id)));
        assert_eq!(value(&single, "traceparent"), format!("00-{TRACE}-{}-00", text(&context.span_id)));

        let mut fields = headers(&[("x-b3-traceid", SPAN), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")]);
        let context = propagate(&mut fields);
        assert_eq!(text(&context.trace_id), format!("{}{SPAN}", "0".repeat(16)));
        assert!(context.sampled);
        assert_eq!(value(&fields, "x-b3-spanid"), text(&context.span_id));
        assert_eq!(value(&fields, "x-b3-parentspanid"), SPAN);
    }

    #[test]
    fn the_ratio_decides_what_nobody_else_has() {
        sample(0.0);
        assert!((0..64).all(|_| !propagate(&mut HeaderMap::new()).sampled));
        sample(1.0);
        assert!((0..64).all(|_| propagate(&mut HeaderMap::new()).sampled));
        assert!(!propagate(&mut headers(&[("b3", "0")])).sampled, "a caller's refusal is honoured");
        sample(0.5);
        let sampled = (0..2_000).filter(|_| propagate(&mut HeaderMap::new()).sampled).count();
        assert!((800..1_200).contains(&sampled), "{sampled} of 2000");
    }
}
