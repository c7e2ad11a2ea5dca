"""A gateway as plain values for people and for a comparison elsewhere: as in the YAML, without defaults and without secrets."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from filters.language import DataSource
from filters.language.datasource import SecretSource
from filters.language.decode import field_key
from filters.language.options import OFF, About
from filters.policy import Levels
from filters.policy_server import internal_cluster
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, EXTENSION_CONFIG, LISTENER
from xds_server.gateway.model.gateway import Gateway, Sections
from xds_server.gateway.schema import duration
from xds_server.translate import gateway_version
from xds_server.translate.clusters import INTERNAL_SERVICES
from xds_server.translate.composer_entry import CALLS
from xds_server.translate.readable import REDACTED

Objects = Mapping[str, Mapping[str, Any]]
"""Objects, or settings, by section and name."""
_TELLING = 6
"""A text with fewer characters may be within a value by chance, without being the variable's value."""
_NO_ABOUT = About("")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadableGateway:
    """The objects of a gateway, the effective policies of its routes, and the versions of its resources by type and name.

    Each text with an environment variable is as in the YAML: ``${NAME}``, and not the value. A secret that the YAML has is
    a part of its hash, so that another one differs.
    """

    objects: Objects
    policies: Mapping[str, Mapping[str, Any]]
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, gateway: Gateway, snapshot: Snapshot) -> ReadableGateway:
        """Return a gateway and its resources, without what is of one process: where our own services are."""
        to_plain = _ToPlain(gateway)
        sections = gateway.sections
        without = {
            CLUSTER: frozenset(map(internal_cluster, INTERNAL_SERVICES)),
            EXTENSION_CONFIG: frozenset((gateway_version.NAME,)),
            LISTENER: frozenset((CALLS,)),
        }
        return cls(
            objects={
                one.name: {name: to_plain(value) for name, value in getattr(sections, one.name).items()}
                for one in dataclasses.fields(Sections)
            },
            policies={
                route: {key: to_plain(settings) for key, settings in policies.items()}
                for route, policies in gateway.policies.items()
            },
            resources={
                type_.name: {
                    name: one.version
                    for name, one in snapshot[type_].items()
                    if name not in without.get(type_, ())
                }
                for type_ in snapshot
            },
        )

    def as_json(self) -> dict[str, Any]:
        """Return the gateway for `from_json`."""
        return {"objects": self.objects, "policies": self.policies, "resources": self.resources}

    @classmethod
    def from_json(cls, value: Any) -> ReadableGateway:
        """Return the gateway of `as_json`. Raises ValueError."""
        try:
            found = cls(**{one.name: value[one.name] for one in dataclasses.fields(cls)})
        except (TypeError, KeyError):
            raise ValueError("this is not a gateway") from None
        if not all(isinstance(getattr(found, one.name), Mapping) for one in dataclasses.fields(cls)):
            raise ValueError("this is not a gateway")
        return found


class _ToPlain:
    """Converts values of a gateway's model."""

    def __init__(self, gateway: Gateway) -> None:
        self._contents = gateway.contents
        secret = {text: written for text, written in gateway.variables if text not in written}
        self._whole = secret
        self._within = sorted(
            (pair for pair in secret.items() if len(pair[0]) >= _TELLING), key=lambda pair: -len(pair[0])
        )

    def __call__(self, value: Any) -> Any:
        match value:
            case None | bool():
                return value
            case str():
                return self._text(value)
            case int() | float():
                return self._whole.get(str(value), value)
            case timedelta():
                return duration(value)
            case Levels():
                return {place: self(settings) for place, settings in value.places}
            case Mapping():
                return {str(key): self(one) for key, one in value.items()}
            case tuple() | list():
                return [self(one) for one in value]
            case frozenset():
                return sorted(map(str, value))
        if value is not OFF and dataclasses.is_dataclass(value) and hasattr(value, "__dataclass_fields__"):
            fields = dataclasses.fields(value)
            if all("about" in one.metadata for one in fields):
                return self._object(value)
        return self._text(str(value))

    def _object(self, value: Any) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for one in dataclasses.fields(value):
            found = getattr(value, one.name)
            if found is None or found == _default(one):
                continue
            secret = one.metadata.get("about", _NO_ABOUT).secret
            result[field_key(one)] = _fingerprint(found) if secret else self(found)
        if isinstance(value, DataSource) and not isinstance(value, SecretSource) and value.file is not None:
            content = self._contents.get(value)
            if content is not None:
                result["sha256"] = hashlib.sha256(content).hexdigest()[:12]
        return result

    def _text(self, text: str) -> str:
        whole = self._whole.get(text)
        if whole is not None:
            return whole
        for found, written in self._within:
            text = text.replace(found, written)
        return text


def _default(one: dataclasses.Field[Any]) -> Any:
    if one.default is not dataclasses.MISSING:
        return one.default
    return one.default_factory() if one.default_factory is not dataclasses.MISSING else dataclasses.MISSING


def _fingerprint(secret: Any) -> str:
    return f"{REDACTED} {hashlib.sha256(f'xds diff {secret}'.encode()).hexdigest()[:8]}"
