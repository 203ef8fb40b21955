//! Bodies: seen, rewritten, put before and behind, dropped, in one piece and in several, with a length and in chunks; trailers.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};
use tidegate_tests::envoy::Place;

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn shapes() -> Vec<Shape> {
    vec![
        shape("sized", "").sized("abcdef"),
        shape("chunked", "").chunks(&["one", "two"]),
        shape("sized-2", "").sized("abcdef").http2(),
        shape("chunked-2", "").chunks(&["one", "two"]).http2(),
        shape("empty-and-sized", "").sized(""),
        shape("empty-chunked", "").chunks(&[""]),
        shape("trailers", "").chunks(&["one", "two"]).trailer("x-t", "1"),
        shape("trailers-2", "").chunks(&["one", "two"]).trailer("x-t", "1").http2(),
        shape("trailers-in-an-answer", "").header("te", "trailers").to("/trailers"),
        shape("trailers-in-an-answer-2", "").header("te", "trailers").to("/trailers").http2(),
        shape(
            "trailers-changed",
            "request-trailers add request-trailers x-u 2; request-trailers set request-trailers x-t 3; \
                 request-trailers pairs request-trailers",
        )
        .chunks(&["one"])
        .trailer("x-t", "1"),
        shape("trailers-removed", "request-trailers remove request-trailers x-t").chunks(&["one"]).trailer("x-t", "1").http2(),
        shape("trailers-all-set", "request-trailers all request-trailers x-t=4").chunks(&["one"]).trailer("x-t", "1"),
        shape(
            "answer-trailers-changed",
            "response-trailers set response-trailers x-checksum 2; response-trailers get response-trailers x-checksum",
        )
        .header("te", "trailers")
        .to("/trailers"),
        shape(
            "answer-trailers-changed-2",
            "response-trailers add response-trailers x-more 2; response-trailers remove response-trailers x-checksum",
        )
        .header("te", "trailers")
        .to("/trailers")
        .http2(),
        shape(
            "read-at-the-end",
            "request-body pause; request-body-end read request 0 all; request-body-end read request 2 3; \
                 request-body-end read request 6 1; request-body-end read request 9 1; request-body-end continue",
        )
        .chunks(&["one", "two"]),
        shape(
            "rewritten",
            "request remove request content-length; request-body pause; \
                 request-body-end write request 0 all REWRITTEN; request-body-end continue",
        )
        .sized("abcdef"),
        shape(
            "prepended",
            "request remove request content-length; request-body pause; request-body-end write request 0 0 PRE; \
                 request-body-end continue",
        )
        .sized("abcdef"),
        shape(
            "appended",
            "request remove request content-length; request-body pause; \
                 request-body-end write request all 0 POST; request-body-end continue",
        )
        .sized("abcdef"),
        shape(
            "beginning-replaced",
            "request remove request content-length; request-body pause; request-body-end write request 0 2 BE; \
                 request-body-end continue",
        )
        .sized("abcdef"),
        shape("dropped", "request remove request content-length; request-body write request 0 all").sized("abcdef"),
        shape("dropped-in-chunks", "request-body write request 0 all").chunks(&["one", "two"]),
        shape(
            "answer-rewritten",
            "response remove response content-length; response-body pause; \
                 response-body-end write response 0 all NEW; response-body-end continue",
        )
        .to("/charges"),
        shape(
            "answer-prepended",
            "response remove response content-length; response-body pause; \
                 response-body-end write response 0 0 PRE; response-body-end continue",
        )
        .to("/charges"),
        shape(
            "answer-appended",
            "response remove response content-length; response-body pause; \
                 response-body-end write response all 0 POST; response-body-end continue",
        )
        .to("/charges")
        .http2(),
        shape("answer-dropped", "response remove response content-length; response-body write response 0 all").to("/charges"),
        shape("answer-in-pieces-rewritten", "response-body pause; response-trailers write response 0 all NEW")
            .header("te", "trailers")
            .to("/trailers"),
        shape(
            "held-until-trailers",
            "request-body pause; request-trailers read request 0 all; request-trailers write request 0 all WHOLE",
        )
        .chunks(&["one", "two"])
        .trailer("x-t", "1"),
        shape("written-in-trailers", "request-trailers try-write 0 all 0 MORE")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .unlike("there is always a body to write to before its trailers", &[r#"upstream body: "onetwoMORE""#]),
        shape("large", "").bytes(300_000),
        shape("large-answer", "").to("/zeroes/300000"),
        shape("too-large-to-hold", "request-body pause")
            .bytes(200_000)
            .unlike("the gateway says itself what it refuses", &["answer problem body_too_large"]),
        shape("too-large-an-answer-to-hold", "response-body pause").to("/zeroes/200000").without_notes(),
        shape("just-small-enough-to-hold", "request-body pause; request-body-end continue").bytes(60_000),
        shape(
            "buffers-out-of-phase",
            "request try-read 0 0 9; request try-read 1 0 9; request try-write 0 0 9 new; \
                 request try-write 1 0 9 new; request-body-end try-read 1 0 9; request-body-end try-read 4 0 9; \
                 request-body-end try-read 9 0 9; request try-read 6 0 all; response try-read 0 0 9; \
                 response try-read 1 0 9",
        )
        .sized("abcdef"),
        shape(
            "lengths",
            "request try-length request; request-body pause; request-body-end try-length request; \
                 request-body-end continue; response-body pause; response-body-end try-length response; \
                 response-body-end continue",
        )
        .sized("abcdef")
        .to("/echo"),
        shape(
            "odd-ranges",
            "request-body pause; request-body-end continue; request-body-end try-read 0 6 1; \
                 request-body-end try-read 0 7 1; request-body-end try-read 0 5 all; \
                 request-body-end try-read 0 all all; request-body-end try-read 0 0 0; \
                 request-body-end try-write 0 6 0 +; request-body-end try-write 0 99 99 +; \
                 request-body-end try-write 0 0 0 -; request-body-end try-read 0 0 all",
        )
        .chunks(&["abcdef"]),
        shape(
            "replaced-in-the-middle",
            "request remove request content-length; request-body pause; request-body-end try-write 0 2 2 MID; \
             request-body-end try-write 0 6 all END; request-body-end continue",
        )
        .sized("abcdef")
        .unlike("any part of a body may be replaced", &[r#"upstream body: "abMIDeEND""#]),
    ]
}

/// What one filter has held, as the others are shown it.
fn in_a_chain() -> Vec<Shape> {
    vec![
        shape("held-by-the-first", "first.request-body pause; first.request-body-end continue").sized("abcdef").at("chain"),
        shape("held-by-the-first-until-trailers", "first.request-body pause")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .at("chain"),
        shape("held-by-the-first-and-the-third-until-trailers-2", "first.request-body pause; third.request-body pause")
            .chunks(&["one", "two"])
            .trailer("x-t", "1")
            .http2()
            .at("chain"),
        shape("held-by-the-last-until-an-answer's-trailers", "third.response-body pause")
            .header("te", "trailers")
            .to("/trailers")
            .at("chain"),
        shape("held-by-the-first-and-large", "first.request-body pause; first.request-body-end continue")
            .bytes(60_000)
            .at("chain"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_as_beside_envoy() {
    let chain = Place { configuration: "as first", behind: &["as second", "as third"], ..place("chain") };
    let Some(mut sides) = Sides::start(&[place("shapes"), chain]).await else { return };
    sides.compare("bodies", &shapes()).await;
    sides.compare("bodies-in-a-chain", &in_a_chain()).await;
}
