"""Authorities (CA certificates) to which objects refer: PEM in the key `ca.crt` of a ConfigMap."""

from __future__ import annotations

from typing import Literal

from filters.language import Mistake
from xds_server.gateway.certificates import check_authorities
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.objects import Key


class UnusableAuthority(Exception):  # noqa: N818 - becomes a condition, never leaves this package
    """A reference that leads to no authority: its kind is wrong, or what it names is."""

    def __init__(self, what: Literal["kind", "reference"], message: str) -> None:
        super().__init__(message)
        self.what, self.message = what, message


def authority(group: str, kind: str, key: Key, cluster: Cluster) -> str:
    """Return the PEM of the authorities to which an object refers. Raises UnusableAuthority."""
    name = "/".join(key)
    if (group, kind) != ("", "ConfigMap"):
        raise UnusableAuthority("kind", f"{kind} {name} is not a ConfigMap")
    config_map = cluster.config_map(key)
    if config_map is None:
        raise UnusableAuthority("reference", f"there is no ConfigMap {name}")
    content = config_map.spec.data.get("ca.crt")
    if content is None:
        raise UnusableAuthority("reference", f"the ConfigMap {name} has no ca.crt")
    try:
        check_authorities(content)
    except Mistake as mistake:
        raise UnusableAuthority("reference", f"the ConfigMap {name}: {mistake.message}") from None
    return content.decode("utf-8", "replace")
