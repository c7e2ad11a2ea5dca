"""`xds run` as a process of its own, on free ports, with its log to read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.trees import shape
from tests.support.wait import ProcessEndedError, wait_for
from xds_server.translate.route_trees import DEFAULT

ROOT = Path(__file__).resolve().parents[2]


def _command() -> tuple[str, ...]:
    """The module of `xds run`, and its first arguments."""
    return ("xds_server", "run") if shape() is DEFAULT else ("tests.support.run_with_trees",)


class Running:
    """`xds run FOLDER` with more arguments. Use as a context manager."""

    def __init__(self, folder: Path | str, logs: Path, *arguments: str, **environment: str) -> None:
        self.xds_port, self.admin_port = free_port(), free_port()
        self.xds_address = f"127.0.0.1:{self.xds_port}"
        self.admin = f"127.0.0.1:{self.admin_port}"
        self._log = logs / f"run-{self.admin_port}.log"
        self._command = [
            *(sys.executable, "-m", *_command(), str(folder)),
            *("--xds", self.xds_address, "--admin", self.admin),
            *("--envoy-workers", "1", "--drain", "1"),
            *(() if "--console" in arguments else ("--console", "off")),
            *arguments,
        ]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        wait_for(self._answers, lambda: f"the admin address; the log:\n{self.log[-3000:]}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ProcessEndedError(f"xds run ended with {self.process.returncode}:\n{self.log[-3000:]}")
        return httpx.get(f"http://{self.admin}/healthz").status_code == 200

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it as Ctrl-C does; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, text: str, after: int = 0) -> None:
        """Wait until the log has a text, beyond its first `after` characters."""
        wait_for(lambda: text in self.log[after:], lambda: f"{text!r} in the log:\n{self.log[-3000:]}")

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"http://{self.admin}/status").json()
        return answer

    def envoy(self, *, proving: bool = False) -> int:
        """The process of the Envoy beside it, or of the proving one, which is silent."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
        return next(pid for pid, line in lines.items() if b"envoy" in line[0] and (b"off" in line) is proving)


class Served(Running):
    """`xds run` on a folder with the gateway that `text` describes, filled with `values`.

    ``$port`` in the text is the listener's, and ``$version`` is what the gateway answers to ``GET /version``.
    """

    def __init__(self, root: Path, text: str, *arguments: str, **values: object) -> None:
        self.folder, self.port = root / "gateway", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.text = text
        self._values = {"port": self.port, **values}
        super().__init__(self.folder, root, *arguments)

    def write(self, version: str, **values: object) -> None:
        """Write ``gateway.yaml`` with this version, and with other values in the place of some."""
        write(self.folder, gateway=filled(self.text, **{**self._values, **values, "version": version}))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", **{"timeout": 30, **options})

    def until(self, version: str) -> None:
        """Wait until this version is served."""
        wait_for(
            lambda: self.get("/version").text == version,
            lambda: f"version {version}; the log:\n{self.log[-3000:]}",
        )
