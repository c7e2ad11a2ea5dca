"""The composition root: the only place that constructs and joins things."""

from __future__ import annotations

from xds_server.compiler import Compiled as Compiled
from xds_server.compiler import Compiler as Compiler
