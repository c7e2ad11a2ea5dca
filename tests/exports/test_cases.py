"""Golden cases: the gateway in cases/NAME/in becomes the manifests in cases/NAME/out, with all that is reported in problems.txt.

``make golden`` rewrites them; read the difference before you commit it.
"""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import Authority
from tests.support.running import ROOT
from xds_server.control_plane.compiler import Compiler
from xds_server.exports.gateway_api import Exported, export
from xds_server.exports.objects import Names, duration
from xds_server.gateway_api.manifests import Manifests
from xds_server.sources.folder import read_folder

CASES = Path(__file__).with_name("cases")
NAMES = sorted(one.name for one in CASES.iterdir())
EXAMPLES = sorted(
    one.parent.name
    for one in (ROOT / "examples").glob("*/gateway")
    if one.parent.name != "tls"  # its certificates are made when it runs
)


def exported(folder: Path) -> Exported:
    gateway = Compiler().compile(read_folder(folder)).gateway
    return export(gateway, name="web", namespace="shop", gateway_class="gateway")


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_exported(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Certificates are new each time, so the golden files have a word in their place."""
    folder, authority = tmp_path / "gateway", Authority()
    shutil.copytree(CASES / name / "in", folder)
    certificate, key = authority.issue("shop.example.com")
    for file, content in (("ca.crt", authority.pem), ("shop.crt", certificate), ("shop.key", key)):
        (folder / file).write_bytes(content)
    found = exported(folder)
    expected = CASES / name / "out"
    pem = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
    texts = {file: pem.sub(b"CERTIFICATE", content) for file, content in found.files.items()}
    texts["problems.txt"] = "".join(f"{one}\n" for one in found.problems).encode()
    if request.config.getoption("--update-golden"):
        shutil.rmtree(expected, ignore_errors=True)
        expected.mkdir()
        for file, content in texts.items():
            (expected / file).write_bytes(content)
    assert texts == {one.name: one.read_bytes() for one in expected.iterdir()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_manifests_of_the_examples_are_objects_of_the_gateway_api(name: str) -> None:
    found = exported(ROOT / "examples" / name / "gateway")
    _, problems = Manifests().read(found.files)
    assert [str(one) for one in problems if one.severity == "error"] == []


@given(st.lists(st.text(max_size=80), unique=True))
def test_names_are_labels_and_stay_different(names: list[str]) -> None:
    made = Names()
    found = [made.of(one) for one in names]
    assert len(set(found)) == len(names)
    assert [made.of(one) for one in names] == found
    for one in found:
        assert len(one) <= 63
        assert one[0].isalpha()
        assert one[-1].isalnum()
        assert all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in one)


@given(st.integers(0, 10**12))
def test_durations_are_those_of_the_gateway_api(milliseconds: int) -> None:
    units = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    text, total, digits = duration(timedelta(milliseconds=milliseconds)), 0, ""
    while text:
        digits = text[: len(text) - len(text.lstrip("0123456789"))]
        text = text[len(digits) :]
        unit = "ms" if text.startswith("ms") else text[0]
        text = text[len(unit) :]
        assert len(digits) <= 5
        total += int(digits) * units[unit]
    assert total == milliseconds
