"""ConfigMaps with files of the gateway language, which are added to those of the Gateway that their label names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from filters.language import DataSource, Path, Problem
from filters.language.datasource import SecretSource
from filters.language.problems import short_repr
from filters.model.identity import Jwks
from xds_server.gateway import document, files
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.objects import Key, Object, SecretSpec
from xds_server.gateway_api.policy_specs import CERTIFICATE_FILES, OBJECT_FILES

_YAML = (".yaml", ".yml")
_PUBLIC = ("tls.crt", "ca.crt")
_REMEDY = "write the key of a ConfigMap of this Gateway, or Secret/NAME/KEY for a secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFiles:
    """Files of the language as text, what they refer to, the object of each, and what they must not refer to."""

    texts: Mapping[str, bytes] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    origins: Mapping[str, Object[Any]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def config_files(gateway: Key, cluster: Cluster) -> ConfigFiles:
    """Return the files for a Gateway from the ConfigMaps of its namespace.

    A key that ends in ``.yaml`` or ``.yml`` is a file of the language. It may refer to the other keys, and to Secrets of the
    namespace as ``Secret/NAME/KEY``. It has no variables.
    """
    texts: dict[str, bytes] = {}
    contents: dict[str, bytes] = {}
    origins: dict[str, Object[Any]] = {}
    problems: list[Problem] = []
    found = cluster.config_maps_for(gateway)
    for one in found:
        for key, content in one.spec.data.items():
            name = f"ConfigMap/{'/'.join(one.meta.key)}/{key}"
            if key.endswith(_YAML):
                texts[name], origins[name] = content.replace(b"${", b"$${"), one
            elif key in contents:
                message = f"the key {key} is also in another ConfigMap of this Gateway"
                problems.append(Problem(path=(name,), message=message, remedy="rename one of them"))
            else:
                contents[key] = content
    secrets: dict[str, bytes] = {}
    for name, text in texts.items():
        problems += _references(name, text, gateway[0], contents, secrets, cluster)
    return ConfigFiles(
        texts=texts, contents={**contents, **secrets}, origins=origins, problems=tuple(problems)
    )


@lru_cache(maxsize=256)
def _decoded(name: str, text: bytes) -> tuple[tuple[Path, DataSource], ...]:
    """Return the files to which a file of the language refers. Its mistakes are told by whoever reads the whole gateway."""
    return files.decode(name, text, {}).references


def _references(
    name: str,
    text: bytes,
    namespace: str,
    contents: Mapping[str, bytes],
    secrets: dict[str, bytes],
    cluster: Cluster,
) -> Iterator[Problem]:
    """Yield a problem for each reference that is not allowed, and add the Secrets of the others to `secrets`."""
    positions = document.Positions(name, text)
    for path, source in _decoded(name, text):
        file = source.file
        if file is None:
            continue
        message = ""
        if file.startswith("Secret/"):
            message = _secret(file, source, namespace, secrets, cluster)
        elif file not in contents:
            message = f"no ConfigMap of this Gateway has the key {file}"
        else:
            outside = next(_outside(source, contents), None)
            message = (
                f"{file} refers to {outside}, which is in no ConfigMap of this Gateway" if outside else ""
            )
        if message:
            yield Problem(
                path=path, message=message, value=short_repr(file), remedy=_REMEDY, place=positions.of(path)
            )


def _secret(
    file: str, source: DataSource, namespace: str, secrets: dict[str, bytes], cluster: Cluster
) -> str:
    """Add a key of a Secret. Returns why it is not allowed, or an empty text."""
    _, _, rest = file.partition("/")
    name, _, key = rest.partition("/")
    if not isinstance(source, SecretSource | Jwks) and key not in _PUBLIC:
        # a message about a mistake in the file may show a line of it to whoever may not read the Secret
        return "this is no secret, so it is not read from one"
    found: Object[SecretSpec] | None = cluster.secret((namespace, name))
    if found is None or key not in found.spec.data:
        return f"there is no Secret {namespace}/{name} with the key {key}"
    secrets[file] = found.spec.data[key]
    return ""


def _outside(source: DataSource, contents: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the files of other objects that a file imports."""
    waiting, seen = [source], {source}
    for one in waiting:
        for other in _imports(one, contents):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
                file = other.file or ""
                if file.startswith(OBJECT_FILES) or file.endswith(CERTIFICATE_FILES):
                    yield file


def _imports(source: DataSource, contents: Mapping[str, bytes]) -> Iterable[DataSource]:
    content = contents.get(source.file or "")
    return () if content is None else source.referenced(content)
