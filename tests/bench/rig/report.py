"""The report: a table for each case, the machine, and one JSON file."""

import dataclasses, json, os, pathlib, platform, re, shutil, subprocess, time

from .peers import envoy_binary

# What most cases show of a proxy, by key.
PER_REQUEST = [("cpu_us", "CPU µs per request", 1), ("user_us", "of it user", 1), ("kernel_us", "of it kernel", 1),
               ("per_second", "requests/s", 0), ("resident_mib", "resident MiB", 0)]


@dataclasses.dataclass
class Table:
    """What one case found. `rows` holds numbers by the row's name and the column's key; a number that is absent was not measured."""
    case: str
    title: str
    columns: list
    rows: dict
    # The column in which the first row is held against every other, and those that are drawn, on top of each other.
    ratio: str | None = None
    bars: tuple = ()
    notes: list = dataclasses.field(default_factory=list)

    def text(self):
        first = next(iter(self.rows))
        heads = [self.case, *(title for _, title, _ in self.columns), *([f"{first} is"] if self.ratio else [])]
        lines = [f"{self.title}\n", "| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
        for name, row in self.rows.items():
            cells = [name, *("–" if row.get(key) is None else f"{row[key]:.{digits}f}" for key, _, digits in self.columns)]
            if self.ratio:
                known = row.get(self.ratio) and self.rows[first].get(self.ratio) is not None
                cells.append(f"{self.rows[first][self.ratio] / row[self.ratio]:.2f} ×" if known else "–")
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)])


def per_request(case, title, rows, notes=()):
    """The table of a case in which requests are counted."""
    return Table(case, title, PER_REQUEST, rows, "cpu_us", ("user_us", "kernel_us"), list(notes))


def machine(binary):
    """What was measured with, and on what."""
    cpu = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) / (1 << 20)
    asked = {"tidegate": (binary, "version"), "nginx": ("nginx", "-v"), "haproxy": ("haproxy", "-v"), "envoy": (envoy_binary(), "--version"),
             "wrk": ("wrk", "-v"), "h2load": ("h2load", "--version")}
    versions = {name: version(*command) for name, command in asked.items()}
    return {"processor": cpu.group(1) if cpu else platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory, 1),
            "kernel": platform.release(), "load_average": os.getloadavg()[0], "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": {name: found for name, found in versions.items() if found}}


def version(program, flag):
    """The first number in what a program says of itself; nothing where it is not installed."""
    if not program or not shutil.which(str(program)):
        return None
    done = subprocess.run([str(program), flag], capture_output=True, text=True)
    number = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return number.group() if number else None


def machine_text(found):
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, Linux {found['kernel']}, "
            f"load average {found['load_average']:.1f} at the start, {found['at']}\n{versions}\n")


def write_json(path, found, options, tables):
    whole = {"machine": found, "options": options, "tables": [dataclasses.asdict(table) for table in tables]}
    pathlib.Path(path).write_text(json.dumps(whole, indent=1) + "\n")
