"""geoip: what is read of it, and every error of a database, with place, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from filters.language import Problem
from tests.support.geoip import write_asns, write_countries
from xds_server.gateway.reader import Reader

YAML = """
listeners: {http: {port: 8080}}
geoip: {countries: %s}
routes: {all: {path: /*, respond: {body: ok}, policies: {ip_access: {deny: {countries: [KR]}}}}}
"""


def problems(database: Path | str) -> tuple[Problem, ...]:
    files = {"gateway.yaml": (YAML % database).encode()}
    return Reader().read(files, lambda path: Path(path).read_bytes(), {}).problems


def test_a_database_of_countries_is_fine(tmp_path: Path) -> None:
    write_countries(tmp_path / "c.mmdb", {"192.0.2.0/24": "KR"})
    assert problems(tmp_path / "c.mmdb") == ()


def test_a_database_that_does_not_exist_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "c.mmdb")
    assert (problem.where, problem.message) == (
        "geoip.countries.file",
        "the file cannot be read: No such file or directory",
    )
    assert problem.remedy == "put the database there, on this machine and on those of the Envoys"
    assert problem.place is not None
    assert (problem.place.file, problem.place.line) == ("gateway.yaml", 3)


@pytest.mark.parametrize("content", [b"", b"not a database", b"\xab\xcd\xefMaxMind.com\xff\xff"])
def test_a_file_that_is_no_database_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.mmdb").write_bytes(content)
    (problem,) = problems(tmp_path / "c.mmdb")
    assert problem.message.startswith("not a database in the MaxMind DB format: ")
    assert (problem.where, problem.remedy) == ("geoip.countries", "download it again")


def test_half_of_a_database_is_an_error(tmp_path: Path) -> None:
    write_countries(tmp_path / "c.mmdb", {"192.0.2.0/24": "KR"})
    whole = (tmp_path / "c.mmdb").read_bytes()
    (tmp_path / "c.mmdb").write_bytes(whole[: len(whole) // 2])
    assert len(problems(tmp_path / "c.mmdb")) == 1


def test_a_database_without_countries_is_an_error(tmp_path: Path) -> None:
    write_asns(tmp_path / "c.mmdb", {"192.0.2.0/24": 64500})
    (problem,) = problems(tmp_path / "c.mmdb")
    assert "no address has a 'country.iso_code' in this database of the type 'GeoLite2-ASN'" in str(problem)
    assert "use a database of countries or cities, such as GeoLite2-Country" in str(problem)
