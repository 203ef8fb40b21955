#!/usr/bin/env bash
# Starts one gateway worker on one core, registers the benchmark's upstream through the REST API, and stays until
# interrupted. The upstream is an HTTP server on 127.0.0.1:9000 and an HTTPS one on 127.0.0.1:9443 whose certificate for
# api.example.com is signed by (or is) the PEM file given.
#
#   tests/bench/gateway.sh api.pem [proxy-port] [core] [module]
#
# With a module, a Proxy-Wasm filter, requests for filtered.example.com go through it.
set -euo pipefail
trust=${1:?usage: gateway.sh TRUST.pem [proxy-port] [core] [module]}
port=${2:-3128}
core=${3:-0}
module=${4:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
binary=${TIDEGATE:-${CARGO_TARGET_DIR:-$root/target}/release/tidegate}
data=$(mktemp -d)
trap 'kill "$gateway" 2>/dev/null; wait "$gateway" 2>/dev/null; rm -rf "$data"' EXIT

taskset -c "$core" "$binary" serve --data-dir "$data" --workers 1 --record-log "$data/records.jsonl" \
  --proxy-listen "127.0.0.1:$port" --admin-listen 127.0.0.1:7070 --metrics-listen 127.0.0.1:7071 >"$data/stdout" 2>"$data/stderr" &
gateway=$!
until curl -fsS http://127.0.0.1:7071/readyz >/dev/null 2>&1; do
  kill -0 "$gateway" 2>/dev/null || { cat "$data/stderr" >&2; exit 1; }
done

put() { # collection/name document
  curl -fsS -X PUT "http://127.0.0.1:7070/v1/$1" -H "authorization: Bearer $(cat "$data/admin.token")" \
    -H 'content-type: application/json' -d "$2" >/dev/null || { echo "registering $1 failed" >&2; exit 1; }
}
pem=$(awk '{printf "%s\\n", $0}' "$trust")
put credentials/bench-trust "{\"kind\": \"trust\", \"pem\": \"$pem\"}"
put services/plain '{"hosts": ["api.example.com"], "ports": [{"number": 80, "protocol": "http"}, {"number": 9000, "protocol": "tcp"}],
  "resolution": "static", "endpoints": [{"address": "127.0.0.1", "port": 9000}], "networks": ["127.0.0.0/8"]}'
put services/secure '{"hosts": ["secure.example.com"], "ports": [{"number": 443, "protocol": "https"}],
  "resolution": "static", "endpoints": [{"address": "127.0.0.1", "port": 9443}], "networks": ["127.0.0.0/8"],
  "tls": {"mode": "simple", "sni": "api.example.com", "names": ["api.example.com"], "trust": "bench-trust", "alpn": ["http/1.1"]}}'
put services/filtered '{"hosts": ["filtered.example.com"], "ports": [{"number": 80, "protocol": "http"}],
  "resolution": "static", "endpoints": [{"address": "127.0.0.1", "port": 9000}], "networks": ["127.0.0.0/8"]}'
if [ -n "$module" ]; then
  curl -fsS -X POST http://127.0.0.1:7070/v1/plugins/headers -H "authorization: Bearer $(cat "$data/admin.token")" \
    -H 'content-type: application/wasm' --data-binary "@$module" >/dev/null || { echo "uploading $module failed" >&2; exit 1; }
  put routes/filtered '{"service": "filtered", "filters": [{"plugin": "headers", "root_id": "headers"}]}'
fi
put workloads/load '{"networks": ["127.0.0.0/8"], "principal": "spiffe://bench/ns/load/sa/wrk", "namespace": "load"}'
put rules/load '{"action": "allow", "from": [{"namespaces": ["load"]}], "to": [{"services": ["plain", "secure", "filtered"]}]}'
echo "gateway $gateway listens on 127.0.0.1:$port; data in $data"
wait "$gateway"
