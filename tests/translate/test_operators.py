"""The command operators that the language lets through, asked of the real Envoy."""

from __future__ import annotations

from pathlib import Path

import yaml

from filters.operators import OPERATORS, SINCE
from tests.support.envoy import for_this_envoy, release
from tests.support.validate import complaint
from xds_server.control_plane.compiler import Compiler
from xds_server.sources.folder import Folder
from xds_server.translate.releases import OLDEST
from xds_server.translate.static import bootstrap

ARGUMENTS = {"CEL": "request.path", "COMMON_DURATION": "DS_RX_BEG:DS_TX_END:ms", "METADATA": "ROUTE:a:b"}


def _operator(name: str, needs_argument: bool) -> str:
    return f"%{name}({ARGUMENTS.get(name, 'a')})%" if needs_argument else f"%{name}%"


def test_envoy_has_every_operator() -> None:
    known = {name: argument for name, argument in OPERATORS.items() if SINCE.get(name, OLDEST) <= release()}
    headers = {f"x-{number}": _operator(*one) for number, one in enumerate(known.items())}
    gateway = {
        "listeners": {"http": {"port": 8080}},
        "upstreams": {"users": {"endpoints": ["127.0.0.1:9001"]}},
        "routes": {"users": {"upstream": "users", "request_headers": {"set": headers}}},
    }
    folder = Folder(Path(), {"gateway.yaml": yaml.safe_dump(gateway).encode()})
    assert complaint(bootstrap(for_this_envoy(Compiler({}).compile(folder).snapshot))) is None
