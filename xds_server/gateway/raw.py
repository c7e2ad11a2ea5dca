"""``envoy:`` - raw Envoy configuration, merged into what is generated.

Extensions newer than the wire codec's schema are encoded through envoy-data-plane, whose schema is the newest.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import any_pb2, descriptor_pool, json_format
from google.protobuf.message import Message

from filters.language import Mistake

M = TypeVar("M", bound=Message)
OWN = ("name", "load_assignment")
"""Fields by which the rest of a gateway finds a resource."""
REMEDY = "see Envoy's API reference for the fields of this message"
_MESSAGE = re.compile(
    r"(?:envoy|xds|udpa|google|cel|validate)(?:\.[a-z][a-z0-9_]*)+\.[A-Z]\w*(?:\.[A-Z]\w*)*"
)
"""The full name of a message of Envoy's API, or of one that it uses. Nothing else is looked for: a module would be run."""


def merged(message: M, raw: Mapping[str, Any] | None) -> M:
    """`message` with `raw` on top: fields replace, messages merge, lists are appended. Raises Mistake."""
    if raw is None:
        return message
    for key in OWN:
        if key in raw:
            remedy = "remove it: the name is the one in the gateway"
            raise Mistake(f"'{key}' cannot be changed", remedy, path=(key,), value=raw[key])
    result = type(message)()
    result.CopyFrom(message)
    result.MergeFrom(parse(type(message), raw))
    return result


def parse(kind: type[M], raw: Mapping[str, Any]) -> M:
    """A message from its JSON form. Raises Mistake that names what Envoy's schema does not have."""
    try:
        return json_format.ParseDict(_encoded(raw), kind(), descriptor_pool=descriptor_pool.Default())
    except json_format.ParseError as error:
        raise Mistake(f"not Envoy's {kind.DESCRIPTOR.name}: {error}", REMEDY) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # of a message with a form of its own in JSON (Struct, Duration, …), whose 'value' is missing or is another
        message = (
            f"not Envoy's {kind.DESCRIPTOR.name}: a message within has not the form of its '@type' ({error})"
        )
        raise Mistake(message, "write such a message as {'@type': …, value: …}") from None


def _encoded(value: Any) -> Any:
    """Replace every extension that the codec's schema lacks by its bytes."""
    if isinstance(value, list):
        return [_encoded(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    url = value.get("@type", "")
    plain = {key: _encoded(one) for key, one in value.items()}
    if "@type" in value and (not isinstance(url, str) or not _MESSAGE.fullmatch(url.rpartition("/")[2])):
        raise Mistake(
            "this is not the type of a message",
            "write type.googleapis.com/ and the message's full name, as Envoy's API reference has it",
            path=("@type",),
            value=url,
        )
    if url and not _known(url):
        return _by_data_plane(url, {key: one for key, one in plain.items() if key != "@type"})
    return plain


def _known(url: str) -> bool:
    try:
        descriptor_pool.Default().FindMessageTypeByName(url.rpartition("/")[2])
    except KeyError:
        return _import(url.rpartition("/")[2])
    return True


def _import(full_name: str) -> bool:
    """Load the codec's module of a message; generated modules lie by package, their file is not in the name."""
    package = full_name.rpartition(".")[0]
    try:
        module = importlib.import_module(package)
    except ImportError:
        return False
    for found in pkgutil.iter_modules(module.__path__):
        if found.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{found.name}")
    try:
        descriptor_pool.Default().FindMessageTypeByName(full_name)
    except KeyError:
        return False
    return True


def _by_data_plane(url: str, fields: Mapping[str, Any]) -> Any:
    package, _, name = url.rpartition("/")[2].rpartition(".")
    try:
        kind = getattr(importlib.import_module(f"envoy_data_plane.{package}"), name)
        body = bytes(kind.from_dict(dict(fields)))
    except (ImportError, AttributeError):
        raise Mistake(f"no Envoy message is called {url}", "check '@type'", path=("@type",)) from None
    except (ValueError, TypeError, KeyError) as error:
        raise Mistake(f"not Envoy's {name}: {error}", REMEDY) from None
    return json_format.MessageToDict(any_pb2.Any(type_url=url, value=body))
