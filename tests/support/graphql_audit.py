"""The audits of GraphQL over HTTP (npm's graphql-http), which run against a URL."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.support import npm

PACKAGES = ("graphql-http@1.23.1", "graphql@16.12.0")
_SCRIPT = """
import { auditServer } from "graphql-http";
const results = await auditServer({ url: process.argv[1] });
console.log(JSON.stringify(results.map((one) => ({ id: one.id, name: one.name, status: one.status, reason: one.reason }))));
"""


def installed() -> Path:
    """A folder with the audits. Skips the test if they cannot be installed."""
    return npm.installed(*PACKAGES)


def failures(folder: Path, url: str) -> list[str]:
    """The audits that a server does not pass, each with its kind (error, warn or notice) and its reason."""
    node = shutil.which("node")
    assert node is not None, "installed() looked for it"
    command = [node, "--input-type=module", "--eval", _SCRIPT, url]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    results = json.loads(done.stdout)
    assert len(results) > 50, "the audits ran"
    return [
        f"{one['status']} {one['id']} {one['name']}: {one['reason']}"
        for one in results
        if one["status"] != "ok"
    ]
