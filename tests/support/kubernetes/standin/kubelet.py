"""Starts and ends pods as the API server has them, and serves their logs as a kubelet does."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from tests.support.certificates import Authority
from tests.support.kubernetes.standin.container import Container
from tests.support.kubernetes.standin.images import Image
from tests.support.kubernetes.standin.node import ADDRESS, NAME, NODES, PODS, Node, deleting, now
from tests.support.kubernetes.standin.pod import Pod
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key, Object

_PORT = 10250
_NETWORK = "10.244"
_CAPACITY = {"cpu": "100", "memory": "100Gi", "pods": "1000"}


class Kubelet:
    """The pods of the only node. `running` has them by their unique names."""

    def __init__(self, node: Node, known: list[Image]) -> None:
        self.running: dict[str, Pod] = {}
        self._node, self._known = node, known
        self._ending: set[str] = set()
        self._last = 2

    async def register(self) -> None:
        """Write the Node object, which says where logs are served."""
        object_ = {"metadata": {"name": NAME}}
        await self._node.client.apply(NODES, object_, manager="standin")
        ready = {"type": "Ready", "status": "True", "reason": "StandIn", "message": ""}
        status = {
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": _PORT}},
            "conditions": [{**ready, "lastHeartbeatTime": now(), "lastTransitionTime": now()}],
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
        }
        await self._node.client.merge_patch(
            NODES, Key("", NAME), {"status": status}, manager="standin", subresource="status"
        )

    async def reconcile(self) -> None:
        """Start what is new, end what is being deleted, and write the status of all."""
        pods = self._node.items(PODS)
        for key, object_ in pods:
            uid = object_["metadata"]["uid"]
            if deleting(object_):
                self._end(uid, key)
            elif uid not in self._ending:
                await self._follow(uid, key, object_)
        for uid in set(self.running) - {object_["metadata"]["uid"] for _, object_ in pods}:
            self._end(uid, None)

    async def _follow(self, uid: str, key: Key, object_: Object) -> None:
        if uid not in self.running:
            self._last += 1
            address = f"{_NETWORK}.{self._last // 250}.{self._last % 250 + 2}"
            self.running[uid] = pod = Pod(self._node, object_, address, self._known)
            self._node.spawn(pod.run())
        await self._node.status(PODS, key, uid, self.running[uid].status())

    def _end(self, uid: str, key: Key | None) -> None:
        if uid not in self._ending:
            self._ending.add(uid)
            self._node.spawn(self._ended(uid, key))

    async def _ended(self, uid: str, key: Key | None) -> None:
        if uid in self.running:
            await self.running[uid].stop(hooks=key is not None)
            del self.running[uid]
        if key is not None:
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
            with suppress(NotFound):
                await self._node.client.request("DELETE", PODS.path(key), options)
        self._ending.discard(uid)

    async def stop(self) -> None:
        """End all pods."""
        for pod in list(self.running.values()):
            await pod.stop()

    async def serve(self, folder: Path, exec_server: Path | None) -> None:
        """Serve the logs of containers at the address of the node, and with `exec_server` run commands in them too."""
        certificate, key = Authority().issue(ADDRESS)
        file = folder / "kubelet.pem"
        file.write_bytes(certificate + key)
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        application.router.add_get("/command/{namespace}/{pod}/{container}", self._command)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        if exec_server is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            await web.TCPSite(runner, ADDRESS, _PORT, ssl_context=context).start()
            return
        socket = folder / "kubelet.sock"
        await web.UnixSite(runner, str(socket)).start()
        await asyncio.create_subprocess_exec(exec_server, f"{ADDRESS}:{_PORT}", file, socket)

    async def _command(self, request: web.Request) -> web.Response:
        """Return the words that run a command in a container."""
        return web.json_response(self._container(request).inside(request.query.getall("command")))

    def _container(self, request: web.Request) -> Container:
        key = Key(request.match_info["namespace"], request.match_info["pod"])
        pod = next((one for one in self.running.values() if one.key == key), None)
        container = pod.containers.get(request.match_info["container"]) if pod is not None else None
        if container is None:
            raise web.HTTPNotFound
        return container

    async def _logs(self, request: web.Request) -> web.Response:
        container = self._container(request)
        lines = [line for line in container.log if line[0] >= _since(request)]
        if tail := request.query.get("tailLines"):
            lines = lines[-int(tail) :]
        stamped = request.query.get("timestamps") == "true"
        body = b"".join((_stamp(when) if stamped else b"") + line for when, line in lines)
        return web.Response(body=body, content_type="text/plain")


def _since(request: web.Request) -> float:
    if text := request.query.get("sinceTime"):
        return datetime.datetime.fromisoformat(text).timestamp()
    seconds = request.query.get("sinceSeconds")
    return time.time() - int(seconds) if seconds else 0.0


def _stamp(when: float) -> bytes:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()
