//! A filter that misbehaves as its configuration says. It is meant to be stopped by the gateway, at no cost to others.

mod exhaust;
mod giant;
mod handles;
mod inject;

use giant::Call;
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, HeaderError, Headers, Reply, StatusCode, TrailerFlow, Trailers,
    attributes, audit, log,
};

/// Its configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When.
    at: Phase,
    /// When once more, such as to answer twice.
    also: Option<Phase>,
    /// What.
    mode: Mode,
    /// For the mode `giant`: the call that gets too much.
    call: Option<Call>,
    /// What it answers to a head, to be shown the phase after it.
    #[serde(default)]
    flow: Shown,
}

/// When it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Configure,
    Begin,
    Request,
    RequestBody,
    RequestTrailers,
    Response,
    ResponseBody,
    ResponseTrailers,
    Log,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shown {
    #[default]
    Stream,
    Hold,
    Buffer,
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
    /// Asks for 4 GiB at once, and says whether it got them.
    MemoryWhole,
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
    /// Hands 4 MiB, or a long list, to the call that is named.
    Giant,
    /// Makes 100,000 metrics, values and attributes; says how many values and attributes were accepted.
    Names,
    /// Makes headers with CR, LF and NUL, pseudo-headers, framing headers, and first lines with the like; says how many were
    /// accepted.
    Inject,
    /// Adds 10,000 headers.
    HeaderCount,
    /// Adds a header of 512 KiB.
    HeaderSize,
    /// Changes a header and then traps.
    ChangeAndTrap,
    /// Adds to a body until it gets no more, and says how far it came.
    BodySize,
    /// Changes and reads a body behind its end and over the end of numbers; says how many changes were accepted.
    BodyRange,
    /// Keeps the header handle and uses it in the next phase.
    Keep,
    /// Keeps the body handle and uses it in the next phase.
    KeepBody,
    /// Answers with a status that is none.
    ReplyStatus,
    /// Answers with CR and LF in a header.
    ReplyHeader,
    /// Answers with 10,000 headers.
    ReplyHeaderCount,
    /// Answers with a body of 16 MiB.
    ReplyBody,
    /// Answers properly.
    Reply,
    /// Asks for 1 GiB of random bytes.
    Random,
    /// Reads what it must not see, and says so if it could.
    Peek,
}

/// What is at hand in a callback.
enum Hand<'a, 'b> {
    Nothing,
    Head(&'a mut Headers<'b>),
    Body(&'a mut Body<'b>),
    Trailers(&'a mut Trailers<'b>),
}

/// The filter.
#[derive(Debug)]
pub struct Hostile(Config);

impl Filter for Hostile {
    type Config = Config;
    type State = Begun;

    fn new(config: Config) -> Result<Self, ConfigError> {
        if (config.mode == Mode::Giant) != config.call.is_some() {
            return Err(ConfigError::new("/call", "the mode giant names a call, and no other does"));
        }
        let hostile = Self(config);
        hostile.misbehave(Phase::Configure, Hand::Nothing);
        BEGIN_TRAPS.set(hostile.0.at == Phase::Begin);
        Ok(hostile)
    }

    fn on_request(&self, _: &mut Exchange<Begun>, head: &mut Headers<'_>, _end: bool) -> Flow {
        let reply = self.misbehave(Phase::Request, Hand::Head(head));
        self.goes_on(reply, Phase::RequestBody, Phase::RequestTrailers)
    }

    fn on_request_body(&self, _: &mut Exchange<Begun>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        self.misbehave(Phase::RequestBody, Hand::Body(body)).map_or(BodyFlow::Forward, BodyFlow::Reply)
    }

    fn on_request_trailers(&self, _: &mut Exchange<Begun>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.misbehave(Phase::RequestTrailers, Hand::Trailers(trailers)).map_or(TrailerFlow::Forward, TrailerFlow::Reply)
    }

    fn on_response(&self, _: &mut Exchange<Begun>, _: StatusCode, head: &mut Headers<'_>, _end: bool) -> Flow {
        let reply = self.misbehave(Phase::Response, Hand::Head(head));
        self.goes_on(reply, Phase::ResponseBody, Phase::ResponseTrailers)
    }

    fn on_response_body(&self, _: &mut Exchange<Begun>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        self.misbehave(Phase::ResponseBody, Hand::Body(body)).map_or(BodyFlow::Forward, BodyFlow::Reply)
    }

    fn on_response_trailers(&self, _: &mut Exchange<Begun>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.misbehave(Phase::ResponseTrailers, Hand::Trailers(trailers)).map_or(TrailerFlow::Forward, TrailerFlow::Reply)
    }

