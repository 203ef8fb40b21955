#!/usr/bin/env python3
"""Measures the gateway beside HAProxy, nginx and Envoy: the same upstream and the same load, one run. docs/performance.md explains it.

    make bench-beside                                              everything, from the build to the plot
    tests/bench/beside.py [CASE]… [--rounds 5] [--seconds 4] [--connections 32] [--json FILE] [--svg FILE]

What is compared is CPU time per request (user and kernel, of all threads, from /proc): throughput on a shared machine swings, CPU per
request hardly does. The proxies take turns in every round, new ones in each where requests are measured, and medians are printed. The
gateway does everything it always does: identity, decision, metrics, records to the database and to a file; the peers only forward.

Needs nginx, wrk, h2load and openssl. HAProxy, Envoy (ENVOY=/path/to/envoy, else the one of `make envoy`), nginx's stream module and
nghttpd take part where they are found; what is not is said. TIDEGATE names another gateway than target/release/tidegate.
"""

import argparse, dataclasses, shutil, signal, sys

from cases import handshakes, http2, latency, memory, requests, scale, tunnel, workers
from rig import peers, plot, report
from rig.gateway import BINARY, Gateway
from rig.rig import Rig
from rig.upstream import Upstream

CASES = {"plain": requests.plain, "tls": requests.tls, "filter": requests.filter_, "typed": requests.typed, "tunnel": tunnel.tunnel,
         "h2": http2.h2, "grpc": http2.grpc, "latency": latency.latency, "memory": memory.memory, "scale": scale.scale,
         "workers": workers.workers, "handshakes": handshakes.handshakes}


@dataclasses.dataclass
class Stage:
    """What a case is given: the rig, the upstream, and how long and how much."""
    rig: Rig
    upstream: Upstream
    rounds: int
    seconds: int
    connections: int
    gib: float
    idle: int
    entries: int
    gateways: list = dataclasses.field(default_factory=list)
    dropped: int = 0

    def gateway(self, workers=1, cores=None, **more):
        """A new gateway with everything registered."""
        gateway = Gateway(self.rig, workers, cores, **more)
        gateway.register(self.upstream)
        self.gateways.append(gateway)
        return gateway

    def peers(self, kind, **more):
        """The peers that can do `kind`, new ones."""
        return peers.start(self.rig, self.upstream, kind, **more)

    def clear(self):
        """Ends what was started, once its records are counted, which go with it; the upstream stays."""
        self.dropped += sum(gateway.dropped() for gateway in self.gateways if gateway.program in self.rig.programs)
        gateways, self.gateways = self.gateways, []
        self.rig.stop(*(program for program in self.rig.programs if not program.name.startswith(("upstream", "nghttpd"))))
        for gateway in gateways:
            shutil.rmtree(gateway.data)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"only these: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load in a round, for each proxy")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--gib", type=float, default=2, help="through a tunnel in a round")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections, and idle tunnels, of which the memory is measured")
    parser.add_argument("--entries", type=int, default=100_000, help="services, and rules, of the case scale")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE")
    options = parser.parse_args()
    unknown = [case for case in options.cases if case not in CASES]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return options


def main():
    options = arguments()
    for needed in ("nginx", "wrk", "h2load", "nghttp", "openssl", "taskset"):
        if not shutil.which(needed):
            raise SystemExit(f"{needed} is missing; docs/performance.md says what is needed")
    if not BINARY.exists():
        raise SystemExit(f"{BINARY} is missing; build it first: cargo build --release -p tidegate-gateway --bin tidegate")
    # A run that is told to end ends what it started, as one that is interrupted does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine, tables = report.machine(BINARY), []
    print(report.machine_text(machine), flush=True)
    sizes = {field: getattr(options, field) for field in ("rounds", "seconds", "connections", "gib", "idle", "entries")}
    with Rig() as rig:
        stage = Stage(rig, Upstream(rig), **sizes)
        for case in options.cases or CASES:
            tables += measured(stage, case)
            # After every case: one that fails later takes nothing away.
            if options.json:
                report.write_json(options.json, machine, sizes, tables)
            if options.svg:
                plot.write(options.svg, "Tidegate beside its peers", tables)


def measured(stage, case):
    """The case's tables, printed."""
    stage.dropped = 0
    tables = CASES[case](stage)
    stage.clear()
    for table in tables:
        table.notes.append(f"records dropped in this case: {stage.dropped}")
        print(table.text(), flush=True)
    return tables


if __name__ == "__main__":
    main()
