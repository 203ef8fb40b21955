//! Bodies on their way through several filters: whatever each does with its pieces, all of it arrives, in its order, and no typed
//! filter is shown more at a time than it may be.

use crate::{
    proxy_wasm::{
        driven::{BODY, beside},
        written::Text,
    },
    setting::{Stage, closing, filter, module, passed_back, passed_on, request, response, unhurried},
};
use bytes::Bytes;
use futures_util::poll;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{collections::BTreeMap, pin::pin};
use tidegate_gateway::http::body::Body;
use tidegate_policy::{Reason, exchange::FilterFacts};

/// What a typed filter is shown at once, beside what it has held.
const AT_A_TIME: usize = 64 << 10;
/// What comes of a body at once, so that none of it is cut before a filter has held it.
const COMES: usize = 40_000;
const MIB: usize = 1 << 20;

/// What a filter does with both bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Streams,
    /// Holds each piece until the end.
    Holds,
    /// Holds the head, and four pieces.
    HoldsSome,
    Buffers,
    /// A VM that holds until the end.
    Stops,
}

const KINDS: [Kind; 5] = [Kind::Streams, Kind::Holds, Kind::HoldsSome, Kind::Buffers, Kind::Stops];

impl Kind {
    fn on_a_route(self) -> Value {
        let (head, body) = match self {
            Self::Streams => ("stream", json!({"flow": "forward"})),
            Self::Holds => ("stream", json!({"flow": "hold"})),
            Self::HoldsSome => ("hold", json!({"flows": ["hold", "hold", "hold", "hold", "forward"]})),
            Self::Buffers => ("buffer", json!({"flow": "forward"})),
            Self::Stops => return json!({"plugin": "stops"}),
        };
        let config = json!({
            "request": [{"flow": head}], "request_body": [body], "response": [{"flow": head}], "response_body": [body],
        });
        json!({"plugin": "witness", "config": config})
    }
}

/// A worker with a route for each of these chains.
fn stage(chains: &[(String, Value)]) -> Stage {
    let holds = "(i32.eqz (local.get $end))";
    let stops = Text::default().on("proxy_on_request_body", BODY, holds).on("proxy_on_response_body", BODY, holds);
    let modules = BTreeMap::from([
        ("witness".parse().unwrap(), module(filter("witness"))),
        ("hostile".parse().unwrap(), module(filter("hostile"))),
        ("stops".parse().unwrap(), stops.module()),
    ]);
    let mut stage = Stage::empty(unhurried());
    let routes: Vec<_> = chains.iter().map(|(name, filters)| (name.as_str(), filters.clone())).collect();
    stage.publish_modules(&routes, &modules);
    stage
}

/// A worker with one route of these filters.
fn one(filters: Value) -> Stage {
    stage(&[("api".to_owned(), filters)])
}

/// Bytes that tell where they are from.
fn content(len: usize) -> Bytes {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

fn body(content: &Bytes, trailers: Option<HeaderMap>) -> Body {
    let pieces = (0..content.len()).step_by(COMES).map(|at| content.slice(at..content.len().min(at + COMES)));
    Body::scripted(pieces.collect::<Vec<_>>(), trailers)
}

fn trailers() -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]))
}

/// All that passes, and the trailers.
async fn gathered(body: Body) -> (Bytes, Option<HeaderMap>) {
    let gathered = body.collect().await.unwrap();
    let trailers = gathered.trailers().cloned();
    (gathered.to_bytes(), trailers)
}

/// How many bytes a witness was shown in each of its callbacks about this message's body, and with its trailers.
fn shown(facts: &FilterFacts<'_>, message: &str) -> (Vec<usize>, Option<usize>) {
    let seen = facts.events[0].fields["seen"].as_str().unwrap().to_owned();
    let sizes = |what: &str| {
        let start = format!("{message}_{what} ");
        let sizes = seen.lines().filter_map(|line| line.strip_prefix(&start)?.split(' ').next()?.parse().ok());
        sizes.collect::<Vec<usize>>()
    };
    (sizes("body"), sizes("trailers").first().copied())
}

/// Looks at what a filter was shown of a body of so many bytes.
fn look(kind: Kind, facts: &FilterFacts<'_>, message: &str, (len, trailed): (usize, bool)) {
    let (pieces, with_trailers) = shown(facts, message);
    let context = || format!("{kind:?}, {message} of {len}, trailers {trailed}: {pieces:?}, {with_trailers:?}");
    assert_eq!(with_trailers.is_some(), trailed, "{}", context());
    let grows = |held: usize, now: usize| now >= held && now - held <= AT_A_TIME;
    match kind {
        Kind::Streams => {
            assert!(pieces.iter().all(|piece| *piece <= AT_A_TIME), "{}", context());
            assert_eq!(pieces.iter().sum::<usize>(), len, "{}", context());
            assert_eq!(with_trailers.unwrap_or_default(), 0, "nothing of it was held: {}", context());
        }
        Kind::Holds => {
            assert!(pieces.is_sorted_by(|held, now| grows(*held, *now)), "{}", context());
            assert_eq!(with_trailers.or(pieces.last().copied()).unwrap_or_default(), len, "{}", context());
        }
        Kind::HoldsSome => {
            assert!(pieces.iter().take(5).is_sorted_by(|held, now| grows(**held, **now)), "{}", context());
            assert!(pieces.iter().skip(5).all(|piece| *piece <= AT_A_TIME), "{}", context());
        }
        Kind::Buffers => assert!(pieces == [len] || (pieces.is_empty() && len == 0), "{}", context()),
        Kind::Stops => {}
    }
}

