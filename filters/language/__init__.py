"""The building blocks of the gateway language: scalars, options, and the decoder that finds every problem.

A part of the language is a frozen dataclass whose fields are its keys. From the same fields come the decoder,
the JSON Schema and the reference in docs/, so they cannot disagree. Nothing here does IO.
"""

from filters.language.datasource import DataSource
from filters.language.decode import INVALID, Decoder, Problems, decoder_for
from filters.language.options import Mistake, Off, Raw, Shorthand, option
from filters.language.problems import Path, Place, Problem, printable
from filters.language.scalars import Percent, Rate, Size

__all__ = [
    "INVALID",
    "DataSource",
    "Decoder",
    "Mistake",
    "Off",
    "Path",
    "Percent",
    "Place",
    "Problem",
    "Problems",
    "Rate",
    "Raw",
    "Shorthand",
    "Size",
    "decoder_for",
    "option",
    "printable",
]
