"""Generated Lua: Python values as literals, and scripts of several files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any


def lua(value: Any) -> str:
    """A Lua literal of a flag, whole number, text, bytes, mapping or sequence. The keys of a mapping are sorted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"[{lua(key)}]={lua(one)}" for key, one in sorted(value.items())) + "}"
    if isinstance(value, str):
        return lua(value.encode())
    if isinstance(value, bytes):
        return '"' + re.sub(rb"[^ !#-\[\]-~]", lambda match: b"\\%03d" % match[0][0], value).decode() + '"'
    return "{" + ",".join(map(lua, value)) + "}"


def script(constants: Mapping[str, Any], *files: str) -> str:
    """The constants as local variables, and after them the Lua of the files, which are paths in this package."""
    values = "".join(f"local {name} = {lua(value)}\n" for name, value in constants.items())
    root = resources.files(__package__)
    return "\n".join([values, *(root.joinpath(file).read_text() for file in files)])
