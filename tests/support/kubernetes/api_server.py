"""A real Kubernetes API server for a test, in a network namespace of its own. There is no kubelet and no controller."""

from __future__ import annotations

import base64
import secrets
import subprocess
from pathlib import Path
from typing import Literal, Self

import grpc
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.certificates import Authority
from tests.support.kubernetes import build
from tests.support.kubernetes.namespace import Namespace
from tests.support.kubernetes.objects import Objects
from tests.support.wait import ProcessEndedError, wait_for

Channel = Literal["standard", "experimental"]
NODE, PORT = "10.244.0.1", 6443
"""The address of the API server inside of the namespace."""
SERVICES = "10.96.0.0/16"
_START = 240.0
"""Seconds in which it must be ready: it takes 5 on an idle machine, and much more beside a build."""
_MEMORY = "400MiB"
_REVISION = 0x08
"""The field `revision` of etcd's CompactionRequest, on the wire."""


class ApiServer:
    """An API server with the CRDs of the Gateway API of a channel or in a folder, unless `crds` is None. Use as a context manager.

    Its folder has `client.crt` and `client.key` too, of a user `alice` who has no rights. `kubeconfig` is that of an administrator on the host, and `inside` that of processes in the network namespace. The
    data lives in `folder`, so that the API server can be killed and started again. `flags` are further ones of
    kube-apiserver.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        crds: Channel | Path | None = "standard",
        namespace: Namespace | None = None,
        memory: str = _MEMORY,
    ) -> None:
        self.folder = folder
        self.kubeconfig, self.inside = folder / "kubeconfig", folder / "kubeconfig-inside"
        self.authority = Authority("Kubernetes")
        self.namespace = namespace or Namespace.new()
        self._flags, self._crds, self._memory = flags, crds, memory
        self._log = folder / "kas.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._write()
        self.start()
        if self._crds is not None:
            with self.objects() as objects:
                objects.install(build.folder() / "crds" / self._crds)  # a whole path stays as it is
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.namespace.__exit__()

    def objects(self) -> Objects:
        """Return an administrator's view of the objects."""
        return Objects(self.kubeconfig)

    def start(self) -> None:
        """Start it, also again on the same data, and wait until it is ready."""
        self.launch()
        self.ready()

    def launch(self) -> None:
        """Start it, without waiting for it. It ends with the thread that calls this."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)

    def ready(self) -> None:
        """Wait until it is ready."""
        with self.objects() as objects:
            wait_for(lambda: self._ready(objects), lambda: f"the API server; its log:\n{self.log}", _START)

    def compact(self) -> None:
        """Have etcd forget all versions but the current one, so that older ones are a 410."""
        with self.objects() as objects, grpc.insecure_channel(f"unix:{self.folder}/etcd.sock") as channel:
            revision = int(objects.request("GET", "/api/v1/nodes")["metadata"]["resourceVersion"])
            call = channel.unary_unary("/etcdserverpb.KV/Compact")
            call(bytes([_REVISION]) + _varint(revision), timeout=30)

    def _ready(self, objects: Objects) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ProcessEndedError(f"the API server ended with {self._process.returncode}:\n{self.log}")
        return objects.ready()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without notice. Does nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def log(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-3000:] if self._log.exists() else ""

    def _command(self) -> list[str]:
        flags = {
            "secure-port": PORT,
            "bind-address": "0.0.0.0",
            "advertise-address": NODE,
            "cert-dir": self.folder / "certificates",
            "tls-cert-file": self.folder / "server.crt",
            "tls-private-key-file": self.folder / "server.key",
            "client-ca-file": self.folder / "ca.crt",
            "token-auth-file": self.folder / "tokens.csv",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self.folder / "accounts.key",
            "service-account-signing-key-file": self.folder / "accounts.key",
            "service-cluster-ip-range": SERVICES,
            "authorization-mode": "RBAC",
            "disable-admission-plugins": "ServiceAccount,TaintNodesByCondition",
            "endpoint-reconciler-type": "none",
            "allow-privileged": "true",
            "profiling": "false",
        }
        words = [f"--{name}={value}" for name, value in flags.items()]
        return self.namespace.command(
            "env", f"GOMEMLIMIT={self._memory}", build.folder() / "kas", self.folder, *words, *self._flags
        )

    def _write(self) -> None:
        """Write its keys, certificates, tokens and kubeconfigs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        certificate, key = self.authority.issue("kubernetes.default.svc", "localhost", "127.0.0.1", NODE)
        client, client_key = self.authority.issue("alice")
        token = secrets.token_hex(16)
        content = {
            "server.crt": certificate,
            "server.key": key,
            "client.crt": client,
            "client.key": client_key,
            "ca.crt": self.authority.pem,
            "accounts.key": _rsa_key(),
            "tokens.csv": f'{token},admin,admin,"system:masters"\n'.encode(),
        }
        for name, value in content.items():
            (self.folder / name).write_bytes(value)
        self.kubeconfig.write_text(self._kubeconfig("127.0.0.1", self.namespace.forward(NODE, PORT), token))
        self.inside.write_text(self._kubeconfig(NODE, PORT, token))

    def _kubeconfig(self, address: str, port: int, token: str) -> str:
        authority = base64.b64encode(self.authority.pem).decode()
        cluster = {"server": f"https://{address}:{port}", "certificate-authority-data": authority}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "users": [{"name": "admin", "user": {"token": token}}],
        }
        return yaml.safe_dump(document, sort_keys=False)


def _rsa_key() -> bytes:
    """Return a key that signs tokens of service accounts."""
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _varint(number: int) -> bytes:
    """Return a number as Protocol Buffers encode it."""
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])
