"""The phases of a class from its source, without running it. Each agrees with the class that the source makes."""

from __future__ import annotations

import pytest

from filters.ext_proc.rule import load_class
from filters.ext_proc.written import UnclearError, phases

HEAD = "from filters.ext_proc import Processor\n"
BODY = "    def request_body(self, request, body):\n        return body\n"
OTHER = "    async def response_headers(self, request, response):\n        return None\n"


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"p.py": f"{HEAD}class P(Processor):\n{BODY}"}, {"request_body"}),
        ({"p.py": f"{HEAD}class P(Processor):\n{BODY}{OTHER}"}, {"request_body", "response_headers"}),
        (
            {"p.py": f"{HEAD}class A(Processor):\n{BODY}class P(A):\n{OTHER}"},
            {"request_body", "response_headers"},
        ),
        (
            {"p.py": f"from filters.ext_proc import Processor as Base\nclass P(Base):\n{BODY}"},
            {"request_body"},
        ),
        (
            {"p.py": f"import filters.ext_proc\nclass P(filters.ext_proc.Processor):\n{BODY}"},
            {"request_body"},
        ),
        ({"p.py": f"from filters import ext_proc\nclass P(ext_proc.Processor):\n{BODY}"}, {"request_body"}),
        ({"p.py": f"import filters.ext_proc as e\nclass P(e.Processor):\n{BODY}"}, {"request_body"}),
        (
            {
                "policies/p.py": f"from .base import Base\nclass P(Base):\n{OTHER}",
                "policies/base.py": f"{HEAD}class Base(Processor):\n{BODY}",
            },
            {"request_body", "response_headers"},
        ),
        (
            {
                "policies/p.py": "from policies.base import Base as P\n",
                "policies/base.py": f"{HEAD}class Base(Processor):\n{BODY}",
            },
            {"request_body"},
        ),
        (
            {
                "p.py": f"import base\nclass Mixin:\n    pass\nclass P(Mixin, base.Base):\n{OTHER}",
                "base.py": f"{HEAD}class Base(Processor):\n{BODY}",
            },
            {"request_body", "response_headers"},
        ),
        (
            {
                "p.py": f"{HEAD}from typing import Generic, TypeVar\nT = TypeVar('T')\n"
                f"class P(Processor, Generic[T]):\n{BODY}"
            },
            {"request_body"},
        ),
        (
            {
                "p.py": f"{HEAD}def same(self, request, body):\n    return body\nclass P(Processor):\n    request_body = same\n"
            },
            {"request_body"},
        ),
        (
            {"p.py": f"{HEAD}class P(Processor):\n    def helper(self):\n        return 1\n{BODY}"},
            {"request_body"},
        ),
    ],
)
def test_the_source_tells_the_phases_of_the_class(sources: dict[str, str], found: set[str]) -> None:
    files = {file: source.encode() for file, source in sources.items()}
    main = next(iter(files))
    assert phases(main, "P", files) == found
    assert load_class(main, "P", files[main], files).phases == found


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("class P:\n    pass\n", "the class P of p.py is no filters.ext_proc.Processor"),
        (f"{HEAD}class P(Processor):\n    pass\n", "has none of the methods request_body, request_chunk"),
        (HEAD, "p.py has no class 'P' at its top level"),
        (f"{HEAD}P = 7\n", "p.py has no class 'P' at its top level"),
        (f"{HEAD}class P(Processor)\n    pass\n", "p.py:2: expected ':'"),
        (f"from elsewhere import Base\nclass P(Base):\n{BODY}", "is no filters.ext_proc.Processor"),
        (f"class P(P):\n{BODY}", "too many base classes"),
        (f"{HEAD}if True:\n    class P(Processor):\n        pass\n", "no class 'P' at its top level"),
    ],
)
def test_a_source_that_does_not_tell(source: str, why: str) -> None:
    with pytest.raises(UnclearError, match=why.replace("(", r"\(")):
        phases("p.py", "P", {"p.py": source.encode()})
