"""Requests over HTTP/1.1, one after the other on each connection: `plain`, `tls`, `filter` and `typed`."""

import dataclasses

from rig import load, peers, report
from rig.gateway import PLAIN, SECURE

TYPED = peers.TARGET / "wasm32-unknown-unknown" / "filter" / "stamp.wasm"


def plain(stage):
    """In the clear on both sides."""
    rows = measured(stage, lambda: [stage.gateway().target(), *stage.peers("plain")])
    return [report.per_request("plain", "HTTP/1.1 in the clear on both sides", rows)]


def tls(stage):
    """In the clear downstream; TLS is originated, on connections that are kept, and the certificate verified."""
    rows = measured(stage, lambda: [stage.gateway().target(host=SECURE), *stage.peers("tls")])
    return [report.per_request("tls", "HTTP/1.1, TLS originated and verified", rows)]


def filter_(stage):
    """`plain` with one Proxy-Wasm module that reads and adds a header in each direction, and both hosts without it."""
    def start():
        gateway = stage.gateway()
        filtered = gateway.filtered(stage.upstream, "headers", peers.FILTER, "filtered.example.com", root_id="headers")
        without = [dataclasses.replace(target, name=f"{target.name}, no filter") for target in
                   (gateway.target(), *stage.peers("plain", only=["envoy"]))]
        return [filtered, *stage.peers("filter"), *without]
    rows = measured(stage, start)
    notes = [f"the module adds {rows[name]['cpu_us'] - rows[f'{name}, no filter']['cpu_us']:.1f} µs in {name}"
             for name in ("tidegate", "envoy") if name in rows]
    return [report.per_request("filter", "plain and one Proxy-Wasm header filter, the same module in both hosts", rows, notes)]


def typed(stage):
    """`plain` with one filter of the gateway's own contract, of two callbacks and five host calls, against `plain`."""
    def start():
        gateway = stage.gateway()
        stamped = gateway.filtered(stage.upstream, "stamp", TYPED, "stamped.example.com")
        return [stamped, dataclasses.replace(gateway.target(host=PLAIN), name="tidegate, no filter")]
    rows = measured(stage, start)
    notes = [f"the filter adds {rows['tidegate']['cpu_us'] - rows['tidegate, no filter']['cpu_us']:.1f} µs"]
    return [report.per_request("typed", "plain and one typed header filter", rows, notes)]


def measured(stage, start):
    def once(target):
        load.wrk(stage.rig, target, load.WARM_UP_S, stage.connections)
        return load.spent(target, stage.seconds, lambda: load.wrk(stage.rig, target, stage.seconds, stage.connections))
    return load.rounds_anew(stage.rounds, start, once, stage.clear)
