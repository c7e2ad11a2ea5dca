"""How a sidecar proves who it is: by the token of its pod's service account, and what it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from xds_server.proxy.mounted_identity import TOKEN, MountedIdentity

CONFIG_MAP = "xds-gateway-mesh"
"""The ConfigMap in each namespace of the mesh with the authorities that its sidecars trust."""
VOLUME = "xds-identity"
MOUNTED = MountedIdentity(folder=PurePosixPath("/var/run/xds-gateway"))
"""The files by which a sidecar trusts the control plane and proves who it is."""
_TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """The sidecars. `xds_address` is where they reach the control plane, and their tokens are for `audience`.

    `redirect_image` has the command `xds`, and `image` has Envoy.
    """

    xds_address: str
    audience: str
    image: str
    redirect_image: str


def trust(namespace: str, bundle: bytes) -> dict[str, Any]:
    """Return the ConfigMap of a namespace. `bundle` has the authorities to trust, in PEM."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": namespace},
        "data": dict(MOUNTED.files(bundle)),
    }


def volume(settings: SidecarSettings) -> dict[str, Any]:
    """Return the volume of a pod with its token and the authorities to trust."""
    token = {"path": TOKEN, "audience": settings.audience, "expirationSeconds": _TOKEN_SECONDS}
    sources = [{"serviceAccountToken": token}, {"configMap": {"name": CONFIG_MAP}}]
    return {"name": VOLUME, "projected": {"sources": sources}}
