"""Golden cases: cases/NAME/in.yaml becomes out.yaml; Envoy accepts it, and a second decoder reads the same.

``make golden`` rewrites them; read the difference before you commit it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import authority
from tests.support.envoy import for_this_envoy
from tests.support.second_decoder import disagreements
from tests.support.validate import complaint
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.types import CLUSTER, EXTENSION_CONFIG, LISTENER
from xds_server.gateway.model import regex
from xds_server.sources.folder import Folder
from xds_server.translate.readable import decoded, readable
from xds_server.translate.static import bootstrap

CASES = Path(__file__).with_name("cases")
NAMES = sorted(path.parent.name for path in CASES.glob("*/in.yaml"))


class _WithFiles(Folder):
    """Certificates are made when they are asked for: what they hold does not stand in the golden files."""

    def read(self, path: str) -> bytes:
        file = self.root / path
        return file.read_bytes() if file.exists() else _placeholder(path)


def _placeholder(path: str) -> bytes:
    if path.endswith(("ca.crt",)):
        return authority().pem
    certificate, key = _pair(path.rpartition(".")[0])
    return key if path.endswith(".key") else certificate


_pairs: dict[str, tuple[bytes, bytes]] = {}


def _pair(name: str) -> tuple[bytes, bytes]:
    return _pairs.setdefault(name, authority().issue(f"{Path(name).name}.example.com"))


def _compiled(name: str) -> Compiled:
    folder = CASES / name
    return Compiler({}).compile(_WithFiles(folder, {"in.yaml": (folder / "in.yaml").read_bytes()}))


LISTENERS = ("listeners", "tls", "errors")
"""Cases that show their listeners: in the others these would only repeat the chain of filters."""


def _golden(name: str, compiled: Compiled) -> str:
    snapshot = compiled.snapshot
    types = {
        type_.name: {key: readable(type_, one) for key, one in snapshot[type_].items()} for type_ in snapshot
    }
    types["secret"] = {key: sorted(value) for key, value in types["secret"].items()}  # type: ignore[misc]
    if name not in LISTENERS:
        del types["listener"]
        types.pop("extension_config", None)
    return yaml.safe_dump({key: value for key, value in types.items() if value}, width=110, sort_keys=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_translation_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    golden = CASES / name / "out.yaml"
    found = _golden(name, _compiled(name))
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert found == golden.read_text(), "look at the difference; make golden rewrites it"


@pytest.mark.parametrize("name", NAMES)
def test_envoy_accepts_the_golden_translation(name: str) -> None:
    assert complaint(bootstrap(for_this_envoy(_compiled(name).snapshot))) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_second_decoder_reads_the_same(name: str) -> None:
    snapshot = _compiled(name).snapshot
    for type_ in snapshot:
        if type_.message.startswith("envoy."):
            for resource in snapshot[type_].values():
                assert disagreements(decoded(type_, resource)) == []


def test_every_golden_file_has_its_input(request: pytest.FixtureRequest) -> None:
    orphans = [path for path in CASES.iterdir() if not (path / "in.yaml").exists()]
    if request.config.getoption("--update-golden"):
        for orphan in orphans:
            shutil.rmtree(orphan)
        orphans = []
    assert orphans == []


def test_a_condition_is_only_where_envoy_evaluates_it() -> None:
    """RBAC has two fields for a condition; Envoy ignores `checked_condition`, so that it would refuse nobody."""
    conditions = 0
    for name in NAMES:
        snapshot = _compiled(name).snapshot
        for type_ in snapshot:
            text = json.dumps([readable(type_, one) for one in snapshot[type_].values()])
            assert "checked_condition" not in text
            conditions += text.count('"condition": {')
    assert conditions


@pytest.mark.parametrize("name", NAMES)
def test_translating_again_after_another_gateway_gives_the_same_bytes(name: str) -> None:
    compiler = Compiler({})
    folder = CASES / name
    this = _WithFiles(folder, {"in.yaml": (folder / "in.yaml").read_bytes()})
    other = Folder(folder, {"in.yaml": b"listeners: {http: {port: 1}}\nroutes: {x: {respond: {body: x}}}\n"})
    first = compiler.compile(this).snapshot
    compiler.compile(other)
    assert compiler.compile(this).snapshot.resources == first.resources


def test_expressions_that_no_user_wrote_are_small_enough_for_an_envoy_with_a_bootstrap_of_its_own() -> None:
    found: set[str] = set()
    for name in NAMES:
        snapshot = _compiled(name).snapshot
        for type_ in (LISTENER, CLUSTER, EXTENSION_CONFIG):
            for one in snapshot[type_].values():
                text = json.dumps(readable(type_, one))
                found |= {
                    json.loads(f'"{one}"') for one in re.findall(r'"regex": "((?:[^"\\\\]|\\\\.)*)"', text)
                }
    assert found
    assert {one: size for one in found if (size := regex.compiled(one).programsize) > 100} == {}
