//! What is accepted of a caller, what is refused, and what is left of a connection afterwards.

use super::*;

/// Every row must be refused with 400 and the connection closed, and nothing of it may reach the handler as a request
/// whose body is complete.
const REFUSED: &[(&str, &str)] = &[
    ("bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    ("bare LF ends the head", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    ("bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bare CR ends a line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    ("CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    ("folded with a space", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n"),
    ("folded before any field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("tab before the colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"),
    ("space before TE's colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n"),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n"),
    ("control byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
    ("control byte in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x0b: a\r\n\r\n"),
    ("vertical tab before TE's value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("brackets in a name", "GET / HTTP/1.1\r\nHost: a\r\nX[]: a\r\n\r\n"),
    ("repeated equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    ("repeated different lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("list of equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na"),
    ("list of different lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,2\r\n\r\nab"),
    ("length with plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na"),
    ("length with minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na"),
    ("hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na"),
    ("length with letters", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1a\r\n\r\na"),
    ("length with a space", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na"),
    ("length with a point", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\na"),
    ("empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
    ("length beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\na"),
    ("length and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("TE and length zero", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
    ("TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("TE gzip", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("TE gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("TE chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "two TE fields",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "second TE identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    ("TE xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE quoted", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("TE with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("TE with a comma", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("TE empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n"),
    ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("no Host", "GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("two Hosts in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces before the target", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space at the end of the line", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("space at the start of the line", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("tab between", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("target beyond ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("method is not a token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("authority for GET", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("relative target", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("path for CONNECT", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("URL for CONNECT", "CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT with a length", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    ("CONNECT in chunks", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bare LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad chunk size", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n"),
    ("chunk without CRLF", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n"),
    ("chunk size with LF", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    ("TLS on the plain port", "\x16\x03\x01\x02\n\x01\r\n\r\n"),
];

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (handler, _) = local();
    with(handler, async |address| {
        for (name, bytes) in REFUSED {
            let smuggled = [bytes.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let answer = talk(address, &[&smuggled]).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count() - answer.matches("HTTP/1.1 are").count(), 1, "{name}: {answer}");
            assert!(answer.contains("connection: close"), "{name}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_smuggled_reaches_the_handler() {
    let (handler, seen) = local();
    with(handler, async |address| {
        for (_, bytes) in REFUSED {
            talk(address, &[bytes.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"]).await;
        }
    })
    .await;
    assert!(!seen.borrow().iter().any(|request| request.contains("smuggled")), "{:?}", seen.borrow());
}

#[tokio::test]
async fn a_request_is_the_same_wherever_it_is_cut() {
    let (handler, seen) = local();
    let bytes = b"\r\nPOST /echo?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n\
                  4\r\nwave\r\n1;x=\"y\"\r\ns\r\n0\r\nX-Sum: 5\r\n\r\n";
    with(handler, async |address| {
        for cut in 1..bytes.len() {
            let answer = talk(address, &[&bytes[..cut], &bytes[cut..]]).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "cut at {cut}: {answer}");
            assert!(answer.contains("x-sum: 5\r\n") && answer.ends_with("\r\n\r\nwaves"), "cut at {cut}: {answer}");
        }
    })
    .await;
    assert!(seen.borrow().iter().all(|request| request == "POST /echo?q"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (handler, seen) = local();
    let bytes = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
                 POST /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n";
    let answer = with(handler, async |address| talk(address, &[bytes.as_bytes()]).await).await;
    assert_eq!(*seen.borrow(), ["POST /1", "GET /2", "POST /3"]);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3);
    assert!(answer.find("one") < answer.find("three") && answer.contains("content-length: 0"), "{answer}");
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_read_and_not_before() {
    let (handler, _) = local();
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await.unwrap();
        assert_eq!(until(&mut socket, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        socket.write_all(b"hi").await.unwrap();
        assert!(until(&mut socket, "hi").await.starts_with("HTTP/1.1 200 OK"));

        let refused = "PUT /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        let answer = talk(address, &[refused.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_was_not_read_is_drained_or_costs_the_connection() {
    let (handler, seen) = local();
    with(handler, async |address| {
        let small = "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nsmallGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(talk(address, &[small.as_bytes()]).await.matches("200 OK").count(), 2);
        let large = [b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".as_slice(), &vec![b'x'; 300_000]].concat();
        assert_eq!(talk(address, &[&large, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n"]).await.matches("200 OK").count(), 1);
    })
    .await;
    assert_eq!(*seen.borrow(), ["POST /early", "GET /next", "POST /early"]);
}

#[tokio::test]
async fn bytes_after_connect_are_held_for_who_takes_over_and_never_parsed() {
    let (handler, seen) = local();
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nGET /held HTTP/1.1\r\n\r\n").await.unwrap();
        until(&mut socket, "\r\n\r\nGET /held HTTP/1.1\r\n\r\n").await;
        socket.write_all(b"more").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "more");

        let refused = "GET /refused HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = talk(address, &[refused.as_bytes()]).await;
        assert!(answer.contains("connection: close") && answer.matches("200 OK").count() == 1, "{answer}");
    })
    .await;
    assert!(!seen.borrow().iter().any(|request| request.contains("held")));
}

#[tokio::test]
async fn a_head_that_is_too_large_or_too_slow_is_refused() {
    let (handler, _) = local();
    with(handler, async |address| {
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
        assert!(talk(address, &[large.as_bytes()]).await.starts_with("HTTP/1.1 431 "));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert!(talk(address, &[many.as_bytes()]).await.starts_with("HTTP/1.1 431 "));
        assert!(talk(address, &[b"GET / HTTP/1.1\r\nHost:"]).await.starts_with("HTTP/1.1 408 "));
    })
    .await;
}

#[tokio::test]
async fn http_1_0_is_answered_in_its_own_way() {
    let (handler, _) = local();
    with(handler, async |address| {
        let answer = talk(address, &[b"GET / HTTP/1.0\r\n\r\n"]).await;
        assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("connection: close"), "{answer}");
        let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n";
        let answer = talk(address, &[kept.as_bytes()]).await;
        assert!(answer.matches("200 OK").count() == 2 && answer.contains("connection: keep-alive"), "{answer}");
    })
    .await;
}
