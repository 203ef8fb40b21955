#!/usr/bin/env python3
"""Measures what filters in Rust, JavaScript and Python cost, on the built gateway, in one run.

    make bench-languages
    tests/bench/languages.py [--rounds 5] [--seconds 2] [--json FILE]

Needs wrk, `make filters` and `make languages`. TIDEGATE names another gateway than target/release/tidegate.

The filter is tests/filters/stamp: two callbacks, five calls of the host; in JavaScript and Python only its
first callback, of three. Columns, each less what the same is without a filter where
that makes sense:

  size      of the module, as it is uploaded
  compiled  CPU time of the upload, and how long it took
  restart   from the start of the process to ready, with the compiled module taken from disk
  memory    resident bytes of one more instance: five workers against one, each of which has served
  exchange  CPU time of one exchange on an instance that is kept (user and system, all threads), median of the rounds
  own       the same with `isolation: exchange`: a fresh instance for every exchange
"""
import argparse, asyncio, json, os, pathlib, re, shutil, statistics, subprocess, sys, tempfile, threading, time
import urllib.error, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
BINARY = os.environ.get("TIDEGATE", TARGET / "release/tidegate")
SOURCES = ROOT / "tests/bench/languages"
CONTRACT = ROOT / "sdk/wit/filter.wit"
# Above what any of them needs: what they need of the defaults is what is measured.
ROOMY = ["--filter-compile-timeout", "10m",
         "--filter-memory-bytes", "134217728"]


class Upstream(asyncio.Protocol):
    """Answers every head alike, and at once."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nyes"

    def connection_made(self, transport):
        self.transport, self.rest = transport, b""

    def data_received(self, data):
        *heads, self.rest = (self.rest + data).split(b"\r\n\r\n")
        self.transport.write(self.ANSWER * len(heads))

    @classmethod
    def start(cls):
        loop, port = asyncio.new_event_loop(), []
        listening = threading.Event()

        async def serve():
            server = await loop.create_server(cls, "127.0.0.1", 0)
            port.append(server.sockets[0].getsockname()[1])
            listening.set()
            await server.serve_forever()

        threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True).start()
        listening.wait()
        return port[0]


class Gateway:
    """A gateway process on a data directory of its own."""

    def __init__(self, data, workers):
        self.data, began = data, time.monotonic()
        (data / "addresses.json").unlink(missing_ok=True)
        listen = [word for flag in ("proxy", "admin", "metrics") for word in (f"--{flag}-listen", "127.0.0.1:0")]
        command = [str(BINARY), "serve", "--data-dir", str(data), "--workers", str(workers), "--record-log", "off", *listen, *ROOMY]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(data / "log", "ab"))
        self.addresses = self.wait(lambda: json.loads((data / "addresses.json").read_text()))
        self.wait(lambda: urllib.request.urlopen(f"http://{self.addresses['metrics']}/readyz", timeout=1))
        self.ready_ms = (time.monotonic() - began) * 1e3

    def wait(self, condition):
        while True:
            try:
                return condition()
            except (OSError, ValueError):
                if self.process.poll() is not None:
                    raise SystemExit(f"the gateway ended:\n{(self.data / 'log').read_text()}") from None
                time.sleep(0.002)

    def call(self, method, path, body, kind="json"):
        headers = {"authorization": "Bearer " + (self.data / "admin.token").read_text().strip(), "content-type": f"application/{kind}"}
        request = urllib.request.Request(f"http://{self.addresses['admin']}/v1/{path}", body, headers, method=method)
        try:
            urllib.request.urlopen(request, timeout=600).read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error}: {error.read().decode()}") from None

    def put(self, path, document):
        self.call("PUT", path, json.dumps(document).encode())

    def cpu(self):
        """Seconds on the processor, of all threads that there are."""
        threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def whole_cpu(self):
        """The same with the threads that have ended, to a hundredth of a second."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        rollup = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"Rss:\s+(\d+)", rollup).group(1)) / 1024

    def load(self, seconds, connections):
        """CPU microseconds per request."""
        before = self.cpu()
        out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", "Host: api.example.com",
                              f"http://{self.addresses['proxy']}/"], capture_output=True, text=True, check=True).stdout
        spent, count = self.cpu() - before, int(re.search(r"(\d+) requests in", out).group(1))
        if "Non-2xx" in out or "Socket errors" in out or count == 0:
            raise SystemExit(f"requests failed:\n{out}\n{(self.data / 'log').read_text()[-2000:]}")
        return spent / count * 1e6

    def stop(self):
        self.process.terminate()
        self.process.wait()


