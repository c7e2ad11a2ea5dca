"""The sources of values that are not written in the YAML: a file or an environment variable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from filters.language.options import Mistake, Shorthand, option

PLAIN = "write {file: PATH} or {env: NAME}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A value kept outside of the YAML."""

    REFERENCE: ClassVar[bool] = True
    missing: ClassVar[str] = "paths are relative to the gateway's folder"
    """The remedy if the file cannot be read."""
    file: str | None = option(
        "A file, relative to the gateway's folder.", default=None, example="certs/example.crt"
    )
    env: str | None = option("An environment variable of the control plane.", default=None)
    inline: str | None = option("The value itself; never for secrets.", default=None, multiline=True)

    @property
    def pattern(self) -> bool:
        """True if the file is a pattern, whose content is the paths of the files that it stands for, one a line."""
        return False

    def referenced(self, content: bytes) -> Iterable[DataSource]:
        """The further files that `content` refers to, if they exist. `content` is the content of this source."""
        return ()

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless exactly one source is named."""
        if sum(source is not None for source in (self.file, self.env, self.inline)) != 1:
            yield Mistake(
                "exactly one of 'file', 'env' and 'inline' is needed", "write {file: PATH} or {env: NAME}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource(DataSource):
    """A secret value. The YAML never contains the value itself."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str, int, float, bool, list), "{file: PATH} or {env: NAME}", {"not": {}}
    )

    @classmethod
    def short(cls, _value: object) -> SecretSource:
        """Reject a secret in plain text without showing it. Raises Mistake."""
        raise Mistake("a secret is never written plainly", PLAIN, value="[redacted]")

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a secret in plain text, and a mistake unless exactly one source is named."""
        if self.inline is not None:
            yield Mistake("a secret is never written plainly", PLAIN, value="[redacted]")
        elif (self.file is None) == (self.env is None):
            yield Mistake("exactly one of 'file' and 'env' is needed", PLAIN)
