"""Raw Envoy fields that Envoy's schema does not have are mistakes with a place, as all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from filters.language import Place
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import Folder

YAML = b"""listeners: {http: {port: 8080}}
routes:
  users:
    respond: {body: x}
    envoy:
      nope: 1
"""


def test_a_field_that_envoy_does_not_have_is_told_with_its_place() -> None:
    with pytest.raises(InvalidGateway) as caught:
        Compiler({}).compile(Folder(Path(), {"gateway.yaml": YAML}))
    (problem,) = caught.value.problems
    assert problem.where == "routes.users.envoy"
    assert problem.place == Place("gateway.yaml", 5, 5)
    assert "nope" in problem.message
