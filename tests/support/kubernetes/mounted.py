"""A volume as a kubelet writes it: files are links into a folder that one rename replaces."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

_NUMBERS = itertools.count()


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Have exactly these files in a folder at one moment."""
    content = folder / f"..{next(_NUMBERS)}"
    content.mkdir(parents=True)
    for name, value in files.items():
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_bytes(value)
    link = folder / "..data_tmp"
    link.symlink_to(content.name)
    link.rename(folder / "..data")
    for top in {Path(name).parts[0] for name in files}:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
