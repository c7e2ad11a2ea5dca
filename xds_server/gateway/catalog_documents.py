"""The documents of the catalogue: read into references, and their faults as problems with a place in the document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from filters.api_documents import grpc_descriptors, openapi
from filters.api_documents.faults import DocumentFaults, Fault
from filters.api_documents.reference import ApiReference
from filters.language import DataSource, Path, Place, Problem
from xds_server.gateway.document import Positions
from xds_server.gateway.model.catalog import Api

Contents = Mapping[DataSource, bytes]
_Inputs = tuple[object, tuple[bytes, ...]]


def reference_of(api: Api, contents: Contents) -> ApiReference | None:
    """Return the reference of an API, or None if it has no document. Raises DocumentFaults."""
    if api.openapi is not None and api.openapi in contents:
        return openapi.read(contents[api.openapi], api.openapi.base_path)
    if api.graphql is not None and api.graphql in contents:
        from filters.api_documents import (
            graphql_sdl,
        )  # takes a tenth of a second, which most gateways need not

        return graphql_sdl.read(contents[api.graphql])
    if api.grpc is not None:
        sets = [contents[one] for one in _descriptor_sets(api) if one in contents]
        return grpc_descriptors.read(sets, api.grpc.services) if sets else None
    return None


def inputs_of(api: Api, contents: Contents) -> _Inputs:
    """Return all that the reference of an API depends on."""
    sources = (*(one for one in (api.openapi, api.graphql) if one is not None), *_descriptor_sets(api))
    settings = (api.openapi, api.graphql, api.grpc)
    return settings, tuple(contents[one] for one in sources if one in contents)


def _descriptor_sets(api: Api) -> tuple[DataSource, ...]:
    if api.grpc is None:
        return ()
    if api.grpc.descriptors is not None:
        return (api.grpc.descriptors,)
    return tuple(one.compiled for one in api.grpc.protos)


class DocumentProblems:
    """The problems of all documents. A document that did not change is not read again."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[_Inputs, tuple[Problem, ...]]] = {}

    def of(self, catalog: Mapping[str, Api], contents: Contents) -> Iterator[Problem]:
        """Yield the problems of the documents of these APIs."""
        kept: dict[str, tuple[_Inputs, tuple[Problem, ...]]] = {}
        for name, api in catalog.items():
            inputs = inputs_of(api, contents)
            known = self._kept.get(name)
            if known is None or known[0] != inputs:
                known = (inputs, tuple(_problems(name, api, contents)))
            kept[name] = known
            yield from known[1]
        self._kept = kept


def _problems(name: str, api: Api, contents: Contents) -> Iterator[Problem]:
    try:
        reference_of(api, contents)
    except DocumentFaults as faults:
        key, source = next(
            (key, one)
            for key, one in (("openapi", api.openapi), ("graphql", api.graphql), ("grpc", None))
            if key == "grpc" or one is not None
        )
        yield from problems_of(("catalog", name, key), faults.faults, source, contents)


def problems_of(
    path: Path, faults: Iterable[Fault], source: DataSource | None, contents: Contents
) -> Iterator[Problem]:
    """Yield the faults of the document of a source, which stands at a path of the gateway."""
    place = _placing(source, contents)
    for fault in faults:
        yield _problem(path, fault, place)


def _placing(source: DataSource | None, contents: Contents) -> Callable[[Fault], Place | None]:
    """Return a function from a fault to its place in the file of a document, or to None if it has no file."""
    if source is None or source.file is None:
        return lambda _fault: None
    file = source.file
    positions = Positions(file, contents[source])
    return lambda fault: (
        Place(file, fault.line, fault.column) if fault.line else positions.of(fault.path, at_key=True)
    )


def _problem(path: Path, fault: Fault, place: Callable[[Fault], Place | None]) -> Problem:
    where, message = place(fault), fault.message
    if where is None and fault.line > 1:
        message = f"line {fault.line}: {message}"
    if path[-1] == "grpc":
        path = (*path, *fault.path)
    elif fault.path:
        message = f"{_pointer(fault.path)}: {message}"
    return Problem(path=path, message=message, remedy=fault.remedy, value=fault.value, place=where)


def _pointer(path: Path) -> str:
    """Return a path as people write it, with the parts that contain a slash in brackets."""
    text = ""
    for part in path:
        plain = isinstance(part, str) and part.replace("_", "").replace("-", "").isalnum()
        text += (f".{part}" if text else str(part)) if plain else f"[{part}]"
    return text
