"""The colours of figures: told apart by colour-blind readers, legible in light and in dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

__all__ = ["COLOURS", "COMPONENTS", "Theme", "css_class", "stylesheet"]

Theme = Literal["light", "dark", "auto", "page"]
"""``auto`` follows the reader's system, or JupyterLab's theme where the figure is part of its page.

A figure of ``page`` brings no style: the page holds :func:`stylesheet` of ``page`` once, and says
``data-theme="dark"`` or ``"light"`` on its root to overrule the system.
"""

COMPONENTS = (
    "environment",
    "configuration",
    "auth",
    "websocket",
    "streams",
    "agents",
    "database",
)
"""The components in the order in which a legend names them."""

# After Okabe and Ito: neighbours differ in lightness too. Each fill comes with the ink that is read
# on it, and with an edge that stands out from the ground where the fill is too pale to.
_FILLS: Mapping[str, tuple[str, str, str, str, str, str]] = {
    # component: light fill, ink, edge; dark fill, ink, edge
    "environment": ("#f0e442", "#1c2530", "#857d00", "#e8dd4a", "#12171e", "#e8dd4a"),
    "configuration": ("#7cc4ee", "#1c2530", "#2a7fb0", "#7cc4ee", "#12171e", "#7cc4ee"),
    "auth": ("#e9a820", "#1c2530", "#946300", "#e9a820", "#12171e", "#e9a820"),
    "websocket": ("#0b6cb0", "#ffffff", "#0b6cb0", "#3d9ee0", "#12171e", "#3d9ee0"),
    "streams": ("#c44e00", "#ffffff", "#c44e00", "#ec7a33", "#12171e", "#ec7a33"),
    "agents": ("#d68bb5", "#1c2530", "#a3487c", "#d68bb5", "#12171e", "#d68bb5"),
    "database": ("#17a57c", "#1c2530", "#0b7a5b", "#2bb98f", "#12171e", "#2bb98f"),
    "other": ("#9aa5b1", "#1c2530", "#69747f", "#9aa5b1", "#12171e", "#9aa5b1"),
}

COLOURS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "light": {
            "ground": "#ffffff",
            "stripe": "#f5f7fa",
            "line": "#d8dee5",
            "axis": "#7f8a96",
            "ink": "#1c2530",
            "muted": "#56616d",
            "arrow": "#7c8894",
            "severed": "#c4232f",
            "severed-ink": "#ffffff",
            "slowed": "#845700",
            "slowed-ink": "#ffffff",
            **{f"{name}-fill": fill[0] for name, fill in _FILLS.items()},
            **{f"{name}-ink": fill[1] for name, fill in _FILLS.items()},
            **{f"{name}-edge": fill[2] for name, fill in _FILLS.items()},
        },
        "dark": {
            "ground": "#12171e",
            "stripe": "#19202a",
            "line": "#2c3642",
            "axis": "#7d8a97",
            "ink": "#e6edf3",
            "muted": "#a3afbb",
            "arrow": "#7d8a97",
            "severed": "#ff7f78",
            "severed-ink": "#12171e",
            "slowed": "#e3b341",
            "slowed-ink": "#12171e",
            **{f"{name}-fill": fill[3] for name, fill in _FILLS.items()},
            **{f"{name}-ink": fill[4] for name, fill in _FILLS.items()},
            **{f"{name}-edge": fill[5] for name, fill in _FILLS.items()},
        },
    }
)
"""What each theme's colours are, by name: of grounds, lines and inks, and of every component."""

_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"

