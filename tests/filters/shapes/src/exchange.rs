//! One exchange: its steps, what it has noted, and the verbs that look at and change the message.

use crate::{calls, raw, script::Step, shared};
use proxy_wasm::{
    hostcalls,
    types::{Action, BufferType, GrpcStatusCode, MapType, StreamType},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

thread_local! {
    /// What each exchange noted, by the name of its shape.
    static NOTES: RefCell<BTreeMap<String, Vec<String>>> = const { RefCell::new(BTreeMap::new()) };
}

/// What a test reads of the shape `name`.
pub(crate) fn told(name: &str) -> String {
    NOTES.with_borrow(|notes| notes.get(name).map(|lines| lines.join("\n")).unwrap_or_default())
}

/// One exchange. Shared by its context and the timer.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) context: u32,
    /// The filter's name among several.
    pub(crate) name: Option<Rc<str>>,
    pub(crate) shape: String,
    pub(crate) steps: Vec<Step>,
    /// The latest call-out or gRPC stream.
    pub(crate) call: u32,
    /// Calls that were answered.
    pub(crate) answers: usize,
}

impl Exchange {
    /// Writes down `line`.
    pub(crate) fn note(&self, line: impl Into<String>) {
        let line = match &self.name {
            Some(name) => format!("{name} {}", line.into()),
            None => line.into(),
        };
        NOTES.with_borrow_mut(|notes| notes.entry(self.shape.clone()).or_default().push(line));
    }

    /// Writes down a status that is not OK.
    pub(crate) fn status(&self, of: &str, status: u32) {
        if status != 0 {
            self.note(format!("{of}: status {status}"));
        }
    }

    /// Whether this filter is asked to do anything in `phase`.
    pub(crate) fn has_steps(&self, phase: &str) -> bool {
        self.steps.iter().any(|step| self.is_for(step, phase))
    }

    fn is_for(&self, step: &Step, phase: &str) -> bool {
        match &self.name {
            Some(name) => step.phase.split_once('.') == Some((name, phase)),
            None => step.phase == phase,
        }
    }

    /// Does what is asked for in `phase`.
    pub(crate) fn run(&mut self, phase: &str) -> Action {
        let steps: Vec<Step> = self.steps.iter().filter(|step| self.is_for(step, phase)).cloned().collect();
        let mut action = Action::Continue;
        for step in steps {
            match step.verb.as_str() {
                "pause" => action = Action::Pause,
                "continue" => action = Action::Continue,
                _ => self.act(&step),
            }
        }
        action
    }

    /// Does what is asked for when a call has come to its end: each time, and at this one.
    pub(crate) fn answered(&mut self) {
        self.answers += 1;
        self.run("answer");
        self.run(&format!("answer-{}", self.answers));
    }

    fn act(&mut self, step: &Step) {
        if let Some(verb) = step.verb.strip_prefix("try-") {
            return self.attempt(verb, step);
        }
        let known = self.on_maps(step) || self.on_stream(step) || calls::act(self, step) || shared::act(self, step);
        assert!(known, "there is no such verb: {step:?}");
    }

    fn on_maps(&mut self, step: &Step) -> bool {
        let (key, value) = (step.word(1), step.word(2));
        let done = match step.verb.as_str() {
            "add" => hostcalls::add_map_value(map(step), key, value),
            "set" => hostcalls::set_map_value(map(step), key, Some(value)),
            "remove" => hostcalls::remove_map_value(map(step), key),
            "all" => hostcalls::set_map(map(step), step.pairs(1)),
            "get" => {
                let value = hostcalls::get_map_value(map(step), key);
                self.note(format!("{} {key}: {value:?}", step.word(0)));
                Ok(())
            }
            "pairs" => {
                self.note(shown(hostcalls::get_map(map(step)).unwrap_or_default()));
                Ok(())
            }
            _ => return false,
        };
        if let Err(status) = done {
            self.note(format!("{step:?}: {status:?}"));
        }
        true
    }

