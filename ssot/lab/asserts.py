"""Assertions that show their values: a rewriting of ``assert`` for the cells of a notebook."""

from __future__ import annotations

import ast
import reprlib
from typing import Any

__all__ = ["RewriteAsserts", "Seen"]

_SEEN = "__ssot_seen__"

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 300
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 12
_short.maxlevel = 4


class Seen:
    """Collects the values of one assertion's parts while it is evaluated."""

    def __init__(self) -> None:
        self._values: list[tuple[str, Any]] = []

    def __call__(self, source: str, value: Any) -> Any:
        """Note a part's value, and return it."""
        self._values.append((source, value))
        return value

    def failure(self, source: str, message: Any = None) -> AssertionError:
        """The error of an assertion that does not hold."""
        lines = [source if message is None else f"{message}\n  {source}"]
        width = min(max((len(part) for part, _ in self._values), default=0), 40)
        shown = [f"  {part.ljust(width)} = {_short.repr(value)}" for part, value in self._values]
        # The same words with the same value say nothing twice.
        lines += dict.fromkeys(shown)
        return AssertionError("\n".join(lines))


class RewriteAsserts(ast.NodeTransformer):
    """Rewrites each ``assert`` so that its error carries the values of its operands.

    The test is evaluated once, in its order and with its short circuits. Give an instance to
    ``InteractiveShell.ast_transformers``; :class:`Seen` must be in the namespace under ``name``.
    """

    name = _SEEN

    def visit_Assert(self, node: ast.Assert) -> Any:
        """Replace an assertion."""
        source = ast.unparse(node.test)
        test = _Note().visit(node.test)
        message = ast.unparse(node.msg) if node.msg else "None"
        made = ast.parse(
            f"__ssot_note__ = {_SEEN}()\n"
            f"if not _TEST_:\n"
            f"    raise __ssot_note__.failure(_SOURCE_, {message})"
        ).body
        condition = made[1]
        assert isinstance(condition, ast.If)
        condition.test = ast.UnaryOp(ast.Not(), test)
        raising = condition.body[0]
        assert isinstance(raising, ast.Raise)
        assert isinstance(raising.exc, ast.Call)
        raising.exc.args[0] = ast.Constant(source)
        for statement in made:
            for part in ast.walk(statement):
                # Every part stands where the assertion stood, so that a traceback points at it.
                if not hasattr(part, "lineno") or part not in ast.walk(node.test):
                    ast.copy_location(part, node)
            ast.fix_missing_locations(statement)
        return made


class _Note(ast.NodeTransformer):
    """Wraps the operands of a test, not the operators between them."""

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
            return self.generic_visit(node)
        if isinstance(node, ast.expr) and not _is_literal(node):
            call = ast.Call(
                ast.Name("__ssot_note__", ast.Load()), [ast.Constant(ast.unparse(node)), node], []
            )
            return ast.copy_location(call, node)
        return node


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True
