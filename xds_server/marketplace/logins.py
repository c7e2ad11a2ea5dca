"""How people get in: invitations, sessions of browsers, and tokens of the admin API. No password is ever stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from xds_server.marketplace import names, people
from xds_server.marketplace.actor import Actor
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid, NotFound
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.records import Invitation, MemberRole, Session, Token, User
from xds_server.marketplace.schema import INVITATIONS, SESSIONS, TOKENS, USERS
from xds_server.marketplace.store import Transaction, columns

INVITED = 7 * 86_400
"""Seconds for which an invitation can be accepted."""
IDLE, LONGEST = 8 * 3600, 7 * 86_400
"""Seconds after which a session ends: without a request, and in any case."""
SCOPES = ("read", "write", "publish", "admin")
"""Scopes of tokens: read; also change what the user's organisations have; also publish; also manage users."""
_INVITATION, _TOKEN, _USER = columns(Invitation, INVITATIONS), columns(Token, TOKENS), columns(User, USERS)
_REFUSED = "this link is unknown, was used already or is too old; ask for a new one"


class Login(NamedTuple):
    """A session with its user. `token` is what the cookie holds."""

    token: str
    session: Session
    user: User


def invite(
    transaction: Transaction, email: str, *, organisation: str | None = None, role: str | None = None
) -> tuple[Invitation, str]:
    """Invite a person. Returns the invitation, and the token of its link, which is nowhere else.

    With an `organisation`, the person becomes a member: `role` is then ``member`` or ``owner``. Otherwise it is the role
    of the user, and only admins may invite; a user who is there already keeps the role. Raises Invalid, NotFound,
    Forbidden, Conflict.
    """
    email = names.email(email)
    if organisation is not None:
        organisation = people.organisation(transaction, organisation).id
        transaction.actor.require_owner(organisation)
        role = people.one_of(role or "member", people.MEMBER_ROLES, "role")
    else:
        transaction.actor.require_admin()
        known = transaction.maybe(User, _USER.where(USERS.c.email == email))
        role = people.one_of(role or (known.role if known else "developer"), people.ROLES, "role")
        if known is not None and known.role != role:
            raise Conflict(
                f"there is a user {email} already, with the role {known.role}; change the role of this user, and then invite",
                "role",
            )
    token = names.new_secret()
    values = {
        "id": names.new_id(),
        "token": names.digest(token),
        "email": email,
        "role": role,
        "organisation": organisation,
        "created": transaction.now,
        "expires": transaction.now + INVITED,
        "invited_by": transaction.actor.user or None,
    }
    transaction.add(INVITATIONS, "invitation", values, organisation)
    statement = _INVITATION.where(INVITATIONS.c.id == values["id"])
    return transaction.one(Invitation, statement, "invitation"), token


def invitations(
    transaction: Transaction, organisation: str | None = None, wanted: Wanted = FIRST
) -> PageOf[Invitation]:
    """Return the invitations that can still be accepted, the newest first.

    With an `organisation` they are its own, for its owners, and otherwise all, for admins. Raises NotFound, Forbidden.
    """
    statement = _INVITATION.where(INVITATIONS.c.used.is_(None), INVITATIONS.c.expires > transaction.now)
    if organisation is None:
        transaction.actor.require_admin()
    else:
        found = people.organisation(transaction, organisation)
        transaction.actor.require_owner(found.id)
        statement = statement.where(INVITATIONS.c.organisation == found.id)
    return page(transaction, Invitation, statement, INVITATIONS.c.id, wanted)


def revoke_invitation(transaction: Transaction, id_: str) -> None:
    """Make a link that nobody has used useless. Owners of its organisation may do that, and admins. Raises NotFound."""
    statement = _INVITATION.where(INVITATIONS.c.id == id_, INVITATIONS.c.used.is_(None))
    if not transaction.actor.administers:
        owned = [id_ for id_, role in transaction.actor.organisations.items() if role == "owner"]
        statement = statement.where(INVITATIONS.c.organisation.in_(owned))
    found = transaction.one(Invitation, statement, "invitation")
    transaction.connection.execute(INVITATIONS.delete().where(INVITATIONS.c.id == found.id))
    before = {"email": found.email, "role": found.role}
    transaction.audit("revoke", "invitation", found.id, found.organisation, before=before)


