"""What can go wrong between us and the API server: it rejects a request, or it cannot be reached.

ApiError
├── Unreachable      no connection, no TLS, no response in time, or a response that is not JSON
└── Rejected         a response with an error status
    ├── Invalid            400, 422
    ├── Unauthorized       401
    ├── Forbidden          403
    ├── NotFound           404
    ├── Conflict           409: the object exists, has changed, or belongs to another manager
    ├── Gone               410: the resourceVersion or the page is too old
    └── Busy               429, 500 to 599
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from filters.language import printable
from xds_server.errors import EnvironmentFailed

_LONGEST = 500
"""Characters of a message that are kept. A rejected object can be part of it."""


class ApiError(EnvironmentFailed):
    """The root of these errors. The message has no secrets."""


class Unreachable(ApiError):  # noqa: N818 - a state, not an error in a program
    """The API server did not answer. The cause is in the message."""


@dataclass(frozen=True, slots=True)
class Status:
    """The Status object of a rejected request.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    """

    code: int
    reason: str = ""
    message: str = ""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    causes: tuple[str, ...] = ()
    """The reasons of the single causes."""


class Rejected(ApiError):  # noqa: N818 - as above
    """The API server answered with an error. `status` has what it says, and `request` the method and path.

    `in_stream` is true for an ERROR event of a watch, which had begun with a success.
    """

    def __init__(self, status: Status, request: str, *, in_stream: bool = False) -> None:
        super().__init__(f"{request}: {status.code} {status.reason}: {status.message}".rstrip(": "))
        self.status = status
        self.request = request
        self.in_stream = in_stream


class Invalid(Rejected):
    """The request or the object is wrong."""


class Unauthorized(Rejected):
    """The credentials are missing, expired or unknown."""


class Forbidden(Rejected):
    """The account has no right to do this."""


class NotFound(Rejected):
    """There is no such object, or the API server does not know the kind."""


class Conflict(Rejected):
    """The object exists already, has changed meanwhile, or another field manager owns a field."""


class Gone(Rejected):
    """The resourceVersion or the continue token is too old: list again."""


class Busy(Rejected):
    """The API server has too much to do, starts or has failed: the request can be repeated."""


_CLASSES: dict[int, type[Rejected]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Busy,
}
_TOO_NEW = "ResourceVersionTooLarge"
"""The cause of a 504 for a resourceVersion that the API server has not reached, as after a restored backup."""


def rejected(status: Status, request: str, *, in_stream: bool = False) -> Rejected:
    """Return the error for a status. `request` is the method and path, without credentials."""
    class_ = _CLASSES.get(status.code, Busy if status.code >= 500 else Invalid)
    return (Gone if _TOO_NEW in status.causes else class_)(status, request, in_stream=in_stream)


def status_of(code: int, body: bytes, retry_after: str | None = None) -> Status:
    """Return the Status of a response, whose body a proxy on the way may have written."""
    try:
        document = json.loads(body)
    except ValueError:
        document = {"message": body.decode(errors="replace")}
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return status_in(document if isinstance(document, dict) else {}, code, seconds)


def status_in(document: dict[str, Any], code: int = 500, retry_after: float | None = None) -> Status:
    """Return the Status in a Status object, as in an ERROR event of a watch."""
    details = document.get("details") or {}
    after = details.get("retryAfterSeconds")
    return Status(
        int(document.get("code") or code),
        str(document.get("reason") or ""),
        printable(str(document.get("message") or "").strip())[:_LONGEST],
        float(after) if after else retry_after,
        tuple(str(cause.get("reason")) for cause in details.get("causes") or ()),
    )
