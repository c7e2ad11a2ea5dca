"""Where the files of the OWASP Core Rule Set are, and whether the engine is there. Neither is part of this package."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

VARIABLE = "XDS_CRS"
"""The environment variable with the folder."""
INSTALLED = Path(sys.prefix, "share", "xds-gateway", "crs")
"""Where `make waf` puts them."""
_FIRST = "REQUEST-901-INITIALIZATION.conf"
_VERSION = re.compile(r"OWASP_CRS/(\d+)\.(\d+)\.(\d+)")
REMEDY = f"run make waf, or unpack a release of https://github.com/coreruleset/coreruleset and set {VARIABLE} to its folder"


class NotInstalledError(Exception):
    """The engine or the rules are missing, or the rules are not those of version 4. The message says what to do."""


def require_engine() -> None:
    """Raise NotInstalledError unless ModSecurity can be imported."""
    if importlib.util.find_spec("libmodsecurity") is None:
        raise NotInstalledError(
            "ModSecurity is not installed; run pip install 'xds-gateway[waf]' (Linux on x86-64, or macOS on ARM64)"
        )


def folder() -> Path:
    """The folder with the files of the rules. Raises NotInstalledError."""
    named = os.environ.get(VARIABLE)
    root = Path(named) if named else INSTALLED
    for one in (root, root / "rules", root / "rules" / "@owasp_crs"):
        if (one / _FIRST).is_file():
            _check(one)
            return one.resolve()
    raise NotInstalledError(f"the Core Rule Set is not in {root}; {REMEDY}")


def version(rules: Path) -> str:
    """The version of the rules in a folder, such as ``4.25.0``; empty if they do not tell it."""
    found = _VERSION.search((rules / _FIRST).read_text())
    return ".".join(found.groups()) if found else ""


def _check(rules: Path) -> None:
    if not version(rules).startswith("4."):
        raise NotInstalledError(
            f"the Core Rule Set in {rules} has the version {version(rules) or '?'}, not 4; {REMEDY}"
        )
