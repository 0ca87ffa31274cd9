"""Assertions that show their values: a rewriting of ``assert`` for the cells of a notebook."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Callable
from typing import Any

__all__ = ["RewriteAsserts", "Seen"]

_SEEN = "__ssot_seen__"

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 300
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 12
_short.maxlevel = 4


class Seen:
    """Collects the values of one assertion's parts while it is evaluated.

    ``on_held`` is told each part of an assertion that holds, with its value.
    """

    def __init__(self, on_held: Callable[[str, Any], None] | None = None) -> None:
        self._values: list[tuple[str, Any]] = []
        self._identities: set[int] = set()
        self._on_held = on_held

    def __call__(self, source: str, value: Any) -> Any:
        """Note a part's value, and return it."""
        self._values.append((source, value))
        return value

    def looked(self, source: str, value: Any) -> Any:
        """Note a part that was only asked what it is, as by ``is not None``, and return it."""
        self._identities.add(len(self._values))
        return self(source, value)

    def held(self) -> None:
        """The assertion holds."""
        if self._on_held is not None:
            for number, (source, value) in enumerate(self._values):
                if number not in self._identities:
                    self._on_held(source, value)

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
    ``InteractiveShell.ast_transformers``; what makes a :class:`Seen` must be in the namespace under
    ``name``.
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
            f"    raise __ssot_note__.failure(_SOURCE_, {message})\n"
            f"__ssot_note__.held()"
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

    def __init__(self) -> None:
        self._identity = False

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
            before = self._identity
            if isinstance(node, ast.Compare):
                self._identity = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
            visited = self.generic_visit(node)
            self._identity = before
            return visited
        if isinstance(node, ast.expr) and not _is_literal(node):
            note: ast.expr = ast.Name("__ssot_note__", ast.Load())
            if self._identity:
                note = ast.Attribute(note, "looked", ast.Load())
            call = ast.Call(note, [ast.Constant(ast.unparse(node)), node], [])
            return ast.copy_location(call, node)
        return node


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True
