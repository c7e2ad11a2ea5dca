"""The health of the two cohorts of a rollout by queries of a Prometheus server.

https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import aiohttp

from xds_server.control_plane.rollout_steps import Verdict
from xds_server.gateway.model.rollout import AbortIf, PrometheusSource, threshold

NODES, WINDOW = "%NODES%", "%WINDOW%"
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class PrometheusHealth:
    """Asks a server for the values of one rollout. `began` is Unix time."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._before: dict[str, float] = {}
        """The last known value of the stable version, by key."""

    async def verdict(
        self,
        source: PrometheusSource,
        limits: AbortIf,
        chosen: Iterable[str],
        others: Iterable[str],
        seconds: float,
    ) -> Verdict:
        """Compare the Envoys that have had the new version for some `seconds` with the others.

        It is silent if the server gives no value.
        """
        window = f"{max(1, int(seconds))}s"
        chosen, others = tuple(chosen), tuple(others)
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            for key in ("error_rate", "p99"):
                text, query = getattr(limits, key), getattr(source, key)
                if text is None or query is None:
                    continue
                query = query.replace(WINDOW, window)
                try:
                    await self._measure_before(session, source.url, key, query, others)
                    value = await _value(session, source.url, _about(query, chosen), None)
                except (TimeoutError, aiohttp.ClientError, ValueError, LookupError, TypeError) as error:
                    return Verdict(silence=f"Prometheus gives no {key}: {error or type(error).__name__}")
                if math.isnan(value):
                    continue  # there were no requests
                before = self._before.get(key)
                if threshold(text, of_time=key == "p99").exceeded(value, before):
                    than = "" if before is None else f"; before {before:g}"
                    return Verdict(violation=f"{key} {value:g}{than}; the condition is {text}")
        return Verdict()

    async def _measure_before(
        self, session: aiohttp.ClientSession, url: str, key: str, query: str, others: tuple[str, ...]
    ) -> None:
        value = math.nan
        if NODES not in query:
            if key not in self._before:
                value = await _value(session, url, query, self._began)
        elif others:
            value = await _value(session, url, _about(query, others), None)
        if not math.isnan(value):
            self._before[key] = value


def _about(query: str, nodes: tuple[str, ...]) -> str:
    """Return a query about some nodes. In a text of PromQL, a backslash is written twice."""
    return query.replace(NODES, "|".join(re.escape(one).replace("\\", "\\\\") for one in nodes))


async def _value(session: aiohttp.ClientSession, url: str, query: str, at: float | None) -> float:
    """Return the value of an expression, NaN if it has none at that time. Raises ClientError, TimeoutError, ValueError."""
    parameters = {"query": query, **({} if at is None else {"time": f"{at:.3f}"})}
    async with session.get(f"{url.rstrip('/')}/api/v1/query", params=parameters) as response:
        answer = await response.json(content_type=None)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise ValueError(reason or f"status {response.status}")
    data = answer["data"]
    if data["resultType"] == "scalar":
        return float(data["result"][1])
    if data["resultType"] != "vector" or len(data["result"]) > 1:
        raise ValueError("the query must have one value, not several; use sum() or max()")
    if not data["result"]:
        if at is not None:
            return math.nan
        raise ValueError("the query has no value")
    return float(data["result"][0]["value"][1])
