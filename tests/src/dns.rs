//! A name server of the test's own: UDP and TCP on one loopback port, with a zone that can be changed at any time.

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// A name server. It answers until it is dropped.
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    tasks: Vec<tokio::task::AbortHandle>,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Entry>,
    asked: Vec<String>,
}

/// What is answered for a name; what has no entry does not exist.
#[derive(Debug, Clone)]
pub enum Entry {
    /// These addresses, each kept for `ttl_s` seconds.
    Addresses {
        /// IPv4 ones are answered to A, IPv6 ones to AAAA.
        addresses: Vec<IpAddr>,
        /// Time to live, in seconds.
        ttl_s: u32,
    },
    /// SERVFAIL.
    Broken,
    /// Nothing at all: the query is dropped.
    Silent,
}

impl NameServer {
    /// Starts with an empty zone.
    pub async fn start() -> Self {
        // The two protocols share a port; the one that TCP picked may be taken for UDP, then another is tried.
        let (tcp, udp) = crate::wait::until("a port that is free for TCP and UDP", async || {
            let tcp = TcpListener::bind("127.0.0.1:0").await.ok()?;
            let udp = UdpSocket::bind(tcp.local_addr().ok()?).await.ok()?;
            Some((tcp, udp))
        })
        .await;
        let address = udp.local_addr().expect("a bound socket has an address");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let over_udp = tokio::spawn(serve_udp(udp, Arc::clone(&zone)));
        let over_tcp = tokio::spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Self { address, zone, tasks: vec![over_udp.abort_handle(), over_tcp.abort_handle()] }
    }

    /// Answers `addresses` for `name`, to be kept for a minute.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        self.set_for(name, 60, addresses);
    }

    /// Answers `addresses` for `name`, to be kept for `ttl_s` seconds.
    pub fn set_for(&self, name: &str, ttl_s: u32, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an IP address")).collect();
        self.put(name, Entry::Addresses { addresses, ttl_s });
    }

    /// Answers for `name` as `entry` says.
    pub fn put(&self, name: &str, entry: Entry) {
        self.zone.lock().expect("nobody panics within").names.insert(name.to_owned(), entry);
    }

    /// How often `name` was asked for, A and AAAA counted apart.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().expect("nobody panics within").asked.iter().filter(|asked| *asked == name).count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut query = [0; 4096];
    while let Ok((count, from)) = socket.recv_from(&mut query).await {
        if let Some(answer) = answer(&query[..count], &zone) {
            let _: std::io::Result<usize> = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, Arc::clone(&zone)));
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) -> std::io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = answer(&query, &zone) {
            stream.write_u16(u16::try_from(answer.len()).expect("answers are short")).await?;
            stream.write_all(&answer).await?;
        }
    }
}

fn answer(query: &[u8], zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let entry = {
        let mut zone = zone.lock().expect("nobody panics within");
        zone.asked.push(name.clone());
        zone.names.get(&name).cloned()
    };
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.add_query(question.clone());
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    match entry {
        Some(Entry::Silent) => return None,
        Some(Entry::Broken) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Entry::Addresses { addresses, ttl_s }) => {
            let data = addresses.into_iter().filter_map(|address| match (address, question.query_type()) {
                (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(address))),
                (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(address))),
                _ => None,
            });
            answer.add_answers(data.map(|data| Record::from_rdata(question.name().clone(), ttl_s, data)));
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    if answer.answers.is_empty() {
        // Resolvers keep a negative answer as long as this record says (RFC 2308).
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 60, 60, 60, 60);
        answer.add_authority(Record::from_rdata(root, 60, RData::SOA(soa)));
    }
    answer.to_vec().ok()
}
