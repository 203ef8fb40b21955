//! A filter that misbehaves as its configuration says. It is meant to be stopped by the gateway, at no cost to others.

#[cfg(target_arch = "wasm32")]
use std::cell::Cell;
use std::hint::black_box;
use tidegate_sdk::{ConfigError, Exchange, Filter, Flow, HeaderError, Headers, Reply, StatusCode, attributes, audit, log};

/// Its configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When.
    at: Phase,
    /// What.
    mode: Mode,
}

/// When it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Configure,
    Begin,
    Request,
    Response,
    Log,
}

/// How it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Does nothing wrong.
    Nothing,
    /// Traps.
    Trap,
    /// Traps for callers that send `x-trap`.
    TrapOnDemand,
    /// Never ends.
    Loop,
    /// Allocates until it gets no more.
    Memory,
    /// Grows its memory until it is stopped, and says how far it came.
    MemoryReport,
    /// Recurses without end.
    Stack,
    /// Logs a message of 16 MiB.
    LogSize,
    /// Logs a million times.
    LogCount,
    /// Emits a million events.
    EventCount,
    /// Emits an event of 512 KiB.
    EventSize,
    /// Makes headers with CR, LF and NUL, pseudo-headers, framing headers; says how each was answered.
    Inject,
    /// Adds 10,000 headers.
    HeaderCount,
    /// Adds a header of 512 KiB.
    HeaderSize,
    /// Changes a header and then traps.
    ChangeAndTrap,
    /// Keeps the header handle and uses it in the next phase.
    Keep,
    /// Answers with a status that is none.
    ReplyStatus,
    /// Answers with CR and LF in a header.
    ReplyHeader,
    /// Answers properly.
    Reply,
    /// Asks for 1 GiB of random bytes.
    Random,
    /// Reads what it must not see, and says so if it could.
    Peek,
}

/// The filter.
#[derive(Debug)]
pub struct Hostile(Config);

impl Filter for Hostile {
    type Config = Config;
    type State = Begun;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let hostile = Self(config);
        hostile.misbehave(Phase::Configure, None);
        BEGIN_TRAPS.set(hostile.0.at == Phase::Begin);
        Ok(hostile)
    }

    fn on_request(&self, _: &mut Exchange<Begun>, headers: &mut Headers<'_>, _end: bool) -> Flow {
        self.misbehave(Phase::Request, Some(headers))
    }

    fn on_response(&self, _: &mut Exchange<Begun>, _: StatusCode, headers: &mut Headers<'_>, _end: bool) -> Flow {
        #[cfg(target_arch = "wasm32")]
        if self.0.mode == Mode::Keep {
            kept_is_used();
        }
        self.misbehave(Phase::Response, Some(headers))
    }

    fn on_log(&self, _: &mut Exchange<Begun>) {
        self.misbehave(Phase::Log, None);
    }
}

