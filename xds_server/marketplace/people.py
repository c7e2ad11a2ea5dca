"""Organisations, users and members."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import String, cast, select

from xds_server.marketplace import names
from xds_server.marketplace.actor import Actor
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.records import Member, MemberRole, Organisation, Role, User
from xds_server.marketplace.schema import MEMBERS, ORGANISATIONS, PRODUCTS, SESSIONS, TOKENS, USERS
from xds_server.marketplace.store import Transaction, Version, columns

ROLES: tuple[Role, ...] = ("developer", "publisher", "admin")
MEMBER_ROLES: tuple[MemberRole, ...] = ("member", "owner")
LANGUAGES = ("en", "ko")
_ORGANISATION, _USER, _MEMBER = (
    columns(Organisation, ORGANISATIONS),
    columns(User, USERS),
    columns(Member, MEMBERS),
)


def organisation(transaction: Transaction, id_: str) -> Organisation:
    """Return an organisation by its identifier or its slug. Raises NotFound."""
    found = transaction.one(
        Organisation,
        _ORGANISATION.where((ORGANISATIONS.c.id == id_) | (ORGANISATIONS.c.slug == id_)),
        "organisation",
    )
    transaction.actor.require_sight(found.id, "organisation")
    return found


def organisations(
    transaction: Transaction, wanted: Wanted = FIRST, *, own: bool = False
) -> PageOf[Organisation]:
    """Return the organisations that the actor may see, or only the actor's `own`, the newest first."""
    statement = _ORGANISATION
    if own or not transaction.actor.publishes:
        statement = statement.where(ORGANISATIONS.c.id.in_(transaction.actor.organisations))
    return page(transaction, Organisation, statement, ORGANISATIONS.c.id, wanted)


def add_organisation(
    transaction: Transaction, name: str, slug: str = "", *, reserved: Collection[str] = ()
) -> Organisation:
    """Add an organisation. A user who adds one owns it. Raises Invalid, Conflict, Forbidden.

    Only admins take slugs that are `reserved` or that a product is visible to, because they open what others do not see.
    """
    actor = transaction.actor
    if not (actor.user or actor.administers):
        raise Forbidden("log in first")
    name = names.line(name, "name")
    slug = names.slug(slug or names.slug_of(name) or names.any_slug("org"))
    if not actor.administers and (slug in reserved or _named_by_product(transaction, slug)):
        raise Conflict(f"the slug '{slug}' is reserved; ask an admin for this organisation", "slug")
    taken = select(ORGANISATIONS.c.id).where(ORGANISATIONS.c.slug == slug)
    if transaction.connection.execute(taken).first() is not None:
        raise Conflict(f"there is an organisation '{slug}' already; choose another slug", "slug")
    made = Organisation(id=names.new_id(), slug=slug, name=name, created=transaction.now, version=1)
    values = {"id": made.id, "slug": slug, "name": name, "created": made.created, "version": 1}
    transaction.add(ORGANISATIONS, "organisation", values, made.id)
    if actor.user:
        _join(transaction, made.id, actor.user, "owner")
    return made


def _named_by_product(transaction: Transaction, slug: str) -> bool:
    named = cast(PRODUCTS.c.visible_to, String).contains(f'"{slug}"')
    return transaction.connection.execute(select(PRODUCTS.c.id).where(named).limit(1)).first() is not None


def rename_organisation(
    transaction: Transaction, id_: str, name: str, version: Version = None
) -> Organisation:
    """Change the name of an organisation. Its slug never changes. Raises Invalid, NotFound, Forbidden, Stale."""
    before = organisation(transaction, id_)
    transaction.actor.require_owner(before.id)
    values = {"name": names.line(name, "name")}
    transaction.change(ORGANISATIONS, "organisation", before, values, version=version, organisation=before.id)
    return organisation(transaction, before.id)


def user(transaction: Transaction, id_: str) -> User:
    """Return a user by the identifier or the address. Everybody may see themselves and their colleagues. Raises NotFound."""
    found = transaction.one(User, _USER.where((USERS.c.id == id_) | (USERS.c.email == id_.lower())), "user")
    actor = transaction.actor
    if not actor.publishes and found.id != actor.user:
        theirs = select(MEMBERS.c.organisation).where(MEMBERS.c.user == found.id)
        shared = set(transaction.connection.execute(theirs).scalars()) & actor.organisations.keys()
        if not shared:
            transaction.one(User, _USER.where(USERS.c.id == ""), "user")
    return found


