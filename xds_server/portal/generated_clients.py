"""Clients in Python for downloads, made from OpenAPI documents by openapi-python-client in a process of its own.

A document is a text of the gateway's folder. Its process has no secrets of the portal, little memory and little time.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

from xds_server.catalog.entries import Document
from xds_server.marketplace.errors import Conflict

TIMEOUT = 60.0
"""Seconds for one client."""
MEMORY = 1 << 30
"""Bytes that the generator may have."""
LARGEST = 20 << 20
"""Bytes of a client, without compression."""
KEPT = 32
"""Clients that are kept in memory."""
AT_ONCE = 2
_RUN = (
    "import resource, runpy, sys; "
    f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
    f"resource.setrlimit(resource.RLIMIT_CPU, ({int(TIMEOUT)}, {int(TIMEOUT)})); "
    "sys.argv[0] = 'openapi-python-client'; runpy.run_module('openapi_python_client', run_name='__main__')"
)


def available() -> bool:
    """True if the generator is installed: ``pip install 'xds-gateway[clients]'``."""
    return find_spec("openapi_python_client") is not None


class PythonClients:
    """Makes clients, and keeps the last ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()

    def zipped(self, api: str, document: Document) -> bytes:
        """Return the client of an API as a ZIP file. Raises Conflict if there can be none."""
        key = hashlib.sha256(b"\0".join((api.encode(), document.content))).hexdigest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if not self._slots.acquire(timeout=TIMEOUT):
            raise Conflict("other clients are made now; try again")
        try:
            made = _made(api, document)
        finally:
            self._slots.release()
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


def _made(api: str, document: Document) -> bytes:
    with tempfile.TemporaryDirectory(prefix="xds-client-") as name:
        folder = Path(name)
        project = f"{_word(api)}-client"
        (folder / document.name).write_bytes(document.content)
        (folder / "config.yaml").write_text(
            f"post_hooks: []\nproject_name_override: {project}\npackage_name_override: {project.replace('-', '_')}\n"
        )
        command = (
            *(sys.executable, "-I", "-c", _RUN, "generate", "--meta", "setup"),
            *("--path", document.name, "--config", "config.yaml", "--output-path", project),
        )
        environment = {"PATH": os.defpath, "HOME": name, "LANG": "C.UTF-8", "NO_COLOR": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - this program's own Python
                command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Conflict(
                f"the client was not made within {TIMEOUT:.0f} s; the document is too large"
            ) from None
        if done.returncode != 0 or not (folder / project).is_dir():
            text = " ".join((done.stdout + done.stderr).decode("utf-8", "replace").split())[-300:]
            raise Conflict(f"no client can be made of this document: {text}")
        return _zip(folder / project)


def _word(api: str) -> str:
    """Return the name of an API as one of a Python project."""
    return re.sub(r"[^a-z0-9]+", "-", api.lower()).strip("-") or "api"


def _zip(folder: Path) -> bytes:
    files = sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink())
    if sum(one.stat().st_size for one in files) > LARGEST:
        raise Conflict("the client is too large")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in files:
            archive.write(one, one.relative_to(folder.parent))
    return out.getvalue()
