"""xds portal: serves the developer portal, and does from a shell what its admins do in a browser."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xds_server.cli import flags, git, logs, output
from xds_server.errors import EnvironmentFailed, WrongUsage, XdsError

if TYPE_CHECKING:
    from xds_server.marketplace.store import Transaction

STORE = "sqlite:///xds-marketplace.db"
"""The default store: a file in the working directory."""


class _Refused(XdsError):  # noqa: N818 - what the marketplace answers
    """The marketplace rejects what was asked for."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands of the portal."""
    commands = parser.add_subparsers(dest="portal_command", metavar="COMMAND", required=True)
    _run(commands.add_parser("run", help="serve the portal of a gateway", formatter_class=flags.Help))
    for name, (summary, words) in _ACTIONS.items():
        one = commands.add_parser(name, help=summary, description=summary, formatter_class=flags.Help)
        _add_store(one)
        flags.add_output(one)
        words(one)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="URL",
        default=STORE,
        help="database of the marketplace: sqlite:///FILE (with four slashes for an absolute path) or "
        "postgresql://USER:PASSWORD@HOST/DATABASE",
    )


def _run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    logs.add_format(parser)
    flags.add_folder(parser, git=True)
    git.add(parser)
    _add_store(parser)
    add(
        "--usage-store",
        metavar="URL",
        help="database of the usage server, for pages of usage and for statements; default: none",
    )
    add(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:19090",
        help="address of the portal; browsers reach it at portal.url of the gateway, which may be a route to here",
    )
    add(
        "--typescript-generator",
        metavar="FILE",
        help="program swagger-typescript-api of npm, with which pages of APIs offer clients in TypeScript; default: none",
    )
    add(
        "--trusted-proxies",
        metavar="ADDRESSES",
        default="127.0.0.1",
        help="addresses of proxies, separated by commas, whose x-forwarded-for names the client",
    )
    add(
        "--poll",
        action="store_true",
        help="read the folder twice a second, for file systems that report no changes",
    )
    parser.set_defaults(state=None)  # a portal pins no commit


def _user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("add", "list", "invite", "disable", "enable", "role"), help="what to do"
    )
    parser.add_argument("email", nargs="?", default="", help="address of the person")
    parser.add_argument("--name", default="", help="name of the person; default: the address")
    parser.add_argument(
        "--role",
        choices=("developer", "publisher", "admin"),
        help="role of the person; default: developer, and that of a user who is there already",
    )
    parser.add_argument("--organisation", help="slug of the organisation of an invitation")


def _invitation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "revoke"), help="what to do")
    parser.add_argument("invitation", nargs="?", default="", help="identifier of the invitation")


def _token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", help="address of the user")
    parser.add_argument("--name", default="from the shell", help="name of the token")
    parser.add_argument(
        "--scopes", default="read", help="scopes, separated by commas: read, write, publish, admin"
    )


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "make", "revoke"), help="what to do")
    parser.add_argument("subscription", help="identifier or consumer of the subscription")
    parser.add_argument("slot", nargs="?", choices=("primary", "secondary"), default="primary")


def _subscription(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("list", "approve", "reject", "suspend", "resume", "cancel"), help="what to do"
    )
    parser.add_argument(
        "subscription", nargs="?", default="", help="identifier or consumer of the subscription"
    )
    parser.add_argument("--note", default="", help="a reason for the developer")
    parser.add_argument("--state", help="list only subscriptions in this state")


def _product(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "publish", "retire"), help="what to do")
    parser.add_argument("product", nargs="?", default="", help="slug of the product")


def _billing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("close", "list", "export"), help="what to do")
    parser.add_argument("period", nargs="?", default="", help="month, such as 2026-11; list and export: all")
    parser.add_argument(
        "--usage-store",
        metavar="URL",
        default=flags.USAGE_STORE,
        help="database of the usage server, whose calls are counted",
    )
    parser.add_argument(
        "--to", choices=("cloudevents", "lago", "stripe"), help="kind of the system to export to"
    )
    parser.add_argument("--url", help="address of that system")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with its token")
    parser.add_argument(
        "--customers",
        type=Path,
        metavar="FILE",
        help="YAML file with Stripe's customers by consumer",
    )


_ACTIONS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "user": ("add, invite, list or disable users", _user),
    "invitation": ("list the invitations that can still be accepted, or revoke one", _invitation),
    "token": ("make a token of the API for a user, which is shown once", _token),
    "product": ("list, publish or retire products", _product),
    "subscription": ("list subscriptions, or decide on one", _subscription),
    "key": ("list, make or revoke the keys of a subscription", _key),
    "billing": ("close the statements of a month, list them, or export calls to a billing system", _billing),
}