async fn exchange(stage: &Stage, (route, kinds): (&str, &[Kind]), len: usize, trailers: Option<HeaderMap>) {
    let content = content(len);
    let case = || format!("{kinds:?}, {len} bytes, trailers {}", trailers.is_some());
    let run = stage.begin_on(route).unwrap().0;
    let asked = passed_on(&run, request(&[]), body(&content, trailers.clone())).await.into_body();
    let (bytes, last) = gathered(asked).await;
    assert!(bytes == content, "the request of {}", case());
    assert_eq!(last, trailers, "the request of {}", case());
    drop(bytes);
    let answered = passed_back(&run, response(), body(&content, trailers.clone())).await.into_body();
    let (bytes, last) = gathered(answered).await;
    assert!(bytes == content, "the response of {}", case());
    assert_eq!(last, trailers, "the response of {}", case());
    drop(bytes);
    let facts = run.close(closing()).await;
    for (kind, facts) in kinds.iter().zip(&facts).filter(|(kind, _)| **kind != Kind::Stops) {
        look(*kind, facts, "request", (len, trailers.is_some()));
        look(*kind, facts, "response", (len, trailers.is_some()));
    }
    assert_eq!(stage.host.metrics().held_bytes.value(), 0, "all of it is given back: {}", case());
}

/// All chains of one, two and three of the kinds.
fn chains() -> Vec<Vec<Kind>> {
    let longer = |chains: &[Vec<Kind>]| -> Vec<Vec<Kind>> {
        chains.iter().flat_map(|chain| KINDS.map(|kind| [&chain[..], &[kind]].concat())).collect()
    };
    let one = longer(&[Vec::new()]);
    let two = longer(&one);
    [one, two.clone(), longer(&two)].concat()
}

#[test]
fn bodies_arrive_whole_and_in_order() {
    let chains = chains();
    let filters = |kinds: &[Kind]| kinds.iter().map(|kind| kind.on_a_route()).collect::<Value>();
    let routes: Vec<_> = chains.iter().enumerate().map(|(number, kinds)| (format!("r{number}"), filters(kinds))).collect();
    let stage = stage(&routes);
    for (kinds, (route, _)) in chains.iter().zip(&routes) {
        let lens = if kinds.len() < 3 { &[0, 5, AT_A_TIME, AT_A_TIME + 1, 300_000, MIB][..] } else { &[300_000] };
        for &len in lens {
            for trailers in [None, trailers()] {
                beside(&stage, exchange(&stage, (route, kinds), len, trailers));
            }
        }
    }
}

#[test]
fn what_waits_to_be_shown_is_counted_until_it_is_gone() {
    let stage = one(json!([Kind::Buffers.on_a_route(), Kind::Streams.on_a_route()]));
    let held = || stage.host.metrics().held_bytes.value();
    for leaves in [false, true] {
        beside(&stage, async {
            let run = stage.begin().unwrap().0;
            let mut asked = passed_on(&run, request(&[]), body(&content(MIB), None)).await.into_body();
            assert_eq!(held(), MIB as i64);
            let mut parts = Vec::new();
            while let Some(frame) = asked.frame().await {
                parts.push(frame.unwrap().into_data().unwrap().len());
                if leaves || parts.len() < MIB / AT_A_TIME {
                    assert_eq!(held(), MIB as i64, "some of it is there, and keeps the whole");
                }
                if leaves {
                    break;
                }
            }
            assert_eq!(parts, vec![AT_A_TIME; if leaves { 1 } else { MIB / AT_A_TIME }]);
            drop(asked);
            run.close(closing()).await;
        });
        assert_eq!(held(), 0, "the caller leaves: {leaves}");
    }
}

#[test]
fn others_have_their_turn_between_two_parts() {
    let stage = one(json!([Kind::Buffers.on_a_route(), Kind::Holds.on_a_route()]));
    let turns = beside(&stage, async {
        let run = stage.begin().unwrap().0;
        let mut turns = 1;
        {
            let mut read =
                pin!(async { gathered(passed_on(&run, request(&[]), body(&content(MIB), None)).await.into_body()).await });
            while poll!(&mut read).is_pending() {
                turns += 1;
            }
        }
        run.close(closing()).await;
        turns
    });
    assert_eq!(turns, MIB / AT_A_TIME);
}

