"""ModSecurity with the Core Rule Set. It blocks while it works, and runs in a process of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import libmodsecurity

from filters.waf import directives
from filters.waf.frames import Inquiry, Match, Verdict
from filters.waf.names import WafSource

_EVALUATION = range(949_000, 950_000)
"""Rules that compare the score with the threshold, and find nothing themselves."""


class Engine:
    """The rules of all profiles, and the inspection of requests by them. `crs` is the folder of the rules."""

    def __init__(self, crs: Path) -> None:
        self._crs = crs
        self._engine = libmodsecurity.ModSecurity()
        self._engine.set_log_callback(_unheard)
        self._rules = libmodsecurity.RulesSet()
        self._profiles: frozenset[str] = frozenset()
        self._numbers = itertools.count()

    def load(self, profiles: Mapping[str, WafSource], first: str | None = None) -> None:
        """Use these profiles. `first` replaces the directives before the rules. Raises ValueError; the former ones stay."""
        rules = libmodsecurity.RulesSet()
        _add(rules, directives.first(profiles) if first is None else first, "the settings")
        os.chdir(self._crs)  # rules name files of words beside them
        for file in sorted(self._crs.glob("REQUEST-*.conf")):
            _add(rules, directives.spaced(file.read_text()), file.name)
        _add(rules, directives.LAST, "the settings")
        self._rules, self._profiles = rules, frozenset(profiles)

    def inspect(self, asked: Inquiry) -> Verdict:
        """Inspect a request. Raises ValueError for a profile that was not loaded."""
        return _verdict(*self.run(asked))

    def run(self, asked: Inquiry) -> tuple[libmodsecurity.Transaction, bool]:
        """Run the rules for a request: the transaction, and if they reject it. Raises ValueError as `inspect` does."""
        if asked.profile not in self._profiles:
            raise ValueError(f"the profile {asked.profile} is not loaded")
        unique = f"{asked.profile}.{next(self._numbers)}"
        one = libmodsecurity.Transaction(self._engine, self._rules, unique)
        one.process_connection(asked.client, 0, "0.0.0.0", 0)
        one.process_uri(asked.target, asked.method, asked.version)
        for name, value in asked.headers:
            one.add_request_header(name, value)
        one.process_request_headers()
        found = _disrupts(one)
        if not found:
            if asked.body:
                one.append_request_body(asked.body)
            one.process_request_body()
            found = _disrupts(one)
        one.process_logging()
        return one, found


def _unheard(_line: str) -> None:
    """ModSecurity's log has parts of requests, which may be secrets."""


def _add(rules: libmodsecurity.RulesSet, text: str, what: str) -> None:
    if rules.load(text) < 0:
        raise ValueError(f"{what} cannot be loaded: {rules.get_parser_error()[:500]}")


def _disrupts(one: libmodsecurity.Transaction) -> bool:
    intervention = one.intervention()
    return intervention is not None and intervention.disruptive


def text_of(message: libmodsecurity.RuleMessage, name: str) -> str:
    """A text of a message; empty if it has bytes of the request that are no UTF-8."""
    try:
        return str(getattr(message, name))
    except UnicodeDecodeError:
        return ""


def _verdict(one: libmodsecurity.Transaction, found: bool) -> Verdict:
    """The verdict, with the most severe match first: the severities are those of syslog (RFC 5424 section 6.2.1)."""
    score, matches = 0, {}
    for message in sorted(one.get_rule_messages(), key=lambda message: message.severity):
        if message.rule_id == directives.SCORE:
            told = text_of(message, "message").rpartition(" ")[2]
            score = int(told) if told.isdecimal() else 0
        elif message.rule_id not in _EVALUATION:
            matches[message.rule_id] = Match(message.rule_id, text_of(message, "message"))
    return Verdict(found=found, score=score, matches=list(matches.values()))
