"""The operations of the API on users, organisations and members."""

from __future__ import annotations

from typing import Any

from xds_server.marketplace import logins, people
from xds_server.portal.api import schemas
from xds_server.portal.api.declared import Asked, Operation, choice, text

_ROLE, _MEMBER_ROLE = choice(*people.ROLES), choice(*people.MEMBER_ROLES)


def _me(asked: Asked) -> Any:
    return people.user(asked.now, asked.now.actor.user)


def _members(asked: Asked) -> Any:
    found = people.members(asked.now, asked.path["organisation"])
    return [{**schemas.as_json(member), "email": user.email, "name": user.name} for member, user in found]


def _invite(asked: Asked) -> Any:
    body = asked.body
    made, token = logins.invite(
        asked.now,
        body["email"],
        organisation=asked.path.get("organisation"),
        role=body.get("role"),
    )
    base = asked.gateway.portal.url or ""
    return {**schemas.as_json(made), "link": f"{base}/invitations/{token}"}


PEOPLE = (
    Operation(
        method="GET", path="/me", name="read_me", summary="The user of the token.", tag="users", scope="read",
        call=_me, returns="User",
    ),
    Operation(
        method="GET", path="/users", name="list_users", summary="All users.", tag="users", scope="admin",
        call=lambda asked: people.users(asked.now, asked.page), returns="User", lists=True,
    ),
    Operation(
        method="POST", path="/users", name="add_user", summary="Add a user.", tag="users", scope="admin",
        call=lambda asked: people.add_user(asked.now, **asked.body),
        body={"email": text(320), "name": text(), "role": _ROLE, "language": choice(*people.LANGUAGES)},
        needs=("email", "name"), returns="User", status=201,
    ),
    Operation(
        method="GET", path="/users/{user}", name="read_user", summary="A user, by identifier or address.", tag="users",
        scope="read", call=lambda asked: people.user(asked.now, asked.path["user"]), returns="User",
    ),
    Operation(
        method="PATCH", path="/users/{user}", name="change_user", versioned=True, summary="Change a user.", tag="users", scope="admin",
        call=lambda asked: people.change_user(asked.now, asked.path["user"], **asked.body, version=asked.version),
        body={"name": text(), "language": choice(*people.LANGUAGES), "role": _ROLE, "disabled": {"type": "boolean"}},
        returns="User",
    ),
    Operation(
        method="POST", path="/invitations", name="invite_user", tag="users", scope="admin",
        summary="Invite a person to the portal. The link is in this response only.", call=_invite,
        body={"email": text(320), "role": _ROLE}, needs=("email",), returns="NewInvitation", status=201,
    ),
    Operation(
        method="GET", path="/invitations", name="list_invitations", tag="users", scope="admin",
        summary="All invitations that can still be accepted.",
        call=lambda asked: logins.invitations(asked.now, wanted=asked.page), returns="Invitation", lists=True,
    ),
    Operation(
        method="DELETE", path="/invitations/{invitation}", name="revoke_invitation", tag="users", scope="write",
        summary="Make the link of an invitation useless.",
        call=lambda asked: logins.revoke_invitation(asked.now, asked.path["invitation"]), status=204,
    ),
    Operation(
        method="GET", path="/organisations", name="list_organisations", summary="Organisations.", tag="organisations",
        scope="read", call=lambda asked: people.organisations(asked.now, asked.page), returns="Organisation", lists=True,
    ),
    Operation(
        method="POST", path="/organisations", name="add_organisation", summary="Add an organisation, and own it.",
        tag="organisations", scope="write", call=lambda asked: people.add_organisation(asked.now, **asked.body, reserved=asked.gateway.reserved),
        body={"name": text(), "slug": text(63)}, needs=("name",), returns="Organisation", status=201,
    ),
    Operation(
        method="GET", path="/organisations/{organisation}", name="read_organisation", tag="organisations", scope="read",
        summary="An organisation, by identifier or slug.",
        call=lambda asked: people.organisation(asked.now, asked.path["organisation"]), returns="Organisation",
    ),
    Operation(
        method="PATCH", path="/organisations/{organisation}", name="rename_organisation", versioned=True, tag="organisations",
        scope="write", summary="Rename an organisation.",
        call=lambda asked: people.rename_organisation(
            asked.now, asked.path["organisation"], asked.body["name"], asked.version
        ),
        body={"name": text()}, needs=("name",), returns="Organisation",
    ),
    Operation(
        method="GET", path="/organisations/{organisation}/members", name="list_members", tag="organisations",
        scope="read", summary="The members of an organisation.", call=_members, returns="MemberList",
    ),
    Operation(
        method="PUT", path="/organisations/{organisation}/members/{user}", name="set_member", tag="organisations",
        scope="write", summary="Change the role of a member.",
        call=lambda asked: people.set_member(
            asked.now, asked.path["organisation"], asked.path["user"], asked.body["role"]
        ),
        body={"role": _MEMBER_ROLE}, needs=("role",), status=204,
    ),
    Operation(
        method="DELETE", path="/organisations/{organisation}/members/{user}", name="remove_member",
        tag="organisations", scope="write", summary="Remove a member.",
        call=lambda asked: people.remove_member(asked.now, asked.path["organisation"], asked.path["user"]), status=204,
    ),
    Operation(
        method="GET", path="/organisations/{organisation}/invitations", name="list_member_invitations",
        tag="organisations", scope="read", summary="Invitations to an organisation that can still be accepted.",
        call=lambda asked: logins.invitations(asked.now, asked.path["organisation"], asked.page),
        returns="Invitation", lists=True,
    ),
    Operation(
        method="POST", path="/organisations/{organisation}/invitations", name="invite_member", tag="organisations",
        scope="write", summary="Invite a person to an organisation. The link is in this response only.", call=_invite,
        body={"email": text(320), "role": _MEMBER_ROLE}, needs=("email", "role"), returns="NewInvitation", status=201,
    ),
)  # fmt: skip
