"""The chart as Helm renders it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.logged_process import ROOT

CHART = ROOT / "examples" / "kubernetes" / "chart"
_KUBERNETES = "1.34.0"


def rendered(helm: Path, *flags: str, name: str = "xds-gateway", namespace: str = "xds-system") -> list[Any]:
    """Return the objects of the chart. Raises subprocess.CalledProcessError, whose `stderr` says what is wrong."""
    command = [str(helm), "template", name, str(CHART), "--namespace", namespace, *flags]
    command += ["--kube-version", _KUBERNETES]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [one for one in yaml.safe_load_all(found.stdout) if one]
