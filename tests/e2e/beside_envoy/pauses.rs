//! Pauses in each phase, resumed by a call-out or by the timer, and actions by their numbers.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};
use tidegate_tests::envoy::{OnHeadersStop, Place};

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape("request-held-for-a-tick", "request pause; tick add request x-a 1; tick resume request"),
        shape("request-held-for-a-tick-2", "request pause; tick add request x-a 1; tick resume request").http2(),
        shape("request-with-body-held-for-a-tick", "request pause; tick resume request").sized("abcdef"),
        shape("request-with-chunks-held-for-a-tick", "request pause; tick try-read 0 0 all; tick resume request")
            .chunks(&["one", "two"])
            .trailer("x-t", "1"),
        shape("body-held-for-a-tick", "request-body pause; tick read request 0 all; tick resume request").sized("abcdef"),
        shape("body-in-chunks-held-for-a-tick", "request-body pause; tick resume request").chunks(&["one", "two"]),
        shape(
            "body-changed-while-held",
            "request remove request content-length; request-body pause; tick write request 0 all LATE; tick resume request",
        )
        .sized("abcdef"),
        shape("head-changed-while-the-body-is-held", "request-body pause; tick try-add 0 x-late 1; tick resume request")
            .sized("abcdef"),
        shape("trailers-held-for-a-tick", "request-trailers pause; tick add request-trailers x-u 2; tick resume request")
            .chunks(&["one", "two"])
            .trailer("x-t", "1"),
        shape("trailers-held-for-a-tick-2", "request-trailers pause; tick resume request")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .http2(),
        shape("answer-held-for-a-tick", "response pause; tick add response x-b 1; tick resume response"),
        shape("answer-held-for-a-tick-2", "response pause; tick add response x-b 1; tick resume response").http2(),
        shape("answer-without-body-held", "response pause; tick resume response").to("/status/204"),
        shape("answer-body-held-for-a-tick", "response-body pause; tick resume response").to("/charges"),
        shape(
            "answer-body-changed-while-held",
            "response remove response content-length; response-body pause; tick write response 0 all LATE; \
                 tick resume response",
        )
        .to("/charges"),
        shape(
            "answer-trailers-held-for-a-tick",
            "response-trailers pause; tick set response-trailers x-checksum 9; tick resume response",
        )
        .header("te", "trailers")
        .to("/trailers"),
        shape("answer-trailers-held-for-a-tick-2", "response-trailers pause; tick resume response")
            .header("te", "trailers")
            .to("/trailers")
            .http2(),
        shape(
            "held-twice",
            "request pause; answer-1 try-add 0 x-a 1; answer-1 resume request; \
                 request call api /status/200 5000; response pause; response call api /status/201 5000; \
                 answer-2 try-add 2 x-b 1; answer-2 resume response",
        ),
        shape(
            "held-everywhere",
            "request pause; request call api /status/200 5000; request-body pause; \
                 request-body-end call api /status/201 5000; request-body-end pause; request-trailers pause; \
                 request-trailers call api /status/202 5000; answer resume request",
        )
        .sized("abcdef"),
        shape("resumed-at-once", "request pause; request resume request"),
        shape("body-held-then-let-go-at-the-end", "request-body pause; request-body-end continue")
            .chunks(&["one", "two", "three"]),
        shape("closed-in-the-request", "request close request; request pause").without_notes(),
        shape("closed-in-the-answer", "response close response; response pause").without_notes(),
        shape("closed-while-held", "request pause; tick close request").without_notes(),
        shape("iterated-head", "request pause; request-body-end resume request").sized("abcdef").at("iterate"),
        shape(
            "iterated-head-and-held-body",
            "request pause; request-body pause; request-body-end add request x-late 1; request-body-end resume request",
        )
        .chunks(&["one", "two"])
        .at("iterate"),
        shape("iterated-head-resumed-by-tick", "request pause; request-body pause; tick resume request")
            .sized("abcdef")
            .at("iterate"),
        shape("iterated-without-body", "request pause; tick resume request").at("iterate"),
        shape("iterated-trailers", "request pause; request-body pause; request-trailers add request x-late 1")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .at("iterate"),
        shape(
            "iterated-answer",
            "response pause; response-body pause; response-body-end add response x-late 1; response-body-end continue",
        )
        .to("/charges")
        .at("iterate"),
        shape("iterated-answer-with-trailers", "response pause; response-body pause; response-trailers add response x-late 1")
            .header("te", "trailers")
            .to("/trailers")
            .at("iterate"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_are_as_beside_envoy() {
    let iterate = Place { on_headers_stop: OnHeadersStop::GoOn, ..place("iterate") };
    let Some(mut sides) = Sides::start(&[place("shapes"), iterate]).await else { return };
    sides.compare("pauses", &shapes()).await;
}
