"""Latency at half of saturation, and what configuration changes do to it.

h2load keeps the proxy at half of what the slowest of them can do, over HTTP/1.1; beside it an open-loop sender asks a thousand times a
second and counts from the moment each request was due. The percentiles are those of all its requests in all rounds.
"""

import concurrent.futures, contextlib, statistics, time

from rig import load, probe, report
from rig.churn import Churn
from rig.peers import Target

PROBES_PER_S, WRITES_PER_S = 1000, 100
# The load begins this much before the probes, and ends as much after them.
MARGIN_S = 1


def latency(stage):
    """Beside HAProxy, beside the upstream without a proxy, and with 100 configuration changes a second against without."""
    gateway = stage.gateway()
    targets = [gateway.target(), gateway.target(f"tidegate, {WRITES_PER_S} writes/s"), *stage.peers("plain", only=["haproxy"])]
    saturated = [load.wrk(stage.rig, target, 2, stage.connections) / 2 for target in targets[:1] + targets[2:]]
    rate = round(min(saturated) / 2)
    targets.append(Target("the upstream alone", stage.upstream.program, stage.upstream.plain))
    found, carried, written = {target.name: [] for target in targets}, {target.name: [] for target in targets}, 0
    for _ in range(stage.rounds):
        for target in targets:
            # Where nothing is changed the same writer writes to the upstream: the probes' core has as much to do.
            changes = target is targets[1]
            began = time.monotonic()
            with Churn(gateway.admin if changes else stage.upstream.plain, gateway.token, WRITES_PER_S) as churn:
                latencies, count = probed(stage, target, rate)
            found[target.name] += latencies
            carried[target.name].append(count)
            if changes:
                written = churn.written / (time.monotonic() - began)
    rows = {name: percentiles(latencies) | {"load": statistics.median(carried[name])} for name, latencies in found.items()}
    return [table(rows, rate, written, targets)]


def probed(stage, target, rate):
    """The probes' latencies while the load is on, and how many requests of it a second there were."""
    seconds, connections = stage.seconds + 2 * MARGIN_S, stage.connections
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        loading = pool.submit(load.h2load, stage.rig, target, seconds, connections, "--h1", f"--rps={rate / connections:.2f}", streams=1)
        time.sleep(MARGIN_S)
        latencies = probe.probe(target, stage.seconds, PROBES_PER_S)
        return latencies, loading.result() / seconds


def percentiles(latencies):
    ordered = sorted(latencies)
    def at(share):
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
    return {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "probes": len(ordered)}


def table(rows, rate, written, targets):
    columns = [("p50", "p50 µs", 0), ("p99", "p99 µs", 0), ("p999", "p99.9 µs", 0), ("probes", "probes", 0), ("load", "load, requests/s", 0)]
    calm, changed = rows[targets[0].name], rows[targets[1].name]
    notes = [f"the load asked for was {rate} requests/s; {written:.0f} writes a second were made",
             f"p99.9 with them is {changed['p999'] / calm['p999']:.2f} × without"]
    if "haproxy" in rows:
        notes.append(f"p50 is {calm['p50'] / rows['haproxy']['p50']:.2f} × HAProxy's")
    short = [name for name, row in rows.items() if row["load"] < 0.95 * rate]
    if short:
        notes.append(f"the load fell short of that for {', '.join(short)}: read those figures as of what it carried")
    return report.Table("latency", "latency at half of saturation, from when each request was due", columns, rows, "p99", ("p99",), notes)
