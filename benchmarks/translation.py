"""Files to a snapshot: cold, after one change, and the memory in use, compared with PyYAML's C loader alone."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import httpx
import yaml

from benchmarks.gateways import gateway, write
from benchmarks.tables import HEADS, row, show
from filters.authorization.authorize import CONDITIONS
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.control_plane.compiler import Compiler
from xds_server.sources.folder import Folder

ROUTES, UPSTREAMS, FILES, ROUNDS = 10_000, 1_000, 200, 5


def main() -> None:
    """Print the table."""
    texts = gateway(ROUTES, UPSTREAMS, FILES)
    files = {name: text.encode() for name, text in texts.items()}
    loading, compiling = _side_by_side(files)
    own, changing = _change(files)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "large", texts)
        write(Path(folder) / "small", gateway(1_000, 100, 20))
        command = min(_command(Path(folder) / "large") for _ in range(3))
        small, large = (_memory(Path(folder) / one, Path(folder)) for one in ("small", "large"))
    size = sum(map(len, files.values())) / 1e6
    rows = [
        (f"PyYAML's C loader alone, {size:.1f} MB", f"{loading:.3f} s", "", ""),
        ("files → serialized snapshot, cold", f"{compiling:.3f} s", "", ""),
        row("… as a multiple of PyYAML", compiling / loading, 1.5, " ×"),
        ("`xds compile`, start and print included", f"{command:.3f} s", "", ""),
        row("… as a multiple of PyYAML", command / loading, 2.2, " ×"),
        (f"PyYAML for one of the {FILES} files", f"{own * 1000:.1f} ms", "", ""),
        row("that file changed → snapshot, less its YAML", (changing - own) * 1000, 25, " ms"),
        ("1,000 conditions of `authorize`", f"{_conditions():.3f} s", "", ""),
        row("memory of the control plane, 1,000 routes", small, 120, " MiB"),
        row(f"memory of the control plane, {ROUTES:,} routes", large, 400, " MiB"),
    ]
    show(f"Translation: {ROUTES:,} routes, {UPSTREAMS:,} upstreams, {FILES} files", HEADS, rows)


def _timed(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _load(files: dict[str, bytes]) -> None:
    for content in files.values():
        yaml.load(content, Loader=yaml.CSafeLoader)


def _folder(files: dict[str, bytes]) -> Folder:
    return Folder(Path(), MappingProxyType(files))


def _side_by_side(files: dict[str, bytes]) -> tuple[float, float]:
    """Return the seconds of PyYAML and of the compiler, which take turns.

    The minimum counts, because other work only adds.
    """
    Compiler({}).compile(_folder(files))
    turns = [
        (_timed(lambda: _load(files)), _timed(lambda: Compiler({}).compile(_folder(files))))
        for _ in range(ROUNDS)
    ]
    return min(one for one, _ in turns), min(other for _, other in turns)


def _change(files: dict[str, bytes]) -> tuple[float, float]:
    """Return the seconds of PyYAML for one file, and of the compiler after a change of that file."""
    compiler = Compiler({})
    compiler.compile(_folder(files))
    name, own, changing = "team-007.yaml", [], []
    for number in range(2 * ROUNDS):
        content = files[name].replace(b"timeout: 5s", f"timeout: {number + 6}s".encode())
        own.append(_timed(lambda content=content: _load({name: content})))
        folder = _folder({**files, name: content})
        changing.append(_timed(lambda folder=folder: compiler.compile(folder)))
    return min(own), min(changing)


def _conditions() -> float:
    texts = [
        f'claims.department == "ops{number}" || (request.method == "GET" && request.url_path.startsWith("/open")) '
        '&& has(claims.level) && plan in ["pro", "free"]'
        for number in range(1_000)
    ]
    CONDITIONS.parse("plan == 'pro'")
    return min(_timed(lambda: [CONDITIONS.parse(text) for text in texts]) for _ in range(ROUNDS))


def _command(folder: Path) -> float:
    command = [sys.executable, "-m", "xds_server", "compile", str(folder)]
    return _timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))


def _memory(folder: Path, logs: Path) -> float:
    """Return the resident MiB of `xds run --no-proxy` when it serves."""
    with Running(folder, logs, "--no-proxy") as running:
        wait_for(lambda: httpx.get(f"http://{running.admin}/ready").status_code == 200, "the snapshot")
        assert running.process is not None, "it runs"
        status = Path(f"/proc/{running.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]) / 1024
