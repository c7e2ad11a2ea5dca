"""rollout: how a new version of the gateway reaches the Envoys of the fleet step by step, and when it is withdrawn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, ClassVar

from filters.language import Mistake, Percent, Shorthand, option, scalars

LOAD_REPORT = "load_report"
_TIMES = re.compile(r">\s*(\d+(?:\.\d+)?)\s*[×x*]\s*before")
_ABSOLUTE = re.compile(r">\s*(\S+)")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition of a measured value: above `absolute`, and above `times` the value of before. None is no bound.

    The value is a share from 0 to 1, or seconds.
    """

    absolute: float | None = None
    times: float | None = None

    def exceeded(self, value: float, before: float | None) -> bool:
        """True if the value exceeds all bounds. Without a value of before, only the absolute bound counts."""
        if self.absolute is not None and value <= self.absolute:
            return False
        if self.times is not None and before is not None:
            return value > self.times * before
        return self.absolute is not None


def _share(text: str) -> float:
    return scalars.percent(text) / 100


def _seconds(text: str) -> float:
    return scalars.duration(text).total_seconds()


def threshold(text: str, *, of_time: bool) -> Threshold:
    """Parse ``> 2% and > 2 x before``, or a duration in the place of the percentage. Raises ValueError."""
    found: dict[str, float] = {}
    for part in re.split(r"\s+and\s+", text.strip()):
        times = _TIMES.fullmatch(part)
        absolute = _ABSOLUTE.fullmatch(part)
        if times:
            key, value = "times", float(times[1])
        elif absolute:
            key, value = "absolute", (_seconds if of_time else _share)(absolute[1])
        else:
            raise ValueError("not a condition")
        if key in found:
            raise ValueError("two conditions of the same kind")
        found[key] = value
    return Threshold(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortIf:
    """When a new version is withdrawn. Every condition is sufficient."""

    rejections: int | None = option(
        "This many rejections (NACKs) of something that only the new version has, by Envoys or by the proving Envoy.",
        default=None,
        minimum=1,
    )
    error_rate: str | None = option(
        "The share of requests to upstreams that failed or got a 5xx status, among Envoys with the new version: "
        "`> 2%`, `> 2 × before`, or both with `and`. `x` may stand for `×`. *Before* is the same share among the "
        "Envoys with the previous version in the same time; if all have the new one, in the time before.",
        default=None,
    )
    p99: str | None = option(
        "The 99th percentile of the response time, such as `> 1.5 × before` or `> 300ms`. It needs "
        "`source: {prometheus: …}`.",
        default=None,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each condition that is not one."""
        for key, example in (("error_rate", "> 2% and > 2 × before"), ("p99", "> 300ms and > 1.5 × before")):
            text = getattr(self, key)
            if text is None:
                continue
            try:
                threshold(text, of_time=key == "p99")
            except ValueError:
                yield Mistake("not a condition", f'write "{example}"', path=(key,), value=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSource:
    """Health by queries of a Prometheus server.

    `%NODES%` in a query is replaced by a regular expression of node ids: those with the new version, and once more
    those with the previous version for *before*. Without `%NODES%`, *before* is the value when the rollout began.
    `%WINDOW%` is replaced by the time since all Envoys of the step have the new version, such as `45s`.
    """

    url: str = option(
        "The server, such as http://prometheus:9090.", pattern=r"https?://\S+", shape="an http(s) URL"
    )
    error_rate: str | None = option("An expression with the share of failed requests, 0 to 1.", default=None)
    p99: str | None = option("An expression with a time in seconds.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSource:
    """Where the health of Envoys comes from."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "`load_report`", {"enum": [LOAD_REPORT]})
    prometheus: PrometheusSource = option("A Prometheus server.")

    @classmethod
    def short(cls, value: str) -> HealthSource | None:
        """The source that a word stands for. Raises Mistake."""
        if value == LOAD_REPORT:
            return LOAD_REPORTS
        raise Mistake("expected load_report or a mapping", "write load_report or {prometheus: {url: URL}}")


LOAD_REPORTS = HealthSource(prometheus=PrometheusSource(url=""))
"""The source `load_report`: Envoys report to the control plane, by LRS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Mapping[str, Any]):
    """How a new version reaches the Envoys. As a mapping it has the keys that a user wrote."""

    steps: tuple[Percent, ...] = option(
        "The shares of the connected Envoys that get the new version, one after the other. A step takes at least one "
        "Envoy. After the last step, all have it.",
        default=(),
    )
    pause: timedelta = option(
        "How long a step lasts, from the moment at which its Envoys have acknowledged the new version.",
        default=timedelta(minutes=2),
        minimum=1,
        maximum=86400,
    )
    abort_if: AbortIf = option("When the new version is withdrawn.", default=AbortIf(rejections=1))
    source: HealthSource = option(
        "Where error rate and response times come from: `load_report` (Envoys report them to the control plane), or "
        "a Prometheus server.",
        default=LOAD_REPORTS,
    )
    minimum_requests: int = option(
        "An error rate of load reports counts from this number of requests on.", default=20, minimum=1
    )

    @property
    def declared(self) -> bool:
        """True if new versions go step by step."""
        return bool(self.steps)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        if not self.steps:
            yield Mistake("'steps' are missing", "write steps: [5%, 25%, 100%]")
        for number, (one, two) in enumerate(zip((0.0, *self.steps), self.steps, strict=False)):
            if two <= one:
                message = "each step must be larger than the one before"
                yield Mistake(
                    message, "write steps: [5%, 25%, 100%]", path=("steps", number), value=f"{two:g}%"
                )
        if self.source == LOAD_REPORTS:
            if self.abort_if.p99 is not None:
                message = "load reports of Envoy contain no response times"
                remedy = "write source: {prometheus: {url: URL, p99: QUERY}}, or remove 'p99'"
                yield Mistake(message, remedy, path=("abort_if", "p99"))
            return
        for key in ("error_rate", "p99"):
            if getattr(self.abort_if, key) is not None and getattr(self.source.prometheus, key) is None:
                message = f"no query says what the {key} is"
                yield Mistake(message, f"add '{key}' to source.prometheus", path=("abort_if", key))

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS or getattr(self, key) == _DEFAULTS[key]:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (key for key in KEYS if getattr(self, key) != _DEFAULTS[key])

    def __len__(self) -> int:
        return sum(1 for _ in self)


KEYS = tuple(one.name for one in fields(Rollout))
_DEFAULTS = {one.name: one.default for one in fields(Rollout)}
NO_ROLLOUT = Rollout()
