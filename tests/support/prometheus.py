"""A real Prometheus for tests: it scrapes what a test names, and answers expressions."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx
import yaml

from tests.support.ports import free_port
from tests.support.wait import ProcessEndedError, wait_for

BINARY, TOOL = shutil.which("prometheus"), shutil.which("promtool")
"""None if there is no Prometheus; `make prometheus` installs Debian's."""


NONE: Mapping[str, str] = MappingProxyType({})


class Prometheus:
    """A Prometheus that scrapes `target` (HOST:PORT) each second, with the alerts of a file. A context manager.

    `nodes` are targets by name in its place. Their samples have the name as the label `node`.
    """

    def __init__(
        self, folder: Path, target: str, path: str, rules: Path, nodes: Mapping[str, str] = NONE
    ) -> None:
        assert BINARY is not None
        self._port, self._log = free_port(), folder / "prometheus.log"
        self.url = f"http://127.0.0.1:{self._port}"
        labelled = [{"targets": [one], "labels": {"node": node}} for node, one in nodes.items()]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {
                    "job_name": "xds",
                    "metrics_path": path,
                    "static_configs": labelled or [{"targets": [target]}],
                }
            ],
        }
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config))
        self._command = [BINARY, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        self._command += [f"--web.listen-address=127.0.0.1:{self._port}"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._ready, lambda: f"Prometheus; its log:\n{self._log.read_text()[-3000:]}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ProcessEndedError(f"Prometheus ended:\n{self._log.read_text()[-3000:]}")
        return httpx.get(f"{self.url}/-/ready").status_code == 200

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression. Raises AssertionError if it is wrong."""
        answer = httpx.post(f"{self.url}/api/v1/query", data={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result
