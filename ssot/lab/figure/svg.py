"""Writing SVG: elements whose texts are escaped, short numbers, and how wide a text will be."""

from __future__ import annotations

import html
import re
import unicodedata

__all__ = ["clipped", "element", "number", "text_width"]

# what XML 1.0 cannot hold
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW = frozenset("iljtfrI.,:;'|!()[]{}/\\ -`\"")
_WIDE = frozenset("mwMW@%—…")


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0").replace("-0", "0" if abs(value) < 0.05 else "-0")


def escaped(text: str) -> str:
    """Text that can stand in an element or an attribute, whatever it says."""
    return html.escape(_NOT_XML.sub("\ufffd", text))


def element(tag: str, *children: str, text: str = "", **attributes: str | float) -> str:
    """One element: ``text`` and attributes are escaped, ``children`` are elements already.

    A trailing underscore of a name is dropped, another one is a hyphen.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="'
        f'{escaped(value) if isinstance(value, str) else number(value)}"'
        for name, value in attributes.items()
    )
    inside = escaped(text) + "".join(children)
    return f"<{tag}{given}>{inside}</{tag}>" if inside else f"<{tag}{given}/>"


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a text is at most, in the usual fonts of a screen."""
    ems = 0.0
    for character in text:
        if character in _NARROW:
            ems += 0.38
        elif character in _WIDE or unicodedata.east_asian_width(character) in "WF":
            ems += 1.0
        elif character.isupper() or character.isdigit():
            ems += 0.68
        else:
            ems += 0.59
    return ems * size * (1.12 if bold else 1.0)


def clipped(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The text, or so much of its beginning as there is room for, with an ellipsis; or nothing."""
    text = " ".join(text.split())
    size *= 1.12 if bold else 1.0
    if text_width(text, size) <= room:
        return text
    room -= text_width("…", size)
    kept = ""
    for character in text:
        if text_width(kept + character, size) > room:
            break
        kept += character
    kept = kept.rstrip()
    return f"{kept}…" if len(kept) >= 3 else ""