    fn on_log(&self, _: &mut Exchange<Begun>) {
        self.misbehave(Phase::Log, Hand::Nothing);
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
    fn is_at(&self, phase: Phase) -> bool {
        self.0.at == phase || self.0.also == Some(phase)
    }

    /// The answer to a head, after which one of these phases may be due.
    fn goes_on(&self, reply: Option<Reply>, body: Phase, trailers: Phase) -> Flow {
        match (reply, self.0.flow) {
            (Some(reply), _) => Flow::Reply(reply),
            (None, _) if !self.is_at(body) && !self.is_at(trailers) => Flow::Proceed,
            (None, Shown::Stream) => Flow::Stream,
            (None, Shown::Hold) => Flow::Hold,
            (None, Shown::Buffer) => Flow::Buffer,
        }
    }

    fn misbehave(&self, phase: Phase, hand: Hand<'_, '_>) -> Option<Reply> {
        handles::kept_are_used();
        if !self.is_at(phase) {
            return None;
        }
        match self.0.mode {
            Mode::Trap => panic!("told to trap"),
            Mode::Loop => exhaust::forever(),
            Mode::Memory => exhaust::allocate(),
            Mode::MemoryReport => report("grown", "mib", exhaust::grow(16)),
            Mode::MemoryWhole => report("grown", "mib", exhaust::grow(65_535)),
            Mode::Stack => report("recursed", "depth", exhaust::deeper(1)),
            Mode::LogSize => log::info(&"x".repeat(16 << 20)),
            Mode::LogCount => (0..1_000_000).for_each(|_| log::info("again")),
            Mode::EventCount => (0..1_000_000).for_each(|_| report("again", "n", 1)),
            Mode::EventSize => {
                audit::Event::new("large", audit::Outcome::Allowed).field("text", "x".repeat(512 * 1024)).emit();
            }
            Mode::Giant => giant::hand_over(self.0.call, hand),
            Mode::Names => exhaust::names(),
            Mode::Random => report("random", "bytes", tidegate_sdk::random(1 << 30).len() as u64),
            Mode::Keep => handles::keep_head(),
            Mode::KeepBody => handles::keep_body(),
            Mode::BodySize | Mode::BodyRange => self.with_body(hand),
            mode => {
                if let Some(headers) = hand.headers() {
                    self.with_headers(headers);
                }
                return mode.reply();
            }
        }
        None
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
            Mode::Inject => inject::inject(headers),
            Mode::Peek => {
                let seen = headers.contains("proxy-authorization")
                    || headers.entries().iter().any(|(name, _)| name == "proxy-authorization")
                    || !headers.get_all("Proxy-Authorization").is_empty()
                    || headers.get_many(&["proxy-authorization"]).iter().any(Option::is_some)
                    || attributes::get("proxy-authorization").is_some();
                report("peeked", "seen", u64::from(seen));
            }
            _ => {}
        }
    }

    fn with_body(&self, hand: Hand<'_, '_>) {
        let Some(body) = hand.body() else { return };
        if self.0.mode == Mode::BodySize {
            let piece = vec![b'x'; 256 * 1024];
            let pieces = (0..1024).take_while(|_| body.append(&piece).is_ok()).count();
            report("body", "kib", pieces as u64 * 256);
        } else {
            report("body", "accepted", exhaust::ranges(body));
        }
    }
}

impl<'a, 'b> Hand<'a, 'b> {
    /// Trailers, or the head as long as it is here.
    fn headers(self) -> Option<&'a mut Headers<'b>> {
        match self {
            Self::Nothing => None,
            Self::Head(head) => Some(head),
            Self::Body(body) => body.head(),
            Self::Trailers(trailers) => Some(trailers),
        }
    }

    fn body(self) -> Option<&'a mut Body<'b>> {
        match self {
            Self::Nothing | Self::Head(_) => None,
            Self::Body(body) => Some(body),
            Self::Trailers(trailers) => Some(trailers.body()),
        }
    }
}

impl Mode {
    fn reply(self) -> Option<Reply> {
        let ok = Reply::new(StatusCode::OK);
        match self {
            Self::Reply => {
                Some(Reply::new(StatusCode::FORBIDDEN).header("x-why", "told so").body("no\n").details("told to answer"))
            }
            Self::ReplyStatus => Some(Reply::new(StatusCode::CONTINUE)),
            Self::ReplyHeader => Some(ok.header("x-split", "a\r\nset-cookie: b")),
            Self::ReplyHeaderCount => Some((0..10_000).fold(ok, |reply, n| reply.header(format!("x-{n}"), "v"))),
            Self::ReplyBody => Some(ok.body(vec![b'x'; 16 << 20])),
            _ => None,
        }
    }
}

fn report(kind: &str, field: &str, value: u64) {
    audit::Event::new(kind, audit::Outcome::Allowed).field(field, value).emit();
}

tidegate_sdk::export!(Hostile);
