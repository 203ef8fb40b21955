"""The filters that ship, each with a small configuration under which it starts."""

import base64


def field(number, content):
    """A field of a protobuf message, of the kind that has a length."""
    return bytes([number << 3 | 2, len(content)]) + content


def descriptors():
    """`service bench.Notes { rpc Write(Note) returns (Note); }` and its message of one string, as protoc would set them down."""
    text = field(1, b"text") + b"\x18\x01\x20\x01\x28\x09"
    note = field(1, b"Note") + field(2, text)
    write = field(1, b"Write") + field(2, b".bench.Note") + field(3, b".bench.Note")
    notes = field(1, b"Notes") + field(2, write)
    file = field(1, b"bench.proto") + field(2, b"bench") + field(4, note) + field(6, notes) + field(12, b"proto3")
    return base64.b64encode(field(1, file)).decode()


SOAP = {"version": "1.1", "path": "/orders", "namespace": "urn:example:orders",
        "operations": [{"method": "GET", "path": "/orders/{id}", "element": "GetOrder", "response": "GetOrderResponse"}]}
BLUE = {"when": {"labels": {"tenant": "blue"}}, "tls": {"mode": "simple", "trust": "bench-trust"}}
ORIGINATION = {"rules": [BLUE, {"tls": {"mode": "simple"}}]}

# By the plugin's name: the module's file, and what the route's entry says besides.
USES = {
    "audit": ("audit", {"config": {"kind": "bench", "request_headers": ["x-team"], "digests": ["request"]}}),
    "credential": ("credential", {"config": {"entries": [{"when": {"namespaces": ["load"]}, "credential": "bench-secret"}]},
                                  "grants": {"credentials": ["bench-secret"]}}),
    "grpc-web": ("grpc_web", {"config": {"origins": ["https://app.example"]}}),
    "json-grpc": ("json_grpc", {"config": {"descriptors": descriptors()}, "grants": {"paths": ["/bench.Notes/*"]}}),
    "redact": ("redact", {"config": {"detectors": ["card", "keys"], "request": "refuse", "response": "mask"}}),
    "soap-json": ("soap_json", {"config": SOAP, "grants": {"paths": ["/orders"]}}),
    "tls-origination": ("tls_origination", {"config": ORIGINATION, "grants": {"credentials": ["bench-trust"]}}),
}
