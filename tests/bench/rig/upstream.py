"""The external API that everything is measured against, and the certificates of all sides.

nginx answers 64 bytes, in the clear, over TLS, and over TLS with a full handshake for every exchange; it serves the bulk file.
nghttpd answers gRPC's unary calls, with trailers.
"""

import shutil, subprocess

HOST = "api.example.com"
CALLER = "spiffe://bench/ns/load/sa/caller"
BULK_MIB = 256
GRPC_PATH = "/bench.Echo/Call.grpc"

CONFIG = """
worker_processes 1; daemon off; pid {name}.pid; error_log {name}.log; worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 900s; client_header_timeout 900s;
  client_body_temp_path {name}-1; proxy_temp_path {name}-2; fastcgi_temp_path {name}-3; uwsgi_temp_path {name}-4; scgi_temp_path {name}-5;
  default_type text/plain;
  ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate api.pem; ssl_certificate_key api.key;
  server {{
    listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl backlog=4096;
    location / {{ return 200 "{body}"; }}
    location /bulk {{ root www; }}
  }}
  server {{
    listen 127.0.0.1:{fresh} ssl backlog=4096;
    ssl_session_cache off; ssl_session_tickets off; keepalive_timeout 0;
    location / {{ return 200 "{body}"; }}
  }}
}}
"""


class Upstream:
    """Its ports: `plain`, `tls`, `fresh`, and `grpc`, which is none where nghttpd is not installed."""

    def __init__(self, rig):
        self.plain, self.tls, self.fresh, self.grpc = rig.port(), rig.port(), rig.port(), None
        certificates(rig.work)
        (rig.work / "www").mkdir()
        with open(rig.work / "www" / "bulk", "wb") as bulk:
            bulk.truncate(BULK_MIB << 20)
        text = CONFIG.format(name="upstream", body="x" * 64, files=rig.most_files, connections=rig.most_files - 200, plain=self.plain,
                             tls=self.tls, fresh=self.fresh)
        (rig.work / "upstream.conf").write_text(text)
        self.program = rig.start("upstream", rig.load_cores, "nginx", "-p", rig.work, "-c", "upstream.conf",
                                 ports=[self.plain, self.tls, self.fresh])
        if shutil.which("nghttpd"):
            self.start_grpc(rig)

    def start_grpc(self, rig):
        self.grpc = rig.port()
        answer = rig.work / "grpc" / GRPC_PATH.strip("/")
        answer.parent.mkdir(parents=True)
        # A message of 64 bytes behind gRPC's five: not compressed, and its length.
        answer.write_bytes(b"\0\0\0\0\x40" + b"x" * 64)
        (rig.work / "grpc-call").write_bytes(answer.read_bytes())
        (rig.work / "mime").write_text("application/grpc grpc\n")
        rig.start("nghttpd", rig.load_cores, "nghttpd", "--no-tls", "-a", "127.0.0.1", "--mime-types-file", rig.work / "mime", "-d",
                  rig.work / "grpc", "--trailer", "grpc-status: 0", self.grpc, ports=[self.grpc])


def certificates(work):
    """An authority `ca`, a server `api` that it signed, and a caller `caller`, each as .pem and .key: P-256, of seven days."""
    def make(name, *more):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7", "-subj",
                        f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *more], cwd=work, check=True, capture_output=True)
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    make("ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    make("api", *signed, "-addext", f"subjectAltName=DNS:{HOST},DNS:localhost", "-addext", "extendedKeyUsage=serverAuth")
    make("caller", *signed, "-addext", f"subjectAltName=URI:{CALLER}", "-addext", "extendedKeyUsage=clientAuth")
    # nginx reads it as root before its worker gives root up; the others run as who starts them.
    for name in ("api.key", "caller.key"):
        (work / name).chmod(0o600)