def invitation(transaction: Transaction, token: str) -> Invitation:
    """Return the invitation of a link that can still be accepted.

    It cannot if whoever made it may no longer invite: a person who is removed takes no links along. Raises NotFound.
    """
    found = transaction.maybe(Invitation, _INVITATION.where(INVITATIONS.c.token == names.digest(token)))
    if found is None or found.used is not None or found.expires <= transaction.now:
        raise NotFound(_REFUSED)
    if found.invited_by is not None and not _may_invite(transaction, found.invited_by, found.organisation):
        raise NotFound("whoever made this link may no longer invite people; ask somebody else for a new one")
    return found


def _may_invite(transaction: Transaction, user: str, organisation: str | None) -> bool:
    """True if a user can invite to an organisation now, or to the portal if there is none."""
    inviter = transaction.maybe(User, _USER.where(USERS.c.id == user, USERS.c.disabled.is_(None)))
    if inviter is None:
        return False
    actor = people.actor_of(transaction, inviter)
    return actor.administers or (
        organisation is not None and actor.organisations.get(organisation) == "owner"
    )


def accept(
    transaction: Transaction, token: str, *, name: str, language: str = "en", makes_users: bool = True
) -> User:
    """Accept an invitation once: the person becomes a user, or is one already.

    Whoever invites a person to an organisation has the link too. So a user who exists already must be the actor, and there
    must be one unless such a link `makes_users`, whose address nobody has verified. A link of an admin lets in whoever opens
    it, because admins may do everything anyway. Raises NotFound, Invalid, Forbidden.
    """
    found = invitation(transaction, token)
    known = transaction.maybe(User, _USER.where(USERS.c.email == found.email))
    comes_in = makes_users if known is None else transaction.actor.user == known.id
    if found.organisation is not None and not comes_in:
        raise Forbidden(f"log in as {found.email} first, and open the link again")
    used = INVITATIONS.update().where(INVITATIONS.c.id == found.id, INVITATIONS.c.used.is_(None))
    if transaction.connection.execute(used.values(used=transaction.now)).rowcount != 1:
        raise NotFound(_REFUSED)
    if known is not None and known.disabled is not None:
        raise Forbidden("this user is disabled; ask an admin")
    by_admin = found.organisation is None
    if known is None:
        role = found.role if by_admin else "developer"
        known = people.new_user(
            transaction, email=found.email, name=name, role=role, language=language, verified=by_admin
        )
    elif by_admin:
        known = _vouched(transaction, known, found)
    if found.organisation is not None:
        role_there: MemberRole = "owner" if found.role == "owner" else "member"
        people.join(transaction, found.organisation, known.id, role_there)
    transaction.audit("accept", "invitation", found.id, found.organisation)
    return known


def _vouched(transaction: Transaction, known: User, found: Invitation) -> User:
    """Return a user after an invitation of an admin. One who came after it was made gets its role."""
    changed = people.vouched(transaction, known)
    if known.id > found.id and known.role != found.role:
        changed["role"] = found.role
    if not changed:
        return known
    transaction.change(USERS, "user", known, changed, action="verify")
    return transaction.one(User, _USER.where(USERS.c.id == known.id), "user")


def identified(
    transaction: Transaction,
    *,
    issuer: str,
    subject: str,
    email: str,
    verified: bool,
    name: str,
    language: str,
) -> User:
    """Return the user that an OpenID provider has identified, who is added at the first login.

    A user with the same address is taken over only if the provider has verified the address, and if no other identity has
    it. Raises Invalid, Conflict, Forbidden.
    """
    known = transaction.maybe(User, _USER.where(USERS.c.issuer == issuer, USERS.c.subject == subject))
    if known is None:
        if not verified:
            raise Forbidden("the provider has not verified the address of mail; verify it there first")
        known = transaction.maybe(User, _USER.where(USERS.c.email == names.email(email)))
        if known is not None and known.subject is not None:
            raise Conflict("another identity has this address; ask an admin")
        if known is None:
            known = people.new_user(
                transaction, email=email, name=name, role="developer", language=language, verified=True
            )
        # Somebody else may have opened a link for this address before.
        people.end_logins(transaction, known.id)
        values = {"issuer": issuer, "subject": subject, **people.vouched(transaction, known)}
        transaction.change(USERS, "user", known, values, action="identify")
        known = transaction.one(User, _USER.where(USERS.c.id == known.id), "user")
    if known.disabled is not None:
        raise Forbidden("this user is disabled; ask an admin")
    return known


def open_session(transaction: Transaction, user: User) -> Login:
    """Open a session of a user, with a new token and a new CSRF token."""
    token, csrf = names.new_secret(), names.new_secret()
    session = Session(user=user.id, csrf=csrf, created=transaction.now, seen=transaction.now)
    values = {"user": user.id, "csrf": csrf, "created": session.created, "seen": session.seen}
    transaction.connection.execute(SESSIONS.insert().values(token=names.digest(token), **values))
    too_old = (SESSIONS.c.seen < transaction.now - IDLE) | (SESSIONS.c.created < transaction.now - LONGEST)
    transaction.connection.execute(SESSIONS.delete().where(too_old))
    transaction.audit("login", "user", user.id)
    return Login(token, session, user)


