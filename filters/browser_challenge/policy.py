"""browser_challenge: clients that show a proof of work before a route serves them.

A script in Envoy checks the proof, which a page of the gateway's own computes in the browser. No state is kept: decision
171. An RBAC filter in front of the script finds the clients of `only` and `exempt`, and rejects nothing itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any, ClassVar

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.clients import Clients, missing_databases, principals
from filters.language import Mistake, Shorthand, option
from filters.lua_literals import lua, script
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason

FILTER, CLIENTS_FILTER = "xds.browser_challenge", "xds.browser_challenge.clients"
REQUIRED = "browser_challenge_required"
_PREFIX = "browser_challenge_"


def _page() -> tuple[str, str]:
    """Return the page, and a policy that lets it run only its own script (Content Security Policy, level 3)."""
    page = resources.files(__package__).joinpath("page.html").read_text()
    sources = [f"{kind}-src '{_digest(kind, page)}'" for kind in ("script", "style")]
    return page, "; ".join(("default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"))


def _digest(kind: str, page: str) -> str:
    found = re.search(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
    assert found is not None
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()


_PAGE, _CONTENT_POLICY = _page()
_SCRIPT = script(
    {
        "NAMESPACE": FILTER,
        "REQUIRED": REQUIRED,
        "FOUND": f"{_PREFIX}shadow_engine_result",
        "PAGE": _PAGE,
        "CONTENT_POLICY": _CONTENT_POLICY,
    },
    "request_values.lua",
    "sha.lua",
    "browser_challenge/browser_challenge.lua",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserChallengeSettings:
    """How hard the proof of work is, how long it counts, and which clients need none."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    difficulty: int = option(
        "Bits of the hash that have to be zero. Each more doubles the work: 16 are 65,536 hashes on average.",
        default=16,
        minimum=8,
        maximum=24,
    )
    valid_for: timedelta = option(
        "The time for which a proof counts.",
        default=timedelta(days=1),
        minimum=60,
        maximum=30 * 24 * 3600,
    )
    only: Clients | None = option(
        "Only these clients need a proof. Without `only`, all need one.", default=None
    )
    exempt: Clients | None = option("These clients need no proof, such as a monitor.", default=None)

    @classmethod
    def short(cls, _value: Any) -> BrowserChallengeSettings:
        """The settings that ``true`` stands for."""
        return cls()

    def rule(self) -> dict[str, Any]:
        """The rule of a route for the script."""
        return {
            "bits": self.difficulty,
            "seconds": int(self.valid_for.total_seconds()),
            "some": self.only is not None or self.exempt is not None,
        }


def _challenged(settings: BrowserChallengeSettings) -> rbac_pb2.RBAC:
    """A policy that matches the clients which need a proof."""
    needed = []
    if settings.only is not None:
        needed.append(rbac_pb2.Principal(or_ids=_any_of(settings.only)))
    if settings.exempt is not None:
        exempt = rbac_pb2.Principal(or_ids=_any_of(settings.exempt))
        needed.append(rbac_pb2.Principal(not_id=exempt))
    policy = rbac_pb2.Policy(
        permissions=[rbac_pb2.Permission(any=True)],
        principals=[rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=needed))],
    )
    return rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW, policies={REQUIRED: policy})


def _any_of(clients: Clients) -> rbac_pb2.Principal.Set:
    return rbac_pb2.Principal.Set(ids=[one for some in principals(clients).values() for one in some])


class BrowserChallenge(Policy[BrowserChallengeSettings]):
    """Enforced by its own Lua script, before any authentication."""

    key = "browser_challenge"
    stage = Stage.ACCESS
    settings = BrowserChallengeSettings
    enforced_by = "Envoy (Lua)"
    answers = ((FILTER, "page"),)
    reasons = (
        Reason(
            name=REQUIRED,
            title="A browser has to solve a challenge first",
            status=403,
            detail="Open a page of this host in a browser, which computes a proof of work and keeps it in a cookie.",
            when=f"response.code_details == 'lua_response' && has(metadata.filter_metadata['{FILTER}'].required)",
        ),
    )

    def check(self, settings: BrowserChallengeSettings, context: Context) -> Iterable[Mistake]:
        """Yield a mistake for countries and autonomous systems without a database."""
        for key, clients in (("only", settings.only), ("exempt", settings.exempt)):
            if clients is not None:
                yield from missing_databases(clients, context.geoip, key)

    def http_filters(
        self, used: Iterable[BrowserChallengeSettings], context: Context
    ) -> tuple[HttpFilter, ...]:
        config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
        config.default_source_code.inline_string = _SCRIPT
        clients = HttpFilter(name=CLIENTS_FILTER, config=filter_pb2.RBAC())
        return (clients, HttpFilter(name=FILTER, config=config))

    def on_route(self, settings: BrowserChallengeSettings, context: Context) -> RoutePart:
        rule = settings.rule()
        written = struct_pb2.Struct()
        written.update({"rule": lua(rule)})
        if not rule["some"]:
            return RoutePart(filter_configs={FILTER: lua_pb2.LuaPerRoute(filter_context=written)})
        found = filter_pb2.RBAC(shadow_rules=_challenged(settings), shadow_rules_stat_prefix=_PREFIX)
        return RoutePart(
            filter_configs={
                CLIENTS_FILTER: filter_pb2.RBACPerRoute(rbac=found),
                FILTER: lua_pb2.LuaPerRoute(filter_context=written),
            }
        )
