#!/usr/bin/env python3
"""Measures the gateway beside HAProxy, nginx and Envoy: the same upstream and the same load, a core for each, one run.

What is compared is CPU time per request (user and system, of all threads, from /proc): throughput on a shared machine
swings, CPU per request hardly does. The proxies take turns in every round; medians are printed, with the gateway's ratio
to each peer.

    make filters envoy
    cargo build --release -p tidegate-gateway --bin tidegate
    tests/bench/beside.py [--rounds 5] [--seconds 4] [--connections 32] [--case CASE]… [--json FILE]

Needs nginx, wrk and openssl; HAProxy and Envoy (ENVOY=/path/to/envoy, else the one of `make envoy`) take part where they are
found. Core 0 is for the proxies, core 1 for the load and the upstream. Cases: `plain`, HTTP/1.1 to HTTP/1.1; `tls`, the same
with TLS originated and the certificate verified; `filter`, plain with one Proxy-Wasm module that reads and adds a header in
each direction, the same for the gateway and for Envoy. The gateway does everything it always does: identity, decision,
metrics, records to the database and to a file; the peers only forward.
"""
import argparse, json, os, pathlib, re, shutil, statistics, subprocess, sys, tempfile, time, urllib.request

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
UPSTREAM = {"plain": 9000, "tls": 9443}
GATEWAY = 3128
HOSTS = {"plain": "api.example.com", "tls": "secure.example.com", "filter": "filtered.example.com"}  # as gateway.sh registers them
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent.parent / "target").resolve()
FILTER = TARGET / "wasm32-wasip1" / "filter" / "headers.wasm"

NGINX_UPSTREAM = """
worker_processes 1; daemon off; pid upstream.pid; error_log upstream.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate api.pem; ssl_certificate_key api.key;
    location / {{ default_type text/plain; return 200 "{body}"; }}
  }}
}}
"""

NGINX = """
worker_processes 1; daemon off; pid proxy.pid; error_log proxy.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000;
  upstream plain {{ server 127.0.0.1:{plain}; keepalive 128; keepalive_requests 1000000000; }}
  upstream tls {{ server 127.0.0.1:{tls}; keepalive 128; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  server {{ listen 127.0.0.1:8110; location / {{ proxy_pass http://plain; }} }}
  server {{
    listen 127.0.0.1:8111;
    location / {{
      proxy_pass https://tls; proxy_ssl_server_name on; proxy_ssl_name api.example.com;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate api.pem;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  http-reuse always
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend plain
  bind 127.0.0.1:8120
  default_backend plain
frontend tls
  bind 127.0.0.1:8121
  default_backend tls
backend plain
  server one 127.0.0.1:{plain}
backend tls
  server one 127.0.0.1:{tls} ssl verify required ca-file api.pem sni str(api.example.com) verifyhost api.example.com
"""


def envoy_config(ports):
    """Envoy's configuration, as JSON, which it reads too."""
    kind = "type.googleapis.com/envoy.extensions."
    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    def listener(case, port, to=None, filters=()):
        router = {"name": "router", "typed_config": {"@type": kind + "filters.http.router.v3.Router"}}
        routes = {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to or case}}]}]}
        manager = {"@type": kind + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": case,
                   "generate_request_id": False, "route_config": routes, "http_filters": [*filters, router]}
        return {"name": case, "address": address(port), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}
    def cluster(case):
        endpoint = {"endpoint": {"address": address(ports[case])}}
        return {"name": case, "type": "STATIC", "connect_timeout": "2s",
                "load_assignment": {"cluster_name": case, "endpoints": [{"lb_endpoints": [endpoint]}]}}
    machine = {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(FILTER)}}}
    wasm = {"name": "wasm", "typed_config": {"@type": kind + "filters.http.wasm.v3.Wasm",
                                             "config": {"name": "headers", "root_id": "headers", "vm_config": machine}}}
    secure = cluster("tls")
    names = [{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}]
    trust = {"trusted_ca": {"filename": "api.pem"}, "match_typed_subject_alt_names": names}
    secure["transport_socket"] = {"name": "tls", "typed_config": {
        "@type": kind + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": "api.example.com",
        "common_tls_context": {"validation_context": trust}}}
    return {"static_resources": {"listeners": [listener("plain", 8130), listener("tls", 8131),
                                               listener("filter", 8132, "plain", [wasm])],
                                 "clusters": [cluster("plain"), secure]}}


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def listening_pid(port):
    """The process that serves `port`: of a master and its workers, the youngest."""
    table = subprocess.run(["ss", "-ltnpH", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return max((int(pid) for pid in re.findall(r"pid=(\d+)", table)), default=None)


def measure(port, host, options):
    pid = listening_pid(port)
    if pid is None:
        raise SystemExit(f"nothing listens on port {port}; see the logs in the work folder")
    before = cpu_seconds(pid)
    out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency",
                          "-H", f"Host: {host}", "-H", "x-team: payments", f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    spent = cpu_seconds(pid) - before
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"port {port} failed some of its requests:\n{out}")
    count = int(re.search(r"(\d+) requests in", out).group(1))
    resident = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024
    return {"cpu_us": spent / count * 1e6, "per_second": count / options.seconds, "resident_mib": resident}


def start(running, work, core, *command):
    log = open(work / f"{pathlib.Path(command[0]).name}-{len(running)}.out", "wb")
    running.append(subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], cwd=work, stdout=log, stderr=log))


