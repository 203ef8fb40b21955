//! Calls of the filter's own, over HTTP and gRPC, and how they fail.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape("call", "request pause; request call api /status/200 5000; answer pairs call; answer resume request"),
        shape("call-with-body", "request pause; request call api /echo 5000 said; answer read call 0 3; answer resume request"),
        shape(
            "call-to-404",
            "request pause; request call api /status/404 5000; answer get call :status; answer resume request",
        ),
        shape(
            "call-with-trailers",
            "request pause; request call api /trailers 5000; answer pairs call-trailers; answer resume request",
        ),
        shape("call-to-nobody", "request pause; request call down / 5000; answer get call :status; answer resume request"),
        shape("call-too-slow", "request pause; request call api /never 100; answer get call :status; answer resume request"),
        shape("call-to-the-unknown", "request call unknown / 5000"),
        shape("call-without-pseudo-headers", "request bare-call api"),
        shape("call-without-waiting", "request call api /status/200 5000").without_notes(),
        shape(
            "call-in-body",
            "request-body pause; request-body-end call api /status/201 5000; request-body-end pause; answer resume request",
        )
        .sized("abcdef"),
        shape(
            "call-in-answer",
            "response pause; response call api /status/202 5000; answer add response x-b 1; answer resume response",
        ),
        shape(
            "call-in-answer-body",
            "response-body pause; response-body-end call api /status/203 5000; response-body-end pause; answer resume response",
        )
        .to("/charges"),
        shape("call-in-log", "log call api /status/200 5000"),
        shape("call-outlives-its-exchange", "request call api /never 500; request reply 403 no; request pause"),
        shape(
            "call-seen-through-effective-context",
            "request pause; request call api /status/200 5000; answer try-effective 99999; answer resume request",
        ),
        shape("grpc", "request pause; request grpc harbour GetShip ships/tide 5000; answer resume request"),
        shape(
            "grpc-not-found",
            "request pause; request grpc harbour GetShip ships/flying-dutchman 5000; answer resume request",
        ),
        shape("grpc-without-method", "request pause; request grpc harbour Sink ships/tide 5000; answer resume request"),
        shape("grpc-too-slow", "request pause; request grpc harbour Wait ships/tide 100; answer resume request"),
        shape("grpc-to-nobody", "request pause; request grpc down GetShip ships/tide 5000; answer resume request"),
        shape("grpc-to-the-unknown", "request grpc unknown GetShip ships/tide 5000"),
        shape(
            "grpc-cancelled",
            "request pause; request grpc harbour Wait ships/tide 5000; request grpc-cancel; tick resume request",
        ),
        shape(
            "grpc-numbers-of-nobody",
            "request try-grpc-cancel 77; request try-grpc-close 77; request try-grpc-send 77",
        ),
        shape(
            "grpc-stream",
            "request pause; request stream harbour GetShip; request send ships/tide end; answer resume request",
        ).unlike("metadata are what the service said, without the status of HTTP", &["notes grpc initial: content-type=application/grpc"]),
        shape(
            "grpc-stream-not-found",
            "request pause; request stream harbour GetShip; request send ships/flying-dutchman end; answer resume request",
        ).unlike("metadata are what the service said, without the status of HTTP", &["notes grpc trailing: content-type=application/grpc|grpc-message=nobody%20has%20seen%20it:%20100%20%25%20sure|grpc-status=5"]),
        shape("grpc-stream-to-the-unknown", "request stream unknown GetShip"),
        shape(
            "grpc-stream-cancelled",
            "request pause; request stream harbour Watch; request grpc-cancel; request grpc-cancel; tick resume request",
        ),
        shape(
            "grpc-stream-closed",
            "request pause; request stream harbour Watch; request grpc-close; request grpc-close; answer resume request",
        ).unlike("metadata are what the service said, without the status of HTTP", &["notes grpc trailing: content-type=application/grpc|grpc-message=Missing%20request%20message.|grpc-status=13"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_as_beside_envoy() {
    let Some(mut sides) = Sides::start(&[place("shapes")]).await else { return };
    sides.compare("calls", &shapes()).await;
}
