"""Random gateways: whatever the language accepts, Envoy accepts too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.trees import shape
from tests.support.validate import complaint
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import Folder
from xds_server.translate.static import bootstrap

UPSTREAMS = ("a", "b", "c", "d")


def _some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any part of these keys."""
    return st.fixed_dictionaries({}, optional=options)


def _of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


durations = _of("1ms", "250ms", "5s", "2m", "1h")
percents = _of("0%", "0.01%", "50%", "100%")
sizes = _of("1KiB", "64KB", "10MiB")
counts = st.integers(1, 1000)
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
addresses = st.one_of(
    st.builds("127.0.0.1:{}".format, st.integers(1, 65535)),
    st.builds("[::1]:{}".format, st.integers(1, 65535)),
    st.builds("{}.internal:{}".format, names, st.integers(1, 65535)),
)
endpoints = st.lists(
    st.one_of(
        addresses,
        st.fixed_dictionaries(
            {"address": addresses}, optional={"weight": counts, "zone": _of("eu", "eu/a", "eu/a/1")}
        ),
    ),
    max_size=4,
)
upstream = st.fixed_dictionaries(
    {"endpoints": endpoints},
    optional={
        "protocol": _of("http1", "http2", "grpc"),
        "load_balancing": st.one_of(
            _of("round_robin", "least_request", "random", "ring_hash", "maglev"),
            st.fixed_dictionaries({"policy": _of("round_robin"), "locality_weighted": st.booleans()}),
        ),
        "tls": _some(sni=_of("x.internal"), verify=st.booleans(), minimum_version=_of("1.2", "1.3")),
        "health_check": st.one_of(
            _of("/healthz"),
            st.fixed_dictionaries(
                {"type": _of("http", "tcp", "grpc")},
                optional={
                    "interval": durations,
                    "timeout": durations,
                    "expected_statuses": st.just([200, 204]),
                },
            ),
        ),
        "outlier_detection": _some(
            consecutive_5xx=counts,
            consecutive_gateway_failures=counts,
            eject_for=durations,
            max_ejected=percents,
        ),
        "circuit_breaker": _some(
            max_connections=counts, max_pending=counts, max_retries=counts, retry_budget=percents
        ),
        "slow_start": durations,
        "panic_threshold": percents,
        "connect_timeout": durations,
        "idle_timeout": durations,
        "max_requests_per_connection": counts,
        "max_connection_duration": _of("1m", "1h"),
        "proxy_protocol": _of("v1", "v2"),
        "dns_family": _of("auto", "v4", "v6", "all"),
        "buffer": sizes,
    },
)
matches = st.one_of(
    st.text("abcXYZ%é\"'\\{}", max_size=5),
    st.fixed_dictionaries({"prefix": names}),
    st.fixed_dictionaries({"regex": _of("a+", "[0-9]{1,3}", "(?:x|y)")}, optional={"not": st.booleans()}),
    st.fixed_dictionaries({"present": st.booleans()}),
)
segments = st.from_regex(r"[a-zA-Z0-9._~-]{1,6}", fullmatch=True)
plain = st.lists(segments, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
paths = st.one_of(
    plain,
    plain.map("{}/*".format),
    plain.map("{}/{{id}}".format),
    plain.map("~^{}/[0-9]+$".format),
    st.just("/*"),
)
header_values = st.one_of(st.text("abc %é\"'{}", max_size=8), st.just("%REQ(X-REQUEST-ID)%"))
mutation = _some(
    set=st.dictionaries(names, header_values, max_size=2),
    add=st.dictionaries(names, header_values, max_size=2),
    remove=st.lists(names, max_size=2),
)
policies = _some(
    cors=st.fixed_dictionaries(
        {"allow_origins": st.lists(_of("*", "https://a.test", "https://*.b.test"), min_size=1, max_size=2)},
        optional={"max_age": durations, "allow_methods": st.just(["GET"])},
    ),
    ip_access=_some(allow=st.just(["10.0.0.0/8", "2001:db8::/32"]), deny=st.just(["10.0.0.1"])),
    csrf=st.one_of(st.just(True), st.just({"hosts": ["a.test", "*.b.test:8443"]})),
    request_id=st.just(True),
    compression=st.one_of(st.just(True), st.just({"algorithms": ["gzip"]})),
    fault=_some(
        abort=st.one_of(st.just(304), st.integers(200, 299), st.integers(400, 599)),
        delay=st.fixed_dictionaries({"duration": durations, "percent": percents}),
    ),
    grpc_web=st.just(True),
    request_headers=mutation,
    response_headers=mutation,
)
actions = st.one_of(
    st.fixed_dictionaries({"upstream": _of(*UPSTREAMS)}),
    st.fixed_dictionaries({"split": st.dictionaries(_of(*UPSTREAMS), st.integers(0, 100), min_size=1)}),
    st.fixed_dictionaries(
        {"redirect": _some(scheme=_of("https"), host=_of("x.test"), port=counts, path=_of("/x", "/x/*"))}
    ),
    st.fixed_dictionaries({"redirect": _of("https://x.test/y?z=%20", "/only", "http://[::1]:8080/x")}),
    st.fixed_dictionaries(
        {
            "respond": _some(
                status=st.integers(200, 599), body=st.one_of(st.text(max_size=20), st.just({"a": [1, None]}))
            )
        }
    ),
)
route = st.builds(
    lambda first, action, more: {**first, **action, **more},
    st.fixed_dictionaries(
        {"path": paths},
        optional={
            "hosts": st.lists(_of("a.test", "*.b.test", "c.b.test"), max_size=2),
            "methods": st.lists(_of("GET", "POST", "DELETE"), max_size=2),
            "headers": st.dictionaries(names, matches, max_size=2),
            "query": st.dictionaries(names, matches, max_size=2),
        },
    ),
    actions,
    _some(
        policies=policies,
        timeout=durations,
        idle_timeout=durations,
        max_body=sizes,
        websocket=st.booleans(),
        mirror=st.fixed_dictionaries({"upstream": _of(*UPSTREAMS), "percent": percents}),
        rewrite=_some(path=_of("/x", "/x/*", "/x/{id}"), host=_of("h.test", "auto")),
        retry=_some(
            attempts=st.integers(0, 5),
            on=st.lists(_of("5xx", "429", "reset"), max_size=2),
            per_try_timeout=durations,
        ),
        session_affinity=st.fixed_dictionaries({"cookie": _of("node")}),
    ),
)
listener = st.fixed_dictionaries(
    {"port": st.integers(1024, 65535)},
    optional={
        "address": _of("127.0.0.1", "::"),
        "proxy_protocol": st.booleans(),
        "trusted_proxies": st.integers(0, 3),
        "escaped_slashes": _of("redirect", "reject", "unescape", "keep"),
        "access_log": st.booleans(),
        "timeouts": _some(request=durations, headers=durations, idle=durations, connection=durations),
        "limits": _some(
            max_headers=_of("1KiB", "96KiB"), max_header_count=counts, max_body=sizes, max_connections=counts
        ),
    },
)
errors = st.dictionaries(
    _of("not_found", "no_healthy_upstream", "ip_denied"),
    _some(
        status=st.integers(400, 599),
        title=st.text(max_size=10),
        headers=st.dictionaries(names, header_values, max_size=1),
    ),
    max_size=2,
)
gateways = st.fixed_dictionaries(
    {
        "listeners": st.dictionaries(names, listener, min_size=1, max_size=2),
        "upstreams": st.fixed_dictionaries(dict.fromkeys(UPSTREAMS, upstream)),
        "routes": st.dictionaries(names, route, min_size=1, max_size=6),
        "errors": errors,
    }
)


def _without_mistakes(gateway: dict[str, Any]) -> Any:
    """Take away the objects that have mistakes, until none is left: mistakes are another test's matter."""
    for _ in range(12):
        try:
            text = yaml.safe_dump(gateway, allow_unicode=True).encode()
            return Compiler({}, shape=shape()).compile(Folder(Path("/nowhere"), {"gateway.yaml": text}))
        except InvalidGateway as error:
            for problem in error.problems:
                assert problem.place is not None, problem
                section, name = problem.path[0], problem.path[1]
                if section == "upstreams":
                    gateway[section][name] = {"endpoints": []}
                else:
                    gateway[section].pop(name, None)
    raise AssertionError("the mistakes do not end")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(gateways)
def test_what_the_language_accepts_envoy_accepts(gateway: dict[str, Any]) -> None:
    compiled = _without_mistakes(gateway)
    assert complaint(bootstrap(compiled.snapshot)) is None, yaml.safe_dump(gateway)