    fn on_stream(&mut self, step: &Step) -> bool {
        match step.verb.as_str() {
            "write" => self.status(
                "write",
                hostcalls::set_buffer(buffer(step), step.number(1), step.number(2), step.word(3).as_bytes())
                    .map_or_else(|status| status as u32, |()| 0),
            ),
            "read" => {
                let read = hostcalls::get_buffer(buffer(step), step.number(1), step.number(2));
                let text = read.map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
                self.note(format!("read {}: {text:?}", step.word(0)));
            }
            "resume" => self.status("resume", raw::resume(stream(step))),
            "close" => self.status("close", raw::close(stream(step))),
            "reply" => {
                let body = Some(step.word(1).as_bytes()).filter(|body| !body.is_empty());
                let sent = hostcalls::send_http_response(step.number(0) as u32, step.pairs(2), body);
                self.status("reply", sent.map_or_else(|status| status as u32, |()| 0));
            }
            "reply-grpc" => {
                let metadata = step.pairs(1).into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
                let sent = hostcalls::send_grpc_response(GrpcStatusCode::PermissionDenied, Some(step.word(0)), metadata);
                self.status("reply-grpc", sent.map_or_else(|status| status as u32, |()| 0));
            }
            "trap" => panic!("the shape asks for it"),
            "note" => self.note(step.word(0)),
            _ => return false,
        }
        true
    }

    /// As the ABI has it, whatever the status: the SDK panics at most of them.
    fn attempt(&mut self, verb: &str, step: &Step) {
        let number = || step.number(0) as u32;
        let status = match verb {
            "add" => raw::add(number(), step.word(1), step.word(2)),
            "set" => raw::replace(number(), step.word(1), step.word(2)),
            "remove" => raw::remove(number(), step.word(1)),
            "all" => raw::set_pairs(number(), &raw::map_bytes(&step.pairs(1))),
            "get" => {
                let (status, bytes) = raw::value(number(), step.word(1));
                let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                self.note(format!("get {} {}: {text:?}", number(), step.word(1)));
                status
            }
            "pairs" => {
                let (status, bytes) = raw::pairs(number());
                self.note(format!("pairs {}: {}", number(), if bytes.is_some() { "some" } else { "none" }));
                status
            }
            "write" => raw::write(number(), step.number(1), step.number(2), step.word(3).as_bytes()),
            "read" => {
                let (status, bytes) = raw::read(number(), step.number(1), step.number(2));
                self.note(format!("read {}: {:?}", number(), bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())));
                status
            }
            "size" => {
                let (status, size) = raw::map_size(map(step));
                self.note(format!("size {}: {}", step.word(0), if size > 0 { "some" } else { "none" }));
                status
            }
            "length" => {
                let (status, length, flags) = raw::buffer_status(buffer(step));
                self.note(format!("length {}: {length} {flags}", step.word(0)));
                status
            }
            "reply" => {
                let headers = raw::map_bytes(&step.pairs(2));
                let grpc_status = step.word(3).parse().unwrap_or(-1);
                raw::reply(number(), "a~detail", step.word(1), &headers, grpc_status)
            }
            _ => calls::attempt(self, verb, step).or_else(|| shared::attempt(self, verb, step)).expect("a verb that there is"),
        };
        self.note(format!("{verb} {}: {status}", step.word(0)));
    }
}

fn map(step: &Step) -> MapType {
    match step.word(0) {
        "request" => MapType::HttpRequestHeaders,
        "request-trailers" => MapType::HttpRequestTrailers,
        "response" => MapType::HttpResponseHeaders,
        "response-trailers" => MapType::HttpResponseTrailers,
        "call" => MapType::HttpCallResponseHeaders,
        "call-trailers" => MapType::HttpCallResponseTrailers,
        "grpc" => MapType::GrpcReceiveInitialMetadata,
        "grpc-trailers" => MapType::GrpcReceiveTrailingMetadata,
        other => panic!("{step:?}: {other:?} is no map"),
    }
}

fn buffer(step: &Step) -> BufferType {
    match step.word(0) {
        "request" => BufferType::HttpRequestBody,
        "response" => BufferType::HttpResponseBody,
        "call" => BufferType::HttpCallResponseBody,
        "grpc" => BufferType::GrpcReceiveBuffer,
        "vm" => BufferType::VmConfiguration,
        "plugin" => BufferType::PluginConfiguration,
        other => panic!("{step:?}: {other:?} is no buffer"),
    }
}

fn stream(step: &Step) -> StreamType {
    match step.word(0) {
        "request" => StreamType::HttpRequest,
        "response" => StreamType::HttpResponse,
        other => panic!("{step:?}: {other:?} is no stream of HTTP"),
    }
}

/// Pairs that hosts do not add of their own, in the order of their names: hosts keep pseudo-headers in orders of their own.
pub(crate) fn shown(mut pairs: Vec<(String, String)>) -> String {
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    const OWN: [&str; 6] = ["date", "server", "via", "traceparent", "content-length", "x-do"];
    let own = |name: &str| OWN.contains(&name) || name.starts_with("x-forwarded") || name.starts_with("x-envoy");
    let pairs = pairs.iter().filter(|(name, _)| !own(name)).map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("|")
}
