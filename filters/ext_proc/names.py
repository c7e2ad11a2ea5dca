"""The rule that the control plane sends for a class."""

from __future__ import annotations

from typing import NamedTuple

from filters.rules import RuleType
from protos import rules_pb2


class ProcessorSource(NamedTuple):
    """A class from the gateway's folder, with the files that its file imports."""

    file: str
    class_name: str
    content: bytes
    modules: tuple[tuple[str, bytes], ...] = ()


def _message(name: str, value: ProcessorSource) -> rules_pb2.PythonProcessor:
    modules = [rules_pb2.PythonModule(file=file, source=source) for file, source in value.modules]
    return rules_pb2.PythonProcessor(
        name=name, file=value.file, class_name=value.class_name, source=value.content, modules=modules
    )


PROCESSOR = RuleType(name="python_processor", message=rules_pb2.PythonProcessor, build=_message)
