//! One TLS handshake, as the client.

use super::{
    Profile,
    explain::{self, CERTIFICATE_DEMANDED},
    profile::{server_name, take_asked},
};
use crate::{fault::Fault, upstream::settings::Metrics};
use rustls::{HandshakeKind, ProtocolVersion, client::verify_server_name, pki_types::ServerName, server::ParsedCertificate};
use std::{future::poll_fn, io, pin::pin, sync::Arc, time::Duration};
use tidegate_policy::{Host, Permit, Reason};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A connection whose server has been verified.
pub(in crate::upstream) struct Handshaken {
    pub(in crate::upstream) stream: Box<TlsStream<TcpStream>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(in crate::upstream) version: Option<&'static str>,
    /// The name that was verified.
    pub(in crate::upstream) peer: Arc<str>,
    /// Whether HTTP/2 was agreed.
    pub(in crate::upstream) h2: bool,
    /// Whether the server asked for a client certificate and got none; it may yet refuse.
    pub(in crate::upstream) certificate_wanting: bool,
}

/// Which protocols are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::upstream) enum Offer {
    /// What the profile says.
    All,
    /// HTTP/1.1 alone: the request is an upgrade.
    Http1,
}

/// Originates TLS over `tcp` to `host`. The permit is not read: who has none cannot call.
pub(in crate::upstream) async fn originate(
    _permit: &Permit,
    profile: &Profile,
    host: &Host,
    offer: Offer,
    tcp: TcpStream,
    limit: Duration,
    metrics: &Metrics,
) -> Result<Handshaken, Fault> {
    let fail = |reason, detail: String| {
        metrics.handshakes_failed.add(1);
        Fault::new(reason, detail).before_send()
    };
    let sent = match &profile.sni {
        Some(sni) => sni.clone(),
        None => server_name(host).map_err(|why| fail(Reason::TlsFailed, why))?,
    };
    let config = match (offer, &profile.http1) {
        (Offer::All, _) => &profile.config,
        (Offer::Http1, Some(http1)) => http1,
        (Offer::Http1, None) => {
            return Err(fail(
                Reason::TlsFailed,
                "an upgrade needs HTTP/1.1, which the service's `tls.alpn` leaves out".to_owned(),
            ));
        }
    };
    let mut asked = false;
    let outcome = {
        let mut connect = pin!(TlsConnector::from(Arc::clone(config)).connect(sent.clone(), tcp));
        // Many handshakes take turns on this thread: what was asked during one poll was asked of this one.
        let noting = poll_fn(|cx| {
            take_asked();
            let polled = connect.as_mut().poll(cx);
            asked |= take_asked();
            polled
        });
        tokio::time::timeout(limit, noting).await
    };
    let stream = match outcome {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(fail(Reason::TlsFailed, why(&error, profile, asked))),
        Err(_elapsed) => {
            return Err(fail(
                Reason::Timeout,
                format!("the TLS handshake with {host} did not finish within {} ms", limit.as_millis()),
            ));
        }
    };
    let (_, session) = stream.get_ref();
    let counter = match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => &metrics.handshakes_resumed,
        _ => &metrics.handshakes_full,
    };
    counter.add(1);
    let version = session.protocol_version().and_then(|version| match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    });
    let h2 = session.alpn_protocol() == Some(b"h2");
    let peer = verified(profile, &sent, session.peer_certificates().and_then(|chain| chain.first()));
    Ok(Handshaken { version, peer, h2, certificate_wanting: asked, stream: Box::new(stream) })
}

fn why(error: &io::Error, profile: &Profile, asked: bool) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) if asked => CERTIFICATE_DEMANDED.to_owned(),
        Some(tls) => explain::sentence(tls, &profile.names),
        None if asked => CERTIFICATE_DEMANDED.to_owned(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the upstream closed the connection during the TLS handshake: check that it speaks TLS on this port".to_owned()
        }
        None => format!("the connection broke during the TLS handshake: {error}"),
    }
}

/// Which of the names that were to be verified the certificate holds.
fn verified(profile: &Profile, sent: &ServerName<'_>, certificate: Option<&rustls::pki_types::CertificateDer<'_>>) -> Arc<str> {
    let parsed = || certificate.and_then(|certificate| ParsedCertificate::try_from(certificate).ok());
    let name = match &*profile.names {
        [] => sent,
        [only] => only,
        [first, ..] => parsed()
            .and_then(|parsed| profile.names.iter().find(|name| verify_server_name(&parsed, name).is_ok()))
            .unwrap_or(first),
    };
    Arc::from(name.to_str())
}
