"""The other proxies: what each is configured with to do one kind of work, and starting those that can.

A kind is what is done: `plain`, `tls`, `filter`, `tunnel`, `connect`, `h2`, `grpc`, `mutual` (callers over mutual TLS) and `fresh` (a new
TLS connection to the upstream for every request).
"""

import dataclasses, functools, json, os, pathlib, re, shutil, subprocess

from . import envoy
from .program import Program
from .upstream import HOST

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
FILTER = TARGET / "wasm32-wasip1" / "filter" / "headers.wasm"


@dataclasses.dataclass
class Target:
    """A proxy that listens on `port`, and the host for which it is asked there."""
    name: str
    program: Program
    port: int
    host: str = HOST
    # Tunnels are asked for with CONNECT; otherwise the port itself leads to the upstream.
    by_connect: bool = False


NGINX = """
worker_processes {workers}; daemon off; pid {name}.pid; error_log {name}.log; worker_rlimit_nofile {files};
{modules}
events {{ worker_connections {connections}; }}
{body}
"""

NGINX_HTTP = """
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 900s;
  client_body_temp_path {name}-1; proxy_temp_path {name}-2; fastcgi_temp_path {name}-3; uwsgi_temp_path {name}-4; scgi_temp_path {name}-5;
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}{listen} backlog=4096; {server} location / {{ {location} }} }}
}}
"""

PASS = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_pass {scheme}://api;'
VERIFY = """proxy_ssl_protocols TLSv1.3; proxy_ssl_server_name on; proxy_ssl_name api.example.com;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem;"""
MUTUAL = "ssl_protocols TLSv1.3; ssl_certificate api.pem; ssl_certificate_key api.key; ssl_verify_client on; ssl_client_certificate ca.pem;"

HAPROXY = """
global
  nbthread {workers}
  maxconn {connections}
  maxpipes 64
defaults
  mode {mode}
  {reuse}
  timeout connect 2s
  timeout client 900s
  timeout server 900s
listen it
  bind 127.0.0.1:{port} {bind}
  server one 127.0.0.1:{upstream} {server}
"""


def start(rig, upstream, kind, workers=1, only=("nginx", "haproxy", "envoy")):
    """Every peer that is installed and can do `kind`, running. Who is not there is said aloud."""
    cores = [rig.proxy_core] if workers == 1 else [rig.proxy_core, rig.second_core]
    asked = {"nginx": nginx, "haproxy": haproxy, "envoy": envoys}
    found = [asked[name](rig, upstream, kind, workers, cores) for name in only]
    return [target for target in found if target]


@functools.cache
def skipped(why):
    """Says once who is not there."""
    print(f"skipped: {why}", flush=True)


def port_of(upstream, kind):
    return {"tls": upstream.tls, "fresh": upstream.fresh, "grpc": upstream.grpc}.get(kind, upstream.plain)


def nginx(rig, upstream, kind, workers, cores):
    if kind in ("filter", "connect"):
        return None
    port, name = rig.port(), f"nginx-{kind}"
    modules, body = "", ""
    if kind == "tunnel":
        stream = stream_module()
        if not stream:
            skipped("nginx has no stream module (Debian: libnginx-mod-stream)")
            return None
        modules = f"load_module {stream};"
        body = f"server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass 127.0.0.1:{upstream.plain}; }}"
        body = f"stream {{ proxy_timeout 900s; {body} }}"
    else:
        location = PASS.format(scheme="https" if kind in ("tls", "fresh") else "http")
        if kind in ("tls", "fresh"):
            location += VERIFY
        if kind == "grpc":
            location = "grpc_set_header TE trailers; grpc_pass grpc://api;"
        listen = {"h2": " http2", "grpc": " http2", "mutual": " ssl"}.get(kind, "")
        body = NGINX_HTTP.format(name=name, port=port, upstream=port_of(upstream, kind), listen=listen,
                                 server=MUTUAL if kind == "mutual" else "", location=location)
    text = NGINX.format(name=name, workers=workers, files=rig.most_files, connections=rig.most_files - 200, modules=modules, body=body)
    (rig.work / f"{name}.conf").write_text(text)
    program = rig.start("nginx", cores, "nginx", "-p", rig.work, "-c", f"{name}.conf", ports=[port])
    return Target("nginx", program, port)


@functools.cache
def stream_module():
    """Where nginx keeps its stream module, if it is one and installed."""
    flags = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    path = re.search(r"--modules-path=(\S+)", flags)
    module = path and pathlib.Path(path.group(1)) / "ngx_stream_module.so"
    return module if module and module.exists() else None


def haproxy(rig, upstream, kind, workers, cores):
    if kind in ("filter", "connect"):
        return None
    if not shutil.which("haproxy"):
        skipped("haproxy is not installed")
        return None
    port = rig.port()
    verify = "ssl verify required ca-file ca.pem sni str(api.example.com) verifyhost api.example.com"
    if kind == "fresh":
        # Elsewhere it resumes sessions; here every handshake is a whole one, as the upstream has it.
        verify += " no-ssl-reuse"
    (rig.work / "haproxy.pem").write_text((rig.work / "api.pem").read_text() + (rig.work / "api.key").read_text())
    text = HAPROXY.format(
        workers=workers, connections=(rig.most_files - 400) // 2, port=port, upstream=port_of(upstream, kind),
        mode="tcp" if kind == "tunnel" else "http", reuse="option splice-auto" if kind == "tunnel" else "http-reuse always",
        bind={"h2": "proto h2", "grpc": "proto h2", "mutual": "ssl crt haproxy.pem verify required ca-file ca.pem"}.get(kind, ""),
        server={"tls": verify, "fresh": verify, "grpc": "proto h2"}.get(kind, ""))
    (rig.work / f"haproxy-{kind}.cfg").write_text(text)
    program = rig.start("haproxy", cores, "haproxy", "-f", f"haproxy-{kind}.cfg", ports=[port])
    return Target("haproxy", program, port)


def envoys(rig, upstream, kind, workers, cores):
    binary = envoy_binary()
    if not binary:
        skipped("envoy is not installed (make envoy)")
        return None
    port = rig.port()
    (rig.work / f"envoy-{kind}.json").write_text(json.dumps(envoy.config(kind, port, upstream, FILTER)))
    program = rig.start("envoy", cores, binary, "-c", f"envoy-{kind}.json", "--concurrency", workers, "--disable-hot-restart", "-l", "error",
                        ports=[port])
    return Target("envoy", program, port, by_connect=kind == "connect")


@functools.cache
def envoy_binary():
    installed = TARGET / "envoy" / "envoy"
    return os.environ.get("ENVOY") or (installed if installed.exists() else shutil.which("envoy"))
