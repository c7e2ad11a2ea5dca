"""Where the files of the OWASP Core Rule Set are. They are not part of this package."""

from __future__ import annotations

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


class NoRulesError(Exception):
    """The rules are missing, or are not those of version 4. The message says what to do."""


def folder() -> Path:
    """The folder with the files of the rules. Raises NoRulesError."""
    named = os.environ.get(VARIABLE)
    root = Path(named) if named else INSTALLED
    for one in (root, root / "rules", root / "rules" / "@owasp_crs"):
        if (one / _FIRST).is_file():
            _check(one)
            return one.resolve()
    raise NoRulesError(f"the Core Rule Set is not in {root}; {REMEDY}")


def version(rules: Path) -> str:
    """The version of the rules in a folder, such as ``4.25.0``; empty if they do not tell it."""
    found = _VERSION.search((rules / _FIRST).read_text())
    return ".".join(found.groups()) if found else ""


def _check(rules: Path) -> None:
    if not version(rules).startswith("4."):
        raise NoRulesError(
            f"the Core Rule Set in {rules} has the version {version(rules) or '?'}, not 4; {REMEDY}"
        )
