"""The load: wrk and h2load, what they report, and what a proxy spent on it meanwhile."""

import re, statistics, subprocess

# Of load before what is measured: connections are made, code is compiled, and memory finds its level.
WARM_UP_S = 1
# What a run may take beyond the seconds it was asked for, before it is given up.
PATIENCE_S = 30


def run(rig, seconds, *command):
    """The output of a load generator on the cores of the load."""
    command = ["taskset", "-c", ",".join(map(str, rig.load_cores)), *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE_S, cwd=rig.work)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def wrk(rig, target, seconds, connections, threads=1):
    """Requests over HTTP/1.1, as fast as they are answered. Answers how many there were."""
    out = run(rig, seconds, "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-H", f"Host: {target.host}", "-H",
              "x-team: payments", f"http://127.0.0.1:{target.port}/")
    count = int(re.search(r"(\d+) requests in", out).group(1))
    if "Non-2xx" in out or "Socket errors" in out or count == 0:
        raise SystemExit(f"{target.name} failed some of its requests:\n{out}\n{target.program.log.read_text(errors='replace')[-2000:]}")
    return count


def h2load(rig, target, seconds, connections, *more, streams=100, path="/", threads=1):
    """Requests over HTTP/2 in the clear (or with `--h1` over HTTP/1.1). Answers how many there were."""
    out = run(rig, seconds, "h2load", f"-t{threads}", f"-c{connections}", f"-m{streams}", f"-D{seconds}",
              f"--connect-to=127.0.0.1:{target.port}", "-H", "x-team: payments", *more, f"http://{target.host}{path}")
    done, failed, errored, late = map(int, re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out).groups())
    good = int(re.search(r"status codes: (\d+) 2xx", out).group(1))
    # Those that are under way when the time is up are begun and not counted at all; what failed or was not a 2xx counts here.
    if failed or errored or late or good < done or done == 0:
        raise SystemExit(f"{target.name} failed some of its requests:\n{out}\n{target.program.log.read_text(errors='replace')[-2000:]}")
    return done


def spent(target, seconds, load):
    """CPU per request, the user's share and the kernel's, while `load()` runs and answers a count."""
    before = target.program.cpu()
    count = load()
    user, kernel = (after - was for after, was in zip(target.program.cpu(), before))
    return {"cpu_us": (user + kernel) / count * 1e6, "user_us": user / count * 1e6, "kernel_us": kernel / count * 1e6,
            "per_second": count / seconds, "resident_mib": target.program.resident_mib()}


def rounds(count, targets, measure):
    """Medians by the target's name. The targets take turns in every round, so that what else the machine does meets all alike."""
    return rounds_anew(count, lambda: targets, measure, lambda: None)


def rounds_anew(count, start, measure, end):
    """The same with targets that `start()` starts for each round and `end()` ends: processes of one program differ by up to a tenth, for
    as long as they run."""
    all_ = {}
    for _ in range(count):
        for target in start():
            all_.setdefault(target.name, []).append(measure(target))
        end()
    return {name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in all_.items()}
