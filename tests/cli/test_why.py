"""xds why: a folder that cannot be read is told, and not that it has no such route."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.git import WorkingTree
from xds_server.cli.main import main

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users, namespace: shop}
spec: {parentRefs: [{name: web}]}
"""


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", str(tmp_path / "nothing"), "HTTPRoute/shop/users"]) != 0
    assert "nothing does not exist" in capsys.readouterr().err


def test_manifests_in_git_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = WorkingTree(tmp_path / "tree")
    tree.commit("One", shop=ROUTE)
    assert main(["why", f"git+file://{tree.path}?ref=main", "HTTPRoute/shop/users"]) == 1
    assert "no Gateway or Service that exists is among its parentRefs" in capsys.readouterr().out
