"""The metrics of all processes that `xds run` started, as one page in Prometheus' text format.

The page is put together from the texts of the processes. Families of the same name become one, as the format wants it:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from xds_server.admin import ask

TIMEOUT = 5.0
"""Seconds in which a process must answer."""
UP = "xds_process_up"

Source = Callable[[], tuple[tuple[str, int], str] | None]
"""Returns the admin address of a process and the path of its metrics there, or None if it does not run."""


def page(own: bytes, sources: Mapping[str, Source]) -> bytes:
    """Return our own metrics and those of other processes, by their names. A process that does not answer is left out.

    `xds_process_up` says for each process whether it answered.
    """
    with ThreadPoolExecutor(max(1, len(sources))) as pool:
        texts = dict(zip(sources, pool.map(_text, sources.values()), strict=True))
    up = [f"# HELP {UP} 1 if the process answered this scrape.", f"# TYPE {UP} gauge"]
    up += [f'{UP}{{process="{name}"}} {int(text is not None)}' for name, text in texts.items()]
    parts = (own.decode(), "\n".join(up), *(text for text in texts.values() if text is not None))
    return ("\n".join(joined(parts)) + "\n").encode()


def joined(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of all texts, each family once. Comments that describe no family are left out."""
    families: dict[str, list[str]] = {}
    for text in texts:
        family: list[str] = families.setdefault("", [])
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = families.setdefault(line.split(" ", 3)[2], [])
                if not any(known.startswith(line[:7]) for known in family[:2]):
                    family.append(line)
            elif line and not line.startswith("#"):
                family.append(line)
    for lines in families.values():
        yield from lines


def _text(source: Source) -> str | None:
    found = source()
    if found is None:
        return None
    address, path = found
    try:
        answer = ask(address, "GET", path, timeout=TIMEOUT)
    except (OSError, http.client.HTTPException):
        return None
    return answer.body.decode("utf-8", "replace") if answer.status == 200 else None
