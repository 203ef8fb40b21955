//! What the test driver does with a filter's calls: refuses what is not granted, keeps what was asked for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows that only inside of test functions")]

use http::StatusCode;
use std::{cell::RefCell, time::Duration};
use tidegate_sdk::{
    Body, BodyError, BodyFlow, ConfigError, Exchange, Filter, Flow, HeaderError, Headers, attributes, audit,
    kv::{self, KvError},
    message::{self, LineError},
    metrics::{Counter, Gauge, Histogram},
    outbound::{self, Answer, Call, CallError},
    testing::{Driver, Message, Secret},
    upstream::{self, Alpn, PolicyError, Tls, TlsMode},
};

/// A filter that does in its request callback what the test says.
struct Caller {
    calls: Counter,
    level: Gauge,
    sizes: Histogram,
}

type Act = Box<dyn FnOnce(&Caller, &mut Headers<'_>) -> Flow>;

thread_local! {
    static ACT: RefCell<Option<Act>> = const { RefCell::new(None) };
}

impl Filter for Caller {
    type Config = ();
    type State = ();

    fn new((): ()) -> Result<Self, ConfigError> {
        let misnamed = Counter::new("Calls");
        misnamed.add(1);
        Ok(Self { calls: Counter::new("calls"), level: Gauge::new("level"), sizes: Histogram::new("sizes") })
    }

    fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
        ACT.take().map_or(Flow::Proceed, |act| act(self, head))
    }

    fn on_request_body(&self, _: &mut Exchange<()>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        assert_eq!(body.read(1, 2), b"bc");
        assert_eq!(body.read(9, 2), b"");
        assert_eq!(body.splice(9.., "x"), Err(BodyError::OutOfRange));
        assert_eq!(body.splice(1..=2, "-"), Ok(()));
        assert_eq!(body.splice(3..99, "!"), Ok(()));
        assert_eq!((body.prepend("<"), body.append(">")), (Ok(()), Ok(())));
        assert_eq!(body.bytes(), b"<a-d!>");
        assert_eq!((body.take(), body.len(), body.is_empty()), (b"<a-d!>".to_vec(), 0, true));
        assert_eq!(body.replace("new"), Ok(()));
        assert_eq!(body.append(vec![b'x'; 1 << 20]), Err(BodyError::TooLarge));
        assert_eq!(body.bytes(), b"new", "all of it or nothing");
        let long: Vec<u8> = (0..600 << 10).map(|index: u32| index.to_le_bytes()[1]).collect();
        assert_eq!(body.append(&long), Ok(()));
        assert_eq!(body.pieces().collect::<Vec<_>>().concat(), [b"new", long.as_slice()].concat());
        assert_eq!((body.replace(&long), body.bytes() == long), (Ok(()), true));
        assert_eq!((body.replace(vec![b'x'; (1 << 20) + 1]), body.bytes() == long), (Err(BodyError::TooLarge), true));
        assert_eq!(body.replace("new"), Ok(()));
        assert_eq!(message::rewrite("GET", "/late"), Err(LineError::TooLate));
        assert_eq!(upstream::select_service("other"), Err(PolicyError::TooLate));
        BodyFlow::Forward
    }
}

fn driver() -> Driver<Caller> {
    Driver::new(serde_json::Value::Null).unwrap()
}

