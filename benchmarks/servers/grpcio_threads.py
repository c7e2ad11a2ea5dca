"""The decisions of the policy server under grpcio's threads, for comparison.

Run ``python -m benchmarks.servers.grpcio_threads PORT``.
"""

from __future__ import annotations

import sys
from concurrent import futures
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from benchmarks.unary_server import POLICY
from filters.check.service import Authorization
from filters.ext_authz.functions import Function, load
from filters.ext_authz.names import POLICY as PYTHON_POLICY
from filters.ext_authz.names import PolicySource
from filters.model.limits import Limit
from filters.rate_limit.limit_rules import LIMITS
from filters.rate_limit.server.service import RateLimits
from filters.unary import UnaryMethod

THREADS = 16


def _immediate(function: Function) -> Function:
    """Return a function that runs in the thread that grpcio has already given to the request."""

    async def at_once(request: Any) -> Any:
        return function.call(request)

    return Function(function.name, at_once)


def _methods() -> list[UnaryMethod]:
    registry = CollectorRegistry()
    authorization, limits = Authorization(registry), RateLimits(registry)
    names = {f"p.py:{one}": one for one in ("check", "threaded")}
    sources = {name: PolicySource("p.py", one, POLICY.encode()) for name, one in names.items()}
    authorization.functions.replace(
        {name: PYTHON_POLICY.build(name, one).SerializeToString() for name, one in sources.items()}, ()
    )
    threaded = _immediate(load("p.py", "threaded", POLICY.encode()))
    authorization.functions.current = {**authorization.functions.current, "p.py:threaded": threaded}
    rule = "rate_limit:route/limited"
    written = Limit(requests=1_000_000_000, per="hour")
    limits.rules.replace({rule: LIMITS.build(rule, written).SerializeToString()}, ())
    return [*authorization.service().methods, *limits.service().methods]


def main() -> None:
    """Serve on a port until the process ends."""
    server = grpc.server(futures.ThreadPoolExecutor(THREADS))
    for method in _methods():
        _, service, name = method.path.split("/")
        handler = grpc.unary_unary_rpc_method_handler(
            lambda request, _, call=method.call: call(request), request_deserializer=method.parse
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
