"""Headers of a request or a response as a policy in Python sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


class Headers(Mapping[str, str]):
    """Headers by name, without regard to case. Several of one name are joined by a comma (RFC 9110 section 5.3)."""

    __slots__ = ("_repeated", "_values")
    _values: dict[str, str]
    _repeated: dict[str, list[str]]

    def __init__(
        self,
        values: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        lower: dict[str, str] | None = None,
    ) -> None:
        """`lower` are the headers themselves, with names in lower case. They are not copied."""
        if lower is not None:
            self._values, self._repeated = lower, {}
            return
        pairs = values.items() if isinstance(values, Mapping) else tuple(values)
        self._values = {name.lower(): value for name, value in pairs}
        self._repeated = {}
        if len(self._values) < len(pairs):
            self._join(pairs)

    def _join(self, pairs: Iterable[tuple[str, str]]) -> None:
        for name, value in pairs:
            self._repeated.setdefault(name.lower(), []).append(value)
        for name, several in self._repeated.items():
            self._values[name] = ("; " if name == "cookie" else ", ").join(several)

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def get_all(self, name: str) -> tuple[str, ...]:
        """The values of each header of this name, for headers that must not be joined, such as set-cookie."""
        lower = name.lower()
        one = (self._values[lower],) if lower in self._values else ()
        return tuple(self._repeated.get(lower, one))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({sorted(self._values)})"  # names only: values may be secrets
