"""Who asks for something, and what this person may do. It does no IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from xds_server.marketplace.errors import Forbidden, NotFound
from xds_server.marketplace.records import MemberRole, Role

_NONE: Mapping[str, MemberRole] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A user with the organisations of which the user is a member, or a part of this program.

    `name` is for the audit log: an address, or ``xds portal`` for the command. `user` is empty for a visitor who has
    not logged in, and for parts of this program.
    """

    name: str
    user: str = ""
    role: Role = "developer"
    verified: int | None = None
    """When somebody had vouched for the address of the user as the actor came in."""
    organisations: Mapping[str, MemberRole] = field(default_factory=lambda: _NONE)
    scopes: frozenset[str] | None = None
    """Those of the token that the actor uses, None for a person without one, who may do all of the role."""

    @property
    def publishes(self) -> bool:
        """True if the actor may see all organisations."""
        return self.role in ("publisher", "admin")

    @property
    def decides(self) -> bool:
        """True if the actor may publish products and decide on subscriptions. A token needs the scope for that."""
        return self.publishes and self._has("publish")

    @property
    def administers(self) -> bool:
        """True if the actor may manage users."""
        return self.role == "admin" and self._has("admin")

    def _has(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes

    def require_publisher(self) -> None:
        """Raise Forbidden unless the actor may publish products and decide on subscriptions."""
        self.require_sight_of_all()
        if not self.decides:
            raise Forbidden("the token needs the scope publish; make another one")

    def require_sight_of_all(self) -> None:
        """Raise Forbidden unless the actor may see all organisations."""
        if not self.publishes:
            raise Forbidden("only publishers and admins may do this; ask one of them")

    def require_admin(self) -> None:
        """Raise Forbidden unless the actor administers."""
        if not self.administers:
            raise Forbidden("only admins may do this; ask one of them")

    def may_see(self, organisation: str) -> bool:
        """True if the actor may see what belongs to an organisation."""
        return self.publishes or organisation in self.organisations

    def require_sight(self, organisation: str, what: str) -> None:
        """Raise NotFound unless the actor may see what belongs to an organisation, so that nobody learns that it exists."""
        if not self.may_see(organisation):
            raise not_found(what)

    def require_member(self, organisation: str, what: str) -> None:
        """Raise NotFound or Forbidden unless the actor is a member of an organisation, or an admin."""
        self.require_sight(organisation, what)
        if organisation not in self.organisations and not self.administers:
            raise Forbidden("only members of the organisation may do this; ask one of its owners to add you")

    def require_member_or_decider(self, organisation: str, what: str) -> None:
        """Raise NotFound or Forbidden unless the actor is a member of an organisation, decides, or is an admin."""
        self.require_sight(organisation, what)
        if organisation not in self.organisations and not self.administers:
            self.require_publisher()

    def require_owner(self, organisation: str) -> None:
        """Raise NotFound or Forbidden unless the actor owns an organisation, or is an admin."""
        self.require_member(organisation, "organisation")
        if self.organisations.get(organisation) != "owner" and not self.administers:
            raise Forbidden("only owners of the organisation may do this; ask one of them")


def not_found(what: str) -> NotFound:
    """Return the error for an object that does not exist, or that the actor may not know of."""
    return NotFound(f"there is no such {what}; check its identifier")


COMMAND: Final = Actor(name="xds portal", role="admin")
"""The person at the shell, who can read the database anyway."""
GATEWAY: Final = Actor(name="gateway", role="admin")
"""The gateway's YAML."""
CLOCK: Final = Actor(name="clock", role="admin")
"""What happens because a time has come."""
VISITOR: Final = Actor(name="visitor")
"""Somebody who has not logged in."""
