"""ext_proc: a class in Python processes requests and responses.

This is what processors import: ``from filters.ext_proc import Processor, Request, Response, change, respond``.
"""

from filters.model.headers import Headers
from filters.processing.processor import Processor
from filters.processing.values import Answer, Change, Outcome, Request, Response, change, respond

__all__ = ["Processor", "Request", "Response", "Headers", "Outcome", "Change", "Answer", "change", "respond"]
