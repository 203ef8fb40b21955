"""Two workers against one, and how a few long connections are spread over two."""

from rig import load, report

# More than one worker's worth, and few enough that the generator's own work stays small.
LONG_CONNECTIONS, STREAMS = 4, 100
WORKER_NAMES = {"tidegate": "worker-", "envoy": "wrk:worker_"}


def workers(stage):
    """On machines of four cores and more each worker has a core of its own."""
    return [doubled(stage), spread(stage)]


def doubled(stage):
    cores = [stage.rig.proxy_core, stage.rig.second_core]
    targets, gateways = [], {}
    for count in (2, 1):
        gateway = stage.gateway(count, cores[:count])
        targets.append(gateway.target("2 workers" if count == 2 else "1 worker"))
        gateways[targets[-1].name] = gateway
    threads = max(1, min(2, len(stage.rig.load_cores)))

    def once(target):
        before = busy(target.program, "worker-")
        row = load.spent(target, stage.seconds, lambda: load.wrk(stage.rig, target, stage.seconds, 2 * stage.connections, threads))
        shares = [seconds / stage.seconds * 100 for seconds in grown(busy(target.program, "worker-"), before)]
        return row | {"least": min(shares), "most": max(shares)}
    rows = load.rounds(stage.rounds, targets, once)
    columns = [("per_second", "requests/s", 0), ("cpu_us", "CPU µs per request", 1), ("least", "the idler worker, busy %", 0),
               ("most", "the busier, busy %", 0)]
    two, one = rows["2 workers"], rows["1 worker"]
    notes = [f"requests: {two['per_second'] / one['per_second']:.2f} × one worker's",
             f"by CPU per request two workers on cores of their own would do {2 * one['cpu_us'] / two['cpu_us']:.2f} × what one does"]
    if stage.rig.shared:
        notes.append("load, upstream and the second worker share a core: the requests say what was left of it, not what the workers can do")
    elif two["least"] < 90:
        notes.append("the workers were not busy all the time: the load or the upstream was the limit")
    return report.Table("workers", "two workers on two cores, against one on one", columns, rows, "per_second", ("per_second",), notes)


def spread(stage):
    """Which share of the work of four long HTTP/2 connections the busier of two workers had."""
    cores = [stage.rig.proxy_core, stage.rig.second_core]
    targets = [stage.gateway(2, cores).target(), *stage.peers("h2", workers=2, only=["envoy"])]

    def once(target):
        names = WORKER_NAMES[target.name]
        before = busy(target.program, names)
        load.h2load(stage.rig, target, stage.seconds, LONG_CONNECTIONS, streams=STREAMS)
        shares = grown(busy(target.program, names), before)
        return {"busier": max(shares) / sum(shares) * 100, "idler": min(shares) / sum(shares) * 100}
    rows = load.rounds(stage.rounds, targets, once)
    columns = [("busier", "the busier worker, % of the work", 0), ("idler", "the idler one", 0)]
    title = f"{LONG_CONNECTIONS} long HTTP/2 connections on 2 workers"
    return report.Table("spread", title, columns, rows, None, ("busier", "idler"))


def busy(program, names):
    """Seconds on the processor of each worker thread, by its id."""
    return {thread: seconds for (name, thread), seconds in program.threads().items() if name.startswith(names)}


def grown(after, before):
    found = [seconds - before.get(thread, 0) for thread, seconds in after.items()]
    if not found:
        raise SystemExit("no worker thread was found: their names have changed")
    return found