def users(transaction: Transaction, wanted: Wanted = FIRST) -> PageOf[User]:
    """Return all users, the newest first. Raises Forbidden."""
    transaction.actor.require_sight_of_all()
    return page(transaction, User, _USER, USERS.c.id, wanted)


def add_user(
    transaction: Transaction, email: str, name: str, role: str = "developer", language: str = "en"
) -> User:
    """Add a user. Raises Invalid, Conflict, Forbidden."""
    transaction.actor.require_admin()
    return new_user(transaction, email=email, name=name, role=role, language=language, verified=True)


def new_user(
    transaction: Transaction, *, email: str, name: str, role: str, language: str, verified: bool
) -> User:
    """Add a user. The address is `verified` if an admin or the OpenID provider vouches for it. Raises Invalid, Conflict."""
    address = names.email(email)
    known = select(USERS.c.id).where(USERS.c.email == address)
    if transaction.connection.execute(known).first() is not None:
        raise Conflict(f"there is a user {address} already", "email")
    values = {
        "id": names.new_id(),
        "email": address,
        "name": names.line(name, "name"),
        "role": one_of(role, ROLES, "role"),
        "language": one_of(language, LANGUAGES, "language"),
        "created": transaction.now,
        "version": 1,
        "verified": transaction.now if verified else None,
    }
    transaction.add(USERS, "user", values)
    return transaction.one(User, _USER.where(USERS.c.id == values["id"]), "user")


def change_user(
    transaction: Transaction,
    id_: str,
    *,
    name: str | None = None,
    language: str | None = None,
    role: str | None = None,
    disabled: bool | None = None,
    version: Version = None,
) -> User:
    """Change what is not None. Users change their own name and language, and admins everything.

    A user who is disabled loses all sessions and tokens at once, and so does one whose address nobody has verified, if the
    role becomes a higher one. Raises Invalid, NotFound, Forbidden, Conflict, Stale.
    """
    before = user(transaction, id_)
    if before.id != transaction.actor.user or role is not None or disabled is not None:
        transaction.actor.require_admin()
    values: dict[str, object] = {}
    if name is not None:
        values["name"] = names.line(name, "name")
    if language is not None:
        values["language"] = one_of(language, LANGUAGES, "language")
    if role is not None:
        values["role"] = one_of(role, ROLES, "role")
        if ROLES.index(values["role"]) > ROLES.index(before.role):
            values |= vouched(transaction, before)
    if disabled is not None:
        values["disabled"] = transaction.now if disabled else None
    if before.id == transaction.actor.user and (disabled or role not in (None, before.role)):
        raise Conflict("you would lock yourself out; let another admin do this")
    transaction.change(USERS, "user", before, values, version=version)
    if disabled:
        end_logins(transaction, before.id)
    return transaction.one(User, _USER.where(USERS.c.id == before.id), "user")


def vouched(transaction: Transaction, known: User) -> dict[str, object]:
    """Return the change of a user for whose address somebody vouches.

    If nobody has before, all logins end: whoever opened them may be another person, who was shown a link for this address.
    """
    if known.verified is not None:
        return {}
    # A token that is added at this moment waits for this lock, and is refused then.
    transaction.connection.execute(select(USERS.c.id).where(USERS.c.id == known.id).with_for_update())
    end_logins(transaction, known.id)
    return {"verified": transaction.now}


def end_logins(transaction: Transaction, user_: str) -> None:
    """End all sessions and tokens of a user."""
    transaction.connection.execute(SESSIONS.delete().where(SESSIONS.c.user == user_))
    revoked = TOKENS.update().where(TOKENS.c.user == user_, TOKENS.c.revoked.is_(None))
    transaction.connection.execute(revoked.values(revoked=transaction.now))


def members(transaction: Transaction, organisation_: str) -> list[tuple[Member, User]]:
    """Return the members of an organisation, in the order of their addresses. Raises NotFound."""
    found = organisation(transaction, organisation_)
    joined = (
        select(*_MEMBER.selected_columns, USERS.c.id.label("id"), USERS.c.email)
        .join(USERS, USERS.c.id == MEMBERS.c.user)
        .where(MEMBERS.c.organisation == found.id)
        .order_by(USERS.c.email)
    )
    rows = transaction.all(Member, joined)
    people = {
        one.id: one for one in transaction.all(User, _USER.where(USERS.c.id.in_([row.user for row in rows])))
    }
    return [(row, people[row.user]) for row in rows]


