"""An upstream that fails now and then, and knows which exchanges it made fail.

It answers at once, but for two seconds of every twenty: then it either resets the connection of whatever it is asked, or does not listen
at all, in turns. Requests name themselves by their path.
"""

import asyncio, threading, time

EVERY_S, FAILS_FOR_S = 20, 2
BODY = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nyes"


class Flaky:
    """Runs on a thread of its own until the process ends."""

    def __init__(self, port):
        self.port, self.resetting = port, False
        # Paths of the requests that were answered with a reset, and from when to when nothing listened; the last may be going on.
        self.reset, self.deaf = set(), []
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready)), daemon=True)
        self.thread.start()
        if not ready.wait(10):
            raise SystemExit(f"the failing upstream could not listen on port {port}")

    async def serve(self, ready):
        while True:
            server = await asyncio.get_running_loop().create_server(lambda: Answering(self), "127.0.0.1", self.port)
            ready.set()
            await asyncio.sleep(EVERY_S - FAILS_FOR_S)
            self.resetting = True
            await asyncio.sleep(FAILS_FOR_S)
            self.resetting = False
            await asyncio.sleep(EVERY_S - FAILS_FOR_S)
            span = [time.monotonic(), float("inf")]
            self.deaf.append(span)
            server.close()
            Answering.close_all()
            await asyncio.sleep(FAILS_FOR_S)
            span[1] = time.monotonic()

    def caused(self, path, began, ended, afterwards):
        """Whether the failure of an exchange is its doing: it reset it, or did not listen at some time of it or shortly before."""
        return path in self.reset or any(since <= ended and began <= until + afterwards for since, until in self.deaf)


class Answering(asyncio.Protocol):
    """One connection."""

    open = set()

    def __init__(self, flaky):
        self.flaky, self.rest = flaky, b""

    def connection_made(self, transport):
        self.transport = transport
        self.open.add(self)

    def connection_lost(self, _error):
        self.open.discard(self)

    def data_received(self, data):
        *heads, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for head in heads:
            if self.flaky.resetting:
                self.flaky.reset.add(head.split(b" ")[1].decode())
                self.transport.abort()
                return
            self.transport.write(BODY)

    @classmethod
    def close_all(cls):
        for connection in list(cls.open):
            connection.transport.abort()
