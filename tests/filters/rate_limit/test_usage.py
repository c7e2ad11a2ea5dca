"""usage: where it makes no sense it is an error, and where nobody can tell it is a 503."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from envoy.service.auth.v3 import external_auth_pb2
from prometheus_client import CollectorRegistry

from filters.check.service import Authorization
from filters.ext_authz.settings import ExtAuthzSettings
from filters.identity.api_key import ApiKey
from filters.model.identity import NAMESPACE, Plan
from filters.model.limits import Limit
from filters.policy import Context
from filters.policy_server import USAGE
from filters.rate_limit.engine.store import CounterStore
from filters.rate_limit.limit_rules import build
from filters.rate_limit.server.service import RateLimits
from filters.rate_limit.server.usage_report import reader
from filters.rate_limit.stores.redis import RedisStore
from filters.rate_limit.stores.redis_client import connect
from filters.rate_limit.usage import Usage
from tests.support.folder import compiled, write
from tests.support.ports import free_port
from xds_server.errors import InvalidGateway

PLANS = {"free": Plan(rate_limit=Limit(requests=5, per="day"))}
KEY = ApiKey.settings()


@pytest.mark.parametrize(
    ("effective", "plans", "said"),
    [
        ({}, PLANS, "no consumer is identified here"),
        ({"api_key": KEY}, {}, "no limits of consumers apply here"),
        (
            {"api_key": KEY, "ext_authz": ExtAuthzSettings(grpc="a")},
            PLANS,
            "'usage' and 'ext_authz' use the same filter",
        ),
    ],
)
def test_mistakes(effective: dict[str, object], plans: dict[str, Plan], said: str) -> None:
    found = list(Usage().check(True, Context(plans=plans, route="a", effective=effective)))
    assert [one.message.startswith(said) for one in found] == [True]


def test_it_stands_beside_a_credential_and_a_plan() -> None:
    context = Context(plans=PLANS, route="a", effective={"api_key": KEY})
    assert not list(Usage().check(True, context))
    assert Usage().on_route(True, context).filter_configs
    assert not Usage().on_route(False, context).filter_configs


async def told(
    store: CounterStore | None, rules: str, consumer: str = "acme"
) -> tuple[int, dict[str, object]]:
    """What a policy server that has the rule of the plan alone answers a consumer."""
    limits = RateLimits(CollectorRegistry(), store)
    rule = build("plan:plan/free", PLANS["free"])
    limits.rules.replace({rule.name: rule.SerializeToString()}, ())
    request = external_auth_pb2.CheckRequest()
    request.attributes.context_extensions[USAGE] = rules
    who = request.attributes.metadata_context.filter_metadata[NAMESPACE]
    who.update({"consumer": consumer, "plan": "free"})
    found = Authorization(CollectorRegistry(), usage=reader(limits)).check(request)
    body = found if isinstance(found, bytes) else await found
    denied = external_auth_pb2.CheckResponse.FromString(body).denied_response
    return int(denied.status.code), json.loads(denied.body or b"{}")


async def test_what_is_left_is_told() -> None:
    status, body = await told(None, '{"rules": [], "plans": true}')
    assert status == 200
    assert body["limits"][0]["remaining"] == 5  # type: ignore[index]


async def test_rules_that_are_not_here_yet_are_a_503() -> None:
    assert (await told(None, '{"rules": ["rate_limit:gateway"], "plans": true}'))[0] == 503


async def test_counters_that_cannot_be_reached_are_a_503() -> None:
    store = RedisStore(connect(f"redis://127.0.0.1:{free_port()}"), CollectorRegistry(), 5.0)
    assert (await told(store, '{"rules": [], "plans": true}'))[0] == 503
    await store.close()


def problems(folder: Path, route: str) -> list[str]:
    text = f"""
listeners: {{http: {{port: 8080}}}}
plans: {{free: {{rate_limit: 5/day}}}}
policy_sets: {{limited: {{concurrency: 5}}}}
consumers: {{acme: {{plan: free, api_keys: [{{sha256: {"0" * 64}}}]}}}}
routes: {{u: {{path: /u, {route}}}}}
"""
    try:
        return [str(one) for one in compiled(write(folder, gateway=text)).warnings]
    except InvalidGateway as invalid:
        return [str(one) for one in invalid.problems]


def test_a_route_that_tells_needs_no_other_action(tmp_path: Path) -> None:
    assert problems(tmp_path, "use: [limited], policies: {api_key: true, usage: true}") == []
    assert "(found 'none'); add one" in problems(tmp_path, "policies: {api_key: true, usage: off}")[0]
    found = problems(tmp_path, "rewrite: {host: a}, policies: {api_key: true, usage: true}")
    assert "'rewrite' needs an upstream, and this route has 'usage'" in found[0]


def test_limits_of_a_set_where_the_gateway_answers_itself_are_a_warning(tmp_path: Path) -> None:
    found = problems(tmp_path, "respond: {status: 200}, use: [limited], policies: {api_key: true}")
    assert len(found) == 1
    assert "warning: routes.u.use[0]: 'concurrency' of this set has no effect" in found[0]
    assert (
        problems(
            tmp_path, "respond: {status: 200}, use: [limited], policies: {api_key: true, concurrency: off}"
        )
        == []
    )
