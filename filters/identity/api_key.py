"""api_key: keys of the gateway's consumers. The gateway knows only their hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from filters import framing
from filters.identity import key_lookup
from filters.identity.script_rules import ApiKeyRule
from filters.language import Mistake, Shorthand, option
from filters.language.tokens import TOKEN
from filters.model.identity import Consumer
from filters.model.methods import failure, keys_in_policy_server
from filters.policy import NOTHING, Context, HttpFilter, Policy, RoutePart, Stage
from filters.policy_server import SERVICE
from filters.rate_limit import one_call
from filters.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySettings:
    """The places of the key. The first place that contains a key counts."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    header: str | None = option(
        "A header; default `x-api-key`.", default=None, pattern=TOKEN, shape="a header's name"
    )
    query: str | None = option("A query parameter.", default=None)
    cookie: str | None = option("A cookie.", default=None, pattern=TOKEN, shape="a cookie's name")
    forward: bool = option("True if the upstream gets the key.", default=False)
    optional: bool = option("Let requests without a key pass. A wrong key is still rejected.", default=False)

    @classmethod
    def short(cls, value: bool) -> ApiKeySettings:
        """The settings that ``true`` stands for."""
        return cls()

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a header that cannot contain a key."""
        if self.header is not None and (framed := framing.check(self.header, ("header",))) is not None:
            yield Mistake(framed.message, "write another header", path=framed.path, value=self.header)

    def rule(self) -> ApiKeyRule:
        """The part of the route's rule for the identity script."""
        header = self.header or ("x-api-key" if self.query is None and self.cookie is None else None)
        return {
            "headers": [header.lower()] if header else [],
            "query": [self.query] if self.query else [],
            "cookies": [self.cookie] if self.cookie else [],
            "forward": self.forward,
        }

    def challenge(self) -> str:
        """The WWW-Authenticate challenge. No registered scheme is for keys; this one is for people."""
        return 'ApiKey realm="gateway"'


class ApiKey(Policy[ApiKeySettings]):
    """Enforced by the identity script. If there are very many keys, a policy server looks them up for the script."""

    key = "api_key"
    stage = Stage.AUTHENTICATE
    settings = ApiKeySettings
    enforced_by = "Envoy (generated Lua: hash to consumer)"
    reasons = (
        failure("api_key_missing", "An API key is required"),
        failure("api_key_malformed", "The request has more than one API key"),
        failure("api_key_unknown", "The API key is unknown"),
        failure("api_key_expired", "The API key has expired"),
        failure("api_not_subscribed", "The key's subscription does not have this API", 403),
        failure("identity_unavailable", "The credentials could not be verified", 503),
    )
    rule_types = (key_lookup.CONSUMER,)

    def check(self, settings: ApiKeySettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake if no consumer has a key."""
        if not context.subscribers and not any(consumer.api_keys for consumer in context.consumers.values()):
            yield Mistake("no consumer has an API key", "add api_keys to a consumer, or a portal")

    def identifies(self, consumer: Consumer) -> bool:
        return bool(consumer.api_keys)

    def http_filters(self, used: Iterable[ApiKeySettings], context: Context) -> tuple[HttpFilter, ...]:
        return (key_lookup.lookup_filter(settings.rule() for settings in used),)

    def on_route(self, settings: ApiKeySettings, context: Context) -> RoutePart:
        if not keys_in_policy_server(context.consumers, context.subscribers):
            return NOTHING
        more = one_call.extensions(context) if one_call.key_decides(context) else {}
        rule = key_lookup.with_api(settings.rule(), context.api) if context.subscribers else settings.rule()
        return RoutePart(filter_configs=key_lookup.lookup(rule, **more))

    def rules(self, used: Iterable[ApiKeySettings], context: Context) -> Iterator[Rule]:
        if keys_in_policy_server(context.consumers, context.subscribers) and any(True for _ in used):
            for name, one in context.consumers.items():
                if one.api_keys:
                    yield Rule(type=key_lookup.CONSUMER, name=name, value=one)

    def internal_services(self, used: Iterable[ApiKeySettings], context: Context) -> Iterable[str]:
        return (SERVICE,) if context.subscribers and any(True for _ in used) else ()

    def explain(self, settings: ApiKeySettings, context: Context) -> str:
        if keys_in_policy_server(context.consumers, context.subscribers):
            return "policy server (hash to consumer), enforced by Envoy"
        return self.enforced_by
