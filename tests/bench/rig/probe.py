"""An open-loop sender: requests leave when they are due, whether or not those before them are answered.

Latency is counted from the moment a request was due, so that a pause meets every request that came during it and not only one
(otherwise known as coordinated omission). The gaps are drawn from an exponential distribution, from the same seed every time.
"""

import collections, ctypes, random, select, socket, time

CONNECTIONS = 32
# How long answers are waited for after the last request.
PATIENCE_S = 10
PR_SET_TIMERSLACK = 29
ANSWER_BYTES = 64


def probe(target, seconds, rate):
    """Latencies in microseconds, of every request."""
    # The kernel lets timers of a process be late by 50 µs unless told otherwise, which is as long as an answer takes.
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    streams = [socket.create_connection(("127.0.0.1", target.port), PATIENCE_S) for _ in range(CONNECTIONS)]
    try:
        for stream in streams:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return exchange(target, streams, seconds, rate)
    finally:
        for stream in streams:
            stream.close()


def exchange(target, streams, seconds, rate):
    request = f"GET / HTTP/1.1\r\nHost: {target.host}\r\nx-team: payments\r\n\r\n".encode()
    gaps, free, waiting, sent, read, latencies = random.Random(1), list(streams), collections.deque(), {}, {}, []
    now = time.perf_counter()
    due, end = now, now + seconds
    while due < end or waiting or sent:
        if now > end + PATIENCE_S:
            raise SystemExit(f"{target.name} left {len(sent)} requests without an answer")
        while due <= now and due < end:
            waiting.append(due)
            due += gaps.expovariate(rate)
        while waiting and free:
            stream = free.pop()
            sent[stream], read[stream] = waiting.popleft(), b""
            stream.sendall(request)
        ready, _, _ = select.select(list(sent), [], [], max(0, min(due, now + 1) - time.perf_counter()))
        for stream in ready:
            read[stream] += stream.recv(65536)
            if whole(target, read[stream]):
                latencies.append((time.perf_counter() - sent.pop(stream)) * 1e6)
                free.append(stream)
        now = time.perf_counter()
    return latencies


def whole(target, read):
    """Whether it is a whole answer, which must be a good one."""
    head, end, body = read.partition(b"\r\n\r\n")
    if not read or end and not head.split(b"\r\n")[0].startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{target.name} answered a probe with {read[:200]!r}")
    return bool(end) and len(body) >= ANSWER_BYTES
