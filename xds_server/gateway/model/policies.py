"""Policies of all routes, of a set, or of one route. The registry defines which keys exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from filters.language import INVALID, Decoder, Path, Problem, Problems, decoder_for
from filters.language.options import OFF
from filters.language.problems import did_you_mean, short_repr
from filters.pipeline import POLICIES
from filters.policy import Levels, Policy


class Policies(Mapping[str, Any]):
    """Settings by policy key. The value `OFF` removes a policy."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def __getitem__(self, key: str) -> Any:
        return self._settings[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __repr__(self) -> str:
        return f"Policies({dict(self._settings)})"

    @property
    def answering(self) -> str | None:
        """The policy that responds to requests itself, so that the route needs no action, or None."""
        found = (key for key, value in self.items() if by_key()[key].responds and value and value is not OFF)
        return next(found, None)

    @staticmethod
    def decode_value(value: Any, path: Path, problems: Problems) -> Any:
        """Return one decoded mapping of policies (the decoder's hook for this type)."""
        if not isinstance(value, dict):
            problems.append(
                Problem(path=path, message="expected a mapping of policies", value=short_repr(value))
            )
            return INVALID
        before = len(problems)
        decoders = _decoders()
        settings = {}
        for key, item in value.items():
            decoder = decoders.get(key)
            if decoder is None:
                problems.append(_unknown((*path, key), key, decoders))
            elif item == "off" or item is False:
                settings[key] = OFF
            else:
                settings[key] = decoder(item, (*path, key), problems)
        return Policies(settings) if len(problems) == before else INVALID


NONE = Policies({})


@cache
def by_key() -> Mapping[str, Policy[Any]]:
    """The registered policies, by key."""
    return {policy.key: policy for policy in POLICIES}


@cache
def _decoders() -> Mapping[str, Decoder]:
    return {policy.key: decoder_for(policy.settings) for policy in POLICIES}


def _unknown(path: Path, key: str, known: Mapping[str, Decoder]) -> Problem:
    message, remedy = f"unknown policy '{key}'", did_you_mean(key, known)
    return Problem(path=path, message=message, remedy=remedy, at_key=True)


def merge(*levels: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the effective policies. Each level has its place; a later level wins key by key, and `OFF` removes.

    A cumulative policy has the settings of all levels since the last `OFF`.
    """
    merged: dict[str, Any] = {}
    for place, level in levels:
        for key, value in level.items():
            if value is not OFF and by_key()[key].cumulative:
                outer = merged.get(key)
                merged[key] = Levels((*(outer.places if isinstance(outer, Levels) else ()), (place, value)))
            else:
                merged[key] = value
    return {
        key: merged[key]
        for key in sorted(merged, key=_position)
        if merged[key] is not OFF or by_key()[key].on_by_default
    }


def _position(key: str) -> int:
    return _positions()[key]


@cache
def _positions() -> Mapping[str, int]:
    return {policy.key: number for number, policy in enumerate(POLICIES)}
