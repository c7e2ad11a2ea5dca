"""python -m tests.support.kubernetes.build: build the Kubernetes API server of the tests, once for each form of its sources.

The result is in a folder of the user's cache that is named by the hash of the sources, so that every checkout and every
later run finds it. A cold build takes about 8 minutes on two cores.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

SOURCES = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xds-gateway"
KUBERNETES = "v1.37.2"
"""The version that the API server tells; go.mod has the modules of this version."""
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.7.0"
GATEWAY_API_SUM = "h1:duVnm7nO6oXfMMUWfcDoBph47CYR/ME3NGxccOVglaY="
"""The module whose CRDs the tests use, and its hash as in a go.sum. It needs Go 1.27 to compile, and here only its YAML is read."""
HELM = "v3.18.4"
_VERSION = "k8s.io/component-base/version"
_FLAGS = f"-s -w -X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37"
_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux"}
"""What starts the API server in a network namespace: commands with Debian's packages."""
_GO = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false -mod=readonly", "CGO_ENABLED": "0"}


SKIPPED = "the tests with a Kubernetes API server are skipped"


class CannotBuildError(Exception):
    """Something that the build needs is missing, or the build failed. The message is one line."""


def folder() -> Path:
    """Return the folder of the API server that belongs to these sources: `kas` and `crds/`, if it is built."""
    return CACHE / f"kas-{digest([SOURCES / 'kas'], [_FLAGS, GATEWAY_API_SUM])}"


def missing() -> str:
    """Return why the tests with an API server cannot run, and what to do, or an empty text."""
    if os.geteuid() != 0:
        return f"only root can make a network namespace, so {SKIPPED}; run them as root, in a container for example"
    for command, package in _TOOLS.items():
        if shutil.which(command) is None:
            return f"{command} is missing, so {SKIPPED}; on Debian: apt-get install {package}"
    if not folder().exists():
        return f"the API server is not built, so {SKIPPED}; with Go 1.26 or later: make kubernetes"
    return ""


def build() -> None:
    """Build the API server and fetch the CRDs, unless they are there. Raises CannotBuildError."""
    if os.geteuid() == 0 and not folder().exists():
        built(folder(), _into)


def _into(target: Path) -> None:
    go(
        target,
        "build",
        "-trimpath",
        "-ldflags",
        _FLAGS,
        "-o",
        str(target / "kas"),
        ".",
        sources=SOURCES / "kas",
    )
    with zipfile.ZipFile(_gateway_api(target)) as module:
        for name in module.namelist():
            _, found, path = name.partition("/config/crd/")
            if found and path.count("/") == 1 and path.endswith(".yaml"):
                file = target / "crds" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(module.read(name))


def _gateway_api(folder: Path) -> Path:
    """Return the ZIP file of the module with the CRDs. Its exit code is not 0 if Go is too old to compile the module."""
    command = ["go", "mod", "download", "-json", GATEWAY_API]
    done = subprocess.run(command, cwd=folder, env=_environment({}), capture_output=True, text=True)
    try:
        module = json.loads(done.stdout)
        archive, checksum = Path(module["Zip"]), module["Sum"]
    except (ValueError, KeyError):
        raise CannotBuildError(f"{GATEWAY_API} cannot be downloaded: {_last(done.stderr)}") from None
    if checksum != GATEWAY_API_SUM:
        raise CannotBuildError(f"{GATEWAY_API} has the hash {checksum}, not {GATEWAY_API_SUM}")
    return archive


def digest(folders: Iterable[Path], texts: Iterable[str]) -> str:
    """Return a short hash of all files in some folders, and of some texts."""
    content = hashlib.sha256("\0".join(texts).encode())
    for file in sorted(file for folder in folders for file in folder.iterdir()):
        content.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return content.hexdigest()[:16]


def built(target: Path, make: Callable[[Path], None]) -> None:
    """Have `make` fill a folder, which becomes `target` when it is complete. Builds in other processes are awaited."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as name:
            made = Path(name, "made")
            made.mkdir()
            make(made)
            made.rename(target)


def helm() -> Path:
    """Return the program Helm, and build it first if needed. Raises CannotBuildError."""
    target = CACHE / f"helm-{HELM}"
    built(target, lambda made: install(made, f"helm.sh/helm/v3/cmd/helm@{HELM}"))
    return target / "helm"


def install(target: Path, package: str) -> None:
    """Install a program of Go with its version into a folder. Raises CannotBuildError."""
    go(target, "install", "-trimpath", "-ldflags", "-s -w", package, sources=target, GOBIN=str(target))


def go(target: Path, *arguments: str, sources: Path, **variables: str) -> str:
    """Call Go in a folder of sources, with temporary files in `target`, and return its output.

    Raises CannotBuildError.
    """
    if shutil.which("go") is None:
        raise CannotBuildError("Go is missing; install Go 1.26 or later from https://go.dev/dl/")
    done = subprocess.run(
        ["go", *arguments],
        cwd=sources,
        env=_environment({"GOTMPDIR": str(target), **variables}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CannotBuildError(f"go {arguments[0]} failed in {sources}: {_last(done.stderr)}")
    return done.stdout


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **_GO, **more}


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


if __name__ == "__main__":
    try:
        build()
        helm()
        line = missing()
    except CannotBuildError as error:
        line = f"{error}; {SKIPPED}"
    if line:
        print(line)  # noqa: T201 - this is what the command does
