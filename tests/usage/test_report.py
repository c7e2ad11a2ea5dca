"""`xds usage`: what it prints, and what it does not understand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.usage import entry
from xds_server.cli.main import main
from xds_server.usage.rollup import HOUR, Batch, Seen, count
from xds_server.usage.spool import Position
from xds_server.usage.store import Store

NOW = 500_000 * HOUR
"""2027-01-15T08:00Z."""
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    url = f"sqlite:///{tmp_path}/usage.db"
    store = Store(url)
    store.migrate()
    entries = [
        entry(start=NOW, consumer="acme", sent=10),
        entry(start=NOW + 30 * HOUR, consumer="acme", status=404),
        entry(start=NOW, consumer='b,"ob', plan="-", route="-"),
    ]
    batches = [Batch(b"a" * 16, NOW, entries)]
    store.add(
        "s",
        Position(0, 0),
        Position(1, 1),
        batches,
        count([Batch(b"a" * 16, NOW + 30 * HOUR, entries)], Seen()),
        NOW,
    )
    store.close()

    def run(*words: str) -> str:
        assert main(["usage", "--store", url, "--since", "2027-01-15", "--until", "2027-01-17", *words]) == 0
        return capsys.readouterr().out

    return run


def test_a_table_has_aligned_columns(run: Run) -> None:
    assert run("--by", "consumer").splitlines() == [
        "consumer  requests  bytes_received  bytes_sent  duration_ms  p50_ms  p99_ms",
        "acme             2               2          12            6       4       5",
        'b,"ob            1               1           2            3       4       5',
    ]
    assert run("--by", "none", "--route", "users").splitlines()[1].split() == ["2", "2", "12", "6", "4", "5"]


def test_csv_has_the_same_rows(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("--by", "consumer,day,status", "--output", "csv"))))
    assert [(row["consumer"], row["day"], row["status"], row["requests"]) for row in rows] == [
        ("acme", "2027-01-15T00:00:00+00:00", "200", "1"),
        ("acme", "2027-01-16T00:00:00+00:00", "404", "1"),
        ('b,"ob', "2027-01-15T00:00:00+00:00", "200", "1"),
    ]


def test_json_has_the_same_rows_and_times_choose(run: Run) -> None:
    rows = json.loads(run("--by", "hour", "--consumer", "acme", "--output", "json"))
    assert [(row["hour"], row["requests"]) for row in rows] == [
        ("2027-01-15T08:00:00+00:00", 1),
        ("2027-01-16T14:00:00+00:00", 1),
    ]
    rows = json.loads(
        run(
            "--by",
            "hour",
            "--since",
            "2027-01-15T09:00+01:00",
            "--until",
            "2027-01-15T09:00Z",
            "--output",
            "json",
        )
    )
    assert [row["requests"] for row in rows] == [2]


def test_cloud_events_are_the_same_until_the_counts_change(run: Run) -> None:
    words = ("--by", "consumer,hour", "--output", "cloudevents", "--source", "https://gw.example.com/usage")
    first, *_ = events = json.loads(run(*words))
    assert len(events) == len({event["id"] for event in events}) == 3
    assert json.loads(run(*words)) == events
    identity = first.pop("id")
    assert len(identity) == 32
    assert first == {
        "specversion": "1.0",
        "source": "https://gw.example.com/usage",
        "type": "xds.gateway.usage",
        "subject": "acme",
        "time": "2027-01-15T09:00:00+00:00",
        "datacontenttype": "application/json",
        "data": {
            "consumer": "acme",
            "requests": 1,
            "bytes_received": 1,
            "bytes_sent": 10,
            "duration_ms": 3,
            "from": "2027-01-15T08:00:00+00:00",
            "until": "2027-01-15T09:00:00+00:00",
        },
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "color"), "--by: 'color' is no group"),
        (("--by", "hour,day"), "either hour or day"),
        (("--by", "route,route"), "each group once"),
        (("--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("--since", "5 parsecs"), "is no time"),
        (("--until", "2020-13-01"), "--until: '2020-13-01' is no time"),
        (("--since", "1d", "--until", "2d"), "--since must be before --until"),
        (("--store", "nowhere"), "must be sqlite:///FILE"),
    ],
)
def test_what_cannot_be_understood_is_wrong_usage(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_store_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--store", f"sqlite:///{tmp_path}/none.db"]) == 3
    assert "there is no usage store" in capsys.readouterr().err
