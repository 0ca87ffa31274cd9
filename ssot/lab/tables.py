"""A small table, for people: HTML in a notebook, aligned text elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["Table"]


class Table:
    """Rows under column heads. Numbers are set flush right."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.columns = [str(column) for column in columns]
        self.rows = [[str(cell) for cell in row] for row in rows]
        self._right = [
            bool(rows) and all(isinstance(row[i], int | float) for row in rows)
            for i in range(len(self.columns))
        ]

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            set_ = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(cells, widths, self._right, strict=True)
            ]
            return "  ".join(set_).rstrip()

        rule = "  ".join("─" * width for width in widths)
        return "\n".join([line(self.columns), rule, *map(line, self.rows)])

    def _repr_html_(self) -> str:
        aligns = ["right" if right else "left" for right in self._right]

        def row(tag: str, cells: Sequence[str]) -> str:
            made = (
                f'<{tag} style="text-align: {align}">{html.escape(cell)}</{tag}>'
                for cell, align in zip(cells, aligns, strict=True)
            )
            return f"<tr>{''.join(made)}</tr>"

        body = "\n".join(row("td", cells) for cells in self.rows)
        head = row("th", self.columns)
        return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
