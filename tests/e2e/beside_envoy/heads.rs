//! Heads: fields added, replaced, removed, repeated, all set at once, and pseudo-headers.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape("untouched", ""),
        shape("untouched-2", "").http2(),
        shape("adds", "request add request x-a 1; response add response x-b 2"),
        shape("adds-2", "request add request x-a 1; response add response x-b 2").http2(),
        shape("adds-again", "request add request x-a 2; request add request x-a 3").header("x-a", "1"),
        shape("adds-empty", "request add request x-a; response add response x-b; request get request x-a"),
        shape("replaces", "request set request x-a 2; response set response content-type text/x").header("x-a", "1"),
        shape("replaces-one-of-two", "request set request x-a 3").header("x-a", "1").header("x-a", "2"),
        shape("replaces-what-is-not-there", "request set request x-a 2; response set response x-b 3"),
        shape("removes", "request remove request x-a; response remove response content-type").header("x-a", "1"),
        shape("removes-both", "request remove request x-a").header("x-a", "1").header("x-a", "2"),
        shape("removes-what-is-not-there", "request remove request x-a; response remove response x-b"),
        shape(
            "reads",
            "request get request x-a; request get request x-none; request get request x-e; request get request :path",
        )
        .header("x-a", "1")
        .header("x-e", ""),
        shape("reads-repeated", "request get request x-a; request pairs request; request get request cookie")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("cookie", "a=1")
            .header("cookie", "b=2"),
        shape(
            "reads-pseudo",
            "request get request :method; request get request :scheme; request get request :authority; \
                 request get request host; response get response :status",
        ),
        shape(
            "reads-pseudo-2",
            "request get request :method; request get request :scheme; request get request :authority; \
                 request get request host; request pairs request; response pairs response",
        )
        .http2(),
        shape("reads-any-case", "request get request X-A; request add request X-Upper Val; request set request X-A 2")
            .header("x-a", "1"),
        shape(
            "repeats-in-answers",
            "response add response set-cookie a=1; response add response set-cookie b=2; \
                 response add response x-b 1; response add response x-b 2; response get response set-cookie; \
                 response get response x-b",
        ),
        shape(
            "sets-all-of-a-request",
            "request all request :method=PUT,:path=/mirror?all,:authority=shapes.example.com,:scheme=http,x-only=1,x-only=2; \
                 request pairs request",
        )
        .unlike(
            "the route is what was decided, whatever the filter leaves of the host",
            &["upstream PUT /mirror?all", "upstream x-only: 2"],
        ),
        shape("sets-all-of-an-answer", "response all response :status=201,x-only=1; response pairs response"),
        shape("changes-the-path", "request set request :path /mirror?changed"),
        shape("changes-the-method", "request set request :method PUT").chunks(&["one"]),
        shape("changes-the-authority", "request set request :authority other.example.com")
            .unlike("what was decided is what is dialled", &["upstream host: shapes.example.com"]),
        shape("changes-the-host", "request set request host other.example.com")
            .unlike("what was decided is what is dialled", &["upstream host: shapes.example.com"]),
        shape("changes-the-status", "response set response :status 299"),
        shape("changes-the-status-2", "response set response :status 404").http2(),
        shape("removes-a-pseudo-header", "request remove request :path; response remove response :status")
            .unlike("a head that cannot be sent would be left", &["answer status 200"]),
        shape("answer-without-body", "").to("/status/204"),
        shape("head", "").method("HEAD").to("/charges"),
        shape("not-found", "response add response x-b 1").to("/status/404"),
        shape(
            "maps-out-of-phase",
            "request try-add 2 x-b 1; request try-pairs 2; request try-set 1 x-t 1; request try-pairs 1; \
                 request try-add 3 x-t 1; request try-pairs 6; request try-add 9 x-a 1; request try-remove 2 x-b; \
                 request try-all 2 x-b=1",
        ),
        shape(
            "request-map-in-the-answer",
            "response try-get 0 x-a; response try-get 0 :path; log try-get 0 x-a; log try-get 2 content-type; \
                 request try-get 2 x-b; request try-get 9 x-a",
        )
        .header("x-a", "1")
        .unlike(
            "a head can be read for as long as its exchange lasts",
            &[r#"notes get 0 :path: Some("/mirror")"#, "notes get 2: 1"],
        ),
        shape("sizes", "request try-size request; response try-size response"),
        shape(
            "changed-too-late",
            "response try-add 0 x-late 1; response try-set 0 x-a 1; log try-add 2 x-b 1; \
             response-body-end try-add 2 x-b 1",
        ),
        shape("odd-names", "request try-add 0 a~b 1; request try-add 0 x-nothing; request try-set 0 x-line a^b")
            .unlike("what cannot be sent is refused at once", &["notes add 0: 2", "notes set 0: 2"]),
        shape("content-length-changed", "request set request content-length 3").sized("abc"),
        shape("content-length-removed", "request remove request content-length; response remove response content-length")
            .sized("abcdef"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_as_beside_envoy() {
    let Some(mut sides) = Sides::start(&[place("shapes")]).await else { return };
    sides.compare("heads", &shapes()).await;
}
