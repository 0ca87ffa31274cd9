"""A figure as a notebook shows it."""

from __future__ import annotations

__all__ = ["Picture"]


class Picture:
    """An SVG, shown as an image; ``told`` is what stands where images are not shown."""

    def __init__(self, svg: str, *, told: str) -> None:
        self.svg = svg
        self._told = told

    def __repr__(self) -> str:
        return self._told

    def _repr_svg_(self) -> str:
        return self.svg
