"""Files that policies import from the gateway's folder: which are looked for, and what each version of a policy sees."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from filters.ext_authz import Request
from filters.ext_authz.functions import Function, load
from filters.ext_authz.modules import imported
from filters.ext_authz.testing import decide, policy, request
from filters.rules import Refused

COMMON = b"from filters.ext_authz import allow\nVALUE = 'one'\ndef answer(): return allow({'x': VALUE})\n"
CHECK = b"def check(r): return answer()\n"


async def answered(function: Function) -> str:
    return (await function.decide(Request(), 30)).headers["x"]


@pytest.mark.parametrize(
    ("source", "files"),
    [
        (b"import common", {"common.py", "common/__init__.py"}),
        (b"from policies.common import x", {"policies/common.py", "policies/__init__.py"}),
        (b"from . import common", {"policies/common.py", "policies/__init__.py"}),
        (b"from .deep.er import x", {"policies/deep/er.py", "policies/deep/__init__.py"}),
        (b"from .. import shared", {"shared.py"}),
        (b"def check(r):\n  if 1:\n    import late.one as l", {"late/one.py", "late/__init__.py"}),
        (b"import json, filters.ext_authz, os.path, xds_server.errors", set()),
        (b"from .... import x", set()),
        (b"import (", set()),
    ],
)
def test_what_a_source_imports_is_looked_for_in_the_folder(source: bytes, files: set[str]) -> None:
    found = set(imported("policies/hours.py", source))
    assert files <= found
    assert bool(files) == bool(found)


@pytest.mark.parametrize(
    "statement",
    [
        b"from policies.common import answer",
        b"from policies.common import *",
        b"from .common import answer",
        b"from . import common; answer = common.answer",
        b"from policies import common; answer = common.answer",
        b"import policies.common; answer = policies.common.answer",
        b"import policies.common as c; answer = c.answer",
        b"def answer():\n  from policies import common\n  return common.answer()",
    ],
)
@pytest.mark.parametrize("package", [None, b"NAME = 'policies'\n"])
async def test_a_file_beside_is_imported_in_every_way(statement: bytes, package: bytes | None) -> None:
    modules = {"policies/common.py": COMMON}
    if package is not None:
        modules["policies/__init__.py"] = package
    function = load("policies/hours.py", "check", statement + b"\n" + CHECK, modules)
    assert await answered(function) == "one"


@pytest.mark.parametrize("file", ["../p.py", "/etc/p.py", "v1.2/p.py", "./p.py"])
def test_nothing_is_looked_for_beside_a_file_that_no_module_is_named_for(file: str) -> None:
    assert imported(file, b"from . import x\nfrom .y import z") == ()


async def test_files_import_each_other_and_the_policy() -> None:
    modules = {
        "policies/a.py": b"from policies import b\ndef value(): return b.value()\n",
        "policies/b.py": b"import policies.a\nfrom policies import hours\ndef value(): return hours.VALUE\n",
        "policies/hours.py": b"raise RuntimeError('the policy is there once only')",
    }
    source = (
        b"VALUE = 'mine'\nfrom filters.ext_authz import allow\nfrom . import a\n"
        b"def check(r): return allow({'x': a.value()})"
    )
    assert await answered(load("policies/hours.py", "check", source, modules)) == "mine"


async def test_each_version_has_its_own_files() -> None:
    source = b"from policies.common import answer\n" + CHECK
    first = load("policies/hours.py", "check", source, {"policies/common.py": COMMON})
    other = COMMON.replace(b"one", b"two")
    second = load("policies/hours.py", "check", source, {"policies/common.py": other})
    assert (await answered(first), await answered(second)) == ("one", "two")
    assert "policies" not in sys.modules


async def test_a_dataclass_in_a_file_beside_finds_its_module() -> None:
    common = b"from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n@dataclass\nclass A:\n  x: str\n  y: ClassVar[int] = 1\n"
    source = b"from filters.ext_authz import allow\nfrom common import A\ndef check(r): return allow({'x': A('z').x})"
    assert await answered(load("hours.py", "check", source, {"common.py": common})) == "z"


async def test_a_package_counts_before_a_file_of_its_name() -> None:
    modules = {"common.py": b"raise RuntimeError", "common/__init__.py": COMMON}
    assert await answered(load("hours.py", "check", b"from common import answer\n" + CHECK, modules)) == "one"


@pytest.mark.parametrize(
    ("source", "modules", "message"),
    [
        (b"from common import answer\n", {}, "hours.py:1: ModuleNotFoundError: No module named 'common'"),
        (
            b"from common import no\n",
            {"common.py": COMMON},
            "hours.py:1: ImportError: cannot import name 'no'",
        ),
        (b"import common\n", {"common.py": b"\n\n1 / 0\n"}, "common.py:3: ZeroDivisionError"),
        (b"from .. import x\n", {}, "hours.py:1: ImportError: attempted relative import beyond"),
    ],
)
async def test_what_cannot_be_imported_is_refused_with_the_place(
    source: bytes, modules: dict[str, bytes], message: str
) -> None:
    before = load("hours.py", "check", b"from common import answer\n" + CHECK, {"common.py": COMMON})
    kept = dict(sys.modules)
    with pytest.raises(Refused) as refused:
        load("hours.py", "check", source + CHECK, modules)
    assert str(refused.value).startswith(message)
    assert {name: one for name, one in sys.modules.items() if "xds_policy" in name} == {
        name: one for name, one in kept.items() if "xds_policy" in name
    }
    assert await answered(before) == "one"


def test_the_kit_finds_them_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "common.py").write_bytes(COMMON)
    (tmp_path / "policies" / "more.py").write_text("from .common import answer\n")
    (tmp_path / "policies" / "hours.py").write_bytes(b"from policies.more import answer\n" + CHECK)
    assert decide(policy("policies/hours.py:check", tmp_path), request()).headers == {"x": "one"}
