"""python -m benchmarks [NAME…]: run all benchmarks, or those named, and print their tables."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    """Run the modules that have a main()."""
    found = [one.name for one in pkgutil.iter_modules([str(Path(__file__).parent)]) if one.name != "__main__"]
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in found}
    known = {name: module.main for name, module in modules.items() if hasattr(module, "main")}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}")
    print(f"Python {platform.python_version()} on {platform.machine()}, {_processor()}\n", flush=True)
    for name in names or known:
        known[name]()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} × {models[0]}" if models else platform.processor()


if __name__ == "__main__":
    main(sys.argv[1:])