fn acting(act: impl FnOnce(&Caller, &mut Headers<'_>) -> Flow + 'static) {
    ACT.set(Some(Box::new(act)));
}

#[test]
fn nothing_is_granted_unless_the_script_grants_it() {
    acting(|_, _| {
        assert_eq!(message::rewrite("POST", "/v2/a?b=c"), Err(LineError::NotPermitted));
        assert_eq!(upstream::select_service("other"), Err(PolicyError::NotPermitted));
        assert_eq!(upstream::select_endpoint("203.0.113.7", 443), Err(PolicyError::NotPermitted));
        assert_eq!(upstream::inject_secret("x-key", "key", ""), Err(PolicyError::NotPermitted));
        let certificate = Some("client".to_owned());
        let tls = Tls { mode: Some(TlsMode::Mutual), certificate, ..Tls::default() };
        assert_eq!(upstream::originate_tls(&tls), Err(PolicyError::NotPermitted));
        let plain = Tls { mode: Some(TlsMode::Disabled), ..Tls::default() };
        assert_eq!(upstream::originate_tls(&plain), Err(PolicyError::NotPermitted));
        assert_eq!(upstream::originate_tls(&Tls { sni: Some("a.example".to_owned()), ..Tls::default() }), Ok(()));
        Flow::Proceed
    });
    let driver = driver();
    let exchange = driver.exchange().request([]);
    assert_eq!(exchange.chosen().tls.as_ref().unwrap().sni.as_deref(), Some("a.example"));
    assert!(exchange.rewritten().is_none() && exchange.chosen().service.is_none());
}

#[test]
fn what_is_granted_is_chosen() {
    acting(|_, _| {
        assert_eq!(message::rewrite(http::Method::POST, "/v2/a?b=c"), Ok(()));
        assert_eq!(message::rewrite("POST", "/v1"), Err(LineError::NotPermitted));
        assert_eq!(message::rewrite("PO ST", "/v2/"), Err(LineError::Invalid));
        assert_eq!(message::rewrite("CONNECT", "/v2/"), Err(LineError::Invalid));
        assert_eq!(message::rewrite("POST", "v2/"), Err(LineError::Invalid));
        assert_eq!(message::rewrite("POST", "/v2/\r\nx"), Err(LineError::Invalid));
        assert_eq!(message::set_status(StatusCode::OK), Err(LineError::TooLate));
        assert_eq!(upstream::select_service("other"), Ok(()));
        assert_eq!(upstream::select_endpoint("203.0.113.7", 443), Ok(()));
        assert_eq!(upstream::select_endpoint("no host", 443), Err(PolicyError::Invalid));
        assert_eq!(upstream::select_service("other"), Err(PolicyError::Conflict), "an endpoint of another is chosen");
        let with = |sni: &str, alpn| Tls { sni: Some(sni.to_owned()), alpn, ..Tls::default() };
        assert_eq!(upstream::originate_tls(&with("a.example", Some(vec![Alpn::H2]))), Ok(()));
        assert_eq!(upstream::originate_tls(&with("b.example", None)), Ok(()));
        assert_eq!(upstream::inject_secret("X-Key", "key", "Bearer "), Ok(()));
        assert_eq!(upstream::inject_secret("host", "key", ""), Err(PolicyError::Invalid));
        let contradiction = Tls { mode: Some(TlsMode::Disabled), trust: Some("key".to_owned()), ..Tls::default() };
        assert_eq!(upstream::originate_tls(&contradiction), Err(PolicyError::Conflict));
        Flow::Proceed
    });
    let grants = serde_json::json!({"services": ["other"], "endpoints": true, "credentials": ["key"], "paths": ["/v2/*"]});
    let driver = driver().grants(grants);
    let exchange = driver.exchange().request([("x-key", "the caller's own")]);
    assert_eq!(exchange.rewritten(), Some(("POST", "/v2/a?b=c")));
    let chosen = exchange.chosen();
    assert_eq!((chosen.service.as_deref(), &chosen.endpoint), (Some("other"), &Some(("203.0.113.7".to_owned(), 443))));
    let tls = chosen.tls.as_ref().unwrap();
    assert_eq!((tls.sni.as_deref(), tls.alpn.as_deref()), (Some("b.example"), Some([Alpn::H2].as_slice())));
    let secret = Secret { header: "x-key".to_owned(), credential: "key".to_owned(), prefix: "Bearer ".to_owned() };
    assert_eq!(chosen.secrets, [secret]);
    assert!(exchange.upstream().unwrap().headers.is_empty(), "the caller's own value is not sent");
}

#[test]
fn a_body_is_read_and_changed_in_place() {
    acting(|_, _| Flow::Stream);
    let driver = driver();
    let exchange = driver.exchange().request(Message::new([]).body(["abcd"]));
    assert_eq!(exchange.upstream().unwrap().body, b"new");
}

#[test]
fn headers_that_filters_never_write_are_refused() {
    acting(|_, head| {
        for name in ["Host", "content-length", "via", ":path", "proxy-authorization"] {
            assert_eq!(head.insert(name, "v"), Err(HeaderError::Immutable), "{name}");
        }
        assert_eq!(head.insert("x-a", "a\r\nb"), Err(HeaderError::Invalid));
        assert_eq!(head.change().insert("x-b", "1").remove("te").apply(), Err(HeaderError::Immutable));
        assert_eq!(head.get_many(&["x-a", "x-b"]), [Some(b"1".to_vec()), None]);
        Flow::Proceed
    });
    let driver = driver();
    let exchange = driver.exchange().request([("x-a", "1")]);
    assert_eq!(exchange.headers().len(), 1);
}

#[test]
fn metrics_add_up_over_exchanges() {
    let driver = driver();
    for size in [3, 5] {
        acting(move |filter, _| {
            filter.calls.add(2);
            filter.level.set(7);
            filter.level.add(-2);
            filter.sizes.observe(size);
            Flow::Proceed
        });
        driver.exchange().request([]).log();
    }
    assert_eq!((driver.counter("calls"), driver.gauge("level"), driver.histogram("sizes")), (4, 5, vec![3, 5]));
    assert_eq!(driver.counter("Calls"), 0, "that is no name");
}

#[test]
fn shared_values_have_versions_and_end() {
    let driver = driver().stores("given", "1");
    acting(|_, _| {
        assert_eq!(kv::get("given").unwrap().value, b"1");
        assert_eq!(kv::increment("given", 1, None), Err(KvError::Mismatch));
        let first = kv::compare_and_set("lock", "a", 0, None).unwrap();
        assert_eq!(kv::compare_and_set("lock", "b", 0, None), Err(KvError::Mismatch));
        let second = kv::compare_and_set("lock", "b", first, None).unwrap();
        assert_ne!(first, second);
        kv::remove("lock");
        assert_eq!(kv::get("lock"), None);
        assert_eq!(kv::increment("count", 5, Some(Duration::from_secs(1))), Ok(5));
        assert_eq!(kv::increment("count", i64::MAX, Some(Duration::from_secs(9))), Ok(i64::MAX));
        Flow::Proceed
    });
    driver.exchange().request([]).log();
    assert_eq!(driver.stored("count").unwrap(), i64::MAX.to_le_bytes());
    driver.advance(Duration::from_secs(1));
    assert_eq!(driver.stored("count"), None, "its time counts from the first");
    assert!(driver.stored("given").is_some());
}

#[test]
fn calls_are_answered_by_the_script() {
    let driver = driver().answers(|call| match call.url() {
        "https://tokens.example/new" => Ok(Answer {
            status: StatusCode::OK,
            headers: vec![("x-a".to_owned(), b"1".to_vec())],
            body: call.body_bytes().to_vec(),
        }),
        _ => Err(CallError::Timeout),
    });
    acting(|_, _| {
        let call = Call::post("https://tokens.example/new").header("accept", "text/plain").body("token");
        let answer = outbound::send(call.timeout(Duration::from_micros(1))).unwrap();
        assert_eq!((answer.header("X-A"), answer.body.as_slice()), (Some(b"1".as_slice()), b"token".as_slice()));
        assert_eq!(outbound::send(Call::get("https://slow.example/")), Err(CallError::Timeout));
        Flow::Proceed
    });
    let exchange = driver.exchange().request([]);
    assert_eq!(exchange.calls().len(), 2);
    assert_eq!(exchange.calls()[0].headers()[0].0, "accept");
}

#[test]
fn state_is_for_the_exchange() {
    let driver = driver();
    acting(|_, _| {
        assert!(attributes::set("state.tenant", "blue"));
        assert!(!attributes::set("caller.principal", "root") && !attributes::set("state.", 1_u64));
        let event =
            audit::Event::new("seen", audit::Outcome::Allowed).known(&[("tenant", "state.tenant"), ("n", "state.tenant")]);
        assert!(event.field("n", 1_u64).emit());
        Flow::Proceed
    });
    let exchange = driver.exchange().request([]);
    assert_eq!(exchange.known("state.tenant"), Some(&"blue".into()));
    let events = exchange.events();
    assert_eq!(events[0].fields, [("tenant".to_owned(), "blue".into()), ("n".to_owned(), 1_u64.into())]);
    assert_eq!(driver.exchange().request([]).known("state.tenant"), None);
    assert_eq!(exchange.events().len(), 1, "another exchange takes nothing away");
}
