#!/bin/sh
# ModSecurity 3 rejects a rule that follows a rule without actions on the next line, if it goes on on a line of its own. An
# empty line between them makes both valid.
#
# Source: Reference-Manual-(v3.x) of owasp-modsecurity/ModSecurity, SecRule: "Syntax: SecRule VARIABLES OPERATOR [ACTIONS]". The actions are
# optional, and no empty line is demanded between directives. Coraza 3 accepts both.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check libmodsecurity==3.0.15.post2
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from libmodsecurity import ModSecurity, RulesSet

CHAIN = 'SecRule &ARGS "@eq 1" "id:1,phase:1,pass,chain"\n    SecRule &ARGS "@eq 1"\n'
NEXT = 'SecRule &ARGS "@eq 2" \\\n    "id:2,phase:1,pass"\n'


def loaded(text: str) -> int:
    return RulesSet().load(text)


seen = {"together": loaded(CHAIN + NEXT), "an empty line between": loaded(CHAIN + "\n" + NEXT)}
print("version: ", ModSecurity().who_am_i())
print("source:   Reference-Manual-(v3.x), SecRule")
print("expected: both texts are loaded")
print("seen:    ", seen)
sys.exit(0 if seen["together"] < 0 <= seen["an empty line between"] else 1)
PYTHON
