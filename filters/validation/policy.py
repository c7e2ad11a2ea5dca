"""validate: Envoy rejects requests that are malformed for their route, and the policy server compares with schemas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from google.protobuf.message import Message

from filters import body_limit
from filters.language import Mistake
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.processing.phases import BUFFERED
from filters.reasons import Reason, details
from filters.rules import Rule
from filters.validation.names import VALIDATION
from filters.validation.rbac import MISSING, SIZE, TYPE, rbac
from filters.validation.reasons import STATUSES, TITLES
from filters.validation.settings import ValidateSettings

FILTER = "xds.validate"


def _reason(name: str, title: str, status: int) -> Reason:
    when = details(f"rbac_access_denied_matched_policy[{name}]")
    return Reason(name=name, title=title, status=status, when=when)


class Validate(Policy[ValidateSettings]):
    """Compiled into an RBAC filter before authentication, a limit of the body after it, and a processor."""

    key = "validate"
    stage = Stage.VALIDATE
    settings = ValidateSettings
    enforced_by = "Envoy (RBAC before authentication; buffer); policy server for schemas"
    rule_types = (VALIDATION,)
    reasons = (
        _reason(MISSING, "A required header is missing", 400),
        _reason(TYPE, "The content type is not supported", 415),
        _reason(SIZE, "The request body is too large", 413),
        *(
            Reason(name=name, title=title, status=STATUSES[name], when=details(name), own_body=True)
            for name, title in TITLES.items()
        ),
    )

    def check(self, settings: ValidateSettings, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of the schemas."""
        return settings.check_schemas(context)

    def check_streams(self, settings: ValidateSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake for schemas on a route whose messages may be streams."""
        for use in settings.uses(context):
            if BUFFERED.intersection(use.phases):
                message = "a schema needs whole bodies, and upgrades and gRPC calls are streams"
                yield Mistake(message, "use another route, or remove the schema")

    def route_key(self, settings: ValidateSettings) -> str | None:
        return None if settings.max_body is None else "max_body"

    def http_filters(self, used: Iterable[ValidateSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=filter_pb2.RBAC(rules_stat_prefix="validate.")),)

    def on_route(self, settings: ValidateSettings, context: Context) -> RoutePart:
        rules = rbac(settings)
        configs: dict[str, Message] = {FILTER: filter_pb2.RBACPerRoute(rbac=filter_pb2.RBAC(rules=rules))}
        if settings.max_body is not None:
            configs |= body_limit.on_route(settings.max_body)
        return RoutePart(filter_configs=configs)

    def rules(self, used: Iterable[ValidateSettings], context: Context) -> Iterator[Rule]:
        found = {source.name: source for one in used if (source := one.sources(context)) is not None}
        for name, source in sorted(found.items()):
            yield Rule(type=VALIDATION, name=name, value=source)

    def explain(self, settings: ValidateSettings, context: Context) -> str:
        return self.enforced_by if settings.uses(context) else "Envoy (RBAC before authentication; buffer)"
