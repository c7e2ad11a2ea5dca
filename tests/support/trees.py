"""The forms in which tests have Envoy find routes: as the product chooses, or always by lists or by trees."""

from __future__ import annotations

from xds_server.translate.route_trees import DEFAULT, Shape

LIST = Shape(fewest=1_000_000)
"""No host gets a tree."""


def tree(length: int) -> Shape:
    """Every host gets a tree, however few routes it has, with lists of about `length` routes."""
    return Shape(fewest=1, length=length, routes=1e9, size=1e9)


class _Used:
    """The form that all tests use: as the product chooses, unless pytest was called with --route-trees."""

    shape = DEFAULT


def use_trees() -> None:
    """Use a tree for every host from now on."""
    _Used.shape = tree(1)


def shape() -> Shape:
    """The form that tests use."""
    return _Used.shape
