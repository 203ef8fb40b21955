//! `tidegate healthcheck`: asks the gateway on this machine whether it is ready, for images that have no curl.

use super::{addresses::Addresses, complain, say};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};
use tidegate_gateway::settings::Settings;

/// How long each step may take; container runtimes give a check 30 s unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn check(settings: &Settings) -> ExitCode {
    let address = match settings.metrics_listen.port() {
        0 => match Addresses::read(&settings.data_dir) {
            Some(addresses) => reachable(addresses.metrics),
            None => return complain(&format!("no gateway has written its addresses to {}", settings.data_dir.display())),
        },
        _ => reachable(settings.metrics_listen),
    };
    match ask(address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => say("ready"),
        Ok(answer) => complain(&format!("not ready: {}", answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim())),
        Err(error) => complain(&format!("the gateway does not answer on {address}: {error}")),
    }
}

/// Where a listener on `address` is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
