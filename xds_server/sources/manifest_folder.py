"""Kubernetes manifests as a gateway: its files, and what is wrong with the objects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from filters.language import Problem
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.ingress import with_ingresses
from xds_server.gateway_api.manifests import Manifests, findings
from xds_server.gateway_api.mesh import with_mesh
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.translation import translate
from xds_server.sources.source import SourceState, Version

_CLASSES = ("GatewayClass", "IngressClass")


@dataclass(frozen=True, slots=True)
class ManifestState:
    """A folder of manifests at one moment, translated. `findings` are the problems of its objects.

    Texts of its files have no variables, because whoever writes an object must not read the environment of the control
    plane.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    findings: tuple[Problem, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    version: Version | None = None

    @property
    def reads(self) -> Collection[Path]:
        """Nothing beside the folder."""
        return ()

    def read(self, path: str) -> bytes:
        """Return a part of a Secret by its name. Raises OSError."""
        try:
            return self.contents[path]
        except KeyError:
            raise FileNotFoundError(2, "there is no such Secret", path) from None

    def names(self, folder: str) -> Collection[str]:
        """Raise OSError, because objects have no folders."""
        raise FileNotFoundError(2, "objects have no folders; name each file", folder)


class ManifestReader:
    """Reads successive states of a folder of manifests. `gateway` is the Gateway to serve, None if there is only one.

    With `every_class`, objects of classes of other controllers are served too.
    """

    def __init__(self, gateway: Key | None, *, every_class: bool = False) -> None:
        self._gateway, self._every_class = gateway, every_class
        self._manifests = Manifests()

    def state(self, folder: SourceState) -> ManifestState:
        """Return the gateway of a folder."""
        return replace(self._state(folder), version=folder.version)

    def _state(self, folder: SourceState) -> ManifestState:
        cluster, problems = self._manifests.read(folder.files)
        if folder.problems or any(one.severity == "error" for one in problems):
            return ManifestState(problems=folder.problems, ignored=folder.ignored, findings=tuple(problems))
        without = frozenset(kind for kind in _CLASSES if self._every_class or not any(cluster.all(kind)))
        return state_of(cluster, self._gateway, problems, folder.ignored, of_every_class=without)


def state_of(
    cluster: Cluster,
    gateway: Key | None,
    problems: Iterable[Problem] = (),
    ignored: tuple[str, ...] = (),
    *,
    of_every_class: Collection[str],
) -> ManifestState:
    """Return one Gateway of a cluster, the Ingresses of a class, or the sidecars of a namespace.

    `gateway` is None if there is only one Gateway. `of_every_class` has GatewayClass and IngressClass if all classes of that
    kind are ours.
    """
    translation = translate(cluster, of_every_class="GatewayClass" in of_every_class)
    translation = with_ingresses(translation, cluster, of_every_class="IngressClass" in of_every_class)
    translation = with_mesh(translation, cluster)
    found = (*problems, *findings(translation, cluster))
    gateways = {**translation.gateways, **translation.ingresses}
    every = {**gateways, **translation.meshes}
    choices = every.keys() if gateway is not None else (gateways or every).keys()
    wrong = _choice(choices, gateway)
    if wrong is not None:
        return ManifestState(ignored=ignored, findings=(*found, wrong))
    files = every[gateway or next(iter(choices))]
    return ManifestState(
        files=files.rendered(),
        ignored=ignored,
        findings=(*found, *files.problems),
        contents=files.contents,
    )


def _choice(gateways: Collection[Key], wanted: Key | None) -> Problem | None:
    """Return the problem if it is not clear which Gateway is meant."""
    names = ", ".join("/".join(key) for key in sorted(gateways))
    if not gateways:
        message = "there is no Gateway and no IngressClass of this controller"
        remedy = "add one, or correct gatewayClassName or ingressClassName"
        return Problem(path=(), message=message, remedy=remedy)
    if wanted is None and len(gateways) > 1:
        return Problem(
            path=(), message="there are several Gateways", remedy=f"choose one with --gateway: {names}"
        )
    if wanted is not None and wanted not in gateways:
        message = f"there is no Gateway {'/'.join(wanted)}"
        return Problem(path=(), message=message, remedy=f"known: {names}")
    return None