def wait_for(port, what):
    deadline = time.monotonic() + 20
    while listening_pid(port) is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start on port {port} within 20 s")
        time.sleep(0.1)


def set_up(running, work):
    """Starts everything; answers the ports of each case by proxy."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
                    "-subj", "/CN=api.example.com", "-addext", "subjectAltName=DNS:api.example.com",
                    "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "api.key", "-out", "api.pem"],
                   cwd=work, check=True, capture_output=True)
    (work / "upstream.conf").write_text(NGINX_UPSTREAM.format(body="x" * 64, **UPSTREAM))
    (work / "nginx.conf").write_text(NGINX.format(**UPSTREAM))
    (work / "haproxy.cfg").write_text(HAPROXY.format(**UPSTREAM))
    (work / "envoy.json").write_text(json.dumps(envoy_config(UPSTREAM)))
    ports = {"plain": {"tidegate": GATEWAY, "nginx": 8110}, "tls": {"tidegate": GATEWAY, "nginx": 8111}, "filter": {"tidegate": GATEWAY}}
    start(running, work, 1, "nginx", "-p", work, "-c", "upstream.conf")
    start(running, work, 0, "nginx", "-p", work, "-c", "nginx.conf")
    if shutil.which("haproxy"):
        start(running, work, 0, "haproxy", "-f", "haproxy.cfg")
        ports["plain"]["haproxy"], ports["tls"]["haproxy"] = 8120, 8121
    installed = TARGET / "envoy" / "envoy"
    envoy = os.environ.get("ENVOY") or (installed if installed.exists() else shutil.which("envoy"))
    if envoy:
        start(running, work, 0, envoy, "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error")
        ports["plain"]["envoy"], ports["tls"]["envoy"], ports["filter"]["envoy"] = 8130, 8131, 8132
    start(running, work, 0, HERE / "gateway.sh", work / "api.pem", GATEWAY, 0, FILTER)
    for case in ports.values():
        for name, port in case.items():
            wait_for(port, name)
    registered(work)
    return ports


def registered(work):
    """Waits until the gateway forwards what its script registers last."""
    deadline = time.monotonic() + 20
    request = urllib.request.Request(f"http://127.0.0.1:{GATEWAY}/", headers={"Host": HOSTS["filter"]})
    while True:
        try:
            urllib.request.urlopen(request, timeout=2).read()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"the gateway does not forward; see the logs in {work}") from None
            time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--case", action="append", choices=list(HOSTS), help="only this one; may be given again")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if not FILTER.exists():
        raise SystemExit(f"{FILTER} is missing; build it first: make filters")
    work, running, summary = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-bench-")), [], {}
    work.chmod(0o755)
    try:
        for case, ports in set_up(running, work).items():
            if options.case and case not in options.case:
                continue
            rounds = {name: [] for name in ports}
            for _ in range(options.rounds):
                for name, port in ports.items():
                    rounds[name].append(measure(port, HOSTS[case], options))
            medians = {name: {key: statistics.median(one[key] for one in all_) for key in all_[0]} for name, all_ in rounds.items()}
            summary[case] = medians
            print(f"| {case} | CPU µs per request | requests/s | resident MiB | tidegate is |\n| --- | --- | --- | --- | --- |")
            for name, row in medians.items():
                ratio = medians["tidegate"]["cpu_us"] / row["cpu_us"]
                print(f"| {name} | {row['cpu_us']:.1f} | {row['per_second']:.0f} | {row['resident_mib']:.0f} | {ratio:.2f} × |")
            print(flush=True)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(summary, indent=1) + "\n")
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
