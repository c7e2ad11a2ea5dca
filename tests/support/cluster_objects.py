"""Objects of Kubernetes in YAML as a cluster has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from filters.language import Problems
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.objects import Object, kind_of, read_object


def cluster_of(text: str, keep: Callable[[Any], bool] = lambda _value: True) -> Cluster:
    """Return the cluster of some documents: what is not understood of an object is kept with its faults."""
    objects: list[Object[Any]] = []
    for value in filter(None, yaml.safe_load_all(text)):
        kind = kind_of(value)
        assert kind is not None, value
        one = read_object(kind, value, (), Problems())
        assert one is not None, value
        if keep(value):
            objects.append(one)
    return Cluster.of(objects)
