"""A pod: a network namespace with an address on the node's bridge, and its containers as processes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.support.kubernetes.standin import images, volumes
from tests.support.kubernetes.standin.container import Container
from tests.support.kubernetes.standin.images import Image
from tests.support.kubernetes.standin.node import ADDRESS, NAME, Node, call, now
from xds_server.kubernetes.resources import Key, Object, key_of

log = logging.getLogger(__name__)

_PROBE, _SETTLE = 0.1, 0.3
"""Seconds between two probes, and until a pod without a probe is ready."""
_CONDITIONS = ("PodScheduled", "Initialized", "PodReadyToStartContainers")
_READY_CONDITIONS = ("ContainersReady", "Ready")


@dataclass
class Pod:
    """One running pod."""

    node: Node
    object: Object
    address: str
    known: list[Image]
    ready: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    started: str = field(default_factory=now)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Its name."""
        return key_of(self.object)

    @property
    def uid(self) -> str:
        """Its unique name."""
        return str(self.object["metadata"]["uid"])

    @property
    def _network(self) -> str:
        return f"p{self.uid[:10]}"

    async def run(self) -> None:
        """Start its containers, and wait until they are ready."""
        await asyncio.to_thread(self._connect)
        folder = self.node.folder / "pods" / self.uid
        spec = self.object["spec"]
        found = await volumes.folders(self.node.client, self.object, folder / "volumes")
        for one in spec.get("initContainers", []):
            container = self._container(one, folder, found)
            if container is None:
                continue
            if one.get("restartPolicy") == "Always":
                self._tasks.append(asyncio.create_task(container.run(self.key.namespace)))
                await self._started(one)
            else:
                await container.run(self.key.namespace, once=True)
        for one in spec["containers"]:
            container = self._container(one, folder, found)
            if container is not None:
                self._tasks.append(asyncio.create_task(container.run(self.key.namespace)))
        self._tasks.append(asyncio.create_task(self._become_ready()))

    def _container(self, one: Object, folder: Path, found: Mapping[str, Path]) -> Container | None:
        """Return a container, which does not run yet, or None if there is no program for its image."""
        image = images.image_of(self.known, one)
        if image is None:
            log.warning("there is no program for an image image=%s", one["image"])
            return None
        environment = self._environment(one)
        mounts = {
            mount["mountPath"]: found[mount["name"]]
            for mount in one.get("volumeMounts", [])
            if mount["name"] in found and not mount.get("subPath")
        }
        command = images.command_of(image, one, environment)
        user = (one.get("securityContext") or {}).get("runAsUser")
        self.containers[one["name"]] = made = Container(
            one["name"],
            self._network,
            folder / one["name"],
            command,
            environment,
            mounts,
            user,
            image.commands,
        )
        return made

    async def _started(self, container: Object) -> None:
        """Wait for the startup probe of a sidecar, before which no later container starts."""
        get = container.get("startupProbe", {}).get("httpGet")
        while get and not await _answers(self._url(get)):  # noqa: ASYNC110 - as below
            await asyncio.sleep(_PROBE)

    @property
    def _sidecars(self) -> list[Object]:
        every = self.object["spec"].get("initContainers", [])
        return [one for one in every if one.get("restartPolicy") == "Always"]

    async def _before_the_end(self) -> None:
        """Run the hooks of all containers at the same time, for at most the grace period."""
        spec = self.object["spec"]
        every = [*self._sidecars, *spec["containers"]]
        gets = [get for one in every if (get := _hook(one))]
        limit = spec.get("terminationGracePeriodSeconds", 30)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await asyncio.gather(*(_sent(self._url(get), get) for get in gets))

    async def stop(self, *, hooks: bool = False) -> None:
        """Run the hooks of its containers, end them, sidecars last, and end its network."""
        self.ready = False
        if hooks:
            await self._before_the_end()
        sidecars = {one["name"] for one in self._sidecars}
        for last in (False, True):
            some = (one for name, one in self.containers.items() if (name in sidecars) is last)
            await asyncio.gather(*(one.stop() for one in some))
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._disconnect)

    def status(self) -> Object:
        """Return its status, as a kubelet writes it."""
        ready = "True" if self.ready else "False"
        states = dict.fromkeys(_CONDITIONS, "True") | dict.fromkeys(_READY_CONDITIONS, ready)
        return {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "hostIP": ADDRESS,
            "hostIPs": [{"ip": ADDRESS}],
            "startTime": self.started,
            "conditions": [
                {"type": type_, "status": state, "lastTransitionTime": self.started}
                for type_, state in states.items()
            ],
            "containerStatuses": [self._container_status(one) for one in self.object["spec"]["containers"]],
            "initContainerStatuses": [
                self._container_status(one) for one in self.object["spec"].get("initContainers", [])
            ],
        }

    def _container_status(self, container: Object) -> Object:
        running = self.containers.get(container["name"])
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "ready": self.ready,
            "started": True,
            "restartCount": running.restarts if running is not None else 0,
            "state": {"running": {"startedAt": self.started}},
        }

    def _connect(self) -> None:
        name, inside = self._network, ("ip", "-n", self._network)
        call("ip", "netns", "add", name)
        call("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        call("ip", "link", "set", name, "master", "br0", "up")
        call(
            "ip", "link", "set", name, "type", "bridge_slave", "hairpin", "on"
        )  # a pod may be its own Service
        call(*inside, "addr", "add", f"{self.address}/16", "dev", "eth0")
        for device in ("lo", "eth0"):
            call(*inside, "link", "set", device, "up")
        call(*inside, "route", "add", "default", "via", ADDRESS)
        low_ports = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
        call("ip", "netns", "exec", name, "sh", "-c", f"echo 0 > {low_ports}")

    def _disconnect(self) -> None:
        for command in (("ip", "link", "del", self._network), ("ip", "netns", "del", self._network)):
            try:
                call(*command)
            except RuntimeError as error:  # it was not connected yet
                log.warning("%s", error)

    def _environment(self, container: Object) -> Mapping[str, str]:
        made = {"PATH": os.environ["PATH"], "HOME": "/root", "HOSTNAME": self.key.name}
        for one in container.get("env", []):
            path = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            made[one["name"]] = self._field(path) if path else images.expanded(one.get("value", ""), made)
        return made

    def _field(self, path: str) -> str:
        """Return a field of the downward API."""
        metadata, spec = self.object["metadata"], self.object["spec"]
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str((metadata.get(found[1]) or {}).get(found[2], ""))
        values = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": NAME,
            "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
            "status.podIP": self.address,
            "status.hostIP": ADDRESS,
        }
        return str(values.get(path, ""))

    async def _become_ready(self) -> None:
        every = [*self._sidecars, *self.object["spec"]["containers"]]
        probes = [probe for one in every if (probe := self._probe(one))]
        for probe in probes:
            while not await _answers(probe):  # noqa: ASYNC110 - a probe is sent again and again
                await asyncio.sleep(_PROBE)
        if not probes:
            await asyncio.sleep(_SETTLE)
        self.ready = True
        self.node.dirty.set()

    def _probe(self, container: Object) -> str | None:
        """Return the address of the readiness probe, or else that of the image, or else None."""
        get = container.get("readinessProbe", {}).get("httpGet")
        if get:
            return self._url(get)
        image = images.image_of(self.known, container)
        udp = any(one["name"] == "UDP_ECHO_SERVER" for one in container.get("env", []))
        if image is None or image.ready is None or udp:
            return None
        return f"{'http' if image.http else 'tcp'}://{self.address}:{image.ready}"

    def _url(self, get: Object) -> str:
        port = named_port(self.object["spec"], get["port"])
        return f"{get.get('scheme', 'HTTP').lower()}://{self.address}:{port}{get.get('path', '/')}"


