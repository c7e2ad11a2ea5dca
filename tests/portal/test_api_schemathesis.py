"""schemathesis against the admin API: it finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.portal import ApiOf
from xds_server.portal.application import API

OPTIONS = (
    "--phases examples,coverage,fuzzing --mode all --max-examples 15 --seed 12 --generation-deterministic "
    "--suppress-health-check all --workers 1 --request-timeout 60 --no-color --continue-on-failure --warnings off "
    "--exclude-checks positive_data_acceptance"
)
"""Without the check that valid data are accepted: a document cannot say that a name must be that of an object."""


def test_schemathesis_finds_nothing(api: ApiOf, tmp_path: Path) -> None:
    market = api.market
    market.key(market.subscribe(market.application(), market.product()))
    url = f"{api.client.base_url}{API}"
    token = api.as_("adm").token
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--url", url]
    header = ["-H", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        [*command, *header, *OPTIONS.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
