//! Attempts, destinations, times and limits, with upstreams that misbehave.

use super::*;
use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What an upstream does with one connection.
#[derive(Clone, Copy)]
enum Act {
    /// Reads a request and closes.
    Close,
    /// Reads a request and says nothing.
    Silence,
    /// Reads a request, writes this, and closes.
    Write(&'static str),
    /// Reads a request, writes this, and keeps the connection open.
    Hold(&'static str),
}

/// An upstream that does with its first connection what the first of `acts` says, and so on; the last one is repeated.
async fn acting(acts: &'static [Act]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let act = acts[counted.fetch_add(1, Ordering::SeqCst).min(acts.len() - 1)];
            tokio::spawn(async move {
                let mut heard = Vec::new();
                while !heard.windows(4).any(|window| window == b"\r\n\r\n") {
                    if !socket.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {
                        return;
                    }
                }
                if let Act::Write(text) | Act::Hold(text) = act {
                    socket.write_all(text.as_bytes()).await.unwrap();
                }
                if matches!(act, Act::Silence | Act::Hold(_)) {
                    let _until_it_goes = socket.read_to_end(&mut heard).await;
                }
            });
        }
    });
    (address, connections)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn routed(address: SocketAddr, route: Value) -> Value {
    let mut documents = registered(address);
    documents["routes"] = json!({"route": {"service": "api"}});
    documents["routes"]["route"].as_object_mut().unwrap().extend(route.as_object().unwrap().clone());
    documents
}

fn get(method: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} /v1/x HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n{length}\r\n{body}")
}

