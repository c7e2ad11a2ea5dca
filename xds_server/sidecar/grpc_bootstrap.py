"""The bootstrap of clients of gRPC that speak xDS themselves: environment variables and files of their containers.

https://grpc.github.io/grpc/cpp/md_doc_grpc_xds_bootstrap_format.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xds_server.sidecar.identity import MOUNTED, VOLUME, SidecarSettings

MODE = "grpc"
"""The value of the label of pods whose containers speak xDS."""
_CONFIG = "GRPC_XDS_BOOTSTRAP_CONFIG"
_TOKENS = "GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS"
"""With it, gRPC sends the token (https://github.com/grpc/proposal/blob/master/A97-xds-jwt-call-creds.md)."""
_FIELDS = {"XDS_POD_NAME": "metadata.name", "XDS_POD_NAMESPACE": "metadata.namespace"}


def container(one: Mapping[str, Any], namespace: str, settings: SidecarSettings) -> Mapping[str, Any]:
    """Return a container with the bootstrap. Variables that it has already stay."""
    fields: list[Mapping[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _FIELDS.items()
    ]
    added = [
        *fields,  # the kubelet expands what is defined before
        {"name": _TOKENS, "value": "true"},
        {"name": _CONFIG, "value": _bootstrap(namespace, settings)},
    ]
    known = {variable.get("name") for variable in one.get("env") or ()}
    variables = [*(each for each in added if each["name"] not in known), *(one.get("env") or ())]
    mount = {"name": VOLUME, "mountPath": str(MOUNTED.folder), "readOnly": True}
    return {**one, "env": variables, "volumeMounts": [*(one.get("volumeMounts") or ()), mount]}


def _bootstrap(namespace: str, settings: SidecarSettings) -> str:
    channel = {"type": "tls", "config": {"ca_certificate_file": str(MOUNTED.authorities)}}
    call = {"type": "jwt_token_file", "config": {"jwt_token_file": str(MOUNTED.token)}}
    server = {
        "server_uri": settings.xds_address,
        "channel_creds": [channel],
        "call_creds": [call],
        "server_features": ["xds_v3"],
    }
    node = {"id": "$(XDS_POD_NAMESPACE)/$(XDS_POD_NAME)", "cluster": namespace}
    return json.dumps({"xds_servers": [server], "node": node}, sort_keys=True)
