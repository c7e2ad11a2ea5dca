"""The contract between Python and the identity script: keys, constants and the statuses of reasons."""

from __future__ import annotations

import re
from importlib import resources
from typing import get_type_hints

from filters.identity import script_rules
from filters.model.methods import failed
from filters.pipeline import POLICIES

SCRIPT = resources.files("filters.identity").joinpath("identity.lua").read_text()
RULES = [
    script_rules.ScriptRule,
    script_rules.OidcRule,
    script_rules.MtlsRule,
    script_rules.JwtRule,
    script_rules.ApiKeyRule,
    script_rules.BasicAuthRule,
]


def test_every_key_that_the_script_reads_is_declared_and_every_declared_key_is_read() -> None:
    declared = {key for rule in RULES for key in get_type_hints(rule)}
    read = set(re.findall(r"\brule\.([a-z_]+)", SCRIPT)) - {"rule"}
    methods = {"oidc", "mtls", "jwt", "api_key", "basic_auth"}
    assert read <= declared
    assert declared - methods <= read


def test_every_constant_is_used_and_no_constant_is_written_twice() -> None:
    for name, value in script_rules.CONSTANTS.items():
        assert re.search(rf"\b{name}\b", SCRIPT), name
        assert f"local {name} =" not in SCRIPT
        if isinstance(value, str):
            assert f'"{value}"' not in SCRIPT


def test_the_script_answers_each_reason_with_its_status() -> None:
    """The script knows a reason's status by the end of its name."""
    reasons = [reason for policy in POLICIES for reason in policy.reasons]
    own = {reason.name: reason.status for reason in reasons if failed(reason.name) in reason.when}
    assert own
    for name, status in own.items():
        if name.endswith("_unavailable"):
            assert status == 503, name
        elif name == "identity_failed":
            assert status == 500
        elif name.endswith("_subscribed"):
            assert status == 403, name
        elif status != 429:  # the policy server rejects by a limit
            assert status == 401, name
