"""Programs that a measurement starts: each on its cores, watched through /proc, and ended by its own id."""

import collections, os, pathlib, re, subprocess

TICKS = os.sysconf("SC_CLK_TCK")
# Longer than anything needs to end once it is told to; what has not ended then is ended on the spot.
END_WITHIN_S = 40

Cpu = collections.namedtuple("Cpu", "user kernel")


class Program:
    """A process and those that it starts itself, as nginx does."""

    def __init__(self, name, cores, command, work, environment=None):
        self.name, self.log = name, work / f"{name}.out"
        # A soft limit may have been raised for this process; its children have it from here.
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["taskset", "-c", ",".join(map(str, cores)), *map(str, command)], cwd=work, stdout=log,
                                            stderr=log, env={**os.environ, **(environment or {})})

    @property
    def pid(self):
        return self.process.pid

    def check(self):
        """Ends everything with the program's own words when it has ended before its time."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text(errors='replace')[-3000:]}")

    def pids(self):
        """It and its descendants."""
        found, open_ = [], [self.pid]
        while open_:
            pid = open_.pop()
            found.append(pid)
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                open_ += map(int, children.read_text().split())
        return found

    def cpu(self):
        """Seconds on the processor since the start, the user's share and the kernel's, of all threads there are or were."""
        self.check()
        user = kernel = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            user, kernel = user + int(fields[11]), kernel + int(fields[12])
        return Cpu(user / TICKS, kernel / TICKS)

    def threads(self):
        """Seconds on the processor by thread, as (name, id)."""
        found = {}
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            found[(task / "comm").read_text().strip(), int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
        return found

    def resident_mib(self):
        """Resident memory; of a master and its worker the larger one's, since they share most of what the smaller one has."""
        self.check()
        rollups = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids()]
        return max(int(re.search(r"^Rss:\s+(\d+)", rollup, re.M).group(1)) for rollup in rollups) / 1024

    def descriptors(self):
        """Open file descriptors."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
