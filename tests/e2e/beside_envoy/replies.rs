//! Local responses in each phase, with headers, bodies and statuses of gRPC.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape("reply", "request reply 403 no; request pause").replies(),
        shape("reply-2", "request reply 403 no; request pause").http2().replies(),
        shape("reply-without-body", "request reply 204; request pause").replies(),
        shape("reply-with-headers", "request reply 429 slow~down x-a=1,x-a=2,retry-after=3,content-type=text/x; request pause")
            .replies(),
        shape("reply-with-status-header", "request reply 403 no :status=418,x-a=1; request pause").replies(),
        shape("reply-with-length-header", "request reply 403 no content-length=99; request pause").replies(),
        shape("reply-and-continue", "request reply 403 no").replies(),
        shape("reply-twice", "request reply 403 first; request reply 404 second; request pause").replies(),
        shape("reply-before-body", "request reply 413 no; request pause").sized("abcdef").replies(),
        shape("reply-in-body", "request-body-end reply 403 no; request-body-end pause").sized("abcdef").replies(),
        shape("reply-at-the-end-of-body", "request-body pause; request-body-end reply 403 no; request-body-end pause")
            .chunks(&["one", "two"])
            .replies(),
        shape("reply-in-streaming-body", "request-body-end reply 403 no; request-body-end pause")
            .chunks(&["one", "two"])
            .to("/echo")
            .replies(),
        shape("reply-in-trailers", "request-trailers reply 403 no; request-trailers pause")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .replies(),
        shape("reply-in-answer", "response reply 503 hidden x-a=1; response pause"),
        shape("reply-in-answer-and-continue", "response reply 503 hidden"),
        shape("reply-in-answer-2", "response reply 503 hidden; response pause").http2(),
        shape("reply-in-answer-body", "response-body reply 503 hidden; response-body pause").to("/charges").without_notes(),
        shape("reply-in-held-answer-body", "response pause; response-body reply 503 hidden; tick reply 503 hidden")
            .to("/charges"),
        shape("reply-in-answer-trailers", "response-trailers reply 503 hidden; response-trailers pause")
            .header("te", "trailers")
            .to("/trailers"),
        shape("reply-while-held", "request pause; tick reply 403 late x-a=1").replies(),
        shape("reply-from-a-call", "request pause; request call api /status/404 5000; answer reply 403 late")
            .sized("abcdef")
            .replies(),
        shape("reply-while-answer-is-held", "response pause; tick reply 503 late"),
        shape("reply-while-body-is-held", "request-body pause; tick reply 403 late").sized("abcdef").replies(),
        shape("reply-to-head", "request reply 403 no; request pause").method("HEAD").replies(),
        shape(
            "reply-changed-on-its-way",
            "request reply 403 no x-a=1; request pause; response add response x-b 2; \
                 response set response :status 404; response remove response x-a",
        )
        .unlike("an answer of the filter's own is final", &["answer status 403", "answer x-a: 1"]),
        shape("reply-body-changed-on-its-way", "request reply 403 no; request pause; response-body write response all 0 MORE")
            .replies(),
        shape("grpc-reply-to-http", "request reply-grpc denied x-m=1; request pause").replies(),
        shape("grpc-reply-to-grpc", "request reply-grpc denied x-m=1; request pause")
            .header("content-type", "application/grpc")
            .http2()
            .replies(),
        shape("http-reply-to-grpc", "request reply 403 no x-a=1; request pause")
            .header("content-type", "application/grpc")
            .http2()
            .replies(),
        shape("raw-reply-to-grpc", "request try-reply 503 gone x-a=1 14; request pause")
            .header("content-type", "application/grpc")
            .http2()
            .replies(),
        shape("grpc-reply-in-answer", "response reply-grpc denied; response pause")
            .header("content-type", "application/grpc")
            .http2(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_replies_are_as_beside_envoy() {
    let Some(mut sides) = Sides::start(&[place("shapes")]).await else { return };
    sides.compare("replies", &shapes()).await;
}
