"""What keeps failing and slow endpoints of an upstream from harm: health checks, outlier detection, limits of concurrent use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

from filters.language import Mistake, Percent, Shorthand, option, scalars


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Active health checks of every endpoint."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a path such as /healthz")
    type: Literal["http", "tcp", "grpc"] | None = option(
        "Default: http with a path, grpc for protocol grpc, else tcp.", default=None
    )
    path: str | None = option(
        "http: the path of the request.", default=None, pattern=r"/\S*", shape="a path such as /healthz"
    )
    host: str | None = option("http: the Host header; default the upstream's name.", default=None)
    expected_statuses: tuple[int, ...] = option(
        "http: statuses that mean healthy.", default=(200,), narrows=True
    )
    service: str = option("grpc: the service name in the request.", default="")
    interval: timedelta = option("Between two checks.", default=timedelta(seconds=5), minimum=0.001)
    timeout: timedelta = option("Timeout of one check.", default=timedelta(seconds=1), minimum=0.001)
    unhealthy_after: int = option("Failures in a row.", default=3, minimum=1)
    healthy_after: int = option("Successes in a row.", default=2, minimum=1)

    @classmethod
    def short(cls, value: Any) -> HealthCheck:
        """Return a health check of a path. Raises Mistake."""
        if not value.startswith("/"):
            raise Mistake("not a path", "write a path such as /healthz")
        return cls(path=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if the type needs a path and has none."""
        if self.type == "http" and self.path is None:
            yield Mistake("an http health check needs a path", "add 'path'")
        for number, status in enumerate(self.expected_statuses):
            if not 100 <= status <= 599:
                yield Mistake(
                    "not an HTTP status", "write 200", path=("expected_statuses", number), value=status
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """Failing endpoints get no traffic for a while."""

    consecutive_5xx: int | None = option("Responses 5xx in a row.", default=5, minimum=1)
    consecutive_gateway_failures: int | None = option(
        "Responses 502, 503, 504 in a row.", default=None, minimum=1
    )
    consecutive_connect_failures: int | None = option(
        "Connections that failed in a row.", default=None, minimum=1
    )
    interval: timedelta = option("Between two evaluations.", default=timedelta(seconds=10), minimum=0.001)
    eject_for: timedelta = option(
        "Time without traffic, multiplied by the number of ejections.",
        default=timedelta(seconds=30),
        minimum=0.001,
    )
    max_ejected: Percent = option("At most this share of the endpoints is ejected.", default=Percent(50))


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Limits of concurrent use; 503 above them. Routes with `priority: high` have the same limits once more for themselves."""

    max_connections: int = option("Connections.", default=1024, minimum=1, maximum=2**32 - 1)
    max_pending: int = option(
        "Requests that wait for a connection; the first one to an idle upstream waits too.",
        default=1024,
        minimum=1,
        maximum=2**32 - 1,
    )
    max_requests: int = option("Requests.", default=1024, minimum=1, maximum=2**32 - 1)
    max_retries: int | None = option(
        "Retries; replaces the retry budget.", default=None, minimum=0, maximum=2**32 - 1
    )
    retry_budget: Percent = option("Retries as a share of the active requests.", default=Percent(20))
    min_retries: int = option(
        "Retries that the budget always allows.", default=3, minimum=0, maximum=2**32 - 1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConcurrency:
    """A limit of requests at the same time that Envoy learns from their latency; 503 above it.

    Each listener of each Envoy learns for itself. While requests take longer than they do without load, the limit falls
    in proportion, at most by half in an interval. Otherwise it rises.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "the latency without load, such as 50ms")
    latency: timedelta | None = option(
        "The latency of requests while the service has little load, at the `percentile`.",
        default=None,
        minimum=0.001,
    )
    measure_every: timedelta | None = option(
        "Envoy measures that latency itself this often. It lets only `min` requests through at the same time until it "
        "has measured 50, and rejects the others, so clients should retry.",
        default=None,
        minimum=1,
    )
    percentile: Percent = option("The percentile of latencies that is compared.", default=Percent(90))
    tolerance: Percent = option("The part by which the latency may be exceeded.", default=Percent(25))
    interval: timedelta = option(
        "The time after which the limit is calculated again.",
        default=timedelta(milliseconds=100),
        minimum=0.01,
    )
    min: int = option("The limit is never below this; it begins here.", default=10, minimum=1)
    max: int = option("The limit is never above this.", default=1000, minimum=1)

    @classmethod
    def short(cls, value: Any) -> AdaptiveConcurrency:
        """Return the limit for a latency. Raises Mistake."""
        try:
            result = cls(latency=scalars.duration(value))
        except ValueError as error:
            raise Mistake(str(error)) from None
        if result.latency is None or result.latency < timedelta(milliseconds=1):
            raise Mistake("expected a latency of at least 1 ms", "write a latency such as 50ms", value=value)
        return result

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        if (self.latency is None) == (self.measure_every is None):
            message = "exactly one of 'latency' and 'measure_every' is needed"
            yield Mistake(message, "write latency: 50ms, or measure_every: 60s")
        if self.max < self.min:
            yield Mistake("'max' is below 'min'", "raise it", path=("max",), value=self.max)
