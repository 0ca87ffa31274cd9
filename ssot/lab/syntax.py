"""Reading Python source in any thread."""

from __future__ import annotations

import ast
import threading

__all__ = ["parse", "parse_expression"]

# Python 3.11 counts the depth of a tree for the interpreter, not for the thread: two trees made at
# once can end in "SystemError: AST constructor recursion depth mismatch".
_ONE_AT_A_TIME = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """A tree of a module. Raises what ``ast.parse`` does: ``SyntaxError`` or ``ValueError``."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def parse_expression(source: str) -> ast.Expression:
    """A tree of an expression; errors as for :func:`parse`."""
    with _ONE_AT_A_TIME:
        return ast.parse(source, mode="eval")
