//! Peers that misbehave: that say what they must not, nothing at all, or half of it.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A TCP peer with a fixed behaviour. It serves until it is dropped.
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says `bytes` once it has heard a whole head, then closes.
pub async fn says(bytes: impl Into<Vec<u8>>) -> Peer {
    let bytes = bytes.into();
    serve(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            let mut heard = Vec::new();
            while !heard.windows(4).any(|window| window == b"\r\n\r\n") && stream.read_buf(&mut heard).await? > 0 {}
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
    })
    .await
}

/// Says `bytes` to whoever connects, and then listens: a server of another protocol.
pub async fn greets(bytes: impl Into<Vec<u8>>) -> Peer {
    let bytes = bytes.into();
    serve(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            stream.write_all(&bytes).await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
        }
    })
    .await
}

/// Accepts, and never says or closes anything.
pub async fn silent() -> Peer {
    serve(|stream| async move {
        let _kept = stream;
        std::future::pending().await
    })
    .await
}

/// Accepts and closes at once.
pub async fn hangs_up() -> Peer {
    serve(|stream| async move {
        drop(stream);
        Ok(())
    })
    .await
}

/// Says more to whoever connects than anybody reads; counts the connections on which it has to wait.
pub async fn floods(waiting: Arc<AtomicUsize>) -> Peer {
    serve(move |stream| {
        let waiting = Arc::clone(&waiting);
        async move {
            loop {
                stream.writable().await?;
                match stream.try_write(&[0; 64 * 1024]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        waiting.fetch_add(1, Ordering::Relaxed);
                        stream.writable().await?;
                        waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    written => drop(written?),
                }
            }
        }
    })
    .await
}

/// Says back every byte: a peer for tunnels.
pub async fn says_back() -> Peer {
    serve(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    })
    .await
}

/// A loopback address at which nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    listener.local_addr().expect("a bound socket has an address")
}

async fn serve<F>(behaviour: impl Fn(TcpStream) -> F + Send + 'static) -> Peer
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(behaviour(stream));
        }
    });
    Peer { address, task: task.abort_handle() }
}
