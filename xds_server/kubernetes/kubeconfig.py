"""kubeconfig files: the current context of one or several files becomes a connection.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from xds_server.errors import InvalidKubeconfig
from xds_server.kubernetes.connection import Connection, Material

_UNSUPPORTED = {
    "exec": "a plugin that makes credentials is not supported",
    "auth-provider": "an authentication provider is not supported",
    "username": "a user name with a password is not supported",
}
_TOKEN = "make a token with `kubectl create token ACCOUNT`, and write it into a file that `tokenFile` names"  # noqa: S105 - no token
_SCHEMES = ("https://", "http://")


def paths_of(environment: Mapping[str, str], home: Path) -> list[Path]:
    """Return the files that kubectl would read: those of KUBECONFIG, or ``.kube/config`` of the home folder."""
    named = [Path(name) for name in environment.get("KUBECONFIG", "").split(":") if name]
    return named or [home / ".kube" / "config"]


def read_kubeconfig(paths: Iterable[Path], context: str | None = None) -> Connection:
    """Return the connection of a context, by default of the current one. Raises InvalidKubeconfig.

    Of several files, each name counts where it occurs first. A missing file is skipped if another one exists.
    """
    named = list(paths)
    files = [_File(path) for path in named if path.exists()]
    if not files:
        where = ", ".join(map(str, named))
        raise InvalidKubeconfig(f"{where} does not exist; name a kubeconfig, or set KUBECONFIG")
    name = context or next((file.current for file in files if file.current), "")
    if not name:
        files[0].reject(("current-context",), "no context is chosen", "write current-context: NAME")
    chosen = _named(files, "contexts", "context", name)
    cluster = _named(files, "clusters", "cluster", chosen.text("cluster", required=True))
    user = chosen.text("user")
    account = _named(files, "users", "user", user) if user else None
    return _connection(chosen, cluster, account)


class _File:
    """One file, which can say where something is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text()
            self.document = yaml.safe_load(text)
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise InvalidKubeconfig(f"{path}: {error.strerror}; make the file readable") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise InvalidKubeconfig(f"{path}{place}: this is not YAML; repair the file") from None
        if not isinstance(self.document, dict):
            raise InvalidKubeconfig(
                f"{path}:1:1: this is not a kubeconfig; name a file with contexts and clusters"
            )

    @property
    def current(self) -> str:
        return str(self.document.get("current-context") or "")

    def reject(self, path: tuple[str | int, ...], message: str, remedy: str) -> NoReturn:
        """Raise the error with file, line, column and path."""
        line, column = _place(self._root, path)
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        raise InvalidKubeconfig(f"{self.path}:{line}:{column}: {where}: {message}; {remedy}")


class _Entry:
    """One context, cluster or user."""

    def __init__(self, file: _File, path: tuple[str | int, ...], content: Any) -> None:
        self.file, self.path = file, path
        if not isinstance(content, dict):
            self.reject("expected a mapping", "write its keys")
        self.content: dict[str, Any] = content

    def reject(self, message: str, remedy: str, *keys: str) -> NoReturn:
        self.file.reject((*self.path, *keys), message, remedy)

    def text(self, key: str, *, required: bool = False) -> str:
        value = self.content.get(key)
        if required and not value:
            self.reject(f"{key} is missing", f"write {key}", *(() if value is None else (key,)))
        if value is not None and not isinstance(value, str):
            self.reject(
                "expected a text", "write it in quotes", key
            )  # without the value, which can be a secret
        return value or ""

    def material(self, key: str) -> Material | None:
        """Return a file by its path, or its content by the key that ends with ``-data``. The content counts."""
        data = f"{key}-data"
        if encoded := self.text(data):
            try:
                return Material(content=base64.b64decode(encoded, validate=True))
            except binascii.Error:
                self.reject("this is not base64", f"encode the file with base64, or name it by {key}", data)
        path = self.text(key)
        return Material(self.file.path.absolute().parent / path) if path else None


def _named(files: list[_File], section: str, key: str, name: str) -> _Entry:
    known: list[str] = []
    for file in files:
        entries = file.document.get(section) or []
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict):
                if entry.get("name") == name:
                    return _Entry(file, (section, index, key), entry.get(key))
                known.append(str(entry.get("name")))
    have = f"there are: {', '.join(known)}" if known else "there are none"
    return files[0].reject((section,), f"there is no {key} {name!r}; {have}", "add it, or use another name")


def _connection(context: _Entry, cluster: _Entry, user: _Entry | None) -> Connection:
    server = cluster.text("server", required=True).rstrip("/")
    if not server.startswith(_SCHEMES):
        cluster.reject(f"expected an address, got {server!r}", "write https://HOST:PORT", "server")
    proxy = cluster.text("proxy-url")
    if proxy and not proxy.startswith(_SCHEMES):
        cluster.reject("only a proxy for HTTP is supported", "write http://HOST:PORT", "proxy-url")
    for key, message in _UNSUPPORTED.items():
        if user is not None and user.content.get(key):
            user.reject(message, _TOKEN, key)
    certificate, private_key = (
        user.material(key) if user is not None else None for key in ("client-certificate", "client-key")
    )
    if user is not None and (certificate is None) != (private_key is None):
        user.reject("a client certificate needs its private key", "write client-certificate and client-key")
    return Connection(
        server=server,
        namespace=context.text("namespace") or "default",
        authorities=cluster.material("certificate-authority"),
        verify=cluster.content.get("insecure-skip-tls-verify") is not True,
        server_name=cluster.text("tls-server-name") or None,
        token=_token(user) if user is not None else None,
        certificate=certificate,
        private_key=private_key,
        proxy=proxy or None,
    )


def _token(user: _Entry) -> Material | None:
    """Return the token. As in kubectl, the file counts if both are written."""
    if file := user.text("tokenFile"):
        return Material(user.file.path.absolute().parent / file)
    token = user.text("token")
    return Material(content=token.encode()) if token else None


def _place(node: yaml.Node | None, path: tuple[str | int, ...]) -> tuple[int, int]:
    """Return line and column of the deepest part of a path that is in the file."""
    found = node
    for part in path:
        below = _below(found, part)
        if below is None:
            break
        found = below
    mark = found.start_mark if found is not None else None
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _below(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part] if part < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    return None
