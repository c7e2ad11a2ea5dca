"""waf: its settings as a processor of the policy server, and its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from filters.language import Mistake
from filters.policy import NOTHING, Context, Policy, RoutePart, Stage
from filters.processing.phases import Phase
from filters.reasons import Reason, details
from filters.rules import Rule
from filters.waf.names import BLOCKED, TITLES, UNAVAILABLE, WAF
from filters.waf.settings import WafSettings


class Waf(Policy[WafSettings]):
    """A processor of the policy server, whose configuration the filter of `ext_proc` has for all policies of a route."""

    key = "waf"
    stage = Stage.TRANSFORM
    settings = WafSettings
    enforced_by = "policy server (the Core Rule Set in processes of its own)"
    rule_types = (WAF,)
    reasons = (
        Reason(name=BLOCKED, title=TITLES[BLOCKED], status=403, when=details(BLOCKED), own_body=True),
        Reason(
            name=UNAVAILABLE, title=TITLES[UNAVAILABLE], status=503, when=details(UNAVAILABLE), own_body=True
        ),
    )

    def check_streams(self, settings: WafSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake for bodies on a route whose messages may be streams."""
        if Phase.REQUEST_BODY in settings.source().phases:
            message = "the firewall needs whole bodies, and upgrades and gRPC calls are streams"
            yield Mistake(message, "write waf: {body: false}, or waf: off for this route")

    def on_route(self, settings: WafSettings, context: Context) -> RoutePart:
        """Nothing: `ext_proc` has the processors of all policies of a route."""
        return NOTHING

    def rules(self, used: Iterable[WafSettings], context: Context) -> Iterator[Rule]:
        found = {source.name: source for one in used for source in (one.source(),)}
        for name, source in sorted(found.items()):
            yield Rule(type=WAF, name=name, value=source)

    def explain(self, settings: WafSettings, context: Context) -> str:
        does = "blocks" if settings.mode == "block" else "detects"
        what = f"Core Rule Set, paranoia {settings.paranoia}, {does} at score {settings.threshold}"
        return f"policy server ({what}), called by Envoy"
