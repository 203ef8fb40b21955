#!/usr/bin/env python3
"""Keeps a gateway at 70 % of what it can do, with filters, changes and an upstream that fails, and looks what becomes of it.

    make soak MINUTES=30
    tests/bench/soak.py [--minutes 30] [--json FILE]

Fails (exit status 1) where resident memory grows by more than 5 % between the first third and the last, where open descriptors grow, or
where an exchange fails that the upstream did not make fail. docs/performance.md explains it. Needs what `make bench-beside` needs.
"""

import argparse, concurrent.futures, http.client, signal, statistics, sys, time

from rig import load, peers, report
from rig.churn import Churn
from rig.flaky import Flaky
from rig.gateway import BINARY, Gateway, service
from rig.rig import Rig
from rig.upstream import Upstream, CALLER

SHARE, CHANGES_PER_S, PROBES_PER_S, CONNECTIONS = 0.7, 10, 20, 32
# Connections to the upstream come and go by a few.
MOST_GROWTH, SLACK_DESCRIPTORS = 0.05, 8
SAMPLES = 180
# The load is given in pieces, so that a failure is known within the minute.
PIECE_S = 60
# The file of records is taken away when it is larger: half an hour of them would fill a disk.
LARGEST_RECORDS = 256 << 20
# How long the failing upstream's address stays put aside after it listens again, at most, and a second for the machine.
ASIDE_S, GRACE_S = 2, 3
FLAGS = ["--aside-longest", f"{ASIDE_S}s", "--exchange-max-bytes", str(256 << 20)]
NAMES = {"resident_mib": "resident MiB", "descriptors": "descriptors", "threads": "threads"}
SOAKED, FLAKY = "soaked.example.com", "flaky.example.com"
WASM = peers.TARGET / "wasm32-unknown-unknown" / "filter"
FILTERS = [("stamp", WASM / "stamp.wasm", {}), ("audit", WASM / "audit.wasm", {"config": {"kind": "soak"}}),
           ("headers", peers.FILTER, {"root_id": "headers"})]


class Soak:
    """A gateway under way, and what was seen of it."""

    def __init__(self, rig, upstream):
        self.rig, self.gateway = rig, Gateway(rig, flags=FLAGS)
        self.flaky = Flaky(rig.port())
        self.samples, self.failures, self.asked, self.excused, self.carried = [], [], 0, 0, 0
        self.gateway.register(upstream)
        for name, module, _ in FILTERS:
            self.gateway.upload(name, module)
        self.gateway.put("services/soaked", service(SOAKED, upstream.plain, "http"))
        self.gateway.put("services/flaky", service(FLAKY, self.flaky.port, "http"))
        filters = [{"plugin": name, **use} for name, _, use in FILTERS]
        for name in ("soaked", "flaky"):
            self.gateway.put(f"routes/{name}", {"service": name, "filters": filters})
        rule = {"action": "allow", "from": [{"principals": [CALLER]}], "to": [{"services": ["soaked", "flaky"]}]}
        self.gateway.in_force(self.gateway.put("rules/soak", rule))

    def carry(self, seconds, rate):
        """The load: every request of it has to succeed, and `load.h2load` ends everything where one does not."""
        target, end = self.gateway.target(host=SOAKED), time.monotonic() + seconds
        while (left := round(end - time.monotonic())) > 0:
            self.carried += load.h2load(self.rig, target, min(PIECE_S, left), CONNECTIONS, "--h1", f"--rps={rate / CONNECTIONS:.2f}", streams=1)

    def ask_flaky(self):
        """One exchange with the upstream that fails. The gateway has to answer it, and with 200 unless the upstream is to blame."""
        if not self.flaky.thread.is_alive():
            raise SystemExit("the failing upstream has ended; what it printed says why")
        self.asked += 1
        path, began = f"/{self.asked}", time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.proxy, timeout=20)
        try:
            connection.request("GET", path, headers={"Host": FLAKY})
            reply = connection.getresponse()
            reply.read()
            said = f"{reply.status} {reply.getheader('x-tidegate-reason')}"
            failed, answered = reply.status != 200, True
        except (OSError, http.client.HTTPException) as error:
            failed, answered, said = True, False, repr(error)
        finally:
            connection.close()
        if failed and answered and self.flaky.caused(path, began, time.monotonic(), ASIDE_S + GRACE_S):
            self.excused += 1
        elif failed:
            self.failures.append(f"exchange {path} with the failing upstream: {said}")

    def sample(self):
        program = self.gateway.program
        self.samples.append({"resident_mib": program.resident_mib(), "descriptors": program.descriptors(), "threads": len(program.threads())})
        if self.gateway.records.stat().st_size > LARGEST_RECORDS:
            old = self.gateway.records.with_suffix(".old")
            self.gateway.records.rename(old)
            program.process.send_signal(signal.SIGHUP)
            self.rig.until("a new file of records", self.gateway.records.exists, program)
            old.unlink()

    def run(self, seconds, rate):
        """Everything at once for so long. The first tenth, a minute at most, is not looked at: caches and pools fill then."""
        began = time.monotonic()
        start, end = began + min(60, seconds / 10), began + seconds
        next_sample = start
        with Churn(self.gateway.admin, self.gateway.token, CHANGES_PER_S) as churn, concurrent.futures.ThreadPoolExecutor(1) as pool:
            carrying = pool.submit(self.carry, seconds, rate)
            while time.monotonic() < end and not carrying.done():
                self.ask_flaky()
                if time.monotonic() >= next_sample:
                    self.sample()
                    next_sample += (end - start) / SAMPLES
                time.sleep(1 / PROBES_PER_S)
            carrying.result()
        return churn.written


