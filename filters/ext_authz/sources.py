"""Why a source cannot be a policy, as far as that shows without running it."""

from __future__ import annotations

import ast


def fault(source: bytes, file: str, function: str) -> str | None:
    """Why a source cannot be a policy, as far as that shows without running it."""
    why = no_python(source, file)
    if why is not None:
        return why
    if not function.isidentifier():
        return f"'{function}' is not the name of a function"
    if function not in _names(ast.parse(source, file)):
        return f"{file} has no function '{function}'"
    return None


def no_python(source: bytes, file: str) -> str | None:
    """Why a source cannot be run at all."""
    try:
        compile(ast.parse(source, file), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        return f"{file}:{line}: {getattr(error, 'msg', error)}"
    except (RecursionError, MemoryError):  # how Python's parser says it
        return f"{file} is nested too deeply"
    return None


def _names(tree: ast.Module) -> set[str]:
    """Names that the module may have when it was run; all of them where it imports everything of another."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
