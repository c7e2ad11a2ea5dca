"""The sdist and the wheel have all that the command needs, and declare what they need of others.

The wheel is installed into an environment that has only the declared dependencies, and their own. They are links to the files
of this environment, so that the test needs no package index.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from tests.support.ports import free_port
from tests.support.running import ROOT
from tests.support.wait import wait_for

BUILD = "import sys, setuptools.build_meta as build; print(getattr(build, sys.argv[1])(sys.argv[2]))"
PACKAGES = ("xds_server", "filters", "protos")


def run(*command: object, cwd: Path) -> str:
    """Run a command outside of the checkout, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(one) for one in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built of the sdist, which is built of the committed and changed files."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-c", BUILD, "build_sdist", built, cwd=source)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(built, filter="data")
    (unpacked,) = (one for one in built.iterdir() if one.is_dir())
    run(sys.executable, "-c", BUILD, "build_wheel", built, cwd=unpacked)
    (found,) = built.glob("*.whl")
    return found


def closure() -> Iterator[Distribution]:
    """The distributions that the project needs when it runs, and those that these need."""
    waiting: list[tuple[str, tuple[str, ...]]] = [("xds-gateway", ())]
    known = {("xds-gateway", ())}
    yielded: set[str] = set()
    while waiting:
        name, extras = waiting.pop()
        found = distribution(name)
        if name not in (*yielded, "xds-gateway"):
            yielded.add(name)
            yield found
        for text in found.requires or ():
            wanted = Requirement(text)
            marker = wanted.marker
            if marker is not None and not any(marker.evaluate({"extra": one}) for one in ("", *extras)):
                continue
            key = (re.sub(r"[-_.]+", "-", wanted.name).lower(), tuple(sorted(wanted.extras)))
            if key not in known:
                known.add(key)
                waiting.append(key)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for one in closure():
        for file in one.files or ():
            inside, target = site / file, Path(str(one.locate_file(file)))
            if ".." not in file.parts and target.is_file():
                inside.parent.mkdir(parents=True, exist_ok=True)
                if not inside.exists():
                    inside.symlink_to(target)
    run(
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    return folder


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES, cwd=ROOT)
    expected = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith(tuple(f"{one}/" for one in PACKAGES))}
    assert found == expected


def test_the_bill_of_materials_names_what_is_installed(environment: Path, tmp_path: Path) -> None:
    """The command is that of the Dockerfile."""
    tool, bill = Path(sys.executable).parent / "cyclonedx-py", tmp_path / "sbom.cdx.json"
    words = re.search(r"cyclonedx-py (environment .*) --output-file", (ROOT / "Dockerfile").read_text())
    assert words is not None
    arguments = words[1].replace("pyproject.toml", str(ROOT / "pyproject.toml")).split()
    run(tool, *arguments, "--output-file", bill, environment / "bin" / "python", cwd=tmp_path)
    made = json.loads(bill.read_text())
    assert (made["bomFormat"], made["metadata"]["component"]["name"]) == ("CycloneDX", "xds-gateway")
    named = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in made["components"]}
    expected = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in closure()}
    assert expected.items() <= named.items()
    assert "pytest" not in named


def test_an_installed_wheel_runs_the_quickstart(environment: Path, tmp_path: Path) -> None:
    bin_ = environment / "bin"
    where = run(bin_ / "python", "-c", "import xds_server, filters; print(xds_server.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    gateway = ROOT / "examples" / "quickstart" / "gateway"
    assert run(bin_ / "xds", "check", gateway, "--no-envoy", cwd=tmp_path) is not None
    run(bin_ / "pip", "check", cwd=tmp_path)
    port, users, orders, xds, admin = (free_port() for _ in range(5))
    variables = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "GATEWAY_PORT": str(port),
        "USERS_ADDRESS": f"127.0.0.1:{users}",
        "ORDERS_ADDRESS": f"127.0.0.1:{orders}",
    }
    command = [
        *(str(bin_ / "python"), str(ROOT / "examples" / "quickstart" / "demo.py")),
        *("--xds", f"127.0.0.1:{xds}", "--admin", f"127.0.0.1:{admin}", "--console", "off"),
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=log, stderr=log)
    try:
        wait_for(
            lambda: httpx.get(f"http://127.0.0.1:{port}/api/users/1", timeout=10).status_code == 200,
            lambda: f"an answer; the log:\n{(tmp_path / 'log').read_text()[-3000:]}",
        )
        assert httpx.delete(f"http://127.0.0.1:{port}/api/orders/7", timeout=10).status_code == 405
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
