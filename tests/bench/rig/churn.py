"""Configuration changes at a steady rate, made through REST by a process of its own beside the load."""

import http.client, json, multiprocessing, time

# A process that is forked would hold this one's sockets open, those that it stops listening on too.
CONTEXT = multiprocessing.get_context("spawn")
START_WITHIN_S = 30
# So many services take turns, so that each write changes a document and nothing grows.
DOCUMENTS = 50


class Churn:
    """Used with `with`. Ends everything when a write was refused; `written` is how many there were in the end."""

    def __init__(self, port, token, rate):
        self.written, self.begun, self.stop = 0, CONTEXT.Event(), CONTEXT.Event()
        self.outcome, told = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=churn, args=(port, token, rate, self.begun, self.stop, told), daemon=True)

    def __enter__(self):
        self.process.start()
        if not self.begun.wait(START_WITHIN_S):
            raise SystemExit(f"the process that changes the configuration did not begin within {START_WITHIN_S} s")
        return self

    def __exit__(self, kind, _value, _trace):
        self.stop.set()
        told = self.outcome.poll(START_WITHIN_S)
        self.written, mistake = self.outcome.recv() if told else (0, "the process that makes them was not heard of again")
        self.process.join(1)
        if mistake and kind is None:
            raise SystemExit(f"a configuration change failed after {self.written}: {mistake}")


def churn(port, token, rate, begun, stop, outcome):
    begun.set()
    written, mistake, began = 0, None, time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        # A write that took long is made up for, as far as writes one after the other can.
        while not stop.wait(max(0, began + written / rate - time.monotonic())):
            connection.request("PUT", f"/v1/services/churn-{written % DOCUMENTS}", document(written),
                               {"authorization": f"Bearer {token}", "content-type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status not in (200, 201):
                mistake = f"{reply.status}: {text.decode(errors='replace')}"
                break
            written += 1
    except OSError as error:
        mistake = str(error)
    outcome.send((written, mistake))


def document(number):
    port, round_ = number % DOCUMENTS, number // DOCUMENTS
    return json.dumps({"hosts": [f"churn-{port}.example.com"], "ports": [{"number": 80, "protocol": "http"}], "resolution": "static",
                       "endpoints": [{"address": "127.0.0.1", "port": 9}], "networks": ["127.0.0.0/8"],
                       "connections": {"max": 100 + round_ % 1000}})