def named_port(spec: Object, port: str | int) -> int:
    """Return a port of a pod by its number or name. Raises StopIteration if there is none of this name."""
    if isinstance(port, int):
        return port
    ports = (
        one
        for container in [*spec.get("initContainers", []), *spec["containers"]]
        for one in container.get("ports", [])
    )
    return int(next(one["containerPort"] for one in ports if one.get("name") == port))


def _hook(container: Object) -> Object:
    hook: Object = ((container.get("lifecycle") or {}).get("preStop") or {}).get("httpGet") or {}
    return hook


async def _sent(url: str, get: Object) -> None:
    """Send the request of a hook, and wait for its response as long as it takes."""
    headers = {one["name"]: one["value"] for one in get.get("httpHeaders") or []}
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session:
            await session.get(url, headers=headers)
    except (OSError, aiohttp.ClientError) as error:
        log.warning("a hook failed url=%s reason=%s", url, error)


async def _answers(address: str) -> bool:
    try:
        if address.startswith("tcp://"):
            host, _, port = address.removeprefix("tcp://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return True
        limit, unverified = aiohttp.ClientTimeout(total=2), aiohttp.TCPConnector(ssl=False)
        async with (
            aiohttp.ClientSession(timeout=limit, connector=unverified) as session,
            session.get(address) as response,
        ):
            return response.status < 400
    except (OSError, aiohttp.ClientError):
        return False
