"""The report: a table for each case, the machine, and one JSON file."""

import dataclasses, json, os, pathlib, platform, re, shutil, subprocess, time

from .peers import envoy_binary

# What most cases show of a proxy, by key.
PER_REQUEST = [("cpu_us", "CPU µs per request", 1), ("user_us", "of it user", 1), ("kernel_us", "of it kernel", 1), ("per_second", "requests/s", 0),
               ("resident_mib", "resident MiB", 0)]


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
    versions = {"tidegate": first_line(binary, "version"), "nginx": first_line("nginx", "-v"), "haproxy": first_line("haproxy", "-v"),
                "envoy": first_line(envoy_binary(), "--version"), "wrk": first_line("wrk", "-v"), "h2load": first_line("h2load", "--version")}
    return {"processor": cpu.group(1) if cpu else platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory, 1),
            "kernel": platform.release(), "load_average": os.getloadavg()[0], "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": {name: version for name, version in versions.items() if version}}


def first_line(program, flag):
    if not program or not shutil.which(str(program)):
        return None
    done = subprocess.run([str(program), flag], capture_output=True, text=True)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return re.sub(r"\s+Copyright.*", "", lines[0]) if lines else None


def machine_text(found):
    versions = ", ".join(found["versions"].values())
    return (f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, Linux {found['kernel']}, "
            f"load average {found['load_average']:.1f} at the start, {found['at']}\n{versions}\n")


def write_json(path, found, options, tables):
    whole = {"machine": found, "options": options, "tables": [dataclasses.asdict(table) for table in tables]}
    pathlib.Path(path).write_text(json.dumps(whole, indent=1) + "\n")
