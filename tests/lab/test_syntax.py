"""Reading Python source: in many threads at once, as in one."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streams.support import threads

from ssot.lab.syntax import parse, parse_expression

SOURCE = Path(__file__).read_text()


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns as often as they can, also while a tree is made."""

    def look(*_: object) -> None:
        sum(range(50))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    gc.callbacks.append(look)
    yield
    gc.callbacks.remove(look)
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_threads_that_read_at_once_do_not_disturb_each_other() -> None:
    """Each gets the whole tree, however they interleave."""

    def read(_: int) -> None:
        for _ in range(100):
            assert len(parse(SOURCE).body) > 5
            assert isinstance(parse_expression("[1, (2, {3: 4})]").body, ast.List)

    threads(read, 3)
