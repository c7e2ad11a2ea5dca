"""What a user writes below `mock` of an upstream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from filters.language import DataSource, Mistake, Shorthand, option
from filters.mock.names import MOCK, PHASES, MockSource
from filters.policy import Context
from filters.processing.processor import Use
from filters.validation.settings import OpenApiFile

LARGEST_BODY = 1 << 20
TIMEOUT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mock(OpenApiFile):
    """An OpenAPI document from whose examples and schemas requests are answered, as Prism does.

    `base_path` is that of clients, before a `rewrite` of the route.
    """

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file, JSON or YAML")
    plans: tuple[str, ...] = option(
        "Only callers on these plans get the answers; the requests of others go to the endpoints. Default: everybody.",
        default=(),
        refers="plans",
        narrows=True,
    )
    dynamic: bool = option(
        "Whether values without an example are random. A request chooses with `Prefer: dynamic=true` or `false`.",
        default=False,
    )

    @classmethod
    def short(cls, value: str) -> Mock:
        """The mock of a document in a file."""
        return cls(file=value)

    def source(self, contents: Mapping[DataSource, bytes]) -> MockSource | None:
        """The rule for the policy server, or None if the document could not be read.

        Its name is a hash of the content, so that upstreams with the same document share a rule.
        """
        document = contents.get(self)
        if document is None:
            return None
        base, plans = self.base_path, tuple(sorted(self.plans))
        digest = hashlib.sha256(document)
        digest.update(repr((base, plans, self.dynamic)).encode())
        return MockSource(digest.hexdigest()[:16], document, base, plans, self.dynamic)

    def uses(self, context: Context) -> tuple[Use, ...]:
        """The processor of the policy server."""
        source = self.source(context.contents)
        if source is None:
            return ()
        use = Use(type=MOCK, rule=source.name, phases=PHASES, timeout=TIMEOUT, max_body=LARGEST_BODY)
        return (use,)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless exactly one source is named, and for a plan that is named twice."""
        yield from OpenApiFile.check(self)
        for number, name in enumerate(self.plans):
            if name in self.plans[:number]:
                yield Mistake("the plan is named twice", "remove one", path=("plans", number), value=name)
