"""New TLS connections: of callers, over mutual TLS, and to an upstream that closes after every answer.

Every handshake is a whole one, TLS 1.3 with P-256 on both sides; nothing is resumed. The callers' side is driven one connection after
the other, so its figure is the CPU per new connection and its first request; how many there were in a second says more of the caller.
"""

import socket, ssl, time

from rig import load, report
from rig.gateway import FRESH
from rig.upstream import HOST

COLUMNS = [("cpu_us", "CPU µs per new connection", 0), ("user_us", "of it user", 0), ("kernel_us", "of it kernel", 0),
           ("per_second", "connections/s", 0), ("per_core", "a core's worth, connections/s", 0)]


def handshakes(stage):
    """Both sides, a table each."""
    gateway = stage.gateway()
    mutual = gateway.target()
    mutual.port = gateway.mutual
    callers = measured(stage, [mutual, *stage.peers("mutual")], lambda target: connect_anew(stage, target))
    stage.clear()
    fresh = [stage.gateway().target(host=FRESH), *stage.peers("fresh")]
    upstreams = measured(stage, fresh, lambda target: load.wrk(stage.rig, target, stage.seconds, stage.connections))
    drawn = "cpu_us", ("user_us", "kernel_us")
    return [report.Table("handshakes of callers", "a new mutual TLS connection and its first request", COLUMNS, callers, *drawn),
            report.Table("handshakes with upstreams", "a new TLS connection to the upstream for each request", COLUMNS, upstreams, *drawn)]


def measured(stage, targets, run):
    def once(target):
        row = load.spent(target, stage.seconds, lambda: run(target))
        return row | {"per_core": 1e6 / row["cpu_us"]}
    return load.rounds(stage.rounds, targets, once)


def connect_anew(stage, target):
    """Connections with one request each, until the time is up; answers how many."""
    context = ssl.create_default_context(cafile=stage.rig.work / "ca.pem")
    context.load_cert_chain(stage.rig.work / "caller.pem", stage.rig.work / "caller.key")
    request = f"GET http://{target.host}/ HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n".encode()
    count, end = 0, time.monotonic() + stage.seconds
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", target.port), 10) as plain:
            # The request follows the handshake's last flight: it must not wait until that was acknowledged.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(plain, server_hostname=HOST) as stream:
                stream.sendall(request)
                answer = b""
                while piece := stream.recv(65536):
                    answer += piece
        if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"x" * 64):
            raise SystemExit(f"{target.name} answered {answer[:300]!r}")
        count += 1
    return count