#[tokio::test]
async fn a_route_says_what_is_tried_again() {
    let all =
        json!({"retries": {"attempts": 2, "per_try_timeout": "100ms", "on": ["connect_failure", "reset", "gateway_error"]}});
    let none = json!({});
    type Row<'a> = (&'a str, &'static [Act], &'a Value, String, u16, usize);
    let rows: &[Row<'_>] = &[
        ("reset", &[Act::Close, Act::Write(OK)], &all, get("GET", ""), 200, 2),
        ("reset, no retries", &[Act::Close, Act::Write(OK)], &none, get("GET", ""), 502, 1),
        ("reset, taken body", &[Act::Close, Act::Write(OK)], &all, get("POST", "body"), 502, 1),
        ("reset, not idempotent", &[Act::Close, Act::Write(OK)], &all, get("POST", ""), 502, 1),
        ("unavailable", &[Act::Write(UNAVAILABLE), Act::Write(OK)], &all, get("GET", ""), 200, 2),
        ("unavailable, not idempotent", &[Act::Write(UNAVAILABLE), Act::Write(OK)], &all, get("POST", ""), 503, 1),
        ("unavailable for ever", &[Act::Write(UNAVAILABLE)], &all, get("GET", ""), 503, 3),
        ("silence", &[Act::Silence, Act::Write(OK)], &all, get("GET", ""), 200, 2),
        ("silence for ever", &[Act::Silence], &all, get("GET", ""), 504, 3),
        ("silence, taken body", &[Act::Silence, Act::Write(OK)], &all, get("POST", "body"), 504, 1),
    ];
    for (name, acts, route, request, status, connections) in rows {
        let (address, made) = acting(acts).await;
        let mut route = (*route).clone();
        if *name == "silence, taken body" {
            route["timeouts"] = json!({"first_byte": "100ms"});
        }
        stage(routed(address, route), async |mut stage| {
            let answer = stage.talk(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
            assert_eq!(made.load(Ordering::SeqCst), *connections, "{name}");
            assert_eq!(stage.worker.http.metrics.retries.value(), *connections as u64 - 1, "{name}");
            assert_eq!(stage.records(1).await[0]["status"], *status, "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn times_are_kept() {
    let rows: &[(&str, &'static [Act], Value, Option<u16>)] = &[
        ("first_byte", &[Act::Silence], json!({"first_byte": "100ms"}), Some(504)),
        ("total", &[Act::Silence], json!({"total": "100ms"}), Some(504)),
        (
            "total within the body",
            &[Act::Hold("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")],
            json!({"total": "100ms"}),
            None,
        ),
        ("idle", &[Act::Hold("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")], json!({"idle": "100ms"}), None),
    ];
    for (name, acts, timeouts, status) in rows {
        let (address, _) = acting(acts).await;
        stage(routed(address, json!({"timeouts": timeouts})), async |mut stage| {
            let answer = stage.talk(&get("GET", "")).await;
            match status {
                Some(status) => assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}"),
                // Cut off: the length that was promised did not come.
                None => assert!(answer.ends_with("\r\n\r\nhalf"), "{name}: {answer}"),
            }
            assert_eq!(stage.records(1).await[0]["reason"], "timeout", "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_body_that_does_not_go_on_is_its_callers_fault() {
    let (address, _) = acting(&[Act::Silence]).await;
    stage(routed(address, json!({"timeouts": {"idle": "100ms"}})), async |mut stage| {
        let answer =
            stage.talk("POST http://api.example/v1/x HTTP/1.1\r\nHost: api.example\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let record = stage.records(1).await.remove(0);
        assert_eq!((&record["reason"], &record["request_bytes"]), (&json!("downstream_timeout"), &json!(4)), "{record}");
    })
    .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_cut_off_and_recorded_as_such() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (address, _) = match response.contains("chunked") {
            true => acting(&[Act::Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")]).await,
            false => acting(&[Act::Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")]).await,
        };
        stage(registered(address), async |mut stage| {
            let answer = stage.talk(&get("GET", "")).await;
            assert!(answer.contains("half") && !answer.ends_with("0\r\n\r\n"), "{answer}");
            let record = stage.records(1).await.remove(0);
            assert_eq!((&record["reason"], &record["status"]), (&json!("upstream_protocol"), &json!(200)), "{record}");
        })
        .await;
    }
}

#[tokio::test]
async fn destinations_get_their_share() {
    let (one, of_one) = acting(&[Act::Write(OK)]).await;
    let (other, of_other) = acting(&[Act::Write(OK)]).await;
    let mut documents =
        routed(one, json!({"destinations": [{"service": "api", "weight": 1}, {"service": "new", "weight": 1}]}));
    documents["services"]["new"] = registered(other)["services"]["api"].clone();
    documents["services"]["new"]["hosts"] = json!(["new.example"]);
    stage(documents, async |stage| {
        for _ in 0..100 {
            assert!(stage.talk(&get("GET", "")).await.starts_with("HTTP/1.1 200"));
        }
        let shares = [of_one.load(Ordering::SeqCst), of_other.load(Ordering::SeqCst)];
        assert!(shares.iter().sum::<usize>() == 100 && shares.iter().all(|share| *share > 15), "{shares:?}");
    })
    .await;
}

#[tokio::test]
async fn only_so_many_exchanges_are_open_at_once() {
    let (address, made) = acting(&[Act::Silence]).await;
    stage(routed(address, json!({"limits": {"concurrent": 1}})), async |mut stage| {
        let mut first = TcpStream::connect(stage.gate).await.unwrap();
        first.write_all(get("GET", "").as_bytes()).await.unwrap();
        while made.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let answer = stage.talk(&get("GET", "")).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("overloaded"), "{answer}");
        assert_eq!(stage.worker.http.metrics.limited_concurrent.value(), 1);
        drop(first);
        let records = stage.records(2).await;
        assert_eq!(records[1]["reason"], "downstream_closed", "{}", records[1]);
        // Its place is free again.
        let mut next = TcpStream::connect(stage.gate).await.unwrap();
        next.write_all(get("GET", "").as_bytes()).await.unwrap();
        while made.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_injected_fault_is_one_answer_throughout() {
    let (address, made) = acting(&[Act::Write(OK)]).await;
    stage(routed(address, json!({"fault": {"abort": 429}})), async |mut stage| {
        let answer = stage.talk(&get("GET", "")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let problem: Value = serde_json::from_str(body).unwrap();
        let record = stage.records(1).await.remove(0);
        assert!(head.starts_with("HTTP/1.1 429 "), "{answer}");
        assert_eq!((&problem["status"], &problem["reason"]), (&json!(429), &json!("fault_injected")), "{problem}");
        assert_eq!(problem["instance"], format!("urn:tidegate:exchange:{}", record["id"].as_str().unwrap()));
        assert_eq!((&record["status"], &record["reason"]), (&json!(429), &json!("fault_injected")), "{record}");
        assert_eq!(made.load(Ordering::SeqCst), 0);
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_its_upstream_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    stage(registered(address), async |stage| {
        let written = Rc::new(Cell::new(0));
        let mut caller = TcpStream::connect(stage.gate).await.unwrap();
        caller.write_all(get("GET", "").as_bytes()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        upstream.read_buf(&mut Vec::new()).await.unwrap();
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
        let chunk = vec![b'x'; 64 * 1024];
        while tokio::time::timeout(Duration::from_millis(300), upstream.write_all(&chunk)).await.is_ok() {
            written.set(written.get() + chunk.len());
            assert!(written.get() < 64 << 20, "nothing holds the upstream back");
        }
        // What is held is the kernel's buffers of two connections and little more.
        let mut head = vec![0; 12];
        caller.read_exact(&mut head).await.unwrap();
        assert_eq!(head, b"HTTP/1.1 200");
    })
    .await;
}
