//! Telemetry: trace headers begun and passed on, spans and metrics exported over OTLP, and metrics of bounded cardinality.

use std::collections::BTreeSet;
use tidegate_tests::{
    Options, World,
    api::{Api, Speaks},
    collector::{Collector, attribute, hex},
    until,
};

#[tokio::test]
async fn traces_are_begun_where_the_caller_brings_none() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    assert_eq!(world.get("http://plain.example.com/begun").await.status, 200);
    let header = api.saw("/begun").headers["traceparent"].to_str().expect("ASCII").to_owned();
    let parts: Vec<_> = header.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{header}");
    let record = world.rest.record_to("/begun").await;
    assert_eq!(record["trace_id"], parts[1], "{record}");
}

#[tokio::test]
async fn traces_that_callers_bring_are_passed_on() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let rows = [
        ("w3c", format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\ntracestate: vendor=1\r\n"), "traceparent"),
        ("b3", format!("b3: {trace}-b7ad6b7169203331-1\r\n"), "b3"),
        ("b3-many", format!("X-B3-TraceId: {trace}\r\nX-B3-SpanId: b7ad6b7169203331\r\nX-B3-Sampled: 1\r\n"), "x-b3-traceid"),
    ];
    for (path, headers, name) in rows {
        let url = format!("http://plain.example.com/{path}");
        assert_eq!(world.pod().await.get(&url, "plain.example.com", &headers).await.status, 200);
        let seen = api.saw(&format!("/{path}")).headers;
        let passed = seen.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(passed.contains(trace), "{path}: {seen:?}");
        let record = world.rest.record_to(&format!("/{path}")).await;
        assert_eq!(record["trace_id"], trace, "{record}");
    }
    assert_eq!(api.saw("/w3c").headers["tracestate"], "vendor=1");
    let broken = "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n";
    world.pod().await.get("http://plain.example.com/broken", "plain.example.com", broken).await;
    let header = api.saw("/broken").headers["traceparent"].to_str().expect("ASCII").to_owned();
    assert!(!header.contains("-00000000000000000000000000000000-"), "a trace that is none is begun anew: {header}");
}

#[tokio::test]
async fn spans_and_metrics_arrive_at_a_collector() {
    let collector = Collector::start().await;
    let options = Options::default()
        .flag("--otlp-endpoint", collector.endpoint())
        .flag("--otlp-metrics-interval", "200ms")
        .flag("--trace-sample-ratio", "1");
    let world = World::start_with(options).await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
    assert_eq!(world.pod().await.get("http://api.example.com/traced", "api.example.com", &header).await.status, 200);
    let spans = until("the spans of the exchange", async || {
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| hex(&span.trace_id) == trace).collect();
        (spans.len() >= 4).then_some(spans)
    })
    .await;
    let root = spans.iter().find(|span| hex(&span.parent_span_id) == "00f067aa0ba902b7").expect("a child of the caller's span");
    let names: BTreeSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
    for phase in ["connect", "tls", "upstream"] {
        assert!(names.contains(phase), "{phase} is not in {names:?}");
    }
    for span in spans.iter().filter(|span| span.span_id != root.span_id) {
        assert_eq!(hex(&span.parent_span_id), hex(&root.span_id), "{span:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
    }
    assert_eq!(attribute(root, "http.response.status_code").as_deref(), Some("200"), "{root:?}");
    let forwarded = api.saw("/traced").headers["traceparent"].to_str().expect("ASCII").to_owned();
    assert!(
        spans.iter().any(|span| forwarded.contains(&hex(&span.span_id))),
        "the API's parent is one of our spans: {forwarded}"
    );
    until("metrics", async || collector.metrics().iter().any(|name| name.contains("exchanges")).then_some(())).await;
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing() {
    let nobody = tidegate_tests::peers::nobody().await;
    let options = Options::default().flag("--otlp-endpoint", format!("http://{nobody}")).flag("--trace-sample-ratio", "1");
    let mut world = World::start_with(options).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    for at in 0..50 {
        assert_eq!(world.get(&format!("http://plain.example.com/{at}")).await.status, 200);
    }
    world.gateway.terminate();
    assert!(world.gateway.ended().await.success());
}

#[tokio::test]
async fn metrics_stay_bounded_whatever_callers_ask_for() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let ask = async |round: usize| {
        let mut raw = world.pod().await;
        for at in 0..100 {
            let host = format!("host-{round}-{at}.example.com");
            raw.get(&format!("http://{host}/path-{round}-{at}"), &host, "").await;
            raw.get(&format!("http://plain.example.com/path-{round}-{at}?q={at}"), "plain.example.com", "").await;
        }
    };
    ask(0).await;
    let series = world.gateway.metrics().await.lines().filter(|line| !line.starts_with('#')).count();
    ask(1).await;
    let text = world.gateway.metrics().await;
    let after = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(after <= series + 10, "{series} series became {after}");
    assert!(!text.contains("host-0-1") && !text.contains("path-0-1"), "callers' own words are no labels");
    assert!(world.gateway.metric("tidegate_exchanges_total", "reason=\"unregistered_host\"").await >= 200.0, "{text}");
    assert!(world.gateway.metric("tidegate_exchanges_total", "service=\"plain\"").await >= 200.0, "{text}");
}

#[tokio::test]
async fn health_is_told_on_both_ports() {
    let world = World::start().await;
    for address in [world.gateway.addresses.metrics, world.gateway.addresses.admin] {
        for path in ["/healthz", "/readyz"] {
            let reply = tidegate_tests::rest::ask(address, "GET", path, &[], Vec::new()).await.expect("an answer");
            assert_eq!(reply.status, 200, "{address}{path}: {reply:?}");
        }
    }
    let directory = world.gateway.directory().path().display().to_string();
    let metrics = world.gateway.addresses.metrics.to_string();
    let (status, said, wrong) =
        tidegate_tests::gateway::run(&["healthcheck", "--metrics-listen", &metrics, "--data-dir", &directory]);
    assert!(status.success(), "{said}{wrong}");
    let nobody = tidegate_tests::peers::nobody().await.to_string();
    let (status, ..) = tidegate_tests::gateway::run(&["healthcheck", "--metrics-listen", &nobody]);
    assert!(!status.success(), "nobody is not healthy");
}