def memberships(transaction: Transaction, users_: Iterable[str]) -> dict[str, list[str]]:
    """Return the slugs of the organisations of some users, by the users' identifiers. Raises Forbidden."""
    transaction.actor.require_publisher()
    rows = (
        select(MEMBERS.c.user, ORGANISATIONS.c.slug)
        .join(ORGANISATIONS, ORGANISATIONS.c.id == MEMBERS.c.organisation)
        .where(MEMBERS.c.user.in_(list(users_)))
        .order_by(ORGANISATIONS.c.slug)
    )
    found: dict[str, list[str]] = {}
    for user_, slug in transaction.connection.execute(rows):
        found.setdefault(user_, []).append(slug)
    return found


def set_member(transaction: Transaction, organisation_: str, user_: str, role: str) -> None:
    """Make a user a member of an organisation, or change the role. Raises Invalid, NotFound, Forbidden, Conflict."""
    found = organisation(transaction, organisation_)
    transaction.actor.require_owner(found.id)
    known = _role(transaction, found.id, user_)
    wanted = one_of(role, MEMBER_ROLES, "role")
    if known is None:
        transaction.actor.require_admin()  # an owner invites people, so that nobody is added without knowing
        new = user(transaction, user_)
        if changed := vouched(transaction, new):
            transaction.change(USERS, "user", new, changed, action="verify")
        _join(transaction, found.id, new.id, wanted)
        return
    _keep_an_owner(transaction, found.id, user_, wanted)
    where = (MEMBERS.c.organisation == found.id) & (MEMBERS.c.user == user_)
    transaction.connection.execute(MEMBERS.update().where(where).values(role=wanted))
    transaction.audit("update", "member", user_, found.id, before={"role": known}, after={"role": wanted})


def remove_member(transaction: Transaction, organisation_: str, user_: str) -> None:
    """Remove a member. Members may remove themselves. Raises NotFound, Forbidden, Conflict."""
    found = organisation(transaction, organisation_)
    if user_ != transaction.actor.user:
        transaction.actor.require_owner(found.id)
    known = _role(transaction, found.id, user_)
    if known is None:
        transaction.one(User, _USER.where(USERS.c.id == ""), "member")
    _keep_an_owner(transaction, found.id, user_, None)
    where = (MEMBERS.c.organisation == found.id) & (MEMBERS.c.user == user_)
    transaction.connection.execute(MEMBERS.delete().where(where))
    transaction.audit("delete", "member", user_, found.id, before={"role": known})


def _role(transaction: Transaction, organisation_: str, user_: str) -> str | None:
    where = (MEMBERS.c.organisation == organisation_) & (MEMBERS.c.user == user_)
    found: str | None = transaction.connection.execute(select(MEMBERS.c.role).where(where)).scalar()
    return found


def _keep_an_owner(transaction: Transaction, organisation_: str, user_: str, role: str | None) -> None:
    where = (MEMBERS.c.organisation == organisation_) & (MEMBERS.c.role == "owner")
    owners = set(
        transaction.connection.execute(select(MEMBERS.c.user).where(where).with_for_update()).scalars()
    )
    if owners == {user_} and role != "owner":
        raise Conflict("an organisation needs an owner; make another member its owner first")


def join(transaction: Transaction, organisation_: str, user_: str, role: MemberRole) -> None:
    """Make a user a member of an organisation because of an invitation. A member stays what the member is."""
    if _role(transaction, organisation_, user_) is None:
        _join(transaction, organisation_, user_, role)


def _join(transaction: Transaction, organisation_: str, user_: str, role: str) -> None:
    values = {"organisation": organisation_, "user": user_, "role": role, "created": transaction.now}
    transaction.connection.execute(MEMBERS.insert().values(**values))
    transaction.audit("create", "member", user_, organisation_, after={"role": role})


def actor_of(transaction: Transaction, user_: User) -> Actor:
    """Return a user as an actor, with the organisations of now."""
    statement = select(MEMBERS.c.organisation, MEMBERS.c.role).where(MEMBERS.c.user == user_.id)
    organisations_ = {row.organisation: row.role for row in transaction.connection.execute(statement)}
    return Actor(
        name=user_.email,
        user=user_.id,
        role=user_.role,
        verified=user_.verified,
        organisations=organisations_,
    )


def one_of(value: str, values: tuple[str, ...], field: str) -> str:
    """Return a value that is one of several. Raises Invalid."""
    if value not in values:
        raise Invalid(f"write one of {', '.join(values)}", field)
    return value
