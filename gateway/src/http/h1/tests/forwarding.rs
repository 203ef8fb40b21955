//! Both codecs in a row: a caller on one side, an upstream that plays a script on the other.

use super::*;

/// An upstream that accepts connections one after the other and for each plays its script: reads until the text has
/// come, then writes the bytes; it closes at the script's end.
async fn upstream(scripts: Vec<Vec<(&'static str, Vec<u8>)>>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let playing = tokio::spawn(async move {
        let mut heard = Vec::new();
        for script in scripts {
            let (mut socket, _) = listener.accept().await.unwrap();
            for (wanted, bytes) in script {
                heard.push(until(&mut socket, wanted).await);
                socket.write_all(&bytes).await.unwrap();
            }
        }
        heard
    });
    (address, playing)
}

/// Sends one request through both codecs to an upstream that answers with `response` and closes.
async fn through(request: &str, response: &[u8]) -> (String, Vec<String>) {
    let (address, playing) = upstream(vec![vec![("\r\n\r\n", response.to_vec())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    let answer = with(handler, async |address| talk(address, &[request.as_bytes()]).await).await;
    (answer, playing.await.unwrap())
}

const GET: &str = "GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn responses_are_framed_as_strictly_as_requests() {
    let rows: &[(&str, &str)] = &[
        ("length and TE", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na"),
        ("bad length", "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na"),
        ("TE gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("TE in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\na"),
        ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\na"),
        ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na"),
        ("NUL", "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 1\r\n\r\na"),
        ("not HTTP", "ICY 200 OK\r\n\r\n"),
        ("HTTP/2", "HTTP/2 200 OK\r\n\r\n"),
        ("bad status", "HTTP/1.1 2x0 OK\r\n\r\n"),
        ("switched unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("nothing", ""),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-"),
    ];
    for (name, response) in rows {
        let (answer, _) = through(GET, response.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{name}: {answer}");
    }
}

#[tokio::test]
async fn every_framing_of_a_response_arrives_whole() {
    let rows: &[(&str, &str, &str)] = &[
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "\r\n\r\nhello"),
        ("equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "\r\n\r\nhello"),
        ("until closed", "HTTP/1.1 200 OK\r\n\r\nhello", "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("1.0 until closed", "HTTP/1.0 200 OK\r\n\r\nhello", "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n",
            "\r\n\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content\r\nconnection: close\r\n\r\n"),
        ("304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "content-length: 5\r\nconnection: close\r\n\r\n"),
        ("103 first", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz", "\r\n\r\nz"),
    ];
    for (name, response, wanted) in rows {
        let (answer, heard) = through(GET, response.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 ") && answer.ends_with(wanted), "{name}: {answer}");
        assert!(heard[0].starts_with("GET /x?y HTTP/1.1\r\nhost: a\r\n"), "{name}: {}", heard[0]);
    }
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let request = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, _) = through(request, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_passed_off_as_whole() {
    let (answer, _) = through(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("\r\n0\r\n"), "{answer}");
    let (answer, _) = through(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await;
    assert!(answer.ends_with("hel"), "{answer}");
}

#[tokio::test]
async fn a_connection_is_used_again_unless_something_is_left_on_it() {
    let answer = || b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let stray = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSTRAY".to_vec();
    let end = "\r\n\r\n";
    // The first connection serves two requests and then leaves stray bytes behind, so the third goes over another.
    let (address, playing) = upstream(vec![vec![(end, answer()), (end, stray)], vec![(end, answer())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(until(&mut socket, "\r\n\r\nok").await.ends_with("ok"));
        }
    })
    .await;
    assert_eq!(playing.await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_response_may_begin_before_the_request_has_ended() {
    let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec();
    let (address, playing) = upstream(vec![vec![("one", first), ("two", b"6\r\nsecond\r\n0\r\n\r\n".to_vec())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
        until(&mut socket, "first").await;
        socket.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
        until(&mut socket, "second\r\n0\r\n\r\n").await;
    })
    .await;
    assert!(playing.await.unwrap()[1].contains("two"));
}

#[tokio::test]
async fn an_expectation_is_passed_on_and_its_answer_too() {
    let script = vec![
        ("\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        ("body", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
    ];
    let (address, playing) = upstream(vec![script]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await.unwrap();
        until(&mut socket, "HTTP/1.1 100 Continue\r\n\r\n").await;
        socket.write_all(b"body").await.unwrap();
        until(&mut socket, "\r\n\r\nok").await;
    })
    .await;
    assert!(playing.await.unwrap()[0].contains("expect: 100-continue"));
}

#[tokio::test]
async fn an_upgrade_joins_both_sides() {
    let script = vec![
        ("\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhello".to_vec()),
        ("ping", b"pong".to_vec()),
    ];
    let (address, playing) = upstream(vec![script]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n").await.unwrap();
        assert!(until(&mut socket, "\r\n\r\nhello").await.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        socket.write_all(b"ping").await.unwrap();
        until(&mut socket, "pong").await;
    })
    .await;
    assert_eq!(playing.await.unwrap()[1], "ping");
}

#[tokio::test]
async fn a_large_body_goes_through_both_ways() {
    let size = 5_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = until(&mut socket, "\r\n\r\n").await;
        let mut body = head.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
        body.reserve(size);
        while body.len() < size {
            socket.read_buf(&mut body).await.unwrap();
        }
        socket.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
    });
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut request =
            format!("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        request.extend((0..size).map(|index| b'a' + (index % 23) as u8));
        let answer = talk(address, &[&request]).await;
        let sent = &request[request.len() - size..];
        assert!(answer.split_once("\r\n\r\n").unwrap().1.as_bytes() == sent);
    })
    .await;
}

#[tokio::test]
async fn a_downstream_that_leaves_ends_its_exchange() {
    let (address, playing) = upstream(vec![vec![("\r\n\r\n", Vec::new()), ("\0never", Vec::new())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        drop(socket);
        // The upstream's script ends in a panic when its connection ends, which it does only if the exchange did.
        assert!(playing.await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_fault_before_anything_was_sent_leaves_the_request_whole() {
    let (address, playing) = upstream(vec![vec![("\r\n\r\n", Vec::new())]]).await;
    let exchanger = Exchanger::new(Stream::Plain(TcpStream::connect(address).await.unwrap()), Limits::default());
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert("host", "a".parse().unwrap());
    let fault = exchanger.send(&mut request, Rc::new(Idle::default())).await.unwrap_err();
    assert!(fault.retryable() && fault.reason() == Reason::UpstreamProtocol, "{fault}");
    playing.await.unwrap();
    let (address, _playing) = upstream(vec![vec![("\r\n\r\n", Vec::new())]]).await;
    *request.method_mut() = Method::POST;
    let exchanger = Exchanger::new(Stream::Plain(TcpStream::connect(address).await.unwrap()), Limits::default());
    assert!(!exchanger.send(&mut request, Rc::new(Idle::default())).await.unwrap_err().retryable());
}

#[tokio::test]
async fn a_response_can_be_made_of_the_request_under_way() {
    let (handler, _) = local();
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"POST /mirror HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
        until(&mut socket, "one").await;
        socket.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
        until(&mut socket, "two\r\n0\r\n\r\n").await;
        socket.write_all(b"GET /mirror HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 OK"), "{rest}");
    })
    .await;
}
