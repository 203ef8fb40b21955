"""Requests over HTTP/1.1, one after the other on each connection: `plain`, `tls`, `filter` and `typed`."""

import dataclasses

from rig import load, peers, report
from rig.gateway import PLAIN, SECURE

TYPED = peers.TARGET / "wasm32-unknown-unknown" / "filter" / "stamp.wasm"


def plain(stage):
    """In the clear on both sides."""
    targets = [stage.gateway().target(), *stage.peers("plain")]
    return [report.per_request("plain", "HTTP/1.1 in the clear on both sides", measured(stage, targets))]


def tls(stage):
    """In the clear downstream; TLS is originated, on connections that are kept, and the certificate verified."""
    targets = [stage.gateway().target(host=SECURE), *stage.peers("tls")]
    return [report.per_request("tls", "HTTP/1.1, TLS originated and verified", measured(stage, targets))]


def filter_(stage):
    """`plain` with one Proxy-Wasm module that reads and adds a header in each direction, and both hosts without it."""
    gateway = stage.gateway()
    filtered = gateway.filtered(stage.upstream, "headers", peers.FILTER, "filtered.example.com", root_id="headers")
    without = [dataclasses.replace(target, name=f"{target.name}, no filter") for target in
               (gateway.target(), *stage.peers("plain", only=["envoy"]))]
    rows = measured(stage, [filtered, *stage.peers("filter"), *without])
    notes = [f"the module adds {rows[name]['cpu_us'] - rows[f'{name}, no filter']['cpu_us']:.1f} µs in {name}"
             for name in ("tidegate", "envoy") if name in rows]
    return [report.per_request("filter", "plain and one Proxy-Wasm header filter, the same module in both hosts", rows, notes)]


def typed(stage):
    """`plain` with one filter of the gateway's own contract, of two callbacks and five host calls, against `plain`."""
    gateway = stage.gateway()
    stamped = gateway.filtered(stage.upstream, "stamp", TYPED, "stamped.example.com")
    without = dataclasses.replace(gateway.target(host=PLAIN), name="tidegate, no filter")
    rows = measured(stage, [stamped, without])
    notes = [f"the filter adds {rows['tidegate']['cpu_us'] - rows[without.name]['cpu_us']:.1f} µs"]
    return [report.per_request("typed", "plain and one typed header filter", rows, notes)]


def measured(stage, targets):
    def once(target):
        return load.spent(target, stage.seconds, lambda: load.wrk(stage.rig, target, stage.seconds, stage.connections))
    return load.rounds(stage.rounds, targets, once)
