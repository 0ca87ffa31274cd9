"""HTML by construction: a text becomes part of it only escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from markdown_it import MarkdownIt

__all__ = ["Markup", "join", "rendered", "tag"]

# what a parser of HTML would replace or complain of
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"input", "meta", "br", "wbr"})

# A picture would be fetched from wherever a cell's text says.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


class Markup(str):
    """HTML that is what it is meant to be; every other string is text."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | bool | None) -> Markup:
    """Return an element. Strings are escaped, :class:`Markup` is taken as it is, None is nothing.

    A trailing underscore of an attribute is dropped, another one is a hyphen; ``True`` is an
    attribute without a value, ``None`` and ``False`` are none.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str | None]) -> Markup:
    """Put parts together as :func:`tag` does with its children."""
    return Markup(
        "".join(
            part if isinstance(part, Markup) else _escaped(part)
            for part in parts
            if part is not None
        )
    )


def rendered(markdown: str) -> Markup:
    """Render the text of a markdown cell: without HTML, pictures, or links that run something."""
    return Markup(_MARKDOWN.render(_CONTROLS.sub("\ufffd", markdown)))


def _escaped(text: str) -> str:
    return html.escape(_CONTROLS.sub("\ufffd", text))
