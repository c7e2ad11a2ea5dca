"""Organisations, users, members, invitations, sessions and tokens: who may do what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from tests.support.market import Market
from xds_server.database_url import checked
from xds_server.marketplace import audit, logins, people
from xds_server.marketplace.actor import COMMAND, VISITOR
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid, NotFound, Stale
from xds_server.marketplace.pages import Wanted


def test_who_makes_an_organisation_owns_it_and_nobody_else_sees_it(market: Market) -> None:
    with market.store.read(market.actor("ada")) as now:
        assert people.organisation(now, "acme").id == market.acme.id
        assert [one.slug for one in people.organisations(now).items] == ["acme"]
        assert [(user.email, member.role) for member, user in people.members(now, "acme")] == [
            ("ada@example.com", "owner"),
            ("bob@example.com", "member"),
        ]
        with pytest.raises(NotFound):
            people.organisation(now, market.other.id)
    with market.store.read(market.actor("pub")) as now:
        assert {one.slug for one in people.organisations(now).items} == {"acme", "other"}
    with market.store.begin(VISITOR) as now, pytest.raises(Forbidden):
        people.add_organisation(now, "Mine")


def test_a_name_that_is_taken_or_invalid_is_refused_with_its_field(market: Market) -> None:
    with market.store.begin(market.actor("eve")) as now:
        with pytest.raises(Conflict) as conflict:
            people.add_organisation(now, "ACME")
        assert conflict.value.field == "slug"
        for slug in ("-a", "A b", "x" * 64, "ü"):
            with pytest.raises(Invalid):
                people.add_organisation(now, "Name", slug)
        with pytest.raises(Invalid, match="at least one character"):
            people.add_organisation(now, " \n ")
        with pytest.raises(Invalid, match="control characters"):
            people.add_organisation(now, "a\x00b", "ab")


def test_a_change_of_something_older_is_refused(market: Market) -> None:
    with market.store.begin(market.actor("ada")) as now:
        changed = people.rename_organisation(now, "acme", "Acme Inc.", version=1)
        assert (changed.name, changed.version) == ("Acme Inc.", 2)
        with pytest.raises(Stale):
            people.rename_organisation(now, "acme", "Acme Ltd.", version=1)
    with market.store.begin(market.actor("bob")) as now, pytest.raises(Forbidden, match="owners"):
        people.rename_organisation(now, "acme", "Bob's")


def test_an_organisation_keeps_an_owner(market: Market) -> None:
    ada, bob = market.users["ada"].id, market.users["bob"].id
    with market.store.begin(market.actor("ada")) as now:
        with pytest.raises(Conflict, match="needs an owner"):
            people.remove_member(now, "acme", ada)
        with pytest.raises(Conflict, match="needs an owner"):
            people.set_member(now, "acme", ada, "member")
        people.set_member(now, "acme", bob, "owner")
        people.remove_member(now, "acme", ada)
    with market.store.begin(market.actor("ada")) as now, pytest.raises(NotFound):
        people.organisation(now, "acme")


def test_an_invitation_makes_a_user_and_a_member_once(market: Market) -> None:
    with market.store.begin(market.actor("ada")) as now:
        made, token = logins.invite(now, "New@Example.com", organisation="acme", role="member")
    with market.store.begin(VISITOR) as now:
        user = logins.accept(now, token, name="Newton", language="ko")
        assert (user.email, user.role, user.language) == ("new@example.com", "developer", "ko")
        with pytest.raises(NotFound, match="used already"):
            logins.accept(now, token, name="Again")
        assert people.actor_of(now, user).organisations == {market.acme.id: "member"}
    with market.store.begin(market.actor("bob")) as now, pytest.raises(Forbidden):
        logins.invite(now, "x@example.com", organisation="acme", role="member")
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Forbidden):
        logins.invite(now, "x@example.com", role="admin")
    assert made.expires == market.clock.now + logins.INVITED


def test_a_link_to_an_organisation_lets_nobody_in_as_somebody_else(market: Market) -> None:
    """Whoever invites has the link, and must not become the user who is invited."""
    with market.store.begin(market.actor("eve")) as now:
        _, token = logins.invite(now, "adm@example.com", organisation="other", role="member")
    for who in (VISITOR, market.actor("eve")):
        with market.store.begin(who) as now, pytest.raises(Forbidden, match=r"log in as adm@example\.com"):
            logins.accept(now, token, name="Eve")
    with market.store.begin(market.actor("adm")) as now:
        assert logins.accept(now, token, name="x").id == market.users["adm"].id
    with market.store.begin(market.actor("adm")) as now:
        _, token = logins.invite(now, "bob@example.com")
    with market.store.begin(VISITOR) as now:
        assert logins.accept(now, token, name="x").id == market.users["bob"].id


def test_the_first_login_at_a_provider_ends_what_others_opened(market: Market) -> None:
    with market.store.begin(market.actor("eve")) as now:
        _, link = logins.invite(now, "victim@example.com", organisation="other", role="member")
    with market.store.begin(VISITOR) as now:
        user = logins.accept(now, link, name="Not the victim")
        opened = logins.open_session(now, user)
        _, secret = logins.add_token(replace(now, actor=people.actor_of(now, user)), "t", ["read"])
        who = {
            "issuer": "https://idp",
            "subject": "v",
            "email": "victim@example.com",
            "name": "V",
            "language": "en",
        }
        assert logins.identified(now, verified=True, **who).id == user.id
        assert logins.login(now, opened.token) is None
        assert logins.bearer(now, secret) is None


@pytest.mark.parametrize("way", ["role", "member", "invitation"])
def test_who_opened_the_link_of_another_person_is_out_when_an_admin_vouches(market: Market, way: str) -> None:
    """The owner of any organisation can take any unused address, for which nobody has vouched."""
    with market.store.begin(market.actor("eve")) as now:
        _, link = logins.invite(now, "boss@example.com", organisation="other", role="member")
    with market.store.begin(VISITOR) as now:
        user = logins.accept(now, link, name="Not the boss")
        assert user.verified is None
        taken = people.actor_of(now, user)
        opened = logins.open_session(now, user)
        _, secret = logins.add_token(replace(now, actor=taken), "t", ["read"])
    with market.store.begin(market.actor("adm")) as now:
        if way == "role":
            user = people.change_user(now, user.id, role="publisher")
        elif way == "member":
            people.set_member(now, "acme", user.id, "owner")
        else:
            _, theirs = logins.invite(now, user.email)
    if way == "invitation":
        with market.store.begin(VISITOR) as now:
            user = logins.accept(now, theirs, name="Boss")
    with market.store.begin(VISITOR) as now:
        assert logins.login(now, opened.token) is None
        assert logins.bearer(now, secret) is None
        with pytest.raises(Forbidden, match="logins have ended"):
            logins.add_token(replace(now, actor=taken), "t", ["read"])
        again = logins.open_session(now, people.user(replace(now, actor=COMMAND), user.id))
    with market.store.begin(market.actor("adm")) as now:
        people.change_user(now, user.id, role="admin")  # the address is verified now
        assert logins.login(now, again.token) is not None


def test_an_invitation_of_an_admin_gives_its_role_or_is_refused(market: Market) -> None:
    with market.store.begin(market.actor("adm")) as now:
        with pytest.raises(Conflict, match="with the role developer"):
            logins.invite(now, "ADA@example.com", role="publisher")
        assert logins.invite(now, "pub@example.com")[0].role == "publisher"
        _, link = logins.invite(now, "new@example.com", role="admin")
    with market.store.begin(market.actor("eve")) as now:
        _, first = logins.invite(now, "new@example.com", organisation="other", role="member")
    with market.store.begin(VISITOR) as now:
        assert logins.accept(now, first, name="Eve").role == "developer"
        assert logins.accept(now, link, name="New").role == "admin"


def test_with_a_login_no_link_of_an_organisation_makes_a_user(market: Market) -> None:
    with market.store.begin(market.actor("eve")) as now:
        _, link = logins.invite(now, "new@example.com", organisation="other", role="member")
    with market.store.begin(VISITOR) as now:
        with pytest.raises(Forbidden, match=r"log in as new@example\.com"):
            logins.accept(now, link, name="New", makes_users=False)
        who = {
            "issuer": "https://idp",
            "subject": "n",
            "email": "new@example.com",
            "name": "N",
            "language": "en",
        }
        user = logins.identified(now, verified=True, **who)
        assert user.verified == now.now
        joined = replace(now, actor=people.actor_of(now, user))
        assert logins.accept(joined, link, name="New", makes_users=False).id == user.id


def test_an_invitation_that_is_too_old_is_refused(market: Market) -> None:
    with market.store.begin(market.actor("adm")) as now:
        _, token = logins.invite(now, "new@example.com", role="publisher")
    market.clock.now += logins.INVITED
    with market.store.begin(VISITOR) as now, pytest.raises(NotFound):
        logins.accept(now, token, name="Late")


def test_a_link_does_not_outlive_the_rights_of_who_made_it(market: Market) -> None:
    with market.store.begin(market.actor("ada")) as now:
        people.set_member(now, "acme", market.users["bob"].id, "owner")
    with market.store.begin(market.actor("bob")) as now:
        _, back = logins.invite(now, "new@example.com", organisation="acme", role="owner")
    with market.store.begin(market.actor("ada")) as now:
        people.set_member(now, "acme", market.users["bob"].id, "member")
    with market.store.begin(COMMAND) as now:
        other = people.add_user(now, "adm2@example.com", "Adm", "admin")
    with market.store.begin(market.actor("adm")) as now:
        _, link = logins.invite(
            replace(now, actor=people.actor_of(now, other)), "x@example.com", role="admin"
        )
        people.change_user(now, other.id, disabled=True)
    for token in (back, link):
        with market.store.begin(VISITOR) as now, pytest.raises(NotFound, match="may no longer invite"):
            logins.accept(now, token, name="Late")
    with market.store.begin(market.actor("ada")) as now:
        people.set_member(now, "acme", market.users["bob"].id, "owner")
    with market.store.begin(VISITOR) as now:
        assert logins.accept(now, back, name="New").email == "new@example.com"


def test_invitations_are_listed_and_revoked_by_those_who_may_invite(market: Market) -> None:
    with market.store.begin(market.actor("ada")) as now:
        first, link = logins.invite(now, "new@example.com", organisation="acme", role="member")
    with market.store.begin(COMMAND) as now:
        second, _ = logins.invite(now, "x@example.com", role="publisher")
        assert [one.id for one in logins.invitations(now).items] == [second.id, first.id]
    with market.store.begin(market.actor("ada")) as now:
        (listed,) = logins.invitations(now, "acme").items
        assert (listed.email, listed.invited_by) == ("new@example.com", market.users["ada"].id)
        with pytest.raises(NotFound):
            logins.revoke_invitation(now, second.id)
        with pytest.raises(Forbidden):
            logins.invitations(now)
    for name in ("bob", "pub"):
        with market.store.begin(market.actor(name)) as now:
            with pytest.raises(Forbidden):
                logins.invitations(now, "acme")
            with pytest.raises(NotFound):
                logins.revoke_invitation(now, first.id)
    with market.store.begin(market.actor("ada")) as now:
        logins.revoke_invitation(now, first.id)
        assert logins.invitations(now, "acme").items == []
    with market.store.begin(VISITOR) as now, pytest.raises(NotFound, match="unknown"):
        logins.accept(now, link, name="Late")


def test_a_session_ends_without_use_and_after_its_longest_time(market: Market) -> None:
    with market.store.begin(VISITOR) as now:
        opened = logins.open_session(now, market.users["ada"])
    with market.store.read(VISITOR) as now:
        found = logins.login(now, opened.token)
        assert found is not None
        assert found.user.email == "ada@example.com"
        assert logins.login(now, "other") is None
    market.clock.now += logins.IDLE - 1
    with market.store.begin(VISITOR) as now:
        assert logins.login(now, opened.token) is not None
        logins.touch(now, opened.token)
    market.clock.now += logins.IDLE
    with market.store.read(VISITOR) as now:
        assert logins.login(now, opened.token) is None


def test_a_user_who_is_disabled_is_out_at_once(market: Market) -> None:
    ada = market.users["ada"]
    with market.store.begin(market.actor("ada")) as now:
        opened = logins.open_session(now, ada)
        token, secret = logins.add_token(now, "ci", ["read"])
        assert token.scopes == ("read",)
        assert logins.bearer(now, secret) is not None
    with market.store.begin(market.actor("adm")) as now:
        people.change_user(now, ada.id, disabled=True)
    with market.store.read(VISITOR) as now:
        assert logins.login(now, opened.token) is None
        assert logins.bearer(now, secret) is None
    with market.store.begin(market.actor("adm")) as now, pytest.raises(Conflict, match="lock yourself out"):
        people.change_user(now, market.users["adm"].id, role="developer")
    with market.store.begin(market.actor("bob")) as now, pytest.raises(Forbidden):
        people.change_user(now, market.users["bob"].id, role="admin")


def test_a_slug_that_opens_something_is_for_admins(market: Market) -> None:
    market.product(visible_to=["secretco"])
    for slug in ("secretco", "written"):
        with market.store.begin(market.actor("eve")) as now, pytest.raises(Conflict, match="reserved"):
            people.add_organisation(now, "Mine", slug, reserved=("written",))
        with market.store.begin(market.actor("adm")) as now:
            people.add_organisation(now, "Theirs", slug, reserved=("written",))
    with market.store.begin(market.actor("eve")) as now:
        assert people.add_organisation(now, "한국 앱").slug.startswith("org-")


def test_an_identity_takes_over_only_an_address_that_is_verified_and_free(market: Market) -> None:
    who = {"issuer": "https://idp", "email": "ADA@example.com", "name": "Ada", "language": "en"}
    with market.store.begin(VISITOR) as now:
        with pytest.raises(Forbidden, match="not verified"):
            logins.identified(now, subject="1", verified=False, **who)
        assert logins.identified(now, subject="1", verified=True, **who).id == market.users["ada"].id
        with pytest.raises(Conflict, match="another identity"):
            logins.identified(now, subject="2", verified=True, **who)
        new = logins.identified(now, subject="3", verified=True, **{**who, "email": "new@example.com"})
        assert new.role == "developer"


def test_nobody_reads_a_secret_in_the_audit_log_or_changes_it(market: Market, url: str) -> None:
    with market.store.begin(market.actor("ada")) as now:
        _, token = logins.invite(now, "x@example.com", organisation="acme", role="member")
        _, secret = logins.add_token(now, "ci", ["read"])
    with market.store.read(market.actor("adm")) as now:
        log = audit.entries(now, wanted=Wanted(limit=200)).items
        text = str(log)
    assert token not in text
    assert secret not in text
    assert [one.actor for one in log if one.kind == "invitation"] == ["ada@example.com"]
    with market.store.read(market.actor("ada")) as now:
        assert audit.entries(now, organisation=market.acme.id).items
        with pytest.raises(Forbidden):
            audit.entries(now)
        with pytest.raises(NotFound):
            audit.entries(now, organisation=market.other.id)
    engine = sqlalchemy.create_engine(checked(url))
    for change in ("UPDATE market_audit SET actor = 'x'", "DELETE FROM market_audit"):
        with pytest.raises(DBAPIError, match="only added"), engine.begin() as connection:
            connection.exec_driver_sql(change)
    engine.dispose()


def test_pages_hold_each_object_once_while_others_are_added(market: Market) -> None:
    with market.store.begin(COMMAND) as now:
        for number in range(7):
            people.add_organisation(now, f"Org {number}")
    seen, after = [], None
    while True:
        with market.store.begin(COMMAND) as now:
            people.add_organisation(now, f"Later {len(seen)}")
            found = people.organisations(now, Wanted(after, 3))
        seen += [one.slug for one in found.items]
        after = found.next
        if after is None:
            break
    assert len(seen) == len(set(seen))
    assert {f"org-{number}" for number in range(7)} <= set(seen)
    with market.store.read(COMMAND) as now, pytest.raises(Invalid):
        people.organisations(now, Wanted(None, 0))
