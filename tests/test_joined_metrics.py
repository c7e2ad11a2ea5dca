"""One page of the metrics of several processes, as Prometheus' own parser reads it."""

from __future__ import annotations

import http.client
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from xds_server import joined_metrics
from xds_server.admin import Admin, Page

NAMES = st.sampled_from(["a", "b", "c_total", "d"])


@given(st.lists(st.dictionaries(NAMES, st.integers(0, 9), max_size=4), max_size=4))
def test_every_family_stands_once_with_all_its_samples(processes: list[dict[str, int]]) -> None:
    texts = []
    for number, values in enumerate(processes):
        registry = CollectorRegistry()
        for name, value in values.items():
            kind = Counter if name.endswith("_total") else Gauge
            metric = kind(f"x_{name}", f"Of {name}.", ["process"], registry=registry).labels(str(number))
            metric.inc(value)
        texts.append(generate_latest(registry).decode())
    joined = "\n".join(joined_metrics.joined(texts)) + "\n"
    families = list(text_string_to_metric_families(joined))
    assert len({family.name for family in families}) == len(families)
    found = {
        (sample.name, sample.labels["process"]): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert found == {
        (f"x_{name}", str(number)): value
        for number, values in enumerate(processes)
        for name, value in values.items()
    }
    assert joined.count("# TYPE ") == len(families)


def test_a_process_that_does_not_answer_is_left_out_and_named(tmp_path: Path) -> None:
    def broken() -> Page:
        raise http.client.HTTPException

    admin = Admin(f"unix:{tmp_path}/admin", 0, {"/metrics": lambda: Page(200, b"of_a 1\n"), "/bad": broken})
    admin.start()
    try:
        here = (f"unix:{tmp_path}/admin", 0)
        sources: dict[str, joined_metrics.Source] = {
            "a": lambda: (here, "/metrics"),
            "b": lambda: (here, "/nothing"),
            "c": lambda: ((f"unix:{tmp_path}/nobody", 0), "/metrics"),
            "d": lambda: None,
        }
        page = joined_metrics.page(b"own 2\n", sources).decode().splitlines()
    finally:
        admin.stop()
    assert {"own 2", "of_a 1", 'xds_process_up{process="a"} 1'} <= set(page)
    assert {f'xds_process_up{{process="{name}"}} 0' for name in "bcd"} <= set(page)
