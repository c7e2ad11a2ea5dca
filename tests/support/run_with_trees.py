"""``python -m tests.support.run_with_trees`` is `xds run` with a tree of routes for every host."""

from __future__ import annotations

import sys

from tests.support.trees import tree
from xds_server.cli import run
from xds_server.cli.main import parser

if __name__ == "__main__":
    sys.exit(run.run(parser("run").parse_args(["run", *sys.argv[1:]]), tree(1)))
