"""Very many services and rules: memory, the start, and how long one change takes until it is in force.

REST takes one document at a time, and each is a transaction of its own; a hundred thousand would take longer than all the rest of the
bench. They are written into the database of a gateway that is stopped, as its REST API would have left them, and the gateway starts on that.
"""

import json, socket, sqlite3, statistics, time

from cases.memory import ask, settled
from cases.tunnel import SILENCE_S
from rig import report
from rig.gateway import Gateway, PLAIN, service

WORKERS = 2
# Connections go to the worker with the fewest: so many reach every one.
PROBES = 2 * WORKERS
# A change that is not in force after this is not going to be.
IN_FORCE_WITHIN_S = 60


def scale(stage):
    """Two rows: with nothing but the bench's own services, and with as many more as were asked for."""
    cores = [stage.rig.proxy_core, stage.rig.second_core]
    small = stage.gateway(WORKERS, cores)
    rows = {"few": changes(stage, small)}
    stage.rig.stop(small.program)
    fill(small.data / "tidegate.db", stage.entries)
    began = time.monotonic()
    large = Gateway(stage.rig, WORKERS, cores, data=small.data)
    ready = time.monotonic() - began
    rows = {f"{stage.entries} of each": changes(stage, large) | {"ready_s": ready}} | rows
    columns = [("resident_mib", "resident MiB", 0), ("ready_s", "start to ready s", 2), ("published_ms", "change answered after ms", 1),
               ("in_force_ms", "in force on every worker, ms after that", 1), ("worst_ms", "the longest of these", 1)]
    title = f"{stage.entries} services and {stage.entries} rules, {WORKERS} workers"
    return [report.Table("scale", title, columns, rows, None, ("published_ms", "in_force_ms"))]


def fill(database, entries):
    """Puts services and a rule for each of them into a stopped gateway's database, in one transaction."""
    now = int(time.time() * 1000)
    with sqlite3.connect(database) as connection:
        insert = "INSERT INTO revision (at_ms, who, action, collection, name) VALUES (?, 'bench', 'created', 'services', 'many')"
        revision = connection.execute(insert, (now,)).lastrowid

        def rows(document):
            return ((f"many-{number}", json.dumps(document(number)), revision, now, now) for number in range(entries))
        insert = "INSERT INTO {} (name, document, revision, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?)"
        connection.executemany(insert.format("services"), rows(lambda number: service(f"many-{number}.example.com", 9, "http")))
        connection.executemany(insert.format("rules"), rows(lambda number: {"action": "allow", "to": [{"services": [f"many-{number}"]}]}))
        connection.executemany("INSERT INTO reference VALUES ('rules', ?, '/to/0/services/0', 'services', ?)",
                               ((f"many-{number}", f"many-{number}") for number in range(entries)))
    connection.close()


def changes(stage, gateway):
    """Denies the upstream to everybody and allows it again, and looks on connections of every worker when that holds."""
    target, published, in_force = gateway.target(), [], []
    streams = [socket.create_connection(("127.0.0.1", target.port), SILENCE_S) for _ in range(PROBES)]
    try:
        for number in range(2 * stage.rounds):
            if number % 2 == 0:
                action, wanted = ("PUT", "rules/deny-all", json.dumps({"action": "deny", "to": [{"services": ["plain"]}]})), 403
            else:
                action, wanted = ("DELETE", "rules/deny-all", None), 200
            began = time.monotonic()
            gateway.call(*action)
            answered = time.monotonic()
            waiting = list(streams)
            while waiting:
                if time.monotonic() > answered + IN_FORCE_WITHIN_S:
                    raise SystemExit(f"a change was not in force {IN_FORCE_WITHIN_S} s after it was answered")
                waiting = [stream for stream in waiting if ask(stream, PLAIN) != wanted]
            published.append((answered - began) * 1000)
            in_force.append((time.monotonic() - answered) * 1000)
    finally:
        for stream in streams:
            stream.close()
    return {"resident_mib": settled(gateway.program), "published_ms": statistics.median(published),
            "in_force_ms": statistics.median(in_force), "worst_ms": max(in_force)}
