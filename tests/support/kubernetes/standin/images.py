"""Which programs stand for container images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from xds_server.kubernetes.resources import Object


@dataclass(frozen=True, slots=True)
class Image:
    """A program. `commands` are others that can be run beside it, by name. An empty `argv` keeps the container's command; `args` says if the container's arguments count."""

    match: str
    argv: tuple[str, ...] = ()
    args: bool = True
    ready: int | None = None
    http: bool = False
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_images(path: Path, variables: Mapping[str, str]) -> list[Image]:
    """Return the images of a file."""
    found = yaml.safe_load(path.read_text())
    return [Image(**{**one, **_programs(one, variables)}) for one in found]


def _programs(one: Object, variables: Mapping[str, str]) -> Object:
    def words(given: list[str]) -> tuple[str, ...]:
        return tuple(expanded(word, variables) for word in given)

    commands = {name: words(given) for name, given in one.get("commands", {}).items()}
    return {"argv": words(one["argv"]), "commands": commands}


def image_of(images: list[Image], container: Object) -> Image | None:
    """Return the program for a container, or None if there is none."""
    return next((one for one in images if re.search(one.match, container["image"])), None)


def command_of(image: Image, container: Object, environment: Mapping[str, str]) -> list[str]:
    """Return the command of a container."""
    if image.argv:
        words = [*image.argv, *(container.get("args", []) if image.args else [])]
    else:
        words = [*container.get("command", []), *container.get("args", [])]
    return [expanded(word, environment) for word in words]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` of the variables that exist, as Kubernetes does."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)
