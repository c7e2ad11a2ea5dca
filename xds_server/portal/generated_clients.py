"""Clients of APIs for downloads, which generators make from OpenAPI documents in processes of their own.

A document is a text of the gateway's folder. The process that reads it has no secrets of the portal, little memory and little time.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from xds_server.catalog.entries import Document
from xds_server.errors import WrongUsage
from xds_server.marketplace.errors import Conflict

TIMEOUT = 60.0
"""Seconds for one client."""
MEMORY = 1 << 30
"""Bytes that a generator may have."""
LARGEST = 20 << 20
"""Bytes of a client, without compression."""
KEPT = 32
"""Clients that are kept in memory."""
AT_ONCE = 2
_OPTION = "--typescript-generator"
_BOUNDED = (
    "import os, resource, sys; "
    f"resource.setrlimit(resource.RLIMIT_CPU, ({int(TIMEOUT)}, {int(TIMEOUT)})); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Generator(Protocol):
    """Makes clients in one language."""

    title: str
    """The name of the language."""

    def command(self, document: str, project: str) -> Sequence[str]:
        """Return the command that makes a client in a new folder `project`."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables of the process, beside those that all generators have."""


class Python:
    """openapi-python-client, from ``pip install 'xds-gateway[clients]'``."""

    title = "Python"
    _MODULE = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
        "sys.argv[0] = 'openapi-python-client'; runpy.run_module('openapi_python_client', run_name='__main__')"
    )

    def command(self, document: str, project: str) -> Sequence[str]:
        """Return the command."""
        options = ("--path", document, "--config", "config.json", "--output-path", project)
        return (sys.executable, "-I", "-c", self._MODULE, "generate", "--meta", "setup", *options)

    def environment(self) -> Mapping[str, str]:
        """Return the variables."""
        return {"PATH": os.defpath}


class TypeScript:
    """swagger-typescript-api of npm, which the operator installs. Its client needs nothing but `fetch`."""

    title = "TypeScript"

    def __init__(self, program: str) -> None:
        found, node = shutil.which(program), shutil.which("node")
        if found is None or node is None:
            what = f"{_OPTION}: {program!r} is no program" if found is None else f"{_OPTION} needs node"
            raise WrongUsage(
                f"{what}; install Node.js 20 or newer and: npm install swagger-typescript-api, "
                f"then write {_OPTION} node_modules/.bin/swagger-typescript-api"
            )
        self._program, self._node = str(Path(found).resolve()), node

    def command(self, document: str, project: str) -> Sequence[str]:
        """Return the command. V8 reserves more address space than it uses, so the bound of memory is its own option."""
        heap = f"--max-old-space-size={MEMORY >> 20}"
        options = ("--path", document, "--output", project, "--name", "client.ts")
        return (self._node, heap, self._program, "generate", *options)

    def environment(self) -> Mapping[str, str]:
        """Return the variables."""
        return {"PATH": f"{Path(self._node).parent}:{os.defpath}"}


def installed(typescript: str | None = None) -> dict[str, Generator]:
    """Return the generators of this machine by the names of their languages in addresses.

    `typescript` is the program of its generator, None for none. Raises WrongUsage.
    """
    found: dict[str, Generator] = {}
    if find_spec("openapi_python_client") is not None:
        found["python"] = Python()
    if typescript is not None:
        found["typescript"] = TypeScript(typescript)
    return found


class GeneratedClients:
    """Makes clients, and keeps the last ones. `generators` are those of `installed`."""

    def __init__(self, generators: Mapping[str, Generator]) -> None:
        self.generators = generators
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()

    def zipped(self, language: str, api: str, document: Document) -> bytes:
        """Return the client of an API in a language as a ZIP file. Raises Conflict if there can be none."""
        parts = (language.encode(), api.encode(), document.content)
        key = hashlib.sha256(b"\0".join(parts)).hexdigest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if not self._slots.acquire(timeout=TIMEOUT):
            raise Conflict("other clients are made now; try again")
        try:
            made = _made(self.generators[language], api, document)
        finally:
            self._slots.release()
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


def _made(generator: Generator, api: str, document: Document) -> bytes:
    with tempfile.TemporaryDirectory(prefix="xds-client-") as name:
        folder = Path(name)
        project = f"{_word(api)}-client"
        (folder / document.name).write_bytes(document.content)
        (folder / "config.json").write_text(
            f'{{"post_hooks": [], "project_name_override": "{project}", '
            f'"package_name_override": "{project.replace("-", "_")}"}}'
        )
        command = (sys.executable, "-I", "-c", _BOUNDED, *generator.command(document.name, project))
        environment = {"HOME": name, "LANG": "C.UTF-8", "NO_COLOR": "1", **generator.environment()}
        try:
            done = subprocess.run(  # noqa: S603 - a program that the operator has installed
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
    """Return the name of an API as one of a project."""
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