def login(transaction: Transaction, token: str) -> Login | None:
    """Return the session of a cookie, None if it is unknown or has ended. It changes nothing."""
    statement = columns(Session, SESSIONS).where(SESSIONS.c.token == names.digest(token))
    session = transaction.maybe(Session, statement)
    if (
        session is None
        or session.seen <= transaction.now - IDLE
        or session.created <= transaction.now - LONGEST
    ):
        return None
    user = transaction.maybe(User, _USER.where(USERS.c.id == session.user, USERS.c.disabled.is_(None)))
    return None if user is None else Login(token, session, user)


def touch(transaction: Transaction, token: str) -> None:
    """Note that a session is in use."""
    where = SESSIONS.c.token == names.digest(token)
    transaction.connection.execute(SESSIONS.update().where(where).values(seen=transaction.now))


def close_session(transaction: Transaction, token: str) -> None:
    """End a session."""
    transaction.connection.execute(SESSIONS.delete().where(SESSIONS.c.token == names.digest(token)))


def add_token(
    transaction: Transaction, name: str, scopes: Iterable[str], *, user: str = "", expires: int | None = None
) -> tuple[Token, str]:
    """Add a token of the actor, or of another user if the actor is an admin. Returns it with its secret, which is nowhere
    else. Raises Invalid, NotFound, Forbidden.
    """
    owner = user or transaction.actor.user
    if owner != transaction.actor.user:
        transaction.actor.require_admin()
        owner = people.user(transaction, owner).id
    elif (
        transaction.one(User, _USER.where(USERS.c.id == owner).with_for_update(), "user").verified
        != transaction.actor.verified
    ):
        raise Forbidden("your logins have ended; log in again")
    wanted = sorted({people.one_of(one, SCOPES, "scopes") for one in scopes})
    if transaction.actor.scopes is not None and not transaction.actor.scopes.issuperset(wanted):
        raise Forbidden(f"the token has only the scopes {', '.join(sorted(transaction.actor.scopes))}")
    if not wanted:
        raise Invalid(f"write at least one of {', '.join(SCOPES)}", "scopes")
    if expires is not None:
        names.future(expires, transaction.now, "expires")
    secret = names.new_secret(names.TOKEN_PREFIX)
    values = {
        "id": names.new_id(),
        "token": names.digest(secret),
        "user": owner,
        "name": names.line(name, "name"),
        "scopes": wanted,
        "created": transaction.now,
        "expires": expires,
    }
    transaction.add(TOKENS, "token", values)
    return transaction.one(Token, _TOKEN.where(TOKENS.c.id == values["id"]), "token"), secret


def tokens(transaction: Transaction, wanted: Wanted = FIRST) -> PageOf[Token]:
    """Return the tokens of the actor, the newest first."""
    statement = _TOKEN.where(TOKENS.c.user == transaction.actor.user, TOKENS.c.revoked.is_(None))
    return page(transaction, Token, statement, TOKENS.c.id, wanted)


def revoke_token(transaction: Transaction, id_: str) -> None:
    """Revoke a token of the actor, or any if the actor is an admin. Raises NotFound."""
    statement = _TOKEN.where(TOKENS.c.id == id_, TOKENS.c.revoked.is_(None))
    if not transaction.actor.administers:
        statement = statement.where(TOKENS.c.user == transaction.actor.user)
    found = transaction.one(Token, statement, "token")
    transaction.connection.execute(
        TOKENS.update().where(TOKENS.c.id == found.id).values(revoked=transaction.now)
    )
    transaction.audit("revoke", "token", found.id, before={"name": found.name})


def bearer(transaction: Transaction, secret: str) -> tuple[Actor, Token] | None:
    """Return the actor of a token with the token, None if the token is unknown, revoked or too old."""
    statement = _TOKEN.where(TOKENS.c.token == names.digest(secret), TOKENS.c.revoked.is_(None))
    token = transaction.maybe(Token, statement)
    if token is None or (token.expires is not None and token.expires <= transaction.now):
        return None
    user = transaction.maybe(User, _USER.where(USERS.c.id == token.user, USERS.c.disabled.is_(None)))
    if user is None:
        return None
    return replace(people.actor_of(transaction, user), scopes=frozenset(token.scopes)), token
