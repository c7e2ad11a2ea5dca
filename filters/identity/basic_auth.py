"""basic_auth: names and passwords (RFC 7617). The gateway knows only the hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from filters.identity import htpasswd, password_lookup
from filters.identity.script import OWN_LIST, identity_filter
from filters.identity.script_rules import BasicAuthRule
from filters.language import Mistake, Shorthand, option
from filters.language.datasource import SecretSource
from filters.model.identity import Consumer
from filters.model.methods import failure
from filters.policy import NOTHING, Context, HttpFilter, Policy, RoutePart, Stage
from filters.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuthSettings:
    """Names and passwords of consumers, and of an htpasswd file."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    htpasswd: SecretSource | None = option(
        "More users, as `htpasswd -B` or `-s` writes them. A user with the name of a consumer identifies it.",
        default=None,
    )
    realm: str = option(
        "The text in the browser's dialog.",
        default="gateway",
        pattern=r'[^"\\\x00-\x1f]+',
        shape="plain text",
    )
    forward: bool = option("True if the upstream gets the password.", default=False)
    optional: bool = option(
        "Let requests without a password pass. A wrong password is still rejected.", default=False
    )

    @classmethod
    def short(cls, value: bool) -> BasicAuthSettings:
        """The settings that ``true`` stands for."""
        return cls()

    def rule(self) -> BasicAuthRule:
        """The part of the route's rule for the identity script."""
        lists = [OWN_LIST] + ([htpasswd.list_name(self.htpasswd)] if self.htpasswd is not None else [])
        return {"lists": lists, "forward": self.forward}

    def challenge(self) -> str:
        """The WWW-Authenticate challenge (RFC 7617 section 2.1)."""
        return f'Basic realm="{self.realm}", charset="UTF-8"'


class BasicAuth(Policy[BasicAuthSettings]):
    """Enforced by the identity script.

    A policy server verifies passwords with slow hashes for the script.
    """

    key = "basic_auth"
    stage = Stage.AUTHENTICATE
    settings = BasicAuthSettings
    enforced_by = "Envoy (generated Lua: name and hash to consumer)"
    reasons = (
        failure("basic_auth_missing", "A username and a password are required"),
        failure("basic_auth_malformed", "The username and password are malformed"),
        failure("basic_auth_wrong", "The username or the password is wrong"),
    )

    rule_types = (password_lookup.USERS,)

    def check(self, settings: BasicAuthSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake for a file with a hash that cannot be verified, and if there are no passwords."""
        if settings.htpasswd is None:
            if not any(consumer.passwords for consumer in context.consumers.values()):
                yield Mistake(
                    "no consumer has a password", "add basic_auth to a consumer, or an htpasswd file"
                )
            return
        try:
            htpasswd.users(context.contents.get(settings.htpasswd, b""))
        except Mistake as mistake:
            yield mistake

    def identifies(self, consumer: Consumer) -> bool:
        return bool(consumer.basic_auth)

    def http_filters(self, used: Iterable[BasicAuthSettings], context: Context) -> tuple[HttpFilter, ...]:
        lists = {
            htpasswd.list_name(one): tuple(
                password_lookup.without_slow(htpasswd.users(context.contents[one]))
            )
            for one in _files(used)
        }
        return (password_lookup.lookup_filter(), identity_filter(context, lists))

    def on_route(self, settings: BasicAuthSettings, context: Context) -> RoutePart:
        if settings.htpasswd is None or not htpasswd.has_slow(settings.htpasswd, context.contents):
            return NOTHING
        return RoutePart(filter_configs=password_lookup.lookup(htpasswd.list_name(settings.htpasswd)))

    def rules(self, used: Iterable[BasicAuthSettings], context: Context) -> Iterator[Rule]:
        for one in _files(used):
            if htpasswd.has_slow(one, context.contents):
                own = {
                    user.username for consumer in context.consumers.values() for user in consumer.passwords
                }
                value = password_lookup.slow(htpasswd.users(context.contents[one]), own)
                yield Rule(type=password_lookup.USERS, name=htpasswd.list_name(one), value=value)

    def explain(self, settings: BasicAuthSettings, context: Context) -> str:
        if htpasswd.has_slow(settings.htpasswd, context.contents):
            return "policy server (bcrypt), enforced by Envoy"
        return self.enforced_by


def _files(used: Iterable[BasicAuthSettings]) -> set[SecretSource]:
    return {settings.htpasswd for settings in used if settings.htpasswd is not None}
