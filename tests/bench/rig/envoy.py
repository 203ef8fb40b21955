"""Envoy's configuration, as JSON, which it reads too: one listener of one kind."""

KIND = "type.googleapis.com/envoy.extensions."


def config(kind, port, upstream, filter_module):
    """What Envoy needs to do `kind` on `port`."""
    listener = {"name": kind, "address": address(port), "filter_chains": [chain(kind, filter_module)]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster(kind, upstream)]}}


# Envoy speaks no more than TLS 1.2 to upstreams unless it is told to.
NEWEST_TLS = {"tls_maximum_protocol_version": "TLSv1_3"}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def chain(kind, filter_module):
    if kind == "tunnel":
        return {"filters": [network("tcp_proxy.v3.TcpProxy", stat_prefix=kind, cluster="upstream")]}
    made = {"filters": [network("http_connection_manager.v3.HttpConnectionManager", **manager(kind, filter_module))]}
    if kind == "mutual":
        context = {"tls_params": NEWEST_TLS, "validation_context": {"trusted_ca": {"filename": "ca.pem"}},
                   "tls_certificates": [{"certificate_chain": {"filename": "api.pem"}, "private_key": {"filename": "api.key"}}]}
        made["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": KIND + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True, "common_tls_context": context}}
    return made


def network(name, **settings):
    return {"name": name, "typed_config": {"@type": KIND + "filters.network." + name, **settings}}


def manager(kind, filter_module):
    filters = [{"name": "router", "typed_config": {"@type": KIND + "filters.http.router.v3.Router"}}]
    if kind == "filter":
        machine = {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(filter_module)}}}
        filters.insert(0, {"name": "wasm", "typed_config": {"@type": KIND + "filters.http.wasm.v3.Wasm",
                                                            "config": {"name": "headers", "root_id": "headers", "vm_config": machine}}})
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}
    more = {}
    if kind == "connect":
        route = {"match": {"connect_matcher": {}}, "route": {"cluster": "upstream", "upgrade_configs": [
            {"upgrade_type": "CONNECT", "connect_config": {}}]}}
        more = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    return {"stat_prefix": kind, "generate_request_id": False, "route_config": {"virtual_hosts": hosts}, "http_filters": filters, **more}


def cluster(kind, upstream):
    port = {"tls": upstream.tls, "fresh": upstream.fresh, "grpc": upstream.grpc}.get(kind, upstream.plain)
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    # Far above what is asked for: a limit of its own would be measured instead.
    limits = {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]}
    made = {"name": "upstream", "type": "STATIC", "connect_timeout": "2s", "circuit_breakers": limits,
            "load_assignment": {"cluster_name": "upstream", "endpoints": endpoints}}
    if kind in ("tls", "fresh"):
        names = [{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}]
        trust = {"trusted_ca": {"filename": "ca.pem"}, "match_typed_subject_alt_names": names}
        made["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": KIND + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": "api.example.com",
            "common_tls_context": {"tls_params": NEWEST_TLS, "validation_context": trust}}}
    if kind == "grpc":
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": KIND + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    return made
