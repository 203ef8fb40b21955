"""The rig: a folder of its own, free ports, the cores and who is on them, and everything that was started."""

import contextlib, os, pathlib, resource, shutil, socket, tempfile, time

from .program import Program

# Below the range from which the kernel gives callers theirs: ten thousand of them must not meet a port that is still to be used.
FIRST_PORT, LAST_PORT = 21000, 29999
START_WITHIN_S = 30


class Rig:
    """Used with `with`: at its end everything is stopped by id, the last first, and the folder is removed unless something failed."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("measuring needs two cores: one for the proxies, one for the load and the upstream")
        # A second core for the proxies, of its own where there are enough.
        self.proxy_core, self.second_core = cores[0], cores[1]
        self.load_cores = cores[2:] if len(cores) >= 4 else cores[1:2]
        self.shared = len(cores) < 4
        self.programs, self.next_port = [], FIRST_PORT
        self.most_files = raise_files()

    def __enter__(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
        # A proxy that gives up root has to read its configuration still.
        self.work.chmod(0o755)
        os.sched_setaffinity(0, self.load_cores)
        return self

    def __exit__(self, kind, _value, _trace):
        self.stop(*self.programs)
        if kind is None or kind is KeyboardInterrupt:
            shutil.rmtree(self.work)
        else:
            print(f"the logs are in {self.work}", flush=True)

    def port(self):
        """A port that nobody listens on."""
        for port in range(self.next_port, LAST_PORT):
            with contextlib.closing(socket.socket()) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind(("127.0.0.1", port))
                except OSError:
                    continue
                self.next_port = port + 1
                return port
        raise SystemExit(f"no port is free between {FIRST_PORT} and {LAST_PORT}")

    def start(self, name, cores, *command, ports=(), environment=None):
        """Starts a program and waits until it listens on `ports`."""
        program = Program(f"{name}-{len(self.programs)}", cores, command, self.work, environment)
        self.programs.append(program)
        for port in ports:
            self.until(f"{name} to listen on port {port}", lambda port=port: listens(port), program)
        return program

    def until(self, what, condition, program, within=START_WITHIN_S):
        """Waits until `condition()` is true, and answers it; what cannot be reached yet is not."""
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(OSError):
                if answer := condition():
                    return answer
            program.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {within} s in vain for {what}; its log is {program.log}")
            time.sleep(0.005)

    def stop(self, *programs):
        for program in reversed(programs):
            program.stop()
        self.programs = [program for program in self.programs if program not in programs]


def listens(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def raise_files():
    """Lets this process and its children open as many files as the system permits; answers how many that is."""
    wanted, (_, hard) = 65536, resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
