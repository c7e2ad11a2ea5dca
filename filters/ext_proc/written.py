"""The phases of a class, from its source. The control plane needs them and does not run the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from filters.ext_authz.sources import no_python
from filters.processing.phases import Phase

_BASE, _ROOTS = "Processor", ("filters.ext_proc", "filters.processing.processor")
_PHASES = frozenset(Phase)
_DEEPEST = 16
"""Base classes, one above the other."""


class UnclearError(Exception):
    """The source does not tell which phases a class has. The message is the reason, for the person who wrote it."""


def phases(file: str, name: str, sources: Mapping[str, bytes]) -> frozenset[Phase]:
    """The phases of a class of `file`. `sources` has the file and what it imports from the folder. Raises UnclearError."""
    for one, source in sources.items():
        reason = no_python(source, one)
        if reason is not None:
            raise UnclearError(reason)
    found = _Reader(sources).of(file, name, _DEEPEST)
    if found is None:
        raise UnclearError(f"the class {name} of {file} is no filters.ext_proc.Processor")
    if not found:
        raise UnclearError(f"the class {name} of {file} has none of the methods {', '.join(sorted(Phase))}")
    return found


class _Reader:
    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self._sources = sources

    def of(self, file: str, name: str, depth: int) -> frozenset[Phase] | None:
        """The phases of a class, or None if it is no processor. Raises UnclearError."""
        tree = ast.parse(self._sources[file], file)
        defined = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
        if not defined:
            elsewhere = self._imported(file, tree, name)
            if elsewhere is None:
                raise UnclearError(f"{file} has no class '{name}' at its top level")
            return self._class(*elsewhere, depth)
        if depth == 0:
            raise UnclearError(f"{file}:{defined[-1].lineno}: the class {name} has too many base classes")
        bases = [self._base(file, tree, node, depth - 1) for node in defined[-1].bases if not _generic(node)]
        if not any(base is not None for base in bases):
            return None
        own = frozenset(Phase(one) for one in _methods(defined[-1]) if one in _PHASES)
        return own.union(*(base for base in bases if base is not None))

    def _class(self, module: str, name: str, depth: int) -> frozenset[Phase] | None:
        if module in _ROOTS:
            return frozenset() if name == _BASE else None
        file = next((one for one in _files(module) if one in self._sources), None)
        return None if file is None else self.of(file, name, depth)

    def _base(self, file: str, tree: ast.Module, node: ast.expr, depth: int) -> frozenset[Phase] | None:
        """The phases of a base class, or None if it is no processor."""
        if isinstance(node, ast.Name):
            if any(isinstance(one, ast.ClassDef) and one.name == node.id for one in tree.body):
                return self.of(file, node.id, depth)
            elsewhere = self._imported(file, tree, node.id)
            return None if elsewhere is None else self._class(*elsewhere, depth)
        if isinstance(node, ast.Attribute):
            module = self._module(file, tree, ast.unparse(node.value))
            return None if module is None else self._class(module, node.attr, depth)
        return None

    def _imported(self, file: str, tree: ast.Module, name: str) -> tuple[str, str] | None:
        """The module and the name that `name` stands for, by ``from MODULE import NAME``."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _absolute(file, node), alias.name
        return None

    def _module(self, file: str, tree: ast.Module, name: str) -> str | None:
        """The module that `name` stands for, by ``import MODULE`` or ``from PACKAGE import MODULE``."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return alias.name
        found = self._imported(file, tree, name)
        return None if found is None else ".".join(part for part in found if part)


def _absolute(file: str, node: ast.ImportFrom) -> str:
    """The full name of the module of an import."""
    above = file.split("/")[:-1][: len(file.split("/")) - node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _files(module: str) -> tuple[str, str]:
    path = module.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


def _generic(node: ast.expr) -> bool:
    """True for ``Generic[T]`` and the like, which have no phases."""
    return isinstance(node, ast.Subscript)


def _methods(node: ast.ClassDef) -> Iterator[str]:
    """Names that the body of a class defines: methods, and names of functions that it assigns."""
    for one in ast.walk(node):
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one in node.body:
            yield one.name
        elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
            yield one.id
