"""Golden cases: cases/NAME/in.yaml becomes out.yaml; Envoy accepts it, and a second decoder reads the same.

What every gateway has stands in common/ alone, as common/in.yaml becomes it; see tests/support/golden.py.
``make golden`` rewrites all of them; read the difference before you commit it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.certificates import authority
from tests.support.envoy import for_this_envoy
from tests.support.golden import Common, as_types, dumped
from tests.support.second_decoder import disagreements
from tests.support.validate import complaint
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.types import CLUSTER, EXTENSION_CONFIG, LISTENER
from xds_server.gateway.model import regex
from xds_server.sources.folder import Folder
from xds_server.translate.readable import decoded, readable
from xds_server.translate.static import bootstrap

CASES = Path(__file__).with_name("cases")
COMMON = Path(__file__).with_name("common")
NAMES = sorted(path.parent.name for path in CASES.glob("*/in.yaml"))
EACH = pytest.mark.parametrize(
    "folder", [*(CASES / name for name in NAMES), COMMON], ids=lambda one: one.name
)


class _WithFiles(Folder):
    """Certificates are made when they are asked for: what they hold does not stand in the golden files."""

    def read(self, path: str) -> bytes:
        file = self.root / path
        return file.read_bytes() if file.exists() else _placeholder(path)


def _placeholder(path: str) -> bytes:
    if not path.endswith((".crt", ".key")):
        raise FileNotFoundError(2, "No such file or directory", path)
    if path.endswith(("ca.crt",)):
        return authority().pem
    certificate, key = _pair(path.rpartition(".")[0])
    return key if path.endswith(".key") else certificate


_pairs: dict[str, tuple[bytes, bytes]] = {}


def _pair(name: str) -> tuple[bytes, bytes]:
    return _pairs.setdefault(name, authority().issue(f"{Path(name).name}.example.com"))


def _compiled(folder: Path) -> Compiled:
    return Compiler({}).compile(_WithFiles(folder, {"in.yaml": (folder / "in.yaml").read_bytes()}))


LISTENERS = (
    "composed-unbound",
    "errors",
    "listeners",
    "original-destination",
    "shared-ports",
    "stream-routes",
    "tls",
)
"""Cases that show their listeners: in the others these would only repeat the chain of filters."""


def _golden(name: str, compiled: Compiled, common: Common) -> str:
    hidden = () if name in LISTENERS else ("listener", "extension_config")
    types = {type_: found for type_, found in as_types(compiled.snapshot).items() if type_ not in hidden}
    return dumped(common.referring(types))


@pytest.fixture(scope="module")
def common() -> Common:
    return Common(as_types(_compiled(COMMON).snapshot))


def test_what_every_gateway_has_is_golden(common: Common, request: pytest.FixtureRequest) -> None:
    found = common.files()
    if request.config.getoption("--update-golden"):
        for file in COMMON.glob("*.yaml"):
            if file.name != "in.yaml":
                file.unlink()
        for name, text in found.items():
            (COMMON / f"{name}.yaml").write_text(text)
    golden = {file.stem: file.read_text() for file in COMMON.glob("*.yaml") if file.name != "in.yaml"}
    assert found == golden, "look at the difference; make golden rewrites it"


@pytest.mark.parametrize("name", NAMES)
def test_the_translation_is_the_golden_one(name: str, common: Common, request: pytest.FixtureRequest) -> None:
    golden = CASES / name / "out.yaml"
    found = _golden(name, _compiled(CASES / name), common)
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert found == golden.read_text(), "look at the difference; make golden rewrites it"


def test_a_common_part_that_differs_in_anything_stands_in_full(common: Common) -> None:
    types = as_types(_compiled(COMMON).snapshot)
    manager = types["listener"]["0.0.0.0:8080"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert dumped(common.referring(manager["local_reply_config"])) == "mappers: !common 'local_replies'\n"
    mappers = manager["local_reply_config"]["mappers"]
    changed = next(one for one in mappers if "status_code" in one)
    changed["status_code"] += 1
    lines = dumped(common.referring(mappers)).splitlines()
    assert sum(line.startswith("- !common") for line in lines) == len(mappers) - 1
    assert f"  status_code: {changed['status_code']}" in lines
    swapped = [mappers[1], mappers[0], *mappers[2:]]
    assert dumped(common.referring(swapped)) != dumped(common.referring(mappers))


@EACH
def test_envoy_accepts_the_golden_translation(folder: Path) -> None:
    assert complaint(bootstrap(for_this_envoy(_compiled(folder).snapshot))) is None


@EACH
def test_a_second_decoder_reads_the_same(folder: Path) -> None:
    snapshot = _compiled(folder).snapshot
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
        snapshot = _compiled(CASES / name).snapshot
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


def test_our_own_expressions_are_small() -> None:
    """An Envoy with a bootstrap of someone else has the default limit for the size of regular expressions."""
    found: set[str] = set()
    for name in NAMES:
        snapshot = _compiled(CASES / name).snapshot
        for type_ in (LISTENER, CLUSTER, EXTENSION_CONFIG):
            for one in snapshot[type_].values():
                text = json.dumps(readable(type_, one))
                found |= {
                    json.loads(f'"{one}"') for one in re.findall(r'"regex": "((?:[^"\\\\]|\\\\.)*)"', text)
                }
    assert found
    assert {one: size for one in found if (size := regex.compiled(one).programsize) > 100} == {}
