"""Reading a folder: all problems at once, each with its place."""

from __future__ import annotations

from xds_server.gateway.reader import Reader


def _load(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", path)


def test_every_problem_of_a_folder_is_reported_at_once_with_its_place() -> None:
    files = {
        "a.yaml": b"routes:\n  one:\n    path: /x\n    upstrem: users\n",
        "b.yaml": b"upstreams:\n  users:\n    endpoints: [127.0.0.1]\n",
    }
    reading = Reader().read(files, _load, {})
    assert reading.gateway is None
    places = {str(problem.place) for problem in reading.errors}
    assert "a.yaml:4:5" in places
    assert any(place.startswith("b.yaml:3:") for place in places)
    assert any("did you mean 'upstream'" in problem.remedy for problem in reading.errors)
