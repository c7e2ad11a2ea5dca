"""Clients of APIs for downloads, which generators make from OpenAPI documents in processes of their own.

A document is a text of the gateway's folder. The process that reads it has no secrets of the portal, little memory and little time.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypeVar

from xds_server.catalog.entries import Document
from xds_server.errors import WrongUsage
from xds_server.marketplace.errors import Conflict
from xds_server.portal import openapi_31

log = logging.getLogger(__name__)
_Kept = TypeVar("_Kept")

TIMEOUT = 60.0
"""Seconds for one client."""
MEMORY = 1 << 30
"""Bytes that a generator may have."""
LARGEST = 20 << 20
"""Bytes of a client, without compression."""
KEPT = 32
"""Clients, and also failures, that are kept in memory."""
AT_ONCE = 2
"""Clients that are made at once."""
AGAIN = 10
"""Seconds after which a client may be there that is being made."""
FAILED = 600.0
"""Seconds for which a failure is kept. Another document is tried at once."""
_OPTION = "--typescript-generator"
_BOUNDED = (
    "import os, resource, sys; os.nice(10); "
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


class ClientsBusy(Exception):  # noqa: N818 - a response
    """The client, or too many others, are being made. Try again in `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class GeneratedClients:
    """Makes clients, and keeps the last ones, and for a while those that cannot be made. `generators` are those of `installed`.

    Anybody may ask for a client. So at most `AT_ONCE` threads work, and whoever asks for what is being made comes back later.
    """

    def __init__(
        self, generators: Mapping[str, Generator], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.generators = generators
        self._clock = clock
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._making: set[str] = set()
        self._lock = threading.Lock()

    def zipped(self, language: str, api: str, document: Document) -> bytes:
        """Return the client of an API in a language as a ZIP file. Raises Conflict if there can be none, and ClientsBusy."""
        parts = (language.encode(), api.encode(), document.content)
        key = hashlib.sha256(b"\0".join(parts)).hexdigest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            until, message = self._failed.get(key, (0.0, ""))
            if until > self._clock():
                raise Conflict(message)
            if key in self._making or len(self._making) >= AT_ONCE:
                raise ClientsBusy(AGAIN)
            self._making.add(key)
        try:
            made = _made(self.generators[language], api, document)
        except Conflict as failure:
            with self._lock:
                _keep(self._failed, key, (self._clock() + FAILED, failure.message))
            raise
        else:
            with self._lock:
                _keep(self._kept, key, made)
            return made
        finally:
            with self._lock:
                self._making.discard(key)


def can_be_made(document: Document) -> bool:
    """True if generators know the version of a document, or its parts are those of one that they know."""
    return document.kind == "openapi" and openapi_31.is_sayable(document.content)


def _keep(kept: OrderedDict[str, _Kept], key: str, value: _Kept) -> None:
    kept[key] = value
    if len(kept) > KEPT:
        kept.popitem(last=False)


def _made(generator: Generator, api: str, document: Document) -> bytes:
    with tempfile.TemporaryDirectory(prefix="xds-client-") as name:
        folder = Path(name)
        project = f"{_word(api)}-client"
        content = openapi_31.as_31(document.content)
        if content is None:
            raise Conflict("no client can be made of this document: only OpenAPI 3.2 can say a part of it")
        (folder / document.name).write_bytes(content)
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
            text = " ".join((done.stdout + done.stderr).decode("utf-8", "replace").split())[-1000:]
            log.warning("no client can be made api=%s language=%s output=%s", api, generator.title, text)
            raise Conflict(
                f"no client can be made of this document in {generator.title}; download the document and use another generator"
            )
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
