"""Rates, errors and latencies of each route, from the metrics of the Envoy that `xds run` has started.

Envoy is asked only while somebody looks. The figures are differences of two samples.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xds_server.admin import ask

INTERVAL = 2.0
"""Seconds between two samples. Envoy merges its histograms as often."""
TIMEOUT = 2.0
PAUSE = 20.0
"""Seconds for which a silent Envoy is not asked again, because every page would wait for it."""
_PREFIX = "envoy_gateway_"
_QUANTILES = (0.5, 0.99)


@dataclass(slots=True)
class Sample:
    """The counters of Envoy at one moment. `buckets` are cumulative, by route and by their upper bound (ms)."""

    at: float
    requests: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    consumers: dict[str, float] = field(default_factory=dict)
    rejections: dict[str, float] = field(default_factory=dict)


def parse(text: str, at: float) -> Sample:
    """Return the sample of a page in Prometheus' text format. Other families are left out."""
    sample = Sample(at)
    for line in text.splitlines():
        if not line.startswith(_PREFIX):
            continue
        head, _, value = line.rpartition(" ")
        name, _, labels = head.partition("{")
        kind = name.removeprefix(_PREFIX)
        known = dict(part.split("=", 1) for part in labels.rstrip("}").split(",") if "=" in part)
        known = {key: text.strip('"') for key, text in known.items()}
        route, number = known.get("route", ""), float(value)
        if kind == "request_duration_milliseconds_count":
            sample.requests[route] = number
        elif kind == "request_duration_milliseconds_bucket":
            sample.buckets.setdefault(route, {})[float(known["le"])] = number
        elif kind == "errors" and known["status"] == "5xx":
            sample.errors[route] = sample.errors.get(route, 0) + number
        elif kind == "consumer_requests" and known["consumer"]:
            sample.consumers[known["consumer"]] = number
        elif kind == "rejections" and known["reason"]:
            sample.rejections[known["reason"]] = number
    return sample


def rates(before: Sample, after: Sample) -> Mapping[str, Any]:
    """Return requests and errors per second, and latencies in milliseconds, of the time between two samples."""
    seconds = max(after.at - before.at, 1e-9)

    def per_second(new: Mapping[str, float], old: Mapping[str, float]) -> dict[str, float]:
        found = {name: (value - old.get(name, 0)) / seconds for name, value in new.items()}
        return {name: round(value, 2) for name, value in found.items() if value > 0}

    routes = {
        route: {
            "rate": rate,
            "errors": 0.0,
            **_latencies(before.buckets.get(route, {}), after.buckets.get(route, {})),
        }
        for route, rate in per_second(after.requests, before.requests).items()
    }
    for route, value in per_second(after.errors, before.errors).items():
        routes.setdefault(route, {"rate": 0.0})["errors"] = value
    return {
        "routes": routes,
        "total": _total(before, after, routes.values()),
        "consumers": per_second(after.consumers, before.consumers),
        "rejections": per_second(after.rejections, before.rejections),
    }


def _total(before: Sample, after: Sample, routes: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    rows = list(routes)
    merged = [_sum(sample.buckets.values()) for sample in (before, after)]
    return {
        "rate": round(sum(one["rate"] for one in rows), 2),
        "errors": round(sum(one["errors"] for one in rows), 2),
        **_latencies(*merged),
    }


def _sum(all_buckets: Iterable[Mapping[float, float]]) -> dict[float, float]:
    total: dict[float, float] = {}
    for buckets in all_buckets:
        for bound, count in buckets.items():
            total[bound] = total.get(bound, 0) + count
    return total


def _latencies(before: Mapping[float, float], after: Mapping[float, float]) -> dict[str, float]:
    """Return the quantiles of the requests between two cumulative histograms, interpolated within their bucket."""
    grown = [(bound, count - before.get(bound, 0)) for bound, count in sorted(after.items())]
    total = grown[-1][1] if grown else 0
    if total <= 0:
        return {}
    return {f"p{quantile * 100:g}": round(_quantile(grown, quantile * total), 2) for quantile in _QUANTILES}


def _quantile(grown: list[tuple[float, float]], wanted: float) -> float:
    low, below = 0.0, 0.0
    for bound, count in grown:
        if count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / max(count - below, 1e-9)
        low, below = bound, count
    return low


class Live:
    """Samples Envoy while somebody looks. `admin` returns Envoy's admin address, or None if no Envoy runs here."""

    def __init__(
        self, admin: Callable[[], tuple[str, int] | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._admin, self._clock = admin, clock
        self._watchers = 0
        self._last: Sample | None = None
        self._news = asyncio.Condition()
        self._message: str = json.dumps({"up": False})
        self._sampling: asyncio.Task[None] | None = None
        self._ended = False
        self._silent_until = float("-inf")

    async def follow(self) -> Any:
        """Yield the rates as JSON, every INTERVAL, as an asynchronous iterator."""
        self._watchers += 1
        if self._sampling is None or self._sampling.done():
            self._sampling = asyncio.create_task(self._sample())
        try:
            while not self._ended:
                async with self._news:
                    if not self._ended:
                        await self._news.wait()
                yield self._message
        finally:
            self._watchers -= 1

    async def end(self) -> None:
        """End all iterators."""
        self._ended = True
        async with self._news:
            self._news.notify_all()

    async def _sample(self) -> None:
        self._last = None
        while self._watchers and not self._ended:
            text = await asyncio.to_thread(self.page, "/stats/prometheus?usedonly&filter=^gateway\\.")
            sample = parse(text, self._clock()) if text is not None else None
            before: Sample | None = self._last
            self._last = sample
            if sample is None:
                await self._tell({"up": False})
            elif before is not None:
                await self._tell({"up": True, **rates(before, sample)})
            await asyncio.sleep(INTERVAL)

    async def _tell(self, message: Mapping[str, Any]) -> None:
        self._message = json.dumps(message)
        async with self._news:
            self._news.notify_all()

    def page(self, path: str) -> str | None:
        """Return a page of Envoy's admin interface, or None if Envoy does not answer. It blocks."""
        address = self._admin()
        if address is None or self._clock() < self._silent_until:
            return None
        try:
            answer = ask(address, "GET", path, timeout=TIMEOUT)
        except TimeoutError:
            self._silent_until = self._clock() + PAUSE
            return None
        except (OSError, http.client.HTTPException):
            return None
        return answer.body.decode("utf-8", "replace") if answer.status == 200 else None