#[test]
fn the_length_of_a_body_that_was_held_whole_is_known() {
    use Kind::{Buffers, HoldsSome, Stops, Streams};
    let cases: [(&[Kind], bool); 5] = [
        (&[Buffers, Streams], true),
        (&[Buffers, Streams, Streams], true),
        (&[Streams, Buffers], true),
        // The head goes on before the end has come.
        (&[Stops, Streams], false),
        (&[HoldsSome, Streams], false),
    ];
    let name = |kinds: &[Kind]| format!("{kinds:?}").to_lowercase().replace([',', ' ', '[', ']'], "");
    let filters = |kinds: &[Kind], back: bool| {
        let mut all: Vec<_> = kinds.iter().map(|kind| kind.on_a_route()).collect();
        // A response passes them in reverse order.
        if back {
            all.reverse();
        }
        Value::from(all)
    };
    let routes = cases
        .iter()
        .flat_map(|(kinds, _)| [(name(kinds), filters(kinds, false)), (format!("{}-back", name(kinds)), filters(kinds, true))]);
    let stage = stage(&routes.collect::<Vec<_>>());
    for (kinds, known) in cases {
        for len in [AT_A_TIME, AT_A_TIME + 1, 300_000, MIB].into_iter().filter(|len| known || *len > AT_A_TIME + 1) {
            beside(&stage, async {
                let run = stage.begin_on(&name(kinds)).unwrap().0;
                let asked = passed_on(&run, request(&[]), body(&content(len), None)).await.into_body();
                let told = asked.size_hint().exact();
                assert_eq!(told, known.then_some(len as u64), "the request of {kinds:?}, {len}");
                assert_eq!(gathered(asked).await.0.len(), len);
                run.close(closing()).await;
                let run = stage.begin_on(&format!("{}-back", name(kinds))).unwrap().0;
                let asked = passed_on(&run, request(&[]), Body::empty()).await.into_body();
                assert_eq!(gathered(asked).await.0.len(), 0);
                let answered = passed_back(&run, response(), body(&content(len), None)).await.into_body();
                let told = answered.size_hint().exact();
                assert_eq!(told, known.then_some(len as u64), "the response of {kinds:?}, {len}");
                assert_eq!(gathered(answered).await.0.len(), len);
                run.close(closing()).await;
            });
        }
    }
    assert_eq!(stage.host.metrics().held_bytes.value(), 0);
}

#[test]
fn an_end_between_two_parts_is_one_as_ever() {
    let first = Kind::Buffers.on_a_route();
    // The head has gone on with the first part, or is held with it.
    let cases = [
        ("late", "stream", json!([{"flows": ["forward", "reset"]}]), (Some(Reason::FilterReset), None)),
        ("held", "hold", json!([{"flows": ["hold", "reset"]}]), (Some(Reason::FilterReset), None)),
        ("reply", "hold", json!([{"reply": {"status": 418}}]), (None, Some(418))),
    ];
    let routes = cases.iter().map(|(route, head, acts, _)| {
        let config = json!({"request": [{"flow": head}], "request_body": acts});
        ((*route).to_owned(), json!([first, {"plugin": "witness", "config": config}]))
    });
    let stage = stage(&routes.collect::<Vec<_>>());
    for (route, _, _, expected) in cases {
        let came = beside(&stage, async {
            let run = stage.begin_on(route).unwrap().0;
            let mut asked = Request::from_parts(request(&[]), body(&content(MIB), None));
            let came = match run.request(&mut asked).await {
                Ok(None) => {
                    let fault = asked.into_body().collect().await.unwrap_err();
                    (Some(fault.reason()), run.late_reply().map(|reply| reply.status().as_u16()))
                }
                Ok(Some(reply)) => (None, Some(reply.status().as_u16())),
                Err(fault) => (Some(fault.reason()), None),
            };
            run.close(closing()).await;
            came
        });
        assert_eq!((came, stage.host.metrics().held_bytes.value()), (expected, 0), "{route}");
    }
}

#[test]
fn what_waits_for_a_filter_that_fails_goes_on_without_it() {
    let hostile = json!({"at": "request_body", "mode": "trap", "flow": "stream"});
    let hostile = json!({"plugin": "hostile", "config": hostile, "on_error": "skip"});
    let last = [("streams", Kind::Streams), ("holds", Kind::Holds), ("buffers", Kind::Buffers)];
    let routes = last.map(|(route, last)| (route.to_owned(), json!([Kind::Buffers.on_a_route(), hostile, last.on_a_route()])));
    let stage = stage(&routes);
    for (route, _) in last {
        beside(&stage, async {
            let run = stage.begin_on(route).unwrap().0;
            let content = content(300_000);
            let asked = passed_on(&run, request(&[]), body(&content, trailers())).await.into_body();
            let (bytes, last) = gathered(asked).await;
            assert!(bytes == content);
            assert_eq!(last, trailers());
            let facts = run.close(closing()).await;
            assert_eq!(facts[1].outcome, "skipped");
            let (pieces, _) = shown(&facts[2], "request");
            assert!(pieces.iter().all(|piece| *piece <= content.len()), "{pieces:?}");
        });
        assert_eq!(stage.host.metrics().held_bytes.value(), 0);
    }
}
