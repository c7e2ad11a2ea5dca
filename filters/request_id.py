"""request_id: the id of a request in every log, returned to the client too.

Envoy gives every request an id, and the upstream always receives it as x-request-id. The listener's `trust_request_id`
says if Envoy keeps an id that the client sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from filters import framing
from filters.language import Mistake, Shorthand, option
from filters.policy import Context, Policy, RoutePart, Stage, header


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestIdSettings:
    """The id in the response."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    response_header: str = option(
        "The response header that contains the id.",
        default="x-request-id",
        pattern=r"[A-Za-z0-9-]+",
        shape="a header's name",
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a header that only Envoy sets."""
        if (framed := framing.check(self.response_header, ("response_header",))) is not None:
            yield Mistake(framed.message, "write x-request-id", path=framed.path, value=self.response_header)

    @classmethod
    def short(cls, _value: Any) -> RequestIdSettings:
        """The settings that ``true`` stands for."""
        return cls()


class RequestId(Policy[RequestIdSettings]):
    """Compiled into a response header of the route."""

    key = "request_id"
    stage = Stage.RESPOND
    settings = RequestIdSettings

    def on_route(self, settings: RequestIdSettings, context: Context) -> RoutePart:
        return RoutePart(response_headers=(header(settings.response_header.lower(), "%REQ(X-REQUEST-ID)%"),))
