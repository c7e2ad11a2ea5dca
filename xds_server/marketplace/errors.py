"""What can be wrong with a request to the marketplace. Each error has a message with a remedy, for the person who asked."""

from __future__ import annotations


class MarketplaceError(Exception):
    """The root of these errors. `field` is the part of the request that is wrong, or empty."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.message, self.field = message, field


class NotFound(MarketplaceError):  # noqa: N818 - as the HTTP status is called
    """There is no such object, or the actor may not know that there is."""


class Forbidden(MarketplaceError):  # noqa: N818 - as above
    """The actor may see the object, and may not do this with it."""


class Conflict(MarketplaceError):  # noqa: N818 - as above
    """The state of an object does not allow this, or there is such an object already."""


class Stale(MarketplaceError):  # noqa: N818 - as above
    """Somebody else has changed the object since the actor read it."""


class Invalid(MarketplaceError):  # noqa: N818 - as above
    """A value of the request cannot be used."""
