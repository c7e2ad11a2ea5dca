"""Files of the gateway's folder that policies import, and a separate import system for each policy.

A policy imports ``policies/common.py`` as ``policies.common``, even if another module in the process has that name. Its
modules are its own. The next version of the policy gets new modules, while the old version still decides on requests.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

_ELSEWHERE = sys.stdlib_module_names | {"filters", "xds_server", "protos"}
"""Packages whose modules are never files of the gateway."""


@lru_cache(maxsize=4096)
def imported(file: str, source: bytes) -> tuple[str, ...]:
    """Paths, relative to the gateway's folder, of files that a source may import. Empty if the source is no Python."""
    try:
        tree = ast.parse(source, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names = {name for node in ast.walk(tree) for name in _names(node, _package(file))}
    wanted = {part for name in names if name.partition(".")[0] not in _ELSEWHERE for part in _parents(name)}
    return tuple(sorted(path for name in wanted for path in _paths(name)))


def _names(node: ast.AST, package: Sequence[str]) -> Iterator[str]:
    """Full names of the modules that an import may mean."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
        if node.level and any(not part or "." in part for part in package):
            return  # above the folder, or not a name of a module
        above = package[: len(package) - node.level + 1] if node.level else ()
        start = ".".join([*above, *([node.module] if node.module else [])])
        if start:
            yield start
        yield from (f"{start}.{alias.name}" if start else alias.name for alias in node.names)


def _package(file: str) -> tuple[str, ...]:
    return tuple(file.split("/")[:-1])


def _parents(name: str) -> Iterator[str]:
    """``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _paths(name: str) -> tuple[str, str]:
    path = name.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


def _name(file: str) -> str:
    """The full name of a file's module."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Modules:
    """The modules of one version of one policy. `sources` are further files, by their path in the gateway's folder.

    Each has its own name under `prefix` in sys.modules, because dataclasses and typing look it up there.
    """

    def __init__(self, prefix: str, sources: Mapping[str, bytes]) -> None:
        self._prefix = prefix
        # A package comes after the file of the same name and replaces it, as in Python's own import system.
        self._files = {
            _name(file): file for file in sorted(sources, key=lambda one: one.endswith("/__init__.py"))
        }
        self._sources = sources
        self._packages = {parent for name in self._files for parent in _parents(name)} - self._files.keys()
        self._loaded: dict[str, ModuleType] = {}
        self._before: dict[str, ModuleType | None] = {}
        self._one_at_a_time = threading.RLock()
        self._builtins = {**vars(builtins), "__import__": self._import}

    def main(self, file: str) -> ModuleType:
        """The module of the policy itself. This method does not run it."""
        return self._new(_name(file), file, self._prefix)

    def run(self, module: ModuleType, source: bytes) -> None:
        """Run a source as a module. Raises the errors of the source."""
        file = str(module.__file__)
        # Tracebacks use it to show the lines of the policy.
        linecache.cache[file] = (len(source), None, source.decode("utf-8", "replace").splitlines(True), file)
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))  # noqa: S102 - the gateway's own policy

    def forget(self) -> None:
        """Restore the former entries of sys.modules."""
        for name, module in self._before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module

    def _new(self, name: str, file: str, shown: str) -> ModuleType:
        module = ModuleType(shown)
        package = name if file.endswith("/__init__.py") else name.rpartition(".")[0]
        vars(module).update(__file__=file, __package__=package, __builtins__=self._builtins)
        self._loaded[name] = module
        self._before[shown] = sys.modules.get(shown)
        sys.modules[shown] = module
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the parameters of __import__
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        full = self._absolute(name, globals or {}, level)
        if full not in self._files and full not in self._packages and full not in self._loaded:
            return __import__(full, globals, locals, fromlist or (), 0)
        with self._one_at_a_time:
            *_, module = [self._member(part) for part in _parents(full)]
            for one in fromlist or ():
                inner = f"{full}.{one}"
                if not hasattr(module, one) and (inner in self._files or inner in self._loaded):
                    self._member(inner)
            return module if fromlist else self._module(full.partition(".")[0])

    def _absolute(self, name: str, importer: Mapping[str, Any], level: int) -> str:
        if not level:
            return name
        package = str(importer.get("__package__") or "").split(".")
        above = [part for part in package[: len(package) - level + 1] if part]
        if level > len(package) or not (above or name):
            raise ImportError("attempted relative import beyond the gateway's folder")
        return ".".join([*above, *([name] if name else [])])

    def _member(self, name: str) -> ModuleType:
        """A module that is also set as an attribute of its package."""
        module = self._module(name)
        package, _, own = name.rpartition(".")
        if package:
            setattr(self._module(package), own, module)
        return module

    def _module(self, name: str) -> ModuleType:
        """A module, which is run at its first import."""
        known = self._loaded.get(name)
        if known is not None:
            return known
        file = self._files.get(name, f"{name.replace('.', '/')}/__init__.py")
        if name not in self._files and name not in self._packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = self._new(name, file, f"{self._prefix}.{name}")
        try:
            self.run(module, self._sources.get(file, b""))
        except BaseException:
            del self._loaded[name]
            raise
        return module
