"""fault: injected delays and errors, to test how clients and the rest of the system handle them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import duration_pb2

from filters.language import Mistake, Percent, Shorthand, option
from filters.language.tokens import TOKEN
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "envoy.filters.http.fault"
ABORTED = "fault_filter_abort"
"""Envoy's `response.code_details` of a response of the fault filter."""
REASON = Reason(name="fault_injected", title="The gateway injected a fault", when=details(ABORTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Requests that are delayed."""

    duration: timedelta = option("The length of the delay.", minimum=0.001)
    percent: Percent = option("Share of the requests.", default=Percent(100))


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Requests that fail before they reach the upstream."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((int,), "a status", {"type": "integer"})
    status: int = option("The status of the response.", minimum=200, maximum=599)
    percent: Percent = option("Share of the requests.", default=Percent(100))

    @classmethod
    def short(cls, value: Any) -> Abort:
        """The settings that a bare status stands for. Raises Mistake."""
        if not 200 <= value <= 599:
            raise Mistake("a status is 200 to 599", "write 503", value=value)
        if (lost := _without_address(value)) is not None:
            raise lost
        return cls(status=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a status that needs a `location`, because an abort has none."""
        if (lost := _without_address(self.status)) is not None:
            yield Mistake(lost.message, lost.remedy, path=("status",), value=self.status)


def _without_address(status: int) -> Mistake | None:
    """Envoy sets the `location` of a 3xx to the request's own address if there is none, so clients would loop."""
    if status == 304 or not 300 <= status <= 399:
        return None
    message = f"an abort with the status {status} has no address to redirect to"
    return Mistake(message, "write a status such as 503, or a route with redirect", value=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    """Faults, and the requests to which they apply."""

    delay: Delay | None = option("Delay requests.", default=None)
    abort: Abort | None = option("Let requests fail.", default=None)
    header: str | None = option(
        "Only requests that have this header, with any value.",
        default=None,
        pattern=TOKEN,
        shape="a header's name",
        narrows=True,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if the policy has no effect."""
        if self.delay is None and self.abort is None:
            yield Mistake("neither 'delay' nor 'abort'", "write abort: 503")


def _share(percent: Percent) -> percent_pb2.FractionalPercent:
    return percent_pb2.FractionalPercent(
        numerator=round(percent * 10_000), denominator=percent_pb2.FractionalPercent.MILLION
    )


def _fault(settings: FaultSettings) -> fault_pb2.HTTPFault:
    result = fault_pb2.HTTPFault()
    if settings.delay is not None:
        fixed = duration_pb2.Duration()
        fixed.FromTimedelta(settings.delay.duration)
        share = _share(settings.delay.percent)
        result.delay.CopyFrom(common_pb2.FaultDelay(fixed_delay=fixed, percentage=share))
    if settings.abort is not None:
        share = _share(settings.abort.percent)
        result.abort.CopyFrom(fault_pb2.FaultAbort(http_status=settings.abort.status, percentage=share))
    if settings.header is not None:
        matcher = route_components_pb2.HeaderMatcher(name=settings.header.lower(), present_match=True)
        result.headers.append(matcher)
    return result


class Fault(Policy[FaultSettings]):
    """Compiled into Envoy's fault filter."""

    key = "fault"
    stage = Stage.BACKEND
    settings = FaultSettings
    reasons = (REASON,)

    def http_filters(self, used: Iterable[FaultSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=fault_pb2.HTTPFault()),)

    def on_route(self, settings: FaultSettings, context: Context) -> RoutePart:
        return RoutePart(filter_configs={FILTER: _fault(settings)})
