//! Local responses in each phase, with headers, bodies and statuses of gRPC.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};
use tidegate_tests::envoy::Place;

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape("reply", "request reply 403 no; request pause"),
        shape("reply-2", "request reply 403 no; request pause").http2(),
        shape("reply-without-body", "request reply 204; request pause"),
        shape("reply-with-headers", "request reply 429 slow~down x-a=1,x-a=2,retry-after=3,content-type=text/x; request pause"),
        shape("reply-with-status-header", "request reply 403 no :status=418,x-a=1; request pause"),
        shape("reply-with-length-header", "request reply 403 no content-length=99; request pause"),
        shape("reply-and-continue", "request reply 403 no"),
        shape("reply-twice", "request reply 403 first; request reply 404 second; request pause"),
        shape("reply-before-body", "request reply 413 no; request pause").sized("abcdef"),
        shape("reply-in-body", "request-body-end reply 403 no; request-body-end pause").sized("abcdef").given_up(),
        shape("reply-at-the-end-of-body", "request-body pause; request-body-end reply 403 no; request-body-end pause")
            .chunks(&["one", "two"])
            .given_up(),
        shape("reply-in-streaming-body", "request-body-end reply 403 no; request-body-end pause")
            .chunks(&["one", "two"])
            .to("/echo")
            .given_up(),
        shape("reply-in-trailers", "request-trailers reply 403 no; request-trailers pause")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .given_up(),
        shape("reply-in-answer", "response reply 503 hidden x-a=1; response pause"),
        shape("reply-in-answer-and-continue", "response reply 503 hidden"),
        shape("reply-in-answer-2", "response reply 503 hidden; response pause").http2(),
        shape("reply-in-answer-body", "response-body reply 503 hidden; response-body pause").to("/charges").without_notes(),
        shape("reply-in-held-answer-body", "response pause; response-body reply 503 hidden; tick reply 503 hidden")
            .to("/charges"),
        shape("reply-in-answer-trailers", "response-trailers reply 503 hidden; response-trailers pause")
            .header("te", "trailers")
            .to("/trailers"),
        shape("reply-while-held", "request pause; tick reply 403 late x-a=1"),
        shape("reply-from-a-call", "request pause; request call api /status/404 5000; answer reply 403 late").sized("abcdef"),
        shape("reply-while-answer-is-held", "response pause; tick reply 503 late"),
        shape("reply-while-body-is-held", "request-body pause; tick reply 403 late").sized("abcdef").given_up(),
        shape("reply-to-head", "request reply 403 no; request pause").method("HEAD"),
        shape(
            "reply-changed-on-its-way",
            "request reply 403 no x-a=1; request pause; response add response x-b 2; \
                 response set response :status 404; response remove response x-a",
        ),
        shape("reply-body-changed-on-its-way", "request reply 403 no; request pause; response-body write response all 0 MORE")
            .unlike("a body that may have been changed is announced anew", &[r#"answer body: "noMORE""#]),
        shape(
            "reply-body-changed-without-its-length",
            "request reply 403 no; request pause; response remove response content-length; \
                 response-body write response all 0 MORE",
        ),
        shape(
            "reply-read-on-its-way",
            "request reply 403 no x-a=1; request pause; response pairs response; \
                 response get response content-length; response-body read response 0 all",
        ),
        shape(
            "reply-held-on-its-way",
            "request reply 403 no; request pause; response pause; tick add response x-b 1; \
                 tick resume response",
        ),
        shape("reply-held-in-its-body", "request reply 403 no; request pause; response-body pause; tick resume response"),
        shape(
            "reply-in-its-own-answer",
            "request reply 403 no x-a=1; request pause; response reply 500 again x-b=1; response pause",
        ),
        shape(
            "reply-in-its-own-answer-body",
            "request reply 403 no; request pause; response-body reply 500 again; \
                 response-body pause",
        )
        .without_notes(),
        shape("reply-and-close-in-its-answer", "request reply 403 no; request pause; response close response; response pause")
            .without_notes(),
        shape(
            "reply-and-what-was-changed",
            "request add request x-a 1; request reply 403 no; request pause; \
                 response get request x-a; response property response.code; log property response.code",
        ),
        shape("grpc-reply-to-http", "request reply-grpc denied x-m=1; request pause"),
        shape("grpc-reply-to-grpc", "request reply-grpc denied x-m=1; request pause")
            .header("content-type", "application/grpc")
            .http2(),
        shape("http-reply-to-grpc", "request reply 403 no x-a=1; request pause")
            .header("content-type", "application/grpc")
            .http2(),
        shape("raw-reply-to-grpc", "request try-reply 503 gone x-a=1 14; request pause")
            .header("content-type", "application/grpc")
            .http2(),
        shape("grpc-reply-in-answer", "response reply-grpc denied; response pause")
            .header("content-type", "application/grpc")
            .http2(),
    ]
}

/// The same with several filters, which are shown what one of them answers.
fn in_a_chain() -> Vec<Shape> {
    vec![
        shape(
            "reply-by-the-second",
            "second.request reply 403 no x-a=1; second.request pause; first.response add response x-by first; \
                 second.response add response x-by second; third.response add response x-by third",
        )
        .at("chain"),
        shape(
            "reply-by-the-first",
            "first.request reply 403 no; first.request pause; second.response add response x-by second",
        )
        .at("chain"),
        shape(
            "reply-by-the-third",
            "third.request reply 403 no; third.request pause; first.response add response x-by first; \
                 third.response add response x-by third",
        )
        .at("chain"),
        shape(
            "reply-by-the-second-answered-by-the-first",
            "second.request reply 403 no x-a=1; second.request pause; \
                 first.response reply 503 other x-by=first; first.response pause",
        )
        .at("chain"),
        shape(
            "reply-by-the-second-in-the-answer",
            "second.response reply 503 no; second.response pause; \
                 first.response add response x-by first",
        )
        .at("chain"),
        shape("reply-while-the-first-holds-the-body", "first.request-body pause; first.tick reply 403 late")
            .sized("abcdef")
            .at("chain")
            .given_up(),
        shape(
            "reply-by-the-second-in-the-body",
            "first.request-body pause; first.request-body-end continue; second.request-body-end reply 403 late; \
                 second.request-body-end pause; first.response add response x-by first; third.response add response x-by third",
        )
        .sized("abcdef")
        .at("chain")
        .given_up(),
        shape(
            "reply-held-by-the-first",
            "second.request reply 403 no; second.request pause; first.response pause; \
                 first.tick add response x-by first; first.tick resume response",
        )
        // There the second is shown the body before the first has let go of the head.
        .at("chain")
        .without_notes(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_replies_are_as_beside_envoy() {
    let chain = Place { configuration: "as first", behind: &["as second", "as third"], ..place("chain") };
    let unreachable = Place { upstream: Some("down"), ..place("unreachable") };
    let Some(mut sides) = Sides::start(&[place("shapes"), chain, unreachable]).await else { return };
    sides.compare("replies", &shapes()).await;
    sides.compare("replies-in-a-chain", &in_a_chain()).await;
    let by_the_proxy = shape("reply-by-the-proxy", "response add response x-b 1")
        .at("unreachable")
        .unlike("the gateway says itself what failed", &["answer status 502", "answer problem connect_failed"]);
    sides.compare("replies-by-the-proxy", &[by_the_proxy]).await;
}