def thirds(samples, key):
    """Medians of the first third and of the last."""
    third = max(1, len(samples) // 3)
    return tuple(statistics.median(sample[key] for sample in part) for part in (samples[:third], samples[-third:]))


def judge(soak):
    """The table, and what is wrong."""
    rows, wrong = {}, list(soak.failures)
    for key in NAMES:
        first, last = thirds(soak.samples, key)
        rows[NAMES[key]] = {"first": first, "last": last, "most": max(sample[key] for sample in soak.samples)}
        if key == "resident_mib" and last > first * (1 + MOST_GROWTH):
            wrong.append(f"resident memory grew from {first:.1f} to {last:.1f} MiB, by more than {MOST_GROWTH:.0%}")
        if key == "descriptors" and last > first + SLACK_DESCRIPTORS:
            wrong.append(f"open descriptors grew from {first:.0f} to {last:.0f}")
    columns = [("first", "first third", 1), ("last", "last third", 1), ("most", "the most", 1)]
    return report.Table("soak", "medians of the samples", columns, rows), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = report.machine(BINARY)
    print(report.machine_text(found), flush=True)
    with Rig() as rig:
        soak = Soak(rig, Upstream(rig))
        target = soak.gateway.target(host=SOAKED)
        rate = round(SHARE * load.wrk(rig, target, 5, CONNECTIONS) / 5)
        print(f"{options.minutes:g} minutes at {rate} requests/s, {SHARE:.0%} of saturation", flush=True)
        written = soak.run(options.minutes * 60, rate)
        dropped = soak.gateway.dropped()
        table, wrong = judge(soak)
    share = soak.carried / (options.minutes * 60 * rate)
    table.notes = [f"{soak.carried} requests ({share:.0%} of those asked for) through {len(FILTERS)} filters",
                   f"{written} changes of the configuration, {dropped} records dropped",
                   f"{soak.asked} exchanges with the failing upstream, of which it made {soak.excused} fail"]
    print(table.text())
    if options.json:
        report.write_json(options.json, found, {"minutes": options.minutes, "rate": rate, "samples": soak.samples, "wrong": wrong}, [table])
    for mistake in wrong[:20]:
        print(f"FAILED: {mistake}")
    print(f"{len(wrong)} things are wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
