"""HTTP/2 downstream, many streams on each connection: `h2` to an HTTP/1.1 upstream, and `grpc`, unary calls with HTTP/2 on both sides."""

import subprocess

from rig import load, peers, report
from rig.gateway import GRPC
from rig.upstream import GRPC_PATH

CONNECTIONS, STREAMS = 4, 100
CALL = ["-d", "grpc-call", "-H", "content-type: application/grpc", "-H", "te: trailers"]


def h2(stage):
    """By prior knowledge, 100 streams a connection."""
    rows = measured(stage, lambda: [stage.gateway().target(), *stage.peers("h2")])
    return [report.per_request("h2", f"HTTP/2 in the clear, {CONNECTIONS} connections of {STREAMS} streams, to HTTP/1.1", rows)]


def grpc(stage):
    """The same with a message of 64 bytes each way, and the status in trailers."""
    if stage.upstream.grpc is None:
        peers.skipped("grpc needs nghttpd (Debian: nghttp2-server)")
        return []
    def start():
        targets = [stage.gateway().target(host=GRPC), *stage.peers("grpc")]
        for target in targets:
            check(stage, target)
        return targets
    rows = measured(stage, start, *CALL, path=GRPC_PATH)
    return [report.per_request("grpc", f"unary gRPC, HTTP/2 on both sides, {CONNECTIONS} connections of {STREAMS} streams", rows)]


def check(stage, target):
    """Refuses to measure a proxy that loses the trailers: it would be doing less."""
    command = ["nghttp", "-nv", *CALL, "-H", f":authority: {target.host}", f"http://127.0.0.1:{target.port}{GRPC_PATH}"]
    seen = subprocess.run(command, capture_output=True, cwd=stage.rig.work, timeout=20).stdout.decode(errors="replace")
    if "grpc-status: 0" not in seen:
        raise SystemExit(f"{target.name} did not hand over the trailers of a gRPC call:\n{seen}")


def measured(stage, start, *more, path="/"):
    def once(target):
        run = lambda seconds: load.h2load(stage.rig, target, seconds, CONNECTIONS, *more, streams=STREAMS, path=path)
        run(load.WARM_UP_S)
        return load.spent(target, stage.seconds, lambda: run(stage.seconds))
    return load.rounds_anew(stage.rounds, start, once, stage.clear)