def build(work):
    """The modules by name."""
    tools, modules = TARGET / "languages", {"Rust": TARGET / "wasm32-unknown-unknown/filter/stamp.wasm"}
    def run(*command):
        done = subprocess.run([str(word) for word in command], cwd=work, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    modules["JavaScript"] = work / "stamp-javascript.wasm"
    run(tools / "js/node_modules/.bin/componentize-js", SOURCES / "stamp.js", "--wit", CONTRACT, "--world-name", "filter",
        "--disable", "stdio", "random", "clocks", "http", "fetch-event", "--out", modules["JavaScript"])
    modules["Python"] = work / "stamp-python.wasm"
    run(tools / "python/bin/componentize-py", "-d", CONTRACT, "-w", "filter", "componentize", "--stub-wasi", "-p", SOURCES, "stamp",
        "-o", modules["Python"])
    return modules


def set_up(data, module, port):
    """Registers everything; answers the gateway, and CPU seconds and seconds of the upload."""
    data.mkdir()
    gateway, upload = Gateway(data, 1), (0, 0)
    gateway.put("services/api", {"hosts": ["api.example.com"], "ports": [{"number": 80, "protocol": "http"}], "resolution": "static",
                                 "endpoints": [{"address": "127.0.0.1", "port": port}], "networks": ["127.0.0.0/8"]})
    gateway.put("rules/all", {"action": "allow", "to": [{"services": ["api"]}]})
    if module:
        cpu, began = gateway.whole_cpu(), time.monotonic()
        gateway.call("POST", "plugins/stamp", module.read_bytes(), "wasm")
        upload = (gateway.whole_cpu() - cpu, time.monotonic() - began)
        route(gateway, "shared")
    return gateway, upload


def route(gateway, isolation):
    gateway.put("routes/api", {"service": "api", "filters": [{"plugin": "stamp", "isolation": isolation}]})
    time.sleep(0.2)  # More than the 50 ms in which a change is in force.


def measure(modules, port, work, options):
    gateways, rows = {}, {}
    try:
        for number, (name, module) in enumerate([("none", None), *modules.items()]):
            data = work / str(number)
            gateway, (cpu, took) = set_up(data, module, port)
            gateway.stop()
            restarts, resident = [], {}
            for workers in (5, 1):
                gateway = Gateway(data, workers)
                gateways[name] = gateway
                restarts.append(gateway.ready_ms)
                gateway.load(1, 20)
                resident[workers] = gateway.resident()
                if workers == 5:
                    gateway.stop()
            rows[name] = {"size": module.stat().st_size if module else 0, "compile_cpu_s": cpu, "upload_s": took,
                          "restart_ms": min(restarts), "memory_mib": (resident[5] - resident[1]) / 4}
        for key, isolation in (("exchange_us", "shared"), ("own_us", "exchange")):
            rounds = {name: [] for name in gateways}
            for name, gateway in gateways.items():
                if name != "none":
                    route(gateway, isolation)
            for _ in range(options.rounds):
                for name, gateway in gateways.items():
                    rounds[name].append(gateway.load(options.seconds, 8))
            for name, figures in rounds.items():
                rows[name][key] = statistics.median(figures)
    finally:
        for gateway in gateways.values():
            gateway.stop()
    none = rows.pop("none")
    for row in rows.values():
        for key in ("restart_ms", "memory_mib", "exchange_us", "own_us"):
            row[key] -= none[key]
    return rows, none


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-languages-"))
    rows, none = measure(build(work), Upstream.start(), work, options)
    print("| filter in | size MB | compiled CPU s (took s) | restart ms | memory MiB | exchange µs | own µs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(f"| {name} | {row['size'] / 1e6:.2f} | {row['compile_cpu_s']:.2f} ({row['upload_s']:.2f}) | {row['restart_ms']:.0f} "
              f"| {row['memory_mib']:.1f} | {row['exchange_us']:.1f} | {row['own_us']:.0f} |")
    print(f"\nwithout a filter: ready in {none['restart_ms']:.0f} ms, {none['exchange_us']:.1f} µs an exchange")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"none": none, **rows}, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
