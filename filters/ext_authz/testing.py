"""Helpers for unit tests of policies: requests in one line, and decisions of any kind of function.

from filters.ext_authz.testing import decide, request

def test_writing_is_for_operators() -> None:
    assert decide(check, request("POST", "/orders", claims={"department": "ops"})).allowed
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from filters.ext_authz.decisions import Decision, Request
from filters.ext_authz.functions import Failed, load
from filters.ext_authz.modules import imported
from filters.model.headers import Headers


def request(
    method: str = "GET", url: str = "/", headers: Mapping[str, str] | None = None, **more: Any
) -> Request:
    """A request. `url` is a path with or without a query, `more` are further fields of Request."""
    path, _, query = url.partition("?")
    return Request(
        method=method,
        path=path,
        query=dict(reversed(parse_qsl(query, keep_blank_values=True))),
        query_string=query,
        headers=Headers(headers or {}),
        **more,
    )


def decide(policy: Callable[[Request], Any], asked: Request) -> Decision:
    """The decision of a policy, which may be a coroutine. Raises the policy's errors, and Failed for no Decision."""
    answer = policy(asked)
    if inspect.isawaitable(answer):
        answer = asyncio.run(_awaited(answer))
    if not isinstance(answer, Decision):
        raise Failed(f"returned {type(answer).__name__} and not a Decision")
    return answer


async def _awaited(answer: Any) -> Any:
    return await answer


def policy(reference: str, folder: Path | str = ".") -> Callable[[Request], Any]:
    """The function of ``FILE.py:FUNCTION``, loaded as the policy server loads it. Raises Refused."""
    file, _, function = reference.rpartition(":")
    sources = read_sources(file, folder)
    return load(file, function, sources[file], sources).call


def read_sources(file: str, folder: Path | str) -> dict[str, bytes]:
    """The file and what it imports from the folder, by path."""
    sources = {file: (Path(folder) / file).read_bytes()}
    waiting = [file]
    for one in waiting:
        for other in imported(one, sources[one]):
            if other not in sources and (Path(folder) / other).is_file():
                sources[other] = (Path(folder) / other).read_bytes()
                waiting.append(other)
    return sources
