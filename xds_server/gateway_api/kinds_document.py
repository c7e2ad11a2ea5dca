"""The definitions of our own kinds with the rules about their keys, as one document of YAML."""

from __future__ import annotations

from itertools import chain
from typing import Any

import yaml

from xds_server.gateway_api.admission import admission_policy
from xds_server.gateway_api.crds import definitions

HEAD = """# Our own kinds of objects, made from the fields of the gateway language: xds schema --format crds
"""


def document() -> str:
    """Return the definitions as YAML."""
    objects = chain(definitions(), admission_policy())
    return HEAD + yaml.dump_all(objects, Dumper=_Whole, sort_keys=False, width=120, allow_unicode=True)


class _Whole(yaml.SafeDumper):
    """Writes equal parts again, because readers of the file are people too."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True
