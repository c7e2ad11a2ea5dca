"""access_log: which requests of a route are logged.

The section `telemetry` says where the lines go and what they contain. A route can only leave requests out: Envoy's access
logs belong to listeners, so the conditions of a route are in the metadata of the route, where a filter of the log reads
them. So a change of a route does not change the listener.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf import struct_pb2

from filters.language import Mistake, Percent, Shorthand
from filters.log_fields import METADATA, LogConditions
from filters.policy import Context, Policy, RoutePart, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLogSettings(LogConditions):
    """Requests of a route that are logged: those that meet one of the conditions, as `off` logs none.

    The conditions of the log itself hold too. The sample of a route is chosen by the millisecond in which a request
    begins, in steps of 0.1 %.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})

    @classmethod
    def short(cls, value: Any) -> RouteLogSettings:
        """The settings that ``true`` stands for: every request."""
        return cls(sample=Percent(100))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if there is no condition."""
        if not self.any:
            yield Mistake("no condition", "write true, off, or a condition such as {statuses: [5xx]}")


class AccessLog(Policy[Any]):
    """Compiled into metadata of the route, which a filter of the listener's access logs reads."""

    key = "access_log"
    stage = Stage.RESPOND
    settings = RouteLogSettings
    on_by_default = True

    def on_route(self, settings: Any, context: Context) -> RoutePart:
        conditions = settings if isinstance(settings, RouteLogSettings) else None
        return RoutePart(metadata={METADATA: _metadata(conditions)})


def _metadata(conditions: RouteLogSettings | None) -> struct_pb2.Struct:
    """Return the conditions as the expression of `CONDITION` reads them. None logs nothing."""
    struct = struct_pb2.Struct()
    milliseconds, slower, statuses, classes = 0, "", list[int](), list[int]()
    if conditions is not None:
        milliseconds = math.ceil((conditions.sample or 0) * 10)
        slower = (
            f"{conditions.slower_than.total_seconds():.6f}s" if conditions.slower_than is not None else ""
        )
        statuses = [int(one) for one in conditions.statuses if not one.endswith("xx")]
        classes = [int(one[0]) for one in conditions.statuses if one.endswith("xx")]
    struct.update({"sample": milliseconds, "slower_than": slower, "statuses": statuses, "classes": classes})
    return struct