_SHAPES = (
    ("", f"font-family:{_FONT};font-size:11px"),
    (" .n", "font-size:12.5px;font-weight:600"),
    (" .s", "font-size:9.5px"),
    (" .v", "font-size:10px;font-variant-numeric:tabular-nums"),
    (" .p", "font-size:10px;font-weight:600"),
    (" .w", "font-size:9.5px;pointer-events:none"),
    (" .c,{0} .i,{0} .k", "fill:none"),
    (" .k", "stroke-width:1.2;stroke-dasharray:2 3"),
    (" .c", "stroke-width:1;opacity:.75"),
    (" .i", "stroke-width:1.4"),
    (" .b", "stroke-width:1"),
    (" .q", "opacity:.55"),
    (" .u", "paint-order:stroke;stroke-width:5;stroke-linejoin:round"),
    (" .x", "stroke-width:1.8"),
    (" .f", "fill-opacity:.13"),
    (" .h", "stroke-width:1.2;opacity:.35"),
    (" .e", "stroke-width:1.6"),
    (" .z", "stroke-width:2;stroke-dasharray:5 3"),
    (" [tabindex]:focus-visible,{0} .b:hover,{0} .d:hover", "filter:brightness(1.15)"),
)

_INKS = (
    (" .g", "fill", "ground"),
    (" .o", "fill", "stripe"),
    (" .l", "stroke", "line"),
    (" .a", "stroke", "axis"),
    (" .t,{0} .d", "fill", "ink"),
    (" .m", "fill", "muted"),
    (" .d,{0} .u", "stroke", "ground"),
    (" .j,{0} .i", "stroke", "muted"),
    (" .c", "stroke", "arrow"),
    (" .ch", "fill", "arrow"),
    (" .f1,{0} .p1", "fill", "severed"),
    (" .f2,{0} .p2", "fill", "slowed"),
    (" .h1,{0} .e1,{0} .z,{0} .x,{0} .k1", "stroke", "severed"),
    (" .h2,{0} .e2,{0} .k2", "stroke", "slowed"),
    (" .t1", "fill", "severed-ink"),
    (" .t2", "fill", "slowed-ink"),
    (" .d2", "fill", "severed"),
)


def css_class(component: str) -> str:
    """The class of a bar of this component; one for all that are not known."""
    return f"y{COMPONENTS.index(component)}" if component in COMPONENTS else "y9"


def _rules(scope: str, value: Callable[[str], str]) -> str:
    inks = [*_INKS]
    for component in (*COMPONENTS, "other"):
        name = css_class(component)
        inks.append((f" .{name}", "fill", f"{component}-fill"))
        inks.append((f" .{name}:not(.x)", "stroke", f"{component}-edge"))
        inks.append((f" .w{name}", "fill", f"{component}-ink"))
    return "".join(
        f"{scope}{selector.format(scope)}{{{what}:{value(colour)}}}"
        for selector, what, colour in inks
    )


def _shapes(scope: str) -> str:
    return "".join(f"{scope}{selector.format(scope)}{{{style}}}" for selector, style in _SHAPES)


def _variables(theme: str) -> str:
    return ";".join(f"--sf-{name}:{colour}" for name, colour in COLOURS[theme].items())


def stylesheet(theme: Theme) -> str:
    """The rules of a theme's figures: every selector begins with the figure's own class."""
    if theme in ("light", "dark"):
        # Literal colours: also programs that know no variables show them.
        scope = f".sf-{theme}"
        return _shapes(scope) + _rules(scope, COLOURS[theme].__getitem__)
    scope = f".sf-{theme}"
    rules = _shapes(scope) + _rules(scope, lambda name: f"var(--sf-{name})")
    light, dark = _variables("light"), _variables("dark")
    if theme == "auto":
        return (
            f"{scope}{{{light}}}@media(prefers-color-scheme:dark){{{scope}{{{dark}}}}}"
            f'[data-jp-theme-light="true"] {scope}{{{light}}}'
            f'[data-jp-theme-light="false"] {scope}{{{dark}}}{rules}'
        )
    return (
        f":root{{{light}}}"
        "@media screen and (prefers-color-scheme:dark)"
        f'{{:root:not([data-theme="light"]){{{dark}}}}}'
        f'@media screen{{:root[data-theme="dark"]{{{dark}}}}}{rules}'
    )
