//! What a filter can learn and keep: properties, configuration, shared data and queues, metrics, the clock and the log.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape(
            "request-properties",
            "request property request.path; request property request.url_path; request property request.host; \
                 request property request.scheme; request property request.method; \
                 request property request.protocol; request property request.query; \
                 request property request.headers.x-a; request property request.referer; \
                 request property request.useragent; request property request.id",
        )
        .to("/mirror?q=1")
        .header("x-a", "1")
        .header("user-agent", "pod"),
        shape(
            "request-properties-2",
            "request property request.path; request property request.host; request property request.scheme; \
                 request property request.protocol; request property request.headers.x-a",
        )
        .header("x-a", "1")
        .http2(),
        shape("request-sizes", "log property request.size; log property response.size").sized("abcdef").to("/status/200"),
        shape(
            "answer-properties",
            "response property response.code; response property response.headers.content-type; \
                 response property response.flags; log property response.code; log property response.size",
        )
        .to("/charges"),
        shape("details-of-the-answer", "log property response.code_details")
            .unlike("it is the record's word for it", &[r#"notes response.code_details: "allowed_by_rule""#]),
        shape(
            "answer-properties-too-early",
            "request property response.code; request property response.size; request property response.headers.x-b",
        ),
        shape(
            "connection-properties",
            "request property source.address.x; request property connection.mtls; \
                 request property connection.requested_server_name; request property connection.tls_version; \
                 request property connection.uri_san_peer_certificate; \
                 request property connection.termination_details",
        ),
        shape(
            "plugin-properties",
            "request property plugin_name; request property plugin_root_id; request property plugin_vm_id; \
                 request property listener_direction; request property listener_metadata; \
                 request property route_metadata; request property cluster_metadata; request property metadata; \
                 request property node.metadata",
        )
        .unlike("all its traffic is outbound", &["notes listener_direction: 0200000000000000"]),
        shape(
            "unknown-properties",
            "request try-property nothing; request try-property request.nothing; \
                 request try-property request.headers.none; request try-property source; \
                 request try-property request; request try-property response; request try-property upstream.address; \
                 request try-property connection",
        )
        .unlike("a group of properties is no property", &["notes property source: 1"]),
        shape(
            "own-properties",
            "request set-property mine 1; request property mine; response property mine; \
                 request set-property mine.a 1; request property mine.a; response property mine.a; \
                 response try-set-property request.path /x; response try-set-property plugin_name x; \
                 response property plugin_name",
        )
        .unlike("values by longer paths can be read again", &[r#"notes mine.a: "1""#]),
        shape("maps-as-properties", "request try-property request.headers; response try-property response.headers")
            .header("x-a", "1")
            .without_notes(),
        shape(
            "configuration",
            "request read plugin 0 all; request read vm 0 all; request read plugin 4 6; request clock; \
                 request level; request log hello",
        )
        .unlike("it may be read at any time", &[r#"notes read plugin: Ok(Some("the filter's own"))"#]),
        shape(
            "shared-data",
            "request shared none; request share k 1; request shared k; request share-stale k 2; \
                 request share-fresh k 3; request shared k; request share k; request shared k",
        ),
        shape("shared-queue", "request queue q item"),
        shape("counter", "request metric counter tide_counter 3"),
        shape("gauge", "request metric gauge tide_gauge 3"),
        shape("histogram", "request metric histogram tide_histogram 3"),
        shape(
            "numbers-of-nobody",
            "request try-metric 9999; request try-increment 9999; request try-record 9999; request try-enqueue 9999 x",
        ),
        shape("foreign-functions", "request foreign nothing x"),
        shape("done", "request try-done; log try-done").unlike("the Rust SDK panics at any other status", &["notes done : 0"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_are_as_beside_envoy() {
    let Some(mut sides) = Sides::start(&[place("shapes")]).await else { return };
    sides.compare("facts", &shapes()).await;
}
