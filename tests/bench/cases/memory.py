"""Memory: idle with the filters that ship, for each idle connection, and for each idle tunnel.

Every connection has carried an exchange before it is left idle. What the kernel keeps for its sockets is in no process and not counted.
"""

import contextlib, dataclasses, socket, time

from cases.filters_shipped import USES
from cases.tunnel import SILENCE_S, opened, read_head
from rig import peers, report

# The first connections make what all share; those after them are what one costs.
WARM = 200
# Memory has settled when a second changed less than this, and is taken as it is after so many.
SETTLED_MIB, SETTLE_WITHIN_S = 0.05, 30
MODULES = peers.TARGET / "wasm32-unknown-unknown" / "filter"


def memory(stage):
    """Three tables: idle, per connection, per tunnel."""
    tables = [idle(stage)]
    stage.clear()
    # A tunnel is two descriptors to a proxy, and HAProxy sets two aside for a connection too.
    count = min(stage.idle, (stage.rig.most_files - 800) // 2)
    connections = [stage.gateway().target(), *stage.peers("plain")]
    tables.append(each(stage, "idle connection", connections, count))
    stage.clear()
    tunnels = [stage.gateway().target(by_connect=True)]
    tunnels += [dataclasses.replace(target, name=f"{target.name}, CONNECT") for target in stage.peers("connect")]
    tunnels += [dataclasses.replace(target, name=f"{target.name}, TCP") for target in stage.peers("tunnel")]
    tables.append(each(stage, "idle tunnel", tunnels, count))
    return tables


def idle(stage):
    gateway = stage.gateway()
    without = settled(gateway.program)
    gateway.put("credentials/bench-secret", {"kind": "secret", "value": "not a secret at all"})
    for name, (module, use) in USES.items():
        target = gateway.filtered(stage.upstream, name, MODULES / f"{module}.wasm", f"{name}.example.com", **use)
        # Whatever the filter makes of it: with its first exchange its instance is there.
        with socket.create_connection(("127.0.0.1", target.port), SILENCE_S) as stream:
            ask(stream, target.host)
    rows = {"tidegate": settled(gateway.program), "tidegate, no filter": without}
    rows |= {target.name: settled(target.program) for target in stage.peers("plain")}
    title = f"idle, one worker, with the {len(USES)} filters that ship on a route each and started"
    rows = {name: {"resident_mib": value} for name, value in rows.items()}
    return report.Table("idle", title, [("resident_mib", "resident MiB", 1)], rows, None, ("resident_mib",))


def settled(program):
    """Resident MiB once it no longer changes."""
    last, deadline = program.resident_mib(), time.monotonic() + SETTLE_WITHIN_S
    while True:
        time.sleep(1)
        now = program.resident_mib()
        if abs(now - last) < SETTLED_MIB or time.monotonic() > deadline:
            return now
        last = now


def each(stage, what, targets, count):
    """KiB for each of `count`, beyond the first few, one target after the other."""
    rows = {}
    for target in targets:
        with contextlib.ExitStack() as held:
            for number in range(count):
                if number == WARM:
                    before = settled(target.program)
                stream = held.enter_context(opened(target))
                status = ask(stream, target.host)
                if status != 200:
                    raise SystemExit(f"{target.name} answered {what} {number} with {status}")
            after = settled(target.program)
        rows[target.name] = {"kib": (after - before) * 1024 / (count - WARM), "resident_mib": after}
    title = f"memory of an {what}, {count} open"
    columns = [("kib", f"KiB per {what}", 1), ("resident_mib", "resident MiB with all", 0)]
    notes = [] if count == stage.idle else [f"{count} and not {stage.idle}: this system permits a process {stage.rig.most_files} open files"]
    return report.Table(what, title, columns, rows, "kib", ("kib",), notes)


def ask(stream, host):
    """One exchange on a connection that stays open; answers the status."""
    stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nx-team: payments\r\n\r\n".encode())
    head, body = read_head(stream)
    lines = head.decode(errors="replace").lower().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
    while len(body) < length:
        piece = stream.recv(65536)
        if not piece:
            raise SystemExit("a connection was closed in the middle of an answer")
        body += piece
    return int(lines[0].split()[1])
