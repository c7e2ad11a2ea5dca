"""Pages of developers: applications with subscriptions and keys, organisations with members, and the account."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from xds_server.marketplace import applications as stored
from xds_server.marketplace import logins, people, products, subscriptions
from xds_server.marketplace.pages import every
from xds_server.marketplace.records import SLOTS
from xds_server.portal.attempts import Attempts
from xds_server.portal.pages.texts import LANGUAGES
from xds_server.portal.pages.visits import Visit, end_of_day, local_path, see


def applications(visit: Visit) -> Response:
    """The applications of the organisations of the user, and a form for another one."""
    with visit.marketplace.read(visit.actor) as now:
        own = every(lambda wanted: people.organisations(now, wanted, own=True))
        found = stored.applications(now, None, visit.wanted, own=True)
    return visit.page("applications.html", organisations=own, applications=found.items, next=found.next)


def add_application(visit: Visit) -> Response:
    """Add an application."""
    form = visit.form
    with visit.marketplace.begin(visit.actor) as now:
        made = stored.add_application(
            now, form.get("organisation", ""), form.get("name", ""), description=form.get("description", "")
        )
    return see(f"/applications/{made.id}")


def application(visit: Visit, **shown: Any) -> Response:
    """An application with its subscriptions and their keys."""
    with visit.marketplace.read(visit.actor) as now:
        found = subscriptions.application(now, visit.path["application"])
        listed = subscriptions.subscriptions(now, application_=found.id, wanted=visit.wanted)
        of = products.all_named(now, (one.product for one in listed.items))
        keys = subscriptions.all_keys(now, found.id)
    rows = [
        {"subscription": one, "product": of[one.product], "keys": keys.get(one.id, {})}
        for one in listed.items
    ]
    return visit.page(
        "application.html", application=found, rows=rows, next=listed.next, slots=SLOTS, **shown
    )


def application_of_subscription(visit: Visit) -> Response:
    """The application with a subscription."""
    with visit.marketplace.read(visit.actor) as now:
        found = subscriptions.subscription(now, visit.path["subscription"])
    visit.request.path_params["application"] = found.application
    return application(visit)


def change_application(visit: Visit) -> Response:
    """Rename or delete an application."""
    form, id_ = visit.form, visit.path["application"]
    with visit.marketplace.begin(visit.actor) as now:
        if form.get("action") == "delete":
            stored.delete_application(now, id_)
            return see("/applications")
        stored.change_application(now, id_, name=form.get("name"), description=form.get("description"))
    return see(f"/applications/{id_}")


class Keys:
    """Makes keys, a bounded number of them for each user."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def make(self, visit: Visit) -> Response:
        """Make a key. It is shown in this response, which no cache and no history may keep."""
        wait = self._attempts.wait(visit.actor.user)
        if wait:
            return visit.page("error.html", 429, message=f"too many keys; try again in {wait} s")
        self._attempts.failed(visit.actor.user)
        with visit.marketplace.begin(visit.actor) as now:
            found = subscriptions.subscription(now, visit.path["subscription"])
            until = end_of_day(visit.form.get("until", ""), "until")
            made = subscriptions.make_key(now, found.id, visit.form.get("slot", ""), until)
        visit.request.path_params["application"] = found.application
        return application(visit, made=made)


def change_subscription(visit: Visit) -> Response:
    """Cancel a subscription, change its plan, or revoke a key."""
    form, action = visit.form, visit.form.get("action")
    with visit.marketplace.begin(visit.actor) as now:
        found = subscriptions.subscription(now, visit.path["subscription"])
        if action == "cancel":
            subscriptions.cancel(now, found.id)
        elif action == "plan":
            subscriptions.change_plan(now, found.id, form.get("plan", ""))
        else:
            subscriptions.revoke_key(now, found.id, form.get("slot", ""))
    return see(f"/applications/{found.application}#{found.id}")


def organisations(visit: Visit) -> Response:
    """The organisations of the user, and a form for another one."""
    with visit.marketplace.read(visit.actor) as now:
        own = people.organisations(now, visit.wanted, own=True)
    return visit.page("organisations.html", organisations=own.items, next=own.next)


def add_organisation(visit: Visit) -> Response:
    """Add an organisation."""
    with visit.marketplace.begin(visit.actor) as now:
        made = people.add_organisation(
            now, visit.form.get("name", ""), visit.form.get("slug", ""), reserved=visit.gateway.reserved
        )
    return see(f"/organisations/{made.slug}")


def organisation(visit: Visit, **shown: Any) -> Response:
    """An organisation with its members."""
    with visit.marketplace.read(visit.actor) as now:
        found = people.organisation(now, visit.path["organisation"])
        members = people.members(now, found.id)
        owns = visit.actor.organisations.get(found.id) == "owner" or visit.actor.administers
        invited = every(lambda wanted: logins.invitations(now, found.id, wanted)) if owns else []
    return visit.page(
        "organisation.html", organisation=found, members=members, owns=owns, invited=invited, **shown
    )


def change_organisation(visit: Visit) -> Response:
    """Rename an organisation, invite a person, revoke an invitation, or change a member."""
    form, action, id_ = visit.form, visit.form.get("action"), visit.path["organisation"]
    with visit.marketplace.begin(visit.actor) as now:
        if action == "invite":
            _, token = logins.invite(
                now, form.get("email", ""), organisation=id_, role=form.get("role", "member")
            )
        elif action == "revoke":
            logins.revoke_invitation(now, form.get("invitation", ""))
        elif action == "rename":
            people.rename_organisation(now, id_, form.get("name", ""))
        elif action == "remove":
            people.remove_member(now, id_, form.get("user", ""))
        else:
            people.set_member(now, id_, form.get("user", ""), form.get("role", ""))
    if action == "invite":
        return organisation(visit, link=f"{visit.gateway.portal.url or ''}/invitations/{token}")
    gone = action == "remove" and form.get("user") == visit.actor.user
    return see("/organisations" if gone else f"/organisations/{id_}")


def account(visit: Visit, **shown: Any) -> Response:
    """The name, the language and the tokens of the user."""
    with visit.marketplace.read(visit.actor) as now:
        found = people.user(now, visit.actor.user)
        tokens = every(lambda wanted: logins.tokens(now, wanted))
    return visit.page("account.html", user=found, tokens=tokens, scopes=logins.SCOPES, **shown)


def change_account(visit: Visit) -> Response:
    """Change the account, make a token, or revoke one."""
    form, action = visit.form, visit.form.get("action")
    with visit.marketplace.begin(visit.actor) as now:
        if action == "token":
            scopes = [one for one in form.get("scopes", "").split(",") if one]
            made, secret = logins.add_token(now, form.get("name", ""), scopes)
        elif action == "revoke":
            logins.revoke_token(now, form.get("token", ""))
        else:
            people.change_user(now, visit.actor.user, name=form.get("name"), language=form.get("language"))
    if action == "token":
        return account(visit, made=made, secret=secret)
    return see("/account")


def language(visit: Visit) -> Response:
    """Choose a language for this browser."""
    response = RedirectResponse(local_path(visit.query.get("to", "/")), 303)
    wanted = visit.query.get("language", "")
    if wanted in LANGUAGES:
        response.set_cookie("language", wanted, max_age=365 * 86_400, samesite="lax", httponly=True)
    return response
