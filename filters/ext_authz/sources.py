"""Faults of a policy's source that can be found without running it."""

from __future__ import annotations

import ast


def fault(source: bytes, file: str, function: str) -> str | None:
    """The reason why a source cannot be a policy, or None. It does not run the source."""
    reason = no_python(source, file)
    if reason is not None:
        return reason
    if not function.isidentifier():
        return f"'{function}' is not the name of a function"
    names = _names(ast.parse(source, file))
    if function not in names and "*" not in names:
        return f"{file} has no function '{function}'"
    return None


def no_python(source: bytes, file: str) -> str | None:
    """The reason why a source is not valid Python, or None."""
    try:
        compile(ast.parse(source, file), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        return f"{file}:{line}: {getattr(error, 'msg', error)}"
    except (RecursionError, MemoryError):  # Python's parser raises these for deep nesting
        return f"{file} is nested too deeply"
    return None


def _names(tree: ast.Module) -> set[str]:
    """Names that the module may define when it is run; ``*`` if it imports all names of another module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