std::thread_local! {
    static BEGIN_TRAPS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// An exchange's state, whose making may trap.
#[derive(Debug)]
pub struct Begun;

impl Default for Begun {
    fn default() -> Self {
        assert!(!BEGIN_TRAPS.get(), "told to trap at the beginning");
        Self
    }
}

impl Hostile {
    fn misbehave(&self, phase: Phase, headers: Option<&mut Headers<'_>>) -> Flow {
        if self.0.at != phase {
            return Flow::Proceed;
        }
        match self.0.mode {
            Mode::Trap => panic!("told to trap"),
            Mode::Loop => forever(),
            Mode::Memory => loop {
                std::mem::forget(black_box(vec![1_u8; 4 << 20]));
            },
            Mode::MemoryReport => report("grown", "mib", u64::try_from(grow()).unwrap_or(u64::MAX) / (1024 * 1024)),
            Mode::Stack => report("recursed", "depth", deeper(1)),
            Mode::LogSize => log::info(&"x".repeat(16 * 1024 * 1024)),
            Mode::LogCount => (0..1_000_000).for_each(|_| log::info("again")),
            Mode::EventCount => (0..1_000_000).for_each(|_| report("again", "n", 1)),
            Mode::EventSize => {
                audit::Event::new("large", audit::Outcome::Allowed).field("text", "x".repeat(512 * 1024)).emit();
            }
            Mode::Random => report("random", "bytes", tidegate_sdk::random(1 << 30).len() as u64),
            Mode::Nothing | Mode::Keep | Mode::Reply | Mode::ReplyStatus | Mode::ReplyHeader => {}
            _ => {
                if let Some(headers) = headers {
                    self.with_headers(headers);
                }
                return Flow::Proceed;
            }
        }
        #[cfg(target_arch = "wasm32")]
        if let (Mode::Keep, Some(headers)) = (self.0.mode, headers) {
            keep(headers);
        }
        match self.0.mode {
            Mode::Reply => {
                Flow::Reply(Reply::new(StatusCode::FORBIDDEN).header("x-why", "told so").body("no\n").details("told to answer"))
            }
            Mode::ReplyStatus => Flow::Reply(Reply::new(StatusCode::CONTINUE)),
            Mode::ReplyHeader => Flow::Reply(Reply::new(StatusCode::OK).header("x-split", "a\r\nset-cookie: b")),
            _ => Flow::Proceed,
        }
    }

    fn with_headers(&self, headers: &mut Headers<'_>) {
        match self.0.mode {
            Mode::TrapOnDemand => assert!(!headers.contains("x-trap"), "told to trap by the caller"),
            Mode::HeaderCount => {
                let refused = (0..10_000).filter(|n| headers.append(format!("x-{n}"), "v").is_err()).count();
                report("headers", "refused", refused as u64);
            }
            Mode::HeaderSize => {
                let refused = headers.insert("x-large", "v".repeat(512 * 1024)) == Err(HeaderError::TooLarge);
                report("headers", "refused", u64::from(refused));
            }
            Mode::ChangeAndTrap => {
                let _ = headers.insert("x-half", "done");
                panic!("told to trap after a change");
            }
            Mode::Inject => inject(headers),
            Mode::Peek => {
                let seen = headers.contains("proxy-authorization")
                    || headers.entries().iter().any(|(name, _)| name == "proxy-authorization")
                    || !headers.get_all("Proxy-Authorization").is_empty()
                    || headers.get_many(&["proxy-authorization".to_owned()]).iter().any(Option::is_some)
                    || attributes::get("proxy-authorization").is_some();
                report("peeked", "seen", u64::from(seen));
            }
            _ => {}
        }
    }
}

fn inject(headers: &mut Headers<'_>) {
    let tries: [(&str, &[u8]); 16] = [
        ("x-cr", b"a\rb"),
        ("x-lf", b"a\nb"),
        ("x-crlf", b"a\r\nx-smuggled: 1"),
        ("x-nul", b"a\0b"),
        ("x bad", b"v"),
        ("x-name\r\nx-smuggled", b"v"),
        ("", b"v"),
        (":path", b"/admin"),
        (":authority", b"other.example"),
        ("Host", b"other.example"),
        ("Content-Length", b"0"),
        ("Transfer-Encoding", b"chunked"),
        ("Connection", b"close"),
        ("Upgrade", b"websocket"),
        ("Proxy-Authorization", b"Bearer stolen"),
        ("Via", b"none"),
    ];
    let mut accepted = 0;
    for (name, value) in tries {
        accepted += u64::from(headers.insert(name, value).is_ok());
        accepted += u64::from(headers.append(name, value).is_ok());
        // One bad change refuses the good one before it.
        accepted += u64::from(headers.change().insert("x-good", "v").append(name, value).apply().is_ok());
    }
    for name in ["host", "content-length", "transfer-encoding", "via", ":path", "proxy-authorization"] {
        accepted += u64::from(headers.remove(name).is_ok());
    }
    report("injected", "accepted", accepted);
}

fn report(kind: &str, field: &str, value: u64) {
    audit::Event::new(kind, audit::Outcome::Allowed).field(field, value).emit();
}

fn forever() {
    let mut n = 0_u64;
    while black_box(n) != u64::MAX {
        n = n.wrapping_add(2);
    }
}

fn deeper(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    if black_box(depth) == 0 { 0 } else { deeper(depth + 1) + room[7] }
}

/// Grows until the host says no; the bytes that were had.
fn grow() -> usize {
    #[cfg(target_arch = "wasm32")]
    {
        const PAGE: usize = 64 * 1024;
        while core::arch::wasm32::memory_grow(0, 16) != usize::MAX {}
        let pages = core::arch::wasm32::memory_size(0);
        assert!(pages < usize::MAX / PAGE, "all of it");
        pages * PAGE
    }
    #[cfg(not(target_arch = "wasm32"))]
    0
}

#[cfg(target_arch = "wasm32")]
std::thread_local! {
    static KEPT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The handle's number is 1 in a fresh table of handles lent by the host; where it is not, the use traps all the same.
#[cfg(target_arch = "wasm32")]
fn keep(_headers: &Headers<'_>) {
    KEPT.set(Some(1));
}

#[cfg(target_arch = "wasm32")]
fn kept_is_used() {
    use tidegate_sdk::bindings::tidegate::filter::types;
    if let Some(handle) = KEPT.take() {
        // SAFETY: none, which is the point: numbers that were never lent, or no longer are.
        for handle in [handle + 7, handle + 8, handle + 9] {
            let stale = std::mem::ManuallyDrop::new(unsafe { types::Headers::from_handle(handle) });
            report("kept", "values", stale.get("user-agent").map_or(0, |value| value.len() as u64));
        }
    }
}

tidegate_sdk::export!(Hostile);
