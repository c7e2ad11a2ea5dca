"""python -m tests.support.crs_suite: run the regression suite of the OWASP Core Rule Set, and print what does not hold.

The suite comes with the rules, in the Go module from which `make waf` takes them. It is run as its authors say
(tests/regression/README.md of coreruleset): at paranoia level 4, with the default bounds, without blocking. Its tests of rules for
responses are left out. The requests go to the engine and not through Envoy, which rejects or corrects some of them itself.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from filters.waf import directives
from filters.waf.crs import NotInstalledError, folder, require_engine
from filters.waf.engine import Engine, text_of
from filters.waf.frames import Inquiry
from filters.waf.install import CannotInstallError, module
from filters.waf.names import WafSource

PROFILE = "suite"
SOURCE = WafSource(paranoia=4, threshold=5, blocks=False, lenient=False, timeout=1, body=True)
FIRST_OF_RESPONSES = 949_000
_SETTINGS = """
SecRuleEngine DetectionOnly
SecAction "id:900005,phase:1,nolog,pass,\
setvar:tx.blocking_paranoia_level=PARANOIA,setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,setvar:tx.arg_length=400,\
setvar:tx.total_arg_length=64000,setvar:tx.max_num_args=255,setvar:tx.max_file_size=64100,\
setvar:tx.combined_file_sizes=65535,\
setvar:'tx.allowed_methods=GET HEAD POST OPTIONS',\
setvar:'tx.allowed_request_content_type=|application/x-www-form-urlencoded| |multipart/form-data| |text/xml| \
|application/xml| |application/soap+xml| |application/json|'"
"""


Message = tuple[int, str, str]
"""A rule that matched: its id, its message and its data, as they stand in a line of a log."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request of the suite, and what its rule must do. `name` is the rule, the test and the number of the request."""

    name: str
    rule: int
    inquiry: Inquiry
    log: Mapping[str, Any]

    def holds(self, messages: Sequence[Message]) -> bool:
        """True if the rules that match, and what they log, are as expected."""
        matched = {rule for rule, _, _ in messages}
        log, text = (
            self.log,
            "\n".join(f'[id "{rule}"] [msg "{message}"] [data "{data}"]' for rule, message, data in messages),
        )
        return (
            matched.issuperset(log.get("expect_ids", ()))
            and matched.isdisjoint(log.get("no_expect_ids", ()))
            and ("match_regex" not in log or re.search(log["match_regex"], text, re.DOTALL) is not None)
            and ("no_match_regex" not in log or re.search(log["no_match_regex"], text, re.DOTALL) is None)
        )


def missing() -> str:
    """Why the suite cannot run, or an empty text."""
    try:
        require_engine()
        folder()
        module()
    except (NotInstalledError, CannotInstallError) as error:
        return str(error)
    return ""


def cases() -> Iterator[Case]:
    """Yield the requests of the suite that rules for requests are tested by."""
    for file in sorted((module() / "tests").glob("*/*.yaml")):
        document = yaml.load(file.read_text(), yaml.CSafeLoader)
        if document is None or document["rule_id"] >= FIRST_OF_RESPONSES:
            continue
        for test in document["tests"]:
            for number, stage in enumerate(test["stages"]):
                name = f"{document['rule_id']}-{test['test_id']}" + (f"-{number}" if number else "")
                yield Case(
                    name, document["rule_id"], _inquiry(stage["input"]), stage["output"].get("log", {})
                )


def _inquiry(written: Mapping[str, Any]) -> Inquiry:
    if "encoded_request" in written:
        return _of_bytes(base64.b64decode(written["encoded_request"]))
    headers = [(name, str(value)) for name, value in (written.get("headers") or {}).items()]
    data = written.get("data") or ""
    body = base64.b64decode(written["encoded_data"]) if "encoded_data" in written else str(data).encode()
    if written.get("autocomplete_headers", True):
        headers += _completed({name.lower() for name, _ in headers}, body)
    version = str(written.get("version", "HTTP/1.1")).removeprefix("HTTP/")
    method, target = str(written.get("method", "GET")), str(written.get("uri", "/"))
    return Inquiry(PROFILE, "127.0.0.1", method, target, version, headers, body)


def _completed(named: set[str], body: bytes) -> Iterator[tuple[str, str]]:
    """Yield the headers that go-ftw adds."""
    if body and "content-type" not in named:
        yield "Content-Type", "application/x-www-form-urlencoded"
    if body and not named & {"content-length", "transfer-encoding"}:
        yield "Content-Length", str(len(body))
    if "connection" not in named:
        yield "Connection", "close"


def _of_bytes(request: bytes) -> Inquiry:
    """The request that some bytes stand for."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in request else b"\n\n"
    head, _, body = request.partition(end)
    first, *lines = head.decode("latin-1").splitlines()
    method, _, rest = first.partition(" ")
    target, _, version = rest.rpartition(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
    return Inquiry(
        PROFILE, "127.0.0.1", method, target or version, version.removeprefix("HTTP/"), headers, body
    )


def settings(paranoia: int = 4) -> str:
    """The directives before the rules."""
    return directives.first({}) + _SETTINGS.replace("PARANOIA", str(paranoia))


def engine() -> Engine:
    """The engine with the settings of the suite."""
    made = Engine(folder())
    made.load({PROFILE: SOURCE}, settings())
    return made


def levels(rules: Path) -> Mapping[int, int]:
    """The paranoia level of each rule."""
    found = {}
    for file in rules.glob("REQUEST-*.conf"):
        for part in re.split(r"^\s*Sec", file.read_text(), flags=re.MULTILINE):
            number, level = re.search(r"\bid:(\d+)", part), re.search(r"paranoia-level/(\d)", part)
            if number and level:
                found[int(number[1])] = int(level[1])
    return found


@dataclass(slots=True)
class Score:
    """The tests of the rules of each paranoia level, those that hold, and the names of the others."""

    tests: Counter[int]
    held: Counter[int]
    failed: list[str]


def run() -> Score:
    """Run the suite."""
    made, level = engine(), levels(folder())
    score = Score(Counter(), Counter(), [])
    for case in cases():
        messages = made.run(case.inquiry)[0].get_rule_messages()
        matched = [(one.rule_id, text_of(one, "message"), text_of(one, "data")) for one in messages]
        of, holds = level.get(case.rule, 1), case.holds(matched)
        score.tests[of] += 1
        score.held[of] += holds
        if not holds:
            score.failed.append(case.name)
    return score


def main() -> None:
    """Print the score for each paranoia level, and what does not hold."""
    if why := missing():
        raise SystemExit(why)
    score = run()
    print("| paranoia level of the rule | tests | hold |\n|---|---|---|")
    rows = [(str(of), score.tests[of], score.held[of]) for of in sorted(score.tests)]
    for name, tests, held in (*rows, ("all", score.tests.total(), score.held.total())):
        print(f"| {name} | {tests:,} | {held:,} ({held / tests:.1%}) |")
    print("\n" + "\n".join(score.failed))


if __name__ == "__main__":
    main()
