"""The gateway: started on a data folder of its own, and given what to do through its REST API as an operator would."""

import http.client, json, os, pathlib, re

from .peers import TARGET, Target
from .upstream import CALLER, HOST

BINARY = pathlib.Path(os.environ.get("TIDEGATE") or TARGET / "release" / "tidegate").resolve()
# The hosts that are registered, each a service of its own: see `register`.
PLAIN, SECURE, FRESH, GRPC = HOST, "secure.example.com", "fresh.example.com", "grpc.example.com"


class Gateway:
    """One running gateway. It keeps records in its database and in a file, as one in earnest would."""

    def __init__(self, rig, workers=1, cores=None, data=None, flags=()):
        self.rig = rig
        self.data = data or rig.work / f"data-{len(rig.programs)}-{rig.next_port}"
        self.data.mkdir(exist_ok=True)
        self.proxy, self.mutual, self.admin, self.metrics = (rig.port() for _ in range(4))
        self.records = self.data / "records.jsonl"
        listen = {"proxy": self.proxy, "mtls": self.mutual, "admin": self.admin, "metrics": self.metrics}
        command = [BINARY, "serve", "--data-dir", self.data, "--workers", workers, "--record-log", self.records, "--log", "warn",
                   "--mtls-certificate", rig.work / "api.pem", "--mtls-key", rig.work / "api.key", "--mtls-client-ca", rig.work / "ca.pem"]
        command += [word for name, port in listen.items() for word in (f"--{name}-listen", f"127.0.0.1:{port}")]
        self.program = rig.start("tidegate", cores or [rig.proxy_core], *command, *flags)
        rig.until("the gateway to be ready", lambda: self.ask_metrics("/readyz")[0] == 200, self.program, within=120)
        self.token = (self.data / "admin.token").read_text().strip()
        self.connection = None

    def target(self, name="tidegate", host=PLAIN, by_connect=False):
        return Target(name, self.program, self.proxy, host, by_connect)

    def ask_metrics(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def metric(self, name):
        """The sum over its label sets."""
        _, page = self.ask_metrics("/metrics")
        values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.M)
        if not values:
            raise SystemExit(f"the gateway has no metric {name}")
        return sum(map(float, values))

    def dropped(self):
        """Records that were lost, on their way to the file or to the database."""
        return round(sum(map(self.metric, ("tidegate_records_dropped_total", "tidegate_exchange_records_dropped_total"))))

    def call(self, method, path, body, kind="json"):
        """What the API answers, and the revision that it names."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=600)
        headers = {"authorization": f"Bearer {self.token}", "content-type": f"application/{kind}"}
        self.connection.request(method, f"/v1/{path}", body, headers)
        reply = self.connection.getresponse()
        text = reply.read().decode()
        if reply.status not in (200, 201, 204):
            raise SystemExit(f"{method} {path} was answered with {reply.status}: {text}")
        return text, int((reply.getheader("etag") or '"0"').strip('"'))

    def put(self, path, document):
        return self.call("PUT", path, json.dumps(document))[1]

    def upload(self, name, module):
        if not module.exists():
            raise SystemExit(f"{module} is missing; build it first: make filters")
        return self.call("POST", f"plugins/{name}", module.read_bytes(), "wasm")[1]

    def in_force(self, revision):
        self.rig.until(f"revision {revision} to be in force", lambda: self.metric("tidegate_revision") >= revision, self.program)

    def register(self, upstream):
        """A service for each thing that the upstream does, the caller as a workload, and a rule that lets it reach them."""
        pem = (self.rig.work / "ca.pem").read_text()
        self.put("credentials/bench-trust", {"kind": "trust", "pem": pem})
        tls = {"mode": "simple", "sni": HOST, "names": [HOST], "trust": "bench-trust", "alpn": ["http/1.1"]}
        # The port of the tunnels is not the upstream's; the endpoint says where it really is.
        tcp = {"number": 9000, "protocol": "tcp"}
        self.put("services/plain", service(PLAIN, upstream.plain, "http", tcp))
        self.put("services/secure", service(SECURE, upstream.tls, "https") | {"tls": tls})
        self.put("services/fresh", service(FRESH, upstream.fresh, "https") | {"tls": tls})
        names = ["plain", "secure", "fresh"]
        if upstream.grpc:
            self.put("services/grpc", service(GRPC, upstream.grpc, "grpc") | {"tls": {"mode": "disabled"}})
            names.append("grpc")
        self.put("workloads/load", {"networks": ["127.0.0.0/8"], "principal": CALLER, "namespace": "load"})
        return self.allow(names)

    def allow(self, names):
        document = {"action": "allow", "from": [{"principals": [CALLER]}], "to": [{"services": names}]}
        revision = self.put("rules/load", document)
        self.in_force(revision)
        return revision

    def filtered(self, upstream, plugin, module, host, **use):
        """A service of its own whose only difference is one filter on its route."""
        name = host.split(".")[0]
        self.put(f"services/{name}", service(host, upstream.plain, "http"))
        self.upload(plugin, module)
        self.put(f"routes/{name}", {"service": name, "filters": [{"plugin": plugin, **use}]})
        self.in_force(self.put(f"rules/{name}", {"action": "allow", "from": [{"principals": [CALLER]}], "to": [{"services": [name]}]}))
        return self.target(host=host)


def service(host, port, protocol, *ports):
    """A service with one endpoint on this machine, and no limit of its own on connections."""
    number = 443 if protocol == "https" else 80
    return {"hosts": [host], "ports": [{"number": number, "protocol": protocol}, *ports], "resolution": "static",
            "endpoints": [{"address": "127.0.0.1", "port": port}], "networks": ["127.0.0.0/8"], "connections": {"max": 100000, "max_idle": 256}}
