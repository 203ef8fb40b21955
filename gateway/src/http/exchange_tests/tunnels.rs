//! What comes through CONNECT, by either version of HTTP.

use super::*;
use crate::tunnel::{Buffers, Pipes, Spares};

#[tokio::test]
async fn requests_within_a_tunnel_are_decided_one_by_one() {
    let address = api(ECHO_HEAD).await;
    let rows = [
        ("GET /v1/a HTTP/1.1\r\nHost: api.example\r\n", 200, "allowed_by_rule"),
        ("GET /v1/a HTTP/1.1\r\nHost: API.example:80\r\n", 200, "allowed_by_rule"),
        ("GET /v2/a HTTP/1.1\r\nHost: api.example\r\n", 403, "no_rule_allows"),
        ("GET /v1/a HTTP/1.1\r\nHost: other.example\r\n", 421, "authority_mismatch"),
        ("GET /v1/a HTTP/1.1\r\nHost: api.example:443\r\n", 421, "authority_mismatch"),
        ("GET http://other.example/v1/a HTTP/1.1\r\nHost: other.example\r\n", 421, "authority_mismatch"),
        ("GET https://api.example/v1/a HTTP/1.1\r\nHost: api.example\r\n", 421, "authority_mismatch"),
        ("CONNECT api.example:80 HTTP/1.1\r\nHost: api.example:80\r\n", 400, "malformed_target"),
    ];
    stage(registered(address), async |mut stage| {
        for (request, status, reason) in rows {
            let connect = "CONNECT api.example:80 HTTP/1.1\r\nHost: api.example:80\r\n\r\n";
            let first = "GET /v1/first HTTP/1.1\r\nHost: api.example\r\n\r\n";
            let answer = stage.talk(&format!("{connect}{first}{request}Connection: close\r\n\r\n")).await;
            let answers: Vec<_> =
                answer.match_indices("HTTP/1.1 ").filter(|(at, _)| *at == 0 || !answer[..*at].ends_with(' ')).collect();
            assert!(answers.len() >= 3 && answer.contains("GET /v1/first"), "{request}: {answer}");
            assert!(answer.contains(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            // The tunnel's own record is written when it ends, after those of its requests.
            let records = stage.records(3).await;
            assert_eq!((&records[1]["reason"], &records[1]["status"]), (&json!(reason), &json!(status)), "{request}");
            assert_eq!((&records[2]["method"], &records[2]["status"]), (&json!("CONNECT"), &json!(200)), "{request}");
        }
        assert_eq!((stage.worker.http.metrics.tunnels.value(), stage.worker.http.metrics.tunnels_open.value()), (8, 0));
        let smuggled = "CONNECT api.example:80 HTTP/1.1\r\nHost: api.example:80\r\n\r\n\x16\x03\x01\x00\x05hello\r\n\r\n";
        let answer = stage.talk(smuggled).await;
        assert!(answer.contains("HTTP/1.1 400 ") && answer.contains("bad_framing"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_breaks_off_says_whose_end_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    stage(registered(address), async |mut stage| {
        for (breaks, reason) in [("upstream", "upstream_protocol"), ("caller", "downstream_closed")] {
            let mut caller = TcpStream::connect(stage.gate).await.unwrap();
            caller.write_all(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\nping").await.unwrap();
            let (mut upstream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 4];
            upstream.read_exact(&mut heard).await.unwrap();
            // Closed at once with what is on its way: a reset.
            let (broken, _kept) = if breaks == "upstream" { (upstream, caller) } else { (caller, upstream) };
            broken.set_zero_linger().unwrap();
            drop(broken);
            let record = stage.records(1).await.remove(0);
            assert_eq!((&record["reason"], &record["request_bytes"]), (&json!(reason), &json!(4)), "{record}");
        }
    })
    .await;
}

/// Sends bytes through a tunnel to an API that gives them back.
async fn there_and_back(pipes: usize) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = socket.into_split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let limited = |worker: &mut Worker| {
        let pipes = Pipes::new(pipes, Arc::clone(&worker.http.metrics));
        worker.http.spares = Rc::new(Spares { buffers: Buffers::default(), pipes });
    };
    let mut spliced = 0;
    stage_with(registered(address), limited, async |mut stage| {
        let mut caller = TcpStream::connect(stage.gate).await.unwrap();
        caller.write_all(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n").await.unwrap();
        let mut head = vec![0; 19];
        caller.read_exact(&mut head).await.unwrap();
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let (mut read, mut write) = caller.split();
        let mut got = Vec::new();
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(writing, async { read.read_to_end(&mut got).await.unwrap() });
        assert!(got.ends_with(&sent[..]), "{} of {} bytes came back", got.len(), sent.len());
        let record = stage.records(1).await.remove(0);
        assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&json!(sent.len()), &json!(sent.len())), "{record}");
        spliced = stage.worker.http.metrics.tunnel_bytes_spliced.value();
    })
    .await;
    spliced
}

#[tokio::test]
async fn a_tunnel_carries_much_both_ways() {
    assert!(there_and_back(2).await > 5_000_000, "all but the first of six million bytes stay in the kernel");
}

#[tokio::test]
async fn a_tunnel_carries_as_much_where_pipes_are_scarce() {
    assert!(there_and_back(1).await < 6_000_000, "one direction at a time has the only one");
    assert_eq!(there_and_back(0).await, 0);
}

#[tokio::test]
async fn requests_by_http_2_within_a_tunnel_are_decided_one_by_one() {
    let address = api(ECHO_HEAD).await;
    let rows = [
        ("/v1/a", "api.example", 200, "allowed_by_rule"),
        ("/v2/a", "api.example", 403, "no_rule_allows"),
        ("/v1/a", "other.example", 421, "authority_mismatch"),
    ];
    for protocol in ["http", "http2", "grpc"] {
        let mut documents = registered(address);
        documents["services"]["api"]["ports"][0]["protocol"] = json!(protocol);
        documents["services"]["api"]["tls"] = json!({"mode": "disabled"});
        stage(documents, async |mut stage| {
            let mut socket = TcpStream::connect(stage.gate).await.unwrap();
            socket.write_all(b"CONNECT api.example:80 HTTP/1.1\r\nHost: api.example:80\r\n\r\n").await.unwrap();
            let mut head = [0; 19];
            socket.read_exact(&mut head).await.unwrap();
            assert!(head.starts_with(b"HTTP/1.1 200 OK"), "{protocol}");
            let shaken = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(socket));
            let (mut sender, connection) = shaken.await.unwrap();
            tokio::task::spawn_local(connection);
            for (path, host, status, reason) in rows {
                if status == 200 && protocol != "http" {
                    continue; // The upstream of this test speaks HTTP/1.1 alone.
                }
                let request =
                    ::http::Request::builder().uri(format!("http://{host}{path}")).body(Empty::<Bytes>::new()).unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), status, "{protocol} {host}{path}");
                drop(response.into_body().collect().await.unwrap());
                let record = stage.records(1).await.remove(0);
                assert_eq!((&record["reason"], &record["method"]), (&json!(reason), &json!("GET")), "{protocol}: {record}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_tunnel_cannot_hide_its_server_name_behind_another_tls_record() {
    let address = api(ECHO_HEAD).await;
    stage(registered(address), async |mut stage| {
        for first in [b"\x14\x03\x01\x00\x01\x01".as_slice(), b"\x15\x03\x01\x00\x02\x01\x00", b"\x17\x03\x03\x00\x01x"] {
            let connect = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n";
            let mut socket = TcpStream::connect(stage.gate).await.unwrap();
            socket.write_all(&[connect.as_slice(), first, b"\x16\x03\x01\x00\x05hello"].concat()).await.unwrap();
            socket.shutdown().await.unwrap();
            let _reset_or_end = socket.read_to_end(&mut Vec::new()).await;
            let record = stage.records(1).await.remove(0);
            assert_eq!((&record["reason"], &record["request_bytes"]), (&json!("authority_mismatch"), &json!(0)), "{record}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_does_not_keep_the_policy_that_let_it_through() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    stage(registered(address), async |stage| {
        let holders = || Arc::strong_count(&stage.worker.live.load().snapshot);
        let mut tunnels = Vec::new();
        let mut counted = Vec::new();
        for _ in 0..3 {
            let mut caller = TcpStream::connect(stage.gate).await.unwrap();
            caller.write_all(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\nping").await.unwrap();
            let (mut upstream, _) = listener.accept().await.unwrap();
            upstream.read_exact(&mut [0; 4]).await.unwrap();
            tunnels.push((caller, upstream));
            counted.push(holders());
        }
        assert!(counted.iter().all(|count| *count == counted[0]), "each open tunnel adds a holder: {counted:?}");
    })
    .await;
}

#[tokio::test]
async fn urgent_data_stops_no_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    stage(registered(address), async |mut stage| {
        for end in [false, true] {
            let mut caller = TcpStream::connect(stage.gate).await.unwrap();
            caller.write_all(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n").await.unwrap();
            let (mut upstream, _) = listener.accept().await.unwrap();
            caller.read_exact(&mut [0; 19]).await.unwrap();
            let mut heard = [0; 3];
            for part in [b"abc", b"def"] {
                caller.write_all(part).await.unwrap();
                upstream.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, part);
            }
            assert_eq!(socket2::SockRef::from(&caller).send_out_of_band(b"!").unwrap(), 1);
            caller.write_all(b"ghi").await.unwrap();
            if end {
                caller.shutdown().await.unwrap();
            }
            upstream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"ghi", "what is behind it goes on");
            drop((caller, upstream));
            let record = stage.records(1).await.remove(0);
            assert_eq!(record["request_bytes"], json!(9), "{record}");
        }
    })
    .await;
}
