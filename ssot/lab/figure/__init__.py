"""Figures of what happened in a check, drawn from its evidence as plain SVG."""

from ssot.lab.figure.drawing import draw, draw_apart
from ssot.lab.figure.graph import graph
from ssot.lab.figure.palette import Theme, stylesheet
from ssot.lab.figure.picture import Picture
from ssot.lab.figure.scale import duration
from ssot.lab.figure.strip import strip

__all__ = ["Picture", "Theme", "draw", "draw_apart", "duration", "graph", "strip", "stylesheet"]
