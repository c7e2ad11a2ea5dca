"""waf as a user writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

from filters.language import Mistake, Shorthand, Size, option
from filters.policy import Context
from filters.processing.processor import Use
from filters.waf.names import WAF, Excluded, WafSource

FIRST_RULE, LAST_RULE = 910_000, 948_999
"""The ids of the rules of the Core Rule Set that look at requests. Others prepare these, or compare the score."""
BESIDE = (200_002, 200_003, 200_007, 200_008, 200_009)
"""The ids of rules beside the Core Rule Set: the body cannot be parsed, is malformed, has too many arguments or too long ones;
a header or the URL is too long."""
LARGEST_BODY = 3 << 20
"""Bytes of the largest body: a message to the policy server has at most 4 MiB."""
DEFAULT_BODY = 64 << 10
MARGIN = timedelta(milliseconds=500)
"""Time beyond `timeout` after which the call as a whole is given up; until then the processor itself responds."""
_TAG = r"[A-Za-z0-9_./-]+"
_COLLECTIONS = (
    "ARGS",
    "ARGS_GET",
    "ARGS_GET_NAMES",
    "ARGS_NAMES",
    "ARGS_POST",
    "ARGS_POST_NAMES",
    "FILES",
    "FILES_NAMES",
    "MULTIPART_PART_HEADERS",
    "REQUEST_COOKIES",
    "REQUEST_COOKIES_NAMES",
    "REQUEST_HEADERS",
    "REQUEST_HEADERS_NAMES",
)
_SCALARS = (
    "QUERY_STRING",
    "REQUEST_BASENAME",
    "REQUEST_BODY",
    "REQUEST_FILENAME",
    "REQUEST_LINE",
    "REQUEST_URI",
    "REQUEST_URI_RAW",
    r"XML:/\*",
)
_TARGET = rf"({'|'.join(_COLLECTIONS)})(:[A-Za-z0-9_.\[\]-]+)?|{'|'.join(_SCALARS)}"
"""The variables of ModSecurity that rules for requests look at. A name selects an entry of a collection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Rules that do not run, or that leave out a part of the request.

    `rule` or `tag` says which rules. With `target` they run, but do not look at this part.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (int,), "the id of a rule", {"type": "integer", "minimum": BESIDE[0], "maximum": LAST_RULE}
    )
    rule: int | None = option("The id of a rule, as the access log shows it.", default=None)
    tag: str | None = option(
        "A tag of rules, such as `attack-sqli`.",
        default=None,
        pattern=_TAG,
        shape="a tag such as attack-sqli",
    )
    target: str | None = option(
        "The part of the request that these rules do not look at: `ARGS:comment`, `REQUEST_COOKIES:session`, "
        "`REQUEST_HEADERS:x-note`, or a whole collection such as `REQUEST_COOKIES`. Fields of JSON are `ARGS:json.name`.",
        default=None,
        pattern=_TARGET,
        shape="a variable such as ARGS:comment",
    )

    @classmethod
    def short(cls, value: Any) -> Exclusion:
        """The exclusion of one rule. Raises Mistake."""
        if not _looks(value):
            raise _no_rule(value)
        return cls(rule=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless the rules are named in one way, and look at requests."""
        if self.rule is not None and not _looks(self.rule):
            wrong = _no_rule(self.rule)
            yield Mistake(wrong.message, wrong.remedy, path=("rule",), value=self.rule)
        if (self.rule is None) == (self.tag is None):
            yield Mistake("exactly one of 'rule' and 'tag' is needed", "write {rule: 942100}")

    def variable(self) -> str | None:
        """The target as the engine knows it. Envoy gives the names of headers in lower case."""
        collection, found, name = (self.target or "").partition(":")
        return f"{collection}:{name.lower()}" if found and collection == "REQUEST_HEADERS" else self.target


def _looks(rule: int) -> bool:
    """True for a rule that looks at requests."""
    return FIRST_RULE <= rule <= LAST_RULE or rule in BESIDE


def _no_rule(rule: int) -> Mistake:
    ids = f"{FIRST_RULE} to {LAST_RULE}, and {', '.join(map(str, BESIDE))}"
    return Mistake(
        f"no rule that looks at requests has this id; they have {ids}",
        "write an id that the access log shows",
        value=rule,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WafSettings:
    """The rules that inspect requests, and what happens to a request that they find."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "`crs`", {"const": "crs"})
    rules: Literal["crs"] = option("The rules: `crs` is the OWASP Core Rule Set 4.", default="crs")
    paranoia: int = option(
        "The paranoia level, 1 to 4. A higher level has more rules, finds more, and has more false positives.",
        default=1,
        minimum=1,
        maximum=4,
    )
    threshold: int = option(
        "A request is found if the scores of the rules that match add up to this. A critical rule scores 5, an error 4, "
        "a warning 3, a notice 2.",
        default=5,
        minimum=1,
        maximum=10_000,
    )
    mode: Literal["block", "detect"] = option(
        "What happens to a request that is found: `block` rejects it with 403, `detect` only logs and counts it.",
        default="block",
    )
    exclude: tuple[Exclusion, ...] = option(
        "Rules that do not run, or that leave out a part of the request.", default=(), narrows=True
    )
    body: bool = option(
        "Whether bodies are inspected. Routes with upgrades or gRPC need `false`, because their bodies are streams.",
        default=True,
    )
    max_body: Size = option(
        "The largest body that is inspected, without its content coding. A larger one is rejected with 413.",
        default=Size(DEFAULT_BODY),
        minimum=1,
        maximum=LARGEST_BODY,
    )
    timeout: timedelta = option(
        "The longest time that the inspection of a request may take.",
        default=timedelta(seconds=1),
        minimum=0.01,
        maximum=2,
    )
    on_error: Literal["deny", "allow"] = option(
        "What happens to a request that could not be inspected, because the rules took longer or their process is not "
        "available: `deny` rejects it with 503, `allow` lets it pass.",
        default="deny",
    )

    @classmethod
    def short(cls, value: str) -> WafSettings:
        """The settings of ``waf: crs``. Raises Mistake."""
        if value != "crs":
            raise Mistake("these rules are not known", "write crs", value=value)
        return cls()

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for an exclusion that is written twice."""
        for number, one in enumerate(self.exclude):
            if one in self.exclude[:number]:
                yield Mistake("the exclusion is written twice", "remove one", path=("exclude", number))

    def source(self) -> WafSource:
        """The rule for the policy server."""
        return WafSource(
            paranoia=self.paranoia,
            threshold=self.threshold,
            blocks=self.mode == "block",
            lenient=self.on_error == "allow",
            timeout=self.timeout.total_seconds(),
            body=self.body,
            exclude=tuple(Excluded(one.rule, one.tag, one.variable()) for one in self.exclude),
        )

    def uses(self, context: Context) -> tuple[Use, ...]:
        """The processor of the policy server."""
        source = self.source()
        use = Use(
            type=WAF,
            rule=source.name,
            phases=source.phases,
            timeout=self.timeout + MARGIN,
            max_body=self.max_body,
            lenient=self.on_error == "allow",
        )
        return (use,)
