"""The bootstrap that we print is the one that stands in envoy/, and Envoy takes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.support.envoy import validate
from xds_server.cli.main import main
from xds_server.proxy.bootstrap import bootstrap

ROOT = Path(__file__).resolve().parents[2]
TLS = ("--ca", "/etc/envoy/xds/ca.crt", "--certificate", "/etc/envoy/xds/tls.crt")
TLS += ("--private-key", "/etc/envoy/xds/tls.key")


@pytest.mark.parametrize(("file", "more"), [("bootstrap.yaml", ()), ("bootstrap-mtls.yaml", TLS)])
def test_the_files_in_envoy_are_what_the_command_prints(
    file: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bootstrap", "--xds", "control-plane:18000", "--node-id", "envoy-1", *more]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load((ROOT / "envoy" / file).read_text())


@pytest.mark.parametrize("more", [(), ("--no-delta",), ("--xds", "unix:/run/xds.sock")])
def test_envoy_accepts_the_bootstrap(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bootstrap", *more]) == 0
    file = tmp_path / "bootstrap.yaml"
    file.write_text(capsys.readouterr().out)
    assert validate(file).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--xds", "nowhere"), "an endpoint needs a port"),
        (("--certificate", "a.crt"), "--certificate and --private-key need each other"),
        (("--certificate", "a.crt", "--private-key", "a.key"), "--certificate needs --ca"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bootstrap", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_envoy_with_probes_is_not_ready_without_a_configuration() -> None:
    """Envoy's own limit is 15 seconds, after which it would be ready and reject every connection."""
    made = bootstrap(xds_address="127.0.0.1:1", node_id="a", admin_port=19000, ready_port=19003)
    for source in (made.dynamic_resources.lds_config, made.dynamic_resources.cds_config):
        assert source.HasField("initial_fetch_timeout")
        assert source.initial_fetch_timeout.ToTimedelta() == timedelta(0)