def run(arguments: argparse.Namespace) -> int:
    """Run a command of the portal. Raises XdsError."""
    if arguments.portal_command == "run":
        return _serve(arguments)
    from xds_server.database import DatabaseFailed
    from xds_server.marketplace.actor import COMMAND
    from xds_server.marketplace.errors import MarketplaceError
    from xds_server.marketplace.store import Marketplace

    begins = arguments.portal_command == "user" and arguments.action in ("add", "invite")
    marketplace = Marketplace(arguments.store, exists=not begins)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        marketplace.migrate()
        if arguments.portal_command == "billing":
            from xds_server.cli import portal_billing

            _show(portal_billing.run(marketplace, arguments), arguments.output)
            return 0
        with marketplace.begin(COMMAND) as now:
            found = _DOES[arguments.portal_command](now, arguments)
    except MarketplaceError as error:
        raise _Refused(f"{error.field}: {error}" if error.field else str(error)) from None
    except DatabaseFailed as failure:
        raise EnvironmentFailed(f"the marketplace store cannot be used: {failure}") from None
    finally:
        marketplace.close()
    _show(found, arguments.output)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from xds_server.portal.server import PortalOptions, serve

    logs.start(arguments.log_format)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    found = git.options(arguments)
    options = PortalOptions(
        folder=Path(arguments.folder),
        gateway=arguments.gateway,
        git=found.source if found is not None else None,
        store=arguments.store,
        usage=arguments.usage_store,
        listen=arguments.listen,
        typescript_generator=arguments.typescript_generator,
        trusted_proxies=arguments.trusted_proxies,
        poll=arguments.poll,
    )
    asyncio.run(serve(options))
    return 0


def _do_user(now: Transaction, arguments: argparse.Namespace) -> Any:
    from xds_server.marketplace import logins, people
    from xds_server.marketplace.pages import every

    email, action = arguments.email, arguments.action
    if action == "list":
        return every(lambda wanted: people.users(now, wanted))
    if action == "add":
        return people.add_user(now, email, arguments.name or email, arguments.role or "developer")
    if action == "invite":
        made, token = logins.invite(now, email, organisation=arguments.organisation, role=arguments.role)
        return {"email": made.email, "path": f"/invitations/{token}"}
    if action == "role":
        if arguments.role is None:
            raise WrongUsage("name the new role with --role")
        return people.change_user(now, email, role=arguments.role)
    return people.change_user(now, email, disabled=action == "disable")


def _do_invitation(now: Transaction, arguments: argparse.Namespace) -> Any:
    from xds_server.marketplace import logins
    from xds_server.marketplace.pages import every

    if arguments.action == "list":
        return every(lambda wanted: logins.invitations(now, wanted=wanted))
    logins.revoke_invitation(now, arguments.invitation)
    return {"revoked": arguments.invitation}


def _do_token(now: Transaction, arguments: argparse.Namespace) -> Any:
    from xds_server.marketplace import logins, people

    owner = people.user(now, arguments.email)
    _, secret = logins.add_token(now, arguments.name, arguments.scopes.split(","), user=owner.id)
    return {"token": secret}


def _do_product(now: Transaction, arguments: argparse.Namespace) -> Any:
    from xds_server.marketplace import products
    from xds_server.marketplace.pages import every

    if arguments.action == "list":
        return every(lambda wanted: products.products(now, wanted))
    state = {"publish": "published", "retire": "retired"}[arguments.action]
    return products.change_product(
        now, arguments.product, {}, products.Offered(apis=(), plans=()), state=state
    )


def _do_subscription(now: Transaction, arguments: argparse.Namespace) -> Any:
    from xds_server.marketplace import subscriptions
    from xds_server.marketplace.pages import every

    if arguments.action == "list":
        return every(lambda wanted: subscriptions.subscriptions(now, state=arguments.state, wanted=wanted))
    return getattr(subscriptions, arguments.action)(now, arguments.subscription, arguments.note)


def _do_key(now: Transaction, arguments: argparse.Namespace) -> Any:
    from xds_server.marketplace import subscriptions

    if arguments.action == "list":
        return subscriptions.keys(now, arguments.subscription)
    if arguments.action == "revoke":
        subscriptions.revoke_key(now, arguments.subscription, arguments.slot)
        return {"revoked": arguments.slot}
    made = subscriptions.make_key(now, arguments.subscription, arguments.slot)
    return {"key": made.secret}


_DOES: Mapping[str, Callable[[Transaction, argparse.Namespace], Any]] = {
    "user": _do_user,
    "invitation": _do_invitation,
    "token": _do_token,
    "product": _do_product,
    "subscription": _do_subscription,
    "key": _do_key,
}


def _show(found: Any, form: str) -> None:
    from xds_server.portal.api.schemas import as_json

    value = as_json(found)
    if form != "text":
        output.data(value, form)
        return
    for one in value if isinstance(value, list) else [value]:
        shown = ((key, part) for key, part in one.items() if key not in _LONG and part is not None)
        print("  ".join(f"{key}={part}" for key, part in shown))


_LONG = frozenset({"description", "terms", "version", "plans", "lines"})
"""Fields that are not shown as text."""
