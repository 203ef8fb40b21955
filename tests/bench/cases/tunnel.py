"""Bulk bytes through a tunnel: CPU seconds per GiB.

The gateway and Envoy end CONNECT; nginx and HAProxy, and Envoy once more, forward the bytes of a TCP port to the upstream without being
asked. What comes out is thrown away in the kernel (MSG_TRUNC), so that the caller costs little.
"""

import dataclasses, socket

from rig import load, report
from rig.upstream import BULK_MIB, HOST

# A read that gets nothing for this long has failed.
SILENCE_S = 30
PIECE = 1 << 20


def tunnel(stage):
    """Downwards, one tunnel at a time."""
    targets = [stage.gateway().target(by_connect=True)]
    targets += [dataclasses.replace(target, name=f"{target.name}, CONNECT") for target in stage.peers("connect")]
    targets += [dataclasses.replace(target, name=f"{target.name}, TCP") for target in stage.peers("tunnel")]
    files = max(1, round(stage.gib * 1024 / BULK_MIB))
    gib = files * BULK_MIB / 1024

    def once(target):
        spent = load.spent(target, 1, lambda: fetch(target, files) or gib * 1e6)
        return {"cpu_s": spent["cpu_us"], "user_s": spent["user_us"], "kernel_s": spent["kernel_us"], "resident_mib": spent["resident_mib"]}
    rows = load.rounds(stage.rounds, targets, once)
    columns = [("cpu_s", "CPU s per GiB", 3), ("user_s", "of it user", 3), ("kernel_s", "of it kernel", 3), ("resident_mib", "resident MiB", 0)]
    title = f"a tunnel, {gib:g} GiB downwards, CPU per GiB"
    return [report.Table("tunnel", title, columns, rows, "cpu_s", ("user_s", "kernel_s"))]


def opened(target):
    """A stream to the upstream's port through `target`."""
    stream = socket.create_connection(("127.0.0.1", target.port), SILENCE_S)
    if target.by_connect:
        stream.sendall(f"CONNECT {HOST}:9000 HTTP/1.1\r\nHost: {HOST}:9000\r\n\r\n".encode())
        head, rest = read_head(stream)
        if b" 200" not in head.split(b"\r\n")[0] or rest:
            raise SystemExit(f"{target.name} did not open a tunnel: {head.decode(errors='replace')}")
    return stream


def read_head(stream):
    """A response's head, and what came with it of what follows."""
    read = b""
    while b"\r\n\r\n" not in read:
        piece = stream.recv(65536)
        if not piece:
            raise SystemExit(f"a connection was closed in the middle of a head: {read!r}")
        read += piece
    head, rest = read.split(b"\r\n\r\n", 1)
    return head, rest


def fetch(target, files):
    """Reads the bulk file so many times through one tunnel, to its last byte each time."""
    with opened(target) as stream:
        place = bytearray(PIECE)
        for _ in range(files):
            stream.sendall(f"GET /bulk HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            head, rest = read_head(stream)
            if b" 200" not in head.split(b"\r\n")[0]:
                raise SystemExit(f"the bulk file was refused: {head.decode(errors='replace')}")
            left = (BULK_MIB << 20) - len(rest)
            while left > 0:
                got = stream.recv_into(place, min(left, PIECE), socket.MSG_TRUNC)
                if got == 0:
                    raise SystemExit(f"{target.name} closed a tunnel {left} bytes before the file's end")
                left -= got
