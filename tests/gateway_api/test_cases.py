"""Golden cases: the manifests in cases/NAME.in.yaml become the files and conditions in cases/NAME.out.yaml.

``make golden`` rewrites them; read the difference before you commit it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import authority
from xds_server.control_plane.compiler import Compiler
from xds_server.gateway_api.conditions import Condition
from xds_server.gateway_api.ingress import with_ingresses
from xds_server.gateway_api.manifests import Manifests
from xds_server.gateway_api.mesh import with_mesh
from xds_server.gateway_api.translation import Translation, translate
from xds_server.sources.folder import Folder
from xds_server.sources.gateway_folder import FolderReader

CASES = Path(__file__).with_name("cases")
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


def manifests(name: str) -> bytes:
    """Return the manifests of a case. `$CERTIFICATE` and `$KEY` stand for a pair, as base64."""
    text = (CASES / f"{name}.in.yaml").read_text()
    if "$CERTIFICATE" in text:
        chain, key = (b64encode(part).decode() for part in authority().issue("a.example.com"))
        text = text.replace("$CERTIFICATE", chain).replace("$KEY", key)
    authority_text = authority().pem.decode().replace("\n", "\n    ")
    return text.replace("$AUTHORITY", authority_text).encode()


def _conditions(conditions: tuple[Condition, ...]) -> list[str]:
    return [
        f"{one.type}: {one.status}, {one.reason}{': ' if one.message else ''}{one.message}"
        for one in conditions
    ]


def _dumped(translation: Translation) -> dict[str, Any]:
    gateways = {
        "/".join(key): {name: yaml.safe_load(content) for name, content in files.rendered().items()}
        for key, files in {**translation.gateways, **translation.ingresses, **translation.meshes}.items()
    }
    gateway_statuses = {
        "/".join(one.key): {
            "conditions": _conditions(one.conditions),
            "listeners": {
                each.name: {
                    "kinds": ", ".join(kind.kind for kind in each.kinds),
                    "attached": each.attached,
                    "conditions": _conditions(each.conditions),
                }
                for each in one.listeners
            },
        }
        for one in translation.gateway_statuses
    }
    route_statuses = {
        f"{one.kind} {'/'.join(one.key)}": [
            {
                "parent": f"{each.parent.name}/{each.parent.section_name}",
                "conditions": _conditions(each.conditions),
            }
            for each in one.parents
        ]
        for one in translation.route_statuses
    }
    policies = {
        "/".join(one.key): {
            "gateways": ["/".join(key) for key in one.gateways],
            "conditions": _conditions(one.conditions),
        }
        for one in translation.policy_statuses
    }
    sets = {
        "/".join(one.key): {
            "gateway": "/".join(one.gateway),
            "conditions": _conditions((one.accepted,)),
            "listeners": {
                each.name: [each.attached, *_conditions(each.conditions)] for each in one.listeners
            },
        }
        for one in translation.set_statuses
    }
    objects = {
        f"{one.kind} {'/'.join(one.key)}": {
            "/".join(
                filter(None, (each.ancestor.namespace, each.ancestor.name, each.ancestor.section_name))
            ): _conditions(each.conditions)
            for each in one.ancestors
        }
        for one in translation.object_statuses
    }
    ingresses = {
        "/".join(filter(None, one.key)): list(map(str, one.faults))
        for one in translation.ingress_statuses
        if one.faults
    }
    return {
        "gateways": gateways,
        "gateway_statuses": gateway_statuses,
        "route_statuses": route_statuses,
        **({"policy_statuses": policies} if policies else {}),
        **({"set_statuses": sets} if sets else {}),
        **({"object_statuses": objects} if objects else {}),
        **({"ingress_statuses": ingresses} if ingresses else {}),
    }


@pytest.mark.parametrize("name", NAMES)
def test_manifests_become_files_and_conditions(name: str, request: pytest.FixtureRequest) -> None:
    content = manifests(name)
    cluster, problems = Manifests().read({"in.yaml": content})
    assert [str(one) for one in problems] == []
    every_class = not any(cluster.all("IngressClass"))
    translation = with_ingresses(translate(cluster), cluster, of_every_class=every_class)
    translation = with_mesh(translation, cluster)
    dumped = yaml.safe_dump(_dumped(translation), sort_keys=False, width=120, allow_unicode=True)
    text = re.sub(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\s|\\\\n)*",
        "$AUTHORITY",
        dumped,
        flags=re.DOTALL,
    )
    expected = CASES / f"{name}.out.yaml"
    if request.config.getoption("--update-golden"):
        expected.write_text(text)
    assert text == expected.read_text()
    for key in (*translation.gateways, *translation.ingresses, *translation.meshes):
        state = FolderReader(key).state(Folder(Path(), {"in.yaml": content}))
        assert Compiler({}).compile(state).gateway
