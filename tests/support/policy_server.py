"""A control plane and policy servers as processes of their own, and an Envoy between them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from filters.policy_server import SERVICE
from tests.support.envoy import Envoy
from tests.support.folder import Files, filled, write
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess
from tests.support.trees import shape
from tests.support.xds import XdsThread, bootstrap
from xds_server.control_plane.compiler import Compiler
from xds_server.sources.folder import read_folder


class PolicyServerProcess(ServerProcess):
    """`xds policy-server` with more arguments, one worker unless they say more. Use as a context manager."""

    def __init__(self, xds: str, listen: str, logs: Path, *arguments: str) -> None:
        admin = f"127.0.0.1:{free_port()}"
        command = ("policy-server", "--xds", xds, "--listen", listen, "--admin", admin)
        log = logs / f"policy-server-{admin.rpartition(':')[2]}.log"
        more = ("--drain", "5", "--workers", "1", *arguments)
        super().__init__("the policy server", (*command, *more), admin, log, "/ready")

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"http://{self.admin}/status").json()
        return answer

    def children(self) -> dict[str, int]:
        """The processes of its workers and what is beside them, by name."""
        assert self.process is not None
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {Path(f"/proc/{one}/comm").read_text().strip(): int(one) for one in found}

    def metrics(self) -> str:
        return httpx.get(f"http://{self.admin}/metrics").text


class Stack:
    """A gateway's folder served by the real xDS server to a real Envoy and a policy server process.

    `publish()` compiles the folder as it is now. The policy server listens on a Unix socket, or on `tcp`, and gets
    more `arguments`; Envoy has `concurrency` workers.
    """

    def __init__(
        self, folder: Path, *, tcp: bool = False, arguments: tuple[str, ...] = (), concurrency: int = 1
    ) -> None:
        self._arguments = arguments
        self._concurrency = concurrency
        self.folder = folder
        self.listener = free_port()
        self.url = f"http://127.0.0.1:{self.listener}"
        self.socket = f"127.0.0.1:{free_port()}" if tcp else f"unix:{folder}/policy.sock"
        self.control = XdsThread()
        self._compiler = Compiler({}, internal_services={SERVICE: self.socket}, shape=shape())
        self._stack, self._served = ExitStack(), ExitStack()
        self.envoy: Envoy
        self.policy_server: PolicyServerProcess

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        enter(self._served).enter_context(self.control)
        self.publish()
        self.policy_server = self.server()
        enter(self.policy_server)
        self.envoy = enter(Envoy(bootstrap(self.control.port), self.folder, concurrency=self._concurrency))
        self.envoy.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def lose_control_plane(self) -> None:
        """End the xDS server for good."""
        self._served.close()

    def server(self, *arguments: str) -> PolicyServerProcess:
        """A policy server process that is not started."""
        return PolicyServerProcess(
            f"127.0.0.1:{self.control.port}",
            self.socket,
            self.folder,
            "--node-id",
            "policy-server",
            *self._arguments,
            *arguments,
        )

    def write(self, text: str, files: Files | None = None, **values: object) -> None:
        """Write ``gateway.yaml`` and more files; `text` is filled with `values`, and ``$port`` is the listener."""
        write(self.folder, files, gateway=filled(text, **{"port": self.listener, **values}))

    def publish(self) -> None:
        """Serve the folder as it is. Raises InvalidGateway."""
        self.control.publish(self._compiler.compile(read_folder(self.folder)).snapshot)

    def memory(self) -> int:
        """The most bytes that Envoy, the policy server and its workers have had in memory, together."""
        main, envoy = self.policy_server.process, self.envoy.process
        assert main is not None
        assert envoy is not None
        pids = [envoy.pid, main.pid, *self.policy_server.children().values()]
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=30, **options)


class Stacks(ExitStack):
    """Starts stacks, each in a folder of its own below `folder`, and stops them all at its end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._started = 0

    def start(
        self,
        text: str,
        *,
        files: Files | None = None,
        tcp: bool = False,
        arguments: tuple[str, ...] = (),
        concurrency: int = 1,
        **values: object,
    ) -> Stack:
        """Start a stack for the gateway that `text` describes: see `Stack` and its `write`. Raises InvalidGateway."""
        self._started += 1
        folder = self._folder / str(self._started)
        folder.mkdir()
        stack = Stack(folder, tcp=tcp, arguments=arguments, concurrency=concurrency)
        stack.write(text, files, **values)
        return self.enter_context(stack)
